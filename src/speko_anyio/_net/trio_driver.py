"""The driver for trio: the task that waits for a frame reads the socket.

So no task hands data to another, and no read comes up empty, since `trio.lowlevel.wait_readable` comes first.
One task per session, the keeper, reads while nobody waits for a frame, so that pings, closes and
interruptions are not late. It also acts on the deadlines and closes the socket.

``_reader`` says who reads:

=========== ================ =================================================================================
``_reader`` who reads        until
=========== ================ =================================================================================
None        nobody           a task waits for a frame, and reads; or the loop has its next turn: the keeper
a waiter    a waiting task   bytes arrive, its frame comes from elsewhere, or it is cancelled: then nobody
`_KEEPER`   the keeper       bytes arrive: then nobody, for a turn if a task slept until then
`_PAUSED`   nobody may       the consumers have room, and all that was read is delivered: the keeper reads
=========== ================ =================================================================================

A task that waits while another one reads, or while reading is paused, sleeps until its frame arrives. So a
task that waits again at once soon reads for itself, and the keeper reads for the others.

Waiting for bytes consumes none, so cancelling it loses nothing. Reading them and delivering their
frames is one step, in which no other task runs.

TLS is a function of these bytes instead of a stream, so all of this holds for it, too.

Loaded when a session connects on trio.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVarTuple

import trio
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    notify_closing,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
    wait_writable,
)

from ..protocol._timers import AT_ONCE
from ..protocol.errors import SpekoError
from ..protocol.url import WebSocketURL
from .driver import REST_READS, SENDS_PER_TURN, Driven
from .happy_eyeballs import Address, connect_socket
from .lifetime import Lifetime, bug
from .stream_driver import READ_SIZE, instant
from .tls import TLS
from .transport_errors import broken_by, describe
from .trust import default_ssl_context

_Args = TypeVarTuple("_Args")

_KEEPER: Final = object()
_PAUSED: Final = object()


async def connect(where: WebSocketURL, *, ssl_context: ssl.SSLContext | None) -> TrioDriver:
    """Connect to the host, with TLS for ``wss``. Raises OSError, which includes `ssl.SSLError`.

    Cancelled, it leaves nothing open.
    """
    tls = None
    if where.secure:
        tls = TLS(ssl_context or await default_ssl_context(), where.host)
    connected = await connect_socket(where.host, where.port, connect=_connect)
    if tls is not None:
        try:
            await _handshake(connected, tls)
        except BaseException:
            connected.close()
            raise
    return TrioDriver(connected, tls)


async def _handshake(connected: socket.socket, tls: TLS) -> None:
    while True:
        try:
            done = tls.handshake()
        except ssl.SSLError:
            # The alert says why. A peer that is gone already must not hide that from the user.
            with suppress(OSError):
                connected.send(tls.output())
            raise
        data = tls.output()
        while data:
            try:
                data = data[connected.send(data) :]
            except BlockingIOError:
                await wait_writable(connected)
        if done:
            return
        await wait_readable(connected)
        tls.receive(connected.recv(READ_SIZE))


async def _connect(connecting: socket.socket, address: Address) -> None:
    try:
        connecting.connect(address)
    except BlockingIOError:
        await wait_writable(connecting)
        if error := connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error)) from None


class TrioDriver:
    """Drives a `Driven` over a connected non-blocking socket, which it owns. See `Driver`.

    With `tls`, whose handshake is over, it speaks TLS.
    """

    __slots__ = (
        "_armed",
        "_close_timeout",
        "_data_to_send",
        "_driven",
        "_finished",
        "_full",
        "_keeper",
        "_lifetime",
        "_lock",
        "_parting",
        "_reader",
        "_recv",
        "_rest",
        "_scope",
        "_sends_left",
        "_sleepers",
        "_socket",
        "_tls",
        "_torn",
        "_writers",
        "bytes_sent",
    )

    def __init__(self, connected: socket.socket, tls: TLS | None = None) -> None:
        self._socket = connected
        self._tls = tls
        self._recv = connected.recv if tls is None else self._recv_sealed
        self._lifetime: Lifetime | None = None
        # Reading
        self._reader: object = None
        self._full = False
        self._keeper = _Sleep()
        self._sleepers = 0
        # Writing
        self._sends_left = 0
        self._rest = b""
        self._lock: trio.Lock | None = None
        self._writers = 0
        self._torn = False
        # Time and the end
        self._armed: float | None = None
        self._scope: trio.CancelScope | None = None
        self._parting: trio.CancelScope | None = None
        self._finished: trio.Event | None = None
        self.bytes_sent: int = 0

    # Driver

    def attach(self, driven: Driven, *, close_timeout: float) -> None:
        self._driven = driven
        self._data_to_send = driven.data_to_send if self._tls is None else self._sealed_data_to_send
        self._close_timeout = close_timeout
        # Not `core_changed`, since this may be called in the middle of a delivery.
        driven.watch_space(self._keeper.wake)

    async def handshake(self) -> None:
        driven = self._driven
        while True:
            driven.handle_timeout(trio.current_time())
            if not driven.connecting:
                break
            with trio.CancelScope(deadline=instant(driven.deadline)):
                await self._write_all()
                await wait_readable(self._socket)
                self._receive()

    def start(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        lifetime.spawn_shielded(self._keep)
        self.core_changed()

    async def send(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        if self._sends_left:
            self._sends_left -= 1
        else:
            await checkpoint()
            self._sends_left = SENDS_PER_TURN - 1
        if self._rest or self._writers:
            await self._write_in_turn(verb, *args)
            return
        verb(*args)
        data = b""
        try:
            data = self._data_to_send()
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            broken = broken_by(error)
            raise self._broke(broken) from broken
        self.bytes_sent += sent
        if sent < len(data):
            self._rest = data[sent:]
            await self._write_rest()

    def make_waiter(self) -> _Waiter:
        return _Waiter(self)

    def current_time(self) -> float:
        return trio.current_time()

    def core_changed(self) -> None:
        driven = self._driven
        if driven.deadline == AT_ONCE:
            driven.handle_timeout(trio.current_time())
        if driven.full is not self._full:
            self._full = not self._full
            if self._full:
                driven.reading_paused()
            else:
                driven.reading_resumed()
        if self._full or driven.behind:
            if self._reader is None:
                self._reader = _PAUSED
            if driven.behind:
                self._keeper.wake()
        elif self._reader is _PAUSED:
            self._reader = None
            self._keeper.wake()
        if driven.has_output and not (driven.done or self._rest or self._writers):
            self._write_reply()
        if driven.deadline != self._armed:
            self._armed = driven.deadline
            if self._scope is not None:
                self._scope.deadline = instant(self._armed)
        if driven.done and self._scope is not None:
            self._scope.cancel()

    def abort(self, reason: str) -> None:
        goodbye = self._driven.abort(reason)
        if goodbye and not self._torn:
            self._torn = True
            with suppress(OSError):
                self.bytes_sent += self._socket.send(self._rest + self._seal(goodbye))
        self.core_changed()
        if self._parting is not None:
            self._parting.cancel()

    async def wait_closed(self) -> None:
        await self._end().wait()

    async def wait_gone(self) -> None:
        """Return at once: the keeper has closed the socket."""

    async def aclose_forcefully(self) -> None:
        self._close()

    # Reading

    async def _keep(self) -> None:
        driven = self._driven
        try:
            while not driven.done:
                with trio.CancelScope(deadline=instant(self._armed), shield=True) as self._scope:
                    await self._read_in_background()
                driven.handle_timeout(trio.current_time())
                self.core_changed()
            if driven.has_output:
                with trio.move_on_after(self._close_timeout, shield=True) as self._parting:
                    await self._reply()
        finally:
            # Wake all tasks first; then close the socket in any case.
            try:
                self.abort("the session was cancelled")
            finally:
                self._close()

    async def _read_in_background(self) -> None:
        """Read while no task waits for a frame, and sleep meanwhile, until the session is over."""
        driven = self._driven
        while not driven.done:
            if driven.behind:
                await checkpoint()
                driven.catch_up()
                self.core_changed()
            elif self._reader is not None:
                await self._keeper.sleep()
                if self._full:
                    self.core_changed()
            else:
                changed = False
                while not changed and self._reader is None:
                    self._reader = _KEEPER
                    try:
                        await wait_readable(self._socket)
                    finally:
                        self._reader = _PAUSED if self._full else None
                    if self._reader is None:
                        somebody_waits = self._sleepers
                        changed = self._read()
                        if somebody_waits:
                            await checkpoint()  # so that it can wait again, and read for itself

    def _read(self) -> bool:
        """Read once, and react. Returns False if that changed nothing: most reads hold only audio."""
        try:
            if not self._receive():
                return False
            self.core_changed()
        except Exception as error:  # noqa: BLE001 - a bug must not end in the task that happens to wait
            assert self._lifetime is not None, "only within the session's block"
            self._lifetime.fail(bug(error))
            self.abort("a bug in speko_anyio")
        return True

    def _receive(self) -> bool:
        """Read once. Returns what `Driven.receive_data` returns."""
        try:
            data = self._recv(READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(broken_by(error))
        else:
            if data:
                if self._sends_left:
                    self._sends_left = SENDS_PER_TURN - 1  # the event loop has had a turn
                return self._driven.receive_data(data)
            self._driven.receive_eof()
        return True

    def _recv_sealed(self, size: int) -> bytes:
        tls = self._tls
        assert tls is not None, "only for TLS"
        data = tls.open(self._socket.recv(size))
        if tls.over:
            # Otherwise the next read would wait for the end of the connection.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)
        return data

    # Writing

    def _sealed_data_to_send(self) -> bytes:
        return self._seal(self._driven.data_to_send())

    def _seal(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        sealed = self._tls.seal(data)
        self.bytes_sent -= len(sealed) - len(data)  # it counts what the session writes, as without TLS
        return sealed

    def _write(self) -> bool:
        """Write what is left and what the core has queued. Returns False if the system does not take it all.

        Only for the task whose turn it is, or while nobody writes. Raises `Driven.error` if it fails.
        """
        if self._torn:
            raise self._driven.error.with_traceback(None)
        try:
            while data := self._rest or self._data_to_send():
                self._rest = data
                sent = self._socket.send(data)
                self._rest = data[sent:]
                self.bytes_sent += sent
        except BlockingIOError:
            return False
        except OSError as error:
            broken = broken_by(error)
            raise self._broke(broken) from broken
        return True

    async def _write_all(self) -> None:
        """Write until all is written. The caller has the turn. Cancelled, it ends the session."""
        try:
            while not self._write():
                with suppress(trio.ClosedResourceError):  # see `_Waiter`: the socket may still be open
                    await wait_writable(self._socket)
        except SpekoError:
            raise
        except BaseException:
            self._write_failed()
            raise

    async def _write_rest(self) -> None:
        """Write what the system has not taken, while no other task writes."""
        self._writers += 1
        try:
            # Not `acquire`, which may be cancelled before it gets the lock, with half a message written.
            turns = self._turns()
            turns.acquire_nowait()
            try:
                await self._write_all()
            finally:
                turns.release()
        finally:
            self._writers -= 1

    async def _write_in_turn(self, verb: Callable[[*_Args], None] | None = None, *args: *_Args) -> None:
        """Call `verb` and write, after all tasks that are writing. Cancelled before, it changes nothing."""
        self._writers += 1
        try:
            async with self._turns():
                if verb is not None:
                    verb(*args)
                await self._write_all()
        finally:
            self._writers -= 1
            if self._lifetime is not None:
                self.core_changed()  # replies that came meanwhile, if the verb was refused

    def _write_reply(self) -> None:
        """Write replies, and have a task write what the system does not take at once."""
        with suppress(SpekoError):  # the session is over, which is reported elsewhere
            if not self._write():
                assert self._lifetime is not None, "only within the session's block"
                self._lifetime.spawn(self._reply)

    async def _reply(self) -> None:
        with suppress(SpekoError):
            await self._write_in_turn()

    def _broke(self, broken: Exception) -> Exception:
        """End the session, since writing raised `broken`, and return the session's error."""
        # The peer may have said goodbye before.
        with suppress(OSError):
            for _ in range(REST_READS):
                data = self._recv(READ_SIZE)
                if not data:
                    break
                self._driven.receive_data(data)
        self._lost(broken)
        self._write_failed()
        return self._driven.error.with_traceback(None)

    def _lost(self, broken: Exception) -> None:
        self._driven.receive_lost(f"the connection broke ({describe(broken)})", broken)

    def _write_failed(self) -> None:
        # The peer can't read another message after half of one.
        self._torn = True
        self._rest = b""
        self._driven.send_failed()
        if self._lifetime is not None:
            self.core_changed()

    # The end

    def _close(self) -> None:
        self._torn = True
        notify_closing(self._socket)
        self._socket.close()
        self._end().set()

    # Made when needed: they take half a kibibyte per session.

    def _turns(self) -> trio.Lock:
        if self._lock is None:
            self._lock = trio.Lock()
        return self._lock

    def _end(self) -> trio.Event:
        if self._finished is None:
            self._finished = trio.Event()
        return self._finished


class _Sleep:
    """Lets one task sleep."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def sleep(self) -> None:
        """Wait until `wake`."""
        self._task = current_task()
        await wait_task_rescheduled(self._abort)

    def wake(self) -> None:
        """Wake the task. Does nothing if none sleeps."""
        if self._task is not None:
            task, self._task = self._task, None
            reschedule(task)

    def _abort(self, _: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


class _Waiter:
    """A `Waiter` whose task reads the socket while it waits, unless another one does."""

    __slots__ = ("_driver", "_sleep")

    def __init__(self, driver: TrioDriver) -> None:
        self._driver = driver
        self._sleep = _Sleep()

    async def wait(self) -> None:
        driver = self._driver
        if driver._reader is not None:
            driver._sleepers += 1
            try:
                await self._sleep.sleep()
            finally:
                driver._sleepers -= 1
            return
        try:
            driver._reader = self
            await wait_readable(driver._socket)
        except trio.ClosedResourceError:
            return
        finally:
            driver._reader = _PAUSED if driver._full else None
            # It reads in the next turn of the event loop, unless this task waits again in this one.
            driver._keeper.wake()
        if driver._reader is None:
            driver._read()

    def ring(self) -> None:
        if self._driver._reader is self:
            # The frame was made here, such as `Expiring`, or another task has read it. This closes nothing.
            notify_closing(self._driver._socket)
        else:
            self._sleep.wake()
