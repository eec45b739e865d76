"""What a message costs in our protocol core and its JSON codec, compared with other libraries.

The core is compared with wsproto, websockets, picows and aiohttp, the codec with `json` and pydantic.
``docs/benchmarks-details.md`` explains how to read the results.

    python benchmarks/codec.py [--quick] [--rounds N] [--bare] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import application_heap
import codec_frames as frames
import codec_json as messages
from bar_chart import Bar, Kind, Panel, draw
from measuring import Figure, Neighbours, Ratio, measure, versions
from report import publish, table

Figures = dict[tuple[str, str], Figure]

PACKAGES: Final = ("msgspec", "wsproto", "websockets", "picows", "aiohttp", "pydantic", "pydantic-core")

_OURS: Final = Kind("speko-anyio", "#2b6cb0")
_OURS_SLOWER: Final = Kind("speko-anyio, without a C masker", "#90b8e0")
_PYTHON: Final = Kind("Python", "#b7b7b7")
_MASKER: Final = Kind("Python, C masker", "#8d8d8d")
_COMPILED: Final = Kind("compiled", "#d9a441")
_KINDS: Final = {
    frames.OURS: _OURS,
    frames.OURS_IN_PYTHON: _OURS_SLOWER,
    frames.WSPROTO: _PYTHON,
    frames.WEBSOCKETS: _MASKER,
    frames.WEBSOCKETS_IN_PYTHON: _PYTHON,
    frames.PICOWS: _COMPILED,
    frames.PICOWS_IN_PLACE: _COMPILED,
    frames.AIOHTTP: _COMPILED,
    messages.STANDARD: _COMPILED,
    messages.PYDANTIC: _COMPILED,
}


class Target(NamedTuple):
    """A goal of the project: the highest acceptable ratio of one contender's time to another's."""

    task: str
    ours: str
    peer: str
    at_most: float


def _targets() -> Iterator[Target]:
    decode = frames.task(frames.DECODE, 960)
    yield Target(decode, frames.OURS, frames.WSPROTO, 0.10)
    yield Target(decode, frames.OURS, frames.WEBSOCKETS, 0.20)
    yield Target(decode, frames.OURS, frames.PICOWS, 1.0)
    yield Target(decode, frames.OURS, frames.PICOWS_IN_PLACE, 1.0)
    encode = frames.task(frames.ENCODE, 960)
    yield Target(encode, frames.OURS_IN_PYTHON, frames.WSPROTO, 0.35)
    yield Target(encode, frames.OURS_IN_PYTHON, frames.WEBSOCKETS, 1.1)
    yield Target(encode, frames.OURS, frames.WEBSOCKETS, 0.30)
    masked = frames.task(frames.DECODE_MASKED, 960)
    yield Target(masked, frames.OURS, frames.WSPROTO, 0.30)
    yield Target(masked, frames.OURS_IN_PYTHON, frames.WSPROTO, 0.30)
    # Sizes in turn, and reads of many frames: the same goals as for the single ones above.
    mixed = frames.DECODE_MIXED
    yield Target(mixed, frames.OURS, frames.WEBSOCKETS, 0.20)
    yield Target(mixed, frames.OURS, frames.PICOWS, 1.0)
    yield Target(mixed, frames.OURS, frames.AIOHTTP, 1.0)
    yield Target(frames.ENCODE_MIXED, frames.OURS, frames.WEBSOCKETS, 0.30)
    yield Target(frames.ENCODE_MIXED, frames.OURS, frames.PICOWS, 1.0)
    many = frames.task(frames.DECODE_MANY, 960)
    yield Target(many, frames.OURS, frames.WSPROTO, 0.10)
    yield Target(many, frames.OURS, frames.WEBSOCKETS, 0.20)
    yield Target(many, frames.OURS, frames.PICOWS, 1.0)
    yield Target(many, frames.OURS, frames.AIOHTTP, 1.0)
    for example in messages.DECODED:
        yield Target(messages.decode_task(example), messages.OURS, messages.STANDARD, 0.15)


def _tasks(figures: Figures) -> list[str]:
    return list(dict.fromkeys(task for task, _ in figures))


def _base(figures: Figures, task: str) -> Figure:
    """Return our figure for that task."""
    with_c = figures.get((task, frames.OURS))
    return figures[task, frames.OURS_IN_PYTHON] if with_c is None else with_c


def figure_tables(figures: Figures) -> str:
    """Return one table per task: contender, µs per message, and our time as a fraction of theirs."""
    parts = []
    for task in _tasks(figures):
        base = _base(figures, task)
        rows = [
            (
                contender,
                f"{figure.median * 1e6:.3f}",
                f"{figure.lower * 1e6:.3f} to {figure.upper * 1e6:.3f}",
                f"{figure.least * 1e6:.3f}",
                "" if figure is base else f"{Ratio.of(base, figure).median:.2f}",
            )
            for (of, contender), figure in figures.items()
            if of == task
        ]
        parts.append(table((f"**{task}**", "µs, median", "quartiles", "least", "ours / it"), rows))
    return "\n\n".join(parts)


def target_table(figures: Figures) -> str:
    """Return each target with the measured ratio and whether it is met. A missed target is not a failure."""
    rows = []
    for target in _targets():
        # Without masking, the two contenders of ours are the same and only one is measured.
        unmasked = target.task.startswith("decode, client")
        ours = _base(figures, target.task) if unmasked else figures.get((target.task, target.ours))
        peer = figures.get((target.task, target.peer))
        if ours is None or peer is None:
            rows.append(
                (f"{target.task}: {target.ours} / {target.peer}", f"{target.at_most:.2f}", "", "", "", "?")
            )
            continue
        ratio = Ratio.of(ours, peer)
        rows.append(
            (
                f"{target.task}: {target.ours} / {target.peer}",
                f"{target.at_most:.2f}",
                f"{ratio.median:.3f}",
                f"{ratio.lower:.3f} to {ratio.upper:.3f}",
                f"{ratio.least:.3f}",
                "met" if ratio.median <= target.at_most else "missed",
            )
        )
    return table(("target", "at most", "median", "quartiles", "of least", ""), rows)


def plot(figures: Figures) -> str:
    """Draw the times of all contenders as multiples of ours."""
    titles = {
        frames.task(frames.ENCODE, 960): "Client: audio into a masked frame",
        frames.task(frames.DECODE, 960): "Client: frame into audio, one a read",
        frames.task(frames.DECODE_MASKED, 960): "Server: masked frame into audio",
        frames.task(frames.DECODE_MANY, 960): "Client: frames into audio, 64 KiB reads",
        messages.decode_task(messages.SENTENCE): "JSON: transcript decoded",
        messages.encode_task(messages.RESULT): "JSON: tool result encoded",
    }
    panels = [Panel(title, list(_bars(figures, task))) for task, title in titles.items()]
    return draw(
        "CPU time per message, as a multiple of speko-anyio's",
        "960-byte audio frames and JSON messages; shorter is faster. "
        "Ratios carry over to other machines far better than µs.",
        panels,
    )


def _bars(figures: Figures, task: str) -> Iterator[Bar]:
    base = _base(figures, task)
    for (of, contender), figure in figures.items():
        if of == task and contender != frames.FLOOR:
            name = contender.removeprefix("speko-anyio, ")
            ratio = Ratio.of(figure, base).median
            yield Bar(name, ratio, f"{figure.median * 1e6:.2f} µs", _KINDS[contender])


def results(figures: Figures, *, rounds: int, about: dict[str, str]) -> dict[str, Any]:
    """Return everything measured, so that two runs can be compared. Times are in µs per message."""
    return {
        "versions": about,
        "rounds": rounds,
        "figures": [
            {
                "task": task,
                "contender": contender,
                **figure.rounded(1e6),
            }
            for (task, contender), figure in figures.items()
        ],
    }


def report(figures: Figures, *, rounds: int, about: dict[str, str], load: str) -> str:
    """Return all tables as Markdown."""
    measured = ", ".join(f"{name} {version}" for name, version in about.items() if name != "python")
    return (
        f"{about['python']}; {measured}. Medians of {rounds} rounds.{load}\n\n"
        f"### Targets\n\n{target_table(figures)}\n\n### All figures\n\n{figure_tables(figures)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="CPU time per message, compared with other libraries in one run."
    )
    parser.add_argument("--quick", action="store_true", help="a glance: few rounds, shorter timings")
    parser.add_argument("--rounds", type=int, help="how often each contender is timed (101; quick: 7)")
    parser.add_argument("--bare", action="store_true", help="a process without an application's heap")
    parser.add_argument("--out", type=Path, help="folder for codec.json, codec.md and codec.svg")
    parser.add_argument("--docs", action="store_true", help="also renew tables and plot in docs/")
    options = parser.parse_args()
    rounds: int = options.rounds or (7 if options.quick else 101)
    if rounds < 2:
        parser.error("quartiles need at least 2 rounds")

    if not options.bare:
        application_heap.enter()
    started = time.monotonic()
    neighbours = Neighbours()
    figures = measure(
        [*frames.cases(), *messages.cases()], rounds=rounds, seconds=0.001 if options.quick else 0.004
    )
    about = versions(PACKAGES)
    text = report(figures, rounds=rounds, about=about, load=neighbours.sentence())
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    found = results(figures, rounds=rounds, about=about)
    publish("codec", text, plot(figures), found, out=options.out, docs=options.docs)


if __name__ == "__main__":
    main()
