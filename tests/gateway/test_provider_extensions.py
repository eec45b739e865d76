"""Texts, requests to speak and changes, through the gateway to each provider's double."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from speko_anyio import OpenAI
from speko_anyio.gateway import ProviderHandler
from speko_anyio.protocol import Capabilities, ErrorFrame, ImageIn, Interruption, ResponseEnd, Update, Usage
from speko_anyio.protocol.frames import Audio
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.providers.xai import XAIOptions
from speko_anyio.testing.providers import Die, GoAway, ProviderDouble, Say, Wait
from tests.support.accounts import KINDS, MODELS

from .support import KEY as GATEWAY_KEY
from .support import make_gateway
from .test_provider_handler import (
    KEY,
    anyio_backend,
    double_of,
    is_a,
    name,
    said,
    served,
)

__all__ = ["anyio_backend", "name"]

pytestmark = pytest.mark.anyio


def told(double: ProviderDouble[Any]) -> str:
    """All that the provider was told, on its latest connection."""
    return json.dumps(double.session.received)


async def test_a_session_offers_what_its_model_can_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    able = KINDS[name](KEY).capabilities(MODELS[name])
    async with served(name, double_of(name), monkeypatch, offered=True) as (client, _):
        await client.begin()
        known = client.core.capabilities
    assert known.input_rates == known.output_rates == (16_000, 24_000)
    for field in ("text", "image", "respond", "say", "update", "text_output", "history"):
        assert getattr(known, field) == getattr(able, field), field


async def test_a_text_is_answered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("Sunny.", 0.2))
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        # Long before the provider is ready.
        client.say(lambda: client.core.send_text("You know the weather.", role="system"))
        client.say(lambda: client.core.send_text("What is the weather?"))
        frames = await client.hear(said("assistant", "Sunny."), is_a(ResponseEnd))
    words = told(double)
    assert words.index("You know the weather.") < words.index("What is the weather?")
    assert any(isinstance(frame, Audio) for frame in frames)
    assert client.meter.time_to_first_audio is not None


async def test_it_speaks_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("Good morning.", 0.2))
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        client.say(client.core.respond, "Greet the caller.")
        await client.hear(said("assistant", "Good morning."), is_a(ResponseEnd))
    assert "Greet the caller." in told(double)


async def test_it_says_what_it_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("Good morning.", 0.2))
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        client.say(client.core.say, "Good morning.")
        await client.hear(said("assistant", "Good morning."), is_a(ResponseEnd))
    assert "Good morning." in told(double)


async def test_a_text_interrupts_the_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("A long story.", 8.0), Say("Yes?", 0.2))
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        client.ask()
        await client.hear(is_a(Audio))
        client.say(client.core.send_text, "Stop.")
        await client.hear(is_a(Interruption), said("assistant", "Yes?"))


async def test_a_picture_is_shown_or_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("A cat.", 0.2))
    able = KINDS[name](KEY).capabilities(MODELS[name])
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        if not able.image:
            # A client that shows it all the same.
            client.transport.say(json.dumps({"t": "image", "mimeType": "image/png", "data": "cG5n"}))
            client.ask()
        else:
            image = ImageIn("image/png", b"png")
            client.say(lambda: client.core.send_image(image.data, mime_type=image.mime_type))
            client.say(client.core.send_text, "What is that?")
        await client.hear(said("assistant", "A cat."))
    assert ("cG5n" in told(double)) is able.image


async def test_instructions_and_tools_change(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("One.", 0.2), Say("Two.", 0.2))
    able = KINDS[name](KEY).capabilities(MODELS[name]).update
    assert "system_prompt" in able
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        client.ask()
        await client.hear(said("assistant", "One."), is_a(ResponseEnd))
        tools = (ToolSpec(name="look_up", parameters={"type": "object", "properties": {}}),)
        client.say(client.core.update, Update(system_prompt="Be brief.", tools=tools))
        client.say(client.core.send_text, "Go on.")
        await client.hear(said("assistant", "Two."))
    words = told(double)
    assert "Be brief." in words
    refused = [frame for frame in client.heard if isinstance(frame, ErrorFrame)]
    if "tools" in able:
        assert "look_up" in words
        assert refused == []
    else:
        [error] = refused
        assert error.code == "UPDATE_REFUSED"
        assert "tools" in error.message


async def test_what_can_t_change_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("One.", 0.2))
    able = KINDS[name](KEY).capabilities(MODELS[name]).update
    whole = Update(system_prompt="Be brief.", voice="nobody-else", turns="manual", tools=())
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        await anyio.sleep(1)
        client.say(client.core.update, whole)
        await anyio.sleep(1)
        client.say(client.core.send_text, "Hi.")
        await client.hear(said("assistant", "One."))
    assert "Be brief." in told(double)
    errors = [frame for frame in client.heard if isinstance(frame, ErrorFrame)]
    if set(whole.fields) <= set(able):
        assert errors == []
    else:
        assert [error.code for error in errors] == ["UPDATE_REFUSED"]
        for field, wire in (("system_prompt", "systemPrompt"), ("voice", "voice"), ("turns", "turns")):
            assert (wire in errors[0].message) is (field not in able)


@pytest.mark.parametrize(("kind", "ending"), [("xai", Die()), ("google", Die()), ("google", GoAway(20.0))])
async def test_a_change_holds_on_the_next_connection(
    kind: str, ending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(kind, [Say("One.", 0.2), Wait(1.0), ending], Say("Two.", 0.2))
    options = XAIOptions(resumption=True) if kind == "xai" else None
    async with served(kind, double, monkeypatch, offered=True, options=options) as (client, network):
        await client.begin()
        client.say(client.core.update, Update(system_prompt="Be brief."))
        client.ask()
        await client.hear(said("assistant", "One."))
        await anyio.sleep(40)
        assert network.dialled == 2
        client.say(client.core.send_text, "Go on.")
        await client.hear(said("assistant", "Two."))
    assert "Be brief." in told(double)


async def test_usage_is_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("One.", 0.2))
    async with served(name, double, monkeypatch, offered=True) as (client, _):
        await client.begin()
        client.say(client.core.send_text, "Hi.")
        frames = await client.hear(is_a(Usage))
    [usage] = [frame for frame in frames if isinstance(frame, Usage)]
    assert usage.input_text_tokens + usage.output_text_tokens > 0
    assert client.meter.usage == usage


async def test_a_session_in_text_is_minted_where_the_model_writes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = KINDS[name](KEY).capabilities(MODELS[name])
    gateway = make_gateway({name: ProviderHandler(KINDS[name](KEY))})
    transport = httpx.ASGITransport(app=gateway.app)
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http,
    ):
        body = {"mode": "s2s", "s2s": {"provider": name, "model": MODELS[name], "output": "text"}}
        answer = await http.post(
            "/v1/sessions", json=body, headers={"Authorization": f"Bearer {GATEWAY_KEY}"}
        )
    assert answer.status_code == (201 if able.text_output else 400)
    if not able.text_output:
        assert f"{name} can't answer in text only" in answer.json()["error"]


async def test_openai_answers_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("openai", Say("One.", 0.2))
    async with served("openai", double, monkeypatch, offered=True, config={"output": "text"}) as (client, _):
        await client.begin()
        client.say(client.core.send_text, "Hi.")
        frames = await client.hear(said("assistant", "One."), is_a(ResponseEnd))
    assert not any(isinstance(frame, Audio) for frame in frames)


async def test_turns_that_the_operator_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("openai", Say("One.", 0.2))
    options = OpenAIOptions(turns="manual")
    async with served("openai", double, monkeypatch, offered=True, options=options) as (client, _):
        await client.begin()
        assert "turns" not in client.core.capabilities.update
        client.transport.say(json.dumps({"t": "update", "turns": "auto", "systemPrompt": "Be brief."}))
        client.say(client.core.send_text, "Hi.")
        frames = await client.hear(said("assistant", "One."))
    [error] = [frame for frame in frames if isinstance(frame, ErrorFrame)]
    assert error.code == "UPDATE_REFUSED"
    assert "turns" in error.message
    assert "Be brief." in told(double)
    assert "server_vad" not in told(double)


def test_a_model_without_sessions_can_do_nothing() -> None:
    handler = ProviderHandler(OpenAI(KEY))
    assert handler.capabilities(SessionConfig(provider="openai", model="gpt-live-1")) == Capabilities()


def test_the_models_of_a_gateway_have_the_capabilities_of_what_they_stand_for() -> None:
    handler = ProviderHandler(OpenAI(KEY), models={"voice": "gpt-realtime-2.1"})
    able = handler.capabilities(SessionConfig(provider="openai", model="voice"))
    assert able.text == OpenAI(KEY).capabilities("gpt-realtime-2.1").text
