"""What the offline voice takes besides speech: text, requests to speak, changes in mid-call."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

import anyio
import pytest

from speko_anyio.audio import _pcm as pcm
from speko_anyio.gateway.local import LocalVoice, SmallTalk
from speko_anyio.gateway.local._dialogue import GREETING
from speko_anyio.gateway.local._grammar import Grammar
from speko_anyio.gateway.local._sentences import MAX_TEXT
from speko_anyio.protocol import Capabilities
from speko_anyio.protocol._commands import (
    AudioIn,
    Clear,
    Commit,
    ImageIn,
    Interrupt,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.protocol.capabilities import extensions_of
from speko_anyio.protocol.frames import (
    Audio,
    ErrorFrame,
    Interruption,
    ResponseEnd,
    ToolCall,
    Usage,
)
from speko_anyio.protocol.mint import ToolSpec
from tests.gateway.local.fake_session import FakeSession, make_config, make_tool
from tests.gateway.local.test_conversation import (
    LONG,
    NEWS,
    WEATHER,
    audio_seconds,
    finals,
    is_a,
    question,
    serving,
)

pytestmark = [pytest.mark.anyio, pytest.mark.speech]


def test_it_declares_what_it_takes() -> None:
    assert extensions_of(LocalVoice.capabilities) == ("text", "respond", "say", "update", "played", "usage")
    assert LocalVoice.capabilities.say == "verbatim"
    assert LocalVoice.capabilities.text_output
    assert not Capabilities().text


async def test_a_text_is_answered_like_speech() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(TextIn("What time is it?", respond=True))
        await session.wait_for(is_a(ResponseEnd))
    # What was written is not a transcript.
    assert finals(session) == [("assistant", "It is 3:25 PM.")]
    assert audio_seconds(session) > 0.5
    usage, end = session.frames[-2:]
    assert isinstance(usage, Usage)
    assert (usage.input_audio_tokens, usage.input_text_tokens, usage.output_text_tokens) == (0, 4, 0)
    assert end == ResponseEnd("done")


async def test_a_text_calls_tools() -> None:
    session = FakeSession(config=make_config(tools=[WEATHER]))
    async with serving("", session):
        session.say(TextIn("what is the weather in Oslo", respond=True))
        call = (await session.wait_for(is_a(ToolCall))).frame
        assert isinstance(call, ToolCall)
        session.say(ToolResult(call.call_id, "rain"))
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("assistant", "rain.")]


async def test_it_speaks_first() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(Respond())
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("assistant", GREETING)]


@pytest.mark.parametrize("ask", [Respond("briefly"), Commit()])
async def test_context_is_answered_when_it_is_asked_to(ask: Respond | Commit) -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(TextIn("what day is it"), TextIn("It is late.", "system"), ask)
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("assistant", "Today is Wednesday, March 4.")]


async def test_what_the_assistant_wrote_is_an_answer() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(TextIn("what day is it"), TextIn("It is Monday.", "assistant"), Respond())
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("assistant", GREETING)]


async def test_it_says_what_it_is_told() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(Say("One moment, please."), Say("Two of them."))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert finals(session) == [("assistant", "One moment, please."), ("assistant", "Two of them.")]


async def test_a_text_too_long_to_be_said_is_refused() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(Say("x" * (MAX_TEXT + 1)), Say("Yes."))
        await session.wait_for(is_a(ResponseEnd))
    assert [frame.code for frame in session.frames if isinstance(frame, ErrorFrame)] == ["TEXT_TOO_LONG"]
    assert finals(session) == [("assistant", "Yes.")]


async def test_a_long_text_is_not_repeated_whole() -> None:
    session = FakeSession(config=make_config(output="text"))
    async with serving("", session):
        session.say(TextIn("blah " * 50_000, respond=True))
        await session.wait_for(is_a(ResponseEnd))
    [(_, text)] = finals(session)
    assert len(text) < 500


async def test_a_text_interrupts_and_a_request_waits() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(Say(LONG))
        await session.wait_for(is_a(Audio))
        session.say(Respond(), TextIn("thank you", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=3)
    ends = [frame.status for frame in session.frames if isinstance(frame, ResponseEnd)]
    # The text cut off what was said, and what waited behind it.
    assert ends == ["interrupted", "interrupted", "done"]
    assert finals(session)[-1] == ("assistant", "You are welcome.")
    first = next(at for at, frame in enumerate(session.frames) if isinstance(frame, Interruption))
    assert first < session.frames.index(ResponseEnd("interrupted"))


async def test_a_request_waits_for_the_end_of_speech() -> None:
    session = FakeSession()
    speech = question()
    async with serving("thanks", session):
        session.say(*speech[:-20])
        await anyio.wait_all_tasks_blocked()
        session.say(Say("By the way."))
        await anyio.wait_all_tasks_blocked()
        assert not any(isinstance(frame, Audio) for frame in session.frames)
        session.say(*speech[-20:], Commit())
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert finals(session) == [
        ("user", "thanks"),
        ("assistant", "You are welcome."),
        ("assistant", "By the way."),
    ]


async def test_a_request_in_speech_that_is_cleared_is_carried_out() -> None:
    session = FakeSession()
    async with serving("thanks", session):
        session.say(*question(), Say("Yes."), Clear())
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("assistant", "Yes.")]


async def test_a_flood_of_requests_is_told() -> None:
    session = FakeSession()
    async with serving("thanks", session):
        session.say(*question(), *[Respond()] * 50, Clear(), *[Say("Yes.")] * 50)
        await session.wait_for(lambda frame: isinstance(frame, ErrorFrame) and frame.code == "OVERLOADED")
        session.say(Interrupt())


async def test_tools_and_voice_change_in_mid_call() -> None:
    session = FakeSession(config=make_config(tools=[WEATHER]))
    async with serving("", session):
        session.say(
            Update(tools=(NEWS,), voice="heart", system_prompt="Be kind."),
            TextIn("get the news", respond=True),
        )
        call = (await session.wait_for(is_a(ToolCall))).frame
        assert isinstance(call, ToolCall)
        assert call.name == "get_news"
        session.say(ToolResult(call.call_id, "none"))
        await session.wait_for(is_a(ResponseEnd))
    assert not any(isinstance(frame, ErrorFrame) for frame in session.frames)


async def test_what_can_t_change_is_told_and_the_rest_changes() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(Update(tools=(NEWS,), voice="nobody", turns="manual"))
        session.say(TextIn("get the news", respond=True))
        await session.wait_for(is_a(ToolCall))
    errors = [frame for frame in session.frames if isinstance(frame, ErrorFrame)]
    assert [error.code for error in errors] == ["UNKNOWN_VOICE", "UPDATE_REFUSED"]
    assert "turns" in errors[1].message


async def test_a_text_beyond_measure_is_matched_in_part() -> None:
    schema = {"properties": {f"p{number}": {"enum": [f"v{number}"]} for number in range(1_000)}}
    session = FakeSession(config=make_config(tools=[make_tool("news", parameters=schema)], output="text"))
    async with serving("", session):
        session.say(TextIn("news " + "x " * 100_000 + "v999", respond=True))
        call = (await session.wait_for(is_a(ToolCall))).frame
        assert isinstance(call, ToolCall)
        assert call.arguments == "{}"


async def test_of_a_text_beyond_measure_only_the_words_that_count_are_counted() -> None:
    session = FakeSession(config=make_config(output="text"))
    async with serving("", session):
        session.say(TextIn("x " * 100_000, respond=True))
        await session.wait_for(is_a(ResponseEnd))
    usage = next(frame for frame in session.frames if isinstance(frame, Usage))
    assert usage.input_text_tokens == MAX_TEXT // 2


async def test_tools_are_prepared_for_one_session_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = FakeSession(), FakeSession()
    both = threading.Barrier(2)
    met = []

    def grammar(brain: SmallTalk, tools: Sequence[ToolSpec] = ()) -> Grammar:
        if tools:
            with suppress(threading.BrokenBarrierError):
                met.append(both.wait(timeout=0.2))
        return Grammar(())

    monkeypatch.setattr(SmallTalk, "grammar", grammar)
    for session in sessions:
        session.say(Update(tools=(NEWS,)), Say("Yes."))
    async with serving("", sessions[0], beside=sessions[1]):
        for session in sessions:
            await session.wait_for(is_a(ResponseEnd))
    assert not met


async def test_too_many_tools_are_refused() -> None:
    session = FakeSession()
    tools = tuple(make_tool(f"get_thing_{number}") for number in range(2_000))
    async with serving("", session):
        session.say(Update(tools=tools), Say("Yes."))
        await session.wait_for(is_a(ResponseEnd))
    errors = [frame for frame in session.frames if isinstance(frame, ErrorFrame)]
    assert [error.code for error in errors] == ["UPDATE_REFUSED"]
    assert "tools" in errors[0].message


async def test_it_answers_in_writing_alone() -> None:
    session = FakeSession(config=make_config(output="text"))
    async with serving("what time is it", session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(ResponseEnd))
        session.say(Say("One. Two."))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert finals(session) == [
        ("user", "what time is it"),
        ("assistant", "It is 3:25 PM."),
        ("assistant", "One. Two."),
    ]
    assert not any(isinstance(frame, Audio) for frame in session.frames)
    usages = [frame for frame in session.frames if isinstance(frame, Usage)]
    assert [usage.output_text_tokens for usage in usages] == [4, 2]
    assert all(usage.output_audio_tokens == 0 for usage in usages)


async def test_a_command_that_it_does_not_take_does_nothing() -> None:
    session = FakeSession()
    async with serving("", session):
        session.say(ImageIn("image/png", b"png"), AudioIn(pcm.silence(0.1, 16_000), 16_000), Say("Yes."))
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("assistant", "Yes.")]
