"""A session's transport of bytes in memory, beneath our own core; the test plays the peer."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from speko_anyio._net.asyncio_driver import AsyncioDriver
from speko_anyio.gateway._byte_link import READ_AHEAD, ByteLink
from speko_anyio.gateway._meter import Meter
from speko_anyio.gateway._session import ServerSession, core_options, serving
from speko_anyio.gateway._session_log import make_connection
from speko_anyio.protocol import (
    ClientProtocol,
    CloseMessage,
)
from speko_anyio.protocol._framing import BINARY, CLOSE, PING, PONG, TEXT, Framer, close_payload
from speko_anyio.testing import stream_pair
from tests.support.drivers import MemoryTransport

from .support import Hearing

_HEAD = (
    b"GET /s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + base64.b64encode(bytes(16))
    + b"\r\nSec-WebSocket-Protocol: token\r\n\r\n"
)
_CORE = ("ttl", "warn_before", "close_timeout", "limits", "send_buffer", "capabilities")


class _Gate:
    """Like the event of `MemoryTransport.writable`: lets writes go on."""

    def __init__(self, wire: ByteWire) -> None:
        self._wire = wire

    def set(self) -> None:
        self._wire.stream.outgoing.resume()


class ByteWire(Hearing):
    """The same for a test as `support.MemoryTransport`, over bytes: each message is a frame of its own."""

    read_ahead = READ_AHEAD
    write_failure = "the connection broke ([Errno 32] Broken pipe)"

    def __init__(self) -> None:
        self.client = ClientProtocol(input_sample_rate=16000)
        self.answers_close = True
        self.pongs = True
        # Small reads: the session takes all of what was read, even if its inbox is full.
        self.stream, self._peer = stream_pair(max_receive=512)
        self.stream.outgoing.sink = self._take
        self._heard = bytearray()
        self._opened = False
        self._to_test, self._from_server = anyio.create_memory_object_stream[str | bytes | CloseMessage](
            100_000
        )
        self._framer = Framer(client=True, entropy=bytes)
        self._said = 0
        self.meter = Meter()

    def serve(self, **options: Any) -> AbstractAsyncContextManager[ServerSession]:
        core = {name: options.pop(name) for name in _CORE if name in options}
        core.setdefault("ttl", None)
        close_timeout = core.setdefault("close_timeout", 5.0)
        if "send_buffer" in core:
            options["send_buffer"] = core["send_buffer"]
        options.setdefault("metadata", None)
        self.meter = options.setdefault("meter", self.meter)
        connection = make_connection(options["session_id"], **core_options(options["config"], **core))
        connection.receive_data(_HEAD)
        connection.next_event()
        connection.accept()
        self.driver = driver = AsyncioDriver(asyncio.get_running_loop())
        MemoryTransport(self.stream, driver)
        link = ByteLink(connection, driver, close_timeout=close_timeout)
        return serving(ServerSession(link, **options), close_timeout=close_timeout)

    # The faults of networks

    @property
    def writable(self) -> Any:
        return _Gate(self)

    @writable.setter
    def writable(self, event: object) -> None:
        self.stream.outgoing.stall()

    @property
    def broken(self) -> bool:
        return self.stream.outgoing.broken

    @broken.setter
    def broken(self, broken: bool) -> None:
        self.stream.outgoing.broken = broken

    def cut(self) -> None:
        """Break the connection."""
        self.stream.incoming.break_()

    # The peer

    def say(self, *messages: str | bytes | CloseMessage | None) -> None:
        """Send as the client, raw; None: the connection is lost."""
        for message in messages:
            match message:
                case None:
                    self.stream.incoming.end()
                case str():
                    self._frame(TEXT, message.encode())
                case bytes():
                    self._frame(BINARY, message)
                case CloseMessage(code=code, reason=reason):
                    self._frame(CLOSE, close_payload(code, reason))

    def _frame(self, first: int, payload: bytes) -> None:
        self._said += first in (TEXT, BINARY)
        self.stream.incoming.write(self._framer.frame(first, payload))

    def flush(self) -> None:
        """Send what the client's core queued."""
        self.say(*self.client.messages_to_send())

    @property
    def untaken(self) -> int:
        """Messages said and not yet taken by the session."""
        return self._said - self.meter.messages_in

    def _take(self, data: bytes) -> None:
        """Take bytes from the server, within its write."""
        self._heard += data
        if not self._opened:
            _, end, rest = self._heard.partition(b"\r\n\r\n")
            if not end:
                return
            self._opened = True
            self._heard = rest
        while len(self._heard) >= 2:
            first, size = self._heard[0], self._heard[1]
            start = {126: 4, 127: 10}.get(size, 2)
            if start > 2:
                size = int.from_bytes(self._heard[2:start], "big")
            if len(self._heard) < start + size:
                return
            payload = bytes(self._heard[start : start + size])
            del self._heard[: start + size]
            self._take_frame(first, payload)

    def _take_frame(self, first: int, payload: bytes) -> None:
        if first == TEXT:
            self._to_test.send_nowait(payload.decode())
        elif first == BINARY:
            self._to_test.send_nowait(payload)
        elif first == CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else 1005
            self._to_test.send_nowait(CloseMessage(code, payload[2:].decode()))
            if self.answers_close:
                self.say(CloseMessage(code, ""))
        elif first == PING and self.pongs:
            self._frame(PONG, payload)

    def stop(self) -> None:
        """Close what the test did not."""
        self._to_test.close()
        self._from_server.close()
