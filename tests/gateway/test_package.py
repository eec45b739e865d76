"""What importing the package costs, and what it says when its extra is missing."""

from __future__ import annotations

import importlib

import pytest

from speko_anyio import _lazy, gateway
from speko_anyio._extras import install_extra
from speko_anyio.gateway import _session_handlers as session_handlers
from speko_anyio.gateway import default_handlers, echo
from tests.support.processes import run_python


@pytest.mark.parametrize("name", gateway.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(gateway, name) is not None


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        gateway.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_a_session_needs_nothing_of_the_extra() -> None:
    code = (
        "import sys; from speko_anyio.gateway import ServerSession, echo, default_handlers; "
        "print(sorted({'starlette', 'uvicorn', 'jwt', 'sqlalchemy', 'asyncio', 'trio'} & set(sys.modules)))"
    )
    assert run_python("-c", code).strip() == "[]"


def test_a_gateway_without_a_database_needs_no_sqlalchemy() -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = sys.modules['alembic'] = None\n"
        "from speko_anyio.gateway import Gateway, MemoryStore, echo\n"
        "print(Gateway(handlers={'echo': echo}, store=MemoryStore()).live_sessions)"
    )
    assert run_python("-c", code).strip() == "0"


def test_a_gateway_does_not_import_the_http_client() -> None:
    code = (
        "import sys; from speko_anyio.gateway import Gateway, ProviderHandler, SQLStore, default_handlers; "
        "print('httpx' in sys.modules)"
    )
    assert run_python("-c", code).strip() == "False"


@pytest.mark.parametrize("missing", ["alembic", "jwt", "sqlalchemy", "starlette", "uvicorn"])
def test_a_missing_extra_is_named(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "try:\n    from speko_anyio.gateway import Gateway, SQLStore, serve\n"
        "except ImportError as error:\n    print(error)"
    )
    assert run_python("-c", code).strip() == (
        f"the gateway needs {missing}, which is not installed; {install_extra('gateway')}"
    )


def test_speaking_a_question_needs_nothing_of_the_gateway() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from speko_anyio.gateway.local import speak_to_pcm\n"
        "print(len(speak_to_pcm('Hello', 8000)) > 1000)"
    )
    assert run_python("-c", code).strip() == "True"


def test_the_offline_voice_without_the_gateway_names_its_extra() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "try:\n    from speko_anyio.gateway.local import LocalVoice\n"
        "except ImportError as error:\n    print(error)"
    )
    assert run_python("-c", code).strip() == (
        f"the gateway needs starlette, which is not installed; {install_extra('gateway')}"
    )


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(_lazy, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="other"):
        vars(gateway)["__getattr__"]("Gateway")


def test_the_default_handlers_are_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_handlers, "find_spec", lambda name: None)
    assert default_handlers() == {"echo": echo}


@pytest.mark.speech
def test_the_offline_voice_is_a_default_handler() -> None:
    importlib.import_module("pocketsphinx")
    assert set(default_handlers()) == {"echo", "local"}
