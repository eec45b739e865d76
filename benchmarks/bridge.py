"""Latency and CPU time that the bridge adds to a call with a provider, compared with a direct session.

``docs/benchmarks-details.md`` explains how to read the results.

    python benchmarks/bridge.py [--quick] [--messages N] [--rounds N] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import application_heap
import bridge_calls as calls
import bridge_core as core
from bar_chart import Bar, Kind, Panel, draw
from measuring import Figure, Neighbours, Ratio, measure, versions
from report import publish, table

Figures = dict[tuple[str, str], Figure]
Calls = dict[str, calls.Call]

PACKAGES: Final = ("anyio", "msgspec", "wsproto", "websockets", "uvicorn", "uvloop", "soxr")

_WITHOUT: Final = Kind("without the bridge", "#b7b7b7")
_WITH: Final = Kind("with it", "#2b6cb0")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def latency_table(measured: Calls) -> str:
    """Return the round-trip times, in milliseconds."""
    rows = []
    for name, call in measured.items():
        direct, bridged = call.latency[calls.DIRECT], call.latency[calls.BRIDGED]
        median, lower, upper = call.added
        rows.append(
            (
                core.PROVIDERS[name].title,
                _ms(direct.median),
                _ms(bridged.median),
                _ms(median),
                f"{_ms(lower)} to {_ms(upper)}",
                _ms(direct.p99),
                _ms(bridged.p99),
                _ms(bridged.p99 - direct.p99),
                _ms(bridged.least - direct.least),
            )
        )
    head = (
        "ms there and back",
        "direct",
        "gateway",
        "**added**",
        "quartiles",
        "direct p99",
        "gateway p99",
        "added p99",
        "added, least",
    )
    return table(head, rows)


def cpu_table(measured: Calls) -> str:
    """Return the CPU time of a second of conversation, in milliseconds."""
    rows = []
    for name, call in measured.items():
        median, lower, upper = call.gateway_cpu
        client = call.client_cpu
        rows.append(
            (
                core.PROVIDERS[name].title,
                _ms(median),
                f"{_ms(lower)} to {_ms(upper)}",
                _ms(client[calls.DIRECT]),
                _ms(client[calls.BRIDGED]),
            )
        )
    head = ("ms of CPU a second", "**gateway**", "quartiles", "client, direct", "client, by the gateway")
    return table(head, rows)


def core_table(figures: Figures) -> str:
    """Return the CPU time of a message in the cores alone, in microseconds."""
    rows = []
    for task in dict.fromkeys(task for task, _ in figures):
        alone, bridged = figures[task, core.ALONE], figures[task, core.BRIDGED]
        ratio = Ratio.of(bridged, alone)
        rows.append(
            (
                task,
                f"{alone.median * 1e6:.1f}",
                f"{bridged.median * 1e6:.1f}",
                f"{(bridged.median - alone.median) * 1e6:.1f}",
                f"{ratio.median:.2f}",
                f"{ratio.lower:.2f} to {ratio.upper:.2f}",
            )
        )
    return table(("µs per message", "dialect", "bridged", "**added**", "ratio", "quartiles"), rows)


def second_table(figures: Figures) -> str:
    """Return the cores' share of a second of conversation in which both sides speak."""
    rows = []
    for name, provider in core.PROVIDERS.items():
        for rate in core.RATES:
            spent = []
            for contender in (core.ALONE, core.BRIDGED):
                up = figures[core.task(name, rate, "up"), contender].median * 1000 / core.UP_MS
                down = figures[core.task(name, rate, "down"), contender].median * 1000 / core.DOWN_MS
                spent.append(up + down)
            title = f"{provider.title}, session at {rate // 1000} kHz"
            rows.append((title, *map(_ms, spent), _ms(spent[1] - spent[0])))
    return table(("ms of CPU a second", "dialect", "bridged", "**added**"), rows)


def plot(figures: Figures, measured: Calls) -> str:
    """Draw the cost of a message without the bridge and with it."""
    panels = []
    for name, call in measured.items():
        title = core.PROVIDERS[name].title
        panels.append(Panel(f"{title}: there and back, median", list(_call_bars(call))))
        panels.append(
            Panel(f"{title}: CPU of the cores, 100 ms to the client", list(_core_bars(figures, name)))
        )
    return draw(
        "What the bridge adds to a call",
        "Left: 20 ms of audio to a provider that echoes it and back, over loopback. Right: no sockets. "
        "Shorter is better.",
        panels,
    )


def _call_bars(call: calls.Call) -> Iterator[Bar]:
    base = call.latency[calls.DIRECT].median
    for contender, kind in ((calls.DIRECT, _WITHOUT), (calls.BRIDGED, _WITH)):
        median = call.latency[contender].median
        yield Bar(contender, median / base, f"{_ms(median)} ms", kind)


def _core_bars(figures: Figures, name: str) -> Iterator[Bar]:
    base = figures[core.task(name, 24_000, "down"), core.ALONE]
    yield Bar(core.ALONE, 1.0, f"{base.median * 1e6:.0f} µs", _WITHOUT)
    for rate in core.RATES:
        figure = figures[core.task(name, rate, "down"), core.BRIDGED]
        yield Bar(
            f"bridge, {rate // 1000} kHz", figure.median / base.median, f"{figure.median * 1e6:.0f} µs", _WITH
        )


def results(
    figures: Figures, measured: Calls, *, about: dict[str, str], options: dict[str, int]
) -> dict[str, Any]:
    """Return everything measured, so that two runs can be compared. Times are in µs."""
    return {
        "versions": about,
        **options,
        "calls": [
            {
                "provider": name,
                "latency": {
                    contender: {
                        statistic: round(value * 1e6, 1) for statistic, value in some._asdict().items()
                    }
                    for contender, some in call.latency.items()
                },
                "added": [round(value * 1e6, 1) for value in call.added],
                "client_cpu": {
                    contender: round(some * 1e6, 1) for contender, some in call.client_cpu.items()
                },
                "gateway_cpu": [round(value * 1e6, 1) for value in call.gateway_cpu],
            }
            for name, call in measured.items()
        ],
        "cores": [
            {
                "task": task,
                "contender": contender,
                **figure.rounded(1e6),
            }
            for (task, contender), figure in figures.items()
        ],
    }


def report(
    figures: Figures, measured: Calls, *, about: dict[str, str], options: dict[str, int], load: str
) -> str:
    """Return all tables as Markdown."""
    with_versions = ", ".join(f"{name} {version}" for name, version in about.items() if name != "python")
    return (
        f"{about['python']}; {with_versions}. {options['messages']} messages with each contender, "
        f"{options['blocks']} times {calls.CROWD} conversations of {options['seconds']} s, "
        f"medians of {options['rounds']} rounds.{load}\n\n"
        f"#### Latency of a piece of audio\n\n{latency_table(measured)}\n\n"
        f"#### CPU of a second of conversation\n\n{cpu_table(measured)}\n\n"
        f"#### The cores alone, per message\n\n{core_table(figures)}\n\n"
        f"#### The cores alone, a second of conversation\n\n{second_table(figures)}\n"
    )


async def measure_calls(messages: int, blocks: int, seconds: int) -> Calls:
    """Measure calls with one provider after the other."""
    measured = {}
    for name in core.PROVIDERS:
        print(f"calls with {core.PROVIDERS[name].title}", file=sys.stderr)
        measured[name] = await calls.measure(name, messages=messages, blocks=blocks, seconds=seconds)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description="What the bridge adds, beside a direct session, in one run.")
    parser.add_argument("--quick", action="store_true", help="a glance: few messages and rounds")
    parser.add_argument("--messages", type=int, help="there and back with each contender (2000; quick: 200)")
    parser.add_argument("--rounds", type=int, help="how often each core is timed (51; quick: 5)")
    parser.add_argument("--out", type=Path, help="folder for bridge.json, bridge.md and bridge.svg")
    parser.add_argument("--docs", action="store_true", help="also renew tables and plot in docs/")
    given = parser.parse_args()
    options = {
        "messages": given.messages or (200 if given.quick else 2000),
        "rounds": given.rounds or (5 if given.quick else 51),
        "blocks": 4 if given.quick else 8,
        "seconds": 1 if given.quick else 3,
    }
    if options["rounds"] < 2 or options["messages"] < options["blocks"]:
        parser.error(f"it takes at least 2 rounds and {options['blocks']} messages")

    application_heap.enter()
    started = time.monotonic()
    neighbours = Neighbours()
    figures = measure(list(core.cases()), rounds=options["rounds"], seconds=0.001 if given.quick else 0.004)
    measured = anyio.run(
        measure_calls,
        options["messages"],
        options["blocks"],
        options["seconds"],
        backend_options={"use_uvloop": True},
    )
    about = versions(PACKAGES)
    text = report(figures, measured, about=about, options=options, load=neighbours.sentence())
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    found = results(figures, measured, about=about, options=options)
    publish("bridge", text, plot(figures, measured), found, out=given.out, docs=given.docs)


if __name__ == "__main__":
    main()
