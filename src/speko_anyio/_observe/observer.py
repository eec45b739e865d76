"""`SessionObserver`, which sees everything in a session and can change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from ..protocol._commands import Command
from ..protocol._state import State
from ..protocol.frames import Frame


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Identifies a session."""

    session_id: str
    host: str
    """The host of the session's WebSocket."""
    port: int
    provider: str | None = None
    """The argument of `connect`; None for a session that was minted elsewhere."""
    model: str | None = None
    """The argument of `connect`, likewise."""


class SessionObserver:
    """Observes everything in one session, as it happens. Every method does nothing until overridden.

    The methods are called in the session's event loop, between two awaits: they must be quick and never
    block. If one raises, the error is logged and the observer dropped; the session is not affected.
    """

    def state_changed(self, state: State) -> None:
        """See the session enter `state`."""

    def sent(self, command: Command) -> None:
        """See a command of the application that was queued to be written."""

    def received(self, frame: Frame) -> None:
        """See a frame before the application gets it. A session that opened ends with `Close`."""

    def provider_event(self, event: str) -> None:
        """See an event of the provider's own protocol, as JSON text, in a session straight with a provider.

        Its form is the provider's and may change at any time; see `RealtimeSession.send_provider_event`.
        """

    def bytes_read(self, size: int) -> None:
        """Count `size` bytes that were read from the transport."""

    def bytes_taken(self, size: int) -> None:
        """Count `size` bytes that are written to the transport."""

    def timer_fired(self) -> None:
        """See a deadline pass: of the handshake, the keepalive, the goodbye or the session itself."""

    def reading_paused(self) -> None:
        """See reading stop, since a consumer is too slow, until `reading_resumed`."""

    def reading_resumed(self) -> None:
        """See reading go on: the consumer has room again."""

    def ended(self, error: BaseException | None) -> None:
        """See the session's block end, or fail to begin; the last call. `error` is what it raised."""


ObserverFactory = Callable[[SessionInfo], SessionObserver]
"""A function that makes the observer of a session that is about to connect."""


ObserverOption = ObserverFactory | Iterable[ObserverFactory] | None
"""What callers pass as `observer`: one factory, several, or None."""


def observer_factories(observers: ObserverOption) -> tuple[ObserverFactory, ...]:
    """Return the factories as a tuple; TypeError for an object that can't make an observer."""
    if observers is None:
        return ()
    single = callable(observers) or not isinstance(observers, Iterable)
    makers: tuple[Any, ...] = (observers,) if single else tuple(cast("Iterable[ObserverFactory]", observers))
    for make in makers:
        if not callable(make):
            hint = "a function that takes a SessionInfo and returns a SessionObserver, or a list of these"
            if isinstance(make, SessionObserver):
                hint = "its class, or a function that returns it"
            raise TypeError(f"{make!r} can't observe a session; pass {hint}")
    return makers


def with_provider(observers: ObserverOption, *, provider: str, model: str) -> tuple[ObserverFactory, ...]:
    """Return factories that also tell their observers the provider and the model of the session."""

    def add(observer: ObserverFactory) -> ObserverFactory:
        return lambda info: observer(msgspec.structs.replace(info, provider=provider, model=model))

    return tuple(map(add, observer_factories(observers)))
