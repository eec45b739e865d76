"""A budget of messages that a peer may send, which time refills (a token bucket)."""

from __future__ import annotations

from math import inf
from typing import Final

_LOOK_EVERY: Final = 256
"""Messages between two calls of `keeps`: few compared to the budget, so many that a call costs nothing."""


class Budget:
    """Messages that a peer may send: `rate` a second, and `burst` at once; without a `rate`, any number.

    It reads no clock. The receiver adds to `spent`, and calls `keeps` with the time regularly, at the latest
    when it is `due`.
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
        """Return whether the peer keeps to its budget. The time since the last call refills it."""
        spent, self.spent = self.spent, 0
        if self._rate is None:
            return True
        self._room = min(self._burst, self._room + self._rate * (now - self._checked_at)) - spent
        self._checked_at = now
        return self._room >= 0
