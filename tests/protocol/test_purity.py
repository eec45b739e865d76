"""The core, the providers and telephony stay pure: no I/O, clock, async, randomness or environment."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import speko_anyio.protocol
from tests.support.processes import run_python

PACKAGE = Path(speko_anyio.protocol.__file__).parents[1]
ABOVE = ("providers", "telephony")
"""The pure parts that build on the core."""
PURE = sorted(path for part in ("protocol", *ABOVE) for path in (PACKAGE / part).rglob("*.py"))

MAY_IMPORT = {"msgspec", "wsproto"}

EXCEPTIONS = {
    "telephony/g711.py": {"audioop", "warnings"},  # silences the warning that `audioop` leaves the library
    "telephony/telnyx.py": {  # where it is installed
        "cryptography.exceptions",
        "cryptography.hazmat.primitives.asymmetric.ed25519",
    },
}

# fmt: off
IMPURE_STDLIB = {
    "asyncio", "concurrent", "contextvars", "datetime", "getpass", "io", "logging", "multiprocessing",
    "pathlib", "queue", "random", "sched", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "socketserver", "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request", "uuid",
    "warnings",
}
# fmt: on

IMPURE_BUILTINS = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}

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
    pure_parts = {"protocol", part}
    for name in set(imports(path)) - EXCEPTIONS.get(ids(path), set()):
        top, *rest = name.split(".")
        if top == "speko_anyio":
            assert rest, name
            assert rest[0] in pure_parts, name
        elif top not in MAY_IMPORT:
            assert top in sys.stdlib_module_names, name
            assert top not in IMPURE_STDLIB, name
            assert name not in IMPURE_STDLIB, name


def users(name: str) -> set[str]:
    """The modules that import from that package, or out of it."""
    return {
        path.stem
        for path in PURE
        if any(module == name or module.startswith(f"{name}.") for module in imports(path))
    }


def test_one_module_knows_wsproto() -> None:
    assert users("wsproto") == {"_engine"}


def test_one_module_loads_what_it_did_not_name() -> None:
    # It looks for the C masker of `websockets`, which it must not import: that would load sockets and e-mail.
    assert users("importlib") == {"_masking"}
    assert users("websockets") == set()


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
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_BUILTINS, node.lineno


FRESH = """
import sys
sys.modules.update(dict.fromkeys({absent}))
before = set(sys.modules)
import speko_anyio.protocol
print(*sorted(set(sys.modules) - before))
"""

# fmt: off
FOREIGN = {
    # async
    "anyio", "asyncio", "outcome", "sniffio", "trio", "uvloop",
    # I/O and threads
    "concurrent", "logging", "multiprocessing", "queue", "select", "selectors", "signal", "socket", "ssl",
    "subprocess", "tempfile", "threading",
    # HTTP, and what comes with it
    "aiohttp", "certifi", "email", "httpcore", "httpx", "idna", "starlette", "uvicorn", "websockets",
}
# fmt: on


@pytest.mark.parametrize("absent", [[], ["websockets"]], ids=["all there is", "no websockets"])
def test_a_fresh_interpreter_loads_nothing_that_does_io(absent: list[str]) -> None:
    loaded = set(run_python("-W", "error", "-c", FRESH.format(absent=absent)).split())
    # The C masker alone: not the package around it.
    loaded.discard("websockets.speedups")
    assert {"speko_anyio.protocol", "wsproto", "msgspec"} <= loaded
    assert {name.split(".")[0] for name in loaded} & FOREIGN == set()
    assert {name for name in loaded if name.startswith("speko_anyio.")} >= {"speko_anyio.protocol._engine"}
    assert {name.split(".")[1] for name in loaded if name.startswith("speko_anyio.")} <= {
        "protocol",
        "_extras",
        "_lazy",
        "_version",
    }
