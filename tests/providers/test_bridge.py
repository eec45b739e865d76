"""The bridge, case by case; `test_bridge_machine.py` has the races."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from speko_anyio.audio.resample import Resampler
from speko_anyio.protocol import (
    Audio,
    AudioIn,
    Clear,
    Close,
    Commit,
    EndTurn,
    ErrorFrame,
    HandshakeError,
    Interrupt,
    Interruption,
    Limits,
    LocalProtocolError,
    Played,
    RemoteProtocolError,
    ResponseEnd,
    ServerProtocol,
    State,
    ToolCall,
    ToolResult,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol._session import ServerFrame
from speko_anyio.protocol._state import Signal
from speko_anyio.providers._closes import Moment
from speko_anyio.providers.bridge import BridgeLimits
from speko_anyio.providers.bridge._errors import judge_opening
from speko_anyio.providers.google import GoogleOptions
from speko_anyio.providers.openai import OpenAIOptions

from . import google_talk
from .bridge_talk import CREATED, UPDATED, google, openai, xai
from .fake_resampling import HELD
from .realtime_talk import audio, call, created, done, error, pcm, speech, words

MANUAL = OpenAIOptions(turns="manual")


def spoken(messages: list[dict[str, object]]) -> bytes:
    """The audio in messages to a realtime provider."""
    return b"".join(base64.b64decode(str(m["audio"])) for m in messages if "audio" in m)


def loudest(pcm: bytes) -> int:
    """Of the middle half: at its ends a tone that is cut off rings."""
    samples: tuple[int, ...] = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    return max(samples[len(samples) // 4 : len(samples) * 3 // 4])


# Before the provider is ready


def test_a_connection_is_wanted_from_the_start_and_once() -> None:
    talk = openai(ready=False)
    assert talk.bridge.wanted == (None,)
    dialect = talk.connect()
    assert not talk.wants_connection()
    assert talk.bridge.provider is dialect
    with pytest.raises(LocalProtocolError, match="look at `wanted`"):
        talk.bridge.attach(dialect, talk.now)


def test_what_the_client_says_before_the_provider_is_ready_is_kept() -> None:
    talk = openai(MANUAL, ready=False)
    talk.say(AudioIn(pcm(200), 24_000), Commit(), AudioIn(b"\1\0" * 48, 24_000))
    assert talk.make_ready() == []
    _, *said = talk.sent()
    types = [message["type"] for message in said]
    assert types == [
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "response.create",
        "input_audio_buffer.append",
    ]
    assert spoken(said) == pcm(200) + b"\1\0" * 48


def test_only_so_much_is_kept() -> None:
    talk = openai(ready=False, limits=BridgeLimits(held_seconds=1))
    for number in range(3):
        talk.say(AudioIn(bytes([number, 0]) * 12_000, 24_000))
    talk.make_ready()
    assert spoken(talk.sent()) == b"\1\0" * 12_000 + b"\2\0" * 12_000


# Audio


def test_rates_are_changed_both_ways() -> None:
    talk = openai(rates=(16_000, 16_000))
    talk.say(AudioIn(b"\5\0" * 160, 16_000))
    assert len(spoken(talk.sent())) == (160 - HELD) * 3
    frames = talk.hear(created("r1"), speech("r1", "a1", 20))
    assert frames == [Audio(bytes((480 - HELD) * 2 // 3 * 2), 16_000)]
    assert talk.hear(done("r1"))[0] == Audio(bytes(320 * 2 - (480 - HELD) * 2 // 3 * 2), 16_000)


@pytest.mark.parametrize("rates", [(16_000, 16_000), (24_000, 24_000)])
def test_with_a_real_resampler_no_sound_is_lost(rates: tuple[int, int]) -> None:
    tone = [int(8_000 * math.sin(number / 20)) for number in range(rates[0])]
    said = struct.pack(f"<{len(tone)}h", *tone)
    talk = openai(MANUAL, rates=rates, resampling=Resampler)
    for start in range(0, len(said), 1_000):
        talk.say(AudioIn(said[start : start + 1_000], rates[0]))
    talk.say(Commit())
    told = spoken(talk.sent())
    assert abs(len(told) // 2 - 24_000) <= 2
    assert loudest(told) == pytest.approx(8_000, rel=0.02)
    # And back again.
    talk.tell(created("r1"))
    for start in range(0, len(told), 1_000):
        talk.tell(audio("r1", "a1", base64.b64encode(told[start : start + 1_000]).decode()))
    frames = talk.hear(done("r1"))
    heard = b"".join(frame.pcm for frame in frames if isinstance(frame, Audio))
    assert abs(len(heard) - len(said)) // 2 <= 2
    assert loudest(heard) == pytest.approx(8_000, rel=0.02)


def test_the_end_of_a_turn_takes_all_of_it() -> None:
    talk = openai(MANUAL, rates=(16_000, 24_000))
    talk.say(AudioIn(b"\5\0" * 3_200, 16_000), EndTurn())
    said = talk.sent()
    assert spoken(said) == b"\5\0" * 4_800
    assert [message["type"] for message in said][-2:] == ["input_audio_buffer.commit", "response.create"]


def test_what_was_cleared_does_not_come_with_the_next_turn() -> None:
    talk = openai(MANUAL, rates=(16_000, 24_000))
    talk.say(AudioIn(b"\5\0" * 3_200, 16_000), Clear(), AudioIn(b"\7\0" * 3_200, 16_000), Commit())
    said = talk.sent()
    position = [message["type"] for message in said].index("input_audio_buffer.clear")
    assert spoken(said[position:]) == b"\7\0" * 4_800


# Interruptions


def test_an_interruption_takes_back_the_speech_that_waits() -> None:
    talk = openai()
    talk.tell(created("r1"), words("r1", "a1", "Hello"), speech("r1", "a1", 500))
    assert talk.bytes_for_client() > len(pcm(500))
    talk.now += 0.125
    talk.bridge.receive_command(Interrupt(), talk.now)
    assert talk.bytes_for_client() < 200
    assert talk.frames() == [Transcript("assistant", "Hello", False), Interruption("assistant")]
    truncate = talk.sent()[-1]
    assert (truncate["type"], truncate["audio_end_ms"]) == ("conversation.item.truncate", 125)
    assert talk.hear(speech("r1", "a1", 20)) == []


@pytest.mark.parametrize("rate", [24_000, 16_000])
def test_the_clients_report_decides_what_was_heard(rate: int) -> None:
    talk = openai(rates=(24_000, rate))
    talk.tell(created("r1"), speech("r1", "a1", 500))
    talk.now += 0.4
    talk.say(Played(100))
    talk.now += 0.1
    talk.say(Interrupt())
    assert talk.sent()[-1]["audio_end_ms"] == pytest.approx(200, abs=1)
    # The count begins again, and a report from before the interruption does not count.
    talk.tell(done("r1", "cancelled"), created("r2"), speech("r2", "a2", 500))
    talk.say(Played(400))
    talk.now += 0.05
    talk.say(Interrupt())
    assert talk.sent()[-1]["audio_end_ms"] == pytest.approx(50, abs=1)


@pytest.mark.parametrize("cut", [False, True])
def test_the_clients_count_goes_on_over_a_new_connection(cut: bool) -> None:
    talk = xai()
    talk.hear({"type": "conversation.created", "conversation": {"id": "conv"}})
    talk.say(Played(0))
    talk.tell(created("r1"), speech("r1", "a1", 1000), *([] if cut else [done("r1")]))
    talk.now += 0.5
    talk.say(Played(300))
    interrupted = Interruption("assistant") in talk.provider_is_lost()
    assert interrupted is cut
    talk.say(Played(350))  # nobody is there to take it
    talk.make_ready()
    talk.sent()
    talk.tell(created("r2"), speech("r2", "a2", 1000))
    talk.now += 1.0
    # The client's count began again only if the answer was cut off.
    talk.say(Played(200 if cut else 1200))
    talk.say(Interrupt())
    assert talk.sent()[-1]["audio_end_ms"] == pytest.approx(200, abs=1)


def test_the_rest_of_cut_speech_is_not_in_the_next() -> None:
    talk = openai(rates=(24_000, 16_000))
    talk.hear(created("r1"), audio("r1", "a1", base64.b64encode(b"\1\0" * 480).decode()))
    talk.say(Interrupt())
    talk.hear(done("r1", "cancelled"))
    [frame] = talk.hear(created("r2"), audio("r2", "a2", base64.b64encode(b"\2\0" * 480).decode()))
    assert isinstance(frame, Audio)
    assert set(frame.pcm[::2]) == {2}


# Tools


def test_parallel_calls_are_answered_and_then_asked_about_once() -> None:
    talk = openai()
    frames = talk.hear(created("r1"), call("r1", "c1"), call("r1", "c2"), done("r1"))
    assert frames[:2] == [ToolCall("c1", "get_weather", "{}"), ToolCall("c2", "get_weather", "{}")]
    talk.say(ToolResult("c2", "2"), ToolResult("c1", "1"))
    types = [message["type"] for message in talk.sent()]
    assert types == ["conversation.item.create"] * 2 + ["response.create"]


def test_a_call_follows_all_the_speech_that_was_made_before_it() -> None:
    talk = openai(rates=(24_000, 16_000))
    before = talk.hear(created("r1"), speech("r1", "a1", 20))
    *rest, told = talk.hear(call("r1", "c1"))
    assert isinstance(told, ToolCall)
    # Not held back for the call, and what the resampler kept comes ahead of it.
    assert all(isinstance(frame, Audio) for frame in (*before, *rest))
    assert before
    assert sum(len(frame.pcm) for frame in (*before, *rest) if isinstance(frame, Audio)) == 320 * 2


def test_usage_stands_between_the_speech_of_two_responses_and_once() -> None:
    talk = openai(rates=(24_000, 16_000))
    usage = {"input_token_details": {"audio_tokens": 1}, "output_token_details": {"audio_tokens": 2}}
    frames = talk.hear(
        created("r1"),
        speech("r1", "a1", 20),
        done("r1", usage=usage),
        done("r1", usage=usage),
        created("r2"),
        speech("r2", "a2", 20),
    )
    assert frames.count(Usage(1, 2)) == 1
    at = frames.index(Usage(1, 2))
    assert sum(len(frame.pcm) for frame in frames[:at] if isinstance(frame, Audio)) == 320 * 2
    assert any(isinstance(frame, Audio) for frame in frames[at:])


def test_a_result_that_nobody_waits_for_is_swallowed() -> None:
    talk = openai()
    assert talk.say(ToolResult("c9", "")) == []
    assert talk.sent() == []
    assert talk.bridge.stats.late_results == 1


def test_the_result_of_a_cancelled_call_is_swallowed() -> None:
    talk = google()
    talk.hear(google_talk.call(("c1", {})), {"toolCallCancellation": {"ids": ["c1"]}})
    assert talk.say(ToolResult("c1", "")) == []
    assert talk.sent() == []


def test_calls_beyond_the_limit_are_answered_here() -> None:
    talk = google(limits=BridgeLimits(max_open_calls=1))
    frames = talk.hear(google_talk.call(("c1", {}), ("c2", {})))
    assert frames == [ToolCall("c1", "get_weather", "{}")]
    [answer] = talk.sent()
    [response] = answer["toolResponse"]["functionResponses"]
    assert response["id"] == "c2"
    assert "error" in response["response"]
    assert talk.bridge.stats.refused_calls == 1


def test_interrupted_calls_take_no_place() -> None:
    talk = openai(limits=BridgeLimits(max_open_calls=1))
    for number in range(3):
        name = f"r{number}"
        frames = talk.hear(created(name), speech(name, "a", 500), call(name, f"c{number}"))
        assert ToolCall(f"c{number}", "get_weather", "{}") in frames
        assert Interruption("assistant") in talk.say(Interrupt())
        talk.hear(done(name, "cancelled"))
    assert talk.bridge.stats.refused_calls == 0


def test_a_call_that_is_too_long_is_answered_here() -> None:
    talk = google(limits=BridgeLimits(max_text_size=50))
    frames = talk.hear(
        google_talk.call(("c1", {"city": "x" * 50})), google_talk.call(("c2", {"city": "Oslo"}))
    )
    assert frames == [ToolCall("c2", "get_weather", '{"city":"Oslo"}')]
    [answer] = talk.sent()
    assert answer["toolResponse"]["functionResponses"][0]["response"] == {
        "error": "the arguments are too long"
    }


def test_a_refused_call_of_a_provider_that_leaves() -> None:
    talk = openai(limits=BridgeLimits(max_open_calls=0))
    talk.hear(error("insufficient_quota"))
    assert talk.hear(created("r1"), call("r1", "c1")) == []
    assert talk.answer_close()[-1] == Close(1011, "provider_quota_exceeded", "local")


def test_a_text_that_is_too_long_is_cut() -> None:
    talk = openai(limits=BridgeLimits(max_text_size=7))
    [told] = talk.hear(created("r1"), words("r1", "a1", "é" * 9))
    assert told == Transcript("assistant", "ééé", False)


# The end


def test_the_client_leaves() -> None:
    talk = openai()
    talk.tell(created("r1"), speech("r1", "a1", 20))
    assert talk.say(Close(1000, "bye", "remote")) == []
    assert not talk.is_done()
    assert talk.answer_close() == []
    assert talk.is_done()
    assert talk.bridge.next_deadline() is None


def test_the_client_leaves_before_there_is_a_connection() -> None:
    talk = openai(ready=False)
    talk.say(Close(1000, "", "remote"))
    assert talk.is_done()
    assert not talk.wants_connection()


def test_the_provider_dies() -> None:
    talk = openai(rates=(24_000, 16_000))
    frames = talk.hear(created("r1"), words("r1", "a1", "Hel"), speech("r1", "a1", 20))
    frames += talk.provider_is_lost()
    total = sum(len(frame.pcm) for frame in frames if isinstance(frame, Audio))
    assert total == 320 * 2
    assert frames.count(Transcript("assistant", "Hel", True)) == 1
    assert frames[-2:] == [
        ErrorFrame(
            "PROVIDER_UNAVAILABLE", "the connection to the provider was lost (close code 1006); try again"
        ),
        Close(1011, "provider_unavailable", "local"),
    ]
    assert talk.is_done()


def test_what_the_session_survives_is_told_with_a_stable_code() -> None:
    talk = openai(secrets=("sk-secret",))
    [told] = talk.hear(error("server_error", "with sk-secret something broke"))
    assert told == ErrorFrame("PROVIDER_INTERNAL_ERROR", "server_error: with *** something broke")
    [told] = talk.hear(error("never_heard_of", "x" * 1_000))
    assert isinstance(told, ErrorFrame)
    assert told.code == "PROVIDER_ERROR"
    assert len(told.message) == 500


def test_a_fatal_error_ends_the_session_and_shows_no_key() -> None:
    talk = openai()
    assert talk.hear(error("invalid_api_key", "Incorrect API key provided: sk-***abcd")) == []
    frames = talk.answer_close()
    assert frames == [
        ErrorFrame(
            "PROVIDER_UNAUTHORIZED",
            "the provider does not accept this server's key; tell the server's operator",
        ),
        Close(1011, "provider_unauthorized", "local"),
    ]


def test_the_time_limit_of_the_provider() -> None:
    talk = openai()
    talk.hear(error("session_expired", "Your session hit the maximum duration of 60 minutes."))
    assert talk.provider_closes(1001)[-1] == Close(1000, "provider_session_expired", "local")


def test_unknown_events_are_counted() -> None:
    talk = openai()
    assert talk.hear({"type": "brand.new"}) == []
    assert talk.bridge.stats.unknown_events == 1
    assert talk.say(Unknown("new", "{}")) == []


def test_why_there_is_no_connection() -> None:
    for status, code in [
        (None, "unavailable"),
        (401, "unauthorized"),
        (402, "quota_exceeded"),
        (404, "model_not_found"),
        (429, "rate_limited"),
        (503, "unavailable"),
        (418, "error"),
    ]:
        ending = judge_opening(HandshakeError("no", status=status), Moment.SETUP)
        assert ending.error is not None
        assert ending.error.code == f"provider_{code}"
        assert ending.retry is (status in (None, 429, 503))
        assert not ending.stale
        stale = judge_opening(HandshakeError("no", status=status), Moment.RESUMING).stale
        assert stale is (status in (404, 418))
    for status in (400, 402, 403, 429):
        refusal = HandshakeError(f"HTTP {status} (You exceeded your current quota.)", status=status)
        ending = judge_opening(refusal, Moment.RESUMING)
        assert ending == (ErrorFrame("provider_quota_exceeded", ""), False, False)
    ending = judge_opening(RemoteProtocolError("bad head", close_code=1002), Moment.RESUMING)
    assert ending == (ErrorFrame("provider_protocol_error", "bad head"), False, False)


def test_the_first_connection_is_tried_again() -> None:
    talk = openai(ready=False)
    talk.say(AudioIn(b"\1\0", 24_000))
    talk.connect(State.CONNECTING)
    assert talk.provider_is_lost() == []
    talk.make_ready()
    assert talk.resumptions == [None, None]
    assert spoken(talk.sent()) == b"\1\0"


def test_a_provider_that_breaks_its_protocol() -> None:
    talk = openai()
    with talk.bridge.at(talk.now):
        talk.provider.receive_message("{")
    told, close = talk.frames()
    assert isinstance(told, ErrorFrame)
    assert told.code == "PROVIDER_PROTOCOL_ERROR"
    assert close == Close(1011, "provider_protocol_error", "local")


def test_a_provider_that_ends_the_session() -> None:
    assert openai().provider_closes(1000) == [Close(1000, "provider_closed", "local")]


# The client's session


def test_what_the_bridge_says_is_in_the_outbox_of_the_client_s_session() -> None:
    server = ServerProtocol(output_sample_rate=16_000)
    server.send_ready()
    server.messages_to_send()
    told: list[ServerFrame] = []
    talk = openai(client=server, on_emitted=told.append)
    talk.tell(created("r1"), speech("r1", "a1", 20), words("r1", "a1", "Hello"))
    said = '{"t":"transcript","role":"assistant","text":"Hello","final":false}'
    audio_of_it, text = server.messages_to_send()
    assert isinstance(audio_of_it, bytes)
    assert text == said
    assert told == [Transcript("assistant", "Hello", False)]
    with pytest.raises(LocalProtocolError, match="in the outbox of the client's session"):
        talk.bridge.next_frame()


def test_a_session_that_is_over_is_told_nothing() -> None:
    server = ServerProtocol()
    server.send_ready()
    told: list[ServerFrame] = []
    talk = openai(client=server, on_emitted=told.append)
    server.close(1012, "restarting")
    server.messages_to_send()
    talk.tell(created("r1"), speech("r1", "a1", 20), words("r1", "a1", "Hello"))
    assert not server.has_output
    assert told == []
    assert talk.bridge._output.refused == 0


def test_what_the_session_s_outbox_does_not_take_is_left_out() -> None:
    server = ServerProtocol(limits=Limits(max_outbox=1_500))
    server.send_ready()
    talk = openai(client=server)
    talk.tell(created("r1"), speech("r1", "a1", 20), speech("r1", "a1", 20), words("r1", "a1", "x" * 600))
    assert talk.bridge._output.refused == 2
    assert len(server.messages_to_send()) == 2
    talk.tell(words("r1", "a1", "Hello"))
    assert len(server.messages_to_send()) == 1


def test_the_goodbye_is_left_to_whoever_closes_the_session() -> None:
    server = ServerProtocol()
    server.send_ready()
    talk = openai(client=server)
    talk.tell(created("r1"), speech("r1", "a1", 20))
    with talk.bridge.at(talk.now):
        talk.provider.receive_lost()
    assert talk.is_done()
    assert talk.bridge.goodbye == Close(1011, "provider_unavailable", "local")
    assert server.state is State.OPEN
    assert server.queued > len(pcm(20))


# Backpressure


def test_who_must_wait() -> None:
    talk = openai(limits=BridgeLimits(to_client=500, to_provider=500))
    assert not talk.waits_for_client()
    talk.tell(created("r1"), speech("r1", "a1", 20))
    assert talk.waits_for_client()
    talk.frames()
    assert not talk.waits_for_client()
    assert not talk.waits_for_provider()
    talk.say(AudioIn(pcm(20), 24_000))
    assert talk.waits_for_provider()
    talk.sent()
    assert not talk.waits_for_provider()


def test_what_does_not_fit_is_dropped_or_ends_the_session() -> None:
    talk = openai(MANUAL, dialect_limits=Limits(max_outbox=8_000))
    talk.say(*[AudioIn(pcm(100), 24_000)] * 4)
    assert talk.bridge.stats.dropped_audio == 3 * len(pcm(100))


@pytest.mark.parametrize("pieces", [1, 600])
@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_what_is_held_does_not_depend_on_its_pieces(pieces: int, rate: int) -> None:
    talk = openai(ready=False, rates=(rate, rate))
    said = b"".join(number.to_bytes(2, "little") for number in range(1, 1 + 12 * rate // 10)) * 10
    size = len(said) // pieces
    talk.say(*[AudioIn(said[start : start + size], rate) for start in range(0, len(said), size)])
    talk.make_ready()
    heard = spoken(talk.sent())
    assert len(heard) >= (10 * 24_000 - HELD * 3) * 2
    if rate == 24_000:
        assert heard == said[-10 * 48_000 :]
    assert talk.bridge.stats.dropped_audio == 2 * rate * 2


def test_held_audio_goes_as_far_as_the_outbox_takes_it() -> None:
    talk = openai(MANUAL, ready=False, dialect_limits=Limits(max_outbox=100_000))
    talk.say(AudioIn(pcm(5_000), 24_000))
    talk.make_ready()
    heard = len(spoken(talk.sent()))
    assert heard > 50_000
    assert heard + talk.bridge.stats.dropped_audio == len(pcm(5_000))


# Resumption


def handle(name: str) -> dict[str, object]:
    return {"sessionResumptionUpdate": {"newHandle": name, "resumable": True}}


def test_a_session_moves_and_the_client_notices_nothing() -> None:
    talk = google()
    talk.hear(google_talk.speech(b"\1\0" * 100), google_talk.COMPLETE, handle("h1"))
    assert talk.hear({"goAway": {"timeLeft": "50s"}}) == []
    talk.sent()
    assert not talk.wants_connection()
    talk.say(AudioIn(b"\1\0", 24_000))
    assert talk.answer_close() == []
    talk.say(AudioIn(b"\2\0", 24_000))
    assert talk.make_ready() == []
    assert talk.resumptions == [None, "h1"]
    setup, *said = talk.sent()
    assert setup["setup"]["sessionResumption"] == {"handle": "h1"}
    assert b"".join(map(google_talk.pcm_of, said)) == b"\1\0\2\0"


def test_it_moves_when_the_answer_is_over() -> None:
    talk = google()
    talk.hear(handle("h1"), google_talk.speech(b"\1\0"), {"goAway": {"timeLeft": "50s"}})
    assert talk.wait(1) == []
    assert talk.bridge.provider is not None
    talk.hear(google_talk.COMPLETE)
    assert talk.provider.state.value == "open"
    talk.hear(handle("h2"))
    talk.answer_close()
    talk.make_ready()
    assert talk.resumptions == [None, "h2"]


def test_it_moves_in_the_middle_when_time_is_up() -> None:
    talk = google()
    talk.hear(handle("h1"), {"goAway": {"timeLeft": "50s"}})
    # It moved at once: nothing was under way.
    talk.answer_close()
    talk.make_ready()
    talk.hear(handle("h2"), google_talk.said("Well"), google_talk.speech(b"\1\0"))
    talk.hear({"goAway": {"timeLeft": "9s"}})
    talk.wait(8)
    assert talk.answer_close() == [
        Interruption("assistant"),
        Transcript("assistant", "Well", True),
        ResponseEnd("interrupted"),
        ErrorFrame(
            "PROVIDER_RESPONSE_LOST",
            "the connection to the provider broke in the middle of something; say it again",
        ),
    ]
    talk.wait(0.5)
    talk.make_ready()
    assert talk.resumptions == [None, "h1", "h2"]


def test_a_broken_connection_is_resumed() -> None:
    talk = google()
    talk.hear(handle("h1"), google_talk.call(("c1", {})))
    frames = talk.provider_closes(1011, "Internal error encountered.")
    assert frames[0] == Interruption("assistant")
    talk.make_ready()
    talk.sent()
    # The model that asked is gone, and another call has the same id.
    assert talk.say(ToolResult("c1", "late")) == []
    assert talk.sent() == []
    assert talk.hear(google_talk.call(("c1", {}))) == [ToolCall("c1-2", "get_weather", "{}")]
    talk.say(ToolResult("c1-2", "{}"))
    [answer] = talk.sent()
    assert answer["toolResponse"]["functionResponses"][0]["id"] == "c1"


def test_a_late_result_does_not_answer_the_next_connection_s_call_of_that_id() -> None:
    talk = google()
    talk.hear(handle("h1"), google_talk.call(("c1", {})))
    talk.provider_is_lost()
    talk.make_ready()
    assert talk.hear(google_talk.call(("c1", {}))) == [ToolCall("c1-2", "get_weather", "{}")]
    talk.sent()
    talk.say(ToolResult("c1", "late"))
    assert talk.sent() == []
    assert talk.bridge.stats.late_results == 1


def test_what_was_held_back_for_a_lost_connection_does_not_reach_the_next() -> None:
    talk = google(GoogleOptions(native_input_rate=True))  # of 16 kHz
    talk.hear(handle("h1"))
    talk.say(AudioIn(b"\5\0" * 480, 24_000))
    talk.sent()
    talk.provider_is_lost()
    talk.make_ready()
    talk.say(AudioIn(b"\7\0" * 480, 24_000))
    assert set(b"".join(map(google_talk.pcm_of, filter(google_talk.is_audio, talk.sent())))[::2]) == {7}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1011, "Internal error encountered."),
        (1008, "The operation was aborted."),
        (1007, "The service is currently unavailable."),
        (1000, "The operation was cancelled."),
    ],
)
def test_trouble_that_comes_again_when_it_resumes(code: int, reason: str) -> None:
    talk = google()
    talk.hear(handle("h1"))
    talk.wait(40)
    frames = talk.provider_closes(code, reason)
    for seconds in (0.0, 0.5, 2.0):
        assert frames == []
        assert talk.wants_connection() is (seconds == 0)
        talk.wait(seconds)
        talk.connect()
        frames = talk.provider_closes(code, reason)
    told, close = frames
    assert isinstance(told, ErrorFrame)
    assert isinstance(close, Close)
    assert told.code.lower() == close.reason
    assert talk.resumptions == [None, "h1", "h1", "h1"]


def test_a_handle_that_is_refused_begins_afresh() -> None:
    talk = google()
    talk.hear(handle("h1"))
    talk.provider_is_lost()
    talk.connect()
    [told] = talk.provider_closes(1008, "Requested entity was not found.")
    assert isinstance(told, ErrorFrame)
    assert told.code == "PROVIDER_CONVERSATION_LOST"
    talk.say(AudioIn(b"\1\0", 24_000))
    assert talk.make_ready() == []
    assert talk.resumptions == [None, "h1", None]
    setup, said = talk.sent()
    assert setup["setup"]["sessionResumption"] == {}
    assert google_talk.pcm_of(said) == b"\1\0"


def test_it_begins_afresh_even_when_the_last_try_is_refused() -> None:
    talk = google()
    talk.hear(handle("h1"))
    talk.provider_is_lost()
    for seconds in (0.0, 0.5, 2.0):
        talk.wait(seconds)
        talk.connect()
        if seconds < 2:
            talk.provider_is_lost()
    talk.provider_closes(1007, "Request contains an invalid argument.")
    talk.make_ready()
    assert talk.resumptions == [None, "h1", "h1", "h1", None]
    assert talk.provider_closes(1007, "Request contains an invalid argument.")[-1] == Close(
        1011, "provider_invalid_request", "local"
    )


@pytest.mark.parametrize("how", ["close", "error", "handshake"])
def test_a_conversation_that_xai_has_forgotten_begins_afresh(how: str) -> None:
    talk = xai()
    talk.hear({"type": "conversation.created", "conversation": {"id": "conv"}})
    talk.provider_is_lost()
    if how == "handshake":
        talk.connect(State.CONNECTING)
        with talk.bridge.at(talk.now):
            refusal = HandshakeError("no such conversation", status=404)
            talk.provider.fail_handshake(Signal.LOST, refusal)
        [told] = talk.frames()
    elif how == "error":
        talk.connect()
        talk.hear(CREATED, error("invalid_request_error", "Conversation conv was not found"))
        [told] = talk.answer_close()
    else:
        talk.connect()
        [told] = talk.provider_closes(1008, "conversation conv not found")
    assert isinstance(told, ErrorFrame)
    assert told.code == "PROVIDER_CONVERSATION_LOST"
    talk.make_ready()
    assert talk.resumptions == [None, "conv", None]


@pytest.mark.parametrize("make", [openai, xai, google])
def test_an_acceptance_that_comes_too_late_spoils_no_retry(make: Any) -> None:
    talk = make(ready=False)
    talk.say(AudioIn(b"\1\0" * 2400, 24_000))
    talk.connect()
    if make is not google:
        talk.hear(CREATED)
    talk.wait(10.05)
    talk.sent()
    talk.hear(google_talk.READY if make is google else UPDATED)
    assert talk.provider_closes(1000) == []
    assert talk.make_ready() == []
    assert talk.bridge.stats.connections == 1
    said = talk.sent()
    heard = b"".join(map(google_talk.pcm_of, said[1:])) if make is google else spoken(said)
    assert heard == b"\1\0" * 2400


def test_it_is_not_tried_for_ever() -> None:
    talk = google()
    talk.hear(handle("h1"))
    frames = talk.provider_is_lost()
    for seconds in (0.0, 0.5, 2.0):
        assert frames == []
        if seconds:
            assert not talk.wants_connection()
            talk.wait(seconds)
        talk.connect()
        frames = talk.provider_is_lost()
    assert [type(frame) for frame in frames] == [ErrorFrame, Close]
    assert talk.resumptions == [None, "h1", "h1", "h1"]
    assert talk.is_done()


def test_a_connection_that_was_lost_does_not_count_as_steady_later() -> None:
    talk = google()
    talk.hear(handle("h1"))
    talk.wait(29.9)
    frames = talk.provider_is_lost()
    for seconds in (0.0, 0.5, 2.0):
        assert frames == []
        talk.wait(seconds)
        talk.connect()
        frames = talk.provider_is_lost()
    assert [type(frame) for frame in frames] == [ErrorFrame, Close]


def test_xai_resumes_its_conversation() -> None:
    talk = xai()
    talk.hear({"type": "conversation.created", "conversation": {"id": "conv"}})
    talk.hear(error(None, "Session exceeded its maximum duration", type="max_duration"))
    talk.provider_closes(1000)
    assert talk.make_ready() == []
    assert talk.resumptions == [None, "conv"]


def test_xai_does_not_wake_a_session_that_fell_asleep() -> None:
    talk = xai()
    talk.hear({"type": "conversation.created", "conversation": {"id": "conv"}})
    talk.hear(error(None, "Conversation timed out after 900.0 seconds due to inactivity", type="timeout"))
    assert talk.provider_closes(1000)[-1] == Close(1000, "provider_idle_timeout", "local")


def test_gemini_is_not_resumed_when_it_ends_the_session_itself() -> None:
    talk = google()
    talk.hear(handle("h1"))
    assert talk.provider_closes(1000) == [Close(1000, "provider_closed", "local")]
    assert talk.is_done()


def test_words_that_nobody_answered_are_final_and_lost() -> None:
    talk = google()
    talk.hear(handle("h1"), google_talk.heard("Hello"))
    words, lost = talk.provider_is_lost()
    assert words == Transcript("user", "Hello", True)
    assert isinstance(lost, ErrorFrame)
    assert lost.code == "PROVIDER_RESPONSE_LOST"
    talk.make_ready()
    assert talk.resumptions == [None, "h1"]


def test_one_that_can_not_move_says_so() -> None:
    talk = google(GoogleOptions(resumption=False))
    [told] = talk.hear({"goAway": {"timeLeft": "50s"}})
    assert told == ErrorFrame("PROVIDER_GOING_AWAY", "the provider ends the session in 50 s")


# The ends of answers


def ends(frames: list[Any]) -> list[ResponseEnd]:
    return [frame for frame in frames if isinstance(frame, ResponseEnd)]


def test_an_answer_ends_behind_its_speech() -> None:
    talk = openai(rates=(24_000, 16_000))
    frames = talk.hear(created("r1"), speech("r1", "a1", 20), done("r1"))
    assert frames[-1] == ResponseEnd("done")
    assert sum(len(frame.pcm) for frame in frames if isinstance(frame, Audio)) == 320 * 2


def test_an_answer_that_is_interrupted_ends_once() -> None:
    talk = openai()
    frames = talk.hear(created("r1"), speech("r1", "a1", 200))
    frames += talk.say(Interrupt())
    frames += talk.hear(done("r1", "cancelled"), done("r1", "cancelled"))
    assert frames.index(Interruption("assistant")) < frames.index(ResponseEnd("interrupted"))
    assert len(ends(frames)) == 1


@pytest.mark.parametrize("make", [openai, xai])
def test_an_answer_that_is_lost_with_the_last_connection_ends_once(make: Any) -> None:
    talk = make()
    frames = talk.hear(created("r1"), speech("r1", "a1", 20))
    frames += talk.provider_is_lost()
    assert [end.status for end in ends(frames)] == ["failed"]
    assert isinstance(frames[-1], Close)


@pytest.mark.parametrize("make", [xai, google])
def test_an_answer_that_is_lost_with_a_connection_ends_behind_the_interruption(make: Any) -> None:
    talk = make()
    if make is google:
        frames = talk.hear(handle("h1"), google_talk.speech(b"\1\0" * 100))
    else:
        conversation = {"type": "conversation.created", "conversation": {"id": "conv"}}
        frames = talk.hear(conversation, created("r1"), speech("r1", "a1", 20))
    frames += talk.provider_is_lost()
    assert [end.status for end in ends(frames)] == ["failed"]
    place = frames.index(Interruption("assistant"))
    assert ends(frames[place:]) == ends(frames)
    assert ends(talk.make_ready()) == []


def test_an_answer_that_was_whole_when_the_connection_broke_is_not_lost() -> None:
    talk = google()
    frames = talk.hear(handle("h1"), google_talk.said("Well"), google_talk.speech(b"\1\0" * 100))
    with talk.bridge.at(talk.now):
        talk.provider.receive_message(json.dumps(google_talk.COMPLETE))
        talk.provider.receive_lost()
    frames += talk.frames()
    assert ends(frames) == [ResponseEnd("done")]
    assert not [frame for frame in frames if isinstance(frame, Interruption | ErrorFrame)]


def test_an_answer_ends_when_the_bridge_gives_up() -> None:
    talk = openai(dialect_limits=Limits(max_outbox=8_000))
    talk.hear(created("r1"), speech("r1", "a1", 20))
    frames = talk.say(*[Clear()] * 400)
    assert [type(frame) for frame in frames] == [ResponseEnd, ErrorFrame, Close]
    assert frames[0] == ResponseEnd("failed", "provider_unavailable")
    assert talk.answer_close() == []


def test_the_reason_of_an_end_shows_no_secret() -> None:
    talk = openai(secrets=("sk-secret",))
    frames = talk.hear(
        created("r1"),
        speech("r1", "a1", 20),
        done("r1", "incomplete", status_details={"reason": "sk-secret" + "x" * 1_000}),
    )
    [end] = ends(frames)
    assert end.status == "incomplete"
    assert end.reason.startswith("***x")
    assert len(end.reason) == 500


# What a lost connection leaves behind


def test_the_end_of_what_the_user_said_stays_with_its_connection() -> None:
    talk = google(rates=(16_000, 16_000), ready=False)
    make_at = talk._make
    talk._make = lambda resumption, state: _at_24_khz(make_at(resumption, state))
    talk.make_ready()
    talk.hear(handle("h1"))
    talk.say(AudioIn(b"\1\0" * 1_600, 16_000))
    talk.sent()
    talk.provider_is_lost()
    talk.make_ready()
    talk.sent()
    talk.say(AudioIn(b"\2\0" * 1_600, 16_000), Commit())
    heard = b"".join(google_talk.pcm_of(m) for m in talk.sent() if "audio" in m.get("realtimeInput", {}))
    assert b"\2\0" in heard
    assert set(struct.unpack(f"<{len(heard) // 2}h", heard)) <= {0, 2}


def _at_24_khz(dialect: Any) -> Any:
    dialect.input_sample_rate = 24_000
    return dialect


@pytest.mark.parametrize("cut", [False, True])
def test_the_end_of_an_answer_stays_with_its_connection(cut: bool) -> None:
    talk = google(rates=(24_000, 16_000))
    talk.hear(handle("h1"), google_talk.speech(b"\1\0" * 2_400))
    if not cut:
        talk.hear(google_talk.COMPLETE, handle("h2"))
    assert not [frame for frame in talk.provider_is_lost() if isinstance(frame, Audio)]
    talk.make_ready()
    frames = talk.hear(google_talk.speech(b"\2\0" * 2_400), google_talk.COMPLETE)
    heard = b"".join(frame.pcm for frame in frames if isinstance(frame, Audio))
    assert set(struct.unpack(f"<{len(heard) // 2}h", heard)) == {2}


def test_an_id_of_another_connection_is_another_response() -> None:
    """What is under way on a connection goes with it: xAI resumes a conversation, whose items it replays
    before it is ready. A server may count anew, so an id that was used before says nothing."""
    talk = xai()
    talk.hear({"type": "conversation.created", "conversation": {"id": "conv"}})
    talk.hear(created("r1"), speech("r1", "a1", 20))
    talk.provider_is_lost()
    talk.connect()
    assert talk.hear(CREATED, audio("r1", "a1")) == []
    talk.hear(UPDATED)
    frames = talk.hear(speech("r1", "a1", 20), done("r1"))
    assert [type(frame) for frame in frames] == [Audio, ResponseEnd]


def test_calls_that_an_interruption_abandons_are_not_said() -> None:
    talk = openai()
    talk.tell(created("r1"), speech("r1", "a1", 200), call("r1", "c1"), done("r1"))
    talk.bridge.receive_command(Interrupt(), talk.now)
    frames = talk.frames()
    assert Interruption("assistant") in frames
    assert not [frame for frame in frames if isinstance(frame, Audio | ToolCall)]
    assert len(ends(frames)) == 1


# The ends of turns


def stopped() -> dict[str, object]:
    return {"type": "input_audio_buffer.speech_stopped", "item_id": "u1", "audio_end_ms": 700}


def test_the_ends_of_turns_that_the_provider_hears_are_counted() -> None:
    talk = openai()
    for count in range(1, 4):
        talk.tell(stopped())
        assert talk.bridge.stats.turns_heard == count
        talk.hear(created(f"r{count}"), speech(f"r{count}", f"a{count}", 20), done(f"r{count}"))


def test_the_end_of_a_turn_that_the_client_said_is_not_heard_again() -> None:
    talk = openai()
    talk.say(AudioIn(pcm(200), 24_000), EndTurn())
    talk.tell(stopped())
    assert talk.bridge.stats.turns_heard == 0
    talk.hear(created("r1"), speech("r1", "a1", 20), done("r1"))
    talk.tell(stopped())
    assert talk.bridge.stats.turns_heard == 1


def test_what_the_user_says_into_an_answer_that_goes_on_ends_no_turn() -> None:
    talk = openai()
    talk.tell(created("r1"), stopped())
    assert talk.bridge.stats.turns_heard == 0
