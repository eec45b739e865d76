"""The driver for asyncio: a transport calls us back, with no task of ours in between.

Nothing else outside of the gateway imports asyncio. It is loaded when a session connects there. Compared with
a byte stream, a read does not pass through a queue, an event and a task, which make up most of what a session
costs.

The callbacks come outside of any task, where no object of anyio can be made.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol, TypeVarTuple, cast

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ..protocol._timers import AT_ONCE
from ..protocol.url import WebSocketURL
from .driver import REST_READS, SENDS_PER_TURN, Driven
from .happy_eyeballs import connect_socket
from .lifetime import bug
from .transport_errors import broken_by, describe
from .trust import default_ssl_context

_Args = TypeVarTuple("_Args")

_HOLD_WITHIN: Final = 40e-6
"""Seconds from the beginning of a write, which takes about 10 µs itself, in which the next one is held until
the loop's turn is over, to go out with what follows. Writes so close together nearly always belong to one
turn, and a system call costs more than the rest of a send. A lone message, such as one every 20 ms of speech,
never waits. Measured by the machine's clock, since uvloop's counts milliseconds."""

_MAX_HELD: Final = 65_536
"""The most bytes to hold."""

_READ_SIZE: Final = 65_536
"""The most bytes of a read, into a buffer of ours. asyncio would allocate 256 KiB for each read, which the
allocator of a small process maps anew every time: a third of the time of a round trip."""

_reads: Final = threading.local()

_LINGER_SIZE: Final = 64 * 1024 * 1024
"""The most bytes to read and drop after our last words. See `AsyncioDriver._linger`."""

_DROP_EVERY: Final = 0.005
"""Seconds between two long reads of that: a peer that does not stop at our close can wait."""

_CLOSED_WITHIN: Final = 1.0
"""Seconds to wait for the loop to close an aborted transport, which takes a turn or two."""


async def connect(where: WebSocketURL, *, ssl_context: ssl.SSLContext | None) -> AsyncioDriver:
    """Connect to the host, with TLS for ``wss``. Raises OSError, which includes `ssl.SSLError`.

    Cancelled, it leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    if not where.secure:
        ssl_context = None
    elif ssl_context is None:
        ssl_context = await default_ssl_context()
    # Only Windows' default loop lacks `add_writer`.
    watches = not isinstance(loop, asyncio.BaseEventLoop) or isinstance(loop, asyncio.SelectorEventLoop)
    connect_one = partial(_sock_connect, loop) if watches else loop.sock_connect
    connected = await connect_socket(where.host, where.port, connect=connect_one)
    if not where.secure and isinstance(loop, asyncio.SelectorEventLoop):
        driver = AsyncioDriver(loop)
        SocketTransport(loop, connected, driver, receive=driver._receive)
        return driver
    _, driver = await loop.create_connection(
        lambda: AsyncioDriver(loop),
        sock=connected,
        ssl=ssl_context,
        server_hostname=where.host if where.secure else None,
    )
    return driver


async def _sock_connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
    """Connect a non-blocking socket, in less CPU time than the loops do. Raises OSError."""
    try:
        sock.connect(address)
        return
    except BlockingIOError:
        pass
    with suppress(OSError):
        # To a server on this machine, it is connected already: waiting would take a turn of the loop.
        sock.getpeername()
        return
    writable = loop.create_future()
    loop.add_writer(sock.fileno(), _wake, writable)
    try:
        await writable
    finally:
        loop.remove_writer(sock.fileno())
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))


class FailingBlock(Protocol):
    """A `Lifetime`, or anything else that ends a session's block."""

    def fail(self, error: BaseException) -> None:
        """Cancel the block because of `error`, which the block then raises."""


class AsyncioDriver(asyncio.BufferedProtocol):
    """Drives a `Driven` over the transport whose protocol this is. See `Driver`."""

    # They save half a kibibyte per session.
    __slots__ = (
        "_armed",
        "_begun",
        "_catching_up",
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
        "_lingered",
        "_loop",
        "_lost",
        "_opening",
        "_paused",
        "_read_buffer",
        "_reading",
        "_send_now",
        "_sends_left",
        "_timer",
        "_transport",
        "_turned",
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
        self._lifetime: FailingBlock | None = None
        self._opening: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._early = b""
        self._read_buffer = _read_buffer()
        self._reading = False
        self._catching_up = False
        self._paused = False
        self._turns = asyncio.Lock()
        self._waiting = 0
        self._writable: asyncio.Future[None] | None = None
        self._send_now: Callable[[bytes], int] | None = None
        self._sends_left = 0
        # Whether the socket was read since the last checkpoint of a send, so that the loop has had a turn.
        self._turned = False
        self._written_at = -_HOLD_WITHIN
        self._held: list[bytes] = []
        self._held_size = 0
        self._ending = False
        self._lingered: int | None = None
        self._lost = False
        self._cause: Exception | None = None
        self._gone: asyncio.Event | None = None
        self.bytes_sent: int = 0

    # Driver

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

    def start(self, lifetime: FailingBlock | None) -> None:
        self._lifetime = lifetime
        if not self._begun:
            self._begin()

    def _begin(self) -> None:
        """Pass on the bytes that came before `attach`, and begin to read."""
        self._begun = True
        if self._early:
            self._attached().receive_data(self._early)
            self._early = b""
        if self._lost:
            self._end_lost()
        if not self._attached().done:
            # First of all, so that the peer is at work while the rest is done here. Not a refusal: `_finish`
            # closes at once where nothing is left to write, and the client could lose what it was sent.
            self.flush()
        self.core_changed()

    async def send(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        if self._sends_left:
            self._sends_left -= 1
        else:
            if self._turned:
                # Other tasks have had a turn already, and this is cheaper.
                await checkpoint_if_cancelled()
            else:
                await checkpoint()
            self._turned = False
            self._sends_left = SENDS_PER_TURN - 1
        # A sender that was woken but has not resumed yet still counts as waiting.
        others_wait = self._paused or self._waiting
        if others_wait:
            await self._send_in_turn(verb, *args)
            return
        verb(*args)
        if self._held or (now := monotonic()) - self._written_at <= _HOLD_WITHIN:
            self._write()
        else:
            self._written_at = now
            # The same as `_write`, inlined: every piece of audio in a conversation is written here.
            data = self._data_to_send()
            self.bytes_sent += len(data)
            if self._send_now is not None and not self._paused:
                try:
                    sent = self._send_now(data)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    # The transport will find another one: the system tells each only once.
                    self._cause = error
                    sent = 0
                if sent == len(data):
                    return
                data = data[sent:]
            self._transport.write(data)
        if self._paused or self._transport.is_closing():
            self._waiting += 1
            try:
                # The lock is free, so this does not wait: a cancellation between the write and
                # `_wait_written` would go unnoticed.
                async with self._turns:
                    await self._wait_written()
            finally:
                self._waiting -= 1

    def make_waiter(self) -> _Waiter:
        return _Waiter(self._loop)

    def current_time(self) -> float:
        return self._loop.time()

    def flush(self) -> None:
        """Write what verbs have queued, if the transport takes it; it does not react to other changes."""
        if not (self._paused or self._transport.is_closing()):
            self._write()

    def write_later(self) -> None:
        """Write on in the next turn of the event loop, because not all output was taken."""
        self._loop.call_soon(self._guard, self._write_on)

    @property
    def lost(self) -> bool:
        """Whether the transport is closed."""
        return self._lost

    def core_changed(self) -> None:
        driven = self._driven
        assert driven is not None
        if driven.behind and not (self._catching_up or self._ending):
            self._catching_up = True
            self._set_reading()
            self._loop.call_soon(self._guard, self._catch_up)
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
                # The abort below drops any bytes that the system does not take at once.
                self.bytes_sent += len(goodbye)
                self._held.append(goodbye)
                self._write_held()
            self.core_changed()
        finally:
            self._transport.abort()

    def give_up(self) -> None:
        """Close the transport, unless what it drives is over: then the driver closes it in bounded time."""
        if not self._ending:
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

    # Callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if isinstance(transport, SocketTransport):
            self._send_now = transport.send
        # A send waits until the system has taken all of it. Not 0, which a TLS transport always exceeds.
        self._transport.set_write_buffer_limits(high=1, low=0)
        # Nothing can be taken before `attach`.
        self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receive(bytes(self._read_buffer[:nbytes]))

    def _receive(self, data: bytes) -> None:
        if self._ending:
            self._drop(len(data))
            return
        self._turned = True
        if self._driven is None:
            # uvloop reads once although reading is paused.
            self._early += data
            self._transport.pause_reading()
        else:
            try:
                driven = self._driven
                # Most reads hold only audio, which changes nothing else.
                if driven.receive_data(data) or self._opening is not None:
                    self.core_changed()
            except Exception as error:  # noqa: BLE001 - a bug must not end in asyncio's log
                self._report(error)

    def eof_received(self) -> None:
        # Before `attach` it is ignored: asyncio then closes the transport, and `connection_lost` follows.
        if self._driven is not None and not self._ending:
            self._guard(self._receive_eof)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._driven is not None and not self._ending:
            # At once: asyncio closes the socket after this call.
            self._guard(self._read_rest)
        self._lose(exc)

    def _lose(self, exc: Exception | None) -> None:
        if self._catching_up and not self._ending:
            # What came before is delivered first. Nothing can be written meanwhile.
            self._paused = True
            self._loop.call_soon(self._lose, exc)
            return
        self._lost = True
        self._cause = self._cause or exc
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
        self._set_reading()
        self._attached().reading_paused()

    def _resume_reading(self) -> None:
        self._reading = True
        self._set_reading()
        self._attached().reading_resumed()

    def _set_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self._reading and not self._catching_up:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _catch_up(self) -> None:
        """Go on with what was received, a turn later, and read on once that is done."""
        self._catching_up = False
        if self._ending:
            return
        self._attached().catch_up()
        self.core_changed()
        if not (self._catching_up or self._ending):
            self._set_reading()

    def _space_made(self) -> None:
        # Later, since this may be called in the middle of a delivery.
        if not self._reading and not self._ending:
            self._loop.call_soon(self._guard, self.core_changed)

    def _read_rest(self) -> None:
        """Take what had arrived before a write failed: the peer may have said goodbye.

        asyncio does not read it any more.
        """
        transport, driven = self._transport, self._attached()
        broken = transport.get_extra_info("socket")
        if broken is None or transport.get_extra_info("sslcontext") is not None:
            return
        with socket.socket(fileno=os.dup(broken.fileno())) as rest:
            rest.setblocking(False)
            for _ in range(REST_READS):
                try:
                    size = rest.recv_into(self._read_buffer)
                except OSError:
                    return
                if not size:
                    return
                driven.receive_data(bytes(self._read_buffer[:size]))

    def _receive_eof(self) -> None:
        self._attached().receive_eof()
        self.core_changed()

    # Writing

    def _write(self) -> None:
        """Write what the core has queued, or hold it until the loop's turn is over."""
        data = self._data_to_send()
        if not data:
            return
        self.bytes_sent += len(data)
        if not self._held and (now := monotonic()) - self._written_at > _HOLD_WITHIN:
            self._written_at = now
            self._transport.write(data)
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
        """Write on, now that the transport takes more."""
        if self._ending:
            # Not here: asyncio's transport calls this in the middle of a write, and would report its end
            # twice if it were closed in between.
            self._loop.call_soon(self._guard, self._write_last)
            return
        if self._attached().has_output and not self._paused:
            self._write()
        if not self._paused:
            _wake(self._writable)

    async def _send_in_turn(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        """Send after all senders that are waiting. Cancelled while it waits, it changes nothing."""
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
        """Wait until the transport takes more or the session is over. The caller holds `_turns`."""
        while self._paused and not self._ending:
            self._writable = self._loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    async def _wait_written(self) -> None:
        """Wait until the system has taken all that was written. If it does not, the session is over."""
        driven = self._attached()
        try:
            if self._paused:
                await self._wait_writable()
            elif not self._lost:
                # The write found the connection broken; `connection_lost` follows.
                await self._gone_event().wait()
        except BaseException:
            # It is unknown how much was sent.
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

    # Ending

    def _finish(self) -> None:
        """Write what is left, in bounded time, and close the transport."""
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
        if self._paused or self._lost:
            return
        while self._attached().has_output:
            self._write()
        self._write_held()
        if self._attached().peer_left:
            self._transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Close only once the peer has, or the time for the end is over, and drop what it still sends.

        A transport that is closed while bytes are unread resets the connection, and the peer's system may
        then drop our last words.
        """
        transport = self._transport
        if transport.is_closing():
            return
        self._lingered = 0
        if transport.can_write_eof():
            transport.write_eof()
        self._reading = True
        self._catching_up = False
        self._set_reading()

    def _drop(self, size: int) -> None:
        if self._lingered is None:
            return
        self._lingered += size
        if self._lingered > _LINGER_SIZE:
            self._transport.abort()
        elif size == _READ_SIZE:
            # Not as fast as it comes, which would keep others waiting.
            self._transport.pause_reading()
            self._loop.call_later(_DROP_EVERY, self._set_reading)

    def _end_lost(self) -> None:
        """Report that the transport is closed, whichever side asked."""
        driven = self._attached()
        if self._timer is not None:
            self._timer.cancel()
        self._ending = True
        if not driven.done:
            broken = broken_by(self._cause)
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


class SocketTransport(asyncio.Transport):
    """A transport for plain TCP on asyncio's own event loop, with fewer steps than the loop's.

    The loop's makes three calls for a read and two for a write that a session does not need. A piece of
    audio comes every 20 ms, when all of that code has left the processor's caches, so a call costs several
    times what it does when it is repeated at once. On uvloop, whose transports are compiled, this would gain
    nothing.

    It behaves as the loop's transport does, but reads nothing before `resume_reading`, passes what it reads
    to `receive`, and pauses the writing while any byte waits. It owns `connected`, a non-blocking socket.
    """

    __slots__ = (
        "_closing",
        "_ended",
        "_fileno",
        "_loop",
        "_losing",
        "_protocol",
        "_reading",
        "_receive",
        "_socket",
        "_unsent",
        "send",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        protocol: asyncio.BufferedProtocol,
        *,
        receive: Callable[[bytes], None],
    ) -> None:
        self._loop = loop
        self._socket = connected
        # Given a socket, the loop's selectors make its `repr` each time.
        self._fileno = connected.fileno()
        self._protocol = protocol
        self._receive = receive
        self._unsent = bytearray()
        self._reading = False
        self._ended = False
        self._closing = False
        # Whether `connection_lost` will be called in the next turn, or was.
        self._losing = False
        self.send: Callable[[bytes], int] = connected.send
        """The socket's. While writing is not paused, the protocol may call it; the rest goes to `write`."""
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket if name == "socket" else default

    # Reading

    def resume_reading(self) -> None:
        if not (self._reading or self._closing):
            self._reading = True
            self._loop.add_reader(self._fileno, self._readable)

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fileno)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if data:
            self._receive(data)
        else:
            self._protocol.eof_received()
            self.close()

    # Writing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: see the class."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._losing:
            return
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._fail(error)
                return
            data = data[sent:]
            if not data:
                return
            self._loop.add_writer(self._fileno, self._writable)
            self._protocol.pause_writing()
        self._unsent += data

    def _writable(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if self._unsent:
            return
        self._loop.remove_writer(self._fileno)
        if self._ended:
            self._shut_down()
        if self._closing:
            self._lose(None)
        self._protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not (self._ended or self._closing):
            self._ended = True
            if not self._unsent:
                self._shut_down()

    def _shut_down(self) -> None:
        with suppress(OSError):  # reset by the peer; the next read tells
            self._socket.shutdown(socket.SHUT_WR)

    # Closing

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Close once everything is written."""
        if not self._closing:
            self.pause_reading()
            self._closing = True
            if not self._unsent:
                self._lose(None)

    def abort(self) -> None:
        self._fail(None)

    def _fail(self, error: OSError | None) -> None:
        self.pause_reading()
        self._closing = True
        if self._unsent:
            self._unsent.clear()
            self._loop.remove_writer(self._fileno)
        self._lose(error)

    def _lose(self, error: OSError | None) -> None:
        if not self._losing:
            self._losing = True
            self._loop.call_soon(self._connection_lost, error)

    def _connection_lost(self, error: OSError | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()
            del self._protocol, self._receive


class _Waiter:
    """A `Waiter` built on a future.

    Events serve any number of tasks and cost five times as much, and a session waits for every frame.
    """

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def wait(self) -> asyncio.Future[None]:
        self._future = self._loop.create_future()
        return self._future

    def ring(self) -> None:
        # As `_wake` does, without a call.
        if not self._future.done():
            self._future.set_result(None)


def _read_buffer() -> memoryview:
    """Return the buffer for reads.

    It is filled and handed over in one step of the loop, so that one serves all sessions of a thread.
    """
    view: memoryview | None = getattr(_reads, "buffer", None)
    if view is None:
        view = _reads.buffer = memoryview(bytearray(_READ_SIZE))
    return view


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
