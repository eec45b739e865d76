"""The programs of the page about providers, against doubles of them."""

from __future__ import annotations

import anyio
import pytest

from speko_anyio.testing.providers import CallTools, GoogleDouble, OpenAIDouble, Say, XAIDouble, tone

from .programs import programs

KEY = "sk-docs-0123456789"

DIRECT, EXTRA, EVENTS, GATEWAY = programs("providers.md")


@pytest.mark.anyio
async def test_straight_to_the_provider(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = CallTools([("get_weather", {"city": "Oslo"})])
    played: list[bytes] = []
    double = OpenAIDouble([calls], then=Say("It is sunny in Oslo."), api_key=KEY)
    with anyio.fail_after(30):
        async with double.serve() as url:
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            await DIRECT.run(monkeypatch, question=tone(0.4, 24_000), play=played.append)
    assert capsys.readouterr().out == "It is sunny in Oslo.\n"
    assert sum(map(len, played)) > 0
    assert list(double.session.results.values()) == ["sunny in Oslo"]


@pytest.mark.anyio
async def test_fields_that_no_option_covers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    double = XAIDouble(api_key=KEY)
    with anyio.fail_after(30):
        async with double.serve() as url:
            monkeypatch.setenv("XAI_API_KEY", KEY)
            monkeypatch.setenv("XAI_BASE_URL", url)
            await EXTRA.run(monkeypatch)
    assert capsys.readouterr().out == "Good morning!\n"
    assert double.session.config["audio"]["output"]["a_new_field"] == 1
    assert double.session.request.header("x-team") == "voice"
    assert double.session.request.query("trace") == "on"


@pytest.mark.anyio
async def test_events_of_the_provider(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    double = OpenAIDouble(api_key=KEY)
    with anyio.fail_after(30):
        async with double.serve() as url:
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            await EVENTS.run(monkeypatch)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["session.created", "session.updated"]
    assert "Ready" in printed
    assert {"type": "input_audio_buffer.clear"} in double.session.received


@pytest.mark.anyio
async def test_through_a_gateway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    double = GoogleDouble([Say("It is sunny.")], api_key=KEY)
    with anyio.fail_after(30):
        async with double.serve() as url:
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            monkeypatch.setenv("GEMINI_API_KEY", KEY)
            monkeypatch.setenv("GEMINI_BASE_URL", url)
            await GATEWAY.run(monkeypatch, question=tone(0.4, 16_000))
    assert capsys.readouterr().out == "It is sunny.\n"
