"""Phone calls that reach OpenAI over SIP: HTTP requests, and sessions that join, against OpenAI's double."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from speko_anyio import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    Close,
    ConfigurationError,
    Digit,
    Frame,
    HandshakeError,
    Interruption,
    LocalProtocolError,
    OpenAI,
    OpenAIOptions,
    RateLimitError,
    Ready,
    RealtimeSession,
    ServerError,
    Transcript,
    tool,
)
from speko_anyio.errors import SignatureError
from speko_anyio.recording import Moment, Recorder, Recording
from speko_anyio.testing import VIRTUAL_BACKENDS, virtual_backend
from speko_anyio.testing.providers import CallTools, OpenAIDouble, Say, tone
from tests.support.accounts import KEY

MODEL = "gpt-realtime-2.1"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_WEBHOOK_SECRET"):
        monkeypatch.delenv(variable, raising=False)


@tool
async def get_weather(city: str) -> str:
    """Current weather for a city."""
    return f"sunny in {city}"


async def until(session: RealtimeSession, wanted: Frame) -> list[Frame]:
    frames = []
    async for frame in session:
        frames.append(frame)
        if frame == wanted:
            return frames
    raise AssertionError(f"{wanted} never came, but {frames}")


@pytest.mark.anyio
async def test_a_call_from_the_webhook_to_the_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    double = OpenAIDouble(
        [CallTools([("get_weather", {"city": "Oslo"})]), Say("It is sunny in Oslo.")],
        user_says=["How is Oslo?"],
        api_key=KEY,
    )
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", double.webhook_secret)
    ringing = double.ring(caller="+15550123")
    with anyio.fail_after(20):
        async with double.serve() as url:
            openai = OpenAI(KEY, base_url=f"{url}/v1")
            call = openai.calls.incoming(*ringing.webhook(time.time()))
            assert call is not None
            assert call.caller == "+15550123"
            await openai.calls.accept(
                call.call_id, model=MODEL, voice="marin", system_prompt="Be brief.", tools=[get_weather]
            )
            assert ringing.config["instructions"] == "Be brief."
            async with openai.attach(call.call_id, tools=[get_weather], greeting="Hello!") as session:
                assert session.session_id == call.call_id
                await until(session, Transcript("assistant", "Hello!", True))
                ringing.speak(tone(0.4, 24_000) + bytes(48_000))
                await until(session, Transcript("assistant", "It is sunny in Oslo.", True))
                ringing.press("5")
                await until(session, Digit("5"))
                with pytest.raises(LocalProtocolError, match="not through this session"):
                    await session.send_audio(bytes(480))
                await openai.calls.hang_up(call.call_id)
                async for _ in session:
                    pass
    assert session.closed == Close(1000, "", "remote")
    assert ringing.state == "ended"
    assert [(item.role, item.text) for item in session.history if item.role != "tool"] == [
        ("assistant", "Hello!"),
        ("user", "How is Oslo?"),
        ("assistant", "It is sunny in Oslo."),
    ]


@pytest.mark.anyio
async def test_a_call_is_rejected_or_transferred() -> None:
    double = OpenAIDouble(api_key=KEY)
    openai = OpenAI(KEY, base_url="https://openai.test/v1", http_client=double)
    busy, other = double.ring(), double.ring()
    await openai.calls.reject(busy.call_id, status_code=486)
    assert (busy.state, busy.status_code) == ("rejected", 486)
    await openai.calls.accept(other.call_id, model=MODEL)
    await openai.calls.refer(other.call_id, target_uri="tel:+15550111")
    assert (other.state, other.target_uri) == ("referred", "tel:+15550111")


@pytest.mark.anyio
async def test_the_caller_interrupts_and_a_recording_has_it_all() -> None:
    recorder = Recorder()
    double = OpenAIDouble([Say("A long story, told slowly.", 30.0)], api_key=KEY)
    ringing = double.ring()
    with anyio.fail_after(20):
        async with double.serve() as url:
            openai = OpenAI(KEY, base_url=url)
            await openai.calls.accept(ringing.call_id, model=MODEL)
            async with openai.attach(ringing.call_id, observer=recorder) as session:
                await session.respond()
                async for frame in session:
                    if isinstance(frame, Transcript):
                        break
                ringing.press("#")
                ringing.speak(tone(0.4, 24_000))
                await until(session, Interruption("user"))
    assert recorder.recording.provider == "openai"
    frames = [moment.what for moment in recorder.recording.moments]
    assert Digit("#") in frames
    assert frames.index(Digit("#")) < frames.index(Interruption("user"))


def test_a_recording_keeps_digits(tmp_path: Path) -> None:
    recording = Recording(session_id="s", input_sample_rate=24_000, output_sample_rate=24_000)
    recording.moments.append(Moment(0.5, "gateway", Digit("#")))
    recording.save(tmp_path / "call")
    assert Recording.load(tmp_path / "call").moments == recording.moments


@pytest.mark.anyio
async def test_a_call_that_is_over_can_not_be_joined() -> None:
    double = OpenAIDouble(api_key=KEY)
    ringing = double.ring()
    with anyio.fail_after(20):
        async with double.serve() as url:
            openai = OpenAI(KEY, base_url=url)
            for call_id in (ringing.call_id, "rtc_unknown"):
                with pytest.raises(
                    HandshakeError, match=r"404.*check that the call was accepted and is not over"
                ):
                    async with openai.attach(call_id):
                        raise AssertionError("it opened")


@pytest.mark.anyio
async def test_extra_fields_travel_with_every_request() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        openai = OpenAI(
            KEY,
            base_url="https://openai.test/v1",
            headers={"api-key": "sk-other-0123456789"},
            query={"api-version": "2026-01-01"},
            http_client=client,
        )
        await openai.calls.hang_up("rtc 1")
    (request,) = seen
    assert str(request.url) == "https://openai.test/v1/realtime/calls/rtc%201/hangup?api-version=2026-01-01"
    assert request.headers["api-key"] == "sk-other-0123456789"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.content == b""


# Failures


class Answers:
    """An HTTP client that gives these answers, or raises these errors, one after the other."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers: Iterator[httpx.Response | Exception] = iter(answers)
        self.asked: list[float] = []

    async def request(self, *_: Any, **options: Any) -> httpx.Response:
        self.asked.append(anyio.current_time())
        assert not options["follow_redirects"]
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def failed(status: int, headers: Mapping[str, str] = {}, **error: str) -> httpx.Response:
    return httpx.Response(status, json={"error": error}, headers=headers)


OK = httpx.Response(200)
REFUSED = httpx.ConnectError("connection refused")
LOST = httpx.ReadError("connection lost")


async def act(openai: OpenAI, action: str) -> None:
    calls = openai.calls
    match action:
        case "accept":
            await calls.accept("rtc_1", model=MODEL)
        case "reject":
            await calls.reject("rtc_1")
        case "refer":
            await calls.refer("rtc_1", target_uri="tel:+15550111")
        case _:
            await calls.hang_up("rtc_1")


@pytest.mark.parametrize("action", ["accept", "reject", "refer", "hang_up"])
@pytest.mark.parametrize("failure", [REFUSED, failed(429), failed(503)], ids=["refused", "429", "503"])
@pytest.mark.parametrize("backend", VIRTUAL_BACKENDS)
def test_what_was_not_done_is_done_again(action: str, failure: Any, backend: str) -> None:
    async def main() -> None:
        answers = Answers(failure, failure, OK)
        await act(OpenAI(KEY, http_client=answers), action)
        first, second, _ = answers.asked
        assert 0.25 <= second - first <= 0.5

    name, options = virtual_backend(backend)
    anyio.run(main, backend=name, backend_options=options)


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [LOST, failed(502), failed(504)], ids=["lost", "502", "504"])
@pytest.mark.parametrize(("action", "repeated"), [("accept", 1), ("refer", 1), ("reject", 2), ("hang_up", 2)])
async def test_what_may_have_been_done_is_not_done_twice(action: str, repeated: int, failure: Any) -> None:
    answers = Answers(failure, OK)
    openai = OpenAI(KEY, http_client=answers)
    if repeated == 1:
        with pytest.raises((APIConnectionError, ServerError)):
            await act(openai, action)
    else:
        await act(openai, action)
    assert len(answers.asked) == repeated


@pytest.mark.anyio
async def test_errors_have_types_and_say_what_to_do() -> None:
    double = OpenAIDouble(api_key=KEY)
    with pytest.raises(AuthenticationError, match=r"OPENAI_API_KEY\) and that it belongs to the project"):
        await OpenAI("sk-wrong-0123456789", http_client=double).calls.accept(
            double.ring().call_id, model=MODEL
        )
    openai = OpenAI(KEY, http_client=double)
    with pytest.raises(APIStatusError, match="the call is over, or it never reached") as raised:
        await openai.calls.hang_up("rtc_unknown")
    assert (raised.value.status, raised.value.code) == (404, "call_not_found")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (
            failed(429, {"retry-after": "60"}, message="Slow down."),
            RateLimitError,
            "Slow down.; try again later",
        ),
        (
            failed(400, message="No.", type="invalid_request_error"),
            APIStatusError,
            "400 invalid_request_error: No.",
        ),
        (httpx.Response(404, text="<html>"), APIStatusError, "an HTML page; check the base URL"),
        (httpx.Response(500, content=b"\xff" * 5000), ServerError, "HTTP 500"),
        (
            httpx.Response(302, headers={"location": "https://evil.test/"}),
            APIStatusError,
            "redirect to evil.test",
        ),
        (failed(400, message=f"Key {KEY} is bad."), APIStatusError, "Key <api key> is bad."),
    ],
)
async def test_other_refusals(answer: httpx.Response, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        await OpenAI(KEY, http_client=Answers(answer)).calls.hang_up("rtc_1")


@pytest.mark.anyio
async def test_what_is_left_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    double = OpenAIDouble(api_key=KEY)
    openai = OpenAI(KEY, http_client=double, options=OpenAIOptions(reasoning_effort="low"))
    with caplog.at_level(logging.WARNING, "speko_anyio"):
        await openai.calls.accept(double.ring().call_id, model="gpt-realtime-mini", temperature=0.5)
    assert "call rtc_1: OpenAI Realtime has no temperature: left out" in caplog.messages
    assert any("knows neither reasoning_effort" in message for message in caplog.messages)


@pytest.mark.anyio
async def test_arguments_are_checked_before_anything_is_sent() -> None:
    openai = OpenAI(KEY, http_client=Answers())
    with pytest.raises(TypeError, match="greeting is not a parameter of a call"):
        await openai.calls.accept("rtc_1", model=MODEL, greeting="Hi")  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"voice is settled when the call is accepted: pass it to calls\.accept"
    ):
        openai.attach("rtc_1", voice="marin")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="call_id must be a string"):
        await openai.calls.hang_up(None)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        openai.attach("")
    with pytest.raises(TypeError, match="unknown session option"):
        async with openai.attach("rtc_1", wrong=1):  # type: ignore[call-arg]
            pass


def test_a_webhook_needs_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    openai = OpenAI(KEY)
    double = OpenAIDouble(api_key=KEY)
    webhook = double.ring().webhook(time.time())
    with pytest.raises(ConfigurationError, match="OPENAI_WEBHOOK_SECRET or pass secret="):
        openai.calls.incoming(*webhook)
    with pytest.raises(ConfigurationError, match="must be base64"):
        openai.calls.incoming(*webhook, secret="whsec_?")
    with pytest.raises(SignatureError):
        openai.calls.incoming(*webhook, secret="whsec_AAAA")
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", f" {double.webhook_secret}\n")
    assert openai.calls.incoming(*webhook) is not None


@pytest.mark.anyio
async def test_a_session_is_ready_whoever_accepted_the_call() -> None:
    double = OpenAIDouble(api_key=KEY)
    ringing = double.ring()
    ringing.act("accept", {"type": "realtime", "model": "gpt-realtime-2.1"})
    with anyio.fail_after(20):
        async with double.serve() as url:
            async with OpenAI(KEY, base_url=url).attach(ringing.call_id, model="gpt-realtime-2.1") as session:
                async for frame in session:
                    assert isinstance(frame, Ready)
                    break
                assert session.capabilities.text
                assert session.capabilities.input_rates == ()
