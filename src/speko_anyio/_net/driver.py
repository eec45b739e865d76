"""The two interfaces of driving: `Driver` moves bytes, `Driven` is the session that it moves them for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVarTuple

from .lifetime import Lifetime
from .tasks import Waiter

_Args = TypeVarTuple("_Args")

SENDS_PER_TURN: Final = 16
"""Sends in a row per turn of the event loop while none has to wait: a turn costs more than a send. A
cancellation is noticed only there. On trio, a row ends where something was received: the loop had a turn."""

REST_READS: Final = 64
"""Reads of what the system still holds of a broken connection, which may be some MiB."""


class Driven(Protocol):
    """What a driver drives: the client's `Pump`, or the gateway's connection to a provider.

    No method waits, and none raises because of what the peer does. A driver calls ``receive_*``,
    `send_failed` and `handle_timeout` when they apply, and after each of them it

    - writes `data_to_send` while `has_output`,
    - stops reading while `full`,
    - calls `catch_up` in later turns of the event loop, and reads nothing else, while it is `behind`,
    - arms its timer for `deadline`,
    - closes the transport once `done` and everything is written.

    Any other code that changes these must call `Driver.core_changed` afterwards.
    """

    def watch_space(self, call: Callable[[], None], /) -> None:
        """Set the function to call each time that this is no longer `full`."""

    @property
    def connecting(self) -> bool:
        """Whether the WebSocket's handshake is under way."""
        ...

    @property
    def done(self) -> bool:
        """Whether it is over, so that nothing is received any more."""
        ...

    @property
    def error(self) -> Exception:
        """The error that a send raises when it is `done`."""
        ...

    @property
    def full(self) -> bool:
        """Whether to stop reading for now."""
        ...

    @property
    def behind(self) -> bool:
        """Whether received bytes still wait for `catch_up`, because other sessions get their turn first."""
        ...

    @property
    def peer_left(self) -> bool:
        """Whether the transport may be closed at once when this is `done`.

        Otherwise the peer may still be sending: then the driver reads and drops that for a while, since a
        transport that is closed with unread bytes can lose what was written last.
        """
        ...

    @property
    def has_output(self) -> bool:
        """Whether `data_to_send` would return any bytes."""
        ...

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timeout`, by the event loop's clock; None for never, `AT_ONCE` for now."""
        ...

    @property
    def data_to_send(self) -> Callable[[], bytes]:
        """A function that takes the bytes to write. A driver keeps a reference, since every send calls it."""
        ...

    def receive_data(self, data: bytes, /) -> bool:
        """Take bytes from the peer. Returns False if that changed none of the above."""
        ...

    def catch_up(self) -> None:
        """Take some more of the bytes that were received before."""

    def receive_eof(self) -> None:
        """Take note that the peer will send no more."""

    def receive_lost(self, reason: str, cause: Exception, /) -> None:
        """Take note that the transport broke: `cause` says why, and `reason` the same in words."""

    def send_failed(self) -> None:
        """Take note that bytes that were taken may not have been written."""

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
    """An open transport, and the code that moves bytes between it and a `Driven`.

    Call `attach`, `handshake`, then `start` within the block of a `Lifetime`. If `handshake` is skipped, the
    handshake takes place after `start`. To give up before `start`, call `aclose_forcefully` instead.
    """

    bytes_sent: int
    """Bytes written to the transport."""

    def attach(self, driven: Driven, *, close_timeout: float) -> None:
        """Drive `driven` from now on. `close_timeout` in seconds bounds what is written after the end."""

    async def handshake(self) -> None:
        """Drive it until it is no longer `connecting`."""

    def start(self, lifetime: Lifetime) -> None:
        """Drive it until it is done, with tasks of `lifetime` if needed."""

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
        """React to a change of the core by other code than this driver. Never blocks."""

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
