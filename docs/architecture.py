"""Draws the parts of the package and the arrows between them, and reads the imports that they stand for.

``python docs/architecture.py`` writes ``architecture.svg`` beside this file. A test asserts that what is
committed is what the table in CONTRIBUTING.md gives, and holds the imports to that table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent

Imports = Mapping[str, set[str]]
"""The modules that each module of the package imports, by their full names; type checkers' imports too."""


class Part(NamedTuple):
    """One row of the table."""

    owns: str
    ours: tuple[str, ...]
    others: tuple[str, ...]


def parts(contributing: str) -> dict[str, Part]:
    """Read the table of parts, in its order."""
    found: dict[str, Part] = {}
    for line in contributing.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            ours = () if cells[2] == "nothing" else tuple(cells[2].split(", "))
            others = tuple(cells[3].split(", ")) if cells[3] else ()
            found[cells[0].strip("`/_").removesuffix(".py")] = Part(cells[1], ours, others)
    return found


def imports(source: Path) -> dict[str, set[str]]:
    """Read what each module below `source` imports."""
    modules: dict[str, Path] = {}
    for path in sorted(source.rglob("*.py")):
        names = path.relative_to(source).with_suffix("").parts
        modules[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return {name: set(_imports_of(name, path, modules)) - {name} for name, path in modules.items()}


def _imports_of(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in modules else base


def part_of(module: str) -> str:
    """Name the part that a module belongs to; the package's own `__init__` belongs to none."""
    return module.split(".")[1].lstrip("_") if "." in module else ""


def edges(imported: Imports) -> set[tuple[str, str]]:
    """List the pairs of parts of which the first imports from the second."""
    pairs = {
        (part_of(module), part_of(target))
        for module, targets in imported.items()
        for target in targets
        if target.startswith("speko_anyio.")
    }
    helpers = {"", "extras", "lazy", "version"}
    return {(origin, to) for origin, to in pairs if origin != to and not {origin, to} & helpers}


def circles(imported: Imports) -> list[list[str]]:
    """List the groups of modules that import each other, directly or through others."""
    reach: dict[str, set[str]] = {}
    for start in imported:
        seen: set[str] = set()
        pending = list(imported[start])
        while pending:
            module = pending.pop()
            if module in imported and module not in seen:
                seen.add(module)
                pending.extend(imported[module])
        reach[start] = seen
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in imported
        if module in reach[module]
    }
    return sorted(list(group) for group in groups)


# The drawing: one row for each layer, an arrow only where no longer way leads to the same part.

_WIDTH, _ROW, _HALF, _BOX = 1240, 120, 118, 74
_TIP: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" markerWidth="9" markerHeight="9" refX="8" refY="4" '
    'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#3b5b92"/></marker></defs>'
)
_PLACES: Final = {
    "cli": (0, 0.7),
    "testing": (0, 0.9),
    "gateway": (1, 0.5),
    "accounts": (2, 0.5),
    "client": (3, 0.5),
    "otel": (3, 0.7),
    "recording": (3, 0.9),
    "net": (4, 0.1),
    "errors": (5, 0.1),
    "telephony": (5, 0.3),
    "providers": (5, 0.5),
    "observe": (5, 0.7),
    "audio": (5, 0.9),
    "protocol": (6, 0.5),
}
"""Row from the top, and middle as a share of the width."""


def reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Leave out the arrows that a longer way implies."""
    beyond: dict[str, set[str]] = {}

    def all_below(part: str) -> set[str]:
        if part not in beyond:
            direct = {to for origin, to in pairs if origin == part}
            beyond[part] = direct.union(*map(all_below, direct))
        return beyond[part]

    return {
        (origin, to)
        for origin, to in pairs
        if not any(to in all_below(step) for other, step in pairs if other == origin and step != to)
    }


def svg(table: Mapping[str, Part]) -> str:
    """Draw the parts of `table` and the arrows between them."""
    pairs = {(part, other) for part, row in table.items() for other in row.ours}
    height = (max(row for row, _ in _PLACES.values()) + 1) * _ROW + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"',
        '     font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">',
        "<title>The parts of speko-anyio; an arrow leads from a part to one that it imports</title>",
        "<style>",
        "text { fill: #222; text-anchor: middle }",
        ".part { fill: #f3f3f3; stroke: #777; stroke-width: 1.5 }",
        ".pure { fill: #e8f0fe; stroke: #3b5b92; stroke-width: 1.5 }",
        ".arrow { stroke: #3b5b92; stroke-width: 1.5; marker-end: url(#tip) }",
        ".name { font-weight: bold; font-size: 15px }",
        "</style>",
        _TIP,
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for origin, to in sorted(reduced(pairs)):
        (x1, y1), (x2, y2) = _arrow(origin, to)
        lines.append(f'<line class="arrow" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for part, (owns, _, _) in table.items():
        x, y = _middle(part)
        words = _wrapped(owns.replace("`", ""), 34)
        kind = "pure" if part in ("protocol", "providers", "telephony") else "part"
        lines.append(
            f'<rect class="{kind}" x="{x - _HALF}" y="{y - _BOX // 2}" '
            f'width="{2 * _HALF}" height="{_BOX}" rx="8"/>'
        )
        lines.append(f'<text class="name" x="{x}" y="{y - 17}">{part}</text>')
        lines.extend(
            f'<text x="{x}" y="{y + 15 * row}">{escape(text)}</text>' for row, text in enumerate(words)
        )
    return "\n".join([*lines, "</svg>", ""])


def _middle(part: str) -> tuple[int, int]:
    row, share = _PLACES[part]
    return round(_WIDTH * share), row * _ROW + _BOX // 2 + 10


def _arrow(origin: str, to: str) -> tuple[tuple[int, int], tuple[int, int]]:
    (x1, y1), (x2, y2) = _middle(origin), _middle(to)
    return (x1, y1 + _BOX // 2), (x2, y2 - _BOX // 2)


def hidden(table: Mapping[str, Part]) -> list[tuple[str, str, str]]:
    """List the arrows that pass behind the box of a third part, whose own they would seem to be."""
    pairs = {(part, other) for part, row in table.items() for other in row.ours}
    found = []
    for origin, to in sorted(reduced(pairs)):
        (x1, y1), (x2, y2) = _arrow(origin, to)
        for part in table.keys() - {origin, to}:
            x, y = _middle(part)
            # Where the arrow enters and leaves the rows of the box; no arrow leads upwards.
            ends = (max(y1, y - _BOX // 2), min(y2, y + _BOX // 2))
            if ends[0] < ends[1]:
                low, high = sorted(x1 + (x2 - x1) * (end - y1) / (y2 - y1) for end in ends)
                if low < x + _HALF and high > x - _HALF:
                    found.append((origin, to, part))
    return found


def _wrapped(text: str, width: int) -> list[str]:
    """Break `text` into lines, of which a box has room for three."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > 3:
        raise ValueError(
            f"a box of the drawing has three lines, which is too little for {text!r}; shorten it"
        )
    return lines


class Step(NamedTuple):
    """One arrow of a walk: `caller` calls, and what it calls says the label."""

    caller: str
    callee: str
    does: str


class Walk(NamedTuple):
    """A way through the code, drawn as a sequence diagram; the columns are functions, by their full names."""

    title: str
    columns: tuple[tuple[str, str], ...]
    """For each: a short name, and the class or module it stands for."""
    steps: tuple[Step, ...]


def sequence(walk: Walk) -> str:
    """Draw a walk as a sequence diagram, from the top to the bottom."""
    places = {name: 100 + 206 * number for number, (name, _) in enumerate(walk.columns)}
    width = 206 * len(walk.columns) - 6
    height = 84 + 46 * len(walk.steps)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        '     font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">',
        f"<title>{escape(walk.title)}</title>",
        "<style>",
        "text { fill: #222; text-anchor: middle }",
        ".box { fill: #e8f0fe; stroke: #3b5b92; stroke-width: 1.5 }",
        ".life { stroke: #aaa; stroke-dasharray: 4 4 }",
        ".call { stroke: #3b5b92; stroke-width: 1.5; fill: none; marker-end: url(#tip) }",
        ".name { font-weight: bold; font-size: 13px }",
        "</style>",
        _TIP,
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for name, home in walk.columns:
        x = places[name]
        lines += [
            f'<line class="life" x1="{x}" y1="52" x2="{x}" y2="{height - 8}"/>',
            f'<rect class="box" x="{x - 96}" y="8" width="192" height="44" rx="8"/>',
            f'<text class="name" x="{x}" y="27">{escape(name)}</text>',
            f'<text x="{x}" y="43">{escape(home)}</text>',
        ]
    for number, step in enumerate(walk.steps):
        y = 88 + 46 * number
        start, end = places[step.caller], places[step.callee]
        if start == end:
            last = step.caller == walk.columns[-1][0]
            side = -1 if last else 1
            lines.append(f'<path class="call" d="M{start},{y - 8} h{34 * side} v14 h{-32 * side}"/>')
            place = f'x="{start + 40 * side}" y="{y}" style="text-anchor: {"end" if last else "start"}"'
            lines.append(f"<text {place}>{escape(step.does)}</text>")
            continue
        lines.append(f'<line class="call" x1="{start}" y1="{y}" x2="{end}" y2="{y}"/>')
        lines.append(f'<text x="{(start + end) // 2}" y="{y - 6}">{escape(step.does)}</text>')
    return "\n".join([*lines, "</svg>", ""])


_CLIENT_SIDE: Final = (
    ("RealtimeSession", "client/_session.py"),
    ("AsyncioDriver", "_net/asyncio_driver.py"),
    ("Pump", "client/_pump.py"),
    ("WebSocketCore", "protocol/_websocket.py"),
    ("DeliveryBuffer", "client/_delivery.py"),
)

WALKS: Final = {
    "architecture-send.svg": Walk(
        "A piece of audio on its way from the application to the transport",
        (*_CLIENT_SIDE[:2], ("ClientWebSocket", "protocol/_client_websocket.py"), _CLIENT_SIDE[3]),
        (
            Step("RealtimeSession", "AsyncioDriver", "send(core.send_audio, pcm)"),
            Step("AsyncioDriver", "ClientWebSocket", "send_audio(pcm): one masked frame"),
            Step("AsyncioDriver", "WebSocketCore", "data_to_send(): its bytes"),
            Step("AsyncioDriver", "AsyncioDriver", "transport.write(bytes)"),
        ),
    ),
    "architecture-receive.svg": Walk(
        "Bytes on their way from the transport to the application",
        (*_CLIENT_SIDE[1:], _CLIENT_SIDE[0]),
        (
            Step("AsyncioDriver", "Pump", "receive_data(bytes)"),
            Step("Pump", "WebSocketCore", "receive_data(bytes)"),
            Step("Pump", "WebSocketCore", "next_event(): Audio"),
            Step("Pump", "DeliveryBuffer", "put(frame)"),
            Step("DeliveryBuffer", "RealtimeSession", "wakes receive()"),
            Step("RealtimeSession", "DeliveryBuffer", "take(): the frame"),
        ),
    ),
    "architecture-bridge.svg": Walk(
        "A provider's audio on its way through the gateway to the client",
        (
            ("ProviderDriver", "gateway/_provider_driver.py"),
            ("Bridge", "providers/bridge/_bridge.py"),
            ("WebSocketCore", "protocol/_websocket.py"),
            ("RealtimeDialect", "providers/realtime/_dialect.py"),
            ("ServerProtocol", "protocol/_session.py"),
            ("ServerSession", "gateway/_session.py"),
        ),
        (
            Step("ProviderDriver", "WebSocketCore", "receive_data(bytes), within Bridge.at(now)"),
            Step("Bridge", "WebSocketCore", "next_event()"),
            Step("WebSocketCore", "RealtimeDialect", "receive_message(JSON)"),
            Step("RealtimeDialect", "Bridge", "Audio, at the provider's rate"),
            Step("Bridge", "ServerProtocol", "send_audio(pcm), at the client's rate"),
            Step("ProviderDriver", "ServerSession", "core_changed()"),
            Step("ServerSession", "ServerProtocol", "next_message(): binary"),
            Step("ServerSession", "ServerSession", "transport.send(message)"),
        ),
    ),
}
"""The walks that the page shows, by the file that each is drawn in."""

_BEGIN, _END = "<!-- files: written by docs/architecture.py -->", "<!-- end of files -->"


def file_map(table: Mapping[str, Part], source: Path) -> str:
    """List every module with the first line of its docstring, part by part."""
    lines = []
    for part, row in table.items():
        names = (part, f"_{part}", f"{part}.py", f"_{part}.py")
        home = next(path for name in names if (path := source / "speko_anyio" / name).exists())
        owns = row.owns[:1].upper() + row.owns[1:]
        if not home.is_dir():
            lines += [f"### `{home.name}`", "", f"{owns}.", ""]
            continue
        lines += [f"### `{home.name}/`", "", f"{owns}.", "", "| file | what is in it |", "|---|---|"]
        for path in sorted(home.rglob("*.py")):
            about = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
            if path.name not in ("__init__.py", "__main__.py") and "_migrations" not in path.parts:
                about = " ".join(about.split()).replace("|", "\\|")
                lines.append(f"| `{path.relative_to(home)}` | {about} |")
        lines.append("")
    return "\n".join(lines)


def page() -> str:
    """Give the page as it is committed, with its list of files made anew."""
    text = (HERE / "architecture.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    table = parts((HERE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    return f"{before}{_BEGIN}\n\n{file_map(table, HERE.parent / 'src')}\n{_END}{after}"


def generated() -> dict[str, str]:
    """Give what is generated, by file name."""
    table = parts((HERE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    drawings = {name: sequence(walk) for name, walk in WALKS.items()}
    return {"architecture.svg": svg(table), "architecture.md": page(), **drawings}


def main() -> None:
    """Write the drawings and the list of files."""
    for name, text in generated().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
