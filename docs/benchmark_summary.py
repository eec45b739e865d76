"""Write the table and the picture at the top of ``benchmarks.md`` from the results of the benchmarks.

``python docs/benchmark_summary.py`` renews both; a test asserts that they match the committed results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
PAGE: Final = HERE / "benchmarks.md"
PICTURE: Final = HERE / "benchmarks.svg"
RESULTS: Final = HERE.parent / "benchmarks" / "results"

BEGIN: Final = "<!-- benchmark_summary.py writes from here -->"
END: Final = "<!-- to here -->"

OURS: Final = "speko-anyio"
COLUMNS: Final = ("picows", "aiohttp", "websockets", "spekoai")
"""Libraries with a column of their own; the others are named in the last one but one."""
FLOORS: Final = ("(floor)", "(raw socket)", "(core)")

COLOURS: Final = {
    OURS: "#2b6cb0",
    "picows": "#d9822b",
    "aiohttp": "#e0b94a",
    "websockets": "#6b7280",
    "spekoai": "#b83280",
    "trio-websocket": "#2f855a",
    "wsproto": "#9ca3af",
    "raw ASGI": "#805ad5",
}
FLOOR_COLOUR: Final = "#d0d0d0"


class Line(NamedTuple):
    """One line of the table and of the picture."""

    title: str
    unit: str
    results: str
    where: Mapping[str, str]
    """Fields that the figures must have."""
    scale: float
    """Factor from a figure to the unit."""
    peers: tuple[str, ...]
    name: str = "contender"
    """The field with the contender's name."""
    ours: str = OURS


_SPEECH: Final = ("picows", "aiohttp", "websockets", "wsproto", "(floor)")
_CLIENTS: Final = ("picows", "aiohttp", "websockets", "spekoai", "trio-websocket", "(raw socket)")
_SERVERS: Final = ("picows", "websockets", "raw ASGI", "(core)")


def _codec(title: str, task: str) -> Line:
    return Line(title, "µs", "codec", {"task": task}, 1, _SPEECH)


def _client(title: str, unit: str, scale: float, *, loop: str, metric: str) -> Line:
    return Line(title, unit, "client", {"loop": loop, "metric": metric}, scale, _CLIENTS)


def _gateway(title: str, unit: str, scale: float, *, metric: str) -> Line:
    return Line(title, unit, "gateway", {"metric": metric}, scale, _SERVERS, name="server", ours="gateway")


LINES: Final = (
    _codec("Codec: decode 20 ms of speech", "decode, client, one frame a read, 960 bytes"),
    _codec("Codec: encode 20 ms of speech", "encode, client, 960 bytes"),
    _client("asyncio: 1 s of talk both ways", "ms", 1e3, loop="asyncio", metric="talk"),
    _client("uvloop: 1 s of talk both ways", "ms", 1e3, loop="uvloop", metric="talk"),
    _client("trio: 1 s of talk both ways", "ms", 1e3, loop="trio", metric="talk"),
    _client("asyncio: a message and its echo", "µs", 1e6, loop="asyncio", metric="round"),
    _client("asyncio: a message of a burst", "µs", 1e6, loop="asyncio", metric="received"),
    _client("asyncio: memory of an idle session", "KiB", 1 / 1024, loop="asyncio", metric="idle"),
    _gateway("Gateway: a message and its echo", "µs", 1e6, metric="cpu"),
    _gateway("Gateway: memory of a session", "KiB", 1 / 1024, metric="memory"),
)


def figures(line: Line) -> dict[str, float]:
    """Return the median of each contender that was measured, ours first."""
    results = json.loads((RESULTS / f"{line.results}.json").read_text(encoding="utf-8"))
    medians = {
        figure[line.name]: figure["median"] * line.scale
        for figure in results["figures"]
        if all(figure[key] == value for key, value in line.where.items())
    }
    found = {OURS: medians[line.ours]}
    return found | {peer: medians[peer] for peer in line.peers if peer in medians}


def table() -> str:
    """Return the table as Markdown."""
    head = ("CPU time, or memory", OURS, *COLUMNS, "another", "floor")
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(COLUMNS) + 1)} --- | ---: |"]
    for line in LINES:
        found = figures(line)
        others = [name for name in found if name not in (OURS, *COLUMNS, *FLOORS)]
        cells = [
            f"{line.title}, {line.unit}",
            f"**{_shown(found[OURS])}**",
            *(_shown(found[name]) if name in found else "" for name in COLUMNS),
            ", ".join(f"{name} {_shown(found[name])}" for name in others),
            "".join(_shown(found[name]) for name in FLOORS if name in found),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


# The picture

_WIDTH: Final = 860
_LEFT: Final = 262
_RIGHT: Final = 30
_TOP: Final = 96
_ROW: Final = 34
_DOT: Final = 6
_LANES: Final = (0, 9, -9)  # for dots that would cover each other
_TICKS: Final = (0.25, 0.5, 1, 2, 4, 8, 16)


def svg() -> str:
    """Return the picture: a row for each line, with a dot for each library, relative to ours."""
    bottom = _TOP + len(LINES) * _ROW
    size = f'viewBox="0 0 {_WIDTH} {bottom + 34}" width="{_WIDTH}" height="{bottom + 34}"'
    font = 'font-family="DejaVu Sans, Verdana, sans-serif" font-size="13"'
    style = (
        "text{fill:#222}.axis{fill:#555;font-size:12px;text-anchor:middle}"
        ".name{text-anchor:end}.side{fill:#555;font-size:12.5px}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {font}>',
        "<title>CPU time and memory of other libraries, as a multiple of speko-anyio's</title>",
        f"<style>{style}</style>",
        f'<rect width="{_WIDTH}" height="{bottom + 34}" fill="white"/>',
        *_legend(),
        *_grid(bottom),
    ]
    for index, line in enumerate(LINES):
        lines += _row(line, _TOP + index * _ROW + _ROW // 2)
    return "\n".join([*lines, "</svg>", ""])


def _x(ratio: float) -> float:
    low, high = math.log(_TICKS[0]), math.log(_TICKS[-1])
    place = (math.log(min(max(ratio, _TICKS[0]), _TICKS[-1])) - low) / (high - low)
    return _LEFT + place * (_WIDTH - _LEFT - _RIGHT)


def _legend() -> Iterator[str]:
    x = 20.0
    for name, colour in {**COLOURS, "floor": FLOOR_COLOUR}.items():
        yield f'<circle cx="{x + 6}" cy="22" r="6" fill="{colour}"/>'
        yield f'<text x="{x + 17}" y="26.5">{escape(name)}</text>'
        x += 17 + 7.6 * len(name) + 15
    left = f'x="{_x(1) - 12:.1f}" y="58" text-anchor="end"'
    yield f'<text class="side" {left}>◀ cheaper than speko-anyio</text>'
    yield f'<text class="side" x="{_x(1) + 12:.1f}" y="58">more expensive ▶</text>'


def _grid(bottom: int) -> Iterator[str]:
    for tick in _TICKS:
        x = _x(tick)
        line = 'stroke="#2b6cb0" stroke-width="2"' if tick == 1 else 'stroke="#e3e3e3"'
        yield f'<path d="M{x:.1f},{_TOP - 8} V{bottom}" {line}/>'
        yield f'<text class="axis" x="{x:.1f}" y="{_TOP - 16}">{tick:g}×</text>'
    yield f'<text class="side" x="{_LEFT}" y="{bottom + 22}">Dots at the margin lie beyond it.</text>'


def _row(line: Line, y: int) -> Iterator[str]:
    found = figures(line)
    yield f'<text class="name" x="{_LEFT - 14}" y="{y + 4.5}">{escape(line.title)}</text>'
    free = [-math.inf] * len(_LANES)
    for name, value in sorted(found.items(), key=lambda item: (item[1], item[0])):
        ratio = value / found[OURS]
        x = _x(ratio)
        lane = 0  # where ours is, so that the dots near it go elsewhere
        if name != OURS:
            near = abs(x - _x(1)) <= 2 * _DOT
            lane = next(
                (n for n, last in enumerate(free) if x - last > 2 * _DOT and not (near and n == 0)), 1
            )
        free[lane] = x
        colour = FLOOR_COLOUR if name in FLOORS else COLOURS[name]
        stroke = ' stroke="#888"' if name in FLOORS else ""
        label = escape(f"{name}: {_shown(value)} {line.unit}, {ratio:.2f} times ours")
        yield (
            f'<circle cx="{x:.1f}" cy="{y + _LANES[lane]}" r="{_DOT}" fill="{colour}"{stroke}>'
            f"<title>{label}</title></circle>"
        )


def page() -> str:
    """Return the page with the table renewed."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    PICTURE.write_text(svg(), encoding="utf-8")
