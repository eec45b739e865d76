"""`answer_call` with `barge_in`: the caller talks over the assistant, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Audio,
    Close,
    Interruption,
    OpenAI,
    PhoneCall,
    RealtimeSession,
    ResponseEnd,
    answer_call,
)
from speko_anyio.audio import BargeInDetector, gain, mix
from speko_anyio.protocol import AudioIn, Interrupt, Played
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.testing import (
    VIRTUAL_BACKENDS,
    CarrierSocket,
    FakeCarrier,
    FakePeer,
    fake_session,
    mumble,
    stream_pair,
    virtual_backend,
)
from speko_anyio.testing.providers import OpenAIDouble, Say, tone
from tests.support.accounts import DOUBLES, KEY, KINDS, MODELS, NAMES
from tests.support.event_loops import event_loop

pytestmark = pytest.mark.anyio

RATE = 8000
SPEECH = mumble(2.0, sample_rate=RATE, seed=1)
STORY = mumble(20.0, sample_rate=RATE, pitch=210.0, seed=2)
BACKCHANNEL = 0.5
"""Seconds of speech after which a detector of ours is sure."""
ROUNDING = 0.06
"""The first frames of speech may be too soft, and one may be incomplete."""


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Service:
    """Tells a story. It hears the caller itself, and says so `later`; None for a service that never does.

    - `obeys`: whether it does what an `Interrupt` asks.
    """

    def __init__(self, later: float | None, *, obeys: bool = True) -> None:
        self.peer = FakePeer(input_sample_rate=RATE, output_sample_rate=RATE)
        self.later = later
        self.obeys = obeys
        self.asked: list[int | None] = []
        """The milliseconds that were reported last, at each `Interrupt`."""
        self._played: int | None = None
        self._loud = 0
        self._noticed = False

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                match await self.peer.receive():
                    case AudioIn(pcm=pcm):
                        loud = max(memoryview(pcm).cast("h")) > 2000
                        self._loud = self._loud + 1 if loud else 0
                        if self._loud == 2 and self.later is not None and not self._noticed:
                            self._noticed = True
                            tasks.start_soon(self._interrupt, self.later)
                    case Played(ms=ms):
                        self._played = ms
                    case Interrupt():
                        self.asked.append(self._played)
                        if self.obeys:
                            self.peer.send(Interruption("assistant"), ResponseEnd("interrupted"))
                    case Close():
                        return
                    case _:
                        pass

    async def _interrupt(self, later: float) -> None:
        await anyio.sleep(later)
        self.peer.send(Interruption("user"), ResponseEnd("interrupted"))

    def tell(self, pcm: bytes = STORY) -> None:
        for start in range(0, len(pcm), 16_000):
            self.peer.send(Audio(pcm[start : start + 16_000], RATE))


@asynccontextmanager
async def call_with(
    service: Service, *, story: bytes = STORY, barge_in: Any = True, **line: Any
) -> AsyncGenerator[tuple[FakeCarrier, RealtimeSession], None]:
    """A call that is joined to a session with `service`."""
    with anyio.fail_after(600):
        async with FakeCarrier(**line) as carrier, anyio.create_task_group() as tasks:
            async with answer_call(carrier.ring(), carrier.carrier, barge_in=barge_in) as call:
                async with fake_session(peer=service.peer, within=600) as (session, _):
                    tasks.start_soon(service.run)
                    tasks.start_soon(call.join, session)
                    service.tell(story)
                    yield carrier, session
                    await carrier.hang_up()
            tasks.cancel_scope.cancel()


async def cut_after(carrier: FakeCarrier, speech: bytes = SPEECH) -> float:
    """Talk over the answer when the line has played 2 seconds of it; return how much more of it was heard."""
    await carrier.wait_playing()
    await carrier.wait_played(2.0)
    begin = carrier.played
    await carrier.say(speech)
    (cleared,) = carrier.clears
    return cleared - begin


@pytest.mark.parametrize("later", [0.3, 0.8, 1.5, None])
async def test_the_line_is_cleared_without_waiting_for_the_service(later: float | None) -> None:
    service = Service(later)
    async with call_with(service) as (carrier, _):
        heard = await cut_after(carrier)
        await carrier.wait_quiet()
        assert heard <= BACKCHANNEL + ROUNDING
        assert heard == pytest.approx(min(BACKCHANNEL, (later or 9.0) + 0.04), abs=ROUNDING)
        assert len(carrier.clears) == 1
        assert [round(answer.played, 1) for answer in carrier.answers] == [round(2.0 + heard, 1)]


@pytest.mark.parametrize("later", [0.8, 1.5])
async def test_without_it_the_line_plays_until_the_service_interrupts(later: float) -> None:
    service = Service(later)
    async with call_with(service, barge_in=False) as (carrier, _):
        assert await cut_after(carrier) == pytest.approx(later + 0.04, abs=ROUNDING)
    assert service.asked == []


@pytest.mark.parametrize("later", [0.3, 0.8, None])
@pytest.mark.parametrize("backchannel", [0.0, 0.2])
async def test_shorter_speech_may_interrupt(backchannel: float, later: float | None) -> None:
    service = Service(later)
    detector = partial(BargeInDetector, backchannel=backchannel)
    async with call_with(service, barge_in=detector) as (carrier, _):
        assert await cut_after(carrier) == pytest.approx(max(backchannel, 0.06), abs=ROUNDING)


async def test_the_clear_waits_for_nothing() -> None:
    """Not for the service, and not for the next look at the line, which comes every 0.1 seconds."""
    service = Service(None, obeys=False)
    async with call_with(service, story=STORY[:128_000]) as (carrier, _):
        await cut_after(carrier)
        (told,) = service.asked
        assert told is not None
        assert told / 1000 == pytest.approx(carrier.clears[0], abs=0.001)


@pytest.mark.parametrize("delay", [0.0, 0.3])
@pytest.mark.parametrize("name", ["twilio", "telnyx", "plivo", "vonage"])
async def test_the_service_knows_what_was_heard_when_it_is_asked(name: Any, delay: float) -> None:
    service = Service(None)
    async with call_with(service, carrier=name, delay=delay, jitter=0.004) as (carrier, _):
        await carrier.wait_playing()
        await carrier.wait_played(2.0)
        await carrier.say(SPEECH, sample_rate=RATE)
        (told,) = service.asked
        assert told is not None
        assert told / 1000 == pytest.approx(carrier.clears[0], abs=0.02)


async def test_the_next_answer_is_heard_in_full() -> None:
    service = Service(0.8)
    async with call_with(service) as (carrier, _):
        await cut_after(carrier)
        await carrier.wait_quiet()
        service.tell(SPEECH)
        heard = await carrier.listen()
        assert len(heard) == len(SPEECH)
        assert len(carrier.clears) == 1
        assert len(service.asked) == 1


async def test_a_service_that_goes_on_with_its_answer_is_not_heard() -> None:
    service = Service(None, obeys=False)
    async with call_with(service, story=STORY[:64_000]) as (carrier, _):
        await cut_after(carrier)
        for second in range(5):
            service.tell(STORY[second * 16_000 :][:16_000])
            await anyio.sleep(1.0)
        assert carrier.buffered == 0
        service.peer.send(ResponseEnd("done"))
        service.tell(SPEECH)
        assert len(await carrier.listen()) == len(SPEECH)


async def test_the_caller_interrupts_again_and_again() -> None:
    service = Service(None)
    async with call_with(service, story=b"") as (carrier, _):
        for number in range(3):
            service.tell()
            await carrier.wait_playing()
            await carrier.wait_played(1.0)
            await carrier.say(SPEECH)
            await carrier.wait_quiet(1.0)
            assert len(carrier.clears) == len(service.asked) == number + 1
        assert all(cleared == pytest.approx(1.0 + BACKCHANNEL, abs=ROUNDING) for cleared in carrier.clears)


@pytest.mark.parametrize("anyio_backend", [event_loop("uvloop")])
async def test_in_real_time_too() -> None:
    service = Service(None)
    async with call_with(service) as (carrier, _):
        await carrier.wait_playing()
        await carrier.say(SPEECH[: 2 * RATE])
        while not (service.asked and carrier.clears):  # noqa: ASYNC110 - the caller waits for both
            await anyio.sleep(0.01)
        assert carrier.buffered == 0


# What is no interruption


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(SPEECH[: round(0.4 * RATE) * 2], id="backchannel"),
        pytest.param(gain(SPEECH, -40.0), id="soft"),
        pytest.param(tone(3.0, RATE), id="tone"),
        pytest.param(bytes(RATE), id="silence"),
    ],
)
async def test_this_does_not_cut(sound: bytes) -> None:
    service = Service(None)
    async with call_with(service) as (carrier, _):
        await carrier.wait_playing()
        for _ in range(3):
            await carrier.say(sound)
            await anyio.sleep(1.0)
        assert carrier.clears == []
        assert service.asked == []


@pytest.mark.parametrize("loss", [3.0, 12.0, 25.0])
@pytest.mark.parametrize("delay", [0.1, 0.33])
async def test_the_assistants_echo_does_not_cut(loss: float, delay: float) -> None:
    service = Service(None)
    async with call_with(service) as (carrier, _):
        await carrier.wait_playing()
        await anyio.sleep(delay)
        returned = 0
        while (heard := len(carrier.heard_audio())) < len(STORY):
            await carrier.say(gain(carrier.heard_audio()[returned:heard], -loss))
            returned = heard
        assert carrier.clears == []


async def test_over_an_echo_the_caller_does() -> None:
    service = Service(None)
    async with call_with(service) as (carrier, _):
        await carrier.wait_playing()
        await carrier.wait_played(2.0)
        echo = gain(STORY[28_800:], -25.0)[: len(SPEECH)]
        await carrier.say(mix(SPEECH, echo))
        (cleared,) = carrier.clears
        assert cleared - 2.0 <= BACKCHANNEL + ROUNDING


# Whole calls with providers


@pytest.mark.parametrize("name", NAMES)
async def test_a_provider_interrupts_as_well(name: str) -> None:
    """Its double notices any sound within 40 ms, so it is first: nothing happens twice."""
    carrier = FakeCarrier()
    double = DOUBLES[name]([Say("A long story.", 30.0), Say("Yes?", 0.6)], api_key=KEY)
    ours, theirs = stream_pair()

    async def answer(socket: CarrierSocket) -> None:
        async with answer_call(socket, barge_in=True) as call:
            async with KINDS[name](KEY).connect(model=MODELS[name], stream=ours) as session:
                await call.join(session)

    with anyio.fail_after(300):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(double.handle, theirs)
            async with carrier, anyio.create_task_group() as calls:
                calls.start_soon(answer, carrier.ring())
                await carrier.say(SPEECH)
                await carrier.wait_playing()
                await carrier.wait_played(2.0)
                await carrier.say(SPEECH)
                assert len(await carrier.listen()) / 2 / RATE == pytest.approx(0.6, abs=0.01)
                await carrier.hang_up()
            tasks.cancel_scope.cancel()
    assert len(carrier.clears) == 1
    assert [answer.cleared for answer in carrier.answers] == [True, False]
    if name != "google":  # it is not told
        ((_, heard),) = double.session.truncations
        assert heard / 1000 == pytest.approx(carrier.clears[0], abs=0.02)


@pytest.mark.parametrize("delay", [0.0, 0.4])
async def test_a_provider_that_detects_no_turns_is_told_where_its_answer_ended(delay: float) -> None:
    carrier = FakeCarrier(delay=delay)
    double = OpenAIDouble([Say("A long story.", 30.0), Say("Yes?", 0.6)], api_key=KEY)
    ours, theirs = stream_pair()

    async def answer(socket: CarrierSocket) -> None:
        async with answer_call(socket, barge_in=True) as call:
            provider = OpenAI(KEY, options=OpenAIOptions(turns="manual"))
            async with provider.connect(model=MODELS["openai"], stream=ours) as session:
                await session.respond("Tell a story.")
                await call.join(session)

    with anyio.fail_after(300):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(double.handle, theirs)
            async with carrier, anyio.create_task_group() as calls:
                calls.start_soon(answer, carrier.ring())
                await carrier.wait_playing()
                await carrier.wait_played(2.0)
                await carrier.say(SPEECH)
                await carrier.hang_up()
            tasks.cancel_scope.cancel()
    ((_, heard),) = double.session.truncations
    assert heard / 1000 == pytest.approx(carrier.clears[0], abs=0.02)
    assert carrier.clears[0] == pytest.approx(2.0 + BACKCHANNEL, abs=ROUNDING)


# The detector


async def test_each_call_has_a_detector_of_its_own_at_the_lines_rate() -> None:
    rates: list[int] = []

    def make(rate: int) -> BargeInDetector:
        rates.append(rate)
        return BargeInDetector(rate)

    calls: list[PhoneCall] = []
    for name in ("vonage", "twilio"):
        async with FakeCarrier(name) as carrier:
            async with answer_call(carrier.ring(), name, barge_in=make) as call:
                calls.append(call)
    assert rates == [16_000, 8000]
    assert calls[0]._barge_in is not calls[1]._barge_in


async def test_a_detector_that_cannot_be_made_ends_the_call_before_a_session_begins() -> None:
    def make(rate: int) -> BargeInDetector:
        raise ImportError("detecting speech needs a package")

    async with FakeCarrier() as carrier:
        with pytest.raises(ImportError, match="needs a package"):
            async with answer_call(carrier.ring(), barge_in=make):
                raise AssertionError("nobody talks")
        assert await carrier.wait_ended() == (1011, "")
