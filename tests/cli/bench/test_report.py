"""Numbers out of what sessions met, and the picture of them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import httpx
import msgspec
import pytest
from rich.console import Console

from speko_anyio import Speko
from speko_anyio.cli.bench._chart import draw
from speko_anyio.cli.bench._load import Load
from speko_anyio.cli.bench._report import (
    Report,
    Second,
    Spread,
    make_lines,
    make_report,
    make_table,
    quantile,
)
from speko_anyio.cli.bench._session_runs import Outcome, Plan

PLAN = Plan(kind="echo", provider="echo", model="echo", sessions=2, seconds=2.0, ramp=0.0, rate=24000)


def load() -> Load:
    """A load that has run: one session with messages of 10 ms and one of 90 ms, and one that failed."""
    ran = Load(Speko("a-key", "http://gateway.test", http_client=httpx.AsyncClient()), PLAN)
    good, bad = Outcome(), Outcome()
    good.connect = 0.05
    good.first_audio = [0.01]
    good.sent = good.received = 20
    for i in range(20):
        good.when.append(i / 10)
        good.latency.append(0.01 if i != 5 else 0.09)
        good.lateness.append(0.0 if i != 5 else 0.08)
    good.end = "1000 client_closed (local)"
    bad.error = "gateway.test can't be reached"
    ran.outcomes = [good, bad]
    ran.seconds = 2.0
    ran.cpu_seconds = 0.5
    return ran


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(i) for i in range(1, 101)]
    assert [quantile(values, q) for q in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert quantile([7.0], 0.99) == 7.0
    assert Spread.of([0.003, 0.001, 0.002]) == Spread(3, 2.0, 3.0, 3.0, 3.0)
    assert Spread.of([]) is None


def test_the_report_counts_what_happened() -> None:
    report = make_report(load(), PLAN, backend="trio")
    assert (report.opened, report.failed, report.messages_late) == (1, 1, 1)
    assert report.latency_ms == Spread(20, 10.0, 10.0, 90.0, 90.0)
    assert report.by_second == (Second(0, 10, 10.0, 90.0), Second(1, 10, 10.0, 10.0))
    assert report.ends == {"1000 client_closed (local)": 1, "not opened": 1}
    assert report.errors == {"gateway.test can't be reached": 1}
    assert report.client_cpu == 0.25
    assert not report.clean


@pytest.mark.parametrize("trouble", ["lost", "broken"])
def test_a_run_is_clean_only_if_nothing_was_lost_or_broken(trouble: str) -> None:
    ran = load()
    del ran.outcomes[1]
    assert make_report(ran, PLAN, backend="trio").clean
    setattr(ran.outcomes[0], trouble, 1)
    assert not make_report(ran, PLAN, backend="trio").clean


def test_the_report_survives_json() -> None:
    report = make_report(load(), PLAN, backend="trio")
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_people_get_every_number() -> None:
    report = make_report(load(), PLAN, backend="trio")
    console = Console(width=120, record=True)
    console.print(make_table(report))
    shown = console.export_text() + "\n".join(make_lines(report))
    for part in ("message there and back", "90.0", "1 of 2 opened, 1 failed", "1 late by more than 20 ms"):
        assert part in shown
    assert "1 x gateway.test can't be reached" in shown


def test_the_picture_has_a_line_for_each_quantile() -> None:
    picture = ET.fromstring(draw(make_report(load(), PLAN, backend="trio")))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    points = [
        [tuple(map(float, point.split(","))) for point in line.get("points", "").split()] for line in lines
    ]
    p99, p50 = points
    assert len(p99) == len(p50) == 2
    assert p99[0][1] < p50[0][1], "the slower one is higher up"
    assert p99[1] == p50[1]
    assert "2 sessions with echo" in (picture.findtext("{http://www.w3.org/2000/svg}title") or "")


def test_a_run_without_messages_has_a_picture_too() -> None:
    ran = load()
    del ran.outcomes[0]
    assert ET.fromstring(draw(make_report(ran, PLAN, backend="trio"))) is not None
