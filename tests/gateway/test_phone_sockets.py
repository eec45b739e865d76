"""Calls over real WebSockets, through uvicorn: whole ones, and clients that mean harm."""

from __future__ import annotations

import base64
import json
from typing import Any

import anyio
import httpx
import pytest

from speko_anyio.gateway import MemoryStore, running_gateway
from speko_anyio.gateway import _phone_stream as stream
from speko_anyio.gateway._request_body import MAX_BODY
from speko_anyio.gateway.local import LocalVoice
from speko_anyio.gateway.local._dialogue import STORY
from speko_anyio.protocol import Limits
from speko_anyio.protocol._dialect import OVER_BUDGET
from speko_anyio.testing import FakeCarrier, mumble
from tests.support.phone import WholeCall, call_through

from .phone_support import (
    Assistant,
    Brain,
    Ear,
    Voice,
    ask_at,
    life_of,
    phone_gateway,
    socket,
    tone,
)

pytestmark = pytest.mark.anyio

START = {"event": "start", "sequenceNumber": "1", "streamSid": "MZ1"}


def start(parameters: dict[str, str]) -> str:
    described = {
        "streamSid": "MZ1",
        "callSid": "CA0123",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": parameters,
    }
    return json.dumps({**START, "start": described})


def media(audio: bytes, number: int = 2) -> str:
    return json.dumps(
        {
            "event": "media",
            "sequenceNumber": str(number),
            "media": {"track": "inbound", "payload": base64.b64encode(audio).decode()},
            "streamSid": "MZ1",
        }
    )


@pytest.mark.usefixtures("both_ways")
async def test_a_whole_call_over_a_real_websocket() -> None:
    bot, store = Assistant(seconds=2.0), MemoryStore()
    with anyio.fail_after(30):
        async with (
            running_gateway(phone_gateway(bot, store=store)) as url,
            socket(url) as line,
            FakeCarrier() as carrier,
        ):
            await carrier.connect(line.receive, line.send, line.close, parameters=await ask_at(url))
            await carrier.wait_playing()
            await carrier.wait_played(0.3)
            await carrier.say(tone(0.2, 8000))
            await carrier.wait_played(0.5)
            await carrier.press("7#")
            await carrier.wait_played(2.0)
            await carrier.hang_up()
    greeting, answer = carrier.answers
    assert greeting.cleared
    assert 0.3 <= greeting.played < 0.9
    assert abs(answer.played - 2.0) < 0.05
    assert bot.texts == ["7"]
    _, life = await life_of(store)
    assert (life.close_code, life.close_reason, life.closed_by) == (1000, "caller_hung_up", "client")


async def test_a_whole_call_with_the_offline_voice_over_a_real_websocket() -> None:
    """A greeting, two turns, an interruption, keys, and the caller hangs up."""
    brain, store = Brain(), MemoryStore()
    late, calls = list[float](), list[WholeCall]()
    ear = Ear("what time is it", "what is two plus three", "tell me a story", "what is two plus three")
    bot = LocalVoice(ear=ear, voice=Voice(60), brain=brain)

    async def watch() -> None:
        while True:
            due = anyio.current_time() + 0.005
            await anyio.sleep_until(due)
            late.append(anyio.current_time() - due)

    with anyio.fail_after(120):
        async with (
            running_gateway(phone_gateway(bot, store=store)) as url,
            socket(url) as line,
            FakeCarrier(delay=0.5) as carrier,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(watch)
            await carrier.connect(line.receive, line.send, line.close, parameters=await ask_at(url))
            question = mumble(0.6, sample_rate=8000)
            calls.append(await call_through(carrier, [question] * 4, interrupt_after=1.0))
            tasks.cancel_scope.cancel()
    (whole,) = calls
    cut = brain.cut()
    assert cut.heard_seconds is not None
    # Within 20 ms on a machine that has time; a busy one delays the clear on its way to the line. The clock
    # alone would be wrong by half a second.
    assert abs(cut.heard_seconds - whole.played) < 0.02 + 4 * max(late)
    assert cut.text
    assert STORY[0].startswith(cut.text) or cut.text.startswith(STORY[0])
    assert [message.text for message in brain.messages if message.role == "user"] == [*ear.script, "12"]
    _, life = await life_of(store)
    assert (life.close_code, life.close_reason, life.closed_by) == (1000, "caller_hung_up", "client")


FLOODS = {
    "tiny audio": media(b"\xff\xff"),
    "no audio": media(b""),
    "unknown": '{"event":"what"}',
    "marks": '{"event":"mark","sequenceNumber":"3","streamSid":"MZ1","mark":{"name":"1"}}',
    "keys": '{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"1"}}',
    "starts": start({}),
}


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    from speko_anyio.gateway import _session as session_module

    defaults: Any = session_module.core_options.__kwdefaults__
    limits = Limits(max_messages_per_second=100, max_messages_at_once=500)
    monkeypatch.setitem(defaults, "limits", limits)


@pytest.mark.usefixtures("both_ways", "small_budget")
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_line_that_sends_more_than_speech_is_cut(kind: str) -> None:
    store = MemoryStore()
    message = FLOODS[kind]
    with anyio.fail_after(60):
        async with running_gateway(phone_gateway(Assistant(), store=store)) as url, socket(url) as line:
            await line.send(start(await ask_at(url)))
            async with anyio.create_task_group() as tasks:

                async def flood() -> None:
                    try:
                        while True:
                            await line.send(message)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        pass

                tasks.start_soon(flood)
                while await line.receive() is not None:
                    pass
                tasks.cancel_scope.cancel()
    assert line.closed is None or line.closed[0] == 1008
    _, life = await life_of(store)
    assert (life.close_code, life.close_reason, life.closed_by) == (1008, OVER_BUDGET, "gateway")


async def test_the_pace_of_a_line_is_within_its_budget() -> None:
    """A minute of speech at once, as after a network that was away."""
    bot, store = Assistant(), MemoryStore()
    with anyio.fail_after(60):
        async with running_gateway(phone_gateway(bot, store=store)) as url, socket(url) as line:
            await line.send(start(await ask_at(url)))
            for number in range(3000):
                await line.send(media(b"\xff" * 160, number + 2))
            await line.send('{"event":"stop","sequenceNumber":"4000","streamSid":"MZ1"}')
            await line.close()
            while await line.receive() is not None:
                pass
    _, life = await life_of(store)
    assert life.close_reason == "caller_hung_up"
    assert life.outcome.input_audio_seconds == pytest.approx(60, abs=0.5)


async def test_other_callers_are_heard_during_a_flood() -> None:
    with anyio.fail_after(60):
        async with running_gateway(phone_gateway(Assistant())) as url, socket(url) as bad:
            await bad.send(start(await ask_at(url)))
            async with anyio.create_task_group() as tasks:

                async def flood() -> None:
                    try:
                        while True:
                            await bad.send_raw(b"\x81\x80\0\0\0\0" * 2000)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        pass

                tasks.start_soon(flood)
                async with socket(url) as line, FakeCarrier() as carrier:
                    parameters = await ask_at(url, {"CallSid": "CA77"})
                    await carrier.connect(line.receive, line.send, line.close, parameters=parameters)
                    await carrier.wait_playing()
                    await carrier.wait_played(0.5)
                tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("both_ways")
async def test_a_websocket_that_is_not_signed_is_refused_by_http() -> None:
    with anyio.fail_after(30):
        async with running_gateway(phone_gateway(Assistant())) as url, socket(url, signature="x") as line:
            assert line.refused == 403


@pytest.mark.usefixtures("both_ways")
async def test_an_opening_that_never_starts_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "START_TIMEOUT", 0.1)
    with anyio.fail_after(30):
        async with running_gateway(phone_gateway(Assistant())) as url, socket(url) as line:
            assert await line.receive() is None
            assert line.closed is not None
            assert line.closed[0] == 1008


async def test_the_body_of_a_webhook_has_a_limit() -> None:
    with anyio.fail_after(30):
        async with running_gateway(phone_gateway(Assistant())) as url, httpx.AsyncClient() as http:
            answer = await http.post(f"{url}/telephony/twilio", content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413


@pytest.mark.usefixtures("both_ways")
async def test_a_gateway_that_stops_closes_its_calls_in_order() -> None:
    store = MemoryStore()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            ready = anyio.Event()
            where: list[str] = []

            async def serve() -> None:
                async with running_gateway(phone_gateway(Assistant(seconds=30), store=store)) as url:
                    where.append(url)
                    ready.set()
                    await stop.wait()

            stop = anyio.Event()
            tasks.start_soon(serve)
            await ready.wait()
            async with socket(where[0]) as line:
                await line.send(start(await ask_at(where[0])))
                assert await line.receive() is not None  # the greeting begins
                stop.set()
                while await line.receive() is not None:
                    pass
            assert line.closed == (1000, "the gateway is restarting")
    _, life = await life_of(store)
    assert (life.close_code, life.closed_by) == (1012, "gateway")
