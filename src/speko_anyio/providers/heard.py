"""What of the assistant's audio the listener has heard: an estimate, since no provider or peer reports it.

Audio comes faster than it is played. A player starts each piece when the piece before it ends, or at once
when it has run dry; so what is unplayed is the end of everything sent, and how long it still takes follows
from the times at which the audio came. Those times are the caller's to tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

_MAX_ITEMS: Final = 64
"""Items with unplayed audio that are kept apart: a response has a few."""


class Heard(NamedTuple):
    """One item of the conversation, as the listener knows it. Milliseconds."""

    item_id: str
    content_index: int
    heard: int
    sent: int


class HeardEstimate:
    """Tells how much of each item was heard.

    Call `clock` before every message that is handed to the dialect and before every verb; or `follow`, once;
    or neither: then all audio counts as heard the moment it comes, nothing is unplayed, and an interrupted
    item is truncated to what was sent of it.
    """

    __slots__ = ("_bytes_per_ms", "_clock", "_end", "_items", "_new", "_now", "_size")

    def __init__(self, sample_rate: int) -> None:
        self._bytes_per_ms = sample_rate * 2 / 1000
        self._new = False
        self._now: float | None = None
        self._clock: Callable[[], float] | None = None
        self._end = 0.0
        # Oldest first: item, content index and bytes of each that is not played to its end, and of the last.
        self._items: deque[tuple[str, int, int]] = deque()
        self._size = 0

    def clock(self, now: float) -> None:
        """It is `now`, in seconds of a clock of the caller's choice that never goes back."""
        self._now = now

    def follow(self, clock: Callable[[], float]) -> None:
        """Ask `clock` for the time whenever it matters, instead of being told."""
        self._clock = clock
        self._now = clock()

    def set_rate(self, sample_rate: int) -> None:
        """The audio to come has this rate."""
        self.flush()
        self._bytes_per_ms = sample_rate * 2 / 1000

    @property
    def unplayed_ms(self) -> float:
        """How long the player would still play if nothing more came."""
        now = self._read()
        return 0.0 if now is None else max(0.0, self._end - now) * 1000

    def _read(self) -> float | None:
        if self._clock is not None:
            self._now = self._clock()
        return self._now

    def begin(self) -> None:
        """Another response begins: an item may reuse the id of an earlier one."""
        self._new = True

    def add(self, item_id: str, content_index: int, size: int) -> None:
        """Audio of this many bytes goes to the listener now."""
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
        if (now := self._read()) is not None:
            self._end = max(self._end, now) + size / self._bytes_per_ms / 1000

    def heard(self) -> list[Heard]:
        """The items with unplayed audio, and the last one in any case; oldest first."""
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
        """The player was told to drop what it has."""
        self._items.clear()
        self._size = 0
        self._end = 0.0
