"""How much a peer may say in a time: a budget of messages, which time refills."""

from __future__ import annotations

from math import inf
from typing import Final

_LOOK_EVERY: Final = 256
"""Messages after which the time is asked for: few beside the budget, and so many that it costs nothing."""


class Budget:
    """Messages that a peer may send: `rate` a second, and `burst` at once; without a `rate`, any number.

    It reads no clock. Whoever receives adds to `spent`, and calls `keeps` with the time now and then, at the
    latest when `due`.
    """

    __slots__ = ("_burst", "_checked_at", "_rate", "_room", "look_at", "spent")

    def __init__(self, rate: float | None = None, burst: int = 0) -> None:
        self._rate = rate
        self._burst = burst
        self._room: float = burst
        self._checked_at = -inf
        self.spent: int = 0
        """Messages, control frames and fragments since the last `keeps`."""
        self.look_at: float = inf if rate is None else min(burst, _LOOK_EVERY)
        """The value of `spent` from which it is `due`."""

    @property
    def due(self) -> bool:
        """Whether `keeps` should be called."""
        return self.spent >= self.look_at

    def keeps(self, now: float) -> bool:
        """Return whether the peer keeps to its budget. Time only counts from one call to the next."""
        spent, self.spent = self.spent, 0
        if self._rate is None:
            return True
        self._room = min(self._burst, self._room + self._rate * (now - self._checked_at)) - spent
        self._checked_at = now
        return self._room >= 0
