"""Every way to drive a session: the event loops times the drivers, all over the same streams in memory.

A test module gets all of them with this fixture::

    @pytest.fixture(params=EVERY_DRIVER)
    def anyio_backend(request, monkeypatch): return driven(request.param, monkeypatch)
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any, cast

import anyio
import pytest
import trio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

from speko_anyio._net import trio_driver
from speko_anyio._net.asyncio_driver import AsyncioDriver
from speko_anyio._net.driver import Driver
from speko_anyio._net.stream_driver import StreamDriver
from speko_anyio._net.trio_driver import TrioDriver
from speko_anyio.client import _open_core as open_core
from speko_anyio.testing._streams import MemoryStream, Pipe
from tests.support.event_loops import EVENT_LOOPS, VIRTUAL_EVENT_LOOPS, Options, event_loop

Way = tuple[str, str]
"""An event loop, and ``stream`` or ``native`` for the driver."""


def _ways(loops: Iterable[str]) -> list[Any]:
    return [
        pytest.param((loop, driver), id=f"{loop}-{driver}")
        for loop in loops
        for driver in ("stream", "native")
    ]


EVERY_DRIVER = _ways(EVENT_LOOPS)
EVERY_VIRTUAL_DRIVER = _ways(VIRTUAL_EVENT_LOOPS)


def driven(way: Way, monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options of anyio's backend; streams in memory are driven that way from here on."""
    loop, driver = way
    if driver == "native":
        native = _over_socket if "trio" in loop else _over_transport
        monkeypatch.setattr(open_core, "StreamDriver", native)
        monkeypatch.setitem(_DRIVERS, "driver", native)
        for name in ("wait_readable", "wait_writable", "notify_closing"):
            monkeypatch.setattr(trio_driver, name, getattr(MemorySocket, name))
    return event_loop(loop)


_DRIVERS: dict[str, Callable[[ByteStream], Driver]] = {"driver": StreamDriver}


def driver_over(stream: ByteStream) -> Driver:
    """Drive `stream`, which is in memory, the way that was given to `driven`."""
    return _DRIVERS["driver"](stream)


def _over_transport(stream: ByteStream) -> AsyncioDriver:
    assert isinstance(stream, MemoryStream)
    driver = AsyncioDriver(asyncio.get_running_loop())
    MemoryTransport(stream, driver)
    return driver


def _over_socket(stream: ByteStream) -> TrioDriver:
    assert isinstance(stream, MemoryStream)
    return TrioDriver(cast(Any, MemorySocket(stream)))


def raw_socket(driver: Driver) -> socket.socket:
    """The socket of a driver of a real connection."""
    if isinstance(driver, AsyncioDriver):
        raw: socket.socket = driver._transport.get_extra_info("socket")
        return raw
    if isinstance(driver, TrioDriver):
        return driver._socket
    assert isinstance(driver, StreamDriver)
    return driver._stream.extra(SocketAttribute.raw_socket)


_CALLBACKS = 200
"""More turns of the loop than any test has callbacks in a row; anyio only knows of tasks."""


async def settled() -> None:
    """Wait until every task waits for something, and the loop has no callback left to call."""
    for _ in range(_CALLBACKS):
        await checkpoint()
    await anyio.wait_all_tasks_blocked()


class MemoryTransport(asyncio.Transport):
    """asyncio's side of a `MemoryStream`: behaves as its socket transports do, flow control included."""

    def __init__(self, stream: MemoryStream, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._reading = True
        self._scheduled = False
        self._closing = False
        self._ended = False
        self._lost = False
        self._buffer = bytearray()
        self._high, self._low = 65_536, 16_384
        self._writing_paused = False
        stream.incoming.watchers.append(self._schedule)
        stream.outgoing.watchers.append(self._call_flush)
        protocol.connection_made(self)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._flush()

    def abort(self) -> None:
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        self._closing = True
        self._buffer.clear()
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._connection_lost, error)

    def _connection_lost(self, error: Exception | None) -> None:
        self._stream.incoming.watchers.remove(self._schedule)
        self._stream.outgoing.watchers.remove(self._call_flush)
        self._protocol.connection_lost(error)
        self._stream.receiving = False
        self._stream.closed = True
        self._stream.outgoing.end()

    # Reading

    def pause_reading(self) -> None:
        self._reading = self._stream.receiving = False

    def resume_reading(self) -> None:
        self._reading = self._stream.receiving = True
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        pipe = self._stream.incoming
        if self._closing or not self._reading or pipe.stalled:
            return
        if pipe.data:
            buffer = memoryview(self._protocol.get_buffer(-1))
            size = min(len(pipe.data), self._stream.max_receive, len(buffer))
            buffer[:size] = pipe.data[:size]
            del pipe.data[:size]
            pipe.changed()
            self._protocol.buffer_updated(size)
        elif pipe.broken:
            self._lose(ConnectionResetError(104, "Connection reset by peer"))
        elif pipe.eof and not self._protocol.eof_received():
            self.close()

    # Writing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high, self._low = high or 0, low or 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ended = True
        self._flush()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._lost:
            self._stream.sends += 1
            self._buffer += data
            self._flush()

    def _call_flush(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        pipe = self._stream.outgoing
        while self._buffer and not pipe.stalled:
            if pipe.broken:
                self._lose(BrokenPipeError(32, "Broken pipe"))
                return
            data = bytes(self._buffer)
            if pipe.sink is not None:
                self._buffer.clear()
                pipe.sink(data)
            elif room := max(pipe.capacity - len(pipe.data), 0):
                del self._buffer[:room]
                pipe.write(data[:room])
            else:
                break
        if len(self._buffer) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()
        elif len(self._buffer) <= self._low and self._writing_paused:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._ended and not self._buffer and not pipe.eof:
            pipe.end()
        if self._closing and not self._buffer:
            self._lose(None)


class MemorySocket:
    """A non-blocking socket's side of a `MemoryStream`, with what `trio.lowlevel` does to sockets."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self._notices = 0

    def recv(self, size: int) -> bytes:
        pipe = self._stream.incoming
        self._stream.receives += 1
        if not self._readable():
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        if self._stream.closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        if pipe.data:
            size = min(size, self._stream.max_receive)
            data = bytes(pipe.data[:size])
            del pipe.data[:size]
            pipe.changed()
            return data
        if pipe.broken:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return b""

    def send(self, data: bytes) -> int:
        pipe = self._stream.outgoing
        self._stream.sends += 1
        if not self._writable():
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        if self._stream.closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        if pipe.broken:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        if pipe.sink is not None:
            pipe.sink(data)
            return len(data)
        size = min(len(data), pipe.capacity - len(pipe.data))
        pipe.write(data[:size])
        return size

    def close(self) -> None:
        if not self._stream.closed:
            self._stream.closed = True
            self._stream.outgoing.end()
            self._stream.incoming.changed()

    def _readable(self) -> bool:
        pipe = self._stream.incoming
        return self._stream.closed or (not pipe.stalled and (bool(pipe.data) or pipe.broken or pipe.eof))

    def _writable(self) -> bool:
        pipe = self._stream.outgoing
        room = pipe.broken or pipe.sink is not None or len(pipe.data) < pipe.capacity
        return self._stream.closed or (not pipe.stalled and room)

    async def wait_readable(self) -> None:
        if self._stream.receiving:
            raise trio.BusyResourceError("another task is already reading this socket")
        self._stream.receiving = True
        notices = self._notices
        try:
            await self._wait(self._stream.incoming, self._readable)
        finally:
            if self._notices == notices:
                self._stream.receiving = False

    async def wait_writable(self) -> None:
        await self._wait(self._stream.outgoing, self._writable)

    async def _wait(self, pipe: Pipe, ready: Callable[[], bool]) -> None:
        notices = self._notices
        if ready():
            await checkpoint()
        while not ready() and self._notices == notices:
            changed = trio.Event()
            pipe.watchers.append(changed.set)
            try:
                await changed.wait()
            finally:
                pipe.watchers.remove(changed.set)
        if self._notices != notices:
            raise trio.ClosedResourceError("another task closed this socket")

    def notify_closing(self) -> None:
        self._notices += 1
        self._stream.receiving = False
        self._stream.incoming.changed()
        self._stream.outgoing.changed()
