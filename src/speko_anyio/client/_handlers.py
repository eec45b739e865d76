"""The handlers of a session: checks them, runs them, and passes on their errors."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import anyio

from .._net.lifetime import Lifetime
from ..protocol._state import State
from ..protocol.errors import ConnectionClosed
from ..protocol.frames import Frame
from ._delivery import DeliveryBuffer
from ._frame_stream import FRAME_TYPES
from ._pump import Pump
from ._stalls import STALLED_AFTER, StallWatch

FrameHandler = Callable[[Frame], Awaitable[object] | object]
"""Called with each frame. An awaitable that it returns is awaited before the next frame."""


def check_handler(handler: object, *more: object) -> None:
    """TypeError for an object that can't be called with one frame, and for `more` than one object."""
    types = [given.__name__ for given in (handler, *more) if isinstance(given, type) and given in FRAME_TYPES]
    if types or more:
        raise TypeError(
            "on() takes one function and calls it with every frame; for some types of frames only, use `"
            f"async with session.frames({', '.join(types) or 'Transcript'}) as frames:`"
        )
    if not callable(handler):
        raise TypeError(
            f"a handler is a function that takes one frame, not {handler!r}; for some types of frames only, "
            "use `async with session.frames(Transcript)`"
        )
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise TypeError(f"the handler {handler!r} is a generator, so its body would never run; don't yield")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # some builtins have no signature
    try:
        signature.bind(None)
    except TypeError:
        raise TypeError(
            f"the handler {handler!r} must take one argument, the frame, but it takes {signature}"
        ) from None


class Handlers:
    """The handlers of the session that `pump` moves; each runs as a task of its `lifetime`."""

    __slots__ = ("_lifetime", "_pump", "_stalls", "_subscriptions")

    def __init__(self, pump: Pump, lifetime: Lifetime, stalls: StallWatch) -> None:
        self._stalls = stalls
        self._pump = pump
        self._lifetime = lifetime
        self._subscriptions: list[_Subscription] = []

    def add(self, handler: FrameHandler) -> Callable[[], None]:
        """Call `handler` with all frames not yet received and all that follow; return what stops it."""
        subscription = _Subscription(handler, self._pump.subscribe())
        self._subscriptions.append(subscription)
        self._lifetime.spawn(self._run, subscription)

        def unsubscribe() -> None:
            self._pump.unsubscribe(subscription.buffer)

        return unsubscribe

    async def wait_finished(self) -> None:
        """Wait until each handler has taken what is left for it."""
        for subscription in tuple(self._subscriptions):
            await subscription.done.wait()

    async def _run(self, subscription: _Subscription) -> None:
        try:
            while (frame := await subscription.buffer.get()) is not None:
                try:
                    result = subscription.handler(frame)
                    if inspect.isawaitable(result):
                        await self._wait_for(result, subscription.handler, frame)
                except Exception as exc:  # noqa: BLE001 - it comes out of the session's block
                    if not self._is_own_end(exc):
                        self._lifetime.fail(exc)
                        return
        finally:
            self._pump.unsubscribe(subscription.buffer)
            self._subscriptions.remove(subscription)
            subscription.done.set()

    async def _wait_for(self, result: Awaitable[object], handler: FrameHandler, frame: Frame) -> None:
        name = getattr(handler, "__qualname__", type(handler).__name__)
        stall = self._stalls.begin(
            lambda: (
                f"the handler {name} has been busy with one {type(frame).__name__} for {STALLED_AFTER:g} s, "
                "and gets no further frame until it returns; do long work in a task of your own"
            )
        )
        try:
            await result
        finally:
            self._stalls.end(stall)

    def _is_own_end(self, error: Exception) -> bool:
        """Whether a handler only found out that the session is over. Its `Close` says so too."""
        core = self._pump.core
        if core.state is State.OPEN:
            return False
        return isinstance(error, ConnectionClosed) or error is core.error


class _Subscription:
    """A handler and the frames it has not seen yet."""

    def __init__(self, handler: FrameHandler, buffer: DeliveryBuffer) -> None:
        self.handler = handler
        self.buffer = buffer
        self.done = anyio.Event()
