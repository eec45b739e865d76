"""Draw the session's state machine from the table that drives it.

``python docs/diagrams.py`` writes ``state-machine.svg`` and ``state-machine.md`` beside this file; a test
asserts that what is committed is what the table gives. The places of states and arrows are set by hand, since
there are few; everything else comes out of `TRANSITIONS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from speko_anyio.protocol._state import TRANSITIONS, Signal, State

HERE: Final = Path(__file__).parent

WIDTH, TOP, HEIGHT = 960, -12, 450
_BOX_WIDTH, _BOX_HEIGHT = 150, 46
_LINE = 17  # from one line of a label to the next

_PLACES: Final = {
    State.CONNECTING: (120, 150),
    State.OPEN: (480, 150),
    State.CLOSING: (840, 150),
    State.CLOSED: (480, 400),
}
"""The middle of each state's box."""


class _Route(NamedTuple):
    """The path of an arrow and the position of its label."""

    path: str
    label_x: int
    label_y: int
    """Baseline of the last line when the label stands above its point, else of the first."""
    anchor: str
    above: bool = False


_ROUTES: Final = {
    (State.CONNECTING, State.OPEN): _Route("M195,150 L404,150", 300, 140, "middle", above=True),
    (State.OPEN, State.CLOSING): _Route("M555,150 L764,150", 660, 140, "middle", above=True),
    (State.OPEN, State.OPEN): _Route("M455,127 C430,60 530,60 507,126", 480, 66, "middle", above=True),
    (State.CLOSING, State.CLOSING): _Route("M815,127 C790,60 890,60 867,126", 840, 66, "middle", above=True),
    (State.CONNECTING, State.CLOSED): _Route("M120,173 C120,400 300,400 404,400", 166, 215, "start"),
    (State.OPEN, State.CLOSED): _Route("M480,173 L480,376", 494, 220, "start"),
    (State.CLOSING, State.CLOSED): _Route("M840,173 C840,400 660,400 556,400", 762, 300, "end"),
}


def arcs() -> dict[tuple[State, State], list[Signal]]:
    """Group the signals by the two states that they connect, in the table's order."""
    grouped: dict[tuple[State, State], list[Signal]] = {}
    for (state, signal), after in TRANSITIONS.items():
        grouped.setdefault((state, after), []).append(signal)
    return grouped


_START: Final = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {TOP} {WIDTH} {HEIGHT}" role="img"
     font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">
<title>The states of a session and the signals between them</title>
<style>
text {{ fill: #222 }}
.state {{ fill: #e8f0fe; stroke: #3b5b92; stroke-width: 1.5 }}
.arc {{ fill: none; stroke: #3b5b92; stroke-width: 1.5; marker-end: url(#tip) }}
.name {{ font-weight: bold; font-size: 15px; text-anchor: middle }}
</style>
<defs>
<marker id="tip" viewBox="0 0 8 8" markerWidth="9" markerHeight="9" refX="8" refY="4"
        markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#3b5b92"/></marker>
</defs>
<rect y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="white"/>"""


def svg() -> str:
    """Return the picture."""
    lines = [_START]
    for between, signals in arcs().items():
        lines.extend(_draw_arc(_ROUTES[between], signals))
    for state in State:
        lines.extend(_draw_state(state))
    return "\n".join([*lines, "</svg>", ""])


def _draw_arc(route: _Route, signals: list[Signal]) -> Iterator[str]:
    yield f'<path class="arc" d="{route.path}"/>'
    top = route.label_y - (_LINE * (len(signals) - 1) if route.above else 0)
    for row, signal in enumerate(signals):
        place = f'x="{route.label_x}" y="{top + row * _LINE}" text-anchor="{route.anchor}"'
        yield f"<text {place}>{escape(signal.value)}</text>"


def _draw_state(state: State) -> Iterator[str]:
    x, y = _PLACES[state]
    left, top = x - _BOX_WIDTH // 2, y - _BOX_HEIGHT // 2
    size = f'width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}"'
    yield f'<rect class="state" x="{left}" y="{top}" {size} rx="10"/>'
    if state is State.CLOSED:  # a second frame around the state that nothing leaves
        size = f'width="{_BOX_WIDTH - 8}" height="{_BOX_HEIGHT - 8}"'
        yield f'<rect class="state" x="{left + 4}" y="{top + 4}" {size} rx="7"/>'
    yield f'<text class="name" x="{x}" y="{y + 5}">{state.name}</text>'


def markdown() -> str:
    """Return the page: the picture and every cell of the table."""
    lines = [
        "<!-- Written by docs/diagrams.py from the table in speko_anyio.protocol._state; don't edit. -->",
        "",
        "# Session states",
        "",
        "A session is always in one of four states. The same table applies to client and server.",
        "",
        "![The states of a session and the signals between them](state-machine.svg)",
        "",
        "Each cell is the next state. An empty cell means that the signal can't occur in that state.",
        "",
        "| signal | " + " | ".join(state.name for state in State) + " |",
        "|---" * (len(State) + 1) + "|",
    ]
    for signal in Signal:
        cells = [TRANSITIONS.get((state, signal)) for state in State]
        lines.append(f"| {signal.value} | " + " | ".join("" if c is None else c.name for c in cells) + " |")
    return "\n".join([*lines, ""])


PAGES: Final = {"state-machine.svg": svg, "state-machine.md": markdown}
"""The generators by file name."""


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
