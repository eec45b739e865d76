"""The server of ``client.py``, in picows on uvloop, so that it is never the bottleneck.

It speaks enough of the protocol to mint sessions and to exchange audio:

    python benchmarks/client_server.py      # prints its two ports, serves until it is terminated

The path of a session's WebSocket decides what happens to its audio:

- ``/echo``: every message is sent back;
- ``/sink``: a `commit` is answered with one message, once all messages before it were read;
- ``/flood/N``: a `commit` is answered with N messages, as fast as they are accepted.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

PCM: Final = bytes(range(256)) * 3 + bytes(192)
"""20 ms at 24 kHz: 960 bytes."""

READY: Final = b'{"t":"ready","inputSampleRate":24000,"outputSampleRate":24000}'
TOKEN: Final = "wst_0123456789abcdef"

_FRAME: Final = b"\x82\x7e" + len(PCM).to_bytes(2) + PCM
_BURST: Final = 64
"""Messages written at a time, so that the server is always ahead."""


class Endpoint(NamedTuple):
    streams: str
    """URL of the WebSockets, without the path."""
    mint: str
    """Base URL of the HTTP API."""


@contextmanager
def serving(core: int | None) -> Iterator[Endpoint]:
    """Run the server in its own process, bound to processor `core` unless that is None."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        streams, mint = line.split()
        yield Endpoint(f"ws://127.0.0.1:{streams}", f"http://127.0.0.1:{mint}")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


class _Session(WSListener):
    def __init__(self, path: str) -> None:
        self._path = path
        self._flood: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.send(WSMsgType.TEXT, READY)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.BINARY:
            if self._path == "/echo":
                transport.send(WSMsgType.BINARY, frame.get_payload_as_memoryview())
        elif kind == WSMsgType.TEXT:
            number = int(self._path.removeprefix("/flood/")) if self._path.startswith("/flood/") else 1
            self._flood = asyncio.get_running_loop().create_task(self._send(number))
        elif kind == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), b"")
            transport.disconnect()

    async def _send(self, number: int) -> None:
        for sent in range(0, number, _BURST):
            await self._writable.wait()
            self._transport.underlying_transport.write(_FRAME * min(_BURST, number - sent))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._flood is not None:
            self._flood.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


def _accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
    offered = request.headers["Sec-WebSocket-Protocol"]
    response = WSUpgradeResponse.create_101_response(extra_headers={"Sec-WebSocket-Protocol": offered})
    return WSUpgradeResponseWithListener(response, _Session(request.path.decode()))


def _grant(streams: int) -> bytes:
    grant = {
        "mode": "s2s",
        "sessionId": "s",
        "wsUrl": f"ws://127.0.0.1:{streams}/echo",
        "wsToken": TOKEN,
        "inputSampleRate": 24000,
        "outputSampleRate": 24000,
        "expiresAt": "2100-01-01T00:00:00Z",
    }
    body = json.dumps(grant).encode()
    return b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


async def start_streams() -> asyncio.Server:
    """Start to serve the WebSockets alone, on a free port."""
    return await ws_create_server(_accept, "127.0.0.1", 0)


async def _serve() -> None:
    streams = await start_streams()
    streams_port = streams.sockets[0].getsockname()[1]
    answer = _grant(streams_port)

    async def mint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    minting = await asyncio.start_server(mint, "127.0.0.1", 0)
    print(streams_port, minting.sockets[0].getsockname()[1], flush=True)
    await asyncio.gather(streams.serve_forever(), minting.serve_forever())


if __name__ == "__main__":
    uvloop.run(_serve())
