"""The Pythons that the project names, wherever it names them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_image_classifiers_and_changelog_name_the_same_pythons() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    prefix = "Programming Language :: Python :: "
    named = [text.removeprefix(prefix) for text in project["classifiers"] if text.startswith(f"{prefix}3.")]
    oldest = project["requires-python"].removeprefix(">=")
    assert named[0] == oldest
    # Without a gap, so that no version in between is missing.
    first, last = (int(version.partition(".")[2]) for version in (named[0], named[-1]))
    assert named == [f"3.{minor}" for minor in range(first, last + 1)]
    image = re.findall(r"^FROM python:(3\.\d+)", read("deploy/Dockerfile"), re.MULTILINE)
    assert image
    assert set(image) <= set(named)
    changelog = re.search(r"^- For CPython (.*)\. Tested", read("CHANGELOG.md"), re.MULTILINE)
    assert changelog is not None
    assert re.findall(r"3\.\d+", changelog[1]) == named
