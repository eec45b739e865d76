"""The arrows between the parts of the package: the table in CONTRIBUTING.md, and no circles."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from docs import architecture

ROOT = Path(__file__).parents[1]
PARTS = architecture.parts((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
IMPORTS = architecture.imports(ROOT / "src")

HELPERS = {"speko_anyio._extras", "speko_anyio._lazy", "speko_anyio._version"}
"""What every part may import."""

EXTRAS = {
    "gateway": {
        "alembic",
        "anyio",
        "espeakng_loader",
        "faster_whisper",
        "h11",
        "hibari",
        "httpx",
        "jwt",
        "msgspec",
        "numpy",
        "pocketsphinx",
        "prometheus_client",
        "psycopg",
        "sqlalchemy",
        "starlette",
        "uvicorn",
    },
    "cli": {"anyio", "msgspec", "rich"},
}
"""What the table calls a part's extras."""


def test_the_table_names_every_part() -> None:
    package = ROOT / "src" / "speko_anyio"
    folders = {path.parent.name.lstrip("_") for path in package.glob("*/__init__.py")}
    helpers = {"init__", "extras", "lazy", "version"}
    modules = {path.stem.lstrip("_") for path in package.glob("*.py")} - helpers
    assert set(PARTS) == folders | modules


def test_there_is_something_to_hold() -> None:
    assert len(IMPORTS) > 150
    assert architecture.edges(IMPORTS) >= {("gateway", "providers"), ("providers", "protocol")}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_what_its_row_names(part: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, targets in sorted(IMPORTS.items())
        if architecture.part_of(module) == part
        for imported in sorted(targets)
        if imported.startswith("speko_anyio.") and imported not in HELPERS
        if architecture.part_of(imported) not in {part, *PARTS[part].ours}
    ]
    assert wrong == []


@pytest.mark.parametrize("part", PARTS)
def test_a_row_names_nothing_that_is_not_imported(part: str) -> None:
    used = {to for origin, to in architecture.edges(IMPORTS) if origin == part}
    assert set(PARTS[part].ours) == used


@pytest.mark.parametrize("part", PARTS)
def test_a_part_uses_the_packages_that_its_row_names(part: str) -> None:
    used = {
        target.partition(".")[0]
        for module, targets in IMPORTS.items()
        if architecture.part_of(module) == part
        for target in targets
    } - {"speko_anyio", *sys.stdlib_module_names}
    assert used <= EXTRAS.get(part, set(PARTS[part].others))


def test_no_arrow_points_up() -> None:
    """The table itself has an order, in which every row imports rows above it only."""
    order = list(PARTS)
    for part in PARTS:
        assert [other for other in PARTS[part].ours if order.index(other) >= order.index(part)] == []


def test_no_modules_import_each_other() -> None:
    assert architecture.circles(IMPORTS) == []


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "json"}, "d": {"a"}}
    assert architecture.circles(graph) == [["b", "c"]]


def test_no_arrow_of_the_drawing_passes_behind_a_part() -> None:
    """It would look like an arrow to or from that part."""
    assert architecture.hidden(PARTS) == []
    crossing = {**PARTS, "cli": PARTS["cli"]._replace(ours=("gateway", "accounts", "net", "recording"))}
    crossing["testing"] = crossing["testing"]._replace(ours=("net",))
    assert ("testing", "net", "accounts") in architecture.hidden(crossing)


@pytest.mark.parametrize("name", architecture.generated())
def test_what_is_generated_is_up_to_date(name: str) -> None:
    committed = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert committed == architecture.generated()[name], "run: python docs/architecture.py"


@pytest.mark.parametrize(
    ("home", "name"),
    sorted({(home, name) for walk in architecture.WALKS.values() for name, home in walk.columns}),
)
def test_a_walk_goes_through_classes_that_exist(home: str, name: str) -> None:
    module = importlib.import_module("speko_anyio." + home.removesuffix(".py").replace("/", "."))
    assert isinstance(vars(module)[name], type)


def test_the_files_that_the_page_names_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## All files")[0]
    named = set(re.findall(r"`([\w/]+/[\w/]*(?:\.py)?|\w+\.py)`", page))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / "src" / "speko_anyio" / name).exists()] == []
