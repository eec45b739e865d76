"""`say` with an account of one's own: through a gateway in the process, and straight to the provider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from speko_anyio.audio.wav import format_wav, read_wav
from speko_anyio.cli import main
from speko_anyio.cli._failures import NO_ANSWER, REFUSED, UNREACHABLE, USAGE
from speko_anyio.testing.providers import (
    Die,
    OpenAIDouble,
    Pace,
    ProviderDouble,
    Say,
    XAIDouble,
    tone,
)
from tests.support.accounts import DOUBLES

KEY = "sk-operators-own-key"
VARIABLES = {"openai": "OPENAI", "xai": "XAI", "google": "GEMINI"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPEKO_API_KEY", "SPEKO_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for prefix in VARIABLES.values():
        monkeypatch.delenv(f"{prefix}_API_KEY", raising=False)
        monkeypatch.delenv(f"{prefix}_BASE_URL", raising=False)


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    path.write_bytes(format_wav(tone(0.3, 16_000), 16_000))
    return path


@contextmanager
def serving(double: ProviderDouble[Any]) -> Iterator[str]:
    """The double on an event loop of its own."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(double.serve()) as url:
        yield url


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("direct", [False, True], ids=["gateway", "direct"])
@pytest.mark.parametrize("name", DOUBLES)
def test_say(
    name: str,
    direct: bool,
    rate: int,
    backend: str,
    question: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double = DOUBLES[name](
        [Say("It is sunny.", 0.3)],
        user_says=["What is the weather?"],
        api_key=KEY,
        pace=Pace(latency=0.05, transcription=0.0),
    )
    reply = tmp_path / "reply.wav"
    monkeypatch.setenv(f"{VARIABLES[name]}_API_KEY", KEY)
    with serving(double) as url:
        arguments = ["say", str(question), "-o", str(reply), "--provider", name, "--rate", str(rate)]
        how = ["--provider-url", url, *(["--direct"] if direct else [])]
        assert main([*arguments, *how, "--backend", backend]) == 0
    out = capsys.readouterr().out
    assert "you       What is the weather?" in out
    assert "assistant It is sunny." in out
    assert KEY not in out
    wav = read_wav(reply)
    assert wav.sample_rate == rate
    assert wav.seconds == pytest.approx(0.3, abs=0.03)
    assert len(double.sessions) == 1


def test_a_base_url_from_the_environment(
    question: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = OpenAIDouble([Say("Yes.", 0.2)], api_key=KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(double) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/any/v9")
        arguments = ["say", str(question), "-o", str(tmp_path / "r.wav"), "--provider", "openai"]
        assert main([*arguments, "--model", "another"]) == 0
    assert double.session.request.target == "/any/v9/realtime?model=another"


@pytest.mark.parametrize("direct", [False, True], ids=["gateway", "direct"])
def test_a_provider_that_dies(
    direct: bool,
    question: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double = XAIDouble([Die()], api_key=KEY)
    monkeypatch.setenv("XAI_API_KEY", KEY)
    with serving(double) as url:
        arguments = ["say", str(question), "-o", str(tmp_path / "r.wav"), "--provider", "xai"]
        how = ["--provider-url", url, *(["--direct"] if direct else [])]
        assert main([*arguments, *how]) == NO_ANSWER
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the service ended the session with code" in err
    if not direct:
        assert "PROVIDER_UNAVAILABLE: the connection to the provider was lost" in err


def test_a_wrong_key(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    double = OpenAIDouble(api_key="another")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(double) as url:
        arguments = ["say", str(question), "-o", str(tmp_path / "r.wav"), "--provider", "openai"]
        assert main([*arguments, "--direct", "--provider-url", url]) == REFUSED
        err = capsys.readouterr().err
        assert "check the API key" in err
        assert KEY not in err
        assert main([*arguments, "--provider-url", url]) == NO_ANSWER
        err = capsys.readouterr().err
        assert "PROVIDER_UNAUTHORIZED" in err
        assert KEY not in err


def test_a_service_that_has_a_key_goes_first(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    double = OpenAIDouble(api_key=KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("SPEKO_API_KEY", "sk_speko")
    monkeypatch.setenv("SPEKO_BASE_URL", "http://127.0.0.1:9")
    with serving(double) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        arguments = ["say", str(question), "-o", str(tmp_path / "r.wav"), "--provider", "openai"]
        assert main(arguments) != 0
        assert "127.0.0.1:9" in capsys.readouterr().err
        assert double.sessions == []
        assert main([*arguments, "--direct"]) == 0
        assert len(double.sessions) == 1


def test_a_provider_url_that_is_none(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_API_KEY", KEY)
    arguments = ["say", str(question), "-o", str(tmp_path / "r.wav"), "--provider", "xai"]
    assert main([*arguments, "--provider-url", "127.0.0.1:9"]) == USAGE
    assert "base URL must be" in capsys.readouterr().err


@pytest.mark.parametrize("how", [["--direct"], ["--provider-url", "ws://127.0.0.1:9"]])
def test_what_has_no_api_of_its_own(
    how: list[str], question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", str(question), "-o", str(tmp_path / "r.wav"), *how]) == USAGE
    assert "openai, xai, google" in capsys.readouterr().err


@pytest.mark.parametrize("how", [[], ["--direct"]])
def test_no_key(how: list[str], question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["say", str(question), "-o", str(tmp_path / "r.wav"), "--provider", "google", *how]
    assert main(arguments) == USAGE
    assert "GEMINI_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["say", "talk"])
def test_a_provider_that_there_is_not(
    command: str,
    question: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["say", str(question)] if command == "say" else ["talk", "--wav", str(question)]
    arguments += ["-o", str(tmp_path / "r.wav"), "--provider", "nope"]
    assert main(arguments) == USAGE
    err = capsys.readouterr().err
    assert "there is no provider nope here, only local, echo, openai, xai, google; a service may have" in err
    assert err.count("\n") == 1
    # A service may know it: that is asked, if it can be.
    assert main([*arguments, "--base-url", "http://127.0.0.1:9"]) == USAGE
    assert "SPEKO_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("SPEKO_API_KEY", "sk_speko")
    assert main([*arguments, "--base-url", "http://127.0.0.1:9"]) == UNREACHABLE
    monkeypatch.setenv("SPEKO_BASE_URL", "http://127.0.0.1:9")
    assert main(arguments) == UNREACHABLE
