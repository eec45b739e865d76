"""A simulated call with the offline voice on virtual time; the test brings only an ear and a voice.

The real ear is a process, and the real voice a thread: neither follows a virtual clock. Everything between
them is the product's: the line, turn detection, the dialogue, the pace of speech, and interruptions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from speko_anyio.gateway import MemoryStore, Phone
from speko_anyio.gateway.local import LocalVoice
from speko_anyio.gateway.local._dialogue import STORY
from speko_anyio.testing import VIRTUAL_BACKENDS, FakeCarrier, mumble, virtual_backend
from tests.support.phone import call_through

from .phone_support import AUTH_TOKEN, Brain, Ear, Voice, call, life_of, phone_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.speech]

LATENCY = 0.03
"""Seconds that a message takes on its way between the carrier and the gateway."""

TURNS = ("what time is it", "what is two plus three", "tell me a story", "go on")
"""What the caller of a whole call says; the last interrupts the story."""

ONSET = 0.3
"""Seconds of speech within which the turn detector is sure."""


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


async def test_a_call_is_greeted_answered_interrupted_and_hung_up() -> None:
    voice, store = Voice(), MemoryStore()
    ear = Ear("what time is it", "tell me a story", "what is two plus three")
    bot = LocalVoice(ear=ear, voice=voice, now=lambda: datetime(2026, 5, 4, 9, 30, tzinfo=UTC))
    gateway = phone_gateway(
        bot, store=store, phone=Phone(handler="bot", auth_token=AUTH_TOKEN), transcript_retention=3600.0
    )
    question = mumble(1.0, sample_rate=8000)
    with anyio.fail_after(200):
        async with gateway.running(), FakeCarrier(latency=LATENCY) as carrier:
            await call(carrier, gateway)
            await carrier.listen()
            await carrier.say(question)
            await carrier.listen()
            await carrier.say(question)
            await carrier.wait_playing()
            await carrier.wait_played(carrier.played + 3.0)
            await carrier.say(question)
            await carrier.listen()
            await carrier.press("1#")
            await carrier.listen()
            await carrier.hang_up()
    record, life = await life_of(store)
    greeting, time_of_day, story, result, repeated = carrier.answers
    assert voice.said[0] == "Hello!"
    assert "It is 9:30 AM." in voice.said
    assert [answer.cleared for answer in (greeting, time_of_day, result, repeated)] == [False] * 4
    assert time_of_day.played == pytest.approx(len("It is 9:30 AM.") / 20, abs=0.1)
    # The line stops as soon as the detector is sure, within the way there and back.
    assert story.cleared
    assert 3.0 < story.played < 3.0 + ONSET + 2 * LATENCY
    assert "2 plus 3 is 5." in voice.said
    # The key is a text that it can't answer.
    assert "Sorry, I didn't catch that." in voice.said

    assert record.key_id == "phone:twilio"
    assert (life.close_code, life.close_reason, life.closed_by) == (1000, "caller_hung_up", "client")


@pytest.mark.parametrize("delay", [0.0, 0.3])
async def test_an_interrupted_answer_is_cut_where_the_line_stopped(delay: float) -> None:
    """`delay`: the line plays later than the clock says, which only its marks tell."""
    voice, brain, store = Voice(), Brain(), MemoryStore()
    bot = LocalVoice(ear=Ear(*TURNS), voice=voice, brain=brain)
    gateway = phone_gateway(bot, store=store, transcript_retention=3600.0)
    question = mumble(1.0, sample_rate=8000)
    with anyio.fail_after(300):
        async with gateway.running(), FakeCarrier(delay=delay) as carrier:
            await call(carrier, gateway)
            whole = await call_through(carrier, [question] * 4, interrupt_after=5.0)
    assert whole.played > 5.0
    cut = brain.cut()
    assert cut.heard_seconds == pytest.approx(whole.played, abs=0.02)
    assert cut.text == f"{STORY[0]} Every evening she lit the lamp,"
    # It goes on with the sentence that was cut off, which has been spoken twice then.
    assert [voice.said.count(sentence) for sentence in STORY[:4]] == [1, 2, 1, 1]
    record, _ = await life_of(store)
    page = await store.transcript(record.session_id, after=0)
    assert [line.text for line in page.lines if line.role == "assistant"][3] == cut.text
