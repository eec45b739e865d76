"""``docs/threat-model.md``: each of its lines names tests, and they pass here, by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "threat-model.md"


def named_tests(page: str) -> dict[str, list[tuple[str, str]]]:
    """Return the modules and tests that each row of the page's table names, by the row's threat."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if re.match(r"\| (?!Threat|---)", line)
    ]
    return {cells[0]: re.findall(r"`([\w/]+)::(\w+)`", cells[-1]) for cells in rows if len(cells) == 3}


ROWS = named_tests(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], set[str]]:
    """Run every test that the page names, and say how the cases of each went."""
    report = tmp_path_factory.mktemp("threats") / "report.xml"
    named = sorted({test for tests in ROWS.values() for test in tests})
    files = sorted({f"tests/{module}.py" for module, _ in named})
    # Not as node ids, in which a test's class would have to be named.
    chosen = ["-k", " or ".join(name for _, name in named), *files]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *chosen,
    ]
    # The parent's own settings of pytest and coverage are not this run's.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))
    }
    done = subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[tuple[str, str], set[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        # A class of tests follows the module's name.
        module = re.sub(r"^tests\.|\.[A-Z].*$", "", case.get("classname", "")).replace(".", "/")
        name = case.get("name", "").partition("[")[0]
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found.setdefault((module, name), set()).update(bad or ["passed"])
    return found


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("threat", ROWS)
def test_the_defence_holds(threat: str, outcomes: dict[tuple[str, str], set[str]]) -> None:
    assert ROWS[threat], "this row names no test"
    results = {test: outcomes.get(test) for test in ROWS[threat]}
    # What needs a program that is not installed here may be skipped; each test passes at least one case.
    assert all(result is not None and "passed" in result for result in results.values()), results
    assert all(result is not None and result <= {"passed", "skipped"} for result in results.values()), results


def test_a_name_that_no_test_has_is_noticed(outcomes: dict[tuple[str, str], set[str]]) -> None:
    row = named_tests("| A threat | a defence | `gateway/test_mint::test_a_key_is_kneaded` |")
    assert row == {"A threat": [("gateway/test_mint", "test_a_key_is_kneaded")]}
    assert ("gateway/test_mint", "test_a_key_is_kneaded") not in outcomes
    assert outcomes["gateway/test_mint", "test_a_key_is_needed"] == {"passed"}
