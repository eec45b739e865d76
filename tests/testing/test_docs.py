"""docs/testing.md keeps to the code: its programs are test files that pass, its tables name what there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from speko_anyio import testing
from speko_anyio.testing import FakePeer, steps
from tests.testing.test_plugin import run_pytest

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def names_of_tests_in(program: str) -> list[str]:
    names = [node.name for node in ast.parse(program).body if isinstance(node, ast.AsyncFunctionDef)]
    return [name for name in names if name.startswith("test_")]


def test_every_program_is_a_file_of_tests_that_pass(tmp_path: Path) -> None:
    assert PROGRAMS
    for number, program in enumerate(PROGRAMS):
        assert names_of_tests_in(program)
        (tmp_path / f"test_{number}.py").write_text(program, encoding="utf-8")
    done = run_pytest(tmp_path, "-v", "-o", "console_output_style=classic")
    assert done.returncode == 0, done.stdout + done.stderr
    for program in PROGRAMS:
        for name in names_of_tests_in(program):
            assert f"::{name}[" in done.stdout


STEPS = [name for name, value in vars(steps).items() if inspect.getmodule(value) is steps]


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_told_and_is_a_method_of_the_peer(name: str) -> None:
    assert re.search(rf"^\|.*`{name}\(", PAGE, re.MULTILINE)
    assert name in ("wait", "on_commit") or callable(getattr(FakePeer, name))


@pytest.mark.parametrize("name", re.findall(r"from speko_anyio\.testing import (.*)", PAGE))
def test_what_is_imported_is_public(name: str) -> None:
    assert set(name.split(", ")) - {"steps"} <= set(testing.__all__)


def test_every_public_name_is_there() -> None:
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    assert sorted(testing.__all__) == sorted(set(testing.__all__))
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        testing.nope  # type: ignore[attr-defined]  # noqa: B018
