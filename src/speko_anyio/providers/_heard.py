"""Estimates how much of the assistant's audio the listener has heard, and takes reports of it.

Audio arrives faster than it is played. A player starts each piece when the piece before it ends, or at once
if it has run dry. So the unplayed audio is the end of everything sent, and its length follows from the times
at which audio arrived, which the caller has to provide. A player that reports what it has played (`played`)
corrects the estimate, which goes on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

_MAX_ITEMS: Final = 64
"""Items with unplayed audio that are tracked separately: a response has a few."""

_TOLERANCE: Final = 50.0
"""Milliseconds by which a report may exceed what can have been played, by rounding and resampling."""

_CLOCK_ERROR: Final = 0.01
"""How much faster than real time a player may be, by its clock."""


class Heard(NamedTuple):
    """How much of one item of the conversation was sent and played."""

    item_id: str
    content_index: int
    heard: int
    """Milliseconds that were played."""
    sent: int
    """Milliseconds that were sent to the listener."""


class HeardEstimate:
    """Estimates how much of each item was heard.

    Call `clock` before every message that is handed to the dialect and before every verb, or `follow` once.
    Without either, all audio counts as heard when it arrives: nothing is unplayed, and an interrupted item is
    truncated to what was sent of it.
    """

    __slots__ = (
        "_added",
        "_began",
        "_bytes_per_ms",
        "_clock",
        "_earlier_ms",
        "_end",
        "_items",
        "_new",
        "_now",
        "_size",
    )

    def __init__(self, sample_rate: int) -> None:
        self._bytes_per_ms = sample_rate * 2 / 1000
        self._new = False
        self._now: float | None = None
        self._clock: Callable[[], float] | None = None
        self._end = 0.0
        # Item, content index and bytes of each item with unplayed audio, and of the last item; oldest first.
        self._items: deque[tuple[str, int, int]] = deque()
        self._size = 0
        self._added = 0
        """Bytes of audio since the last flush."""
        self._earlier_ms = 0.0
        """Milliseconds of audio since the last flush that an earlier connection had."""
        self._began: float | None = None
        """When the first of all this audio came; None if there was none, or no clock."""

    def clock(self, now: float) -> None:
        """Set the time, in seconds of any clock that never goes back."""
        self._now = now

    def follow(self, clock: Callable[[], float]) -> None:
        """Ask `clock` for the time whenever it is needed."""
        self._clock = clock
        self._now = clock()

    def set_rate(self, sample_rate: int) -> None:
        """Set the rate of the audio to come, in samples a second of PCM16 mono; forget the unplayed audio."""
        if self._items:
            self.flush()
        self._bytes_per_ms = sample_rate * 2 / 1000

    @property
    def unplayed_ms(self) -> float:
        """Milliseconds of audio that the player still has to play."""
        now = self.read()
        return 0.0 if now is None else max(0.0, self._end - now) * 1000

    def read(self) -> float | None:
        """Return the time; None if the caller tells none."""
        if self._clock is not None:
            self._now = self._clock()
        return self._now

    def begin(self) -> None:
        """Begin another response, whose items may reuse the ids of earlier ones."""
        self._new = True

    def add(self, item_id: str, content_index: int, size: int) -> None:
        """Note that audio of `size` bytes goes to the listener now."""
        items = self._items
        new, self._new = self._new, False
        if items and not new and items[-1][0] == item_id and items[-1][1] == content_index:
            size_before = items.pop()[2]
        else:
            size_before = 0
            unplayed = self.unplayed_ms * self._bytes_per_ms
            while items and (self._size - items[0][2] >= unplayed or len(items) >= _MAX_ITEMS):
                self._size -= items.popleft()[2]
        items.append((item_id, content_index, size_before + size))
        self._size += size
        # Like `read`, inlined to save a call for each piece of audio.
        now = self._now if self._clock is None else self._clock()
        if now is not None:
            self._now = now
            if self._began is None:
                self._began = now
            self._end = max(self._end, now) + size / self._bytes_per_ms / 1000
        self._added += size

    def played(self, ms: float) -> None:
        """Take a report that `ms` milliseconds of the audio since the last flush have been played by now.

        A report from before that flush is ignored, as far as it can be told: nothing can play more than it
        got, or faster than in real time. So is a report without a clock.
        """
        now = self.read()
        if now is None or self._began is None:
            return
        unplayed = self._sent_ms - ms
        most = (now - self._began) * 1000 * (1 + _CLOCK_ERROR)
        if unplayed >= -_TOLERANCE and ms <= most + _TOLERANCE:
            self._end = now + unplayed / 1000

    @property
    def _sent_ms(self) -> float:
        """Milliseconds of audio since the last flush."""
        return self._earlier_ms + self._added / self._bytes_per_ms

    def follow_up(self, earlier: HeardEstimate) -> None:
        """Go on for the same listener where `earlier` stands: another connection serves the session now."""
        self._earlier_ms = earlier._sent_ms
        self._began, self._end = earlier._began, earlier._end

    def heard(self) -> list[Heard]:
        """Return the items with unplayed audio, and the last item in any case; oldest first."""
        unplayed = self.unplayed_ms * self._bytes_per_ms
        found: deque[Heard] = deque()
        for item_id, content_index, size in reversed(self._items):
            if unplayed <= 0 and found:
                break
            heard = int(max(0.0, size - max(unplayed, 0.0)) / self._bytes_per_ms)
            found.appendleft(Heard(item_id, content_index, heard, int(size / self._bytes_per_ms)))
            unplayed -= size
        return list(found)

    def flush(self) -> None:
        """Forget the unplayed audio, as the player does."""
        self._items.clear()
        self._size = self._added = 0
        self._earlier_ms = self._end = 0.0
        self._began = None
