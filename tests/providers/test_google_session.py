"""A conversation with Gemini, event by event: turns, interruptions, words, tools, usage, time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from speko_anyio.protocol import (
    Audio,
    Close,
    ConnectionClosed,
    ErrorFrame,
    Expiring,
    Frame,
    Interruption,
    Limits,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ResponseEnd,
    ServerToolCall,
    State,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.google import GoogleDialect, GoogleOptions
from speko_anyio.providers.google._assistant import MUTE_TIMEOUT, STALLED_TIMEOUT
from speko_anyio.providers.google._words import LATE_WORDS_TIMEOUT

from .google_talk import (
    COMPLETE,
    END,
    GENERATED,
    GOOGLE,
    INTERRUPTED,
    MANUAL,
    READY,
    START,
    STREAM_END,
    Json,
    Talk,
    call,
    content,
    frames,
    heard,
    is_audio,
    pcm_of,
    said,
    speech,
    usage,
)

PCM = bytes(range(8))
GATED = GoogleOptions(gate_input=True)


DONE = ResponseEnd("done")
CUT_OFF = ResponseEnd("interrupted")


def audio(*frames: Frame) -> bytes:
    return b"".join(frame.pcm for frame in frames if isinstance(frame, Audio))


def is_idle(talk: Talk) -> bool:
    return talk.dialect.idle


# What we send


def test_audio_is_sent_in_short_messages() -> None:
    talk = Talk()
    pcm = bytes(range(250)) * 40  # 208 ms
    talk.dialect.send_audio(memoryview(pcm))
    messages = talk.sent()
    assert [len(pcm_of(message)) for message in messages] == [4800, 4800, 400]
    assert b"".join(map(pcm_of, messages)) == pcm


def test_audio_must_be_whole_samples() -> None:
    talk = Talk()
    with pytest.raises(LocalProtocolError, match="keep the odd byte"):
        talk.dialect.send_audio(b"\0\0\0")
    talk.dialect.send_audio(b"")
    assert talk.sent() == []


def test_silence_ends_a_turn_in_auto_mode() -> None:
    for end in (GoogleDialect.commit, GoogleDialect.end_turn):
        talk = Talk()
        talk.dialect.send_audio(PCM)
        end(talk.dialect)
        first, *silence, last = talk.sent()
        assert pcm_of(first) == PCM
        assert last == STREAM_END
        assert b"".join(map(pcm_of, silence)) == bytes(800 * 48)


def test_turns_in_manual_mode() -> None:
    talk = Talk(options=MANUAL)
    assert talk.setup["realtimeInputConfig"]["automaticActivityDetection"] == {"disabled": True}
    for end in (talk.dialect.commit, talk.dialect.end_turn):
        talk.dialect.send_audio(PCM)
        talk.dialect.send_audio(PCM)
        end()
        start, first, second, last = talk.sent()
        assert (start, last) == (START, END)
        assert pcm_of(first) == pcm_of(second) == PCM


def test_a_manual_turn_without_audio_is_none() -> None:
    talk = Talk(options=MANUAL)
    talk.dialect.commit()
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.dialect.commit()
    assert [is_audio(message) for message in talk.sent()] == [False, True, False]
    assert talk.dialect.stats.skipped_commits == 2


def test_clear_takes_back_what_nobody_took() -> None:
    talk = Talk(options=MANUAL)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.dialect.send_audio(PCM)
    talk.dialect.clear()
    talk.dialect.commit()  # of nothing
    start, mine, end, again = talk.sent()
    assert (start, pcm_of(mine), end, again) == (START, PCM, END, START)
    talk.dialect.send_audio(PCM)
    talk.dialect.send_audio(PCM[:4])
    talk.sent()
    talk.dialect.send_audio(PCM[4:])
    talk.dialect.clear()
    talk.dialect.commit()
    assert talk.sent() == [END]
    assert talk.dialect.stats.skipped_commits == 1


def test_clear_keeps_what_is_no_audio() -> None:
    talk = Talk()
    talk.hear(call(("c", {})))
    talk.dialect.send_audio(PCM)
    talk.dialect.send_tool_result("c", "1")
    talk.dialect.send_audio(PCM)
    talk.dialect.clear()
    talk.dialect.send_audio(PCM[:2])
    result, mine = talk.sent()
    assert "toolResponse" in result
    assert pcm_of(mine) == PCM[:2]


def test_the_outbox_counts_bytes_and_is_bounded() -> None:
    talk = Talk(limits=Limits(max_outbox=2_000))
    size = len(
        json.dumps({"realtimeInput": {"audio": {"data": "A" * 8, "mimeType": "audio/pcm;rate=24000"}}})
    )
    with pytest.raises(LocalProtocolError, match="outbox"):
        talk.dialect.send_audio(bytes(48 * 100))
    assert not talk.dialect.has_output
    for _ in range(2_000 // size):
        talk.dialect.send_audio(PCM[:6])
    with pytest.raises(LocalProtocolError, match="outbox"):
        talk.dialect.send_audio(bytes(200))
    talk.dialect.clear()
    talk.hear(call(("c", {})))
    with pytest.raises(LocalProtocolError, match="outbox"):
        talk.dialect.send_tool_result("c", "é" * 1_000)  # 2000 bytes, of which a character is two
    talk.dialect.send_tool_result("c", "é" * 900)
    assert len(talk.sent()) == 1


# Before it is ready


def test_what_is_said_too_early_waits() -> None:
    talk = Talk(options=MANUAL, ready=False)
    assert [list(message) for message in talk.sent()] == [["setup"]]
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.dialect.send_audio(PCM[:2])
    talk.dialect.interrupt()
    talk.dialect.clear()
    talk.dialect.send_audio(PCM[2:])
    assert talk.sent() == []
    assert talk.hear(READY) == [Ready(24_000, 24_000)]
    start, first, end, start_again, second = talk.sent()
    assert (start, end, start_again) == (START, END, START)
    assert (pcm_of(first), pcm_of(second)) == (PCM, PCM[2:])
    talk.hear(READY)
    assert talk.sent() == []
    assert talk.dialect.stats.repeated_events == 1


def test_what_waits_is_bounded() -> None:
    talk = Talk(ready=False)
    for second in range(12):
        talk.dialect.send_audio(bytes([second]) * 48_000)
    assert talk.dialect.held_audio_dropped == 96_000
    talk.sent()
    talk.hear(READY)
    messages = talk.sent()
    assert sum(len(pcm_of(message)) for message in messages) == 480_000
    assert pcm_of(messages[0])[0] == 2


def test_what_waits_and_does_not_fit_is_counted() -> None:
    talk = Talk(ready=False, limits=Limits(max_outbox=4_000))
    talk.sent()
    talk.dialect.send_audio(bytes(1_000))
    talk.dialect.commit()
    talk.dialect.send_audio(bytes(500))
    assert talk.hear(READY) == [Ready(24_000, 24_000)]
    assert [len(pcm_of(message)) for message in talk.sent()] == [1_000]
    assert talk.dialect.held_audio_dropped == 500


def test_it_must_be_ready_in_time() -> None:
    talk = Talk(ready=False)
    assert talk.wait(9.9) == []
    (failure,) = talk.wait(0.2)
    assert failure == talk.dialect.failure
    assert isinstance(failure, ErrorFrame)
    assert failure.code == "provider_not_ready"
    assert talk.dialect.state is State.CLOSING
    talk.sent()
    assert talk.close is not None
    assert talk.close.reason == "provider_not_ready"
    ready = Talk()
    assert ready.wait(100) == []


def test_ready_after_our_goodbye_sends_nothing() -> None:
    talk = Talk(ready=False)
    talk.dialect.send_audio(PCM)
    talk.dialect.close()
    assert talk.hear(READY) == [Ready(24_000, 24_000)]
    assert [list(message) for message in talk.sent()] == [["setup"]]
    with pytest.raises(ConnectionClosed):
        talk.dialect.send_audio(PCM)


# What comes in


def test_odd_bytes_are_carried_within_a_response() -> None:
    talk = Talk()
    got = audio(*talk.hear(speech(b"\1\2\3"), speech(b"\4"), speech(b"\5"), COMPLETE, speech(b"\6\7")))
    assert got == b"\1\2\3\4\6\7"


@pytest.mark.parametrize(
    ("mime_type", "rate"),
    [
        (None, 24_000),
        ("audio/pcm", 24_000),
        ("audio/pcm; rate=16000", 16_000),
        ("audio/pcm;rate=0", 24_000),
        ("audio/pcm;rate=999999", 24_000),
        ("audio/pcm;rate=x", 24_000),
    ],
)
def test_the_rate_is_what_the_audio_says(mime_type: str | None, rate: int) -> None:
    talk = Talk()
    assert talk.hear(speech(PCM, mime_type)) == [Audio(PCM, rate)]
    assert talk.dialect.output_sample_rate == rate


def test_what_is_no_speech_is_skipped() -> None:
    talk = Talk()
    assert (
        talk.hear(speech(PCM, "image/png"), content(modelTurn={}), content(modelTurn={"parts": None})) == []
    )
    assert talk.dialect.stats.skipped_blobs == 1
    assert talk.hear(content(modelTurn={"parts": [{"text": "plain"}, {"text": "hm", "thought": True}]})) == []


def test_text_is_what_the_model_says_where_nothing_writes_it_down() -> None:
    talk = Talk(options=GoogleOptions(output_transcription=False))
    parts = [{"text": "hm", "thought": True}, {"text": "Hello"}]
    assert talk.hear(content(modelTurn={"parts": parts}), COMPLETE) == [
        Transcript("assistant", "Hello", False),
        Transcript("assistant", "Hello", True),
        DONE,
    ]


def test_url_safe_base64_without_padding() -> None:
    talk = Talk()
    message = json.dumps(speech(b"\xfb\xff\xfb\xff")).replace("+", "-").replace("/", "_").replace("=", "")
    message = message.replace("audio_pcm;rate24000", "audio/pcm;rate=24000")
    talk.dialect.receive_message(message)
    assert audio(*frames(talk.dialect)) == b"\xfb\xff\xfb\xff"
    assert talk.dialect.stats.unknown_fields == 0


def test_what_is_new_is_counted_and_what_is_not_still_counts() -> None:
    talk = Talk()
    message = speech(PCM)
    message["brandNew"] = {"a": 1}
    message["serverContent"]["modelTurn"]["mood"] = "good"
    unknown, first = talk.hear(message)
    assert isinstance(unknown, Unknown)
    assert (unknown.t, json.loads(unknown.raw)) == ("brandNew", message)
    assert first == Audio(PCM, 24_000)
    assert talk.dialect.stats.unknown_fields == 2
    assert talk.hear({"serverContent": {"newer": 1}}, {}) == []


MALFORMED: list[bytes | str] = [
    b"\xff",
    "[]",
    "1",
    "{",
    '{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"data":"?"}}]}}}',
    '{"a":' + "[" * 100_000,
]


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: ascii(message[:40]))
def test_malformed(message: bytes | str) -> None:
    talk = Talk()
    talk.hear(said("Hi"))
    talk.dialect.receive_message(message)
    words, end, close = frames(talk.dialect)
    assert words == final("assistant", "Hi")
    assert isinstance(close, Close)
    assert end == ResponseEnd("failed", close.reason)
    assert (close.code, close.initiated_by) == (1007, "local")
    assert close.reason.startswith("the provider sent a message that is not of its protocol: ")
    assert isinstance(talk.dialect.error, RemoteProtocolError)
    talk.sent()
    assert talk.close is not None
    assert talk.close.code == 1007
    assert talk.hear(speech(PCM)) == []


def test_too_big() -> None:
    talk = Talk(limits=Limits(max_message_size=100, max_text_size=100, max_outbox=10_000))
    talk.dialect.receive_message(bytes(101))
    [close] = frames(talk.dialect)
    assert isinstance(close, Close)
    assert close.code == 1009


def test_a_transcript_without_end() -> None:
    talk = Talk(limits=Limits(max_text_size=60))
    found = talk.hear(*[heard("word ") for _ in range(20)])
    assert isinstance(found[-1], Close)
    assert found[-1].code == 1009
    assert len([frame for frame in found if isinstance(frame, Transcript)]) == 12


def test_nothing_follows_the_close_out_of_the_message_that_caused_it() -> None:
    talk = Talk(limits=Limits(max_text_size=60))
    both = {**heard("word " * 20)["serverContent"], **speech(PCM)["serverContent"]}
    [close] = talk.hear({"serverContent": both})
    assert isinstance(close, Close)


# Words


def final(role: Any, text: str) -> Transcript:
    return Transcript(role, text, True)


def finals(*frames: Frame) -> list[Transcript]:
    return [frame for frame in frames if isinstance(frame, Transcript) and frame.final]


def test_the_user_is_done_when_the_assistant_begins() -> None:
    for first in (speech(PCM), said("A"), call(("c", {}))):
        found = Talk().hear(heard(" a"), heard(" b"), first)
        assert found[:3] == [
            Transcript("user", "a", False),
            Transcript("user", "a b", False),
            final("user", "a b"),
        ]


def test_late_words_of_the_user_are_final_with_the_turn() -> None:
    talk = Talk()
    assert finals(*talk.hear(speech(PCM), heard("late"))) == []
    assert talk.hear(COMPLETE) == [final("user", "late"), DONE]
    assert talk.hear(COMPLETE) == []


def test_words_that_come_when_the_answer_is_over_are_final_after_a_while() -> None:
    talk = Talk()
    assert finals(*talk.hear(speech(PCM), COMPLETE, heard("What"))) == []
    assert talk.wait(LATE_WORDS_TIMEOUT - 0.1) == []
    assert finals(*talk.hear(heard(" is it?"))) == []
    assert talk.wait(LATE_WORDS_TIMEOUT - 0.1) == []
    assert talk.wait(0.1) == [final("user", "What is it?")]
    # The next that are written down are of the next turn.
    talk.hear(heard("And"))
    assert talk.wait(60) == []
    assert finals(*talk.hear(heard(" that?"), speech(PCM))) == [final("user", "And that?")]
    assert finals(*talk.hear(COMPLETE)) == []
    assert talk.wait(60) == []


def test_words_that_come_while_a_long_answer_goes_on_are_not_final_twice() -> None:
    talk = Talk()
    talk.hear(speech(PCM), heard("What?"))
    assert talk.wait(LATE_WORDS_TIMEOUT) == [final("user", "What?")]
    assert finals(*talk.hear(speech(PCM), COMPLETE)) == []


def test_words_that_were_finished_are_not_waited_for() -> None:
    talk = Talk()
    talk.hear(speech(PCM), COMPLETE, heard("What?", finished=True), heard("And"))
    assert talk.wait(60) == []


def test_words_are_not_late_while_a_manual_turn_is_open() -> None:
    talk = Talk(options=MANUAL)
    talk.hear(speech(PCM), COMPLETE)
    talk.dialect.send_audio(PCM)
    talk.hear(heard("Well"))
    assert talk.wait(60) == []
    talk.dialect.commit()
    talk.hear(heard(" then"))
    assert talk.wait(STALLED_TIMEOUT - 1) == []
    assert finals(*talk.hear(speech(PCM))) == [final("user", "Well then")]


def test_words_of_who_cuts_in_are_not_late() -> None:
    talk = Talk()
    talk.hear(speech(PCM), heard("No"), INTERRUPTED, COMPLETE)
    assert talk.wait(60) == []
    assert finals(*talk.hear(heard(", stop."), speech(PCM))) == [final("user", "No, stop.")]


@pytest.mark.parametrize("goodbye", [False, True])
def test_what_was_being_said_at_the_end_is_final(goodbye: bool) -> None:
    talk = Talk()
    talk.hear(said("I am"), heard("But"))
    if goodbye:
        talk.dialect.close()
    talk.dialect.receive_lost()
    *texts, end, close = frames(talk.dialect)
    assert texts == [final("user", "But"), final("assistant", "I am")]
    assert end == (CUT_OFF if goodbye else ResponseEnd("failed", "the connection was lost"))
    assert isinstance(close, Close)
    assert talk.dialect.cut_short


def test_a_session_that_ends_when_nobody_speaks_is_not_cut_short() -> None:
    talk = Talk()
    talk.hear(heard("Hi"), speech(PCM), said("Yo"), COMPLETE)
    talk.dialect.receive_lost()
    assert len(frames(talk.dialect)) == 1
    assert not talk.dialect.cut_short


def test_words_after_an_interruption_are_of_the_next_turn() -> None:
    talk = Talk()
    found = talk.hear(
        speech(PCM), said("I am"), heard("No,"), INTERRUPTED, COMPLETE, heard(" stop."), speech(PCM)
    )
    assert finals(*found) == [final("assistant", "I am"), final("user", "No, stop.")]
    # The same where the interruption was no news.
    found = talk.hear(COMPLETE, INTERRUPTED, heard("And"), INTERRUPTED, COMPLETE, heard(" go."), speech(PCM))
    assert finals(*found) == [final("user", "And go.")]


def test_finished_is_final_once() -> None:
    talk = Talk()
    found = talk.hear(
        heard("Hi", finished=True), heard("", finished=True), speech(PCM), said("Yo", finished=True)
    )
    assert finals(*found) == [final("user", "Hi"), final("assistant", "Yo")]
    assert talk.hear(COMPLETE) == [DONE]


def test_interim_words_are_replaced() -> None:
    talk = Talk()

    def interim(text: str | None) -> Json:
        return content(interimInputTranscription={"text": text})

    assert talk.hear(heard(" Turn"), interim(" of"), interim(" of"), interim(" off"), heard(" off it")) == [
        Transcript("user", "Turn", False),
        Transcript("user", "Turn of", False),
        Transcript("user", "Turn off", False),
        Transcript("user", "Turn off it", False),
    ]
    assert talk.hear(interim(" now"), interim(None)) == [
        Transcript("user", "Turn off it now", False),
        Transcript("user", "Turn off it", False),
    ]
    assert finals(*talk.hear(COMPLETE)) == [final("user", "Turn off it")]
    assert talk.hear(interim(" so")) == [Transcript("user", "so", False)]
    assert finals(*talk.hear(speech(PCM))) == [final("user", "so")]


# Interruptions


def test_the_user_cuts_in() -> None:
    talk = Talk()
    for message in (speech(PCM), said("Once upon"), INTERRUPTED):
        talk.dialect.receive_message(json.dumps(message))
    # The audio that nobody took is gone, the words stay.
    assert frames(talk.dialect) == [
        Transcript("assistant", "Once upon", False),
        Interruption("user"),
        final("assistant", "Once upon"),
        CUT_OFF,
    ]
    assert talk.hear(INTERRUPTED, speech(PCM), said("a time"), content(groundingMetadata={"a": 1})) == []
    assert talk.dialect.stats.late_events == 3
    assert talk.hear(COMPLETE, speech(PCM)) == [Audio(PCM, 24_000)]


def test_all_of_it_in_one_message() -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    message = speech(PCM)
    message["serverContent"] |= {"interrupted": True, "turnComplete": True}
    assert talk.hear(message) == [Interruption("user"), CUT_OFF]
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]


def test_an_interruption_of_nothing() -> None:
    talk = Talk()
    assert talk.hear(INTERRUPTED) == []
    assert talk.dialect.stats.repeated_events == 1
    # After the end of a turn its audio may still be playing.
    assert talk.hear(speech(PCM), COMPLETE) == [Audio(PCM, 24_000), DONE]
    assert talk.hear(INTERRUPTED, INTERRUPTED) == [Interruption("user")]
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]


def test_interrupt_in_auto_mode_mutes() -> None:
    talk = Talk()
    talk.dialect.interrupt()
    assert talk.hear(speech(PCM), said("Once"))[-1] == Transcript("assistant", "Once", False)
    talk.dialect.interrupt(played_ms=100)
    talk.dialect.interrupt()
    assert talk.sent() == []
    assert frames(talk.dialect) == [Interruption("assistant"), final("assistant", "Once"), CUT_OFF]
    assert talk.hear(speech(PCM), said("upon"), GENERATED, COMPLETE) == []
    assert talk.hear(speech(PCM), said("Yes")) == [Audio(PCM, 24_000), Transcript("assistant", "Yes", False)]


def test_interrupt_and_then_the_user_cuts_in() -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    assert talk.hear(INTERRUPTED, speech(PCM), COMPLETE, speech(PCM)) == [
        Interruption("assistant"),
        CUT_OFF,
        Audio(PCM, 24_000),
    ]


def test_interrupt_what_is_only_still_played() -> None:
    talk = Talk()
    talk.dialect.playback.clock(0.0)
    talk.hear(speech(bytes(48_000)), COMPLETE)
    talk.dialect.playback.clock(0.5)
    talk.dialect.interrupt()
    assert frames(talk.dialect) == [Interruption("assistant")]
    talk.dialect.interrupt()
    assert frames(talk.dialect) == []
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]


def test_interrupt_in_manual_mode_opens_a_turn() -> None:
    talk = Talk(options=MANUAL)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.hear(speech(PCM))
    talk.sent()
    talk.dialect.interrupt()
    assert talk.sent() == [START]
    talk.dialect.commit()  # an empty turn is not to be answered
    assert talk.sent() == []
    assert talk.hear(speech(PCM), INTERRUPTED, speech(PCM), COMPLETE) == [Interruption("assistant"), CUT_OFF]
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    assert [is_audio(message) for message in talk.sent()] == [True, False]
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]


def test_interrupt_in_manual_mode_while_the_user_speaks() -> None:
    talk = Talk(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.send_audio(PCM)
    talk.sent()
    talk.dialect.interrupt()
    assert talk.sent() == []
    assert frames(talk.dialect) == [Interruption("assistant"), CUT_OFF]


def test_interrupt_a_response_that_has_not_begun() -> None:
    talk = Talk(options=MANUAL)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.sent()
    assert not is_idle(talk)
    talk.dialect.interrupt()
    assert talk.sent() == [START]
    assert frames(talk.dialect) == [Interruption("assistant"), CUT_OFF]
    # It never came, so what comes is the answer to the next turn.
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]


def test_interrupt_a_response_that_was_under_way() -> None:
    talk = Talk(options=MANUAL)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.dialect.interrupt()
    assert talk.hear(speech(PCM)) == [Interruption("assistant"), CUT_OFF]
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    assert talk.hear(speech(PCM), INTERRUPTED, COMPLETE, speech(PCM)) == [Audio(PCM, 24_000)]


def test_the_end_of_an_earlier_turn_is_not_that_of_the_awaited_one() -> None:
    talk = Talk(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.hear(INTERRUPTED, COMPLETE)
    assert not is_idle(talk)
    # While this is: nothing came of it.
    talk.hear(COMPLETE)
    assert is_idle(talk)


def test_a_mute_ends_by_time() -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    assert talk.wait(MUTE_TIMEOUT - 1) == [Interruption("assistant"), CUT_OFF]
    assert talk.hear(speech(PCM)) == []  # it still talks: wait longer
    assert talk.wait(MUTE_TIMEOUT - 1) == []
    assert talk.hear(speech(PCM)) == []
    assert talk.wait(MUTE_TIMEOUT) == []
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]


def test_a_mute_ends_when_all_was_generated_and_more_comes() -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    found = talk.hear(GENERATED, said("late"), speech(PCM))
    assert found == [Interruption("assistant"), CUT_OFF, Audio(PCM, 24_000)]


def test_the_model_that_reports_its_status_is_idle_when_it_says_so() -> None:
    talk = Talk()
    going_on = content(turnComplete=True, interactionStatus="IN_PROGRESS")
    talk.hear(speech(PCM), going_on)
    assert not is_idle(talk)
    talk.dialect.interrupt()
    assert talk.hear(speech(PCM), COMPLETE, speech(PCM)) == [Interruption("assistant")]
    talk.hear(content(interactionStatus="IDLE"))
    assert is_idle(talk)
    assert talk.hear(speech(PCM), going_on, said("A"), going_on) == [
        Audio(PCM, 24_000),
        DONE,
        Transcript("assistant", "A", False),
        final("assistant", "A"),
        DONE,
    ]
    talk.hear(content(waitingForInput=True))
    assert is_idle(talk)


# Tools


def test_calls_and_results() -> None:
    talk = Talk()
    talk.hear(call(("a", {"x": [1, "é"]}), ("b", None)))
    assert talk.dialect.open_calls == ("a", "b")
    talk.dialect.send_tool_result("b", '{"temp":7}')
    talk.dialect.send_tool_result("a", "[1]")
    answers = [message["toolResponse"]["functionResponses"] for message in talk.sent()]
    assert answers == [
        [{"id": "b", "name": "get_weather", "response": {"temp": 7}}],
        [{"id": "a", "name": "get_weather", "response": {"output": "[1]"}}],
    ]
    with pytest.raises(LocalProtocolError, match="no tool call 'a' is open"):
        talk.dialect.send_tool_result("a", "")


@pytest.mark.parametrize(
    ("output", "response"),
    [
        ("sunny", {"output": "sunny"}),
        ('"sunny"', {"output": '"sunny"'}),
        ("", {"output": ""}),
        ("{}", {}),
        ('{"a":123456789012345678901}', {"a": 123456789012345678901}),
        ('{"a":"\\ud800"}', {"output": '{"a":"\\ud800"}'}),
        ('{"a":1e999}', {"output": '{"a":1e999}'}),
        ("{" * 5, {"output": "{" * 5}),
        ('{"a":' * 50_000, {"output": '{"a":' * 50_000}),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_result_is_an_object(output: str, response: Json) -> None:
    talk = Talk()
    talk.hear(call(("a", {})))
    talk.dialect.send_tool_result("a", output)
    [message] = talk.sent()
    assert message["toolResponse"]["functionResponses"][0]["response"] == response


def test_results_must_be_text() -> None:
    talk = Talk()
    talk.hear(call(("a", {})))
    with pytest.raises(TypeError, match="output must be a str, not dict"):
        talk.dialect.send_tool_result("a", {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="call_id must be a str"):
        talk.dialect.send_tool_result(1, "")  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="surrogate"):
        talk.dialect.send_tool_result("a", "\ud800")
    assert talk.dialect.open_calls == ("a",)


def test_calls_without_an_id() -> None:
    talk = Talk()
    first, taken, second = talk.hear(call((None, {}), ("call-2", {}), ("", {})))
    assert [frame.call_id for frame in (first, taken, second) if isinstance(frame, ToolCall)] == [
        "call-1",
        "call-2",
        "call-3",
    ]
    talk.dialect.send_tool_result("call-3", "{}")
    [message] = talk.sent()
    assert message["toolResponse"]["functionResponses"] == [{"name": "get_weather", "response": {}}]
    [nameless] = talk.hear({"toolCall": {"functionCalls": [{"id": "n"}]}})
    assert nameless == ToolCall("n", "", "{}")
    assert talk.hear({"toolCall": {}}) == []


def test_a_cancelled_call_is_not_answered() -> None:
    talk = Talk()
    talk.hear(call(("a", {}), ("b", {})))
    talk.hear({"toolCallCancellation": {"ids": ["a", "unknown"]}})
    talk.hear({"toolCallCancellation": {}})
    assert talk.dialect.open_calls == ("b",)
    talk.dialect.send_tool_result("a", "late")
    assert talk.sent() == []
    assert talk.dialect.stats.unwanted_results == 1
    with pytest.raises(LocalProtocolError, match="no tool call 'a'"):
        talk.dialect.send_tool_result("a", "later")


def test_an_interrupted_call_is_still_answered() -> None:
    # One call without an answer can stall the model.
    talk = Talk()
    talk.hear(call(("a", {})))
    talk.dialect.interrupt()
    assert talk.dialect.open_calls == ()
    talk.dialect.send_tool_result("a", "done")
    assert len(talk.sent()) == 1
    talk.hear(call(("b", {})))
    talk.hear(INTERRUPTED, {"toolCallCancellation": {"ids": ["b"]}})
    talk.dialect.send_tool_result("b", "done")
    assert talk.sent() == []


def test_a_call_of_a_muted_response_comes_through() -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    assert talk.hear(call(("a", {})), speech(PCM)) == [
        Interruption("assistant"),
        CUT_OFF,
        ToolCall("a", "get_weather", "{}"),
    ]


def test_too_many_calls() -> None:
    talk = Talk(limits=Limits(max_open_calls=2))
    *calls, _, close = talk.hear(call(*[(f"c{number}", {}) for number in range(5)]))
    assert len(calls) == 2
    assert isinstance(close, Close)
    assert close.code == 1008


def test_forgotten_calls_do_not_pile_up() -> None:
    talk = Talk(limits=Limits(max_open_calls=4))
    for number in range(50):
        talk.hear(call((f"c{number}", {})))
        if number % 2:
            talk.hear({"toolCallCancellation": {"ids": [f"c{number}"]}})
        else:
            talk.dialect.interrupt()
        talk.hear(COMPLETE)
    taken = 0
    for number in range(50):
        try:
            talk.dialect.send_tool_result(f"c{number}", "")
            taken += 1
        except LocalProtocolError:
            pass
    assert taken == 8


def test_while_a_blocking_call_is_open_the_user_waits() -> None:
    talk = Talk(options=GATED)
    talk.dialect.send_audio(PCM)
    talk.hear(call(("a", {}), ("b", {})))
    talk.dialect.send_audio(PCM[:4])
    talk.dialect.commit()
    talk.dialect.send_audio(PCM[4:])
    assert [pcm_of(message) for message in talk.sent()] == [PCM]
    talk.dialect.send_tool_result("a", "")
    assert len(talk.sent()) == 1
    talk.hear({"toolCallCancellation": {"ids": ["b"]}})
    first, *silence, end, last = talk.sent()
    assert (pcm_of(first), end, pcm_of(last)) == (PCM[:4], STREAM_END, PCM[4:])
    assert b"".join(map(pcm_of, silence)) == bytes(800 * 48)


def test_the_result_goes_before_what_waited() -> None:
    talk = Talk(options=GoogleOptions(gate_input=True, turns="manual"))
    talk.hear(call(("a", {})))
    talk.dialect.send_audio(PCM)
    talk.dialect.send_tool_result("a", "")
    assert [next(iter(message)) for message in talk.sent()] == [
        "toolResponse",
        "realtimeInput",
        "realtimeInput",
    ]


def test_an_interruption_lets_the_user_speak() -> None:
    talk = Talk(options=GoogleOptions(gate_input=True, turns="manual"))
    talk.hear(call(("a", {})))
    talk.dialect.send_audio(PCM)
    talk.dialect.interrupt()
    assert [is_audio(message) for message in talk.sent()] == [False, True]
    talk.hear(COMPLETE, call(("b", {})))
    talk.dialect.send_audio(PCM)
    talk.hear(INTERRUPTED)
    assert [pcm_of(message) for message in talk.sent()] == [PCM]


@pytest.mark.parametrize(
    ("model", "options", "gates"),
    [
        ("gemini-2.5-flash-native-audio-latest", GoogleOptions(), True),
        ("gemini-2.5-flash-native-audio-latest", GoogleOptions(tool_behavior="non_blocking"), False),
        ("gemini-2.5-flash-native-audio-latest", GoogleOptions(gate_input=False), False),
        ("gemini-3.1-flash-live-preview", GoogleOptions(), False),
        ("gemini-3.8-live", GoogleOptions(gate_input=True), True),
    ],
)
def test_which_models_make_the_user_wait(model: str, options: GoogleOptions, gates: bool) -> None:
    talk = Talk(SessionConfig(provider="google", model=model), options=options)
    talk.hear(call(("a", {})))
    talk.dialect.send_audio(PCM)
    assert talk.dialect.has_output is not gates


def test_tools_of_google() -> None:
    talk = Talk()
    found = content(groundingMetadata={"webSearchQueries": ["x"]}, urlContextMetadata={"urlMetadata": []})
    # A repeat after the end of an answer belongs to that answer.
    assert talk.hear(found, found, speech(PCM), COMPLETE, content(groundingMetadata={}), found) == [
        ServerToolCall("google_search-1", "google_search", "completed"),
        ServerToolCall("url_context-2", "url_context", "completed"),
        Audio(PCM, 24_000),
        DONE,
    ]
    assert talk.hear(heard("And"), found, speech(PCM), found)[1:] == [
        ServerToolCall("google_search-3", "google_search", "completed"),
        ServerToolCall("url_context-4", "url_context", "completed"),
        final("user", "And"),
        Audio(PCM, 24_000),
    ]


# Usage, errors, time


def test_usage_once_for_a_response() -> None:
    talk = Talk()
    assert talk.hear(usage(1, 1)) == []
    assert talk.hear(speech(PCM), usage(5, 5), usage(6, 7)) == [Audio(PCM, 24_000)]
    assert talk.hear(GENERATED, COMPLETE) == [Usage(6, 7), DONE]
    assert talk.hear(usage(8, 8)) == []
    assert talk.dialect.stats.repeated_events == 2
    assert talk.hear(speech(PCM), COMPLETE, usage(9, 9)) == [Audio(PCM, 24_000), DONE, Usage(9, 9)]


def test_usage_of_a_response_that_calls_a_tool() -> None:
    talk = Talk()
    assert talk.hear({**call(("a", {})), **usage(1, 2)}) == [
        Usage(1, 2),
        ToolCall("a", "get_weather", "{}"),
    ]
    assert talk.hear(speech(PCM), {**COMPLETE, **usage(3, 4)}) == [Audio(PCM, 24_000), Usage(3, 4), DONE]


def test_usage_is_counted_by_its_kind() -> None:
    def counts(**kinds: int) -> list[Json]:
        return [{"modality": kind, "tokenCount": count} for kind, count in kinds.items()]

    spent = {
        "promptTokenCount": 1,
        "promptTokensDetails": counts(TEXT=3, AUDIO=50, IMAGE=258, VIDEO=2, DOCUMENT=4),
        "toolUsePromptTokensDetails": counts(TEXT=10),
        "cachedContentTokenCount": 46,
        "cacheTokensDetails": counts(TEXT=1, AUDIO=45),
        "responseTokensDetails": counts(AUDIO=70, TEXT=5),
        "thoughtsTokenCount": 30,
        "totalTokenCount": 9,
    }
    assert Talk().hear({**COMPLETE, "usageMetadata": spent}) == [
        Usage(
            input_audio_tokens=50,
            output_audio_tokens=70,
            input_text_tokens=17,
            output_text_tokens=5,
            input_image_tokens=260,
            cached_audio_tokens=45,
            cached_text_tokens=1,
            output_reasoning_tokens=30,
        )
    ]
    # Of cached tokens without details nothing is known but their number: they count as the cheaper kind.
    assert Talk().hear({**COMPLETE, "usageMetadata": {"cachedContentTokenCount": 7}}) == [
        Usage(cached_text_tokens=7)
    ]


def test_odd_usage_counts_as_far_as_it_is_clear() -> None:
    details: Any = [
        {"modality": "TEXT", "tokenCount": 3},
        {"modality": "AUDIO"},
        {"modality": "AUDIO", "tokenCount": -1},
        {"modality": "SMELL", "tokenCount": 9},
        {"modality": "AUDIO", "tokenCount": 2.0},
    ]
    spent = {"promptTokensDetails": details, "thoughtsTokenCount": "7", "cacheTokensDetails": None}
    assert Talk().hear({**COMPLETE, "usageMetadata": spent}) == [Usage(2, 0, 3, output_reasoning_tokens=7)]


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "PROHIBITED_INPUT_CONTENT", "SOMETHING_NEW"])
def test_a_turn_that_failed(reason: str) -> None:
    talk = Talk()
    [error] = talk.hear(content(turnComplete=True, turnCompleteReason=reason))
    assert error == ErrorFrame("provider_response_failed", f"the provider ended its turn early: {reason}")
    assert talk.dialect.state is State.OPEN


def test_handles() -> None:
    talk = Talk(resumption_handle="h-0")
    assert talk.setup["sessionResumption"] == {"handle": "h-0"}
    dialect = talk.dialect

    def update(**fields: Any) -> tuple[str | None, bool]:
        talk.hear({"sessionResumptionUpdate": fields})
        return dialect.resumption_handle, dialect.handle_is_fresh

    assert (dialect.resumption_handle, dialect.handle_is_fresh) == ("h-0", False)
    assert update(newHandle="h-1", resumable=True, lastConsumedClientMessageIndex="4") == ("h-1", True)
    assert update(newHandle="", resumable=False) == ("h-1", False)
    assert update(newHandle="h-2") == ("h-1", False)
    assert update(newHandle="h-3", resumable=True) == ("h-3", True)
    talk.hear(call(("a", {})))
    assert not dialect.handle_is_fresh
    assert update(newHandle="h-4", resumable=True) == ("h-4", True)
    dialect.send_tool_result("a", "")
    assert not dialect.handle_is_fresh
    assert update(newHandle="h-5", resumable=True) == ("h-5", True)
    talk.hear(COMPLETE, speech(PCM))
    assert not dialect.handle_is_fresh
    assert dialect.resumption is not None
    assert Talk().dialect.resumption is None


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ("50s", 50.0),
        ("49.5s", 49.5),
        ("50", 50.0),
        (5, 5.0),
        (3.0, 3.0),
        ("1m", 60.0),
        ("1m30s", 90.0),
        ("1h2m3s", 3723.0),
        ("1500ms", 1.5),
        (" 50S ", 50.0),
        ({"seconds": "50", "nanos": 500_000_000}, 50.0),
        ({"seconds": 50}, 50.0),
        ({}, 0.0),
        (None, 0.0),
        (True, 0.0),
        (-5, 0.0),
        ("-5s", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ([], 0.0),
        ("9" * 20 + "s", 0.0),
        (1e300, 0.0),
    ],
    ids=repr,
)
def test_going_away(left: Any, seconds: float) -> None:
    talk = Talk()
    assert Talk().dialect.going_away is None
    assert talk.hear({"goAway": {"timeLeft": left}}) == [Expiring(seconds)]
    assert talk.dialect.going_away == seconds
    assert talk.hear({"goAway": {"timeLeft": "3s"}}) == []
    assert talk.dialect.going_away == 3.0


def test_idle() -> None:
    talk = Talk()
    assert is_idle(talk)
    talk.hear(speech(PCM))
    assert not is_idle(talk)
    talk.hear(call(("a", {})), COMPLETE)
    assert not is_idle(talk)
    talk.dialect.send_tool_result("a", "")
    assert is_idle(talk)


def test_a_known_end_is_warned_of() -> None:
    talk = Talk(ttl=100.0, warn_before=10.0)
    assert talk.wait(90.0) == [Expiring(10.0)]


def test_the_dialect_can_be_made_before_the_connection_is_open() -> None:
    dialect = GoogleDialect(GOOGLE, state=State.CONNECTING)
    assert not dialect.has_output
    assert dialect.next_deadline() is None


def test_after_our_goodbye_what_comes_is_heard() -> None:
    talk = Talk(options=GATED)
    talk.hear(speech(PCM), call(("a", {})))
    talk.dialect.send_audio(PCM)
    talk.dialect.close()
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]
    assert talk.hear(INTERRUPTED, speech(PCM)) == [Interruption("user"), CUT_OFF]
    assert talk.sent() == []
    assert talk.wait(6.0)[-1] == Close(1006, "the peer did not answer the close in time", "local")


BLANKS = ["", b"", "\n", b" \r\n", "\ufeff", b"\xef\xbb\xbf", b"\n\xef\xbb\xbf\r\n"]


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("blank", BLANKS)
def test_blank_messages_are_ignored(ready: bool, blank: str | bytes) -> None:
    talk = Talk(ready=ready)
    talk.dialect.receive_message(blank)
    assert frames(talk.dialect) == []
    assert talk.dialect.state is State.OPEN
    assert talk.dialect.odd_fields == 1


@pytest.mark.parametrize("around", ["\ufeff{}", "\n\ufeff {}", "{}\ufeff\n"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_byte_order_mark_is_no_part_of_a_message(around: str, binary: bool) -> None:
    talk = Talk(ready=False)
    text = around.replace("{}", '{"setupComplete": {}}')
    talk.dialect.receive_message(text.encode() if binary else text)
    assert frames(talk.dialect) == [Ready(24_000, 24_000)]
    assert talk.dialect.odd_fields == 1


@pytest.mark.parametrize("value", [None, True, 5, "yes", []])
def test_any_value_means_that_the_setup_was_accepted(value: object) -> None:
    talk = Talk(ready=False)
    assert talk.hear({"setupComplete": value}) == [Ready(24_000, 24_000)]
    assert talk.dialect.odd_fields == 1
