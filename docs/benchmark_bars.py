"""Draw the three comparisons of the landing page from the results of the benchmarks.

``python docs/benchmark_bars.py`` writes ``benchmark-bars.svg`` beside this file; a test asserts that it
matches the committed results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
PICTURE: Final = HERE / "benchmark-bars.svg"
RESULTS: Final = HERE.parent / "benchmarks" / "results"

WIDTH: Final = 430
_LEFT: Final = 120  # of the bars
_LONGEST: Final = 230
_ROW: Final = 24


class Comparison(NamedTuple):
    """A title and the figures to compare; the least is the best."""

    title: str
    results: str
    where: Mapping[str, str]
    """Fields that the figures must have."""
    scale: float
    """Factor from a figure to microseconds."""
    contenders: tuple[str, ...]


COMPARISONS: Final = (
    Comparison(
        "Decode 20 ms of speech: CPU time",
        "codec",
        {"task": "decode, client, one frame a read, 960 bytes"},
        1,
        ("speko-anyio", "picows", "aiohttp", "websockets", "wsproto"),
    ),
    Comparison(
        "Send 20 ms of speech on asyncio: CPU time",
        "client",
        {"loop": "asyncio", "metric": "sent"},
        1e6,
        ("speko-anyio", "picows", "websockets", "spekoai"),
    ),
    Comparison(
        "Round trip of a message on trio: median",
        "client",
        {"loop": "trio", "metric": "p50"},
        1e6,
        ("speko-anyio", "trio-websocket", "websockets", "httpx-ws"),
    ),
)


def medians(comparison: Comparison) -> dict[str, float]:
    """Return the median of everything that was measured, in microseconds."""
    results = json.loads((RESULTS / f"{comparison.results}.json").read_text(encoding="utf-8"))
    return {
        figure["contender"]: figure["median"] * comparison.scale
        for figure in results["figures"]
        if all(figure[key] == value for key, value in comparison.where.items())
    }


def figures(comparison: Comparison) -> dict[str, float]:
    """Return the median of each contender in microseconds, the least first."""
    measured = medians(comparison)
    return dict(sorted(((name, measured[name]) for name in comparison.contenders), key=lambda item: item[1]))


def svg() -> str:
    """Return the picture: one group of bars for each comparison, each with its own scale."""
    body: list[str] = []
    y = 8
    for comparison in COMPARISONS:
        shown = figures(comparison)
        body.append(f'<text class="title" x="12" y="{y + 16}">{escape(comparison.title)}</text>')
        y += 28
        for contender, median in shown.items():
            kind = "ours" if contender == "speko-anyio" else "other"
            width = _LONGEST * median / max(shown.values())
            value = f"{median:.{2 if median < 10 else 1 if median < 100 else 0}f}"
            body += [
                f'<text class="name {kind}" x="{_LEFT - 8}" y="{y + 14}">{escape(contender)}</text>',
                f'<rect class="{kind}" x="{_LEFT}" y="{y + 2}" width="{width:.1f}" height="16" rx="2"/>',
                f'<text class="{kind}" x="{_LEFT + width + 7:.1f}" y="{y + 14}">{value} µs</text>',
            ]
            y += _ROW
        y += 14
    style = (
        "text{fill:#333}.title{font-weight:bold;fill:#111}.name{text-anchor:end}text.ours{font-weight:bold}"
        "rect.ours{fill:#4051b5}rect.other{fill:#b9bfd6}"
    )
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    font = 'font-family="DejaVu Sans, Verdana, sans-serif" font-size="13"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {font}>',
        "<title>speko-anyio beside other libraries; shorter is better</title>",
        f"<style>{style}</style>",
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>',
        *body,
        "</svg>",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
