"""Moves a session's messages over any transport that carries whole WebSocket messages.

Three tasks serve it: one reads, one writes, one keeps time. They know no rules of the protocol: these are in
`ServerProtocol`, in whose outbox messages wait for the writer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, Protocol

import anyio
from anyio.lowlevel import checkpoint

from speko_anyio._net.tasks import TaskGroup, Wakeup
from speko_anyio.protocol._commands import Command
from speko_anyio.protocol._dialect import NeedData
from speko_anyio.protocol._outbox import CloseMessage
from speko_anyio.protocol._pcm import Buffer
from speko_anyio.protocol._session import ServerProtocol
from speko_anyio.protocol._state import State

from ._link import Linked

_MESSAGES_PER_TURN: Final = 16
"""Messages that are read or written in one turn of the event loop: a turn costs more than a message."""

_OPEN: Final = State.OPEN
_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class MessageTransport(Protocol):
    """Carries whole WebSocket messages, each way.

    `receive` and `send` are each called by one task at a time. Both may raise anyio's
    `BrokenResourceError`, `ClosedResourceError` or `EndOfStream` when the connection is gone.
    """

    async def receive(self) -> str | bytes | CloseMessage | None:
        """Wait for the next message, and return it.

        Return a `CloseMessage` when the peer has closed, which the transport itself answers, and None when
        the connection is lost. It is not called again after either.
        """
        ...

    async def send(self, message: str | bytes) -> None:
        """Send one message; return when there is room for another."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Send the WebSocket's close frame; nothing is sent after it. `receive` then brings the answer."""
        ...


class MessageLink:
    """A `Link` over a `MessageTransport`; see `Link` for the members."""

    __slots__ = (
        "_background",
        "_clock",
        "_session",
        "_space",
        "_to_write",
        "_transport",
        "_written",
        "core",
        "read_ahead",
    )

    def __init__(self, core: ServerProtocol, transport: MessageTransport) -> None:
        self.core: ServerProtocol = core
        self.read_ahead: int = 0
        self._transport = transport
        self._background = anyio.CancelScope(shield=True)
        self._clock = Wakeup()
        self._space = Wakeup()
        self._to_write = Wakeup()
        self._written = anyio.Event()

    @property
    def next_event(self) -> Callable[[], Command | Literal[NeedData.NEED_DATA]]:
        return self.core.next_event

    @property
    def send_audio(self) -> Callable[[Buffer], None]:
        return self.core.send_audio

    @property
    def flush(self) -> Callable[[], None]:
        return self._to_write.ring

    def make_waiter(self) -> Wakeup:
        return Wakeup()

    def start(self, session: Linked, tasks: TaskGroup) -> None:
        self._session = session
        tasks.start_soon(self._serve)

    def core_changed(self) -> None:
        if self.core.outbox.messages:
            self._to_write.ring()
        if self.core.state is not _OPEN:
            # Any condition that a task waits for may have changed.
            self._space.ring()
            self._clock.ring()
            self._to_write.ring()

    def fall_behind(self) -> None:
        """Do nothing: one message brings few commands."""

    def space_made(self) -> None:
        self._space.ring()

    async def wait_written(self) -> None:
        await self._written.wait()

    def stop(self) -> None:
        self._background.cancel()

    async def _serve(self) -> None:
        # Shielded, so that a handler that is cancelled still has a live session in its `finally` blocks.
        # It ends by `stop`, which every way out of the session's block calls.
        with self._background:
            async with TaskGroup(f"session {self._session.session_id}") as tasks:
                tasks.start_soon(self._read)
                tasks.start_soon(self._write)
                tasks.start_soon(self._keep_time)

    async def _read(self) -> None:
        core, session = self.core, self._session
        received = 0
        while session.closed is None:
            received += 1
            if not received % _MESSAGES_PER_TURN:
                # If the server has many messages ready, `receive` never waits, and no other task would run.
                await checkpoint()
            try:
                message = await self._transport.receive()
            except _GONE:
                message = None
            if message is None:
                core.receive_lost()
            elif isinstance(message, CloseMessage):
                core.receive_close(message.code, message.reason)
            else:
                core.receive_message(message)
            if core.budget.due:
                core.handle_timeout(anyio.current_time())
            session.core_changed()
            while session.full:
                await self._space.wait()

    async def _write(self) -> None:
        core, session = self.core, self._session
        meter, room = session.meter, session.room
        sent = 0
        try:
            while True:
                # One at a time: an interruption drops the audio that still waits in the core.
                while (message := core.next_message()) is None:
                    if session.closed is not None:
                        return
                    await self._to_write.wait()
                if isinstance(message, CloseMessage):
                    await self._transport.close(message.code, message.reason)
                    return
                if room.awaited is not None:
                    room.ring()
                sent += 1
                if not sent % _MESSAGES_PER_TURN:
                    # The same holds for `send`, while the transport takes everything.
                    await checkpoint()
                await self._transport.send(message)
                if isinstance(message, bytes):
                    # As `Linked.sent` does, without a call.
                    meter.audio_out += len(message)
                    if meter.asked_at is not None:
                        session.answered()
        except _GONE:
            # When a client closes the WebSocket, sends fail before its close is read.
            core.send_failed()
            session.core_changed()
        finally:
            self._written.set()

    async def _keep_time(self) -> None:
        core, session = self.core, self._session
        while session.closed is None:
            deadline = core.next_deadline()
            with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
                await self._clock.wait()
            if session.closed is None:
                core.handle_timeout(anyio.current_time())
                session.core_changed()
