"""Whole sessions with real speech, real voice detection and a recogniser that says what the test wants."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import pytest

from speko_anyio.audio import _pcm as pcm
from speko_anyio.gateway.engines import EngineError, Message, ToolRequest
from speko_anyio.gateway.local import LocalVoice, SmallTalk, Synthesizer, speak_to_pcm
from speko_anyio.gateway.local import _conversation as module
from speko_anyio.gateway.local import _recognizer as recognizer_module
from speko_anyio.gateway.local._dialogue import STORY
from speko_anyio.gateway.local._grammar import Grammar
from speko_anyio.gateway.local._recognizer import Recognizer, open_recognizer
from speko_anyio.gateway.local._reply import LEAD
from speko_anyio.protocol._commands import (
    AudioIn,
    Clear,
    Commit,
    EndTurn,
    Interrupt,
    Played,
    TextIn,
    ToolResult,
)
from speko_anyio.protocol.frames import (
    Audio,
    ErrorFrame,
    Frame,
    Interruption,
    ResponseEnd,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol.mint import ToolSpec
from tests.gateway.local.fake_session import FakeSession, make_config, make_tool
from tests.gateway.local.test_recognizer import COMMAND
from tests.support.speech import spoken

pytestmark = [pytest.mark.anyio, pytest.mark.speech]

WEATHER = make_tool(
    "get_weather",
    "Current weather for a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
NEWS = make_tool("get_news")
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


class ScriptedEar:
    """Hears `text`, whatever was said."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.utterances: list[bytes] = []
        self.fails = False

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        await anyio.lowlevel.checkpoint()
        self.utterances.append(pcm)
        if self.fails:
            raise EngineError("OVERLOADED", "the gateway's recogniser has too much to do; try again")
        return self.text


@asynccontextmanager
async def serving(
    text: str,
    session: FakeSession,
    ear: ScriptedEar | None = None,
    *,
    beside: FakeSession | None = None,
    brain: SmallTalk | None = None,
) -> AsyncIterator[ScriptedEar]:
    """Serve `session`, whose user is heard as saying `text`, or what `ear` hears, and one `beside` it.

    At the end it hangs up and waits for the handler.
    """
    ear = ear or ScriptedEar(text)
    sessions = [session] if beside is None else [session, beside]

    voice = LocalVoice(ear=ear, brain=brain, now=lambda: datetime(2026, 3, 4, 15, 25, tzinfo=UTC))
    try:
        with anyio.fail_after(30):
            async with voice as handler, anyio.create_task_group() as tasks:
                for served in sessions:
                    tasks.start_soon(handler, served)
                yield ear
                for served in sessions:
                    served.hang_up()
    finally:
        for served in sessions:
            served.dispose()


def question(rate: int = 16_000) -> list[AudioIn]:
    said = spoken("what time is it", rate)
    step = rate // 50 * 2
    return [AudioIn(said[at : at + step], rate) for at in range(0, len(said), step)]


def is_a(kind: type[Frame]) -> Callable[[Frame], bool]:
    return lambda frame: isinstance(frame, kind)


def finals(session: FakeSession) -> list[tuple[str, str]]:
    return [(f.role, f.text) for f in session.frames if isinstance(f, Transcript) and f.final]


def audio_seconds(session: FakeSession) -> float:
    heard = [frame.pcm for frame in session.frames if isinstance(frame, Audio)]
    return sum(pcm.duration(piece, session.output_sample_rate) for piece in heard)


def audio_after(session: FakeSession, at: float) -> int:
    """Pieces of audio that were sent later than `at`: counted, since a busy machine makes any time longer."""
    return sum(isinstance(sent.frame, Audio) and sent.at > at for sent in session.sent)


@pytest.mark.parametrize(("input_rate", "output_rate"), [(16_000, 24_000), (24_000, 16_000)])
@pytest.mark.parametrize("end", [Commit(), EndTurn()])
async def test_a_turn(input_rate: int, output_rate: int, end: Commit | EndTurn) -> None:
    session = FakeSession(input_sample_rate=input_rate, output_sample_rate=output_rate)
    async with serving("what time is it", session) as ear:
        session.say(*question(input_rate), end)
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("user", "what time is it"), ("assistant", "It is 3:25 PM.")]
    assert session.turns_ended == 0  # the client said so itself
    assert audio_seconds(session) == pytest.approx(
        len(speak_to_pcm("It is 3:25 PM.", 16_000)) / 32_000, abs=0.01
    )
    seconds = pcm.duration(ear.utterances[-1], 16_000)
    usage, end_told = session.frames[-2:]
    assert isinstance(usage, Usage)
    assert usage.input_audio_tokens == pytest.approx(seconds * 10, abs=1)
    assert usage.output_audio_tokens == pytest.approx(audio_seconds(session) * 20, abs=1)
    kinds = [type(frame) for frame in session.frames if not isinstance(frame, Transcript)]
    assert kinds == [Audio] * (len(kinds) - 2) + [Usage, ResponseEnd]
    assert end_told == ResponseEnd("done")


async def test_silence_ends_the_turn_and_a_late_commit_asks_nothing_more() -> None:
    session = FakeSession()
    async with serving("thanks", session):
        session.say(*question(), AudioIn(pcm.silence(1, 16_000), 16_000), Commit())
        await session.wait_for(is_a(ResponseEnd))
        assert len(finals(session)) == 2
        assert session.turns_ended == 1
        session.say(Commit())
        await session.wait_for(is_a(ErrorFrame))
    assert [f.code for f in session.frames if isinstance(f, ErrorFrame)] == ["INPUT_EMPTY"]


async def test_partial_transcripts_come_first_and_cost_the_final_nothing() -> None:
    session = FakeSession()
    async with serving("thanks", session) as ear:
        session.say(*question(), AudioIn(pcm.silence(0.4, 16_000), 16_000))
        await session.wait_for(is_a(Transcript))
        await anyio.wait_all_tasks_blocked()
        assert session.frames == [Transcript("user", "thanks", final=False)]
        heard_ahead = len(ear.utterances)
        session.say(Commit())
        await session.wait_for(is_a(ResponseEnd))
        assert len(ear.utterances) == heard_ahead


async def test_audio_is_sent_a_little_ahead_of_playback_and_no_more() -> None:
    session = FakeSession()
    async with serving(LONG, session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(Audio), count=25)
    chunks = [sent for sent in session.sent if isinstance(sent.frame, Audio)]
    seconds = 0.0
    for sent in chunks:
        ahead = seconds - (sent.at - chunks[0].at)
        assert ahead <= LEAD + 0.02
        seconds += module.CHUNK_SECONDS


async def test_interrupt_stops_the_audio_at_once() -> None:
    session = FakeSession()
    async with serving(LONG, session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(Audio), count=15)
        asked = anyio.current_time()
        session.say(Interrupt())
        told = await session.wait_for(is_a(Interruption))
        await session.wait_for(is_a(ResponseEnd))
    assert told.frame == Interruption("user")
    last_audio = max(sent.at for sent in session.sent if isinstance(sent.frame, Audio))
    assert told.at >= last_audio
    assert [f for f in session.frames if isinstance(f, ResponseEnd)] == [ResponseEnd("interrupted")]
    assert audio_after(session, asked) <= 3
    assert audio_seconds(session) < 2
    assert [type(frame) for frame in session.frames].count(Interruption) == 1


async def test_talking_over_it_stops_the_audio_and_a_click_does_not() -> None:
    session = FakeSession()
    click = b"\xff\x7f\0\x80" * 160
    async with serving(LONG, session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(Audio))
        session.say(AudioIn(click + pcm.silence(0.2, 16_000), 16_000))
        await session.wait_for(is_a(Audio), count=20)
        assert not any(isinstance(frame, Interruption) for frame in session.frames)
        asked = anyio.current_time()
        session.say(*question())
        await session.wait_for(is_a(Interruption))
    # The listener takes some pieces of the question to be sure that it is speech.
    assert audio_after(session, asked) <= 15


async def test_an_interrupt_right_after_the_commit_cancels_the_answer() -> None:
    session = FakeSession()
    async with serving(LONG, session):
        session.say(*question(), Commit(), Interrupt())
        await session.wait_for(is_a(ResponseEnd))
    assert audio_seconds(session) == 0
    assert [type(frame) for frame in session.frames[-3:]] == [Interruption, Usage, ResponseEnd]
    assert session.frames[-1] == ResponseEnd("interrupted")


async def test_an_interrupt_while_the_end_is_still_playing_is_told() -> None:
    session = FakeSession()
    async with serving("thanks", session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(ResponseEnd))
        session.say(Interrupt())
        await session.wait_for(is_a(Interruption))


class Reminded(SmallTalk):
    """Small talk that keeps the messages it was given last."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Message] = []

    def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        self.told = list(messages)
        return super().answer(messages, tools)


async def test_what_was_not_heard_is_forgotten_also_when_all_was_sent() -> None:
    """A short answer is sent to its end at once; the client says that it has played little of it."""
    session, brain = FakeSession(), Reminded()
    async with serving("", session, brain=brain):
        session.say(TextIn("thank you", "user", respond=True))
        await session.wait_for(is_a(ResponseEnd))
        session.say(Played(0), Interrupt())
        await session.wait_for(is_a(Interruption))
        session.say(TextIn("thank you", "user", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=2)
    assert [message.role for message in brain.told] == ["user", "user"]


async def test_a_client_that_plays_late_can_still_interrupt() -> None:
    session, brain = FakeSession(), Reminded()
    async with serving("", session, brain=brain):
        session.say(TextIn("who are you", "user", respond=True))
        await session.wait_for(is_a(ResponseEnd))
        sent = audio_seconds(session)
        session.say(Played(400))
        await anyio.sleep(LEAD + 0.3)  # by the clock it has played all
        session.say(Interrupt())
        await session.wait_for(is_a(Interruption))
        session.say(TextIn("hello", "user", respond=True))
        await session.wait_for(is_a(ResponseEnd), count=2)
    heard = brain.told[1]
    assert heard.heard_seconds is not None
    assert 0.4 <= heard.heard_seconds < sent
    assert "I am the offline voice. I listen and speak without any".startswith(heard.text)


async def test_an_interrupted_answer_is_told_as_far_as_it_was_heard() -> None:
    session, brain = FakeSession(), Reminded()
    async with serving("", session, brain=brain):
        session.say(TextIn("tell me a story", "user", respond=True))
        await session.wait_for(is_a(Audio), count=30)
        session.say(Interrupt())
        await session.wait_for(is_a(ResponseEnd))
        session.say(TextIn("go on", "user", respond=True))
        await session.wait_for(is_a(Audio), count=40)
        session.say(Interrupt())
    (told,) = [message for message in brain.told if message.role == "assistant"]
    assert told.text
    assert STORY[0].startswith(told.text)
    assert told.heard_seconds is not None
    assert told.heard_seconds < 30 * module.CHUNK_SECONDS
    assert ("assistant", told.text) in finals(session)
    # The sentence that was cut off comes again.
    partials = [f.text for f in session.frames if isinstance(f, Transcript) and not f.final]
    assert partials[:2] == [STORY[0], STORY[0]]


class ProcessEar(ScriptedEar):
    """Lets a process hear its text, which may be an order to misbehave."""

    def __init__(self, text: str, recognizer: Recognizer) -> None:
        super().__init__(text)
        self.recognizer = recognizer

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        return (await self.recognizer.hear(self.text.encode(), Grammar(()))).text


@pytest.mark.parametrize("fault", ["crash", "garbage", "hang"])
async def test_a_session_outlives_its_recogniser(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    async with open_recognizer(command=COMMAND) as recognizer:
        ear = ProcessEar(fault, recognizer)
        async with serving("", session, ear):
            if fault == "hang":
                monkeypatch.setattr(recognizer_module, "HEAR_TIMEOUT", 0.05)
            session.say(*question(), Commit())
            await session.wait_for(is_a(ResponseEnd))
            monkeypatch.undo()
            ear.text = "thanks"
            session.say(*question(), Commit())
            await session.wait_for(is_a(ResponseEnd), count=2)
    (error,) = [frame for frame in session.frames if isinstance(frame, ErrorFrame)]
    assert error.code == "RECOGNIZER_FAILED"
    assert re.fullmatch(
        r"the gateway's recogniser process [\w .]+; it is replaced, so try again", error.message
    )
    ends = [frame for frame in session.frames if isinstance(frame, ResponseEnd)]
    assert ends == [ResponseEnd("failed", "RECOGNIZER_FAILED"), ResponseEnd("done")]
    assert finals(session) == [("user", "thanks"), ("assistant", "You are welcome.")]


async def test_an_interrupt_of_nothing_is_nothing() -> None:
    session = FakeSession()
    async with serving("thanks", session):
        session.say(Interrupt(), Commit())
        await session.wait_for(is_a(ErrorFrame))
    assert not any(isinstance(frame, Interruption) for frame in session.frames)


async def test_clear_forgets_what_was_said() -> None:
    session = FakeSession()
    async with serving("thanks", session):
        session.say(*question(), Clear(), AudioIn(pcm.silence(0.3, 16_000), 16_000), Commit())
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session) == [("assistant", module.NOTHING_HEARD)]


async def test_a_tool_is_called_and_its_result_spoken() -> None:
    session = FakeSession(config=make_config(tools=[WEATHER]))
    async with serving("what is the weather in paris", session):
        session.say(*question(), Commit())
        call = (await session.wait_for(is_a(ToolCall))).frame
        assert isinstance(call, ToolCall)
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "paris"})
        session.say(ToolResult("someone else's", "no"), ToolResult(call.call_id, '{"sky": "clear"}'))
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session)[-1] == ("assistant", "sky clear.")


async def test_results_of_parallel_calls_may_come_in_any_order() -> None:
    session = FakeSession(config=make_config(tools=[WEATHER, NEWS]))
    async with serving("news and weather in oslo", session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(ToolCall), count=2)
        calls = [frame for frame in session.frames if isinstance(frame, ToolCall)]
        session.say(*(ToolResult(call.call_id, call.name) for call in reversed(calls)))
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session)[-1] == ("assistant", "get_weather. get_news.")


async def test_a_tool_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOOL_TIMEOUT", 0.01)
    session = FakeSession(config=make_config(tools=[NEWS]))
    async with serving("tell me the news", session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(ResponseEnd))
    assert finals(session)[-1] == ("assistant", "Get news did not answer.")


async def test_an_interrupt_makes_a_call_moot() -> None:
    session = FakeSession(config=make_config(tools=[NEWS]))
    async with serving("tell me the news", session):
        session.say(*question(), Commit())
        call = (await session.wait_for(is_a(ToolCall))).frame
        assert isinstance(call, ToolCall)
        session.say(Interrupt(), ToolResult(call.call_id, "late"))
        await session.wait_for(is_a(ResponseEnd))
    assert audio_seconds(session) == 0


async def test_a_failing_recogniser_is_an_error_and_the_session_goes_on() -> None:
    session = FakeSession()
    async with serving("thanks", session) as ear:
        ear.fails = True
        session.say(*question(), Commit())
        error = (await session.wait_for(is_a(ErrorFrame))).frame
        assert error == ErrorFrame("OVERLOADED", "the gateway's recogniser has too much to do; try again")
        end = (await session.wait_for(is_a(ResponseEnd))).frame
        assert end == ResponseEnd("failed", "OVERLOADED")
        ear.fails = False
        session.say(*question(), Commit())
        await session.wait_for(is_a(Audio))
        assert (await session.wait_for(is_a(ResponseEnd), count=2)).frame == ResponseEnd("done")


async def test_turns_faster_than_answers_are_refused() -> None:
    session = FakeSession()
    silent_turn = (AudioIn(pcm.silence(0.1, 16_000), 16_000), Commit())
    async with serving("thanks", session):
        session.say(*silent_turn * (module.MAX_WAITING_REPLIES + 3))
        error = (await session.wait_for(is_a(ErrorFrame))).frame
    assert isinstance(error, ErrorFrame)
    assert error.code == "OVERLOADED"


async def test_an_unknown_voice_is_an_error_and_the_usual_one_speaks() -> None:
    session = FakeSession(config=make_config(voice="alloy"))
    async with serving("thanks", session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(Audio))
    (error,) = [frame for frame in session.frames if isinstance(frame, ErrorFrame)]
    assert error.code == "UNKNOWN_VOICE"


async def test_a_chosen_voice_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    with_voice = Synthesizer.with_voice

    async def spy(synthesizer: Synthesizer, voice: str) -> Synthesizer:
        chosen.append(voice)
        return await with_voice(synthesizer, voice)

    monkeypatch.setattr(Synthesizer, "with_voice", spy)
    session = FakeSession(config=make_config(voice="heart"))
    async with serving("thanks", session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(Audio))
    assert chosen == ["heart"]
    assert not any(isinstance(frame, ErrorFrame) for frame in session.frames)


async def test_a_newer_command_is_passed_over() -> None:
    session = FakeSession()
    async with serving("thanks", session):
        session.say(Unknown("wave", "{}"), *question(), Commit())
        await session.wait_for(is_a(Audio))


class Witness(ScriptedEar):
    """Hears a name in each utterance, after a given number of turns of the event loop."""

    def __init__(self, *, turns_of_the_loop: int, idle: bool) -> None:
        super().__init__("")
        self._turns = turns_of_the_loop
        self._idle = idle

    def recognizes_ahead(self, *, paused: bool) -> bool:
        return self._idle

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        for _ in range(self._turns):
            await anyio.lowlevel.checkpoint()
        return hashlib.sha256(pcm).hexdigest()


@pytest.mark.parametrize("rate", [16_000, 24_000])
async def test_what_is_heard_depends_on_the_samples_alone(rate: int) -> None:
    """However they are cut, however fast they come, however busy the recogniser is."""
    sentence = spoken("what time is it", rate)
    samples = sentence + pcm.silence(1, rate) + sentence[: len(sentence) // 4 * 2] + pcm.silence(1, rate)
    heard = set()
    for step, pause, slowness, idle in [
        (len(samples), 0, 0, True),
        (len(samples), 0, 500, False),
        (rate // 50 * 2, 0, 0, True),
        (rate // 50 * 2, 1, 40, True),
        (1_002, 5, 0, True),
        (46, 0, 200, True),
    ]:
        witness = Witness(turns_of_the_loop=slowness, idle=idle)
        session = FakeSession(input_sample_rate=rate)
        async with serving("", session, witness):
            for at in range(0, len(samples), step):
                session.say(AudioIn(samples[at : at + step], rate))
                for _ in range(pause):
                    await anyio.lowlevel.checkpoint()
            await session.wait_for(
                lambda f: isinstance(f, Transcript) and f.role == "user" and f.final, count=2
            )
        heard.add(tuple(text for role, text in finals(session) if role == "user"))
    ((first, second),) = heard
    assert first != second


async def test_a_peer_that_leaves_while_it_speaks_ends_the_session_quietly() -> None:
    session = FakeSession()
    async with serving(LONG, session):
        session.say(*question(), Commit())
        await session.wait_for(is_a(Audio))
        session.peer_left = True
    assert audio_seconds(session) > 0


async def test_cancelling_the_handler_ends_it_in_the_middle_of_a_word() -> None:
    session = FakeSession()
    with anyio.fail_after(30), anyio.CancelScope() as scope:
        async with serving(LONG, session):
            session.say(*question(), Commit())
            await session.wait_for(is_a(Audio))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert 0 < audio_seconds(session) < 1


async def test_a_session_outside_of_the_context_is_refused() -> None:
    session = FakeSession()
    with pytest.raises(RuntimeError, match="inside `async with LocalVoice"):
        await LocalVoice()(session)
    session.dispose()
