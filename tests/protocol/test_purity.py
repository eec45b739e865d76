"""The core and the providers stay pure: no I/O, clock, async, randomness or environment of their own."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import speko_anyio.protocol

PACKAGE = Path(speko_anyio.protocol.__file__).parents[1]
PURE = sorted(path for part in ("protocol", "providers") for path in (PACKAGE / part).rglob("*.py"))

MAY_IMPORT = {"msgspec", "wsproto", "websockets"}
"""`websockets` for its C masker alone, where it is installed: see `test_the_optional_import`."""

# fmt: off
IMPURE_STDLIB = {
    "asyncio", "concurrent", "contextvars", "datetime", "getpass", "io", "logging", "multiprocessing",
    "pathlib", "queue", "random", "sched", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "socketserver", "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request", "uuid",
    "warnings",
}
# fmt: on

OS_USES = {"urandom", "register_at_fork"}
"""Of `os`: the default of a parameter, and what makes it safe across a fork."""


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules that `path` imports."""
    package = ["speko_anyio", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, node.module] if node.module else base)


def test_there_is_something_to_look_at() -> None:
    assert len([path for path in PURE if path.parent.name == "protocol"]) > 15


@pytest.mark.parametrize("path", PURE, ids=ids)
def test_imports(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0]
    pure_parts = {"protocol"} if part == "protocol" else {"protocol", "providers"}
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "speko_anyio":
            assert rest, name
            assert rest[0] in pure_parts, name
        elif top not in MAY_IMPORT:
            assert top in sys.stdlib_module_names, name
            assert top not in IMPURE_STDLIB, name
            assert name not in IMPURE_STDLIB, name


@pytest.mark.parametrize("name", ["wsproto", "websockets"])
def test_the_optional_import(name: str) -> None:
    users = {path.stem for path in PURE if any(module.split(".")[0] == name for module in imports(path))}
    assert users == ({"engine"} if name == "wsproto" else {"masking"})


@pytest.mark.parametrize("path", PURE, ids=ids)
def test_nothing_is_async_and_nothing_reads_the_world(path: Path) -> None:
    for node in ast.walk(tree(path)):
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)), (
            node.lineno
        )
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr in OS_USES, f"os.{node.attr} in line {node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.module != "os", node.lineno
        if isinstance(node, ast.Name):
            assert node.id not in {"open", "print", "input", "exec", "eval"}, node.lineno


FRESH = """
import sys
sys.modules.update(dict.fromkeys({absent}))
before = set(sys.modules)
import speko_anyio.protocol
print(*sorted(set(sys.modules) - before))
"""

ASYNC = {
    "anyio",
    "trio",
    "asyncio",
    "uvloop",
    "sniffio",
    "httpx",
    "httpcore",
    "starlette",
    "uvicorn",
    "subprocess",
}
IO = {
    "socket",
    "ssl",
    "select",
    "selectors",
    "threading",
    "concurrent",
    "multiprocessing",
    "logging",
}


def loaded_by_the_core(*, absent: list[str]) -> set[str]:
    """Top-level modules that a fresh interpreter loads for the core, where `absent` are not installed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FRESH.format(absent=absent)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"speko_anyio", "wsproto", "msgspec"} <= loaded
    return loaded


def test_a_fresh_interpreter_loads_nothing_async() -> None:
    assert loaded_by_the_core(absent=[]) & ASYNC == set()


def test_without_the_c_masker_it_loads_nothing_that_does_io_either() -> None:
    # The package that the C masker is in loads `importlib.metadata`, and that, sockets.
    assert loaded_by_the_core(absent=["websockets"]) & (ASYNC | IO) == set()
