"""A recogniser process for tests: what it does is its argument, or else what it is asked to hear."""

from __future__ import annotations

import sys

from speko_anyio.gateway.local._worker_messages import (
    HEADER,
    Recognised,
    Refused,
    Warm,
    decode_request,
    encode,
)


def main(mode: str) -> None:
    if mode == "does not start":
        sys.exit(3)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    if mode == "refuses":
        sink.write(encode(Refused("has no model; get one")))
        sink.flush()
        return
    sink.write(encode(Warm()))
    sink.flush()
    while header := source.read(HEADER.size):
        (length,) = HEADER.unpack(header)
        order = decode_request(source.read(length)).pcm
        if order == b"crash":
            sys.exit(4)
        if order == b"garbage":
            sink.write(HEADER.pack(3) + b"\xc1\xc1\xc1")
        elif order == b"huge":
            sink.write(HEADER.pack(2**31))
        elif order == b"out of turn":
            sink.write(encode(Warm()))
        elif order != b"hang":
            sink.write(encode(Recognised(order.decode(), known=False)))
        sink.flush()


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else "")
