"""Whole calls of a simulated carrier through the gateway, on virtual time."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import anyio
import pytest

from speko_anyio.gateway import Handler, MemoryStore, Phone, ServerSession, takes
from speko_anyio.gateway.store._records import SessionLife
from speko_anyio.protocol import AudioIn, Capabilities, Close, Played, Respond, ToolResult
from speko_anyio.telephony._bridge import GOODBYE_TIMEOUT
from speko_anyio.testing import VIRTUAL_BACKENDS, FakeCarrier, virtual_backend

from .phone_support import AUTH_TOKEN, CALL, Assistant, ask, call, life_of, loud, phone_gateway, tone

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


async def test_a_call_is_greeted_answered_interrupted_and_recorded() -> None:
    bot, store = Assistant(seconds=5), MemoryStore()
    gateway = phone_gateway(bot, store=store)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier(latency=0.05, jitter=0.02) as carrier:
            await call(carrier, gateway)
            assert abs(len(await carrier.listen()) / 16_000 - 1.0) < 0.02
            await carrier.say(tone(0.5, 8000))
            await carrier.wait_playing()
            await carrier.wait_played(1.5)
            await carrier.say(tone(0.5, 8000))
            assert abs(len(await carrier.listen()) / 16_000 - 5.0) < 0.02
            await carrier.press("42#")
            await anyio.sleep(0.5)
            await carrier.hang_up()
    greeting, cut, whole = carrier.answers
    assert (greeting.cleared, cut.cleared) == (True, True)
    # The line stops within the way of the caller's first words here and of the clear back.
    assert 1.5 < cut.played < 1.5 + 2 * 0.07 + 0.04
    assert abs(whole.played - 5.0) < 0.02
    assert bot.texts == ["42"]
    assert bot.commands[-1] == Close(1000, "caller_hung_up", "remote")
    assert bot.metadata == {
        "phone": {
            "carrier": "twilio",
            "call_id": "CA0123",
            "caller": "+15550100001",
            "called": "+15550100002",
        }
    }
    record, life = await life_of(store)
    assert (record.key_id, record.provider) == ("phone:twilio", "bot")
    assert (life.close_code, life.close_reason, life.closed_by) == (1000, "caller_hung_up", "client")
    assert life.outcome.input_audio_seconds > 8
    assert abs(life.outcome.output_audio_seconds - 11.0) < 0.01


async def ended(
    carrier: FakeCarrier, handler: Handler, **options: Any
) -> tuple[SessionLife, tuple[int, str]]:
    """The record of a call, and the close of the carrier's WebSocket, if the caller never hangs up."""
    store = MemoryStore()
    gateway = phone_gateway(handler, store=store, **options)
    with anyio.fail_after(2000):
        async with gateway.running(), carrier:
            await call(carrier, gateway)
            closed = await carrier.wait_ended()
    return (await life_of(store))[1], closed


async def test_a_broken_websocket_is_not_a_caller_who_hangs_up() -> None:
    bot, store = Assistant(), MemoryStore()
    gateway = phone_gateway(bot, store=store)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await carrier.listen()
            await carrier.hang_up(1006, stop=False)
    _, life = await life_of(store)
    assert (life.close_code, life.closed_by) == (1006, "transport")


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1000, (1000, "caller_hung_up")), (1001, (1000, "caller_hung_up")), (1011, (1011, ""))],
)
async def test_a_carrier_that_closes_without_a_stop_ends_the_call(
    code: int, expected: tuple[int, str]
) -> None:
    bot, store = Assistant(), MemoryStore()
    gateway = phone_gateway(bot, store=store)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await carrier.hang_up(code, stop=False)
    _, life = await life_of(store)
    assert (life.close_code, life.close_reason) == expected
    assert life.closed_by == "client"


async def say_goodbye(session: ServerSession) -> None:
    await session.send_audio(tone(3.0, session.output_sample_rate))


async def test_the_caller_hears_the_end_of_a_session_that_the_handler_ends() -> None:
    carrier = FakeCarrier(latency=0.05)
    life, closed = await ended(carrier, say_goodbye)
    (answer,) = carrier.answers
    assert abs(answer.played - 3.0) < 0.02
    assert carrier.hung_up_by == "application"
    assert closed[0] == 1000
    assert (life.close_code, life.closed_by) == (1000, "gateway")


async def talk_without_end(session: ServerSession) -> None:
    await session.send_audio(tone(300.0, session.output_sample_rate))


async def test_last_words_have_an_end() -> None:
    carrier = FakeCarrier()
    start = anyio.current_time()
    await ended(carrier, talk_without_end)
    assert anyio.current_time() - start <= GOODBYE_TIMEOUT + 10
    assert abs(carrier.answers[0].played - GOODBYE_TIMEOUT) < 1


async def fail(session: ServerSession) -> None:
    await session.send_audio(tone(60.0, session.output_sample_rate))
    raise RuntimeError("no idea")


async def test_a_call_whose_handler_fails_is_hung_up_soon() -> None:
    carrier = FakeCarrier()
    life, closed = await ended(carrier, fail)
    assert life.close_code == closed[0] == 1011
    assert carrier.answers[0].played <= 3


async def test_a_gateway_that_restarts_ends_calls_politely() -> None:
    bot, store = Assistant(seconds=60), MemoryStore()
    gateway = phone_gateway(bot, store=store)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await carrier.wait_playing()
            start = anyio.current_time()
            await gateway.drain()
            closed = await carrier.wait_ended()
            assert anyio.current_time() - start <= 3
    assert closed == (1000, "the gateway is restarting")
    _, life = await life_of(store)
    assert (life.close_code, life.closed_by) == (1012, "gateway")


async def test_a_call_ends_when_its_time_is_up() -> None:
    start = anyio.current_time()
    phone = Phone(handler="bot", auth_token=AUTH_TOKEN, ttl_seconds=90)
    life, closed = await ended(FakeCarrier(), Assistant(), phone=phone)
    assert 90 <= anyio.current_time() - start < 93
    assert (life.close_code, life.close_reason) == (1000, "session_expired")
    assert closed == (1000, "session_expired")


async def test_a_silent_caller_is_not_idle() -> None:
    """A carrier sends the silence of its caller, too."""
    bot = Assistant()
    gateway = phone_gateway(bot, idle_timeout=20)
    with anyio.fail_after(300):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await anyio.sleep(100)
            assert carrier.closed is None


class Silent(FakeCarrier):
    async def _talk(self) -> None:
        """Send no audio at all."""


async def test_a_carrier_that_sends_nothing_is_idle() -> None:
    life, closed = await ended(Silent(), Assistant(), idle_timeout=20)
    assert (life.close_code, life.close_reason) == (1008, "idle")
    assert closed[0] == 1008


@pytest.mark.parametrize("answers_marks", [True, False])
async def test_a_line_without_the_caller_s_audio_still_plays_everything(answers_marks: bool) -> None:
    """The line is paced by its own deadlines; the caller's audio does not have to wake it."""
    bot = Assistant()

    @takes(Capabilities(respond=True))
    async def tell(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Respond):
                await bot.speak(session, 45.0)

    gateway = phone_gateway(tell)
    with anyio.fail_after(300):
        async with gateway.running(), Silent(latency=0.05) as carrier:
            if not answers_marks:
                carrier._line.mark = lambda *_: None  # type: ignore[method-assign]
            await call(carrier, gateway)
            heard = await carrier.listen()
    assert abs(len(heard) / 16_000 - 45.0) < 0.1


@pytest.mark.parametrize(("greeting", "asked"), [(True, [""]), ("Say hello.", ["Say hello."]), (False, [])])
async def test_the_assistant_speaks_first_if_it_should(greeting: bool | str, asked: list[str]) -> None:
    bot = Assistant()
    gateway = phone_gateway(bot, phone=Phone(handler="bot", auth_token=AUTH_TOKEN, greeting=greeting))
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await anyio.sleep(2)
    assert [command.instructions for command in bot.commands if isinstance(command, Respond)] == asked


async def test_a_handler_that_takes_nothing_but_speech_gets_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    commands: list[object] = []

    async def listen(session: ServerSession) -> None:
        commands.extend([command async for command in session if not isinstance(command, AudioIn)])

    gateway = phone_gateway(listen)
    with anyio.fail_after(60), caplog.at_level(logging.INFO):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await carrier.press("123")
            await anyio.sleep(2)
            await carrier.hang_up()
    assert [type(command) for command in commands] == [Close]
    assert "3 keys ignored, since the handler takes no text" in caplog.text


async def test_a_tool_call_that_nobody_can_run_is_answered() -> None:
    results: list[ToolResult] = []

    async def calling(session: ServerSession) -> None:
        await session.send_tool_call("c1", "lookup", "{}")
        results.extend([command async for command in session if isinstance(command, ToolResult)])

    gateway = phone_gateway(calling)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await anyio.sleep(1)
    (result,) = results
    assert result.call_id == "c1"
    assert "error" in json.loads(result.output)


class Storyteller(Assistant):
    """Tells a story of ten minutes, as fast as the session takes it, until the caller speaks."""

    told = 0.0

    async def __call__(self, session: ServerSession) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.tell, session)
            async for command in session:
                if (
                    isinstance(command, AudioIn)
                    and loud(command.pcm)
                    and not tasks.cancel_scope.cancel_called
                ):
                    tasks.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        await session.send_interruption()
        async for _ in session:
            pass

    async def tell(self, session: ServerSession) -> None:
        piece = tone(1.0, session.output_sample_rate)
        for _ in range(600):
            await session.send_audio(piece)
            self.told += 1.0


@pytest.mark.parametrize("heard_before", [0.3, 8.0, 60.0])
async def test_a_long_answer_waits_for_the_line_and_stops_at_once(heard_before: float) -> None:
    story = Storyteller()
    gateway = phone_gateway(story)
    with anyio.fail_after(300):
        async with gateway.running(), FakeCarrier(latency=0.05) as carrier:
            await call(carrier, gateway)
            await carrier.wait_playing()
            await carrier.wait_played(heard_before)
            await carrier.say(tone(0.2, 8000))
            await anyio.sleep(1.0)
            assert len(carrier.clears) == 1
            assert heard_before <= carrier.clears[0] < heard_before + 0.25
            assert carrier.buffered == 0
    # What waits here is bounded, whatever the handler makes.
    assert story.told <= heard_before + 60


async def test_only_so_many_calls_at_once() -> None:
    bot = Assistant()
    gateway = phone_gateway(bot, max_sessions=1)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await carrier.listen()
            second = await ask(gateway, {**CALL, "CallSid": "CA9"})
            assert second.status_code == 503
            assert second.headers["Retry-After"]


async def test_a_carrier_that_breaks_its_protocol_is_told_apart_from_a_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bot, store = Assistant(), MemoryStore()
    gateway = phone_gateway(bot, store=store)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await carrier.listen()
            carrier._to_application.send('{"event": ')
            closed = await carrier.wait_ended()
    _, life = await life_of(store)
    assert (life.close_code, life.close_reason) == (1007, "carrier_protocol_error")
    assert closed == (1007, "")
    assert "the carrier broke its protocol" in caplog.text


@takes(Capabilities(truncate=True))
class Truncating(Assistant):
    """Knows at an interruption how much of its answer was heard: by the last report, and the clock since."""

    def __init__(self) -> None:
        super().__init__(seconds=10.0)
        self.heard: list[float] = []

    async def __call__(self, session: ServerSession) -> None:
        reported, at = -math.inf, 0.0
        await self.speak(session, self.seconds)
        async for command in session:
            match command:
                case Played(ms=ms):
                    reported, at = ms / 1000, anyio.current_time()
                case AudioIn(pcm=pcm) if loud(pcm) and not self.heard:
                    self.heard.append(reported + anyio.current_time() - at)
                    await session.send_interruption()


@pytest.mark.parametrize("carrier", ["twilio", "telnyx", "plivo", "vonage"])
@pytest.mark.parametrize("after", [0.35, 1.5, 4.02])
async def test_the_handler_knows_what_was_heard_within_20_ms(carrier: Any, after: float) -> None:
    bot = Truncating()
    gateway = phone_gateway(bot, carrier=carrier)
    with anyio.fail_after(60):
        async with gateway.running(), FakeCarrier(carrier) as line:
            await call(line, gateway)
            await line.wait_playing()
            await line.wait_played(after)
            await line.say(tone(0.2, line.sample_rate))
            await line.wait_quiet(0.1)
    assert abs(bot.heard[0] - line.clears[0]) <= 0.02
    assert after <= line.clears[0] < after + 0.2
