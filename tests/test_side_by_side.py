"""All tests run, in parts: what is said of them, and what becomes of a part that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.side_by_side import PARTS, Part, run
from tests.support.patience import PATIENCE
from tests.support.processes import interruptible

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


def test_an_interrupt_lets_a_part_end_in_order(tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(
        "import os, signal\n"
        "import pytest\n"
        "@pytest.fixture\n"
        "def server():\n"
        "    yield\n"
        f"    open({str(tmp_path / 'stopped')!r}, 'w').close()\n"
        "def test_long(server):\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    signal.pause()\n"
    )
    program = (
        "import sys\n"
        "from tests.side_by_side import Part, run\n"
        f"part = Part('long', ['-p', 'no:cacheprovider', {str(tmp_path / 'test_long.py')!r}])\n"
        "run([part] * 2, at_once=1, say=sys.stdout.write)\n"
    )
    with interruptible():
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            start_new_session=True,  # the test interrupts its group, as a terminal does
        )
    assert done.returncode != 0
    assert done.stdout.count("test session starts") == 1
    assert "KeyboardInterrupt" in done.stdout
    assert (tmp_path / "stopped").exists()


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
