"""The offline voice with engines of the user's own, and its timers, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import pytest

from speko_anyio.audio import Timing
from speko_anyio.audio import _pcm as pcm16
from speko_anyio.gateway.engines import EngineError, Message, SpeechToText, TextToSpeech, ToolRequest
from speko_anyio.gateway.local import LocalVoice
from speko_anyio.gateway.local._conversation import MAX_HISTORY, MAX_TOOL_ROUNDS, NUDGE
from speko_anyio.gateway.local._timers import MAX_TIMERS
from speko_anyio.protocol._commands import (
    AudioIn,
    Commit,
    Interrupt,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.protocol.frames import (
    Audio,
    ErrorFrame,
    Frame,
    Interruption,
    ResponseEnd,
    ToolCall,
    Transcript,
)
from speko_anyio.protocol.mint import ToolSpec
from speko_anyio.testing import VIRTUAL_BACKENDS, mumble, virtual_backend
from tests.gateway.local.fake_session import FakeSession, make_config, make_tool

pytestmark = [pytest.mark.anyio, pytest.mark.speech]


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Ear:
    """Hears the same, whatever is said."""

    def __init__(self, heard: str = "") -> None:
        self._heard = heard
        self.calls: list[tuple[int, int]] = []

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        self.calls.append((len(pcm), sample_rate))
        return self._heard


class Brain:
    """Answers with the next of its scripts, a second a part."""

    def __init__(self, *scripts: Sequence[str | ToolRequest | Exception], seconds: float = 0.0) -> None:
        self._scripts = iter(scripts)
        self._seconds = seconds
        self.asked: list[list[Message]] = []
        self.offered: list[list[str]] = []
        self.stopped = 0

    async def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        self.asked.append(list(messages))
        self.offered.append([tool.name for tool in tools])
        try:
            for part in next(self._scripts):
                await anyio.sleep(self._seconds)
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            self.stopped += 1


class Voice:
    """Speaks for a tenth of a second a character, in two pieces; counts those who use it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.open = False
        self.broken = False

    async def __aenter__(self) -> Self:
        self.open = True
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.open = False

    async def synthesize(self, text: str, sample_rate: int) -> AsyncGenerator[bytes, None]:
        assert self.open
        if self.broken:
            raise EngineError("MUTE", "the voice is lost")
        self.said.append(text)
        for _ in range(2):
            await anyio.sleep(0.01)
            yield bytes(pcm16.byte_count(len(text) / 20, sample_rate))


class Choir(Voice):
    """Has a second voice."""

    async def with_voice(self, voice: str) -> TextToSpeech:
        if voice != "alto":
            raise ValueError(f"there is no voice {voice!r} here")
        second = Voice()
        second.open = True
        return second


@asynccontextmanager
async def serving(
    session: FakeSession,
    *,
    ear: SpeechToText | None = None,
    brain: Any = None,
    voice: Any = None,
    **options: Any,
) -> AsyncIterator[None]:
    handler = LocalVoice(ear=ear or Ear(), brain=brain, voice=voice or Voice(), **options)
    try:
        with anyio.fail_after(20_000):
            async with handler, anyio.create_task_group() as tasks:
                tasks.start_soon(handler, session)
                yield
                session.hang_up()
    finally:
        session.dispose()


def speech() -> list[AudioIn | Commit]:
    sound = mumble(1.0, sample_rate=16_000)
    return [*(AudioIn(sound[at : at + 640], 16_000) for at in range(0, len(sound), 640)), Commit()]


def is_a(kind: type[Frame]) -> Any:
    return lambda frame: isinstance(frame, kind)


def finals(session: FakeSession) -> list[str]:
    return [frame.text for frame in session.frames if isinstance(frame, Transcript) and frame.final]


def errors(session: FakeSession) -> list[str]:
    return [frame.code for frame in session.frames if isinstance(frame, ErrorFrame)]


class Returning:
    async def answer(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        return "Hello."

    async def synthesize(self, text: str, sample_rate: int) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        ({"ear": Ear}, r"ear must be an object, not the class Ear; pass Ear\(\)"),
        (
            {"ear": "whisper"},
            "ear must be an object with a method transcribe, not str; see speko_anyio.gateway",
        ),
        ({"brain": Ear()}, "brain must be an object with a method answer, not Ear"),
        ({"brain": Returning()}, "brain.answer returns one value, but must be an async generator; use yield"),
        ({"voice": Returning()}, "voice.synthesize returns one value, but must be an async generator"),
    ],
)
async def test_what_is_no_engine_is_told_before_a_session_needs_it(
    engine: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        LocalVoice(**engine)


async def test_an_ear_of_ones_own() -> None:
    ear = Ear("what is two plus three")
    session = FakeSession()
    async with serving(session, ear=ear):
        session.say(*speech())
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == ["what is two plus three", "2 plus 3 is 5."]
    assert ear.calls[-1][1] == 16_000
    assert ear.calls[-1][0] > 20_000


async def talk(session: FakeSession, seconds: float, silence: float) -> None:
    """Speak, and then be silent, in real time."""
    sound = mumble(seconds, sample_rate=16_000) + pcm16.silence(silence, 16_000)
    for at in range(0, len(sound), 640):
        session.say(AudioIn(sound[at : at + 640], 16_000))
        await anyio.sleep(0.02)


class Judge:
    """An end-of-turn model that always thinks the same."""

    def __init__(self, probability: float | Exception) -> None:
        self._probability = probability
        self.asked: list[tuple[int, str]] = []

    async def probability(self, utterance: bytes, sample_rate: int, text: str) -> float:
        self.asked.append((sample_rate, text))
        if isinstance(self._probability, Exception):
            raise self._probability
        return self._probability


@pytest.mark.parametrize(
    ("probability", "expected"), [(0.0, 1.6), (1.0, 0.3), (EngineError("SLOW", "the model is lost"), 0.56)]
)
async def test_an_end_of_turn_model_of_ones_own(probability: float | Exception, expected: float) -> None:
    judge = Judge(probability)
    session = FakeSession()
    async with serving(session, ear=Ear("hello"), end_of_turn=judge):
        await talk(session, 1.0, 0)
        stopped = anyio.current_time()
        await talk(session, 0, 2.0)
        told = await session.wait_for(lambda frame: isinstance(frame, Transcript) and frame.final)
    assert judge.asked == [(16_000, "hello")]
    assert told.at - stopped == pytest.approx(expected, abs=0.15)


async def test_an_mhm_does_not_interrupt_if_the_timing_says_so() -> None:
    ear = Ear("tell me more")
    session = FakeSession()
    async with serving(session, ear=ear, brain=Brain(["A" * 30], ["Well."]), timing=Timing(backchannel=0.4)):
        session.say(TextIn("well?", respond=True))
        await session.wait_for(is_a(Audio))
        await talk(session, 0.25, 0.6)
        assert ear.calls == []
        assert not any(isinstance(frame, Interruption) for frame in session.frames)
        await talk(session, 1.0, 0.6)
        await session.wait_for(is_a(Interruption))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert finals(session)[-2:] == ["tell me more", "Well."]


async def test_a_brain_of_ones_own() -> None:
    brain = Brain(["One.", "Two."], ["Three."])
    session = FakeSession(config=make_config(tools=[make_tool("get_news")]))
    async with serving(session, brain=brain, ear=Ear("hello")):
        session.say(Update(system_prompt="Be kind."), *speech())
        await session.wait_for(is_a(ResponseEnd))
        await anyio.sleep(0.5)  # the rest of it is heard
        session.say(TextIn("More!", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert finals(session) == ["hello", "One. Two.", "Three."]
    kind = Message("system", "Be kind.")
    assert brain.asked == [
        [kind, Message("user", "hello")],
        [kind, Message("user", "hello"), Message("assistant", "One. Two."), Message("user", "More!")],
    ]
    assert brain.offered == [["get_news"]] * 2


async def test_a_voice_of_ones_own() -> None:
    voice = Voice()
    session = FakeSession(config=make_config(voice="alto"))
    async with serving(session, voice=voice):
        session.say(Say("One moment. Thank you."))
        await session.wait_for(is_a(ResponseEnd))
    assert voice.said == ["One moment.", "Thank you."]
    assert not voice.open
    assert errors(session) == ["UNKNOWN_VOICE"]
    audio = b"".join(frame.pcm for frame in session.frames if isinstance(frame, Audio))
    assert pcm16.duration(audio, 24_000) == pytest.approx(2.1)


async def test_a_voice_of_ones_own_that_has_several() -> None:
    voice = Choir()
    session = FakeSession(config=make_config(voice="alto"))
    async with serving(session, voice=voice):
        session.say(Say("Yes."), Update(voice="nobody"), Say("No."))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert voice.said == []
    assert errors(session) == ["UNKNOWN_VOICE"]


async def test_a_result_names_its_request_and_the_brain_goes_on() -> None:
    weather, news = ToolRequest("get_weather", '{"city": "Oslo"}'), ToolRequest("get_news", "{}")
    brain = Brain([weather, news], ["Rain."])
    tools = [make_tool("get_weather"), make_tool("get_news")]
    session = FakeSession(config=make_config(tools=tools))
    async with serving(session, brain=brain):
        session.say(TextIn("well?", respond=True))
        await session.wait_for(is_a(ToolCall), count=2)
        calls = [frame for frame in session.frames if isinstance(frame, ToolCall)]
        session.say(ToolResult(calls[1].call_id, "none"))
        await session.wait_for(is_a(ResponseEnd), within=60)  # the other one never answers
    assert [(call.name, call.arguments) for call in calls] == [tuple(weather), tuple(news)]
    assert brain.asked[1][1:] == [
        Message("tool", "Get weather did not answer.", weather),
        Message("tool", "none", news),
    ]
    assert finals(session) == ["Rain."]


async def test_the_brain_is_cancelled_when_the_user_interrupts() -> None:
    brain = Brain(["One."] * 1000, seconds=1.0)
    session = FakeSession()
    async with serving(session, brain=brain):
        session.say(TextIn("count", respond=True))
        await session.wait_for(is_a(Audio))
        await anyio.sleep(0.5)  # it is heard
        asked = anyio.current_time()
        session.say(Interrupt())
        told = await session.wait_for(is_a(Interruption))
        await session.wait_for(is_a(ResponseEnd))
        assert told.at - asked < 0.05
        assert brain.stopped == 1
    assert finals(session) == ["One."]


async def test_only_what_was_heard_is_remembered() -> None:
    brain = Brain(["One.", "Two.", "Three."], ["Well."])
    session = FakeSession()
    async with serving(session, brain=brain):
        session.say(TextIn("count", respond=True))
        await session.wait_for(lambda frame: isinstance(frame, Transcript) and "Two" in frame.text)
        await anyio.sleep(0.7)  # "Three" was sent, and is not heard
        session.say(TextIn("stop", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert Transcript("assistant", "One. Two. Three.", final=False) in session.frames
    assert [message.text for message in brain.asked[1]] == ["count", "One. Two.", "stop"]
    assert brain.asked[1][1].heard_seconds == pytest.approx(0.75, abs=0.05)


async def test_an_interrupted_answer_that_said_nothing_is_not_remembered() -> None:
    brain = Brain(["One."], ["Two."], seconds=5.0)
    session = FakeSession()
    async with serving(session, brain=brain):
        session.say(TextIn("a", respond=True))
        await anyio.sleep(1)
        session.say(TextIn("b", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert brain.asked[1] == [Message("user", "a"), Message("user", "b")]
    assert finals(session) == ["Two."]


async def test_failures_of_engines_are_errors_and_the_session_goes_on() -> None:
    brain = Brain([EngineError("TIRED", "the model sleeps")], ["Yes."], ["No."])
    voice = Voice()
    session = FakeSession()
    async with serving(session, brain=brain, voice=voice):
        session.say(TextIn("a", respond=True))
        await session.wait_for(is_a(ResponseEnd))
        voice.broken = True
        session.say(TextIn("b", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=2)
        voice.broken = False
        session.say(TextIn("c", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=3)
    assert errors(session) == ["TIRED", "MUTE"]
    ends = [frame for frame in session.frames if isinstance(frame, ResponseEnd)]
    assert ends == [ResponseEnd("failed", "TIRED"), ResponseEnd("failed", "MUTE"), ResponseEnd("done")]
    assert finals(session) == ["No."]


async def test_a_brain_that_only_calls_tools_is_stopped() -> None:
    brain = Brain(*[[ToolRequest("check_timers", "{}")]] * (MAX_TOOL_ROUNDS + 1))
    session = FakeSession()
    async with serving(session, brain=brain):
        session.say(TextIn("a", respond=True))
        await session.wait_for(is_a(ResponseEnd))
    assert errors(session) == ["TOOL_LOOP"]


async def test_the_brain_is_told_when_it_speaks_first() -> None:
    brain = Brain(["Hi."], ["Ahoy."])
    session = FakeSession()
    async with serving(session, brain=brain):
        session.say(Respond(), Respond("like a pirate"))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert [asked[-1] for asked in brain.asked] == [
        Message("system", NUDGE),
        Message("system", "like a pirate"),
    ]


async def test_the_brain_gets_a_bounded_history() -> None:
    brain = Brain(["Yes."])
    session = FakeSession()
    async with serving(session, brain=brain):
        session.say(*[TextIn("x" * 10_000)] * 500, TextIn("well?", respond=True))
        await session.wait_for(is_a(ResponseEnd))
    (asked,) = brain.asked
    assert len(asked) == MAX_HISTORY
    assert sum(len(message.text) for message in asked) <= MAX_HISTORY * 2_000


async def test_nothing_understood_is_no_message() -> None:
    brain = Brain(["Yes."])
    session = FakeSession()
    async with serving(session, brain=brain, ear=Ear()):
        session.say(*speech())
        await session.wait_for(is_a(ResponseEnd))
    assert brain.asked == []
    assert "say it again" in finals(session)[-1]


async def test_speech_waits_for_a_brain_that_is_slow_and_is_not_sent_in_a_burst() -> None:
    session = FakeSession()
    async with serving(session, brain=Brain(["One two three four.", "Five six seven eight."], seconds=10.0)):
        session.say(TextIn("count", respond=True))
        await session.wait_for(is_a(ResponseEnd))
    audio = [sent for sent in session.sent if isinstance(sent.frame, Audio)]
    second = [sent for sent in audio if sent.at > audio[0].at + 5]
    seconds = sum(
        pcm16.duration(sent.frame.pcm, 24_000) for sent in second[:20] if isinstance(sent.frame, Audio)
    )
    assert second[19].at - second[0].at >= seconds - 0.5


# Timers


def rings(frame: Frame) -> bool:
    return isinstance(frame, Transcript) and "is up." in frame.text


async def test_a_timer_rings() -> None:
    session = FakeSession()
    async with serving(session):
        session.say(TextIn("set a timer for ten seconds", respond=True))
        rang = await session.wait_for(rings)
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert finals(session) == ["Your timer is set for 10 seconds.", "Your timer for 10 seconds is up."]
    assert rang.at == pytest.approx(10, abs=0.1)


async def test_a_timer_rings_between_two_sentences() -> None:
    session = FakeSession()
    async with serving(session):
        session.say(TextIn("set a timer for ten seconds", respond=True))
        await session.wait_for(is_a(ResponseEnd))
        session.say(TextIn("tell me a story", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=2, within=200)
    story = finals(session)[-1]
    before, ring, after = story.partition("Your timer for 10 seconds is up.")
    assert before
    assert ring
    assert after.endswith("And that is the whole story.")
    assert [type(frame) for frame in session.frames].count(ResponseEnd) == 2


async def test_a_timer_waits_for_the_user_and_is_not_lost() -> None:
    session = FakeSession()
    sound = mumble(3.0, sample_rate=16_000)
    async with serving(session, ear=Ear("thank you")):
        session.say(TextIn("set a timer for ten seconds", respond=True))
        await session.wait_for(is_a(ResponseEnd))
        session.say(TextIn("tell me a story", respond=True))
        await anyio.sleep(9.95)  # in the middle of a sentence, in which the timer rings
        session.say(*(AudioIn(sound[at : at + 640], 16_000) for at in range(0, 32_000, 640)))
        await anyio.sleep(5)
        session.say(Commit())
        await session.wait_for(rings)
        await session.wait_for(is_a(ResponseEnd), count=3)
    assert finals(session)[-1] == "You are welcome. Your timer for 10 seconds is up."


async def test_timers_are_cancelled_asked_for_and_limited() -> None:
    session = FakeSession(config=make_config(output="text"))
    answers: list[str] = []

    async def ask(text: str) -> None:
        session.say(TextIn(text, respond=True))
        await session.wait_for(is_a(ResponseEnd), count=len(answers) + 1)
        answers.append(finals(session)[-1])

    async with serving(session):
        await ask("cancel the timer")
        await ask("how much time is left")
        await ask("set a timer for a minute")
        await anyio.sleep(10.5)
        await ask("how much time is left")
        await ask("cancel the timer")
        for _ in range(MAX_TIMERS + 1):
            await ask("set a timer for two hours")
        await ask("cancel all timers")
        await anyio.sleep(10_000)
    assert answers == [
        "No timer is running.",
        "No timer is running.",
        "Your timer is set for 1 minute.",
        "Your timer rings in 50 seconds.",
        "I cancelled the timer.",
        *["Your timer is set for 2 hours."] * MAX_TIMERS,
        f"{MAX_TIMERS} timers are running already. Cancel them first.",
        f"I cancelled {MAX_TIMERS} timers.",
    ]
    assert len(finals(session)) == len(answers)


@pytest.mark.parametrize(
    "arguments", ["", "[]", '{"seconds": -1}', '{"seconds": 1e9}', "[" * 10_000, '{"seconds": "1"}']
)
async def test_a_brain_that_asks_for_no_timer_is_told(arguments: str) -> None:
    brain = Brain([ToolRequest("set_timer", arguments)], ["Oh."])
    session = FakeSession()
    async with serving(session, brain=brain):
        session.say(TextIn("a", respond=True))
        await session.wait_for(is_a(ResponseEnd))
    assert "needs seconds" in brain.asked[1][-1].text


async def test_a_tool_of_the_client_that_is_called_like_a_timers_is_the_clients() -> None:
    brain = Brain([ToolRequest("set_timer", "{}")], ["Oh."])
    session = FakeSession(config=make_config(tools=[make_tool("set_timer")]))
    async with serving(session, brain=brain):
        session.say(TextIn("a", respond=True))
        call = (await session.wait_for(is_a(ToolCall))).frame
        assert isinstance(call, ToolCall)
        session.say(ToolResult(call.call_id, "set"))
        await session.wait_for(is_a(ResponseEnd))
    assert brain.asked[1][-1].text == "set"
