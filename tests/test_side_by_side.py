"""All tests run, in parts: what is said of them, and what becomes of a part that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.side_by_side import PARTS, Part, run

ROOT = Path(__file__).parents[1]


def test_parts_that_run_side_by_side_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "test_well.py").write_text("def test_well(): pass\n")
    (tmp_path / "test_ill.py").write_text("def test_ill():\n    assert False, 'this one'\n")
    parts = [
        Part(name, ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path / f"test_{name}.py")])
        for name in ("well", "ill")
    ]
    said: list[str] = []
    assert run(parts, at_once=2, say=said.append) == ["ill"]
    for name in ("well", "ill"):
        assert any(line.startswith(f"{name:<9}| ") and f"test_{name}.py" in line for line in said)
        (end,) = [text for text in said if text.startswith(f"\n{name}\n")]
        assert ("this one" in end) is (name == "ill")


def test_a_part_that_covers_too_little_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where coverage keeps its data
    (tmp_path / "test_little.py").write_text("import speko_anyio.protocol\ndef test_little(): pass\n")
    said: list[str] = []
    assert run([Part("protocol", ["test_little.py"], covered=100)], at_once=1, say=said.append) == [
        "protocol"
    ]
    assert "less than fail-under=100" in "".join(said)


def test_every_test_runs_once() -> None:
    named = [path for part in PARTS for path in part.arguments if not path.startswith("--")]
    assert len(set(named)) == len(named)
    assert all((ROOT / path).exists() for path in named)
    for part in PARTS:
        left_out = {path.removeprefix("--ignore=") for path in part.arguments if path.startswith("--")}
        inside = {
            path
            for path in named
            if path not in part.arguments and any(path.startswith(f"{own}/") for own in part.arguments)
        }
        # What lies in a part and is a part of its own; and nothing is left out that does not run elsewhere.
        assert inside <= left_out <= set(named)
