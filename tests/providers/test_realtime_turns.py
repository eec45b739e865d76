"""How the user's turns end, in automatic and manual mode, and what happens to audio that comes too early."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from speko_anyio.protocol import ErrorFrame, Limits, LocalProtocolError, Ready, ResponseEnd, Transcript
from speko_anyio.providers.openai import OpenAIOptions, SemanticVad, ServerVad
from speko_anyio.providers.xai import XAIOptions, XAIVad

from .realtime_talk import (
    COMMITTED,
    MANUAL,
    SPEECH_STARTED,
    SPEECH_STOPPED,
    XAI_MANUAL,
    Event,
    call,
    created,
    done,
    error,
    granted,
    openai,
    pcm,
    refusal,
    speech,
    words,
    xai,
    xai_call,
)

APPEND = "input_audio_buffer.append"
COMMIT = "input_audio_buffer.commit"
CLEAR = "input_audio_buffer.clear"
CREATE = "response.create"


def appended_ms(messages: list[Event], rate: int = 24_000) -> float:
    """How much audio the messages hold; AssertionError if one holds anything else."""
    assert {message["type"] for message in messages} <= {APPEND}
    size = sum(len(base64.b64decode(message["audio"])) for message in messages)
    return size / 2 / rate * 1000


# Audio


def test_audio_is_appended_as_it_comes() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(b"\x01\x00\x02\x00")
    talk.dialect.send_audio(bytearray(b"\x03\x00"))
    talk.dialect.send_audio(b"")
    assert [message["audio"] for message in talk.sent()] == ["AQACAA==", "AwA="]


def test_long_audio_is_split() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(1000))
    messages = talk.sent()
    assert len(messages) == 2
    assert appended_ms(messages) == 1000


def test_half_a_sample_is_refused() -> None:
    talk = openai().make_ready()
    with pytest.raises(LocalProtocolError, match="whole samples"):
        talk.dialect.send_audio(b"\x00")
    with pytest.raises(TypeError):
        talk.dialect.send_audio(5)  # type: ignore[arg-type]
    assert talk.sent() == []


def test_a_full_outbox_takes_nothing_of_the_audio() -> None:
    talk = openai(limits=Limits(max_outbox=100_000)).make_ready()
    talk.dialect.send_audio(pcm(1000))
    with pytest.raises(LocalProtocolError, match="outbox"):
        talk.dialect.send_audio(pcm(1000))
    assert appended_ms(talk.sent()) == 1000
    talk.dialect.send_audio(pcm(1000))
    assert appended_ms(talk.sent()) == 1000


# Before the provider is ready


def test_what_is_said_early_is_held_and_then_sent_in_order() -> None:
    talk = openai(MANUAL)
    talk.dialect.send_audio(pcm(200))
    talk.hear({"type": "session.created"})
    assert talk.sent_types() == ["session.update"]
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    talk.dialect.interrupt()
    talk.dialect.send_audio(pcm(20))
    assert talk.sent() == []
    assert talk.hear({"type": "session.updated"}) == [Ready(24_000, 24_000)]
    first, commit, create, last = talk.sent()
    assert appended_ms([first]) == 300
    assert (commit["type"], create["type"]) == (COMMIT, CREATE)
    assert appended_ms([last]) == 20


def test_held_audio_is_bounded_and_the_oldest_goes() -> None:
    talk = openai()
    for second in range(12):
        talk.dialect.send_audio(bytes([second, 0]) * 24_000)
    talk.hear({"type": "session.created"}, {"type": "session.updated"})
    messages = talk.sent()[1:]
    assert appended_ms(messages) == 10_000
    assert messages[0]["audio"].startswith("AgAC")
    assert talk.dialect.held_audio_dropped == 2 * 48_000


def test_held_audio_of_a_finished_turn_is_the_first_to_go() -> None:
    talk = openai(MANUAL)
    talk.dialect.send_audio(pcm(6000))
    talk.dialect.commit()
    talk.dialect.send_audio(pcm(6000))
    talk.hear({"type": "session.created"}, {"type": "session.updated"})
    said = talk.sent()[1:]
    end = next(place for place, event in enumerate(said) if event["type"] == "input_audio_buffer.commit")
    assert appended_ms(said[:end]) == 4000
    assert appended_ms(said[end + 2 :]) == 6000


def test_clear_empties_what_is_held_since_the_last_turn() -> None:
    talk = openai(MANUAL)
    talk.dialect.send_audio(pcm(200))
    talk.dialect.commit()
    talk.dialect.send_audio(pcm(300))
    talk.dialect.clear()
    talk.hear({"type": "session.created"}, {"type": "session.updated"})
    _, audio, commit, create = talk.sent()
    assert appended_ms([audio]) == 200
    assert (commit["type"], create["type"]) == (COMMIT, CREATE)


def test_turns_ended_early_become_one() -> None:
    talk = xai(XAI_MANUAL)
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    talk.dialect.send_audio(pcm(100))
    talk.dialect.end_turn()
    talk.hear({"type": "session.created"}, {"type": "session.updated"})
    assert talk.sent_types() == ["session.update", APPEND, COMMIT, CREATE]


# Manual turns


@pytest.mark.parametrize("verb", ["commit", "end_turn"])
def test_a_manual_turn_is_committed_and_answered(verb: str) -> None:
    for talk in (openai(MANUAL).make_ready(), xai(XAI_MANUAL).make_ready()):
        talk.dialect.send_audio(pcm(100))
        getattr(talk.dialect, verb)()
        assert talk.sent_types() == [APPEND, COMMIT, CREATE]


def test_a_turn_of_less_than_100_ms_is_none() -> None:
    talk = openai(MANUAL).make_ready()
    talk.dialect.send_audio(pcm(99))
    talk.dialect.commit()
    assert talk.sent_types() == [APPEND]
    assert talk.dialect.stats.skipped_commits == 1
    talk.dialect.send_audio(pcm(1))
    talk.dialect.commit()
    assert talk.sent_types() == [APPEND, COMMIT, CREATE]
    talk.dialect.commit()
    assert talk.sent() == []
    assert talk.dialect.stats.skipped_commits == 2


def test_a_turn_that_ends_while_the_assistant_answers_is_answered_next() -> None:
    talk = openai(MANUAL).make_ready()
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    request = talk.sent()[-1]
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    assert talk.sent_types() == [APPEND, COMMIT]
    talk.hear(granted(request, "r1"))
    assert talk.sent() == []
    talk.hear(done("r1"))
    assert talk.sent_types() == [CREATE]


def test_a_manual_request_that_met_another_response_is_repeated() -> None:
    talk = openai(MANUAL).make_ready()
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    request = talk.sent()[-1]
    talk.hear(refusal(request, "r1"))
    assert talk.sent() == []
    talk.hear(done("r1"))
    assert talk.sent_types() == [CREATE]


def test_clear_forgets_the_audio_there_and_here() -> None:
    talk = openai(MANUAL).make_ready()
    talk.dialect.send_audio(pcm(200))
    talk.dialect.clear()
    talk.dialect.commit()
    assert talk.sent_types() == [APPEND, CLEAR]
    assert talk.dialect.stats.skipped_commits == 1


# Automatic turns


def test_open_speech_is_committed_and_answered_when_that_is_confirmed() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(500))
    talk.hear(SPEECH_STARTED)
    talk.sent()
    talk.dialect.commit()
    assert talk.sent_types() == [COMMIT]
    talk.hear(COMMITTED)
    (request,) = talk.sent()
    assert request["type"] == CREATE
    talk.hear(granted(request, "r1"), COMMITTED)
    assert talk.sent() == []


def test_the_providers_own_answer_makes_ours_needless() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(500))
    talk.hear(SPEECH_STARTED)
    talk.dialect.commit()
    talk.sent()
    talk.hear(created("r1"), COMMITTED)
    assert talk.sent() == []


def test_a_request_that_met_the_providers_own_answer_is_dropped() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(500))
    talk.hear(SPEECH_STARTED)
    talk.dialect.commit()
    talk.hear(COMMITTED)
    request = talk.sent()[-1]
    assert talk.hear(created("r1"), refusal(request, "r1"), done("r1")) == [ResponseEnd("done")]
    assert talk.sent() == []
    assert talk.dialect.stats.benign_errors == 1


def test_a_commit_that_found_nothing_waits_for_nothing() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(500))
    talk.hear(SPEECH_STARTED)
    talk.dialect.commit()
    commit = talk.sent()[-1]
    assert talk.hear(error("input_audio_buffer_commit_empty", event_id=commit["event_id"])) == []
    talk.hear(COMMITTED)
    assert talk.sent() == []


def test_a_commit_before_speech_is_heard_sends_silence() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(40))
    talk.sent()
    talk.dialect.commit()
    assert appended_ms(talk.sent()) == 800


def test_the_end_of_a_turn_is_silence_as_long_as_the_detection_needs() -> None:
    talk = openai(OpenAIOptions(turn_detection=ServerVad(silence_duration_ms=200))).make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.sent()
    talk.dialect.end_turn()
    assert appended_ms(talk.sent()) == 500


def test_where_meaning_ends_turns_a_commit_does_it_faster() -> None:
    talk = openai(OpenAIOptions(turn_detection=SemanticVad())).make_ready()
    talk.dialect.end_turn()
    assert appended_ms(talk.sent()) == 800
    talk.hear(SPEECH_STARTED)
    talk.dialect.end_turn()
    assert talk.sent_types() == [COMMIT]


def test_silence_that_does_not_end_the_turn_is_followed_by_a_commit() -> None:
    talk = openai().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.dialect.end_turn()
    talk.sent()
    assert talk.wait(0.9) == []
    assert talk.sent() == []
    talk.wait(0.2)
    assert talk.sent_types() == [COMMIT]
    talk.hear(COMMITTED)
    assert talk.sent_types() == [CREATE]


def test_silence_that_ends_the_turn_is_followed_by_nothing() -> None:
    talk = openai().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.end_turn()
    talk.sent()
    talk.hear(SPEECH_STOPPED, COMMITTED)
    talk.wait(5)
    assert talk.sent() == []


def test_silence_when_nobody_speaks_is_followed_by_nothing() -> None:
    talk = openai().make_ready()
    talk.dialect.end_turn()
    talk.sent()
    talk.wait(2)
    assert talk.sent() == []


@pytest.mark.parametrize("verb", ["commit", "end_turn"])
def test_xai_takes_silence_and_a_second_time(verb: str) -> None:
    talk = xai(XAIOptions(turn_detection=XAIVad(silence_duration_ms=400))).make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.sent()
    getattr(talk.dialect, verb)()
    assert appended_ms(talk.sent()) == 700
    talk.wait(1)
    assert appended_ms(talk.sent()) == 700
    talk.wait(1)
    assert talk.sent() == []


ASKED_FOR = {
    "openai": lambda talk: talk.hear(created("r"), call("r", "call_1"), done("r")),
    "xai": lambda talk: talk.hear(created("r"), xai_call("r", "call_1"), done("r")),
}


def muted_in_mid_speech(provider: str) -> Any:
    """The user was heard speaking but sends no more audio, while the result of a tool waits for an answer."""
    talk: Any = openai().make_ready() if provider == "openai" else xai().make_ready()
    ASKED_FOR[provider](talk)
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.dialect.send_tool_result("call_1", "7 degrees")
    assert talk.sent_types() == [APPEND, "conversation.item.create"]
    return talk


@pytest.mark.parametrize("provider", ["openai", "xai"])
@pytest.mark.parametrize("detection", ["works", "is silent"])
def test_a_muted_microphone_does_not_hold_up_an_answer_for_ever(provider: str, detection: str) -> None:
    talk = muted_in_mid_speech(provider)
    talk.wait(2.9)
    assert talk.sent() == []
    talk.wait(0.2)
    assert appended_ms(talk.sent()) > 0
    if detection == "works":
        talk.hear(SPEECH_STOPPED, COMMITTED)
    kinds = []
    for _ in range(15):
        talk.wait(1)
        kinds += talk.sent_types()
    assert CREATE in kinds
    talk.hear(created("a"), done("a"))
    assert talk.dialect.at_rest


@pytest.mark.parametrize("provider", ["openai", "xai"])
def test_whoever_goes_on_speaking_is_not_cut_short(provider: str) -> None:
    talk = muted_in_mid_speech(provider)
    for _ in range(30):
        talk.dialect.send_audio(pcm(1000))
        assert set(talk.sent_types()) == {APPEND}
        talk.wait(1)
        assert talk.sent() == []
    talk.hear(SPEECH_STOPPED, COMMITTED)


@pytest.mark.parametrize("verb", ["commit", "end_turn"])
def test_where_turns_are_not_answered_unasked_the_verbs_ask(verb: str) -> None:
    talk = openai(OpenAIOptions(turn_detection=ServerVad(create_response=False))).make_ready()
    talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED)
    assert talk.sent() == []
    getattr(talk.dialect, verb)()
    assert appended_ms(talk.sent()) == 800
    talk.hear(COMMITTED)
    assert talk.sent_types() == [CREATE]


def test_clear_in_the_middle_of_speech_forgets_the_turn() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(500))
    talk.hear(SPEECH_STARTED)
    talk.dialect.commit()
    talk.dialect.clear()
    talk.sent()
    talk.hear({"type": "input_audio_buffer.cleared"})
    talk.dialect.commit()
    assert appended_ms(talk.sent()) == 800


def test_the_providers_own_commit_takes_our_audio() -> None:
    talk = openai().make_ready()
    talk.dialect.send_audio(pcm(500))
    talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED, SPEECH_STARTED)
    talk.sent()
    talk.dialect.commit()  # all that was sent is an item already
    assert appended_ms(talk.sent()) == 800


# What the user said


def delta(text: str, item: str = "u1") -> Event:
    kind = "conversation.item.input_audio_transcription.delta"
    return {"type": kind, "item_id": item, "content_index": 0, "delta": text}


def completed(text: str, item: str = "u1", **fields: str) -> Event:
    kind = "conversation.item.input_audio_transcription.completed"
    return {"type": kind, "item_id": item, "transcript": text, **fields}


def test_the_users_words_add_up_and_are_final_once() -> None:
    talk = openai().make_ready()
    assert talk.hear(delta("What"), delta(" is")) == [
        Transcript("user", "What", False),
        Transcript("user", "What is", False),
    ]
    assert talk.hear(completed("What is it?"), completed("What is it?"), delta("late")) == [
        Transcript("user", "What is it?", True)
    ]


def test_words_of_two_items_do_not_mix() -> None:
    talk = openai().make_ready()
    talk.hear(delta("one", "u1"))
    assert talk.hear(delta("two", "u2"), completed("one.", "u1")) == [
        Transcript("user", "two", False),
        Transcript("user", "one.", True),
    ]


def test_words_without_end_break_the_protocol() -> None:
    talk = openai(limits=Limits(max_text_size=2000)).make_ready()
    for _ in range(3):
        talk.hear(delta("x" * 900))
    assert talk.dialect.closed is not None
    assert talk.dialect.closed.code == 1009


def test_a_user_who_never_comes_to_an_end_is_forgotten() -> None:
    talk = openai().make_ready()
    for number in range(70):
        talk.hear(delta("x", f"u{number}"))
    assert talk.hear(delta("y", "u0")) == [Transcript("user", "y", False)]
    assert talk.hear(delta("y", "u69")) == [Transcript("user", "xy", False)]


def test_xai_is_final_when_the_assistant_speaks() -> None:
    talk = xai().make_ready()
    assert talk.hear(completed("What", status="in_progress")) == [Transcript("user", "What", False)]
    assert talk.hear(completed("What is", status="completed")) == [Transcript("user", "What is", False)]
    assert talk.hear(completed("What is it?", status="completed")) == [
        Transcript("user", "What is it?", False)
    ]
    assert talk.hear(created("r1")) == []
    assert talk.hear(speech("r1", "a1", 20))[0] == Transcript("user", "What is it?", True)
    assert talk.hear(completed("What is it??", status="completed")) == []


def test_xai_is_final_when_the_next_item_begins() -> None:
    talk = xai().make_ready()
    talk.hear(completed("One.", "u1"))
    assert talk.hear({**SPEECH_STARTED, "item_id": "u1"}) == []
    assert talk.hear({**SPEECH_STARTED, "item_id": "u2"}) == [Transcript("user", "One.", True)]
    talk.hear(completed("Two.", "u2"))
    assert talk.hear(completed("Three.", "u3")) == [
        Transcript("user", "Two.", True),
        Transcript("user", "Three.", False),
    ]


def test_xai_is_final_when_a_response_ends_that_said_nothing() -> None:
    talk = xai().make_ready()
    talk.hear(completed("Go away."), created("r1"))
    assert talk.hear(done("r1")) == [Transcript("user", "Go away.", True), ResponseEnd("done")]


def test_xai_is_not_final_for_the_end_of_a_response_that_was_talked_over() -> None:
    talk = xai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 20), {**SPEECH_STARTED, "item_id": "u2"})
    talk.hear(completed("Wait", "u2"))
    assert talk.hear(done("r1", "cancelled")) == [ResponseEnd("interrupted")]
    assert talk.hear(completed("Wait a moment", "u2")) == [Transcript("user", "Wait a moment", False)]


def updated(text: str, item: str = "u1") -> Event:
    kind = "conversation.item.input_audio_transcription.updated"
    return {"type": kind, "item_id": item, "transcript": text}


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("named_by", [SPEECH_STARTED, COMMITTED, updated("What")])
def test_xai_is_final_at_once_when_it_comes_after_the_assistant_spoke(named_by: Event, over: bool) -> None:
    talk = xai(XAI_MANUAL if named_by is COMMITTED else XAIOptions()).make_ready()
    talk.hear({**named_by, "item_id": "u1"}, SPEECH_STOPPED, created("r1"), speech("r1", "a1", 20))
    if over:
        talk.hear(done("r1"))
    assert talk.hear(completed("What is", status="in_progress")) == [Transcript("user", "What is", False)]
    assert talk.hear(completed("What is it?", status="completed")) == [
        Transcript("user", "What is it?", True)
    ]
    assert talk.hear(completed("What is it? Well?", status="completed")) == []


def test_xai_is_final_at_once_when_it_comes_after_the_next_item_began() -> None:
    talk = xai().make_ready()
    talk.hear({**SPEECH_STARTED, "item_id": "u1"}, {**SPEECH_STARTED, "item_id": "u2"}, updated("Tw", "u2"))
    assert talk.hear(completed("One.", "u1")) == [Transcript("user", "One.", True)]
    # The second still may grow.
    assert talk.hear(completed("Two.", "u2")) == [Transcript("user", "Two.", False)]
    assert talk.hear(completed("Two and a half.", "u2")) == [Transcript("user", "Two and a half.", False)]


def test_xai_is_not_final_while_the_user_goes_on_in_the_same_item() -> None:
    talk = xai().make_ready()
    u1 = {**SPEECH_STARTED, "item_id": "u1"}
    talk.hear(u1, SPEECH_STOPPED, created("r1"), speech("r1", "a1", 20), u1)
    assert talk.hear(completed("What")) == [Transcript("user", "What", False)]
    talk.hear(completed("What is it?"), SPEECH_STOPPED, created("r2"))
    assert talk.hear(speech("r2", "a2", 20))[0] == Transcript("user", "What is it?", True)


def test_xai_words_that_are_never_complete_are_final_a_turn_later() -> None:
    talk = xai().make_ready()
    talk.hear(updated("One", "u1"), created("r1"), speech("r1", "a1", 20), done("r1"))
    talk.hear(updated("Two", "u2"), created("r2"), speech("r2", "a2", 20))
    assert talk.hear(done("r2")) == [Transcript("user", "One", True), ResponseEnd("done")]
    # And at the end of the session at the latest.
    talk.dialect.receive_close(1000)
    assert talk.frames()[:-1] == [Transcript("user", "Two", True)]


def test_words_that_could_not_be_had_are_final_as_they_are() -> None:
    talk = openai().make_ready()
    talk.hear(delta("What"))
    kind = "conversation.item.input_audio_transcription.failed"
    words, failure = talk.hear({"type": kind, "item_id": "u1", "error": {"message": "too loud"}})
    assert words == Transcript("user", "What", True)
    assert failure == ErrorFrame("transcription_failed", "too loud")


@pytest.mark.parametrize("make", [openai, xai])
def test_what_was_being_said_at_the_end_is_final(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(completed("But", status="in_progress") if make is xai else delta("But"))
    talk.hear(created("r1"), words("r1", "a1", "I am"))
    talk.dialect.receive_lost()
    assert talk.frames()[:-1] == [
        Transcript("user", "But", True),
        Transcript("assistant", "I am", True),
        ResponseEnd("failed"),
    ]
    assert talk.dialect.cut_short


def test_xai_may_begin_speech_without_naming_its_item() -> None:
    talk = xai().make_ready()
    talk.hear(completed("One.", "u1"))
    assert talk.hear({"type": "input_audio_buffer.speech_started"}) == []
