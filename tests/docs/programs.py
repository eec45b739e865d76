"""The Python blocks of the pages, as programs that a test runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Program:
    """One block: the `number`-th of `page`, from 1 on."""

    def __init__(self, page: str, number: int, source: str, line: int) -> None:
        self.page = page
        self.number = number
        self.source = source
        self._line = line

    def __repr__(self) -> str:
        return f"{self.page} {self.number}"

    def load(self, **names: object) -> dict[str, Any]:
        """Run it with these global names; gives all that it has then. Tracebacks point into the page."""
        filled = "\n" * self._line + self.source
        # As it stands there: not with this module's `from __future__`.
        exec(compile(filled, str(DOCS / self.page), "exec", dont_inherit=True), names)
        return names

    async def run(self, monkeypatch: pytest.MonkeyPatch, **names: object) -> dict[str, Any]:
        """Run a block that ends with `anyio.run`, in the event loop of the test."""
        started: list[Callable[[], Awaitable[object]]] = []
        with monkeypatch.context() as patch:
            patch.setattr(anyio, "run", lambda main, **options: started.append(main))
            found = self.load(**names)
        (main,) = started
        await main()
        return found


def programs(page: str) -> list[Program]:
    """Return the Python blocks of a page in `docs`, in their order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        Program(page, number, match[1], text.count("\n", 0, match.start(1)))
        for number, match in enumerate(_BLOCK.finditer(text), 1)
    ]
