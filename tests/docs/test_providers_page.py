"""The programs of the page about providers, against doubles of them."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import httpx
import pytest

from speko_anyio.testing.providers import CallTools, GoogleDouble, OpenAIDouble, Say, XAIDouble, tone

from .programs import programs

KEY = "sk-docs-0123456789"

DIRECT, CALLS, EXTRA, EVENTS, GATEWAY = programs("providers.md")


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
async def test_phone_calls_over_sip(monkeypatch: pytest.MonkeyPatch) -> None:
    double = OpenAIDouble(api_key=KEY)
    ringing = double.ring()
    with anyio.fail_after(30):
        async with double.serve() as url:
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", double.webhook_secret)
            transport = httpx.ASGITransport(CALLS.load()["app"])
            async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
                body, headers = ringing.webhook(time.time())
                forged = await client.post("/openai", content=body + b" ", headers=headers)
                assert (forged.status_code, ringing.state) == (401, "ringing")

                async def press() -> None:
                    while not double.sessions or not double.session.requests:
                        await anyio.lowlevel.checkpoint()
                    ringing.press("1")
                    ringing.press("0")

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(press)
                    answered = await client.post("/openai", content=body, headers=headers)
                    assert answered.status_code == 200
    assert (ringing.state, ringing.target_uri) == ("referred", "tel:+15550100")
    assert ringing.config["instructions"] == "Be brief."
    assert "Hello! Press 0 for a person." in str(double.session.requests)


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
