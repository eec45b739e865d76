"""Separate consumers of a session's frames, as `RealtimeSession.frames` returns them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast, get_args

from .._net.contexts import Block
from ..protocol.frames import Frame
from ._delivery import DeliveryBuffer
from ._pump import Pump

if TYPE_CHECKING:
    from types import CoroutineType

F_co = TypeVar("F_co", covariant=True)

FRAME_TYPES: Final[frozenset[type]] = frozenset(get_args(Frame))


def check_types(kinds: tuple[object, ...]) -> frozenset[type]:
    """Return the frame types `kinds`, or all if it is empty; TypeError for anything else."""
    checked: set[type] = set()
    for kind in kinds:
        if not isinstance(kind, type) or kind not in FRAME_TYPES:
            known = ", ".join(sorted(frame.__name__ for frame in FRAME_TYPES))
            raise TypeError(f"{kind!r} is not a type of frame; the types are {known}")
        checked.add(kind)
    return frozenset(checked) or FRAME_TYPES


class FramesBlock(Block):
    """The block around a stream of the frames of `kinds`."""

    __slots__ = ("_drop_oldest", "_kinds", "_max_buffer", "_pump", "_stream")

    _what = "a stream of frames is opened"
    _example = "async with session.frames(...) as frames:"

    def __init__(
        self, pump: Pump, kinds: frozenset[type], *, max_buffer: int | None, drop_oldest: bool
    ) -> None:
        self._pump = pump
        self._kinds = kinds
        self._max_buffer = max_buffer
        self._drop_oldest = drop_oldest
        self._stream: FrameStream[Any] | None = None

    async def __aenter__(self) -> FrameStream[Any]:
        if self._stream is not None:
            raise RuntimeError(
                "a stream of frames is entered once; call `session.frames(...)` again for another one"
            )
        buffer = self._pump.subscribe_to(
            self._kinds, max_buffer=self._max_buffer, drop_oldest=self._drop_oldest
        )
        self._stream = FrameStream(self._pump, buffer)
        return self._stream

    async def __aexit__(self, *exc_info: object) -> None:
        if self._stream is not None:
            self._pump.unsubscribe(self._stream._buffer)


class FrameStream(Generic[F_co]):
    """Frames to iterate over, one task at a time.

    It ends with the session: with its `RemoteProtocolError` if the peer broke the protocol. Cancelled, it
    loses no frame.
    """

    def __init__(self, pump: Pump, buffer: DeliveryBuffer) -> None:
        self._pump = pump
        self._buffer = buffer

    @property
    def dropped_frames(self) -> int:
        """Number of frames that were discarded.

        They are audio that an interruption made stale, and frames that did not fit with `drop_oldest`.
        """
        return self._buffer.dropped_frames

    def __aiter__(self) -> Self:
        return self

    # Returns the buffer's coroutine without awaiting it: see the comment in `RealtimeSession`.
    def __anext__(self) -> CoroutineType[Any, Any, F_co]:
        buffer = self._buffer
        if not buffer.begun:
            self._pump.begin(buffer)
        return cast("CoroutineType[Any, Any, F_co]", buffer.get(self._pump.end_of_iteration))
