"""Every message of the fixtures: what we send is as published, what they send gives its frames."""

from __future__ import annotations

import json
from typing import Any

import pytest

from speko_anyio.protocol import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Ready,
    ResponseEnd,
    ServerToolCall,
    State,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.providers.realtime._events import IGNORED, KNOWN

from .realtime_talk import (
    MANUAL,
    WEATHER,
    XAI_MANUAL,
    Event,
    Talk,
    check_openai,
    check_openai_server,
    check_xai,
    created,
    fixture,
    openai,
    pcm,
    speech,
    xai,
)

PCM = bytes([0, 0, 1, 0, 2, 0, 3, 0])


@pytest.mark.parametrize("message", fixture("openai-client"), ids=lambda message: message["type"])
def test_openai_client_fixtures_are_what_openai_publishes(message: Event) -> None:
    check_openai(message)


@pytest.mark.parametrize("message", fixture("xai-client"), ids=lambda message: message["type"])
def test_xai_client_fixtures_are_what_xai_documents(message: Event) -> None:
    check_xai(message)


@pytest.mark.parametrize("message", fixture("openai-server"), ids=lambda message: message["type"])
def test_openai_server_fixtures_are_what_openai_publishes(message: Event) -> None:
    check_openai_server(message)


@pytest.mark.parametrize("name", ["openai-server", "xai-server"])
def test_every_server_fixture_is_an_event_we_know(name: str) -> None:
    assert {message["type"] for message in fixture(name)} <= KNOWN | IGNORED


OPENAI_FRAMES: dict[str, list[Frame]] = {
    "event_7": [Transcript("user", "What's", False)],
    "event_8": [Transcript("user", "What's the weather in Oslo?", True)],
    "event_9": [ErrorFrame("transcription_failed", "The audio could not be transcribed.")],
    "event_13": [Transcript("assistant", "It is", False)],
    "event_14": [Audio(PCM, 24_000)],
    "event_16": [Transcript("assistant", "It is sunny.", True)],
    "event_19": [ToolCall("call_1", "get_weather", '{"city":"Oslo"}')],
    "event_20": [ServerToolCall("mcp_1", "search", "started")],
    "event_21": [ServerToolCall("mcp_1", "", "completed")],
    "event_22": [Usage(13, 91, 119, 30), ResponseEnd("done")],
    "event_23": [ResponseEnd("interrupted", "turn_detected")],
    "event_24": [
        ErrorFrame("server_error", "the provider could not complete a response"),
        ResponseEnd("failed", "server_error"),
    ],
}
"""What each OpenAI fixture gives in a session that is ready and has heard nothing else; the rest: nothing."""


@pytest.mark.parametrize("message", fixture("openai-server")[2:], ids=lambda message: message["event_id"])
def test_openai_server_fixtures_give_their_frames(message: Event) -> None:
    talk = openai(ttl=None).make_ready()
    assert talk.hear(message) == OPENAI_FRAMES.get(message["event_id"], [])
    assert talk.dialect.stats.unknown_events == 0
    assert talk.sent() == []


XAI_FRAMES: dict[str, list[Frame]] = {
    "e6": [Transcript("user", "What is", False)],
    "e7": [Transcript("user", "What is the", False)],
    "e8": [Transcript("user", "What is the weather?", False)],
    "e13": [Transcript("assistant", "Let me look.", False)],
    "e14": [Audio(PCM, 24_000)],
    "e15": [Transcript("assistant", "", True)],
    "e16": [ToolCall("call-77", "get_weather", '{"city":"Oslo"}')],
    "e17": [Usage(90, 40, 200, 20, seconds=1.6), ResponseEnd("done")],
}


@pytest.mark.parametrize("message", fixture("xai-server")[4:], ids=lambda message: message["event_id"])
def test_xai_server_fixtures_give_their_frames(message: Event) -> None:
    talk = xai().make_ready()
    assert talk.hear(message) == XAI_FRAMES.get(message["event_id"], [])
    assert talk.dialect.stats.unknown_events == 0
    assert talk.sent() == []


def test_the_xai_fixtures_are_one_session() -> None:
    config = SessionConfig(provider="xai", model="m", input_sample_rate=16_000, output_sample_rate=24_000)
    talk = xai(config=config)
    frames = talk.hear(*fixture("xai-server"))
    assert frames == [
        Ready(16_000, 24_000),
        Transcript("user", "What is", False),
        Transcript("user", "What is the", False),
        Transcript("user", "What is the weather?", False),
        Transcript("user", "What is the weather?", True),
        Transcript("assistant", "Let me look.", False),
        Audio(PCM, 24_000),
        Transcript("assistant", "Let me look.", True),
        ToolCall("call-77", "get_weather", '{"city":"Oslo"}'),
        Usage(90, 40, 200, 20, seconds=1.6),
        ResponseEnd("done"),
    ]
    assert talk.dialect.stats.benign_errors == 1
    talk.dialect.receive_close(1000)
    assert talk.frames() == [Close(1000, "provider_idle_timeout", "remote")]


def test_openai_is_configured_as_in_the_fixture() -> None:
    config = SessionConfig(
        provider="openai",
        model="gpt-realtime-2.1",
        voice="marin",
        system_prompt="You are terse.",
        tools=(WEATHER,),
    )
    options = OpenAIOptions(tool_choice="auto", transcription_model="gpt-4o-mini-transcribe")
    talk = openai(options, config)
    talk.hear(fixture("openai-server")[0])
    (update,) = talk.sent()
    assert _without_ids(update) == _without_ids(fixture("openai-client")[0])


def test_xai_is_configured_as_in_the_fixture() -> None:
    config = SessionConfig(
        provider="xai",
        model="m",
        voice="eve",
        system_prompt="You are terse.",
        input_sample_rate=16_000,
        tools=(WEATHER,),
    )
    talk = xai(config=config)
    talk.hear(fixture("xai-server")[0])
    assert talk.sent() == [fixture("xai-client")[0]]


def test_everything_said_to_openai_has_the_shape_of_its_fixture() -> None:
    talk = openai(MANUAL, ttl=None).make_ready()
    _say_everything(talk, fixture("openai-server")[18], "call_1")
    by_type = {message["type"]: message for message in talk.sent()}
    for message in fixture("openai-client"):
        kind = message["type"]
        if kind in by_type and kind != "conversation.item.create":
            assert set(by_type[kind]) | {"response"} == set(message) | {"response"}
    assert set(by_type) == {message["type"] for message in fixture("openai-client")} - {
        "session.update",
        "conversation.item.delete",
    }


def test_everything_said_to_xai_has_the_shape_of_its_fixture() -> None:
    talk = xai(XAI_MANUAL).make_ready()
    _say_everything(talk, fixture("xai-server")[15], "call-77")
    by_type = {message["type"]: message for message in talk.sent()}
    for message in fixture("xai-client"):
        if message["type"] in by_type:
            assert set(by_type[message["type"]]) == set(message)
    assert len(by_type) == 7


def _say_everything(talk: Talk[Any], call: Event, call_id: str) -> None:
    dialect = talk.dialect
    dialect.send_audio(pcm(200))
    dialect.clear()
    dialect.send_audio(pcm(200))
    dialect.commit()
    talk.hear(created("r1"), speech("r1", "item_a1", 100))
    talk.hear({**call, "response_id": "r1"})
    dialect.send_tool_result(call_id, json.dumps({"temp_c": 7}))
    dialect.interrupt()
    assert dialect.state is State.OPEN


def _without_ids(message: Event) -> Event:
    return {name: value for name, value in message.items() if name != "event_id"}
