"""Detect the user's turns by loudness. This works in a quiet room; use a real detector in production."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from speko_anyio.audio._pcm import byte_count, rms_dbfs

# Seconds
FRAME: Final = 0.02
ONSET: Final = 0.06  # loud audio of this length is speech; less is a click
LEAD_IN: Final = 0.3  # audio before the onset that belongs to the turn, because words begin softly
PAUSE: Final = 0.5  # silence of this length ends the turn
LOOK: Final = 0.6  # from the start of the turn to the first `GoesOn`
LONGEST: Final = 15.0  # a longer turn is split, so that its memory is bounded

LOUD: Final = -45.0
"""dBFS."""


class Started(NamedTuple):
    """The user started to talk."""


class GoesOn(NamedTuple):
    """The user is still talking; `pcm` is the turn so far."""

    pcm: bytes


class Ended(NamedTuple):
    """The user finished the turn `pcm`."""

    pcm: bytes


Event: TypeAlias = Started | GoesOn | Ended


class Turns:
    """Convert PCM to turns. Time is measured in the audio, however fast it arrives."""

    def __init__(self, sample_rate: int) -> None:
        def size(seconds: float) -> int:
            return byte_count(seconds, sample_rate)

        self._frame, self._onset, self._lead_in = size(FRAME), size(ONSET), size(LEAD_IN)
        self._pause, self._look, self._longest = size(PAUSE), size(LOOK), size(LONGEST)
        self._unframed = bytearray()
        self.clear()

    @property
    def talking(self) -> bool:
        """Whether the user is in the middle of a turn."""
        return self._talking

    def clear(self) -> None:
        """Discard all audio since the last turn."""
        self._unframed.clear()
        self._pcm = bytearray()
        self._talking = False
        self._run = 0  # consecutive bytes: loud ones before a turn, quiet ones in it
        self._next_look = self._look

    def push(self, pcm: bytes) -> Iterator[Event]:
        """Take any number of whole samples, and yield what happened. Iterate to the end."""
        self._unframed += pcm
        while len(self._unframed) >= self._frame:
            frame = bytes(self._unframed[: self._frame])
            del self._unframed[: self._frame]
            yield from self._take(frame)

    def end(self) -> Ended | None:
        """End the turn, as the client asked; return None if the user has not talked since the last turn."""
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
            # Each one transcribes the whole turn again, so their distances grow.
            self._next_look = len(self._pcm) * 3 // 2
            yield GoesOn(bytes(self._pcm))
