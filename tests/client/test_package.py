"""What importing costs, and that every public name is there, for programs and for type checkers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import speko_anyio
import speko_anyio.protocol
from speko_anyio._extras import install_extra


def loaded_by(statement: str) -> set[str]:
    """The modules in a fresh interpreter after `statement`."""
    # Without `websockets`: when it is installed the core borrows its masking in C, and with it all it loads.
    code = f"import sys\nsys.modules['websockets'] = None\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"anyio", "trio", "asyncio", "socket", "httpx", "ssl", "uvloop", "starlette"}


@pytest.mark.parametrize("module", ["speko_anyio", "speko_anyio.protocol"])
def test_importing_loads_no_backend_and_no_network(module: str) -> None:
    assert not HEAVY & loaded_by(f"import {module}")


def test_names_of_the_core_load_the_core_only() -> None:
    assert not HEAVY & loaded_by("from speko_anyio import Audio, SpekoError, ToolSpec")


THEIRS = "import httpx, anyio; from anyio import *"
"""httpx before 0.28 loads trio, where that is installed."""


def test_the_client_loads_no_backend_of_its_own() -> None:
    ours = loaded_by("from speko_anyio import Speko, tool, open_session") - loaded_by(THEIRS)
    assert not {"trio", "uvloop", "starlette", "speko_anyio.gateway"} & ours


def test_a_session_that_was_minted_elsewhere_loads_no_http_client() -> None:
    assert not {"httpx", "urllib.request"} & loaded_by("from speko_anyio import open_session")


def test_the_client_loads_no_extra_and_nothing_that_it_may_not_need() -> None:
    """Beside httpx and anyio, importing it costs what the core needs: msgspec and wsproto."""
    ours = loaded_by(
        f"{THEIRS}; from speko_anyio import *; import speko_anyio.client._open_core"
    ) - loaded_by(THEIRS)
    packages = {name.partition(".")[0] for name in ours} - sys.stdlib_module_names
    core = {"speko_anyio", "msgspec", "wsproto", "h11", "typing_extensions"}
    assert packages <= {*core, "anyio", "sniffio"}
    assert (
        not {"speko_anyio.otel", "speko_anyio._observe.observed_core", "speko_anyio._observe.log_observer"}
        & ours
    )
    assert "speko_anyio.client._session" in ours
    assert not {"speko_anyio._net.asyncio_driver", "speko_anyio._net.trio_driver"} & ours


def test_one_module_of_the_client_is_of_each_event_loop() -> None:
    """Everything else speaks anyio; and none reaches into an event loop's own secrets to unwrap a group."""
    found: dict[str, set[str]] = {}
    package = Path(speko_anyio.__file__).parent
    for path in [*package.joinpath("client").glob("*.py"), *package.joinpath("_net").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                if name.partition(".")[0] in {"asyncio", "trio", "uvloop"} or name.startswith("anyio._"):
                    found.setdefault(path.name, set()).add(name)
    assert found == {"asyncio_driver.py": {"asyncio"}, "trio_driver.py": {"trio", "trio.lowlevel"}}


def test_telemetry_without_its_extra_names_it() -> None:
    code = "import sys\nsys.modules['opentelemetry'] = None\nimport speko_anyio.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ImportError: speko_anyio.otel needs OpenTelemetry; {install_extra('otel')}" in done.stderr


def test_a_missing_extra_is_told_as_it_can_be_had() -> None:
    assert install_extra("otel") == (
        "install speko-anyio with the extra `otel` (in a checkout: pip install '.[otel]')"
    )
    assert install_extra("cli", "gateway").startswith("install speko-anyio with the extras `cli,gateway` ")
    # The package is not on PyPI: nothing may tell users to install it from there.
    for path in Path(speko_anyio.__file__).parent.rglob("*.py"):
        assert not re.search(r"speko-anyio\[|pip install speko", path.read_text(encoding="utf-8")), path


def test_every_frame_is_public_and_what_embeds_the_core_is_in_its_package() -> None:
    frames = {kind.__name__ for kind in get_args(speko_anyio.protocol.Frame)}
    assert frames <= set(speko_anyio.__all__)
    for name in set(speko_anyio.__all__) & set(speko_anyio.protocol.__all__):
        assert getattr(speko_anyio, name) is getattr(speko_anyio.protocol, name)
    for name in ("ClientConnection", "ServerConnection", "Limits", "NEED_DATA", "parse_url", "Commit"):
        assert name in speko_anyio.protocol.__all__
        assert name not in dir(speko_anyio)
    # What an application needs. More is a page that nobody reads to the end.
    assert len(speko_anyio.__all__) <= 63
    assert sorted(speko_anyio.__all__) == sorted(set(speko_anyio.__all__))
    for name in speko_anyio.__all__:
        assert getattr(speko_anyio, name) is not None
    assert set(speko_anyio.__all__) <= set(dir(speko_anyio))


def test_type_checkers_see_what_is_exported() -> None:
    path = speko_anyio.__file__
    assert path is not None
    imported = {
        alias.name
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(speko_anyio.__all__) <= imported


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        speko_anyio.nope  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("package", "name", "home"),
    [
        ("speko_anyio", "ClientConnection", "speko_anyio.protocol"),
        ("speko_anyio", "Commit", "speko_anyio.protocol"),
        ("speko_anyio", "Microphone", "speko_anyio.audio"),
        ("speko_anyio", "write_wav", "speko_anyio.audio.wav"),
        ("speko_anyio", "Gateway", "speko_anyio.gateway"),
        ("speko_anyio", "OpenTelemetry", "speko_anyio.otel"),
        ("speko_anyio", "OpenAIDialect", "speko_anyio.providers.openai"),
        ("speko_anyio.gateway", "Speko", "speko_anyio"),
        ("speko_anyio.testing", "OpenAIDouble", "speko_anyio.testing.providers"),
        ("speko_anyio.audio", "read_wav", "speko_anyio.audio.wav"),
        ("speko_anyio.recording", "fake_session", "speko_anyio.testing"),
    ],
)
def test_a_name_of_another_package_is_told_with_its_home(package: str, name: str, home: str) -> None:
    with pytest.raises(ImportError) as caught:
        exec(f"from {package} import {name}")
    assert str(caught.value) == f"{package} has no {name}; write `from {home} import {name}`"
    exec(f"from {home} import {name}")


def test_a_name_in_an_extra_that_is_missing_is_an_ordinary_import_error() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None\nfrom speko_anyio import OpenTelemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: cannot import name 'OpenTelemetry' from 'speko_anyio'" in done.stderr


def test_a_submodule_is_no_name_of_another_package() -> None:
    assert "speko_anyio.gateway" not in loaded_by("from speko_anyio import protocol, recording")
    assert not HEAVY & loaded_by("from speko_anyio import protocol")


def test_private_names_are_not_searched_for() -> None:
    assert "speko_anyio.gateway" not in loaded_by("import speko_anyio; hasattr(speko_anyio, '__wrapped__')")
