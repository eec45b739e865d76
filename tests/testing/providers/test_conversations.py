"""What all doubles do, seen through the dialects that are made for the real ones. Virtual time, no I/O."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.protocol import Audio, Close, ErrorFrame, Interruption, Ready, ServerToolCall, Usage
from speko_anyio.providers.google import GoogleOptions
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.providers.xai import XAIOptions
from speko_anyio.testing.providers import (
    CallTools,
    Die,
    Expire,
    Fail,
    GoAway,
    Hangup,
    Incomplete,
    Pace,
    RateLimit,
    RealtimeDoubleSession,
    RunTool,
    Say,
    Send,
    Silent,
    Wait,
)

from .call import DIALECTS, DOUBLES, Call, call, config

PROVIDERS = sorted(DOUBLES)
MANUAL: dict[str, Any] = {
    "openai": OpenAIOptions(turns="manual"),
    "xai": XAIOptions(turns="manual"),
    "google": GoogleOptions(turns="manual"),
}


def manual(provider: str, *replies: Any) -> Call[Any]:
    dialect = DIALECTS[provider](config(provider), options=MANUAL[provider])
    return Call(DOUBLES[provider](replies), dialect)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_turn_is_heard_written_down_and_answered(provider: str) -> None:
    double = DOUBLES[provider]([Say("It is sunny in Oslo.", 1.0)], user_says=["What's the weather?"])
    talk = call(double)
    assert talk.frames == [Ready(24_000, 24_000)]
    talk.ask()
    assert talk.said("assistant") == ["It is sunny in Oslo."]
    assert talk.said("user") == ["What's the weather?"]
    talk.ask()
    assert talk.said("assistant") == ["It is sunny in Oslo.", "All right."]
    assert talk.said("user") == ["What's the weather?", "Hello there."]
    audio = talk.of(Audio)
    assert sum(len(frame.pcm) for frame in audio) == 1.4 * 48_000
    assert len(audio) > 10
    usage = talk.of(Usage)
    assert len(usage) == 2
    assert usage[0].input_audio_tokens > 0
    assert usage[0].output_audio_tokens > usage[1].output_audio_tokens > 0
    assert len(talk.session.audio) == 2.6 * 48_000
    assert talk.session.closed is None


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("is_manual", [False, True])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_the_user_says_is_final_once_however_late_it_comes(
    provider: str, is_manual: bool, delay: float
) -> None:
    words = ["What's the weather in Oslo today?", "And in Rome?", "Well?"]
    pace = Pace(latency=0.05, transcription=delay)
    double = DOUBLES[provider]([Say("Sunny.", 1.0)] * 2, user_says=words, pace=pace)
    options = {"options": MANUAL[provider]} if is_manual else {}
    talk = Call(double, DIALECTS[provider](config(provider), **options))
    for count in (1, 2, 3):
        talk.ask()
        if is_manual:
            talk.dialect.commit()
            talk.run(5)
        assert talk.said("user") == words[:count]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_silence_is_no_turn(provider: str) -> None:
    talk = call(DOUBLES[provider]())
    talk.pause(5.0)
    assert talk.run(5) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_who_stops_sending_goes_on_speaking(provider: str) -> None:
    talk = call(DOUBLES[provider]())
    talk.speak()
    assert talk.run(60) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_audio_comes_faster_than_it_is_played_and_not_all_at_once(provider: str) -> None:
    talk = call(DOUBLES[provider]([Say("One two three.", 10.0)], pace=Pace(speed=10.0, latency=0.5)))
    talk.speak()
    talk.pause()
    talk.run(0.4)
    assert talk.of(Audio) == []
    talk.run(0.6)
    seconds = sum(len(frame.pcm) for frame in talk.of(Audio)) / 48_000
    assert 4 < seconds < 6
    talk.run(0.6)
    assert sum(len(frame.pcm) for frame in talk.of(Audio)) == 480_000


@pytest.mark.parametrize("provider", PROVIDERS)
def test_manual_turns(provider: str) -> None:
    talk = manual(provider, Say("Yes.", 0.5))
    talk.ask()
    assert talk.of(Audio) == []
    talk.dialect.commit()
    talk.run(5)
    assert talk.said("assistant") == ["Yes."]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_two_calls_at_once(provider: str) -> None:
    calls = [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})]
    talk = call(DOUBLES[provider]([CallTools(calls), Say("Both are sunny.", 0.5)]))
    talk.ask()
    first, second = talk.calls()
    assert (first.name, second.name) == ("get_weather", "get_weather")
    assert ("Oslo" in first.arguments, "Rome" in second.arguments) == (True, True)
    talk.dialect.send_tool_result(second.call_id, '{"celsius":20}')
    assert talk.run(5) == []  # half an answer is none
    talk.dialect.send_tool_result(first.call_id, '{"celsius":7}')
    talk.run(5)
    assert talk.said("assistant") == ["Both are sunny."]
    assert set(talk.session.results) == {first.call_id, second.call_id}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reply_in_several_steps(provider: str) -> None:
    calls = CallTools([("get_weather", {"city": "Oslo"})])
    talk = call(DOUBLES[provider]([[Say("Let me look.", 0.5), Wait(0.2), calls]]))
    talk.ask()
    assert [type(frame) for frame in talk.frames if isinstance(frame, Audio)]
    assert len(talk.calls()) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_user_talks_over_the_assistant(provider: str) -> None:
    talk = call(DOUBLES[provider]([Say("word " * 40, 20.0)], pace=Pace(speed=4.0)))
    talk.speak()
    talk.pause()
    talk.run(1.0)
    talk.speak()
    frames = talk.run(0.0)
    assert Interruption("user") in frames
    heard = len(talk.of(Audio))
    talk.run(10)
    assert len(talk.of(Audio)) == heard  # the user still speaks
    if isinstance(talk.session, RealtimeDoubleSession):
        (item, end_ms), *more = talk.session.truncations
        assert more == []
        assert 900 <= end_ms <= 1100  # what a listener heard in that second, of four that came
        assert item
    talk.pause()
    talk.run(5)
    assert talk.said("assistant")[-1] == "All right."


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_client_interrupts(provider: str) -> None:
    talk = call(DOUBLES[provider]([Say("word " * 40, 20.0)], pace=Pace(speed=4.0)))
    talk.speak()
    talk.pause()
    talk.run(1.0)
    talk.dialect.interrupt()
    assert Interruption("assistant") in talk.run(0.1)
    heard = len(talk.of(Audio))
    talk.run(20)
    assert len(talk.of(Audio)) == heard


@pytest.mark.parametrize("provider", PROVIDERS)
def test_speech_takes_back_the_calls_that_wait(provider: str) -> None:
    talk = call(DOUBLES[provider]([[CallTools([("get_weather", {})]), Wait(5.0)]]))
    talk.speak()
    talk.pause()
    talk.run(1.0)
    talk.speak()
    talk.run(0.1)
    (made,) = talk.calls()
    talk.dialect.send_tool_result(made.call_id, "{}")
    talk.pause()
    talk.run(5)
    assert talk.said("assistant") == ["All right."]
    assert talk.session.closed is None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_tools_of_the_providers_own(provider: str) -> None:
    talk = call(DOUBLES[provider]([[RunTool("web_search"), Say("Found it.", 0.2)]]))
    talk.ask()
    assert [frame.status for frame in talk.of(ServerToolCall)][-1] == "completed"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_response_that_fails(provider: str) -> None:
    talk = call(DOUBLES[provider]([Fail()]))
    talk.ask()
    assert len(talk.of(ErrorFrame)) == 1
    talk.ask()
    assert talk.said("assistant") == ["All right."]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_too_much_was_asked(provider: str) -> None:
    talk = call(DOUBLES[provider]([RateLimit()]))
    talk.ask()
    (error,) = talk.of(ErrorFrame)
    assert error.code == ("provider_quota_exceeded" if provider == "google" else "rate_limit_exceeded")
    assert (talk.session.closed is None) == (provider != "google")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_response_begins(provider: str) -> None:
    talk = call(DOUBLES[provider]([Silent()]))
    talk.ask()
    assert talk.of(Audio) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_sudden_death(provider: str) -> None:
    talk = call(DOUBLES[provider]([[Die(after_ms=300), Say("word " * 20, 10.0)]]))
    talk.ask()
    assert talk.of(Audio)
    assert isinstance(talk.frames[-1], Close)
    assert talk.frames[-1].code == 1006
    assert talk.session.closed == (1006, "")
    assert talk.session.next_deadline() is None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_death_at_once(provider: str) -> None:
    talk = call(DOUBLES[provider]([[Say("Well", 0.2), Die(), Say("never said", 1.0)]]))
    talk.ask()
    assert talk.said("assistant")[:1] in ([], ["Well"])
    assert talk.session.closed == (1006, "")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_hangup_and_its_reason(provider: str) -> None:
    talk = call(DOUBLES[provider]([Hangup(1011, "Internal error encountered.")]))
    talk.ask()
    assert talk.session.closed == (1011, "Internal error encountered.")
    assert talk.frames[-1].code == 1011
    # Whatever is directed at it now comes too late.
    talk.session.send({"type": "ping"})
    talk.session.close()
    talk.session.die()
    talk.session.receive('{"type":"x"}', talk.now)
    assert talk.session.take() == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_session_expires(provider: str) -> None:
    talk = call(DOUBLES[provider]([Expire()]))
    talk.ask()
    assert isinstance(talk.frames[-1], Close)
    assert talk.session.closed is not None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_messages_as_they_are(provider: str) -> None:
    message: dict[str, Any] = {"type": "ping"} if provider != "google" else {"voiceActivity": {}}
    talk = call(DOUBLES[provider]([Send([message])]))
    talk.ask()
    assert message in talk.session.sent


@pytest.mark.parametrize("provider", PROVIDERS)
def test_steps_that_the_provider_does_not_know(provider: str) -> None:
    step = Incomplete() if provider == "google" else GoAway()
    with pytest.raises(ValueError, match=f"{provider} does nothing like"):
        DOUBLES[provider]([Say("x"), [step]])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_script_goes_on_over_connections(provider: str) -> None:
    double = DOUBLES[provider]([Say("first", 0.1), Say("second", 0.1)])
    one = call(double)
    one.ask()
    one.dialect.close()
    one.run(1)
    two = call(double)
    two.ask()
    assert (one.said("assistant"), two.said("assistant")) == (["first"], ["second"])
    assert [session.closed for session in double.sessions] == [(1000, ""), None]
    assert double.session is two.session
