"""Compare the CPU time of many small tasks on a machine that does other things, too.

A *case* is one contender doing one task. All cases are timed in every round, in a new random order, each
for a few milliseconds, so that whatever disturbs the machine disturbs them all. The figure of a case is the
median over the rounds; the quartiles tell how far to trust it.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""Processors of this program, before it binds itself to one of them."""

_STAT = Path("/proc/stat")

_CALIBRATION = 0.001  # seconds a batch must last before its speed is believed


class Case(NamedTuple):
    """One contender doing one task."""

    task: str
    contender: str
    run: Callable[[int], object]
    """Does the task the given number of times and returns the last result."""
    messages: int = 1
    """Messages in one run of the task."""
    around: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """Entered while the case runs: a patch, say."""


class Metric(NamedTuple):
    """Something measured; less is better."""

    name: str
    title: str
    scale: float
    """Factor from the unit of measurement to the unit shown."""
    digits: int


class Figure(NamedTuple):
    """Seconds of CPU time per message."""

    median: float
    lower: float
    """First quartile."""
    upper: float
    """Third quartile."""
    least: float
    """The time of an undisturbed round.

    On a busy machine, whose medians mix times with and without a neighbour on the same core, this is the
    steadier figure.
    """
    rounds: list[float]

    @classmethod
    def of(cls, rounds: list[float]) -> Figure:
        lower, median, upper = statistics.quantiles(rounds, n=4, method="inclusive")
        return cls(median, lower, upper, min(rounds), rounds)

    def rounded(self, scale: float = 1.0) -> dict[str, float]:
        """Return what is published, each times `scale`, so that two runs can be compared."""
        named = {
            "median": self.median,
            "lower_quartile": self.lower,
            "upper_quartile": self.upper,
            "least": self.least,
        }
        return {name: float(f"{value * scale:.5g}") for name, value in named.items()}


class Ratio(NamedTuple):
    """One figure over another.

    Ratios are taken within each round, so that whatever disturbed both at the same time cancels out.
    """

    median: float
    lower: float
    """First quartile."""
    upper: float
    """Third quartile."""
    least: float
    """Ratio of the two least times."""

    @classmethod
    def of(cls, figure: Figure, base: Figure) -> Ratio:
        each = [a / b for a, b in zip(figure.rounds, base.rounds, strict=True)]
        lower, median, upper = statistics.quantiles(each, n=4, method="inclusive")
        return cls(median, lower, upper, figure.least / base.least)


def _cpu_time(case: Case, times: int) -> float:
    run = case.run
    start = time.thread_time()
    run(times)
    return time.thread_time() - start


def _times_for(case: Case, seconds: float) -> int:
    """Return how often to do the task so that it takes about `seconds`."""
    times = 1
    with case.around():
        while (taken := _cpu_time(case, times)) < _CALIBRATION:
            times *= 2
    return max(1, round(times * seconds / taken))


def measure(cases: Sequence[Case], *, rounds: int, seconds: float) -> dict[tuple[str, str], Figure]:
    """Time every case `rounds` times for about `seconds` each; figures by task and contender.

    The garbage collector is off meanwhile: nothing here makes cycles, and a collection would slow down
    whichever case runs at that moment. A line on standard error shows the progress.
    """
    times = [_times_for(case, seconds) for case in cases]
    taken: list[list[float]] = [[] for _ in cases]
    order = list(range(len(cases)))
    gc.collect()
    gc.disable()
    try:
        for done in itertools.count(1):
            random.shuffle(order)
            for index in order:
                case = cases[index]
                with case.around():
                    case.run(1 + times[index] // 20)  # brings its code and data back into the caches
                    cpu = _cpu_time(case, times[index])
                taken[index].append(cpu / (times[index] * case.messages))
            print(f"\rround {done} of {rounds}, {len(cases)} cases each", end="", file=sys.stderr, flush=True)
            if done == rounds:
                break
    finally:
        gc.enable()
        print(file=sys.stderr)
    return {
        (case.task, case.contender): Figure.of(seconds) for case, seconds in zip(cases, taken, strict=True)
    }


def cores() -> tuple[int | None, int | None]:
    """Return a processor for a server and one for its clients; None if the system gives no choice."""
    return (_ALLOWED[0], _ALLOWED[-1]) if len(_ALLOWED) > 1 else (None, None)


class Neighbours:
    """How busy other programs keep the machine, from now on."""

    def __init__(self) -> None:
        self._busy, self._total = _machine_seconds()
        self._ours = _our_seconds()

    def share(self) -> float:
        """Return their part of the CPU time of all processors: 0 on a quiet machine, 1 if they take all."""
        busy, total = _machine_seconds()
        ours = _our_seconds() - self._ours
        return max(0.0, busy - self._busy - ours) / max(total - self._total, 0.01)

    def sentence(self) -> str:
        """Return a sentence for the report; empty where the system does not tell."""
        return f" {self.share():.0%} of the machine's CPU time went to other programs." if self._total else ""


def _machine_seconds() -> tuple[float, float]:
    """Return the seconds that all processors were busy, or taken by a hypervisor, and all seconds."""
    if not _STAT.exists():  # only Linux has it
        return 0.0, 0.0
    first, _, _ = _STAT.read_text(encoding="ascii").partition("\n")
    fields = [int(field) for field in first.split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / tick, sum(fields) / tick


def _our_seconds() -> float:
    """Return the CPU seconds of this process and those that it has started and that have ended."""
    return sum(os.times()[:4])


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions measured and the kind of machine, without names of hosts, users or files."""
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
