"""What waits to be said to the client: in order, counted, and the speech in it can still be taken back."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from ...protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Interruption,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    Transcript,
    Usage,
)

ClientFrame: TypeAlias = (
    Audio | Transcript | ToolCall | ServerToolCall | Interruption | Usage | ResponseEnd | ErrorFrame | Close
)
"""What a bridge has to say to the client."""

_OVERHEAD: Final = 100
"""Bytes that a frame counts beside its content, about what its objects take."""


CUT_OFF: Final = (Audio, ToolCall)
"""Frames that an interruption discards while they are queued."""


def _cost(frame: ClientFrame) -> int:
    match frame:
        case Audio(pcm=content) | Transcript(text=content) | ToolCall(arguments=content):
            return _OVERHEAD + len(content)
        case _:
            return _OVERHEAD


class ClientQueue:
    """The frames, oldest first."""

    __slots__ = ("_frames", "size")

    def __init__(self) -> None:
        self._frames: deque[ClientFrame] = deque()
        self.size = 0
        """Bytes, about."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def urgent(self) -> bool:
        """Whether an interruption waits."""
        return any(type(frame) is Interruption for frame in self._frames)

    def put(self, frame: ClientFrame) -> None:
        """Append a frame. An `Interruption` discards the speech ahead of it, and the tool calls, whose
        results are no longer needed."""
        if type(frame) is Interruption:
            kept = [waiting for waiting in self._frames if type(waiting) not in CUT_OFF]
            self.clear()
            for waiting in kept:
                self._append(waiting)
        self._append(frame)

    def _append(self, frame: ClientFrame) -> None:
        self._frames.append(frame)
        self.size += _cost(frame)

    def take(self) -> ClientFrame | None:
        """The oldest; None when there is none."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self.size -= _cost(frame)
        return frame

    def clear(self) -> None:
        """Forget them all: nobody will take them."""
        self._frames.clear()
        self.size = 0
