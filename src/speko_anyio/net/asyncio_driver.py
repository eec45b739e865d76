"""A pump driven by asyncio itself: its transport calls us back, and no task of ours stands in between.

The only module that imports asyncio; it is loaded when a session connects there. Against a byte stream it
spares each read the way through a queue, an event and a task: most of what a session costs.

The callbacks come outside of any task: nothing of anyio may be made in one.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVarTuple, cast

import anyio
from anyio.lowlevel import checkpoint

from ..protocol.timers import AT_ONCE
from ..protocol.url import WebSocketURL
from .driver import Driven
from .happy_eyeballs import connect_socket
from .lifetime import Lifetime, bug
from .transport import describe
from .trust import default_ssl_context

_Args = TypeVarTuple("_Args")

_SENDS_PER_TURN: Final = 16
"""Sends for one turn of the event loop, which is also where a cancellation is noticed, when none has to wait:
a turn costs more than a send."""

_HOLD_WITHIN: Final = 20e-6
"""Seconds after a write in which the next is held until the loop's turn is over, to go out with what follows.
So close together they are of one turn, nearly always, and a system call costs more than all the rest of a
send. A lone message, such as every 20 ms of speech, never waits. By the machine's clock: uvloop's own knows
milliseconds."""

_MAX_HELD: Final = 65_536
"""Bytes that are held at most."""

_READ_SIZE: Final = 65_536
"""Bytes of a read at most. Into a buffer of ours: asyncio would allocate 256 KiB for each read, which the
allocator of a small process maps anew every time, a third of what a message there and back takes."""

_reads: Final = threading.local()

_CLOSED_WITHIN: Final = 1.0
"""Seconds for the loop to close a transport that was aborted, which takes it a turn or two."""


async def connect(where: WebSocketURL, *, ssl_context: ssl.SSLContext | None) -> AsyncioDriver:
    """Connect to the host, with TLS for ``wss``. Raises OSError, `ssl.SSLError` among them. Cancelled, it
    leaves nothing open."""
    loop = asyncio.get_running_loop()
    if not where.secure:
        ssl_context = None
    elif ssl_context is None:
        ssl_context = default_ssl_context()
    connected = await connect_socket(where.host, where.port, connect=loop.sock_connect)
    _, driver = await loop.create_connection(
        lambda: AsyncioDriver(loop),
        sock=connected,
        ssl=ssl_context,
        server_hostname=where.host if where.secure else None,
    )
    return driver


class AsyncioDriver(asyncio.BufferedProtocol):
    """Drives a pump over the transport whose protocol it is. See `Driver`."""

    # Half a kibibyte for each session.
    __slots__ = (
        "_armed",
        "_begun",
        "_cause",
        "_close_timeout",
        "_data_to_send",
        "_driven",
        "_early",
        "_ending",
        "_gone",
        "_held",
        "_held_size",
        "_lifetime",
        "_loop",
        "_lost",
        "_opening",
        "_paused",
        "_read_buffer",
        "_reading",
        "_sends_left",
        "_timer",
        "_transport",
        "_turns",
        "_waiting",
        "_writable",
        "_written_at",
        "bytes_sent",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._driven: Driven | None = None
        self._begun = False
        self._lifetime: Lifetime | None = None
        self._opening: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._early = b""
        self._read_buffer = _read_buffer()
        self._reading = False
        self._paused = False
        self._turns = asyncio.Lock()
        self._waiting = 0
        self._writable: asyncio.Future[None] | None = None
        self._sends_left = 0
        self._written_at = -_HOLD_WITHIN
        self._held: list[bytes] = []
        self._held_size = 0
        self._ending = False
        self._lost = False
        self._cause: Exception | None = None
        self._gone: asyncio.Event | None = None
        self.bytes_sent = 0

    # As the session sees it

    def attach(self, driven: Driven, *, close_timeout: float) -> None:
        self._driven = driven
        self._data_to_send = driven.data_to_send
        self._close_timeout = close_timeout
        driven.watch_space(self._space_made)

    async def handshake(self) -> None:
        self._opening = self._loop.create_future()
        self._begin()
        await self._opening
        self._opening = None

    def start(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        if not self._begun:
            self._begin()

    def _begin(self) -> None:
        """Take what came before there was anybody to take it, and read on."""
        self._begun = True
        if self._early:
            self._attached().receive_data(self._early)
            self._early = b""
        if self._lost:
            self._end_lost()
        self.core_changed()

    async def send(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        if self._sends_left:
            self._sends_left -= 1
        else:
            await checkpoint()
            self._sends_left = _SENDS_PER_TURN - 1
        # Somebody waits also who was told just now that all is written, and has not gone on yet.
        others_wait = self._paused or self._waiting
        if others_wait:
            await self._send_in_turn(verb, *args)
            return
        verb(*args)
        self._write()
        if self._paused or self._transport.is_closing():
            self._waiting += 1
            try:
                # Taken without waiting: to be cancelled between the write and the wait would go unnoticed.
                async with self._turns:
                    await self._wait_written()
            finally:
                self._waiting -= 1

    def make_waiter(self) -> _Waiter:
        return _Waiter(self._loop)

    def current_time(self) -> float:
        return self._loop.time()

    def core_changed(self) -> None:
        driven = self._attached()
        if driven.full is self._reading and not self._ending:
            if self._reading:
                self._stop_reading()
            else:
                self._resume_reading()
        if driven.deadline != self._armed:
            self._arm()
        if driven.done:
            self._finish()
        elif driven.has_output and not self._paused:
            self._write()
        if self._opening is not None and not driven.connecting:
            _wake(self._opening)

    def abort(self, reason: str) -> None:
        try:
            goodbye = self._attached().abort(reason)
            if goodbye and not (self._paused or self._transport.is_closing()):
                # Whatever the system does not take at once is dropped by the transport's abort below.
                self.bytes_sent += len(goodbye)
                self._held.append(goodbye)
                self._write_held()
            self.core_changed()
        finally:
            self._transport.abort()

    async def wait_closed(self) -> None:
        if self._lost:
            await checkpoint()
        else:
            await self._gone_event().wait()

    async def wait_gone(self) -> None:
        if not self._lost:
            with anyio.move_on_after(_CLOSED_WITHIN, shield=True):
                await self._gone_event().wait()

    async def aclose_forcefully(self) -> None:
        self._transport.abort()
        await self.wait_gone()

    # As asyncio sees it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # A send waits until the system has taken the whole of it. (Not 0: for a TLS transport that is always
        # exceeded.)
        self._transport.set_write_buffer_limits(high=1, low=0)
        # Nothing is taken before there is a pump to take it.
        self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._read_buffer[:nbytes])
        if self._driven is None:
            # uvloop starts to read all the same; this time it stops.
            self._early += data
            self._transport.pause_reading()
        elif not self._ending:
            try:
                driven = self._driven
                # The usual read is audio and nothing else; then there is nothing to see to.
                if driven.receive_data(data) or self._opening is not None:
                    self.core_changed()
            except Exception as error:  # noqa: BLE001 - a bug must not end in asyncio's log
                self._report(error)

    def eof_received(self) -> None:
        # Without a pump it comes again, as the loss of the connection.
        if self._driven is not None and not self._ending:
            self._guard(self._receive_eof)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._cause = exc
        self._held.clear()
        if self._driven is not None:
            self._guard(self._end_lost)
        if self._gone is not None:
            self._gone.set()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._guard(self._write_on)

    # Reading

    def _stop_reading(self) -> None:
        self._reading = False
        self._transport.pause_reading()
        self._attached().reading_paused()

    def _resume_reading(self) -> None:
        self._reading = True
        self._transport.resume_reading()
        self._attached().reading_resumed()

    def _space_made(self) -> None:
        # Not here and now: the pump may be in the middle of delivering.
        if not self._reading and not self._ending:
            self._loop.call_soon(self._guard, self.core_changed)

    def _receive_eof(self) -> None:
        self._attached().receive_eof()
        self.core_changed()

    # Writing

    def _write(self) -> None:
        """Write what the core has queued, or hold it until the end of the loop's turn."""
        data = self._data_to_send()
        if not data:
            return
        self.bytes_sent += len(data)
        if not self._held and monotonic() - self._written_at > _HOLD_WITHIN:
            self._transport.write(data)
            self._written_at = monotonic()
            return
        if not self._held:
            self._loop.call_soon(self._write_held)
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size > _MAX_HELD:
            self._write_held()

    def _write_held(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._held_size = 0
            self._written_at = monotonic()
            self._transport.write(data)

    def _write_on(self) -> None:
        """The transport takes more."""
        if self._ending:
            self._write_last()
            return
        if self._attached().has_output:
            self._write()
        if not self._paused:
            _wake(self._writable)

    async def _send_in_turn(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        """Send behind everybody who waits already. Cancelled while it waits, it changes nothing."""
        self._waiting += 1
        try:
            async with self._turns:
                await self._wait_writable()
                verb(*args)
                self._write()
                if self._paused or self._transport.is_closing():
                    await self._wait_written()
        finally:
            self._waiting -= 1

    async def _wait_writable(self) -> None:
        """Wait until the transport takes more, or the session is over. The caller holds `_turns`."""
        while self._paused and not self._ending:
            self._writable = self._loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    async def _wait_written(self) -> None:
        """Wait until the system has taken all that was written; else the session is over."""
        driven = self._attached()
        try:
            if self._paused:
                await self._wait_writable()
            elif not self._lost:
                # The write found the connection broken; the loop tells in a moment.
                await self._gone_event().wait()
        except BaseException:
            # How much of it goes out nobody knows.
            driven.send_failed()
            self.core_changed()
            raise
        if self._paused or self._lost:
            raise driven.error.with_traceback(None)

    # Time

    def _arm(self) -> None:
        driven = self._attached()
        if driven.deadline == AT_ONCE:
            driven.handle_timeout(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = driven.deadline
        if self._armed is not None:
            self._timer = self._loop.call_at(self._armed, self._timer_fired)

    def _timer_fired(self) -> None:
        self._guard(self._time_out)

    def _time_out(self) -> None:
        self._armed = self._timer = None
        self._attached().handle_timeout(self._loop.time())
        self.core_changed()

    # The end

    def _finish(self) -> None:
        """The session is over: write what is owed, in bounded time, and close the transport."""
        if self._ending:
            return
        self._ending = True
        _wake(self._writable)
        if not (self._attached().has_output or self._held):
            self._transport.abort()
            return
        self._timer = self._loop.call_later(self._close_timeout, self._transport.abort)
        if not self._paused:
            self._write_last()

    def _write_last(self) -> None:
        self._write()
        self._write_held()
        self._transport.close()

    def _end_lost(self) -> None:
        """The transport is gone, whosever wish it was."""
        driven = self._attached()
        if self._timer is not None:
            self._timer.cancel()
        self._ending = True
        if not driven.done:
            broken = anyio.BrokenResourceError()
            broken.__cause__ = self._cause
            driven.receive_lost(f"the connection broke ({describe(broken)})", broken)
        _wake(self._writable)
        self.core_changed()

    def _gone_event(self) -> asyncio.Event:
        if self._gone is None:
            self._gone = asyncio.Event()
        return self._gone

    # Bugs

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - as in `buffer_updated`
            self._report(error)

    def _report(self, error: Exception) -> None:
        if self._lifetime is not None:
            self._lifetime.fail(bug(error))
        elif self._opening is not None and not self._opening.done():
            self._opening.set_exception(bug(error))
        self.abort("a bug in speko_anyio")

    def _attached(self) -> Driven:
        assert self._driven is not None, "attach something to drive first"
        return self._driven


class _Waiter:
    """What one task waits for. Events, of anyio or asyncio, are for any number of tasks and cost five times
    as much, and a session waits for each frame."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def wait(self) -> asyncio.Future[None]:
        self._future = self._loop.create_future()
        return self._future

    def wake(self) -> None:
        _wake(self._future)


def _read_buffer() -> memoryview:
    """Where reads go. Filled and handed over in one step of the loop, so one serves all the sessions of a
    thread."""
    view: memoryview | None = getattr(_reads, "buffer", None)
    if view is None:
        view = _reads.buffer = memoryview(bytearray(_READ_SIZE))
    return view


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
