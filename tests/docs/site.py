"""The documentation as a site, built once for all tests of a session."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.processes import run

from .programs import DOCS

ROOT = DOCS.parent


@pytest.fixture(scope="session")
def built_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="needs the dependency group docs")
    pytest.importorskip("mkdocstrings", reason="needs the dependency group docs")
    project = tmp_path_factory.mktemp("project")  # Zensical writes only below the project's folder
    shutil.copy(ROOT / "mkdocs.yml", project)
    for folder in ("docs", "src"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    built = run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=project)
    assert built.returncode == 0, built.stdout + built.stderr
    return project / "site"
