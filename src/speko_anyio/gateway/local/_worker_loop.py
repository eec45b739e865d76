"""The loop of a recogniser process: requests in, answers out, over the process's pipes."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ._worker_messages import HEADER, MAX_MESSAGE, Recognised, Refused, Warm, decode_request, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._grammar import Grammar


class CannotStartError(Exception):
    """The engine can't be made; the message, the rest of a sentence about the process, says what to do."""


class Engine(Protocol):
    """What recognises."""

    def warm_up(self) -> None:
        """Do what would make the first utterance slow."""
        ...

    def hear(self, pcm: bytes, grammar: Grammar) -> Recognised:
        """Return what is said in `pcm`, PCM16 mono at `worker_messages.SAMPLE_RATE`."""
        ...


def serve(make_engine: Callable[[], Engine], source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests from `source` on `sink` until `source` ends."""

    def write(reply: Recognised | Refused | Warm) -> None:
        sink.write(encode(reply))
        sink.flush()

    try:
        engine = make_engine()
    except CannotStartError as error:
        write(Refused(str(error)))
        return
    engine.warm_up()
    write(Warm())
    while header := source.read(HEADER.size):
        (length,) = HEADER.unpack(header)
        if length > MAX_MESSAGE:
            raise ValueError(f"a request of {length} bytes; the gateway sends at most {MAX_MESSAGE}")
        request = decode_request(source.read(length))
        write(engine.hear(request.pcm, request.grammar))


def main(make_engine: Callable[[], Engine]) -> None:
    """Serve on the process's own pipes."""
    # Ctrl-C reaches the terminal's whole process group; the gateway ends this process when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.dup(sys.stdout.fileno())
    # Nothing that a C library prints may get between the messages.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(replies, "wb") as sink:
        serve(make_engine, sys.stdin.buffer, sink)
