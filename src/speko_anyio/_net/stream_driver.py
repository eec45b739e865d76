"""The driver for any anyio byte stream, on any event loop.

It runs these tasks:

- the reader, which never waits for a write: otherwise a peer that does not read would stop us from reading,
  and both would wait for ever;
- the alarm, which sleeps until the deadline: a task of its own, since cancelling a receive may lose bytes;
- a writer of replies, while there are any.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final, TypeVarTuple

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from ..protocol._timers import AT_ONCE
from ..protocol.errors import SpekoError
from .driver import Driven
from .lifetime import Lifetime
from .tasks import Wakeup
from .transport_errors import TRANSPORT_ERRORS, describe

_Args = TypeVarTuple("_Args")

logger: Final = logging.getLogger("speko_anyio.client")

READ_SIZE: Final = 65_536
"""Bytes asked of the stream at a time: the most that anyio's own streams return."""

_TURNS_TO_WRITE: Final = 16
"""The most turns of the event loop that a write needs if nothing blocks it: one or two per layer, such as TLS
to a proxy and TLS to the host."""


class StreamDriver:
    """Drives a `Driven` over `stream`, which it owns. See `Driver`."""

    __slots__ = (
        "_alarm",
        "_armed",
        "_close_timeout",
        "_data_to_send",
        "_driven",
        "_finished",
        "_goodbye",
        "_lifetime",
        "_parting",
        "_reading",
        "_replying",
        "_sending",
        "_space",
        "_stream",
        "_torn",
        "bytes_sent",
    )

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._sending = anyio.Lock(fast_acquire=True)
        self._replying = False
        self._space: anyio.Event | None = None
        self._finished = anyio.Event()
        self._goodbye = b""
        self._torn = False
        # The scopes in which the tasks wait. The end cancels them.
        self._reading = anyio.CancelScope(shield=True)
        self._alarm = anyio.CancelScope(shield=True)
        self._parting: anyio.CancelScope | None = None
        self._armed: float | None = None
        self._lifetime: Lifetime | None = None
        self.bytes_sent: int = 0

    def attach(self, driven: Driven, *, close_timeout: float) -> None:
        self._driven = driven
        self._data_to_send = driven.data_to_send
        self._close_timeout = close_timeout
        driven.watch_space(self._space_made)

    async def handshake(self) -> None:
        driven = self._driven
        while True:
            driven.handle_timeout(anyio.current_time())
            if not driven.connecting:
                break
            with anyio.CancelScope(deadline=instant(driven.deadline)):
                await self._write()
                await self._receive()

    def start(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        lifetime.spawn_shielded(self._read)
        lifetime.spawn_shielded(self._watch_the_clock)
        self.core_changed()

    async def send(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        async with self._sending:
            verb(*args)
            await self._write()

    def make_waiter(self) -> Wakeup:
        return Wakeup()

    def current_time(self) -> float:
        return anyio.current_time()

    def core_changed(self) -> None:
        driven = self._driven
        deadline = driven.deadline
        if deadline == AT_ONCE:
            driven.handle_timeout(anyio.current_time())
            deadline = driven.deadline
        if driven.done:
            self._reading.cancel()
            self._alarm.cancel()
            return
        if self._space is not None and not driven.full:
            self._space.set()
        # Also while a task holds `_sending`: it writes nothing if its verb is refused.
        if driven.has_output and not self._replying:
            assert self._lifetime is not None, "only within the session's block"
            self._replying = True
            self._lifetime.spawn(self._reply)
        if deadline != self._armed:
            self._armed = deadline
            self._alarm.deadline = instant(deadline)

    def abort(self, reason: str) -> None:
        self._goodbye += self._driven.abort(reason)
        self.core_changed()
        if self._parting is not None:
            self._parting.cancel()

    async def wait_closed(self) -> None:
        await self._finished.wait()

    async def wait_gone(self) -> None:
        """Return at once: the reader has closed the transport."""

    async def aclose_forcefully(self) -> None:
        await anyio.aclose_forcefully(self._stream)

    # Reading

    async def _read(self) -> None:
        driven = self._driven
        try:
            with self._reading:
                while not driven.done:
                    if driven.behind:
                        await checkpoint()
                        driven.catch_up()
                    elif driven.full:
                        await self._wait_for_space()
                    else:
                        # Most reads hold only audio, which changes nothing else.
                        while not await self._receive():
                            pass
                    self.core_changed()
            if driven.has_output:
                with anyio.move_on_after(self._close_timeout, shield=True) as self._parting:
                    await self._reply()
                    await self._stream.aclose()
        finally:
            # Wake all tasks first, which needs no await; then close the transport in any case.
            self.abort("the session was cancelled")
            try:
                # `aclose_forcefully` is cancelled from the start, and so returns at once. The shield keeps a
                # cancellation from outside off it.
                with anyio.CancelScope(shield=True):
                    if self._goodbye:
                        await self._write_at_once(self._goodbye)
                    await self.aclose_forcefully()
            finally:
                self._finished.set()

    async def _receive(self) -> bool:
        """Receive once. Returns what `Driven.receive_data` does."""
        try:
            data = await self._stream.receive(READ_SIZE)
        except anyio.EndOfStream:
            self._driven.receive_eof()
        except TRANSPORT_ERRORS as exc:
            self._driven.receive_lost(f"the connection broke ({describe(exc)})", exc)
        else:
            return self._driven.receive_data(data)
        return True

    async def _wait_for_space(self) -> None:
        self._driven.reading_paused()
        self.core_changed()
        while self._driven.full:
            self._space = space = anyio.Event()
            await space.wait()
        self._space = None
        self._driven.reading_resumed()
        self.core_changed()

    def _space_made(self) -> None:
        if self._space is not None:
            self._space.set()

    # Writing

    async def _write(self) -> None:
        """Write what the core has queued. The caller holds `_sending`."""
        while data := self._data_to_send():
            try:
                await self._stream.send(data)
            except TRANSPORT_ERRORS as exc:
                self._write_failed()
                raise self._driven.error.with_traceback(None) from exc
            except BaseException:
                self._write_failed()
                raise
            self.bytes_sent += len(data)

    async def _write_at_once(self, data: bytes) -> None:
        """Write `data` if the stream takes it in a few turns of the event loop. The caller is shielded."""
        over = False

        async def write() -> None:
            nonlocal over
            # A write that is under way may only need a turn to learn that the stream has taken all of it.
            while self._sending.locked():
                await checkpoint()
            try:
                if not self._torn:
                    await self._stream.send(data)
                    self.bytes_sent += len(data)
            except Exception as error:  # noqa: BLE001 - from any stream; the session is over anyway
                logger.debug("the goodbye was not written: %s", type(error).__name__)
            over = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for _ in range(_TURNS_TO_WRITE):
                if not over:
                    await checkpoint()
            tasks.cancel_scope.cancel()

    def _write_failed(self) -> None:
        # The peer can't read another message after half of one.
        self._torn = True
        self._driven.send_failed()
        if self._lifetime is not None:
            self.core_changed()

    async def _reply(self) -> None:
        """Write the replies, after the sends under way."""
        try:
            async with self._sending:
                await self._write()
        except SpekoError:
            pass  # the session is over, which is reported elsewhere
        finally:
            self._replying = False

    # Time

    async def _watch_the_clock(self) -> None:
        while not self._driven.done:
            with anyio.CancelScope(deadline=instant(self._armed), shield=True) as self._alarm:
                # The end cancels the scope before the event is set. Any event would do: sleeping for ever
                # takes one more scope on trio.
                await self._finished.wait()
            self._driven.handle_timeout(anyio.current_time())
            self.core_changed()


def instant(deadline: float | None) -> float:
    """Return the deadline of a cancel scope."""
    return math.inf if deadline is None else deadline
