"""Draws a timeline as SVG, without dependencies; the same recording gives the same bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise
from typing import Final, NamedTuple

from ..audio._pcm import samples
from ..protocol._text import clean
from ._recording import Recording
from ._timeline import AnswerWait, Mark, Timeline, ToolRun, Utterance, timeline_of

_WIDTH: Final = 1200
"""Width of the picture in pixels; more if a second would otherwise get less than `_MIN_SCALE`."""
_MIN_SCALE: Final = 14
_MAX_WIDTH: Final = 30_000
_LEFT: Final = 104  # of the plot: for the names of the lanes
_RIGHT: Final = 28
_TOP: Final = 112  # of the lanes: below title, legend and axis
_WAVE: Final = 30  # half the height of a voice
_COLUMN: Final = 2  # pixels of one step of a voice
_LINE: Final = 16
_CHARACTER: Final = 6.9  # the width of one, on average, at 12 pixels
_MAX_LINES: Final = 3
_ROW: Final = 22  # of a tool
_MAX_ROWS: Final = 100  # of tools, and of notes; more can't be told apart
_HIDDEN: Final = -1  # the row of items that are not drawn
_FONT: Final = "DejaVu Sans, Verdana, sans-serif"
_STYLE: Final = (
    "<style>text{fill:#222}.title{font-size:17px;font-weight:bold}.sub,.tick{fill:#666}.tick{font-size:11px}"
    ".lane{font-weight:bold}.grid{stroke:#e4e4e4}.base{stroke:#bbb}"
    ".user{fill:#2f6db3}.assistant{fill:#c8691c}.unheard{fill:#e9cdb6}.tool{fill:#3f8a5b}"
    ".failed,.open{fill:#9b9b9b}.stop{stroke:#c0262d;stroke-width:1.5;stroke-dasharray:5 3}.red{fill:#c0262d}"
    ".wait{stroke:#6a3fa0;stroke-width:1.5;fill:none}.purple{fill:#6a3fa0}.end{stroke:#555;stroke-width:1.5}"
    ".mark{fill:#2f6db3}</style>"
)
_NOTED: Final = {"interruption": "red", "error": "red", "close": "sub"}
"""The marks that have a text, and its colour."""
_LEGEND: Final = (
    ("user", "user"),
    ("assistant", "assistant, as played"),
    ("unheard", "received, never played"),
    ("tool", "tool call"),
    ("purple", "time to first audio"),
    ("red", "interruption"),
)


class _Label(NamedTuple):
    """A text that begins at `x` and has `room` pixels."""

    x: float
    room: float
    text: str

    def lines(self) -> list[str]:
        """Wrap the text into lines that fit; the last one ends in an ellipsis if there is more."""
        width = max(4, int(self.room / _CHARACTER))
        lines: list[str] = [""]
        for word in self.text.split():
            longer = f"{lines[-1]} {word}".strip()
            if len(longer) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
        if len(lines) > _MAX_LINES:
            lines = [*lines[: _MAX_LINES - 1], " ".join(lines[_MAX_LINES - 1 :])]
        return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


class _Item(NamedTuple):
    """An item with a text, which needs a row in which it covers nothing else."""

    left: float
    right: float
    text: str
    kind: str
    bar: float = 0.0
    """The width of the bar it has beside its text."""


class _Picture:
    """The layout of the picture: time to the right, one lane below the other."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        seconds = max(timeline.seconds, 0.5)
        plot = min(max(_WIDTH - _LEFT - _RIGHT, seconds * _MIN_SCALE), _MAX_WIDTH - _LEFT - _RIGHT)
        self.scale = plot / seconds
        self.right = _LEFT + plot
        self.width = round(self.right + _RIGHT)
        above, below = self.labels("user"), self.labels("assistant")
        self.user = _TOP + _LINE * _most_lines(above) + 10 + _WAVE
        self.assistant = self.user + 2 * _WAVE + 46
        self.words_below = self.assistant + _WAVE + 18
        self.tools = self.words_below + _LINE * _most_lines(below) + 8
        self.bars = _stack(self.bar(run) for run in timeline.tools)
        rows = max((row for row, _ in self.bars), default=-1) + 1
        self.bottom = self.tools + (rows * _ROW + 12 if rows else 0)
        self.notes = _stack(self.note(mark) for mark in timeline.marks if mark.kind in _NOTED)
        rows = max((row for row, _ in self.notes), default=-1) + 1
        self.height = self.bottom + rows * _LINE + 14

    def x(self, at: float) -> float:
        return _LEFT + at * self.scale

    def bar(self, run: ToolRun) -> _Item:
        """Draw a running tool as a bar with its name beside it, behind it if there is room."""
        left = self.x(run.start)
        right = max(left + 2.0, self.right if run.end is None else self.x(run.end))
        kind = "open" if run.end is None else "failed" if run.failed else "tool"
        took = "never answered" if run.end is None else _milliseconds(run.end - run.start)
        text = f"{run.name} · {'failed after ' if run.failed else ''}{took}"
        room = 6 + len(text) * _CHARACTER
        if right + room <= self.width:
            return _Item(left, right + room, text, kind, right - left)
        return _Item(left - room, right, text, kind, right - left)

    def note(self, mark: Mark) -> _Item:
        """Write a line below everything that begins or ends at its time."""
        x, room = self.x(mark.at), len(mark.text) * _CHARACTER
        left = x if x + room <= self.width else x - room
        return _Item(left, left + room, mark.text, _NOTED[mark.kind])

    def labels(self, role: str) -> list[_Label]:
        """Write the transcripts of one role, joined for each utterance, each in the room before the next."""
        said: dict[float, list[str]] = {}
        for words in self.timeline.words:
            if words.role == role:
                said.setdefault(words.at, []).append(words.text)
        edges = [*map(self.x, said), self.right + _RIGHT]
        return [
            _Label(start, end - start - 8, " ".join(texts))
            for (start, end), texts in zip(pairwise(edges), said.values(), strict=True)
        ]


def draw_timeline(recording: Recording, *, title: str = "") -> str:
    """Draw an SVG of who spoke when, with transcripts, tool calls, interruptions and the time to first audio.

    `title` is by default the provider's and the model's name, or the session's.
    """
    timeline = timeline_of(recording)
    picture = _Picture(timeline)
    named = " · ".join(filter(None, (recording.provider, recording.model)))
    title = title or named or f"session {recording.session_id}".strip()
    size = f'viewBox="0 0 {picture.width} {picture.height}" width="{picture.width}" height="{picture.height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{_FONT}" font-size="12">',
        f"<title>{_escape(title)}</title>",
        _STYLE,
        f'<rect width="{picture.width}" height="{picture.height}" fill="white"/>',
        f'<text class="title" x="20" y="30">{_escape(title)}</text>',
        f'<text class="sub" x="20" y="50">{_escape(_summary(timeline))}</text>',
        *_legend(),
        *_axis(picture),
        *_lane("user", picture.user, picture),
        *_lane("assistant", picture.assistant, picture),
        *_marks(timeline.marks, picture),
        *_voices(timeline.user, "user", picture.user, picture),
        *_voices(timeline.assistant, "assistant", picture.assistant, picture),
        *_texts(picture),
        *_waits(timeline.waits, picture),
        *_tools(picture),
        *_notes(picture),
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Escape `text` for XML, without control characters, which XML can't even escape."""
    return escape(clean(text))


def _summary(timeline: Timeline) -> str:
    parts = [f"{timeline.seconds:.1f} s"]
    if timeline.waits:
        times = [wait.end - wait.start for wait in timeline.waits]
        first_audio = _milliseconds(statistics.median(times))
        parts.append(f"{_count(len(times), 'turn')}, time to first audio {first_audio}")
        if len(times) > 1:
            parts[-1] += " in the median"
    cuts = sum(mark.kind == "interruption" for mark in timeline.marks)
    if cuts:
        parts.append(_count(cuts, "interruption"))
    if timeline.tools:
        parts.append(_count(len(timeline.tools), "tool call"))
    parts.extend(mark.text for mark in timeline.marks if mark.kind == "close")
    return " · ".join(parts)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _legend() -> Iterator[str]:
    x = 20.0
    for kind, label in _LEGEND:
        yield f'<rect class="{kind}" x="{x:.0f}" y="64" width="12" height="12" rx="2"/>'
        yield f'<text x="{x + 17:.0f}" y="74">{_escape(label)}</text>'
        x += 17 + _CHARACTER * len(label) + 24
    yield f'<path class="mark" d="M{x:.0f},66 l5,9 h-10 z"/>'
    yield f'<text x="{x + 12:.0f}" y="74">end of turn</text>'


def _axis(picture: _Picture) -> Iterator[str]:
    step = _step(picture.scale)
    for index in range(int(picture.timeline.seconds / step) + 1):
        x = picture.x(index * step)
        yield f'<path class="grid" d="M{x:.1f},{_TOP - 4} V{picture.bottom}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{_TOP - 8}" text-anchor="middle">{index * step:g} s</text>'


def _step(scale: float) -> float:
    """Return the seconds between two ticks: a round number, so that they are about 80 pixels apart."""
    magnitude = 10.0 ** math.floor(math.log10(80 / scale))
    for factor in (1, 2, 5):
        if factor * magnitude * scale >= 80:
            return factor * magnitude
    return 10 * magnitude


def _lane(name: str, y: int, picture: _Picture) -> Iterator[str]:
    yield f'<text class="lane" x="20" y="{y + 4}">{name}</text>'
    yield f'<path class="base" d="M{_LEFT},{y} H{picture.right:.1f}"/>'


def _voices(utterances: Iterable[Utterance], kind: str, y: int, picture: _Picture) -> Iterator[str]:
    """Draw the loudness of each utterance; the loudest one fills the lane."""
    shapes = [(utterance, _peaks(utterance, picture.scale)) for utterance in utterances]
    loudest = max((max(peaks, default=0.0) for _, peaks in shapes), default=0.0)
    for utterance, peaks in shapes:
        # Enlarge soft speech a little, closer to how loud it seems.
        heights = [max(1.0, _WAVE * (peak / loudest) ** 0.7) if loudest else 1.0 for peak in peaks]
        left = picture.x(utterance.start)
        xs = [left + index * _COLUMN for index in range(len(heights))]
        right = picture.x(utterance.end)
        upper = [f"{x:.1f},{y - height:.1f}" for x, height in zip(xs, heights, strict=True)]
        lower = [f"{x:.1f},{y + height:.1f}" for x, height in zip(xs, heights, strict=True)]
        points = " ".join([*upper, f"{right:.1f},{y}", *reversed(lower)])
        yield f'<polygon class="{kind if utterance.heard else "unheard"}" points="{points}"/>'


def _peaks(utterance: Utterance, scale: float) -> list[float]:
    """Return the loudest sample of each column of the utterance."""
    values = samples(bytes(utterance.pcm))
    per_column = _COLUMN / scale * utterance.sample_rate
    columns = max(1, math.ceil(len(values) / per_column))
    pieces = (values[int(c * per_column) : int((c + 1) * per_column)] for c in range(columns))
    return [float(max(max(piece), -min(piece))) if piece else 0.0 for piece in pieces]


def _texts(picture: _Picture) -> Iterator[str]:
    for label in picture.labels("user"):
        lines = label.lines()
        yield from _text(label, lines, picture.user - _WAVE - 8 - _LINE * (len(lines) - 1))
    for label in picture.labels("assistant"):
        yield from _text(label, label.lines(), picture.words_below)


def _text(label: _Label, lines: list[str], y: float) -> Iterator[str]:
    spans = "".join(
        f'<tspan x="{label.x:.1f}" y="{y + row * _LINE:.0f}">{_escape(line)}</tspan>'
        for row, line in enumerate(lines)
    )
    # Browsers show the title, here the whole text, under the pointer.
    yield f"<text>{spans}<title>{_escape(label.text)}</title></text>"


def _most_lines(labels: Iterable[_Label]) -> int:
    return max((len(label.lines()) for label in labels), default=0)


def _waits(waits: Iterable[AnswerWait], picture: _Picture) -> Iterator[str]:
    y = (picture.user + picture.assistant) // 2
    for wait in waits:
        left, right = picture.x(wait.start), picture.x(wait.end)
        text = _milliseconds(wait.end - wait.start)
        yield f'<path class="wait" d="M{left:.1f},{y - 6} v12 m0,-6 H{right:.1f} m0,-6 v12"/>'
        yield f'<text class="purple" x="{right + 6:.1f}" y="{y + 4}">{text}</text>'


def _stack(items: Iterable[_Item]) -> list[tuple[int, _Item]]:
    """Return each item with its row: the first row in which it covers no other item, or `_HIDDEN`."""
    stack: list[tuple[int, _Item]] = []
    rows: list[tuple[float, float]] = []  # the left and right end of the taken part of each
    for item in items:
        for row, (left, right) in enumerate(rows):
            if right + 8 <= item.left or item.right + 8 <= left:
                rows[row] = min(left, item.left), max(right, item.right)
                break
        else:
            row = len(rows) if len(rows) < _MAX_ROWS else _HIDDEN
            if row != _HIDDEN:
                rows.append((item.left, item.right))
        stack.append((row, item))
    return stack


def _tools(picture: _Picture) -> Iterator[str]:
    if picture.bars:
        yield f'<text class="lane" x="20" y="{picture.tools + 15}">tools</text>'
    for (row, item), run in zip(picture.bars, picture.timeline.tools, strict=True):
        if row == _HIDDEN:
            continue
        left, y = picture.x(run.start), picture.tools + row * _ROW
        place = f'x="{left + item.bar + 6:.1f}"' if item.left == left else f'x="{item.left:.1f}"'
        size = f'width="{item.bar:.1f}" height="{_ROW - 8}"'
        yield f'<rect class="{item.kind}" x="{left:.1f}" y="{y + 3}" {size} rx="3"/>'
        yield f'<text {place} y="{y + 15}">{_escape(item.text)}</text>'


def _notes(picture: _Picture) -> Iterator[str]:
    for row, item in picture.notes:
        if row == _HIDDEN:
            continue
        place = f'x="{item.left:.1f}" y="{picture.bottom + 16 + row * _LINE}"'
        yield f'<text class="{item.kind}" {place}>{_escape(item.text)}</text>'


def _marks(marks: Iterable[Mark], picture: _Picture) -> Iterator[str]:
    below = picture.user + _WAVE + 4
    for mark in marks:
        x = picture.x(mark.at)
        title = f"<title>{_escape(mark.text)} at {mark.at:.3f} s</title>"
        match mark.kind:
            case "commit" | "interrupt" | "command":
                kind = "red" if mark.kind == "interrupt" else "mark"
                yield f'<path class="{kind}" d="M{x:.1f},{below} l5,9 h-10 z">{title}</path>'
            case "interruption":
                yield f'<path class="stop" d="M{x:.1f},{_TOP - 4} V{picture.bottom}">{title}</path>'
            case "error":
                yield f'<path class="red" d="M{x:.1f},{picture.bottom} l6,-10 h-12 z">{title}</path>'
            case _:
                yield f'<path class="end" d="M{x:.1f},{_TOP - 4} V{picture.bottom}">{title}</path>'
