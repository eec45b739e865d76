"""The latency over the run as a picture (SVG)."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Final

from ._report import Report

WIDTH: Final = 720
HEIGHT: Final = 320
LEFT: Final = 64
RIGHT: Final = 16
TOP: Final = 56
BOTTOM: Final = 40

_SERIES: Final = (("p99", "#b8420f", "2"), ("p50", "#1f5fa8", "2.5"))

_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#3c4350}.title{font-size:15px;font-weight:600}"
    ".grid{stroke:#d5d9e0}.frame{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#c9cfda}.grid{stroke:#3a4150}.frame{fill:#171b23}}"
)


def draw(report: Report) -> str:
    """Draw the median and the 99th percentile of each second, on a logarithmic scale."""
    seconds = report.by_second
    what = "message there and back" if report.latency_ms is not None else "lateness of a message"
    values = [value for second in seconds for value in (second.p50, second.p99)]
    low = 10.0 ** math.floor(math.log10(max(0.1, min(values, default=1.0))))
    high = 10.0 ** max(math.ceil(math.log10(max(values, default=1.0) + 1e-9)), math.log10(low) + 1)
    last = max((second.second for second in seconds), default=0) + 1

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / last

    def y(value: float) -> float:
        share = math.log10(max(low, value) / low) / math.log10(high / low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(_title(report, what))}</title><style>{_STYLE}</style>",
        f'<rect class="frame" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="22">{escape(_title(report, what))}</text>',
        *_grid(low, high, last, x, y),
    ]
    for index, (name, colour, width) in enumerate(_SERIES):
        points = " ".join(f"{x(s.second + 0.5):.1f},{y(getattr(s, name)):.1f}" for s in seconds)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{points}"/>')
        key = LEFT + 90 * index
        parts.append(f'<line x1="{key}" x2="{key + 20}" y1="39" y2="39" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{key + 26}" y="43">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _title(report: Report, what: str) -> str:
    plan = report.plan
    return f"{what}, {plan.sessions} sessions with {plan.provider}"


def _grid(
    low: float, high: float, last: int, x: Callable[[float], float], y: Callable[[float], float]
) -> list[str]:
    parts = []
    value = low
    while value <= high * 1.001:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g} ms</text>')
        value *= 10
    step = max(1, round(last / 8))
    below = HEIGHT - BOTTOM + 18
    return parts + [
        f'<text x="{x(second):.1f}" y="{below}" text-anchor="middle">{second} s</text>'
        for second in range(0, last + 1, step)
    ]
