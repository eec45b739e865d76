"""The handlers of a session: checks them, runs them, and passes on their errors."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from .._net.lifetime import Lifetime
from ..protocol._state import State
from ..protocol.errors import ConnectionClosed
from ..protocol.frames import Frame
from ._delivery import DeliveryBuffer
from ._frame_stream import FRAME_TYPES
from ._pump import DirectConsumer, Pump
from ._stalls import STALLED_AFTER, StallWatch

_PER_TURN: Final = 1024
"""Waiting frames that a handler gets in one turn of the event loop: far more than arrive in one, so that it
catches up however fast the peer is."""

FrameHandler = Callable[[Frame], Awaitable[object] | object]
"""Called with each frame. An awaitable that it returns is awaited before the next frame. See
`RealtimeSession.on`."""


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
    """The handlers of the session that `pump` moves.

    An async handler runs as a task of `lifetime`, with a buffer of its own. So does a plain one until it has
    been called with the frames that were waiting when it was added; from then on the pump calls it. A plain
    handler that returns an awaitable is treated as an async one from then on.
    """

    __slots__ = ("_added", "_lifetime", "_pump", "_running", "_stalls")

    def __init__(self, pump: Pump, lifetime: Lifetime, stalls: StallWatch) -> None:
        self._stalls = stalls
        self._pump = pump
        self._lifetime = lifetime
        self._added = 0
        self._running: tuple[_Handler, ...] = ()

    def add(self, function: FrameHandler) -> Callable[[], None]:
        """Call `function` with all frames not yet received and all that follow; return what stops it."""
        self._added += 1
        handler = _Handler(function, self, self._added)
        if handler.plain:
            context = self._lifetime.copy_context()
            handler.call = partial(context.run, function)  # type: ignore[call-arg]  # it takes the frame too
        self._start(handler, self._pump.subscribe())

        def unsubscribe() -> None:
            handler.call = _ignore  # another handler may call this while a frame is delivered
            self._pump.remove_direct(handler)
            if handler.buffer is not None:
                self._pump.unsubscribe(handler.buffer)

        return unsubscribe

    async def wait_finished(self) -> None:
        """Wait until each handler has taken what is left for it."""
        while self._running:
            finished = self._running[0].finished
            assert finished is not None, "set while a task runs it"
            await finished.wait()

    def await_result(self, handler: _Handler, result: Awaitable[object], frame: Frame) -> None:
        """Await what a handler that the pump calls returned for `frame`, before it gets another frame."""
        self._pump.remove_direct(handler)
        self._start(handler, self._pump.subscribe_to_next(), frame, result)

    def failed(self, handler: _Handler, error: BaseException) -> bool:
        """Pass on the error of a handler, which gets no further frame; False if it may go on."""
        if isinstance(error, Exception) and self._is_own_end(error):
            return False
        self._pump.remove_direct(handler)
        self._lifetime.fail(error)
        return True

    def _start(
        self,
        handler: _Handler,
        buffer: DeliveryBuffer,
        frame: Frame | None = None,
        result: Awaitable[object] | None = None,
    ) -> None:
        handler.buffer = buffer
        handler.finished = anyio.Event()
        self._running = (*self._running, handler)
        self._lifetime.spawn(self._run, handler, frame, result)

    async def _run(self, handler: _Handler, frame: Frame | None = None, result: object = None) -> None:
        """Await the `result` for `frame`, if any, then call `handler` with the frames of its buffer."""
        pump, buffer = self._pump, handler.buffer
        assert buffer is not None, "set by `_start`"
        waited = 0
        try:
            while True:
                if frame is None and handler.plain:
                    if waited and not waited % _PER_TURN:
                        await checkpoint()
                    waited += 1
                    frame = buffer.take()
                    if frame is None:
                        break
                elif frame is None:
                    frame = await buffer.get()
                    if frame is None:
                        return
                try:
                    if result is None:
                        result = handler.call(frame)
                    if inspect.isawaitable(result):
                        handler.plain = False
                        if not buffer.begun:
                            pump.begin(buffer)
                        await self._wait_for(result, handler.function, frame)
                except Exception as exc:  # noqa: BLE001 - it comes out of the session's block
                    if self.failed(handler, exc):
                        return
                frame = result = None
        finally:
            ended = buffer.ended
            pump.unsubscribe(buffer)
            self._running = tuple(other for other in self._running if other is not handler)
            handler.end_task()
        if not ended:
            pump.add_direct(handler)

    async def _wait_for(self, result: Awaitable[object], function: FrameHandler, frame: Frame) -> None:
        name = getattr(function, "__qualname__", type(function).__name__)
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


class _Handler(DirectConsumer):
    """A handler. While a task runs it, `buffer` has the frames it has not seen yet."""

    __slots__ = ("_handlers", "buffer", "finished", "function", "plain")

    def __init__(self, function: FrameHandler, handlers: Handlers, place: int) -> None:
        super().__init__(function, place)
        self._handlers = handlers
        self.function: FrameHandler = function
        self.buffer: DeliveryBuffer | None = None
        self.finished: anyio.Event | None = None
        """Set when the task that runs it ends."""
        self.plain: bool = not _is_async(function)
        """Whether it has never returned an awaitable."""

    def end_task(self) -> None:
        """Take note that no task runs it any more, and forget what only a task needs."""
        if self.finished is not None:
            self.finished.set()
        self.buffer = self.finished = None

    def returned(self, result: object, frame: Frame) -> None:
        if inspect.isawaitable(result):
            self._handlers.await_result(self, result, frame)

    def failed(self, error: BaseException) -> None:
        self._handlers.failed(self, error)


def _is_async(function: FrameHandler) -> bool:
    """Whether `function` is known to return an awaitable."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - of an object with an async method
    )


def _ignore(frame: Frame) -> None:
    """Do nothing: takes the place of a handler that was stopped."""
