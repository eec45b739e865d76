"""What a session costs a client, compared with other libraries on asyncio, uvloop and trio.

The others are spekoai, websockets, aiohttp, picows, httpx-ws, trio-websocket and a raw socket.
``docs/benchmarks-details.md`` explains how to read the results.

    python benchmarks/client.py [--quick] [--rounds N] [--loop NAME] [--bare] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import application_heap
import client_contenders as who
from bar_chart import Bar, Kind, Panel, draw
from client_server import Endpoint, serving
from measuring import Figure, Metric, Neighbours, Ratio, cores, versions
from report import publish, table

import speko_anyio

PACKAGES: Final = (
    "anyio",
    "msgspec",
    "wsproto",
    "spekoai",
    "websockets",
    "aiohttp",
    "picows",
    "httpx-ws",
    "trio-websocket",
    "uvloop",
    "trio",
)

_HERE: Final = Path(__file__).parent
_MEMORY_ROUNDS: Final = 2  # it does not vary

_OURS: Final = Kind("speko-anyio", "#2b6cb0")
_OTHERS: Final = Kind("other clients", "#b7b7b7")
_COMPILED: Final = Kind("compiled", "#d9a441")
_FLOOR: Final = Kind("raw socket: the floor", "#dcdcdc")
_KINDS: Final = {
    who.OURS: _OURS,
    who.OURS_AWAITED: _OURS,
    who.AIOHTTP: _COMPILED,
    who.PICOWS: _COMPILED,
    who.PICOWS_AWAITED: _COMPILED,
    who.RAW: _FLOOR,
    who.FRAMED: _FLOOR,
    who.PACER: _FLOOR,
}


_METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("p50", "there and back, p50 µs", 1e6, 0),
        Metric("p99", "p99 µs", 1e6, 0),
        Metric("round", "there and back, µs CPU", 1e6, 1),
        Metric("received", "received, µs CPU", 1e6, 2),
        Metric("sent", "sent, µs CPU", 1e6, 2),
        Metric("talk", "ms CPU a second of talk", 1e3, 2),
        Metric("net", "net of tasks and timers", 1e3, 2),
        Metric("idle", "idle, KiB", 1 / 1024, 1),
        Metric("active", "active, KiB", 1 / 1024, 1),
        Metric("connect", "connect, ms", 1e3, 2),
        Metric("mint", "with mint, ms", 1e3, 2),
        Metric("import", "import, ms CPU", 1e3, 0),
    )
}
_TASKS: Final = ("round trip", "received", "sent", "talk", "connect")
_MEMORY: Final = "memory"

Key = tuple[str, str, str]
"""Event loop, contender, metric."""
Figures = dict[Key, Figure]


class Measurement(NamedTuple):
    """One task of one contender, in its own process."""

    loop: str
    contender: str
    task: str


def plan(loops: Sequence[str]) -> Iterator[Measurement]:
    """Yield all measurements of a round."""
    for loop in loops:
        for name in who.installed(loop):
            if name == who.PACER:
                yield Measurement(loop, name, "talk")
                continue
            for task in (*_TASKS, _MEMORY):
                yield Measurement(loop, name, task)
            if name in who.APIS:
                yield Measurement(loop, name, "mint")
            if loop in who.CONTENDERS[name].imports:
                yield Measurement(loop, name, "import")


class ContenderProcess:
    """One contender's process on that event loop, bound to processor `core` unless that is None.

    It runs `program`, which takes the arguments of ``client_measurement.py``.
    """

    def __init__(
        self,
        loop: str,
        name: str,
        server: Endpoint,
        core: int | None,
        *,
        bare: bool = False,
        program: str = str(_HERE / "client_measurement.py"),
    ) -> None:
        self._loop, self._name, self._core, self._bare = loop, name, core, bare
        self._process = self._start(program, name, loop, *server, *(["bare"] if bare else []))

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=application_heap.environment(bare=self._bare),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._core is not None:
            os.sched_setaffinity(process.pid, {self._core})
        return process

    def run(self, task: str) -> dict[str, float]:
        """Measure one task, in a new process; return the figures by metric."""
        if task == "import":
            program = (
                f"import time; {who.CONTENDERS[self._name].imports[self._loop]}; print(time.process_time())"
            )
            return {"import": float(self._start("-c", program).communicate()[0])}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{task}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"\n{self._name} on {self._loop} failed at {task}")
        found: dict[str, float] = json.loads(answer)
        return found

    def close(self) -> None:
        self._process.communicate()


def measure(rounds: int, loops: Sequence[str], *, bare: bool) -> Figures:
    """Measure everything, in a new order each round."""
    taken: dict[Key, list[float]] = {}
    for_server, for_client = cores()
    everything = list(plan(loops))
    with serving(for_server) as server, ExitStack() as stack:
        contenders = {}
        for loop, name in dict.fromkeys((one.loop, one.contender) for one in everything):
            contenders[loop, name] = contender = ContenderProcess(loop, name, server, for_client, bare=bare)
            stack.callback(contender.close)
        for index in range(rounds):
            memory_too = index < _MEMORY_ROUNDS
            todo = [one for one in everything if memory_too or one.task != _MEMORY]
            for done, (loop, name, task) in enumerate(_interleaved(todo), 1):
                print(
                    f"\rround {index + 1} of {rounds}, {done} of {len(todo)}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
                for metric, value in contenders[loop, name].run(task).items():
                    taken.setdefault((loop, name, metric), []).append(value)
    print(file=sys.stderr)
    _subtract_pacer(taken)
    return {
        (one.loop, one.contender, name): Figure.of(values)
        for one in dict.fromkeys(one._replace(task="") for one in everything)
        for name in _METRICS
        if (values := taken.get((one.loop, one.contender, name)))
    }


def _subtract_pacer(taken: dict[Key, list[float]]) -> None:
    """Add what talking takes without the application's tasks and timers, which are the same for all."""
    for loop, name, metric in list(taken):
        if metric == "talk" and name != who.PACER:
            both = zip(taken[loop, name, metric], taken[loop, who.PACER, metric], strict=True)
            taken[loop, name, "net"] = [whole - pacer for whole, pacer in both]


def _interleaved(todo: Sequence[Measurement]) -> list[Measurement]:
    """Shuffle the measurements, but keep the same task on the same event loop together.

    Contenders are compared within such a group: whatever disturbs one of them is likely to disturb the next.
    """
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for one in todo:
        groups.setdefault((one.loop, one.task), []).append(one)
    together = list(groups.values())
    random.shuffle(together)
    for group in together:
        random.shuffle(group)
    return [one for group in together for one in group]


class Target(NamedTuple):
    """A goal of the project: the highest acceptable ratio of our figure to a peer's."""

    loop: str
    peer: str
    metric: str
    at_most: float


_AHEAD: Final = ("p50", "p99", "received", "sent", "talk", "active", "connect", "import")

TARGETS: Final = (
    Target(who.ASYNCIO, who.PICOWS, "net", 1.25),
    Target(who.ASYNCIO, who.SPEKOAI, "net", 0.55),
    Target(who.UVLOOP, who.PICOWS, "net", 1.2),
    Target(who.TRIO, who.RAW, "net", 1.0),
    Target(who.TRIO, who.TRIO_WEBSOCKET, "net", 0.4),
    Target(who.ASYNCIO, who.PICOWS, "round", 1.45),
    Target(who.ASYNCIO, who.AIOHTTP, "round", 1.0),
    Target(who.UVLOOP, who.PICOWS, "round", 1.25),
    Target(who.TRIO, who.RAW, "round", 1.1),
    Target(who.ASYNCIO, who.SPEKOAI, "p50", 0.55),
    Target(who.ASYNCIO, who.SPEKOAI, "received", 0.22),
    Target(who.ASYNCIO, who.SPEKOAI, "sent", 0.8),
    Target(who.ASYNCIO, who.WEBSOCKETS, "connect", 1.1),
    Target(who.UVLOOP, who.WEBSOCKETS, "connect", 1.1),
    *(Target(who.TRIO, peer, name, 1.0) for peer in (who.TRIO_WEBSOCKET, who.WEBSOCKETS) for name in _AHEAD),
    Target(who.TRIO, who.WEBSOCKETS, "idle", 0.8),
)
IDLE_KIB: Final = 6.0
"""KiB that an idle session on asyncio may hold."""


def target_table(figures: Figures) -> str:
    """Return each target with the measured ratio and whether it is met. A missed target is not a failure."""
    rows = []
    for loop, peer, name, at_most in TARGETS:
        title = f"{loop}: {_METRICS[name].title}, speko-anyio / {peer}"
        ours, theirs = figures.get((loop, who.OURS, name)), figures.get((loop, peer, name))
        if ours is None or theirs is None:
            rows.append((title, f"{at_most:.3f}", "", "", "", "?"))
            continue
        ratio = Ratio.of(ours, theirs)
        rows.append(
            (
                title,
                f"{at_most:.3f}",
                f"{ratio.median:.3f}",
                f"{ratio.lower:.3f} to {ratio.upper:.3f}",
                f"{ratio.least:.3f}",
                "met" if ratio.median <= at_most else "missed",
            )
        )
    idle = figures.get((who.ASYNCIO, who.OURS, "idle"))
    if idle is not None:
        median, lower, upper, least = (
            value / 1024 for value in (idle.median, idle.lower, idle.upper, idle.least)
        )
        rows.append(
            (
                "asyncio: an idle session, KiB",
                f"{IDLE_KIB:.3f}",
                f"{median:.3f}",
                f"{lower:.3f} to {upper:.3f}",
                f"{least:.3f}",
                "met" if median <= IDLE_KIB else "missed",
            )
        )
    return table(("target", "at most", "median", "quartiles", "of least", ""), rows)


def _contenders(figures: Figures, loop: str) -> list[str]:
    return list(dict.fromkeys(name for of, name, _ in figures if of == loop))


def figure_tables(figures: Figures) -> str:
    """Return one table per event loop, with all contenders and metrics."""
    parts = []
    for loop in dict.fromkeys(loop for loop, _, _ in figures):
        rows = []
        for contender in _contenders(figures, loop):
            cells = []
            for metric in _METRICS.values():
                figure = figures.get((loop, contender, metric.name))
                cells.append("" if figure is None else f"{figure.median * metric.scale:.{metric.digits}f}")
                if metric.name == "talk":
                    cells.append("" if figure is None else f"{1 / figure.median:.0f}")
            rows.append((contender, *cells))
        head = [metric.title for metric in _METRICS.values()]
        head.insert([*_METRICS].index("talk") + 1, "sessions a core")
        parts.append(table((f"**{loop}**", *head), rows))
    return "\n\n".join(parts)


def ratio_tables(figures: Figures) -> str:
    """Return our figures as fractions of theirs."""
    parts = []
    for loop in dict.fromkeys(loop for loop, _, _ in figures):
        rows = []
        for contender in _contenders(figures, loop):
            if contender in (who.OURS, who.PACER):
                continue
            cells = []
            for name in _METRICS:
                ours, theirs = figures.get((loop, who.OURS, name)), figures.get((loop, contender, name))
                if ours is None or theirs is None or not theirs.least > 0:
                    cells.append("")
                else:
                    cells.append(f"{Ratio.of(ours, theirs).median:.2f}")
            rows.append((contender, *cells))
        head = [metric.title.replace(" µs", "").replace(" ms", "") for metric in _METRICS.values()]
        parts.append(table((f"**{loop}**: ours / it", *head), rows))
    return "\n\n".join(parts)


_PANELS: Final = (
    (who.ASYNCIO, "p50", "asyncio: there and back, median"),
    (who.ASYNCIO, "talk", "asyncio: CPU of a session that talks"),
    (who.ASYNCIO, "received", "asyncio: CPU of a message received"),
    (who.ASYNCIO, "sent", "asyncio: CPU of a message sent"),
    (who.UVLOOP, "p50", "uvloop: there and back, median"),
    (who.UVLOOP, "talk", "uvloop: CPU of a session that talks"),
    (who.TRIO, "p50", "trio: there and back, median"),
    (who.TRIO, "talk", "trio: CPU of a session that talks"),
    (who.TRIO, "received", "trio: CPU of a message received"),
    (who.TRIO, "sent", "trio: CPU of a message sent"),
    (who.ASYNCIO, "idle", "asyncio: memory of an idle session"),
    (who.TRIO, "idle", "trio: memory of an idle session"),
)


def plot(figures: Figures) -> str:
    """Draw the figures of all contenders as multiples of ours."""
    panels = [
        Panel(title, bars) for loop, name, title in _PANELS if (bars := list(_bars(figures, loop, name)))
    ]
    return draw(
        "What a session costs a client, as a multiple of speko-anyio's",
        "960-byte audio messages with one fast server over loopback; shorter is better. "
        "Ratios carry over to other machines far better than figures.",
        panels,
    )


def _bars(figures: Figures, loop: str, name: str) -> Iterator[Bar]:
    ours = figures.get((loop, who.OURS, name))
    if ours is None:
        return
    metric = _METRICS[name]
    unit = metric.title.split()[-1] if name == "idle" else "ms" if metric.scale == 1e3 else "µs"
    for contender in _contenders(figures, loop):
        if (figure := figures.get((loop, contender, name))) is not None:
            shown = f"{figure.median * metric.scale:.{metric.digits}f} {unit}"
            yield Bar(contender, Ratio.of(figure, ours).median, shown, _KINDS.get(contender, _OTHERS))


def results(figures: Figures, *, rounds: int, about: dict[str, str]) -> dict[str, Any]:
    """Return everything measured, in seconds and bytes, so that two runs can be compared."""
    return {
        "versions": about,
        "rounds": rounds,
        "figures": [
            {
                "loop": loop,
                "contender": contender,
                "metric": name,
                **figure.rounded(),
            }
            for (loop, contender, name), figure in figures.items()
        ],
    }


def report(figures: Figures, *, rounds: int, about: dict[str, str], load: str) -> str:
    """Return all tables as Markdown."""
    measured = ", ".join(f"{name} {version}" for name, version in about.items() if name != "python")
    return (
        f"{about['python']}; {measured}. Medians of {rounds} rounds.{load}\n\n"
        f"#### Targets of the client\n\n{target_table(figures)}\n\n"
        f"#### The client's figures\n\n{figure_tables(figures)}\n\n"
        f"#### Ours as a part of theirs\n\n{ratio_tables(figures)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What a session costs a client, beside other libraries, in one run."
    )
    parser.add_argument("--quick", action="store_true", help="a glance: two rounds")
    parser.add_argument("--rounds", type=int, help="fresh processes for each measurement (5; quick: 2)")
    parser.add_argument("--loop", choices=who.LOOPS, action="append", help="only this event loop")
    parser.add_argument("--bare", action="store_true", help="processes without an application's heap")
    parser.add_argument("--out", type=Path, help="folder for client.json, client.md and client.svg")
    parser.add_argument("--docs", action="store_true", help="also renew tables and plot in docs/")
    options = parser.parse_args()
    rounds: int = options.rounds or (2 if options.quick else 5)
    if rounds < 2:
        parser.error("quartiles need at least 2 rounds")

    # As an installer does: where Python may not write caches, each import would compile otherwise.
    compileall.compile_dir(next(iter(speko_anyio.__path__)), quiet=1)
    # Exit through the context managers, which end the processes that were started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    started = time.monotonic()
    neighbours = Neighbours()
    figures = measure(rounds, options.loop or who.LOOPS, bare=options.bare)
    about = versions(PACKAGES)
    text = report(figures, rounds=rounds, about=about, load=neighbours.sentence())
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    found = results(figures, rounds=rounds, about=about)
    publish("client", text, plot(figures), found, out=options.out, docs=options.docs)


if __name__ == "__main__":
    main()
