"""The real thing: recorded and synthesised speech in, the real recogniser, speech out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from speko_anyio.audio.wav import read_wav
from speko_anyio.gateway.local import LocalVoice, VoiceSession
from speko_anyio.gateway.local._dialogue import NOT_UNDERSTOOD
from speko_anyio.protocol._commands import AudioIn, Commit, ToolResult
from speko_anyio.protocol.frames import Audio, Frame, ToolCall, Transcript, Usage
from tests.gateway.local.fake_session import FakeSession, make_config, make_tool
from tests.support.speech import spoken

pytestmark = [pytest.mark.anyio, pytest.mark.speech]

# One is test data of CMU PocketSphinx, BSD-2-Clause: see the README beside it.
SPEECH = Path(__file__).parents[2] / "data" / "speech"
WEATHER = make_tool(
    "get_weather",
    "Current weather for a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@asynccontextmanager
async def serving(session: FakeSession) -> AsyncIterator[None]:
    voice = LocalVoice(now=lambda: datetime(2026, 3, 4, 15, 25, tzinfo=UTC))
    peer: VoiceSession = session
    try:
        with anyio.fail_after(60):
            async with voice as handler, anyio.create_task_group() as tasks:
                tasks.start_soon(handler, peer)
                yield
                session.hang_up()
    finally:
        session.dispose()


def turn(pcm: bytes, rate: int) -> list[AudioIn | Commit]:
    step = rate // 50 * 2
    return [*(AudioIn(pcm[at : at + step], rate) for at in range(0, len(pcm), step)), Commit()]


def is_usage(frame: Frame) -> bool:
    return isinstance(frame, Usage)


def finals(session: FakeSession) -> list[str]:
    return [frame.text for frame in session.frames if isinstance(frame, Transcript) and frame.final]


async def test_it_hears_a_human_and_asks_again_about_what_it_can_t_answer() -> None:
    recording = read_wav(SPEECH / "go-forward-ten-meters.wav")
    session = FakeSession()
    async with serving(session):
        session.say(*turn(recording.pcm, recording.sample_rate))
        await session.wait_for(is_usage)
    assert finals(session) == ["go forward ten meters", NOT_UNDERSTOOD[0]]
    assert any(isinstance(frame, Audio) for frame in session.frames)


async def test_a_question_is_understood_whose_pitch_makes_one_word_unlikely() -> None:
    recording = read_wav(SPEECH / "weather-in-oslo.wav")
    session = FakeSession(input_sample_rate=recording.sample_rate, config=make_config(tools=[WEATHER]))
    async with serving(session):
        session.say(*turn(recording.pcm, recording.sample_rate))
        call = (await session.wait_for(lambda frame: isinstance(frame, ToolCall))).frame
        assert isinstance(call, ToolCall)
        assert json.loads(call.arguments) == {"city": "oslo"}
        session.say(ToolResult(call.call_id, '"Sunny."'))
        await session.wait_for(is_usage)


async def test_it_understands_synthesised_questions_at_either_rate() -> None:
    session = FakeSession(input_sample_rate=24_000, config=make_config(tools=[WEATHER]))
    async with serving(session):
        session.say(*turn(spoken("What time is it?", 24_000), 24_000))
        await session.wait_for(is_usage)
        session.say(*turn(spoken("What is the weather in Paris?", 24_000), 24_000))
        call = (await session.wait_for(lambda frame: isinstance(frame, ToolCall))).frame
        assert isinstance(call, ToolCall)
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "paris"})
        session.say(ToolResult(call.call_id, '"Sunny."'))
        await session.wait_for(is_usage, count=2)
    assert finals(session) == [
        "what time is it",
        "It is 3:25 PM.",
        "what is the weather in paris",
        "Sunny.",
    ]
