"""How much time the gateway adds to an audio message, and how soon it answers.

`speko-anyio bench` runs against a gateway, and against a bare server that echoes messages unparsed.
``docs/benchmarks.md`` explains how to read the results.

    python benchmarks/gateway.py [--quick] [--rounds N] [--sessions N] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple

import gateway_servers as servers
from bar_chart import Bar, Kind, Panel, draw
from measuring import versions
from report import publish

PACKAGES: Final = ("anyio", "uvicorn", "websockets", "uvloop", "starlette")
LOOP: Final = "uvloop"

QUESTION: Final = "What time is it?"
"""A question that the offline voice knows: with any other text, its speech recognition is measured."""

_OURS: Final = Kind("speko-anyio's gateway", "#2b6cb0")
_BARE: Final = Kind("bare server", "#b7b7b7")

Server = Callable[..., AbstractContextManager[servers.Endpoint]]


class Round(NamedTuple):
    """One run of the load, in milliseconds."""

    p50: float
    p99: float


def run_load(endpoint: servers.Endpoint, *arguments: str) -> dict[str, Any]:
    """Run `speko-anyio bench` in its own process; return its report."""
    environment = {**os.environ, "SPEKO_BASE_URL": endpoint.url, "SPEKO_API_KEY": endpoint.key}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = [sys.executable, "-m", "speko_anyio.cli", "bench", "--backend", LOOP, "--json", str(file)]
        done = subprocess.run(
            [*command, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        # The report includes failed sessions; without a report, nothing was measured.
        if not file.exists():
            raise SystemExit(f"speko-anyio bench wrote no report:\n{done.stdout}")
        report: dict[str, Any] = json.loads(file.read_bytes())
        return report


def echo_round(server: Server, *, sessions: int, seconds: float) -> Round:
    """Measure messages there and back, with a fresh server."""
    with server(loop=LOOP) as endpoint:
        report = run_load(
            endpoint, "--sessions", str(sessions), "--seconds", str(seconds), "--ramp", str(seconds / 5)
        )
    return Round(report["latency_ms"]["p50"], report["latency_ms"]["p99"])


def first_audio(*, sessions: int, seconds: float) -> dict[str, Any]:
    """Measure the time to first audio of the offline voice; return its distribution, in milliseconds."""
    with servers.gateway(loop=LOOP) as endpoint:
        report = run_load(
            endpoint,
            *("--provider", "local", "--text", QUESTION),
            *("--sessions", str(sessions), "--seconds", str(seconds), "--ramp", str(seconds / 4)),
        )
    return {"failed": report["failed"], **report["first_audio_ms"]}


class Result(NamedTuple):
    ours: list[Round]
    bare: list[Round]
    answer: dict[str, Any]
    sessions: int
    talkers: int

    def added(self, name: str) -> float:
        """Return how much more the gateway took than the bare server, as the median over the rounds."""
        more: float = statistics.median(
            getattr(a, name) - getattr(b, name) for a, b in zip(self.ours, self.bare, strict=True)
        )
        return more


def _median(rounds: Sequence[Round], name: str) -> float:
    median: float = statistics.median(getattr(one, name) for one in rounds)
    return median


def tables(result: Result) -> str:
    """Return all tables as Markdown."""
    answer = result.answer
    rows = [
        ("bare server", _median(result.bare, "p50"), _median(result.bare, "p99")),
        ("gateway, echo handler", _median(result.ours, "p50"), _median(result.ours, "p99")),
        ("the gateway adds", result.added("p50"), result.added("p99")),
    ]
    lines = [
        f"| {result.sessions} sessions, 50 messages a second each way | p50 ms | p99 ms |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {p50:.2f} | {p99:.2f} |" for name, p50, p99 in rows),
        "",
        f"| {result.talkers} sessions, offline voice | turns | failed | p50 ms | p90 ms | p99 ms | max ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| time to first audio after `commit` | {answer['count']} | {answer['failed']} | "
        + " | ".join(f"{answer[name]:.0f}" for name in ("p50", "p90", "p99", "max"))
        + " |",
    ]
    targets = [
        ("the gateway adds to a message, p50", result.added("p50"), 1.0),
        ("the gateway adds to a message, p99", result.added("p99"), 5.0),
        ("time to first audio, p50", answer["p50"], 300.0),
        ("time to first audio, p99", answer["p99"], 300.0),
    ]
    lines += ["", "| target | at most | measured | |", "| --- | ---: | ---: | --- |"]
    lines += [
        f"| {name} | {at_most:g} ms | {found:.2f} ms | {'met' if found <= at_most else 'missed'} |"
        for name, found, at_most in targets
    ]
    return "\n".join(lines) + "\n"


def plot(result: Result) -> str:
    """Draw the round-trip time of a message as a multiple of the bare server's."""
    panels = []
    for name, title in (("p50", "Median"), ("p99", "99th percentile")):
        base, ours = _median(result.bare, name), _median(result.ours, name)
        bars = [
            Bar("bare", 1.0, f"{base:.2f} ms", _BARE),
            Bar("gateway", ours / base, f"{ours:.2f} ms", _OURS),
        ]
        panels.append(Panel(title, bars))
    return draw(
        "An audio message there and back, as a multiple of a bare server's",
        f"{result.sessions} sessions, 50 messages a second each way; shorter is faster.",
        panels,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What the gateway adds to a message, and how soon it answers."
    )
    parser.add_argument("--quick", action="store_true", help="a glance: one short round")
    parser.add_argument("--rounds", type=int, help="of a bare server and a gateway each (5; quick: 1)")
    parser.add_argument("--sessions", type=int, default=50, help="that echo (50)")
    parser.add_argument("--talkers", type=int, default=20, help="that talk to the offline voice (20)")
    parser.add_argument("--out", type=Path, help="folder for gateway.json, gateway.md and gateway.svg")
    parser.add_argument("--docs", action="store_true", help="also renew table and plot in docs/")
    options = parser.parse_args()
    rounds: int = options.rounds or (1 if options.quick else 5)
    seconds = 4.0 if options.quick else 15.0

    ours: list[Round] = []
    bare: list[Round] = []
    for index in range(rounds):
        print(f"round {index + 1} of {rounds}", file=sys.stderr)
        bare.append(echo_round(servers.bare, sessions=options.sessions, seconds=seconds))
        ours.append(echo_round(servers.gateway, sessions=options.sessions, seconds=seconds))
    print("the offline voice", file=sys.stderr)
    answer = first_audio(sessions=options.talkers, seconds=seconds * 2)
    result = Result(ours, bare, answer, options.sessions, options.talkers)
    about = versions(PACKAGES)
    measured = ", ".join(f"{name} {version}" for name, version in about.items() if name != "python")
    text = f"{about['python']}; {measured}. Medians of {rounds} rounds.\n\n{tables(result)}"
    found = {"versions": about, **result._asdict()}
    publish("gateway", text, plot(result), found, out=options.out, docs=options.docs)


if __name__ == "__main__":
    main()
