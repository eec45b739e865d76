"""The pytest plugin, as a project of its own has it: in another process, with no other configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import speko_anyio.testing
from speko_anyio.protocol import AudioIn
from speko_anyio.recording import Moment, Recording
from tests.client.test_package import HEAVY, loaded_by
from tests.support.patience import PATIENCE

PLUGIN = "speko_anyio.testing.plugin"
PACKAGES = Path(speko_anyio.testing.__file__ or "").parents[2]


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in `folder` with the plugins of anyio and of ours, and no others."""
    # The package that is tested here, wherever it is; and modules of the folder go before all others.
    path = os.pathsep.join([str(folder), str(PACKAGES)])
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", "-p", "anyio.pytest_plugin", "-p", PLUGIN, "-W", "error"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_pytest_finds_it_by_the_entry_point() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"speko_anyio": PLUGIN}


def test_it_costs_projects_that_do_not_use_it_nothing() -> None:
    alone = loaded_by("import pytest")
    assert not (HEAVY | {"msgspec", "speko_anyio.protocol"}) & (loaded_by(f"import {PLUGIN}") - alone)


TESTS = """
import anyio, pytest
from speko_anyio import Speko
from speko_anyio.protocol import Commit
from speko_anyio.testing import steps

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend(speko_virtual_time):
    return speko_virtual_time

async def application():
    async with Speko() as speko, speko.realtime.connect(provider="p", model="m") as session:
        await session.commit()
        try:
            async for frame in session:
                pass
        except Exception:
            pass

async def test_its_own_speko_is_fake(speko_gateway):
    speko_gateway.script = [steps.expect(Commit), steps.wait(3600)]
    with anyio.fail_after(7200):
        await application()
    assert speko_gateway.session.said() == [Commit()]

async def test_a_failure_that_is_swallowed(speko_gateway):
    def fails(peer):
        raise ValueError("of the script")
    speko_gateway.script = [steps.expect(Commit), fails]
    try:
        await application()
    except ValueError:
        pass

async def test_a_recording(speko_recording):
    assert speko_recording("weather").audio("client") == bytes(20)
    with pytest.raises(FileNotFoundError):
        speko_recording("nowhere")
"""


def test_its_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(TESTS)
    Recording(moments=[Moment(0.0, "client", AudioIn(bytes(20), 24_000))]).save(
        tmp_path / "recordings" / "weather"
    )
    done = run_pytest(tmp_path, "-q")
    # A test that passes and fails in its teardown is both.
    assert "6 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("ValueError: of the script") >= 2
    assert "ERROR test_them.py::test_a_failure_that_is_swallowed[asyncio]" in done.stdout


def test_without_trio_virtual_time_is_asyncio_s(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(speko_virtual_time): assert speko_virtual_time[0]\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'trio' else find(name, *rest)\n"
    )
    done = run_pytest(tmp_path, "-v")
    assert "test_it[asyncio] PASSED" in done.stdout, done.stdout + done.stderr
    assert "trio" not in done.stdout.partition("collected")[2]


VIRTUAL = """
import anyio, pytest

@pytest.fixture
def anyio_backend(speko_virtual_time):
    return speko_virtual_time

async def test_by_the_mode():
    await anyio.sleep(3600)

@pytest.mark.anyio
async def test_by_the_mark():
    await anyio.sleep(3600)

async def test_by_the_name(speko_virtual_time):
    await anyio.sleep(3600)
"""

BY_FUNCTION = """
import anyio, pytest
from speko_anyio.testing import VIRTUAL_BACKENDS, virtual_backend

@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request):
    return virtual_backend(request.param)

async def test_by_the_function():
    await anyio.sleep(3600)
"""

OTHERS = """
import anyio

async def test_without():
    await anyio.sleep(0)

def test_by_hand(speko_virtual_time):
    backend, options = speko_virtual_time
    anyio.run(anyio.sleep, 3600, backend=backend, backend_options=options)
"""

OTHER_RUNNERS = {
    "pytest-asyncio": ("pytest_asyncio.plugin", "asyncio_mode=auto", "asyncio_mode = strict"),
    "pytest-trio": ("pytest_trio.plugin", "trio_mode=true", "trio_mode = false"),
}


@pytest.mark.parametrize("name", OTHER_RUNNERS)
def test_virtual_time_is_refused_to_tests_that_others_run(name: str, tmp_path: Path) -> None:
    module, mode, advice = OTHER_RUNNERS[name]
    pytest.importorskip(module, reason=f"needs {name}")
    (tmp_path / "test_virtual.py").write_text(VIRTUAL)
    (tmp_path / "test_function.py").write_text(BY_FUNCTION)
    (tmp_path / "test_others.py").write_text(OTHERS)
    # Each plugin emits its own warning.
    done = run_pytest(tmp_path, "-p", module, "-o", mode, "-W", "default", "--tb=short")
    # Two by the mode, and two for each of asyncio and trio; by hand it works on both.
    assert "3 passed, 6 errors" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count(f"virtual time has no effect on a test that {name} runs; mark it") >= 6
    assert advice in done.stdout


@pytest.mark.parametrize("name", OTHER_RUNNERS)
def test_virtual_time_works_beside_other_runners(name: str, tmp_path: Path) -> None:
    module, *_ = OTHER_RUNNERS[name]
    pytest.importorskip(module, reason=f"needs {name}")
    (tmp_path / "test_virtual.py").write_text(VIRTUAL)
    done = run_pytest(tmp_path, "-p", module, "-W", "default", "-k", "mark")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
