"""Moves a session's messages as bytes: the library's own WebSocket on the event loop's transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from speko_anyio._net.asyncio_driver import AsyncioDriver
from speko_anyio._net.tasks import TaskGroup, Waiter
from speko_anyio.protocol._commands import Command
from speko_anyio.protocol._connection import ServerConnection
from speko_anyio.protocol._dialect import NeedData
from speko_anyio.protocol._framing import header_size
from speko_anyio.protocol._outbox import payload_size
from speko_anyio.protocol._pcm import Buffer
from speko_anyio.protocol._session import ServerProtocol
from speko_anyio.protocol._state import State
from speko_anyio.protocol.errors import SpekoError

from ._link import Linked

READ_AHEAD: Final = 64 * 1024
"""Bytes to read although the inbox is full. If the handler takes nothing, a client may fill the inbox and
then close; the close is only noticed if it is still read. An ASGI server also reads ahead of the handler."""


_FRAMES_PER_TURN: Final = 16
"""WebSocket frames off the fast path that are parsed in one turn of the event loop."""

_WRITE_AT_ONCE: Final = 64 * 1024
"""Bytes to give the transport in one turn of the event loop."""


class ByteLink:
    """A `Link` for the session, and the `Driven` of an `AsyncioDriver`; see these two for the members."""

    __slots__ = (
        "_budget",
        "_connection",
        "_deliver",
        "_driver",
        "_outbox",
        "_session",
        "behind",
        "core",
        "read_ahead",
    )

    def __init__(self, connection: ServerConnection, driver: AsyncioDriver, *, close_timeout: float) -> None:
        self.core: ServerProtocol = connection.dialect
        self.read_ahead: int = READ_AHEAD
        self._connection = connection
        self._driver = driver
        self._outbox = connection.dialect.outbox
        self._budget = connection.dialect.budget
        self._session: Linked | None = None
        self._deliver: Callable[[], bool] = _deliver_nothing
        self.behind: bool = False
        """Whether received bytes wait for `catch_up`."""
        connection.yield_after(_FRAMES_PER_TURN, self._yielded)
        driver.attach(self, close_timeout=close_timeout)

    # Link

    @property
    def next_event(self) -> Callable[[], Command | Literal[NeedData.NEED_DATA]]:
        return self._connection.next_event

    @property
    def send_audio(self) -> Callable[[Buffer], None]:
        return self._connection.send_audio

    @property
    def flush(self) -> Callable[[], None]:
        return self._driver.flush

    def make_waiter(self) -> Waiter:
        return self._driver.make_waiter()

    def start(self, session: Linked, tasks: TaskGroup) -> None:
        self._session = session
        self._deliver = session.deliver
        self._driver.start(tasks)

    def core_changed(self) -> None:
        self._driver.core_changed()

    def fall_behind(self) -> None:
        self.behind = self._connection.unread

    def space_made(self) -> None:
        self._driver.core_changed()

    async def wait_written(self) -> None:
        """Return at once: the driver writes the rest by itself, in bounded time."""

    def stop(self) -> None:
        """Do nothing: the driver ends with the session."""

    # Driven

    def watch_space(self, call: Callable[[], None]) -> None:
        """Do nothing: `space_made` tells the driver."""

    @property
    def connecting(self) -> bool:
        return False

    @property
    def done(self) -> bool:
        return self.core.state is State.CLOSED and not self.behind

    @property
    def error(self) -> SpekoError:
        error = self.core.error
        assert error is not None, "asked of a session that is not over"
        return error

    @property
    def full(self) -> bool:
        return self._session is not None and self._session.full

    @property
    def has_output(self) -> bool:
        # Our last words go out when nothing is behind them any more: the driver then reads on until the peer
        # has them.
        return bool(self._outbox.messages) and not (self.behind and self.core.state is State.CLOSED)

    @property
    def deadline(self) -> float | None:
        return self._connection.next_deadline()

    @property
    def peer_left(self) -> bool:
        closed = self.core.closed
        return closed is not None and closed.initiated_by == "remote"

    @property
    def data_to_send(self) -> Callable[[], bytes]:
        return self._take

    def _take(self) -> bytes:
        outbox = self._outbox
        if outbox.size > _WRITE_AT_ONCE:
            return self._take_some()
        audio = outbox.size
        if not outbox.only_audio:
            audio -= sum(map(payload_size, outbox.messages))
        data = self._connection.data_to_send()
        if data and self._session is not None:
            self._session.sent(audio)
        return data

    def _take_some(self) -> bytes:
        """Take the first of much: an interruption can drop audio only until it is taken."""
        outbox = self._outbox
        later = outbox.hold_back(_WRITE_AT_ONCE)
        audio = sum(len(frame) - header_size(frame) for frame in outbox.messages if type(frame) is bytes)
        left = outbox.size - audio - sum(map(payload_size, outbox.messages))
        data = self._connection.data_to_send()
        if later:
            outbox.give_back(later, left)
            self._driver.write_later()
        if self._session is not None:
            self._session.sent(audio)
        return data

    def receive_data(self, data: bytes) -> bool:
        self._connection.receive_data(data)
        # `has_output` and whether the time is wanted, without calls. Frames that bring no command are unknown
        # to `deliver`.
        budget = self._budget
        return self._deliver() or bool(self._outbox.messages) or self.behind or budget.spent >= budget.look_at

    def catch_up(self) -> None:
        self.behind = False
        self._deliver()

    def _yielded(self) -> None:
        self.behind = True

    def _deliver_all(self) -> None:
        """Deliver everything that was received, without turns: the connection has ended."""
        self._deliver()
        while self.behind:
            self.catch_up()

    def receive_eof(self) -> None:
        self._connection.receive_eof()
        self._deliver()

    def receive_lost(self, reason: str, cause: Exception) -> None:
        self._deliver_all()
        if not self.done:
            self._connection.receive_lost(reason)
            self.error.__cause__ = cause
            self._deliver_all()

    def send_failed(self) -> None:
        self._connection.send_failed()
        self._deliver_all()

    def handle_timeout(self, now: float) -> None:
        self._connection.handle_timeout(now)
        self._deliver()

    def reading_paused(self) -> None:
        # No pong is received while nothing is read, so silence proves nothing.
        self._connection.suspend_keepalive()

    def reading_resumed(self) -> None:
        self._connection.resume_keepalive()

    def abort(self, reason: str) -> bytes:
        self._connection.receive_lost(reason)
        self._deliver_all()
        return b""


def _deliver_nothing() -> bool:
    """Ignore received data: the request is refused, so there is no session."""
    return True
