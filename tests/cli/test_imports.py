"""What the command imports."""

from __future__ import annotations

import ast
from pathlib import Path

from speko_anyio import cli

FOLDER = Path(cli.__file__).parent


def imported(module: Path) -> set[str]:
    """The names of the packages of speko_anyio that `module` imports, in functions too."""
    depth = len(module.relative_to(FOLDER).parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name.removeprefix("speko_anyio.") for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = (node.module or "").removeprefix("speko_anyio.")
            if node.level == depth + 1 or not node.level:
                found |= {name} if name else {each.name for each in node.names}
    return {name.partition(".")[0] for name in found}


def test_the_command_imports_no_test_doubles() -> None:
    everything = {module: imported(module) for module in FOLDER.rglob("*.py")}
    assert {"gateway", "client", "recording"} <= set[str]().union(*everything.values())
    assert [module.name for module, names in everything.items() if "testing" in names] == []
