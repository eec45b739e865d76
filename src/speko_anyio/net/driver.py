"""The two ends of driving: what a driver offers, and what it asks of what it drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVarTuple

from .lifetime import Lifetime
from .tasks import Waiter

_Args = TypeVarTuple("_Args")


class Driven(Protocol):
    """What a driver moves over its transport: the client's `Pump`, or a provider's leg of the gateway.

    Nothing here waits, and nothing raises for what the peer does. A driver calls ``receive_*``, `send_failed`
    and `handle_timeout` as things happen, and after each of them

    - writes `data_to_send` while `has_output`,
    - reads no more while `full`,
    - arms its timer for `deadline`,
    - closes the transport once `done` and everything is written.

    Whatever changes these from another side is followed by `Driver.core_changed`.
    """

    def watch_space(self, call: Callable[[], None], /) -> None:
        """Call `call` each time that this is no longer `full`."""

    @property
    def connecting(self) -> bool:
        """Whether the WebSocket's handshake is under way."""
        ...

    @property
    def done(self) -> bool:
        """Whether it is over: nothing is received any more."""
        ...

    @property
    def error(self) -> Exception:
        """What a send raises when it is `done`."""
        ...

    @property
    def full(self) -> bool:
        """Whether to stop reading for now."""
        ...

    @property
    def has_output(self) -> bool:
        """Whether `data_to_send` has something."""
        ...

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timeout`, by the event loop's clock; None for never, `AT_ONCE` for now."""
        ...

    @property
    def data_to_send(self) -> Callable[[], bytes]:
        """Takes the bytes to write when it is called. A driver keeps it, since every send calls it."""
        ...

    def receive_data(self, data: bytes, /) -> bool:
        """Take bytes of the peer. Returns False when nothing of the above has changed by it."""
        ...

    def receive_eof(self) -> None:
        """Take note that the peer will send no more."""

    def receive_lost(self, reason: str, cause: Exception, /) -> None:
        """Take note that the transport broke: `cause` says why, and `reason` the same in words."""

    def send_failed(self) -> None:
        """Bytes that were taken may not have been written."""

    def handle_timeout(self, now: float, /) -> None:
        """Act on the deadlines that have come by `now`."""

    def reading_paused(self) -> None:
        """Take note that the driver has stopped reading, since this is `full`."""

    def reading_resumed(self) -> None:
        """Take note that the driver reads again."""

    def abort(self, reason: str, /) -> bytes:
        """End at once. Returns the bytes to write to the peer if that takes no waiting."""
        ...


class Driver(Protocol):
    """An open transport, and what moves bytes between it and a `Driven`.

    In order: `attach`, `handshake`, then `start` within the block of a `Lifetime`. Without `handshake` it
    takes place after `start`. Call `aclose_forcefully` in place of whatever has not happened yet.
    """

    bytes_sent: int
    """Bytes written to the transport."""

    def attach(self, driven: Driven, *, close_timeout: float) -> None:
        """Drive `driven` from here on. `close_timeout` in seconds bounds what is written after the end."""

    async def handshake(self) -> None:
        """Drive it until it is no longer `connecting`."""

    def start(self, lifetime: Lifetime) -> None:
        """Go on without further calls, with tasks of `lifetime` if it needs any, until it is done."""

    async def send(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        """Call `verb`, which queues something to send, and write it.

        Raises what `verb` does, and `Driven.error` when writing fails. Cancelled before it could start, it
        changes nothing; cancelled while it writes, it ends the session.
        """

    def make_waiter(self) -> Waiter:
        """Make the cheapest `Waiter` for this event loop."""
        ...

    def current_time(self) -> float:
        """Read the event loop's clock, in seconds. May be called outside of any task."""
        ...

    def core_changed(self) -> None:
        """Something other than this driver has changed the core: start what it asks for. Never blocks."""

    def abort(self, reason: str) -> None:
        """End the session at once, or do nothing when it is over. Never blocks.

        The peer gets a goodbye only if the transport takes it without waiting. Otherwise it sees a lost
        connection.
        """

    async def wait_closed(self) -> None:
        """Wait until the session is over and the transport closed."""

    async def wait_gone(self) -> None:
        """Wait until the transport of an aborted session is closed, after its tasks have ended.

        It takes a moment at most, and waits even in a cancelled scope.
        """

    async def aclose_forcefully(self) -> None:
        """Close the transport of a session that was never started."""
