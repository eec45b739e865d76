"""How the CPU time of some work grows with its input."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

FACTOR: Final = 4
"""The larger input is so many times as large as the smaller."""

MOST: Final = 6.0
"""The most that the time may grow: linear work takes 4 times as long, n log n a little more, quadratic 16."""

FLOOR: Final = 0.0005
"""Seconds. Anything faster counts as this fast: it is noise."""

_ATTEMPTS: Final = 4


class Case(NamedTuple):
    """Work on input that a peer, or a file, controls."""

    name: str
    make: Callable[[int], Any]
    """Makes an input of about so many bytes; it is made anew for each run, since work may use it up."""
    work: Callable[[Any], object]
    size: int
    """Bytes of the larger input: the most that the door takes, or enough to show the growth."""


def growth(case: Case) -> float:
    """Return by how much the work grows when its input grows by `FACTOR`.

    The least of several attempts: whatever else runs on the machine only ever makes it seem more.
    """
    least = float("inf")
    for _ in range(_ATTEMPTS):
        small = _seconds(case, case.size // FACTOR, runs=3)
        large = _seconds(case, case.size, runs=2)
        least = min(least, max(large, FLOOR) / max(small, FLOOR))
        if least <= MOST:
            break
    return least


def _seconds(case: Case, size: int, runs: int) -> float:
    """Return the CPU time of this thread for the work, at best."""
    best = float("inf")
    for _ in range(runs):
        given = case.make(size)
        gc.collect()
        gc.disable()
        try:
            start = time.thread_time()
            case.work(given)
            best = min(best, time.thread_time() - start)
        finally:
            gc.enable()
    return best
