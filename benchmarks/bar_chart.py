"""Horizontal bars in panels, as an SVG: plain text, no dependency, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

_WIDTH: Final = 1000
_MARGIN: Final = 28
_GAP: Final = 44  # between the two columns of panels
_PANEL: Final = (_WIDTH - 2 * _MARGIN - _GAP) // 2
_LABEL: Final = 176  # for the names, left of the bars
_VALUE: Final = 104  # for the figures, right of the longest bar
_ROW: Final = 25
_BAR: Final = 16
_HEAD: Final = 34  # a panel's title
_SPACE: Final = 24  # below a panel
_FONT: Final = "DejaVu Sans, Verdana, sans-serif"
_STYLE: Final = (
    "<style>text{fill:#222}.title{font-size:19px;font-weight:bold}.sub{fill:#555}"
    ".panel{font-size:14px;font-weight:bold}.name{text-anchor:end}"
    ".note{fill:#666;font-size:11.5px;font-weight:normal}"
    ".axis{stroke:#444}.one{stroke:#222;stroke-dasharray:3 3}</style>"
)


class Kind(NamedTuple):
    """What a colour stands for."""

    label: str
    colour: str


class Bar(NamedTuple):
    """One contender in one panel."""

    name: str
    ratio: float
    """Or another figure, in the panel's unit."""
    note: str
    """Beside the figure, smaller."""
    kind: Kind


class Panel(NamedTuple):
    title: str
    bars: Sequence[Bar]
    unit: str = "×"
    """Of the bars; of ratios, a line marks 1."""


def draw(title: str, subtitle: str, panels: Sequence[Panel]) -> str:
    """Return the picture: two panels in a row, each with its own scale that begins at zero."""
    top = 104
    body: list[str] = []
    for left, right in zip(panels[::2], [*panels[1::2], None], strict=False):
        body += _panel(left, _MARGIN, top)
        rows = len(left.bars)
        if right is not None:
            body += _panel(right, _MARGIN + _PANEL + _GAP, top)
            rows = max(rows, len(right.bars))
        top += _HEAD + rows * _ROW + _SPACE
    kinds = list(dict.fromkeys(bar.kind for panel in panels for bar in panel.bars))
    size = f'viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{_FONT}" font-size="13">',
        f"<title>{escape(title)}</title>",
        _STYLE,
        f'<rect width="{_WIDTH}" height="{top}" fill="white"/>',
        f'<text class="title" x="{_MARGIN}" y="34">{escape(title)}</text>',
        f'<text class="sub" x="{_MARGIN}" y="56">{escape(subtitle)}</text>',
        *_legend(kinds),
        *body,
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def _legend(kinds: Sequence[Kind]) -> list[str]:
    lines: list[str] = []
    x = _MARGIN
    for kind in kinds:
        lines += [
            f'<rect x="{x}" y="70" width="13" height="13" rx="2" fill="{kind.colour}"/>',
            f'<text x="{x + 19}" y="81">{escape(kind.label)}</text>',
        ]
        x += 19 + round(7.4 * len(kind.label)) + 26
    return lines


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    ratios = panel.unit == "×"
    start = left + _LABEL
    scale = (_PANEL - _LABEL - _VALUE) / max(bar.ratio for bar in panel.bars)
    bottom = top + _HEAD + len(panel.bars) * _ROW
    lines = [f'<text class="panel" x="{left}" y="{top + 16}">{escape(panel.title)}</text>']
    for index, bar in enumerate(panel.bars):
        y = top + _HEAD + index * _ROW
        width = bar.ratio * scale
        beside = start + max(width, scale if ratios else 0) + 6  # right of the line that marks 1, too
        weight = ' font-weight="bold"' if ratios and bar.ratio == 1 else ""
        value = f"{bar.ratio:.2f}×" if ratios else f"{bar.ratio:.0f} {panel.unit}"
        note = f'<tspan class="note" dx="6">{escape(bar.note)}</tspan>'
        lines += [
            f'<text class="name" x="{start - 8}" y="{y + 13}"{weight}>{escape(bar.name)}</text>',
            f'<rect x="{start}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{bar.kind.colour}"/>',
            f'<text x="{beside:.1f}" y="{y + 13}"{weight}>{value}{note}</text>',
        ]
    lines.append(f'<path class="axis" d="M{start},{top + _HEAD - 5} V{bottom - 4}"/>')
    if ratios:
        lines.append(f'<path class="one" d="M{start + scale:.1f},{top + _HEAD - 5} V{bottom - 4}"/>')
    return lines
