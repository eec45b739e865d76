"""What drives a session's pump over a transport, as the session sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVarTuple

from ..client.pump import Pump
from .lifetime import Lifetime

_Args = TypeVarTuple("_Args")


class Driver(Protocol):
    """An open transport, and what moves bytes between it and a pump.

    In order: `attach`, `handshake`, then `start` within the session's block. `aclose_forcefully` in place
    of whatever has not happened yet.
    """

    bytes_sent: int
    """Bytes written to the transport."""

    def attach(self, pump: Pump, *, close_timeout: float) -> None:
        """Drive `pump` from here on. `close_timeout` in seconds bounds what is written after the end."""

    async def handshake(self) -> None:
        """Open the WebSocket. `HandshakeError` or `RemoteProtocolError` when it does not come about."""

    def start(self, lifetime: Lifetime) -> None:
        """Go on by itself, with tasks of `lifetime` where it needs any, until the session is over."""

    async def send(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        """Have the core say something, with one of its verbs, and write it.

        Raises what the verb does, and the session's end when writing fails. Cancelled before it could start
        it changes nothing; cancelled while it writes, it ends the session.
        """

    def current_time(self) -> float:
        """The event loop's clock, in seconds. May be asked outside of any task."""
        ...

    def core_changed(self) -> None:
        """Something happened to the core, not by this driver: start what it asks for. Never blocks."""

    def abort(self, reason: str) -> None:
        """End the session at once; do nothing when it is over. Never blocks. The peer gets a goodbye only if
        the transport takes it without waiting; otherwise the peer sees a lost connection."""

    async def wait_closed(self) -> None:
        """Wait until the session is over and the transport closed."""

    async def wait_gone(self) -> None:
        """Wait until the transport of an aborted session whose tasks have ended is closed: for a moment at
        most, and even in a cancelled scope."""

    async def aclose_forcefully(self) -> None:
        """Close the transport of a session that was never started."""
