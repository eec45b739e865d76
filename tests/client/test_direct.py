"""Sessions straight with a provider, over loopback sockets with doubles of the three."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Audio,
    Close,
    ConfigurationError,
    ErrorFrame,
    Frame,
    GoogleOptions,
    HandshakeError,
    Interruption,
    LocalProtocolError,
    MissingAPIKeyError,
    OpenAI,
    OpenAIOptions,
    Provider,
    Ready,
    RealtimeSession,
    ResponseEnd,
    ToolSpec,
    Transcript,
    Usage,
    XAIOptions,
    tool,
)
from speko_anyio import _accounts as direct
from speko_anyio.protocol.mint import SampleRate
from speko_anyio.testing.providers import (
    CallTools,
    Die,
    Hangup,
    OpenAIDouble,
    Pace,
    ProviderDouble,
    Say,
    Send,
    tone,
)
from tests.support.accounts import DOUBLES, KEY, KINDS, MODELS, NAMES


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS.values():
        monkeypatch.delenv(kind.key_variable, raising=False)
        monkeypatch.delenv(kind.url_variable, raising=False)


async def ask(session: RealtimeSession, seconds: float = 0.4) -> None:
    """A turn of the user's: something to hear, and its end."""
    rate = session.input_sample_rate
    await session.send_audio(tone(seconds, rate))
    await session.commit()


async def frames_until(session: RealtimeSession, *wanted: Callable[[Frame], bool]) -> list[Frame]:
    """The frames up to the one with which each of `wanted` has been true of some frame."""
    frames, missing = [], list(wanted)
    async for frame in session:
        frames.append(frame)
        missing = [test for test in missing if not test(frame)]
        if not missing:
            return frames
    raise AssertionError(f"the session ended before; it gave {frames}")


def is_a(*kinds: type[Any]) -> Callable[[Frame], bool]:
    return lambda frame: isinstance(frame, kinds)


def said(role: str, text: str) -> Callable[[Frame], bool]:
    return lambda frame: isinstance(frame, Transcript) and frame == Transcript(role, text, True)  # type: ignore[arg-type]


def sent_of(double: ProviderDouble[Any], kind: str) -> list[dict[str, Any]]:
    """What an OpenAI or xAI double received of that type."""
    return [message for message in double.session.received if message.get("type") == kind]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.anyio
async def test_a_conversation(name: str) -> None:
    double = DOUBLES[name](
        [Say("It is sunny.", 0.5)],
        user_says=["What is the weather?"],
        api_key=KEY,
        pace=Pace(latency=0.05, transcription=0.0),
    )
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            async with provider.connect(
                model=MODELS[name], voice="Kore", system_prompt="Be terse."
            ) as session:
                assert session.session_id.startswith(f"{name}-")
                assert session.expires_at == ""
                await ask(session)
                frames = await frames_until(
                    session,
                    is_a(Usage),
                    said("user", "What is the weather?"),
                    said("assistant", "It is sunny."),
                )
    assert isinstance(frames[0], Ready)
    audio = [frame for frame in frames if isinstance(frame, Audio)]
    assert sum(len(frame.pcm) for frame in audio) == 2 * 24_000 * 0.5
    assert {frame.sample_rate for frame in audio} == {24_000}
    assert session.closed == Close(1000, "client_closed", "local")
    configured = json.dumps(double.session.received[0])
    assert "Kore" in configured
    assert "Be terse." in configured


@pytest.mark.anyio
@pytest.mark.parametrize("rate", [16000, 24000])
async def test_audio_is_at_the_rates_that_were_asked_for(name: str, rate: SampleRate) -> None:
    double = DOUBLES[name]([Say("It is sunny.", 0.5)], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            connecting = provider.connect(model=MODELS[name], input_sample_rate=rate, output_sample_rate=rate)
            async with connecting as session:
                assert session.input_sample_rate == session.output_sample_rate == rate
                await ask(session)
                frames = await frames_until(session, is_a(Usage))
    assert frames[0] == Ready(rate, rate)
    audio = [frame for frame in frames if isinstance(frame, Audio)]
    assert {frame.sample_rate for frame in audio} == {rate}
    assert sum(len(frame.pcm) for frame in audio) == pytest.approx(2 * rate * 0.5, abs=8)


@pytest.mark.anyio
async def test_tools_run_in_parallel_and_are_answered_together(name: str) -> None:
    both = anyio.Event()
    running = 0

    @tool
    async def get_weather(city: str) -> str:
        """Current weather."""
        nonlocal running
        running += 1
        if running == 2:
            both.set()
        await both.wait()
        return f"sunny in {city}"

    calls = CallTools([("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})])
    double = DOUBLES[name]([calls, Say("Sunny in both.", 0.2)], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            async with provider.connect(model=MODELS[name], tools=[get_weather]) as session:
                await ask(session)
                await frames_until(session, said("assistant", "Sunny in both."))
    received = json.dumps(double.session.received)
    assert received.count("sunny in Oslo") == 1
    assert received.count("sunny in Rome") == 1


@pytest.mark.parametrize("name", ["openai", "xai"], indirect=True)
@pytest.mark.anyio
async def test_what_was_heard_of_an_interrupted_answer_is_exact(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(direct, "clock", lambda: lambda: now)
    double = DOUBLES[name]([Say("A long story.", 8.0)], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            async with provider.connect(model=MODELS[name]) as session:
                await ask(session)
                await frames_until(session, is_a(Audio))
                now += 0.05
                await session.interrupt()
                await frames_until(session, is_a(Interruption))
    (truncation,) = sent_of(double, "conversation.item.truncate")
    assert truncation["audio_end_ms"] == 50


@pytest.mark.parametrize("name", ["openai", "xai"], indirect=True)
@pytest.mark.anyio
async def test_what_the_player_reports_decides_what_was_heard(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(direct, "clock", lambda: lambda: now)
    double = DOUBLES[name]([Say("A long story.", 8.0)], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            async with provider.connect(model=MODELS[name]) as session:
                await ask(session)
                await frames_until(session, is_a(Audio))
                now += 1.0
                await session.report_played(0.02)  # the loudspeaker began late
                now += 0.01
                await session.interrupt()
                await frames_until(session, is_a(Interruption))
    (truncation,) = sent_of(double, "conversation.item.truncate")
    assert truncation["audio_end_ms"] == pytest.approx(30, abs=1)


@pytest.mark.anyio
async def test_speech_over_the_answer_interrupts_it(name: str) -> None:
    double = DOUBLES[name]([Say("A long story.", 8.0)], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            async with provider.connect(model=MODELS[name]) as session:
                await ask(session)
                await frames_until(session, is_a(Audio))
                await session.send_audio(tone(0.4, session.input_sample_rate))
                frames = await frames_until(session, is_a(Interruption))
    assert frames[-1] == Interruption("user")


@pytest.mark.anyio
async def test_a_provider_that_dies_in_the_middle_of_an_answer(name: str) -> None:
    double = DOUBLES[name]([[Say("Well.", 0.2), Die()]], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            async with provider.connect(model=MODELS[name]) as session:
                await ask(session)
                frames = await frames_until(session, is_a(Close))
    close = frames[-1]
    assert isinstance(close, Close)
    assert close.code == 1006
    assert close.initiated_by == "transport"


@pytest.mark.parametrize("kind", ["openai", "xai"])
@pytest.mark.anyio
async def test_odd_fields_do_not_cost_the_call(kind: str) -> None:
    words = "response.output_audio_transcript.delta"
    odd = Send(
        [
            {"type": "error", "error": "Too loud \ud83d.", "code": 7},
            {"type": "rate_limits.updated", "rate_limits": float("nan")},
            {"type": "response.output_audio.delta", "delta": None},
            {"type": "session.updated", "session": {"expires_at": "2026-12-01T00:00:00Z", "audio": []}},
            {"type": words, "item_id": "odd", "delta": "Hi \ud83d"},
            {"type": words, "item_id": "odd", "delta": "\ude00", "content_index": None},
        ]
    )
    double = DOUBLES[kind]([[odd, Say("Yes.", 0.2)]], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            async with KINDS[kind](KEY, base_url=url).connect(model=MODELS[kind]) as session:
                await ask(session)
                frames = await frames_until(session, is_a(ResponseEnd))
                # One in each of the six messages, and the text of the error was mended.
                assert session.stats().odd_fields == 7
    assert [frame for frame in frames if isinstance(frame, ErrorFrame)] == [
        ErrorFrame("7", "Too loud \ufffd.")
    ]
    texts = [frame.text for frame in frames if isinstance(frame, Transcript) and frame.role == "assistant"]
    assert "Hi 😀" in texts
    assert "Yes." in texts
    assert frames[-1] == ResponseEnd("done")


@pytest.mark.parametrize(
    ("code", "words", "name_of_it", "expired"),
    [
        (1001, "Your session hit the maximum duration of 60 minutes.", "provider_session_expired", True),
        (1008, "The operation was aborted.", "provider_session_expired", True),
        (1000, "The operation was cancelled.", "provider_unavailable", False),
        (1011, "You exceeded your current quota.", "provider_quota_exceeded", False),
    ],
)
@pytest.mark.anyio
async def test_a_close_is_judged_by_its_words(
    name: str, code: int, words: str, name_of_it: str, expired: bool
) -> None:
    double = DOUBLES[name]([[Say("Well.", 0.2), Hangup(code, words)]], api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            async with provider.connect(model=MODELS[name]) as session:
                await ask(session)
                frames = await frames_until(session, is_a(Close))
    [told] = [frame for frame in frames if isinstance(frame, ErrorFrame)]
    assert told.code == name_of_it
    assert words.rstrip(".") in told.message
    close = frames[-1]
    assert close == Close(code, name_of_it, "remote")
    assert isinstance(close, Close)
    assert close.expired is expired


@pytest.mark.anyio
async def test_a_model_that_has_no_realtime_sessions_is_refused_at_once() -> None:
    with pytest.raises(LocalProtocolError, match="gpt-live-1 has no realtime sessions"):
        async with OpenAI(KEY, base_url="ws://127.0.0.1:1").connect(model="gpt-live-1"):
            raise AssertionError("it opened")


@pytest.mark.anyio
async def test_a_wrong_key_is_refused_and_not_shown(name: str) -> None:
    double = DOUBLES[name](api_key="another")
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = KINDS[name](KEY, base_url=url)
            if name == "google":  # every error of Gemini's is a close
                async with provider.connect(model=MODELS[name]) as session:
                    frames = await frames_until(session, is_a(Close))
                    (error,) = [frame for frame in frames if isinstance(frame, ErrorFrame)]
                    assert error.code == "provider_unauthorized"
                    assert KEY not in repr(frames)
            else:
                with pytest.raises(HandshakeError, match=r"HTTP 401 .*check the API key") as caught:
                    async with provider.connect(model=MODELS[name]):
                        raise AssertionError("opened")
                assert KEY not in str(caught.value)


@pytest.mark.anyio
async def test_any_compatible_server_at_any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    double = OpenAIDouble(api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
            monkeypatch.setenv("OPENAI_BASE_URL", url.replace("ws://", "http://") + "/proxy/v1?region=eu")
            async with OpenAI(path="/rt").connect(model="llama voice") as session:
                await frames_until(session, is_a(Ready))
    assert double.session.request.target == "/proxy/v1/rt?region=eu&model=llama+voice"


@pytest.mark.anyio
async def test_what_only_a_provider_has_arrives() -> None:
    double = OpenAIDouble(api_key=KEY)
    options = OpenAIOptions(turns="manual", speed=1.25)
    with anyio.fail_after(10):
        async with double.serve() as url:
            provider = OpenAI(KEY, base_url=url, options=options)
            async with provider.connect(model="gpt-realtime-2.1") as session:
                await frames_until(session, is_a(Ready))
    (update,) = sent_of(double, "session.update")
    assert update["session"]["audio"]["input"]["turn_detection"] is None
    assert update["session"]["audio"]["output"]["speed"] == 1.25


@pytest.mark.anyio
async def test_what_cannot_be_honoured_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    double = OpenAIDouble(api_key=KEY)
    with anyio.fail_after(10):
        async with double.serve() as url:
            async with OpenAI(KEY, base_url=url).connect(
                model="gpt-realtime-2.1", temperature=0.5
            ) as session:
                pass
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"session {session.session_id}: OpenAI Realtime has no temperature: left out"
    ]


@pytest.mark.anyio
async def test_openai_is_not_asked_for_what_it_does_not_have() -> None:
    provider = OpenAI(KEY, base_url="ws://127.0.0.1:1")
    with pytest.raises(LocalProtocolError, match="gpt-live-1 has no realtime sessions"):
        async with provider.connect(model="gpt-live-1"):
            raise AssertionError
    for declared in ({"name": "calendar.read", "parameters": {}}, ToolSpec(name="calendar.read")):
        with pytest.raises(LocalProtocolError, match="OpenAI does not accept 'calendar"):
            async with provider.connect(model="gpt-realtime-2.1", tools=[declared]):
                raise AssertionError


@pytest.mark.anyio
async def test_what_makes_no_session_is_told_before_anything_is_sent(name: str) -> None:
    provider = KINDS[name](KEY, base_url="ws://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="temperature"):
        async with provider.connect(model=MODELS[name], temperature=float("nan")):
            raise AssertionError
    with pytest.raises(TypeError, match="unknown session option 'colour'"):
        async with provider.connect(model=MODELS[name], colour="red"):
            raise AssertionError
    options = {"openai": OpenAIOptions, "xai": XAIOptions, "google": GoogleOptions}[name]
    provider = KINDS[name](KEY, base_url="ws://127.0.0.1:1", options=options(turns="sometimes"))
    with pytest.raises(LocalProtocolError, match="options"):
        async with provider.connect(model=MODELS[name]):
            raise AssertionError


def test_without_a_key_the_variable_is_named(name: str) -> None:
    kind = KINDS[name]
    assert not kind.is_configured()
    with pytest.raises(MissingAPIKeyError) as caught:
        kind()
    assert str(caught.value) == (
        f"no API key: set the environment variable {kind.key_variable} or pass {kind.__name__}(api_key=...)"
    )
    assert caught.value.variable == kind.key_variable


def test_a_key_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS[name]
    monkeypatch.setenv(kind.key_variable, KEY)
    assert kind.is_configured()
    assert KEY in kind().endpoint("m").secrets
    monkeypatch.setenv(kind.key_variable, f"\ufeff{KEY}\r\n")
    assert kind().endpoint("m").secrets == kind(KEY).endpoint("m").secrets
    assert "another" in kind("another").endpoint("m").secrets


def test_a_provider_shows_no_key(name: str) -> None:
    provider: Provider = KINDS[name](KEY, base_url=f"wss://x.test/v1?key={KEY}")
    assert KEY not in repr(provider)
    assert "x.test" in repr(provider)


@pytest.mark.parametrize("base_url", ["", "nonsense", "ftp://x", "ws://user:pass@x"])
def test_a_base_url_that_is_none(name: str, base_url: str) -> None:
    if not base_url:
        assert "x.test" not in repr(KINDS[name](KEY, base_url=base_url))
    else:
        kind = KINDS[name]
        with pytest.raises(ConfigurationError, match="base URL must be") as caught:
            kind(KEY, base_url=base_url)
        assert kind.url_variable in str(caught.value)
        assert "pass@" not in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("side", ["input_sample_rate", "output_sample_rate"])
async def test_a_rate_that_no_session_has_is_refused_before_connecting(side: str) -> None:
    for rate, error in ((1, ValueError), (192_001, ValueError), (24_000.5, TypeError), (True, TypeError)):
        parameters: Any = {side: rate}
        with pytest.raises(error, match=side):
            async with OpenAI(KEY, base_url="ws://127.0.0.1:1").connect(model="m", **parameters):
                pass
