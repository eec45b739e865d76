"""The example of a bot of one's own: it answers, is interrupted, calls tools, and survives its engines."""

from __future__ import annotations

import importlib
import math
import re
import shlex
import signal
import sys
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Audio,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    RealtimeSession,
    ResponseEnd,
    Speko,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.audio import EndOfTurn, Timing
from speko_anyio.audio._pcm import duration, rms_dbfs, silence
from speko_anyio.cli import main
from speko_anyio.gateway import Gateway, running_gateway
from speko_anyio.gateway.engines import EngineError, Engines, Message, ToolRequest
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.testing import VIRTUAL_BACKENDS, FakePeer, fake_session, run_handler, virtual_backend
from tests.support.patience import PATIENCE
from tests.support.processes import environment, run, running
from tests.support.speech import spoken

EXAMPLE = Path(__file__).parents[2] / "examples" / "pipeline"
RATE = 24_000

pytestmark = pytest.mark.anyio


def speech(seconds: float) -> bytes:
    """Return a tone, which is equally loud throughout, unlike syllables."""
    return array(
        "h", (round(9_000 * math.sin(index / 20)) for index in range(round(seconds * RATE)))
    ).tobytes()


QUESTION = speech(0.9) + silence(0.6, RATE)


def loud(sample_rate: int) -> Callable[[bytes], bool]:
    """Make a detector that takes a tone for speech however long it lasts."""
    return lambda frame: rms_dbfs(frame) > -45


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import the example's modules as its own folder's programs do, and forget them afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield importlib.import_module
    for path in EXAMPLE.glob("*.py"):
        sys.modules.pop(path.stem, None)


class FakeEngines:
    """All three: hears what it is told, answers from a list, speaks 100 ms for each character."""

    def __init__(self, *answers: Sequence[object]) -> None:
        self.answers = list(answers)
        self.hears = "tell me"
        self.heard: list[float] = []
        self.asked: list[list[Any]] = []
        self.broken = False
        self.deaf = False

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        self.heard.append(duration(pcm, sample_rate))
        await anyio.sleep(0.1)
        if self.deaf:
            raise EngineError("DEAF", "the ears are stopped")
        return self.hears

    async def answer(self, messages: Sequence[Any], tools: object) -> AsyncGenerator[Any, None]:
        self.asked.append(list(messages))
        for part in self.answers.pop(0):
            await anyio.sleep(0.01)
            yield part

    async def synthesize(self, text: str, sample_rate: int) -> AsyncGenerator[bytes, None]:
        await anyio.sleep(0.01)
        if self.broken:
            raise EngineError("MUTE", "the voice is lost")
        for _ in text:
            yield bytes(round(sample_rate / 10) * 2)


Talk = Callable[..., Any]


@pytest.fixture
def talk(example: Callable[[str], ModuleType]) -> Talk:
    """Open a session with the bot and these answers of its model."""
    my_bot = example("my_bot")

    @asynccontextmanager
    async def opened(
        *answers: Sequence[object],
        tools: Sequence[Any] = (),
        timing: Timing | None = None,
        end_of_turn: EndOfTurn | None = None,
    ) -> AsyncIterator[tuple[RealtimeSession, FakeEngines]]:
        fake = FakeEngines(*answers)

        @asynccontextmanager
        async def open_engines() -> AsyncIterator[Any]:
            yield Engines(fake, fake, fake)

        config = SessionConfig(provider="my-bot", model="any", system_prompt="Be kind.")
        async with (
            my_bot.MyBot(open_engines, make_vad=loud, timing=timing, end_of_turn=end_of_turn) as bot,
            fake_session(run_handler(bot), peer=FakePeer(config=config), tools=tools, within=60) as ends,
        ):
            session, _ = ends
            assert isinstance(await session.receive(), Ready)
            yield session, fake

    return opened


async def until(session: RealtimeSession, kind: type[Frame], count: int = 1) -> list[Frame]:
    """Return the frames up to the `count`-th of a kind."""
    frames: list[Frame] = []
    while sum(isinstance(frame, kind) for frame in frames) < count:
        frames.append(await session.receive())
    return frames


def told(frames: Sequence[Frame]) -> list[Frame]:
    return [frame for frame in frames if not isinstance(frame, Audio)]


def seconds(frames: Sequence[Frame]) -> float:
    return sum(duration(frame.pcm, RATE) for frame in frames if isinstance(frame, Audio))


async def test_a_question_is_answered(talk: Talk) -> None:
    async with talk(["Yes.", "No."]) as (session, fake):
        await session.send_audio(QUESTION)
        frames = await until(session, ResponseEnd)
    assert told(frames) == [
        Transcript("user", "tell me", True),
        Transcript("assistant", "Yes.", False),
        Transcript("assistant", "Yes. No.", False),
        Transcript("assistant", "Yes. No.", True),
        Usage(14, 7),
        ResponseEnd("done"),
    ]
    assert seconds(frames) == pytest.approx(0.7)
    assert [message.text for message in fake.asked[0]] == ["Be kind.", "tell me"]


class TestInTime:
    """Where seconds pass, they are virtual."""

    @pytest.fixture(params=VIRTUAL_BACKENDS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        return virtual_backend(request.param)

    async def test_what_is_said_is_shown_while_it_is_said(self, talk: Talk) -> None:
        async with talk(["Yes."]) as (session, fake):
            for _ in range(20):
                await session.send_audio(speech(0.1))
                await anyio.sleep(0.1)
            frames = await until(session, Transcript)
            assert frames == [Transcript("user", "tell me", False)]
            assert fake.heard == pytest.approx([1.16, 2.12], abs=0.05)
            await session.commit()
            frames = await until(session, ResponseEnd)
        assert Transcript("user", "tell me", True) in frames

    async def test_talking_over_it_stops_it_at_once(self, talk: Talk) -> None:
        async with talk(["A" * 20, "B" * 20], ["Well."]) as (session, fake):
            await session.send_audio(QUESTION)
            await until(session, Audio)
            await anyio.sleep(1.0)
            await session.send_audio(speech(0.1))
            frames = await until(session, ResponseEnd)
            cut = next(i for i, frame in enumerate(frames) if isinstance(frame, Interruption))
            assert seconds(frames[cut:]) == 0
            assert seconds(frames) < 1.6
            assert told(frames[cut:]) == [
                Interruption("user"),
                Transcript("assistant", "A" * 20, True),
                Usage(14, 14),
                ResponseEnd("interrupted"),
            ]
            await session.send_audio(QUESTION)
            frames = await until(session, ResponseEnd)
            assert Transcript("assistant", "Well.", True) in frames
        assert [message.text for message in fake.asked[1]] == ["Be kind.", "tell me", "A" * 20, "tell me"]

    async def test_an_mhm_does_not_stop_it(self, talk: Talk) -> None:
        async with talk(["A" * 20], ["Well."], timing=Timing(backchannel=0.4)) as (session, fake):
            await session.send_audio(QUESTION)
            await until(session, Audio)
            await session.send_audio(speech(0.3) + silence(0.6, RATE))
            frames = await until(session, ResponseEnd)
            assert Interruption("user") not in frames
            assert frames[-1] == ResponseEnd("done")
            await session.send_audio(speech(0.3) + silence(0.6, RATE))
            assert Transcript("assistant", "Well.", True) in await until(session, ResponseEnd)
        assert max(fake.heard) < 1.5

    async def test_a_model_says_whether_the_turn_is_over(self, talk: Talk) -> None:
        class Impatient:
            async def probability(self, utterance: bytes, sample_rate: int, text: str) -> float:
                assert text == "tell me"
                return 1.0

        async with talk(["Yes."], end_of_turn=Impatient()) as (session, _):
            await session.send_audio(speech(0.9))
            for _ in range(20):
                await session.send_audio(silence(0.02, RATE))
                await anyio.sleep(0.02)
            assert Transcript("assistant", "Yes.", True) in await until(session, ResponseEnd)

    async def test_a_client_may_interrupt_while_all_was_sent_and_not_played(self, talk: Talk) -> None:
        async with talk(["Yes."]) as (session, _):
            await session.send_audio(QUESTION)
            await until(session, Audio, 10)
            await session.interrupt()
            assert told(await until(session, Interruption)) == [Interruption("user")]

    async def test_an_interrupt_without_an_answer_does_nothing(self, talk: Talk) -> None:
        async with talk(["Yes."]) as (session, _):
            await session.interrupt()
            await session.send_audio(QUESTION)
            frames = await until(session, ResponseEnd)
            await session.interrupt()
            await anyio.sleep(1.0)
        assert not any(isinstance(frame, Interruption) for frame in frames)

    async def test_who_goes_on_after_a_pause_is_heard_from_the_start(self, talk: Talk) -> None:
        async with talk(["Yes."]) as (session, fake):
            await session.send_audio(QUESTION)
            await session.send_audio(QUESTION)
            frames = await until(session, ResponseEnd)
        assert max(fake.heard) == pytest.approx(1.4 + 1.4 + 0.1, abs=0.15)
        assert sum(frame == Transcript("user", "tell me", True) for frame in frames) == 1

    async def test_a_tool_is_called_and_its_result_goes_to_the_model(self, talk: Talk) -> None:
        async def get_weather(city: str) -> str:
            await anyio.sleep(1)
            return f"rain in {city}"

        request = ToolRequest("get_weather", '{"city": "Oslo"}')
        async with talk([request], ["It rains."], tools=[get_weather]) as (session, fake):
            await session.send_audio(QUESTION)
            frames = await until(session, ResponseEnd)
        assert ToolCall("call-1", "get_weather", '{"city": "Oslo"}') in frames
        assert fake.asked[1][-1] == Message("tool", "rain in Oslo", request)
        assert Transcript("assistant", "It rains.", True) in frames

    async def test_a_tool_that_does_not_answer_is_not_waited_for_for_ever(self, talk: Talk) -> None:
        request = ToolRequest("nap", "{}")
        async with talk([request], ["Sorry."]) as (session, fake):
            start = anyio.current_time()
            await session.send_audio(QUESTION)
            await until(session, ToolCall)
            await until(session, ResponseEnd)
            assert 30 <= anyio.current_time() - start < 33
            # Too late: nobody waits for it, and nothing breaks.
            await session.send_tool_result("call-1", "up")
            await session.interrupt()
            await anyio.sleep(1)
        assert fake.asked[1][-1] == Message("tool", "nap gave no answer in 30 seconds", request)

    async def test_a_model_that_only_asks_for_tools_is_stopped(self, talk: Talk) -> None:
        async def nap() -> str:
            return "more"

        request = ToolRequest("nap", "{}")
        async with talk(*[[request]] * 9, tools=[nap]) as (session, fake):
            await session.send_audio(QUESTION)
            frames = await until(session, ResponseEnd)
        assert ErrorFrame("TOOL_LOOP", "the model asked for tools 5 times in a row") in frames
        assert len(fake.asked) == 5

    async def test_an_engine_that_fails_costs_one_answer(self, talk: Talk) -> None:
        async with talk(["Yes."], ["Yes."]) as (session, fake):
            fake.broken = True
            await session.send_audio(QUESTION)
            assert ErrorFrame("MUTE", "the voice is lost") in await until(session, ResponseEnd)
            fake.broken = False
            await session.send_audio(QUESTION)
            assert Transcript("assistant", "Yes.", True) in await until(session, ResponseEnd)

    async def test_ears_that_fail_are_told_once(self, talk: Talk) -> None:
        async with talk() as (session, fake):
            fake.deaf = True
            await session.send_audio(QUESTION)
            assert told(await until(session, ResponseEnd)) == [
                ErrorFrame("DEAF", "the ears are stopped"),
                Usage(0, 0),
                ResponseEnd("failed"),
            ]

    async def test_audio_that_is_cleared_is_not_answered(self, talk: Talk) -> None:
        async with talk() as (session, fake):
            await session.send_audio(speech(0.5))
            await session.clear()
            await session.commit()
            await anyio.sleep(2)
        assert fake.heard == []

    async def test_a_text_is_answered_without_being_heard(self, talk: Talk) -> None:
        async with talk(["Yes."]) as (session, fake):
            await session.send_text("It rains.", role="system")
            await session.send_text("Is it wet?")
            frames = await until(session, ResponseEnd)
        assert told(frames) == [
            Transcript("assistant", "Yes.", False),
            Transcript("assistant", "Yes.", True),
            Usage(0, 4),
            ResponseEnd("done"),
        ]
        assert fake.heard == []
        assert fake.asked[0] == [
            Message("system", "Be kind."),
            Message("system", "It rains."),
            Message("user", "Is it wet?"),
        ]

    async def test_it_speaks_first(self, talk: Talk) -> None:
        async with talk(["Hello."], ["Yes."]) as (session, fake):
            await session.respond("Greet briefly.")
            frames = await until(session, ResponseEnd)
            assert Transcript("assistant", "Hello.", True) in frames
            await session.send_text("Nice.")
            await until(session, ResponseEnd)
        assert fake.asked[0][-1] == Message("system", "Greet briefly.")
        # The instructions were for one answer.
        assert [message.text for message in fake.asked[1]] == ["Be kind.", "Hello.", "Nice."]

    async def test_it_says_what_it_is_told_one_after_the_other(self, talk: Talk) -> None:
        async with talk() as (session, fake):
            await session.say("A" * 10)
            await session.say("B" * 10)
            frames = await until(session, ResponseEnd, 2)
        finals = [frame.text for frame in frames if isinstance(frame, Transcript) and frame.final]
        assert finals == ["A" * 10, "B" * 10]
        assert ResponseEnd("interrupted") not in frames
        assert fake.asked == []

    async def test_a_text_cuts_off_an_answer_and_a_request_to_speak_waits(self, talk: Talk) -> None:
        async with talk(["A" * 20], ["Well."]) as (session, _):
            await session.send_text("Go on.")
            await until(session, Audio)
            await anyio.sleep(0.5)
            await session.say("By the way.")
            await session.send_text("Stop.")
            frames = told(await until(session, ResponseEnd, 3))
        ends = [frame for frame in frames if isinstance(frame, ResponseEnd)]
        assert ends == [ResponseEnd("interrupted"), ResponseEnd("done"), ResponseEnd("done")]
        assert Interruption("user") in frames
        finals = [frame.text for frame in frames if isinstance(frame, Transcript) and frame.final]
        assert finals == ["A" * 20, "Well.", "By the way."]

    async def test_it_does_not_talk_over_the_user(self, talk: Talk) -> None:
        async with talk(["Yes."]) as (session, _):
            await session.send_audio(speech(0.9))
            await session.say("By the way.")
            await anyio.sleep(3)
            await session.commit()
            frames = await until(session, ResponseEnd, 2)
        finals = [frame.text for frame in frames if isinstance(frame, Transcript) and frame.final]
        assert finals == ["tell me", "Yes.", "By the way."]

    async def test_a_request_goes_on_when_the_speech_is_cleared(self, talk: Talk) -> None:
        async with talk() as (session, _):
            await session.send_audio(speech(0.9))
            await session.say("By the way.")
            await session.clear()
            frames = await until(session, ResponseEnd)
        assert Transcript("assistant", "By the way.", True) in frames

    async def test_instructions_and_tools_change_in_mid_call(self, talk: Talk) -> None:
        async def nap() -> str:
            return "slept"

        request = ToolRequest("nap", "{}")
        async with talk([request], ["Done."]) as (session, fake):
            await session.update(system_prompt="Be brief.", tools=[nap])
            await session.send_text("Take a nap.")
            await until(session, ResponseEnd)
        assert fake.asked[0][0] == Message("system", "Be brief.")
        assert fake.asked[1][-1] == Message("tool", "slept", request)

    async def test_the_client_may_leave_in_the_middle_of_an_answer(self, talk: Talk) -> None:
        async with talk(["A" * 50]) as (session, _):
            await session.send_audio(QUESTION)
            await until(session, Audio)
            start = anyio.current_time()
            await session.close()
        assert anyio.current_time() - start < 1


def ask(text: str) -> bytes:
    return silence(0.2, RATE) + spoken(text, RATE) + silence(0.8, RATE)


@pytest.mark.speech
async def test_it_really_listens_and_speaks(example: Callable[[str], ModuleType]) -> None:
    async def get_weather(city: str) -> str:
        return f"rain in {city}"

    bot = example("my_bot").MyBot(example("offline").offline_engines)
    gateway = Gateway(handlers={"my-bot": bot}, api_keys=["sk_example"])
    with anyio.fail_after(60):
        async with (
            running_gateway(gateway) as url,
            Speko("sk_example", url) as speko,
            speko.realtime.connect(provider="my-bot", model="any", tools=[get_weather]) as session,
        ):
            await session.send_audio(ask("what is the weather in Oslo"))
            frames = await until(session, ResponseEnd)
    assert Transcript("user", "what is the weather in oslo", True) in frames
    assert ToolCall("call-1", "get_weather", '{"city": "Oslo"}') in frames
    assert Transcript("assistant", "I was told: rain in Oslo.", True) in frames
    assert seconds(frames) > 0.5


def test_the_command_would_serve_it(monkeypatch: pytest.MonkeyPatch, example: object) -> None:
    (line,) = re.findall(r"speko-anyio (serve .*)", (EXAMPLE / "my_bot.py").read_text(encoding="utf-8"))
    _, *arguments = line.split()
    monkeypatch.chdir(EXAMPLE)
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "0")
    assert main(["gateway", "check", "--database", "memory", *arguments]) == 0


@pytest.mark.speech
def test_it_serves_and_the_command_asks_it(tmp_path: Path) -> None:
    with running([sys.executable, EXAMPLE / "my_bot.py", "0"], env=environment()) as bot:
        assert bot.stdout is not None
        match = re.fullmatch(r"export SPEKO_BASE_URL=(\S+) SPEKO_API_KEY=(\S+)\n", bot.stdout.readline())
        assert match is not None
        command = shlex.split(bot.stdout.readline())
        assert command[0] == "speko-anyio"
        asked = run(
            [sys.executable, "-m", "speko_anyio.cli", *command[1:]],
            env=environment(SPEKO_BASE_URL=match[1], SPEKO_API_KEY=match[2]),
            cwd=tmp_path,
        )
        assert asked.returncode == 0, asked.stderr
        assert "You said: hello." in asked.stdout
        bot.send_signal(signal.SIGINT)
        _, log = bot.communicate(timeout=PATIENCE)
        assert bot.returncode == 0
        assert "Traceback" not in log
