"""Estimates what a phone line has played, by the carrier's marks, and by the clock between them."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

MARK_PATIENCE: Final = 1.0
"""Seconds after which an unanswered mark no longer holds back the estimate: the carrier may answer none."""

_MAX_MARKS: Final = 256
"""Marks that wait for their answers: at a mark every 200 ms, several times what a carrier's buffer holds."""

_ROUNDING: Final = 1e-6
"""Seconds by which sums of times may be wrong."""


class _Mark(NamedTuple):
    name: str
    position: float


class LineEstimate:
    """How much the line has played of the audio that was sent since the last clear.

    A mark's answer says exactly how much. From there on the line plays in real time, but not beyond the next
    mark that is unanswered, nor beyond what was sent. A mark that is overdue counts as lost: from then on the
    clock alone tells, until a mark is answered.
    """

    __slots__ = ("_marks", "_position", "_since", "_trusts_marks", "sent")

    def __init__(self) -> None:
        self._trusts_marks = True
        self.clear()

    def clear(self) -> None:
        """Forget all audio and all marks: the carrier has dropped what it had not played."""
        self.sent: float = 0.0
        """Seconds of audio that were sent."""
        self._marks: deque[_Mark] = deque(maxlen=_MAX_MARKS)
        self._position = 0.0
        self._since = 0.0
        """When the line was at that position, playing on from there."""

    def add(self, seconds: float, now: float) -> None:
        """Note that so much audio is sent now."""
        self.played(now)  # decides whether the marks are still trusted
        if self._clock(now) >= self.sent:
            self._position, self._since = self.sent, now  # the line was silent
        self.sent += seconds

    def mark(self, name: str) -> None:
        """Note that this mark follows the audio that was sent so far."""
        self._marks.append(_Mark(name, self.sent))

    def answered(self, name: str, now: float) -> bool:
        """Note that the line has reached this mark; return False if it is unknown or was forgotten."""
        for count, mark in enumerate(self._marks, 1):
            if mark.name == name:
                for _ in range(count):
                    self._marks.popleft()
                self._position, self._since = mark.position, now
                self._trusts_marks = True
                return True
        return False

    def played(self, now: float) -> float:
        """Return how many seconds of that audio were played."""
        clock = self._clock(now)
        if self._trusts_marks and self._marks:
            due = self._marks[0].position
            if clock < due + MARK_PATIENCE:
                return min(clock, due)
            self._trusts_marks = False
        return min(clock, self.sent)

    def is_behind(self, now: float) -> bool:
        """Return whether a mark that is not answered yet says that the line plays later than the clock."""
        return self.played(now) < min(self._clock(now), self.sent) - _ROUNDING

    def unplayed(self, now: float) -> float:
        """Return how many seconds of that audio are still to be played."""
        unplayed = self.sent - self.played(now)
        return unplayed if unplayed > _ROUNDING else 0.0

    def _clock(self, now: float) -> float:
        return self._position + now - self._since
