"""Byte streams in memory, with the faults of networks, but without sockets or delays."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream


class Pipe:
    """One direction of a connection: up to `capacity` bytes that were written and not yet received.

    `sink`, when given, is called with the written data within the writer's call, and with ``b""`` at the end:
    a peer that needs no task. `watchers` are called after every change.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        self.capacity = capacity
        self.sink: Callable[[bytes], None] | None = None
        self.data: bytearray = bytearray()
        self.eof: bool = False
        self.broken: bool = False
        self.stalled: bool = False
        self.watchers: list[Callable[[], None]] = []
        self._changed = anyio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
        for watcher in self.watchers:
            watcher()

    async def wait(self) -> None:
        await self._changed.wait()

    def write(self, data: bytes) -> None:
        """Append at once, ignoring the capacity: for a test that needs no back-pressure."""
        self.data += data
        self.changed()

    def end(self) -> None:
        """End the stream: the writer has no more data."""
        ended, self.eof = self.eof, True
        self.changed()
        if self.sink is not None and not ended and not self.broken:
            self.sink(b"")

    def break_(self) -> None:
        """Reset the connection: from now on both ends raise."""
        self.broken = True
        self.changed()

    def stall(self) -> None:
        """Make writers and receivers wait until `resume`."""
        self.stalled = True

    def resume(self) -> None:
        self.stalled = False
        self.changed()


class MemoryStream(ByteStream):
    """One end of a connection. `max_receive` bounds what one receive returns: 1 delivers byte by byte.

    `receives` and `sends` count the calls.
    """

    def __init__(self, incoming: Pipe, outgoing: Pipe, *, max_receive: int = 65_536) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.max_receive = max_receive
        self.closed: bool = False
        self.receiving: bool = False
        self.receives: int = 0
        self.sends: int = 0

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await anyio.lowlevel.checkpoint()
        pipe = self.incoming
        self.receives += 1
        self.receiving = True
        try:
            while True:
                if self.closed:
                    raise anyio.ClosedResourceError
                if not pipe.stalled:
                    if pipe.data:
                        size = min(max_bytes, self.max_receive)
                        data = bytes(pipe.data[:size])
                        del pipe.data[:size]
                        pipe.changed()
                        return data
                    if pipe.broken:
                        raise anyio.BrokenResourceError
                    if pipe.eof:
                        raise anyio.EndOfStream
                await pipe.wait()
        finally:
            self.receiving = False

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        pipe = self.outgoing
        self.sends += 1
        left = item
        while left:
            if self.closed:
                raise anyio.ClosedResourceError
            if pipe.broken:
                raise anyio.BrokenResourceError
            if not pipe.stalled and pipe.sink is not None:
                pipe.sink(left)
                return
            room = pipe.capacity - len(pipe.data)
            if not pipe.stalled and room > 0:
                pipe.write(left[:room])
                left = left[room:]
            else:
                await pipe.wait()

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.outgoing.end()

    async def aclose(self) -> None:
        self.closed = True
        self.outgoing.end()
        self.incoming.changed()
        await anyio.lowlevel.checkpoint()


def stream_pair(*, capacity: int = 65_536, max_receive: int = 65_536) -> tuple[MemoryStream, MemoryStream]:
    """Make the two ends of a connection in memory."""
    there, back = Pipe(capacity), Pipe(capacity)
    return (
        MemoryStream(back, there, max_receive=max_receive),
        MemoryStream(there, back, max_receive=max_receive),
    )
