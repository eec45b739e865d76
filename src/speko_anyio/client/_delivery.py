"""Buffers between the network and each consumer of frames: in order, and bounded in bytes.

An interruption must act at once, although speech arrives faster than it is played. So it discards the audio
that is still in a buffer when it arrives, while everything else keeps its order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, overload

import anyio
import anyio.lowlevel

from .._net.tasks import Waiter
from ..protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
)

DEFAULT_MAX_BUFFER: Final = 3 * 1024 * 1024
"""Bytes of undelivered frames at which the socket is no longer read: about a minute of 24 kHz PCM16 in
frames of 20 ms. Speech arrives faster than it is played, and an interruption that is still unread in the
socket can't act: so a long response has to fit."""

FRAME_OVERHEAD: Final = 100
"""Bytes that a frame counts in addition to its content, about the size of its objects: this bounds a flood of
tiny frames."""

_FRAMES_PER_TURN: Final = 64
"""Buffered frames for each turn of the event loop: a turn costs several times what a frame does. A
cancellation is only noticed there."""

_SECOND_READER: Final = (
    "another task is already receiving here; give each reader its own stream: "
    "`async with session.frames() as frames`"
)


def _cost(frame: Frame) -> int:
    match frame:
        case Audio(pcm=pcm):
            return FRAME_OVERHEAD + len(pcm)
        case Transcript(text=text) | ResponseEnd(reason=text):
            return FRAME_OVERHEAD + len(text)
        case Unknown(t=name, raw=text) | ErrorFrame(code=name, message=text):
            return FRAME_OVERHEAD + len(name) + len(text)
        case ServerToolCall(id=call_id, name=name):
            return FRAME_OVERHEAD + len(call_id) + len(name)
        case ToolCall(call_id=call_id, name=name, arguments=arguments):
            return FRAME_OVERHEAD + len(call_id) + len(name) + len(arguments)
        case _:
            return FRAME_OVERHEAD


class DeliveryBuffer:
    """The frames that one consumer has not taken yet.

    `limit` is in bytes; each frame counts its content plus `FRAME_OVERHEAD`. `on_space` is
    called when a buffer that was `full` has room again. All methods but `get` are synchronous and never
    block.
    """

    __slots__ = (
        "_busy",
        "_clean",
        "_frames",
        "_limit",
        "_on_space",
        "_resume_at",
        "_size",
        "_streak",
        "_waiter",
        "_waiting",
        "begun",
        "dropped_bytes",
        "dropped_frames",
        "ended",
        "full",
        "lossy",
    )

    def __init__(self, limit: int, on_space: Callable[[], None], waiter: Waiter) -> None:
        self._limit = limit
        self._on_space = on_space
        # Below the limit, so that a slow consumer does not stop and start the reading at every frame. But not
        # far below: an interruption can discard what is buffered here, and not what waits in the socket.
        self._resume_at = limit - limit // 8
        self._frames: deque[Frame] = deque()
        # The newest frame that was here at the last interruption: up to it there is no audio. So one
        # interruption at most looks at each frame, however many a peer sends.
        self._clean: Frame | None = None
        self._size = 0
        self._streak = 0
        self._busy = False
        self._waiting = False
        self._waiter = waiter
        self.ended: bool = False
        """Whether no more frames will come."""
        self.begun: bool = False
        """Whether its consumer has begun to take frames. `Pump` sets it."""
        self.full: bool = False
        """Whether the limit is reached. It stays True until an eighth of the buffer is free."""
        self.lossy: bool = False
        """Whether new frames are dropped while `full`, except `Interruption` and `Close`. If not, the reading
        must stop. `Pump` decides it."""
        self.dropped_frames: int = 0
        self.dropped_bytes: int = 0
        """Bytes of audio in the dropped frames."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """Buffered bytes, counted as for the limit."""
        return self._size

    def snapshot(self) -> Iterable[Frame]:
        """Copy the frames that wait, oldest first."""
        return tuple(self._frames)

    def put(self, frame: Frame) -> bool:
        """Append a frame, and return whether to stop reading.

        An `Interruption` discards the audio ahead of it. `Close` ends the buffer.
        """
        kind = type(frame)
        if self.full and self.lossy and kind is not Interruption and kind is not Close:
            self._dropped(frame)
            return False
        if kind is Audio:
            self._size += FRAME_OVERHEAD + len(frame.pcm)  # type: ignore[union-attr]
        else:
            if kind is Interruption:
                self._discard_audio()
                if self.full and self.lossy and self._frames and type(self._frames[-1]) is Interruption:
                    self._dropped(frame)  # has had its effect, and as news it is a repetition
                    return False
            elif kind is Close:
                self.ended = True
            self._size += _cost(frame)
        self._frames.append(frame)
        if self._size >= self._limit:
            self.full = True
        if self._waiting:
            self._waiting = False
            self._waiter.ring()
        return self.full and not self.lossy

    def end(self) -> None:
        """Take note that no more frames will come: once all are taken, `get` returns None."""
        self.ended = True
        if self._waiting:
            self._waiting = False
            self._waiter.ring()

    def clear(self) -> None:
        """Discard the frames that wait."""
        self._frames.clear()
        self._size = 0
        self._check_space()

    def take(self) -> Frame | None:
        """Take the oldest frame; None if there is none."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._size -= _cost(frame)
        self._check_space()
        return frame

    @overload
    async def get(self) -> Frame | None: ...
    @overload
    async def get(self, end: Callable[[], Exception]) -> Frame: ...
    async def get(self, end: Callable[[], Exception] | None = None) -> Frame | None:
        """Take the oldest frame, and wait for it if there is none.

        After the end it raises what `end` returns, or returns None without an `end`. Raises
        `anyio.BusyResourceError` while another task waits here. Cancelled, it takes nothing. A pending
        cancellation is noticed when this waits, and otherwise at every 64th frame.
        """
        frames = self._frames
        if self._busy or not (frames and self._streak):
            # Inlined, since nearly every frame of a live conversation is waited for.
            if self._busy:
                busy = anyio.BusyResourceError("receiving from")
                busy.args = (_SECOND_READER,)
                raise busy
            self._busy = True
            try:
                if frames or self.ended:
                    await anyio.lowlevel.checkpoint()
                while not frames:
                    if self.ended:
                        if end is None:
                            return None
                        raise end()
                    self._waiting = True
                    await self._waiter.wait()
            finally:
                self._busy = False
                self._waiting = False
            self._streak = _FRAMES_PER_TURN
        self._streak -= 1
        frame = frames.popleft()
        self._size -= FRAME_OVERHEAD + len(frame.pcm) if type(frame) is Audio else _cost(frame)
        if self.full:
            self._check_space()
        return frame

    async def get_all(self, end: Callable[[], Exception]) -> list[Frame]:
        """Take all frames that wait, oldest first; wait for one if there is none. Otherwise as `get`."""
        first = await self.get(end)
        frames = [first, *self._frames]
        self.clear()
        return frames

    def _discard_audio(self) -> None:
        frames = self._frames
        kept: list[Frame] = []
        while frames and frames[-1] is not self._clean:
            frame = frames.pop()
            if type(frame) is Audio:
                self._size -= FRAME_OVERHEAD + len(frame.pcm)
                self._dropped(frame)
            else:
                kept.append(frame)
        frames.extend(reversed(kept))
        self._clean = frames[-1] if frames else None
        self._check_space()

    def _dropped(self, frame: Frame) -> None:
        self.dropped_frames += 1
        if isinstance(frame, Audio):
            self.dropped_bytes += len(frame.pcm)

    def _check_space(self) -> None:
        if self.full and self._size <= self._resume_at:
            self.full = False
            self._on_space()


class SelectiveBuffer(DeliveryBuffer):
    """A `DeliveryBuffer` of the frames of some types only.

    An `Interruption` and a `Close` take effect even if they are not among these types. With `drop_oldest` it
    is never `full`: the oldest frames are dropped when it exceeds the limit.
    """

    __slots__ = ("_drop_oldest", "_kinds")

    def __init__(
        self,
        limit: int,
        on_space: Callable[[], None],
        waiter: Waiter,
        *,
        kinds: Collection[type],
        drop_oldest: bool,
    ) -> None:
        super().__init__(limit, on_space, waiter)
        self._kinds = frozenset(kinds)
        self._drop_oldest = drop_oldest

    def put(self, frame: Frame) -> bool:
        kind = type(frame)
        if kind in self._kinds:
            super().put(frame)
            if self._drop_oldest and self.full:
                while self._size > self._limit and len(self._frames) > 1:
                    oldest = self._frames.popleft()
                    self._size -= _cost(oldest)
                    self._dropped(oldest)
                self.full = False
        elif kind is Interruption:
            self._discard_audio()
        elif kind is Close:
            self.end()
        return self.full and not self.lossy
