"""The results of a load: as a struct for JSON, and as a table for people."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from rich.table import Table

from ..._version import __version__
from ._load import Load
from ._session_runs import Plan

LATE: Final = 0.02
"""Seconds of lateness that count as late: a whole message of silence is heard."""


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds; quantiles by nearest rank."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread | None:
        """Return the spread of these times; None if there are none."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        return cls(len(ordered), *(round(1000 * quantile(ordered, q), 3) for q in (0.5, 0.9, 0.99, 1.0)))


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the smallest of `ordered` (ascending, not empty) that at least the share `q` does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


class Second(msgspec.Struct, frozen=True):
    """One second of the run. Milliseconds."""

    second: int
    messages: int
    p50: float
    p99: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result; as JSON it is what ``--json`` writes."""

    version: str
    plan: Plan
    backend: str
    seconds: float
    client_cpu: float
    """Seconds of this process's CPU for each second of the run: near 1, the load itself is the limit."""
    opened: int
    failed: int
    """Sessions that were not opened, or ended before their time."""
    messages_sent: int
    messages_received: int
    messages_lost: int
    messages_broken: int
    messages_late: int
    """Messages that a player would have had to wait more than 20 ms for."""
    connect_ms: Spread | None
    first_audio_ms: Spread | None
    latency_ms: Spread | None
    """Of an echo: round trip of a message."""
    lateness_ms: Spread | None
    behind_ms: Spread | None
    """Of an echo: how late the messages were sent. Where this is large, so is the lateness, and neither is
    the gateway's."""
    ends: dict[str, int]
    errors: dict[str, int]
    by_second: tuple[Second, ...]
    """Of the latency where there is one, else of the lateness."""

    @property
    def clean(self) -> bool:
        """Return whether every session did what it should."""
        return not (self.failed or self.messages_lost or self.messages_broken)


def make_report(load: Load, plan: Plan, *, backend: str) -> Report:
    """Sum up a load that has run."""
    outcomes = load.outcomes
    lateness = [late for outcome in outcomes for late in outcome.lateness]
    return Report(
        version=__version__,
        plan=plan,
        backend=backend,
        seconds=round(load.seconds, 3),
        client_cpu=round(load.cpu_seconds / load.seconds, 3),
        opened=sum(outcome.connect is not None for outcome in outcomes),
        failed=sum(outcome.error is not None for outcome in outcomes),
        messages_sent=sum(outcome.sent for outcome in outcomes),
        messages_received=sum(outcome.received for outcome in outcomes),
        messages_lost=sum(outcome.lost for outcome in outcomes),
        messages_broken=sum(outcome.broken for outcome in outcomes),
        messages_late=sum(late > LATE for late in lateness),
        connect_ms=Spread.of(outcome.connect for outcome in outcomes if outcome.connect is not None),
        first_audio_ms=Spread.of(first for outcome in outcomes for first in outcome.first_audio),
        latency_ms=Spread.of(latency for outcome in outcomes for latency in outcome.latency),
        lateness_ms=Spread.of(lateness),
        behind_ms=Spread.of(behind for outcome in outcomes for behind in outcome.behind),
        ends=dict(Counter(outcome.end for outcome in outcomes).most_common()),
        errors=dict(load.errors.most_common()),
        by_second=_by_second(load),
    )


def _by_second(load: Load) -> tuple[Second, ...]:
    samples: defaultdict[int, list[float]] = defaultdict(list)
    for outcome in load.outcomes:
        for when, value in zip(outcome.when, outcome.latency or outcome.lateness, strict=True):
            samples[int(when)].append(value)
    seconds = []
    for second, values in sorted(samples.items()):
        values.sort()
        p50, p99 = statistics.median_low(values), quantile(values, 0.99)
        seconds.append(Second(second, len(values), round(1000 * p50, 3), round(1000 * p99, 3)))
    return tuple(seconds)


def make_table(report: Report) -> Table:
    """Lay out the report's times for people."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for name in ("", "count", "p50 ms", "p90 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right" if name else "left")
    for name, spread in (
        ("opening a session", report.connect_ms),
        ("time to first audio", report.first_audio_ms),
        ("message there and back", report.latency_ms),
        ("lateness of a message", report.lateness_ms),
        ("of it, sent too late", report.behind_ms),
    ):
        if spread is not None:
            figures = (spread.p50, spread.p90, spread.p99, spread.max)
            table.add_row(name, str(spread.count), *(f"{figure:.1f}" for figure in figures))
    return table


def make_lines(report: Report) -> list[str]:
    """Return the lines below the table: counts, ends and errors."""
    plan = report.plan
    lines = [
        f"sessions  {report.opened} of {plan.sessions} opened, {report.failed} failed",
        (
            f"messages  {report.messages_sent} sent, {report.messages_received} received, "
            f"{report.messages_lost} lost, {report.messages_broken} broken, "
            f"{report.messages_late} late by more than {LATE * 1000:.0f} ms"
        ),
        f"load      {report.seconds:.1f} s, {report.client_cpu:.2f} CPUs for making it ({report.backend})",
    ]
    lines += [f"end       {count} x {end}" for end, count in report.ends.items()]
    lines += [f"error     {count} x {error}" for error, count in report.errors.items()]
    return lines
