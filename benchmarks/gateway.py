"""What a real-time session costs a gateway, compared with servers that only echo, and how soon it answers.

The others are an ASGI application on the same uvicorn, websockets' server, picows' and our core by itself.
``docs/benchmarks-details.md`` explains how to read the results.

    python benchmarks/gateway.py [--quick] [--rounds N] [--loop NAME] [--bare] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import gateway_servers as servers
from bar_chart import Bar, Kind, Panel, draw
from gateway_load import INTERVAL, Load, short_sessions
from measuring import Figure, Metric, Neighbours, Ratio, cores, versions
from report import publish, table

PACKAGES: Final = ("anyio", "uvicorn", "websockets", "picows", "uvloop", "starlette")

QUESTION: Final = "What time is it?"
"""A question that the offline voice knows: with any other text, its speech recognition is measured."""

SESSIONS: Final = 100
"""Sessions while CPU time is measured."""
FULL: Final = 200
"""Sessions while latency is measured, and from which memory is measured."""
MANY: Final = 600
"""Sessions up to which memory is measured. Fewer fit into memory that was freed since the start."""

_BEHIND: Final = "behind"
"""Not a figure of a server: by how much the load was late with a message, at worst, in each turn."""

_SETTLING: Final = 0.3  # seconds of load before a measurement
_MEMORY_ROUNDS: Final = 2  # it hardly varies
_SHORT: Final = 2_000
"""Sessions that are opened and closed to find out whether memory grows."""
_WARM_UP: Final = 5_000
"""Such sessions before that. Until then SQLite's cache of pages grows to its limit of 2 MiB."""
_EVERY: Final = 100  # sessions between two measurements of memory

_OURS: Final = Kind("speko-anyio's gateway", "#2b6cb0")
_OURS_SLOWER: Final = Kind("the same by ASGI", "#90b8e0")
_OTHERS: Final = Kind("Python", "#b7b7b7")
_COMPILED: Final = Kind("compiled", "#d9a441")
_FLOOR: Final = Kind("our core alone, without sessions", "#dcdcdc")
_KINDS: Final = {
    servers.GATEWAY: _OURS,
    servers.GATEWAY_ASGI: _OURS_SLOWER,
    servers.PICOWS: _COMPILED,
    servers.CORE: _FLOOR,
}


_METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("cpu", "µs CPU a message", 1e6, 1),
        Metric("memory", "KiB a session", 1 / 1024, 1),
        Metric("p50", "p50 ms", 1e3, 2),
        Metric("p99", "p99 ms", 1e3, 2),
    )
}

Figures = dict[tuple[str, str], Figure]
"""By server and metric."""
Taken = dict[tuple[str, str], list[float]]


def measure(rounds: int, *, loop: str, seconds: float, slices: int, bare: bool) -> Figures:
    """Measure all servers, in fresh processes each round and in turns of `seconds` within it.

    The servers of a round run at the same time, but only one of them has anything to do. So whatever disturbs
    the machine is likely to disturb the next one as well, and ratios are taken within a turn.
    """
    taken: Taken = {}
    for index in range(rounds):
        print(f"round {index + 1} of {rounds}", file=sys.stderr)
        _round(taken, loop=loop, seconds=seconds, slices=slices, bare=bare, memory=index < _MEMORY_ROUNDS)
    return {
        (name, metric): Figure.of(taken[name, metric])
        for name in servers.SERVERS
        for metric in (*_METRICS, _BEHIND)
    }


def _round(taken: Taken, *, loop: str, seconds: float, slices: int, bare: bool, memory: bool) -> None:
    for_server, for_load = cores()
    if for_load is not None:
        os.sched_setaffinity(0, {for_load})
    with ExitStack() as stack:
        loads: dict[str, tuple[servers.Endpoint, Load]] = {}
        for name in servers.SERVERS:
            endpoint = stack.enter_context(servers.serving(name, loop=loop, core=for_server, bare=bare))
            loads[name] = endpoint, Load(endpoint)
        for sessions in (SESSIONS, FULL):
            for _, load in loads.values():
                load.open(sessions)
            for _ in range(slices):
                for name in random.sample(list(loads), len(loads)):
                    window = loads[name][1].run(seconds, settling=_SETTLING, spinning=sessions == SESSIONS)
                    if sessions == SESSIONS:
                        taken.setdefault((name, "cpu"), []).append(window.cpu / window.messages)
                    else:
                        taken.setdefault((name, _BEHIND), []).append(window.behind)
                        percentiles = statistics.quantiles(window.latencies, n=100, method="inclusive")
                        taken.setdefault((name, "p50"), []).append(percentiles[49])
                        taken.setdefault((name, "p99"), []).append(percentiles[98])
        for name, (endpoint, load) in loads.items():
            if memory:
                before = endpoint.resident_bytes()
                load.open(MANY)
                load.run(0.6, interval=0.2)
                grown = endpoint.resident_bytes() - before
                taken.setdefault((name, "memory"), []).append(grown / (MANY - FULL))
            load.close()


class Slope(NamedTuple):
    """How memory grows while sessions come and go."""

    server: str
    bytes_a_session: float
    """By least squares over the sessions after a warm-up."""
    first: float
    """Resident MiB after the warm-up."""
    last: float


def slope(name: str, *, loop: str, bare: bool) -> Slope:
    """Open and close sessions with a server and measure whether its memory grows."""
    for_server, _ = cores()
    with servers.serving(name, loop=loop, core=for_server, bare=bare) as endpoint:
        found = short_sessions(endpoint, _WARM_UP + _SHORT, every=_EVERY)[_WARM_UP // _EVERY - 1 :]
    at = [index * _EVERY for index in range(len(found))]
    return Slope(name, statistics.linear_regression(at, found).slope, found[0] / 2**20, found[-1] / 2**20)


def first_audio(*, loop: str, sessions: int, seconds: float) -> dict[str, Any]:
    """Measure the time to first audio of the offline voice; return its distribution, in milliseconds."""
    for_server, _ = cores()
    with (
        servers.serving(servers.GATEWAY, loop=loop, core=for_server) as endpoint,
        tempfile.TemporaryDirectory() as folder,
    ):
        environment = {**os.environ, "SPEKO_BASE_URL": endpoint.url, "SPEKO_API_KEY": str(endpoint.key)}
        file = Path(folder) / "report.json"
        command = [sys.executable, "-m", "speko_anyio.cli", "bench", "--backend", loop, "--json", str(file)]
        arguments = ("--provider", "local", "--text", QUESTION, "--sessions", str(sessions))
        done = subprocess.run(
            [*command, *arguments, "--seconds", str(seconds), "--ramp", str(seconds / 4)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        # The report includes failed sessions; without a report, nothing was measured.
        if not file.exists():
            raise SystemExit(f"speko-anyio bench wrote no report:\n{done.stdout}")
        report: dict[str, Any] = json.loads(file.read_bytes())
    return {"failed": report["failed"], **report["first_audio_ms"]}


class Result(NamedTuple):
    figures: Figures
    slopes: list[Slope]
    answer: dict[str, Any]
    talkers: int


class Target(NamedTuple):
    """A goal of the project for the gateway."""

    title: str
    at_most: float
    unit: str
    found: Callable[[Figures], tuple[float, float, float]]
    """Returns the median and the quartiles."""


def _ratio(peer: str) -> Callable[[Figures], tuple[float, float, float]]:
    def found(figures: Figures) -> tuple[float, float, float]:
        ratio = Ratio.of(figures[servers.GATEWAY, "cpu"], figures[peer, "cpu"])
        return ratio.median, ratio.lower, ratio.upper

    return found


def _session_kib(figures: Figures) -> tuple[float, float, float]:
    figure = figures[servers.GATEWAY, "memory"]
    return figure.median / 1024, figure.lower / 1024, figure.upper / 1024


def _added(name: str, percentile: str) -> Callable[[Figures], tuple[float, float, float]]:
    """Return how many ms more a server takes than raw ASGI, from the turns of both."""

    def found(figures: Figures) -> tuple[float, float, float]:
        ours, base = figures[name, percentile].rounds, figures[servers.ASGI, percentile].rounds
        more = [(a - b) * 1e3 for a, b in zip(ours, base, strict=True)]
        lower, median, upper = statistics.quantiles(more, n=4, method="inclusive")
        return median, lower, upper

    return found


TARGETS: Final = (
    Target("CPU a message, gateway / raw ASGI", 0.8, "", _ratio(servers.ASGI)),
    Target("CPU a message, gateway / websockets", 0.8, "", _ratio(servers.WEBSOCKETS)),
    Target("CPU a message, gateway / picows", 2.0, "", _ratio(servers.PICOWS)),
    Target("memory of a session", 20.0, " KiB", _session_kib),
    Target("the gateway adds to raw ASGI's latency, p50", 1.0, " ms", _added(servers.GATEWAY, "p50")),
    Target("the gateway adds to raw ASGI's latency, p99", 5.0, " ms", _added(servers.GATEWAY, "p99")),
)
SLOPE: Final = 256.0
"""Bytes by which memory may seem to grow with each session; a session that leaks takes KiB."""
FIRST_AUDIO: Final = 300.0
"""Milliseconds to the offline voice's first audio."""


def _targets(result: Result) -> Iterator[tuple[str, ...]]:
    for target in TARGETS:
        median, lower, upper = target.found(result.figures)
        yield (
            target.title,
            f"{target.at_most:g}{target.unit}",
            f"{median:.2f}{target.unit}",
            f"{lower:.2f} to {upper:.2f}",
            _met(median <= target.at_most),
        )
    for one in result.slopes:
        title = f"growth of memory with each session that ended, {one.server}"
        shown = f"{one.bytes_a_session:.0f} B"
        yield title, f"{SLOPE:g} B", shown, "", _met(one.bytes_a_session <= SLOPE)
    for name in ("p50", "p99"):
        found = result.answer[name]
        yield (
            f"the offline voice's time to first audio, {name}",
            f"{FIRST_AUDIO:g} ms",
            f"{found:.0f} ms",
            "",
            _met(found <= FIRST_AUDIO),
        )


def _met(met: bool) -> str:
    return "met" if met else "missed"


def sessions_a_core(cpu: float) -> float:
    """Return how many real-time sessions fit on a core, at `cpu` seconds per message there and back."""
    return INTERVAL / cpu


def tables(result: Result) -> str:
    """Return all tables as Markdown."""
    figures = result.figures
    rows = []
    for name in servers.SERVERS:
        cpu = figures[name, "cpu"]
        ratio = Ratio.of(figures[servers.GATEWAY, "cpu"], cpu)
        cells = [
            f"{cpu.median * 1e6:.1f}",
            f"{cpu.lower * 1e6:.1f} to {cpu.upper * 1e6:.1f}",
            "" if name == servers.GATEWAY else f"{ratio.median:.2f}",
            "" if name == servers.GATEWAY else f"{ratio.lower:.2f} to {ratio.upper:.2f}",
            f"{sessions_a_core(cpu.median):.0f}",
            f"{figures[name, 'memory'].median / 1024:.1f}",
        ]
        for percentile in ("p50", "p99"):
            cells.append(f"{figures[name, percentile].median * 1e3:.2f}")
            cells.append(f"{figures[name, percentile].least * 1e3:.2f}")
        rows.append((name, *cells))
    head = (
        f"{SESSIONS} sessions (latency: {FULL})",
        *("µs CPU a message", "quartiles", "gateway / it", "quartiles", "sessions a core", "KiB a session"),
        *("p50 ms", "least", "p99 ms", "least"),
    )
    slopes = [
        (one.server, f"{one.bytes_a_session:.0f}", f"{one.first:.2f}", f"{one.last:.2f}")
        for one in result.slopes
    ]
    answer = result.answer
    percentiles = ("p50", "p90", "p99", "max")
    voice = [f"{answer[name]:.0f}" for name in percentiles]
    parts = (
        table(("target", "at most", "median", "quartiles", ""), list(_targets(result))),
        table(head, rows),
        table(("sessions one after the other", "B a session", "first MiB", "last MiB"), slopes),
        table(
            (f"{result.talkers} sessions, offline voice", "turns", "failed", *percentiles),
            [("time to first audio, ms", str(answer["count"]), str(answer["failed"]), *voice)],
        ),
    )
    return "\n\n".join(parts) + "\n"


def plot(figures: Figures) -> str:
    """Draw the figures of all servers as multiples of our gateway's."""
    titles = {
        "cpu": "CPU of a message there and back",
        "memory": "Memory of a session",
        "p50": f"Latency with {FULL} sessions, median",
        "p99": f"Latency with {FULL} sessions, 99th percentile",
    }
    panels = []
    for name, title in titles.items():
        metric, ours = _METRICS[name], figures[servers.GATEWAY, name]
        unit = {"cpu": "µs", "memory": "KiB"}.get(name, "ms")
        bars = []
        for server in servers.SERVERS:
            figure = figures[server, name]
            ratio = Ratio.of(figure, ours).median
            shown = f"{figure.median * metric.scale:.{metric.digits}f} {unit}"
            bars.append(Bar(server, ratio, shown, _KINDS.get(server, _OTHERS)))
        panels.append(Panel(title, bars))
    return draw(
        "What a real-time session costs a gateway, as a multiple of speko-anyio's",
        f"{SESSIONS} sessions, 50 messages a second each way, one core; shorter is better.",
        panels,
    )


def _found(result: Result, about: dict[str, str]) -> dict[str, Any]:
    """Return everything measured, in seconds and bytes."""
    figures = [
        {"server": server, "metric": metric, **figure.rounded()}
        for (server, metric), figure in result.figures.items()
    ]
    return {
        "versions": about,
        "figures": figures,
        "slopes": [one._asdict() for one in result.slopes],
        "answer": result.answer,
        "talkers": result.talkers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What a real-time session costs a gateway, beside servers that only echo, in one run."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a glance: two short rounds, and no sessions one after the other"
    )
    parser.add_argument("--rounds", type=int, help="fresh processes of all servers (4; quick: 2)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop", help="of the servers")
    parser.add_argument("--talkers", type=int, default=20, help="that talk to the offline voice (20)")
    parser.add_argument("--bare", action="store_true", help="processes without an application's heap")
    parser.add_argument("--out", type=Path, help="folder for gateway.json, gateway.md and gateway.svg")
    parser.add_argument("--docs", action="store_true", help="also renew tables and plot in docs/")
    options = parser.parse_args()
    rounds: int = options.rounds or (2 if options.quick else 4)
    if rounds < 2:
        parser.error("quartiles need at least 2 rounds")

    # Exit through the context managers, which end the processes that were started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    started = time.monotonic()
    neighbours = Neighbours()
    seconds, slices = (0.5, 2) if options.quick else (1.0, 4)
    figures = measure(rounds, loop=options.loop, seconds=seconds, slices=slices, bare=options.bare)
    slopes = []
    for name in () if options.quick else (servers.GATEWAY, servers.GATEWAY_ASGI):
        print(f"sessions one after the other: {name}", file=sys.stderr)
        slopes.append(slope(name, loop=options.loop, bare=options.bare))
    load = neighbours.sentence()
    print("the offline voice", file=sys.stderr)
    answer = first_audio(loop=options.loop, sessions=options.talkers, seconds=8.0 if options.quick else 30.0)
    result = Result(figures, slopes, answer, options.talkers)
    about = versions(PACKAGES)
    measured = ", ".join(f"{name} {version}" for name, version in about.items() if name != "python")
    turns = len(figures[servers.GATEWAY, "cpu"].rounds)
    late = statistics.median(time for name in servers.SERVERS for time in figures[name, _BEHIND].rounds)
    text = (
        f"{about['python']}; {measured}. Servers on {options.loop}. "
        f"Medians of {turns} turns in {rounds} rounds.{load} "
        f"The latest message that the load sent in a turn was {late * 1e3:.1f} ms late.\n\n{tables(result)}"
    )
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    publish("gateway", text, plot(figures), _found(result, about), out=options.out, docs=options.docs)


if __name__ == "__main__":
    main()
