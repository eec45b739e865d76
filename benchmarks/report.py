"""Tables and files for the reports of all benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_DOCS: Final = Path(__file__).parent.parent / "docs"
_END: Final = "<!-- to here -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table: text in the first column, figures in the others."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)


def publish(name: str, text: str, picture: str | None, found: Any, *, out: Path | None, docs: bool) -> None:
    """Print the results of the program ``name.py``, and write them where ``--out`` and ``--docs`` say."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (out / f"{name}.md").write_text(text, encoding="utf-8")
        if picture is not None:
            (out / f"{name}.svg").write_text(picture, encoding="utf-8")
    if docs:
        _renew(f"{name}.py", text)
        if picture is not None:
            (_DOCS / f"benchmarks-{name}.svg").write_text(picture, encoding="utf-8")
    print(text)


def _renew(program: str, text: str) -> None:
    """Replace the part of docs/benchmarks-details.md that `program` writes by `text`."""
    page = _DOCS / "benchmarks-details.md"
    begin = f"<!-- {program} writes from here -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    assert found, f"{page.name} has no place for what {program} writes"
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{begin}\n\n{text}\n{_END}{after}", encoding="utf-8")
