"""Named deadlines for a core that owns no clock.

A timer is started for a number of seconds, which count from the next time that the caller passes. Until then
`next` returns `AT_ONCE`, which asks for that. So the verbs of the core need no `now`, and the hot path never
reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final

AT_ONCE: Final = -inf
"""A deadline that is always due: call `handle_timeout(now)` to tell the core the time."""


class Timers:
    """Deadlines by name. All times are seconds of one clock, the caller's choice."""

    __slots__ = ("_due", "_started")

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def start(self, name: str, seconds: float) -> None:
        """Start `name`, or start it again: `seconds` count from the next known time."""
        # Forget the old instant: `expired` may be iterating.
        self._due.pop(name, None)
        self._started[name] = seconds

    def stop(self, name: str) -> None:
        """Forget `name`, whether or not it runs."""
        self._started.pop(name, None)
        self._due.pop(name, None)

    def clear(self) -> None:
        """Forget every timer."""
        self._started.clear()
        self._due.clear()

    def next(self) -> float | None:
        """Return the instant of the next timer; None when none runs."""
        if self._started:
            return AT_ONCE
        return min(self._due.values(), default=None)

    def settle(self, now: float) -> None:
        """Turn the started timers into instants, counted from `now`."""
        for name, seconds in self._started.items():
            self._due[name] = now + seconds
        self._started.clear()

    def expired(self, now: float) -> Iterator[tuple[str, float]]:
        """Yield the timers due at `now`, earliest first, each with the seconds it is late, and stop them.

        They are taken one at a time: a timer that an earlier one stops is not yielded, and a timer that is
        started meanwhile waits for the next call, however short it is.
        """
        self.settle(now)
        while self._due:
            name = min(self._due, key=self._due.__getitem__)
            if self._due[name] > now:
                return
            yield name, now - self._due.pop(name)
