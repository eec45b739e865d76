"""When the user talks, by loudness alone: enough for a quiet room, and to be replaced by a real detector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from speko_anyio.audio.pcm import byte_count, rms_dbfs

# Seconds
FRAME: Final = 0.02
ONSET: Final = 0.06  # loud for so long is somebody talking; less is a click
LEAD_IN: Final = 0.3  # before that, which is part of the turn: words begin softly
PAUSE: Final = 0.5  # quiet for so long ends the turn
LOOK: Final = 0.6  # into the turn, the first look at what was said so far
LONGEST: Final = 15.0  # a turn, so that its memory is bounded

LOUD: Final = -45.0
"""dBFS."""


class Started(NamedTuple):
    """Somebody talks."""


class GoesOn(NamedTuple):
    """A good moment to show what was said so far."""

    pcm: bytes


class Ended(NamedTuple):
    """The turn is over."""

    pcm: bytes


Event: TypeAlias = Started | GoesOn | Ended


class Turns:
    """PCM in, turns out. Time is the audio itself, however fast it comes."""

    def __init__(self, sample_rate: int) -> None:
        def size(seconds: float) -> int:
            return byte_count(seconds, sample_rate)

        self._frame, self._onset, self._lead_in = size(FRAME), size(ONSET), size(LEAD_IN)
        self._pause, self._look, self._longest = size(PAUSE), size(LOOK), size(LONGEST)
        self._unframed = bytearray()
        self.clear()

    def clear(self) -> None:
        """Forget all audio since the last turn."""
        self._unframed.clear()
        self._pcm = bytearray()
        self._talking = False
        self._run = 0  # bytes in a row: loud ones before a turn, quiet ones in it
        self._next_look = self._look

    def push(self, pcm: bytes) -> Iterator[Event]:
        """Take whole samples, any number; what they mean. Iterate to the end: work is done on the way."""
        self._unframed += pcm
        while len(self._unframed) >= self._frame:
            frame = bytes(self._unframed[: self._frame])
            del self._unframed[: self._frame]
            yield from self._take(frame)

    def end(self) -> Ended | None:
        """The client says that the turn is over; None when nobody talked since the last one."""
        ended = Ended(bytes(self._pcm + self._unframed)) if self._talking else None
        self.clear()
        return ended

    def _take(self, frame: bytes) -> Iterator[Event]:
        loud = rms_dbfs(frame) > LOUD
        self._run = self._run + len(frame) if loud != self._talking else 0
        self._pcm += frame
        if not self._talking:
            del self._pcm[: -self._lead_in]
            if self._run >= self._onset:
                self._talking, self._run = True, 0
                yield Started()
        elif self._run >= self._pause or len(self._pcm) >= self._longest:
            ended = Ended(bytes(self._pcm))
            rest = bytes(self._unframed)
            self.clear()
            self._unframed += rest
            yield ended
        elif len(self._pcm) >= self._next_look:
            # Each look hears the whole turn again, so they come at growing distances.
            self._next_look = len(self._pcm) * 3 // 2
            yield GoesOn(bytes(self._pcm))
