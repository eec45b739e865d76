"""Responses from beginning to end, the races at both, and how they are cut off."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.protocol import Audio, Close, ErrorFrame, Interruption, ResponseEnd, Transcript, Usage
from speko_anyio.providers.openai import OpenAIOptions, ServerVad

from .realtime_talk import (
    COMMITTED,
    MANUAL,
    SPEECH_STARTED,
    SPEECH_STOPPED,
    XAI_MANUAL,
    DialectT,
    Event,
    Talk,
    audio,
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

USAGE: dict[str, Any] = {
    "usage": {
        "input_token_details": {"audio_tokens": 3, "text_tokens": 100},
        "output_token_details": {"audio_tokens": 4},
    }
}


def asked(talk: Talk[DialectT]) -> Event:
    """A turn ended; the request for its answer."""
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    request = talk.sent()[-1]
    assert request["type"] == "response.create"
    return request


# The assistant's words and audio


def test_beta_names_are_understood() -> None:
    talk = openai().make_ready()
    frames = talk.hear(
        {"type": "response.audio.delta", "response_id": "r1", "item_id": "a1", "delta": "AAA="},
        {"type": "response.audio_transcript.delta", "response_id": "r1", "item_id": "a1", "delta": "Hi"},
        {"type": "response.audio_transcript.done", "response_id": "r1", "item_id": "a1", "transcript": "Hi!"},
        {"type": "response.text.delta", "response_id": "r1", "item_id": "a2", "delta": "Yo"},
        {"type": "response.text.done", "response_id": "r1", "item_id": "a2", "text": "Yo!"},
        {"type": "conversation.item.created", "item": {"id": "a1", "type": "message"}},
    )
    assert frames == [
        Audio(b"\0\0", 24_000),
        Transcript("assistant", "Hi", False),
        Transcript("assistant", "Hi!", True),
        Transcript("assistant", "Yo", False),
        Transcript("assistant", "Yo!", True),
    ]


def test_audio_is_whole_samples_and_items_do_not_shift_each_other() -> None:
    talk = openai().make_ready()
    assert talk.hear(audio("r1", "a1", "AQID")) == [Audio(b"\1\2", 24_000)]
    assert talk.hear(audio("r1", "a1", "BA==")) == [Audio(b"\3\4", 24_000)]
    assert talk.hear(audio("r1", "a1", "BQ==")) == []
    assert talk.hear(audio("r1", "a2", "Bgc=")) == [Audio(b"\6\7", 24_000)]


def test_rates_are_those_the_provider_confirms() -> None:
    talk = xai()
    echo = {"input": {"format": {"rate": "16000"}}, "output": {"format": {"type": "audio/pcm", "rate": 8000}}}
    talk.hear({"type": "session.created"}, {"type": "session.updated", "session": {"audio": echo}})
    assert (talk.dialect.input_sample_rate, talk.dialect.output_sample_rate) == (16_000, 8000)
    assert talk.hear(audio("r1", "a1", "AAA=")) == [Audio(b"\0\0", 8000)]
    talk.dialect.playback.clock(0.0)
    talk.hear(speech("r1", "a1", 100, 8000))
    assert talk.dialect.playback.unplayed_ms == pytest.approx(100)


@pytest.mark.parametrize("echo", [None, "pcm16", {"input": "pcm16"}, {"output": {"format": {"rate": 10**9}}}])
def test_rates_that_are_none_are_not_believed(echo: object) -> None:
    talk = openai()
    talk.hear({"type": "session.created"}, {"type": "session.updated", "session": {"audio": echo}})
    assert (talk.dialect.input_sample_rate, talk.dialect.output_sample_rate) == (24_000, 24_000)


def test_words_left_open_are_final_at_the_end_of_the_response() -> None:
    talk = openai().make_ready()
    talk.hear(words("r1", "a1", "It "), words("r1", "a1", "is"))
    assert talk.hear(done("r1", "incomplete", status_details={"reason": "max_output_tokens"})) == [
        Transcript("assistant", "It is", True),
        ResponseEnd("incomplete", "max_output_tokens"),
    ]


def test_usage_is_told_once() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"))
    assert talk.hear(done("r1", **USAGE), done("r1", **USAGE)) == [Usage(3, 4, 100), ResponseEnd("done")]
    assert talk.dialect.stats.repeated_events == 1


def test_usage_without_audio_or_without_anything() -> None:
    talk = openai().make_ready()
    usage = {"input_token_details": {"text_tokens": 3}}
    assert talk.hear(done("r1", usage=usage)) == [Usage(0, 0, 3), ResponseEnd("done")]
    assert talk.hear(done("r2", usage={})) == [ResponseEnd("done")]
    assert talk.hear(done("r3", usage=None)) == [ResponseEnd("done")]


def test_usage_of_a_response_that_ended_late_is_told_with_the_next() -> None:
    talk = xai().make_ready()
    talk.hear(created("r1"), created("r2"))
    assert talk.hear(done("r1", **USAGE), done("r1", **USAGE)) == []
    assert talk.hear(done("r2", **USAGE)) == [Usage(6, 8, 200), ResponseEnd("done")]


def test_a_failed_response_is_told_and_the_session_goes_on() -> None:
    talk = openai().make_ready()
    details = {
        "type": "failed",
        "error": {"type": "server_error", "code": "rate_limit", "message": "slow down"},
    }
    assert talk.hear(done("r1", "failed", status_details=details)) == [
        ErrorFrame("rate_limit", "slow down"),
        ResponseEnd("failed", "rate_limit"),
    ]
    assert talk.hear(done("r2", "failed", status_details="unimplemented")) == [
        ErrorFrame("provider_response_failed", "the provider could not complete a response"),
        ResponseEnd("failed"),
    ]
    talk.dialect.send_audio(pcm(20))


# Beginnings and ends that races leave behind


def test_an_end_without_a_beginning_ends_what_was_asked_for() -> None:
    talk = openai(MANUAL).make_ready()
    asked(talk)
    talk.hear(done("r1"))
    asked(talk)


def test_an_end_of_another_response_ends_the_one_before_too() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(granted(asked(talk), "r1"), done("r2"))
    asked(talk)
    assert talk.hear(done("r1")) == []
    assert talk.dialect.stats.repeated_events == 1


def test_beginnings_repeat() -> None:
    talk = openai(MANUAL).make_ready()
    request = asked(talk)
    talk.hear(granted(request, "r1"), granted(request, "r1"), done("r1"), granted(request, "r1"))
    assert talk.dialect.stats.repeated_events == 2
    asked(talk)


def test_audio_can_be_the_beginning() -> None:
    talk = openai(MANUAL).make_ready()
    asked(talk)
    talk.hear(speech("r1", "a1", 20))
    talk.dialect.interrupt()
    assert talk.sent()[0]["response_id"] == "r1"


def test_responses_without_ids_are_tolerated() -> None:
    talk = openai(MANUAL).make_ready()
    asked(talk)
    nameless = {"type": "response.output_audio.delta", "delta": "AAA="}
    assert talk.hear({"type": "response.created"}, nameless) == [Audio(b"\0\0", 24_000)]
    talk.dialect.interrupt()
    assert talk.sent_types() == ["response.cancel"]
    assert talk.hear(nameless, {"type": "response.done"}, {"type": "response.done"}) == [
        Interruption("assistant"),
        ResponseEnd("interrupted"),
    ]
    asked(talk)


def test_an_answer_that_never_begins_is_reported_and_not_waited_for() -> None:
    talk = openai(MANUAL).make_ready()
    asked(talk)
    assert talk.wait(4.9) == []
    (report,) = talk.wait(0.2)
    assert isinstance(report, ErrorFrame)
    assert report.code == "provider_no_response"
    asked(talk)


def test_a_request_that_fails_is_told_and_another_may_follow() -> None:
    talk = openai(MANUAL).make_ready()
    request = asked(talk)
    assert talk.hear(error("server_error", "try again", event_id=request["event_id"])) == [
        ErrorFrame("server_error", "try again")
    ]
    assert talk.wait(6) == []
    asked(talk)


def test_an_error_about_a_request_that_was_granted_changes_nothing() -> None:
    talk = openai().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.dialect.commit()
    talk.hear(COMMITTED)
    request = talk.sent()[-1]
    talk.hear(granted(request, "r1"), error("server_error", "?", event_id=request["event_id"]))
    talk.dialect.interrupt()
    assert talk.sent_types() == ["response.cancel"]


def test_a_response_in_the_way_that_never_names_itself_is_not_waited_for_for_ever() -> None:
    talk = xai(XAI_MANUAL).make_ready()
    asked(talk)
    talk.hear(error(None, "Conversation already has an active response"))
    assert talk.wait(4.9) == []
    assert talk.sent() == []
    assert talk.wait(0.2) == []
    assert talk.sent_types() == ["response.create"]


def test_a_response_in_the_way_names_itself_by_what_comes_of_it() -> None:
    for event in (created("r9"), speech("r9", "a1", 20)):
        talk = xai(XAI_MANUAL).make_ready()
        asked(talk)
        talk.hear(error(None, "Conversation already has an active response"), event)
        assert talk.wait(6) == []
        assert talk.sent() == []
        talk.hear(done("r9"))
        assert talk.sent_types() == ["response.create"]


def test_a_refusal_that_names_a_response_which_is_over_means_now() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(granted(asked(talk), "r1"), done("r1"))
    request = asked(talk)
    talk.hear(refusal(request, "r1"))
    assert talk.sent_types() == ["response.create"]


def test_a_refusal_of_something_old_changes_nothing() -> None:
    talk = openai(MANUAL).make_ready()
    request = asked(talk)
    talk.hear(granted(request, "r1"), done("r1"))
    second = asked(talk)
    talk.hear(refusal(request, "r7"), granted(second, "r2"))
    talk.dialect.interrupt()
    assert talk.sent()[0]["response_id"] == "r2"


def test_a_refusal_when_nothing_was_asked_changes_nothing() -> None:
    talk = xai(XAI_MANUAL).make_ready()
    talk.hear(error(None, "already has an active response"))
    asked(talk)


def test_speech_during_our_request_does_not_cost_the_user_the_answer() -> None:
    """Without the echo of metadata, the response that begins may be either; the user's own is not cut off."""
    talk = xai().make_ready()
    talk.hear(created("r1"), xai_call("r1", "c1"), done("r1"))
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == ["conversation.item.create", "response.create"]
    talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED, created("vad"))
    assert talk.sent() == []
    talk.hear(error(None, "already has an active response"), done("vad"))
    assert talk.sent_types() == ["response.create"]


def test_our_request_may_stand_behind_the_providers_own_response() -> None:
    """The provider's echo tells ours from its own: while ours is under way, no second one is sent."""
    talk = openai().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.dialect.commit()
    talk.hear(COMMITTED)
    first = talk.sent()[-1]
    talk.hear(granted(first, "r1"), done("r1"), SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.dialect.commit()
    talk.hear(COMMITTED)
    second = talk.sent()[-1]
    talk.hear(created("vad"), done("vad"), SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.dialect.commit()
    talk.hear(COMMITTED)
    assert "response.create" not in talk.sent_types()
    talk.hear(granted(second, "r2"))
    assert talk.sent_types() == ["response.cancel"]  # the user has spoken since
    talk.hear(done("r2", "cancelled"))
    assert talk.sent_types() == ["response.create"]


# Barge-in


def test_speech_cuts_the_assistant_off() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), words("r1", "a1", "It is"), speech("r1", "a1", 400))
    assert talk.hear(SPEECH_STARTED) == [Interruption("user")]
    (truncate,) = talk.sent()
    assert truncate["type"] == "conversation.item.truncate"
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a1", 400)
    assert talk.hear(speech("r1", "a1", 20), words("r1", "a1", " sunny")) == []
    assert (
        talk.hear(
            {
                "type": "response.output_audio_transcript.done",
                "response_id": "r1",
                "item_id": "a1",
                "transcript": "It is sunny",
            }
        )
        == []
    )
    assert talk.dialect.stats.late_events == 3
    ended = done("r1", "cancelled", status_details={"type": "cancelled", "reason": "turn_detected"}, **USAGE)
    assert talk.hear(ended) == [
        Transcript("assistant", "It is", True),
        Usage(3, 4, 100),
        ResponseEnd("interrupted", "turn_detected"),
    ]
    assert talk.hear(speech("r1", "a1", 20)) == []


def test_speech_when_nothing_is_said_cuts_nothing_off() -> None:
    talk = openai().make_ready()
    assert talk.hear(SPEECH_STARTED) == []
    talk.hear(SPEECH_STOPPED, COMMITTED, created("r1"), speech("r1", "a1", 400), done("r1"))
    assert talk.hear(SPEECH_STARTED) == []
    assert talk.sent() == []


def test_speech_over_what_is_still_played_cuts_it_off() -> None:
    talk = openai().make_ready()
    playback = talk.dialect.playback
    playback.clock(100.0)
    talk.hear(created("r1"), speech("r1", "a1", 2000), speech("r1", "a2", 1000), done("r1"))
    playback.clock(101.25)
    assert talk.hear(SPEECH_STARTED) == [Interruption("user")]
    truncate, delete = talk.sent()
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a1", 1250)
    assert (delete["type"], delete["item_id"]) == ("conversation.item.delete", "a2")
    assert talk.hear(SPEECH_STARTED) == []


def test_what_was_heard_to_its_end_is_left_alone() -> None:
    talk = openai().make_ready()
    playback = talk.dialect.playback
    playback.clock(0.0)
    talk.hear(created("r1"), speech("r1", "a1", 1000), speech("r1", "a2", 1000), done("r1"))
    playback.clock(1.5)
    talk.hear(SPEECH_STARTED)
    (truncate,) = talk.sent()
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a2", 500)


def test_audio_that_nobody_took_yet_is_dropped() -> None:
    talk = openai().make_ready()
    talk.dialect.receive_message('{"type":"response.output_audio.delta","response_id":"r1","delta":"AAA="}')
    assert talk.hear(words("r1", "a1", "Hm"), SPEECH_STARTED) == [
        Transcript("assistant", "Hm", False),
        Interruption("user"),
    ]


def test_a_cut_that_is_only_told_at_the_end_is_one_too() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 400))
    ended = done("r1", "cancelled", status_details={"type": "cancelled", "reason": "turn_detected"})
    assert talk.hear(ended) == [Interruption("user"), ResponseEnd("interrupted", "turn_detected")]
    assert talk.sent_types() == ["conversation.item.truncate"]
    unseen = done("r2", "cancelled", status_details={"type": "cancelled", "reason": "turn_detected"})
    assert talk.hear(unseen) == [ResponseEnd("interrupted", "turn_detected")]


def test_speech_is_let_pass_where_it_must_not_interrupt() -> None:
    talk = openai(OpenAIOptions(turn_detection=ServerVad(interrupt_response=False))).make_ready()
    assert talk.hear(created("r1"), speech("r1", "a1", 400), SPEECH_STARTED) == [Audio(pcm(400), 24_000)]
    assert talk.hear(speech("r1", "a1", 10)) == [Audio(pcm(10), 24_000)]


def test_an_answer_that_begins_under_the_users_speech_is_cancelled() -> None:
    talk = openai().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(500))
    talk.dialect.commit()
    talk.hear(COMMITTED)
    request = talk.sent()[-1]
    assert talk.hear(SPEECH_STARTED, granted(request, "r1")) == []
    (cancel,) = talk.sent()
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "r1")
    assert talk.hear(speech("r1", "a1", 20)) == []


def test_xai_may_never_end_a_response_that_was_talked_over() -> None:
    talk = xai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 20))
    assert talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED) == [Interruption("user")]
    assert talk.hear(created("r2"), speech("r2", "a2", 20), speech("r1", "a1", 20)) == [
        ResponseEnd("interrupted"),
        Audio(pcm(20), 24_000),
    ]


# The caller's own interruption


def test_interrupt_cancels_and_truncates() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(granted(asked(talk), "r1"), speech("r1", "a1", 1000))
    talk.dialect.interrupt(played_ms=300)
    cancel, truncate = talk.sent()
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "r1")
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a1", 300)
    assert talk.frames() == [Interruption("assistant")]
    talk.dialect.interrupt()
    assert talk.sent() == []
    assert talk.frames() == []


def test_interrupt_of_what_nobody_heard_deletes_it() -> None:
    for played_ms in (0, -5):
        talk = openai(MANUAL).make_ready()
        talk.hear(granted(asked(talk), "r1"), speech("r1", "a1", 1000))
        talk.dialect.interrupt(played_ms=played_ms)
        assert talk.sent_types() == ["response.cancel", "conversation.item.delete"]


def test_truncation_is_never_beyond_what_was_sent() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(granted(asked(talk), "r1"), speech("r1", "a1", 1000))
    talk.dialect.interrupt(played_ms=5000)
    assert talk.sent()[1]["audio_end_ms"] == 1000


def test_interrupt_with_nothing_to_stop_does_nothing() -> None:
    talk = openai(MANUAL).make_ready()
    talk.dialect.interrupt()
    talk.hear(granted(asked(talk), "r1"), speech("r1", "a1", 1000), done("r1"))
    talk.dialect.interrupt()
    assert talk.sent() == []
    assert talk.frames() == []


def test_interrupt_of_what_is_still_played_truncates_only() -> None:
    talk = xai(XAI_MANUAL).make_ready()
    talk.dialect.playback.clock(5.0)
    talk.hear(created("r1"), speech("r1", "a1", 1000), done("r1"))
    talk.dialect.playback.clock(5.4)
    talk.dialect.interrupt()
    (truncate,) = talk.sent()
    assert truncate["audio_end_ms"] == 400
    assert talk.frames() == [Interruption("assistant")]


def test_interrupt_before_the_answer_begins_cancels_it_when_it_does() -> None:
    talk = openai(MANUAL).make_ready()
    request = asked(talk)
    talk.dialect.interrupt()
    talk.dialect.interrupt()
    assert talk.sent() == []
    assert talk.frames() == [Interruption("assistant")]
    assert talk.hear(granted(request, "r1"), speech("r1", "a1", 20)) == []
    assert talk.sent_types() == ["response.cancel"]
    talk.hear(done("r1", "cancelled"))
    asked(talk)


def test_interrupt_before_an_answer_that_never_comes_reports_nothing() -> None:
    talk = openai(MANUAL).make_ready()
    asked(talk)
    talk.dialect.interrupt()
    talk.frames()
    assert talk.wait(6) == []
    asked(talk)


def test_interrupt_before_an_answer_of_which_only_the_end_is_heard() -> None:
    talk = openai(MANUAL).make_ready()
    request = asked(talk)
    talk.dialect.interrupt()
    talk.frames()
    assert talk.hear(done("r1", "cancelled", metadata=request["response"]["metadata"])) == [
        ResponseEnd("interrupted")
    ]
    assert talk.sent() == []
    asked(talk)


def test_interrupt_forgets_the_turn_that_was_to_be_answered_next() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(granted(asked(talk), "r1"))
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    talk.sent()
    talk.dialect.interrupt()
    talk.hear(done("r1", "cancelled"))
    assert talk.sent_types() == ["response.cancel"]


def test_a_cancelled_response_that_never_ends_is_not_waited_for() -> None:
    talk = xai(XAI_MANUAL).make_ready()
    asked(talk)
    talk.hear(created("r1"), words("r1", "a1", "It"))
    talk.dialect.interrupt()
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    assert "response.create" not in talk.sent_types()
    talk.frames()
    assert talk.wait(5) == [Transcript("assistant", "It", True), ResponseEnd("interrupted")]
    assert talk.sent_types() == ["response.create"]


def test_a_cancel_that_crosses_the_end_is_harmless() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(granted(asked(talk), "r1"))
    talk.dialect.interrupt()
    (cancel,) = talk.sent()
    talk.frames()
    refused = error("response_cancel_not_active", "Cancellation failed", event_id=cancel["event_id"])
    assert talk.hear(done("r1"), refused) == [ResponseEnd("interrupted")]
    asked(talk)


def test_interrupting_a_response_in_the_way_that_is_nameless() -> None:
    talk = xai(XAI_MANUAL).make_ready()
    asked(talk)
    talk.hear(error(None, "already has an active response"))
    talk.dialect.interrupt()
    assert talk.sent_types() == ["response.cancel"]
    talk.frames()
    assert talk.hear(speech("r1", "a1", 20)) == []
    assert talk.wait(5) == [ResponseEnd("interrupted")]
    asked(talk)


def test_a_call_in_a_response_that_is_cut_off_afterwards_still_counts() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), SPEECH_STARTED)
    assert len(talk.hear(call("r1", "call_1"))) == 1


# How answers end


@pytest.mark.parametrize("make", [openai, xai])
@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"total_tokens": 9}}])
def test_an_answer_ends_without_a_bill(make: Any, usage: dict[str, Any]) -> None:
    talk = make().make_ready()
    for number in range(2):
        frames = talk.hear(created(f"r{number}"), speech(f"r{number}", "a", 20), done(f"r{number}", **usage))
        assert frames == [Audio(pcm(20), 24_000), ResponseEnd("done")]


@pytest.mark.parametrize(
    ("status", "details", "end"),
    [
        ("completed", "unimplemented", ResponseEnd("done")),
        (None, None, ResponseEnd("done")),
        ("succeeded", None, ResponseEnd("done")),
        ("cancelled", {"reason": "client_cancelled"}, ResponseEnd("interrupted", "client_cancelled")),
        ("canceled", None, ResponseEnd("interrupted")),
        ("incomplete", {"reason": "max_output_tokens"}, ResponseEnd("incomplete", "max_output_tokens")),
        ("incomplete", {"reason": "content_filter"}, ResponseEnd("incomplete", "content_filter")),
        ("incomplete", "content_filter", ResponseEnd("incomplete", "content_filter")),
        ("incomplete", None, ResponseEnd("incomplete")),
        ("incomplete", {"reason": 7}, ResponseEnd("incomplete")),
    ],
)
def test_the_end_of_an_answer_says_how_it_ended(status: str | None, details: Any, end: ResponseEnd) -> None:
    talk = openai(MANUAL).make_ready()
    frames = talk.hear(granted(asked(talk), "r1"), words("r1", "a1", "Hm"))
    event = done("r1", status_details=details)
    event["response"]["status"] = status
    frames = talk.hear(event)
    assert frames == [Transcript("assistant", "Hm", True), end]
    asked(talk)


def test_a_cut_that_is_called_incomplete_is_one_too() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 400))
    assert talk.hear(done("r1", "incomplete", status_details={"reason": "turn_detected"})) == [
        Interruption("user"),
        ResponseEnd("interrupted", "turn_detected"),
    ]


@pytest.mark.parametrize(
    "reason", ["no memory", {"message": "no memory"}, {"message": "no memory", "code": 3}]
)
def test_failures_are_told_however_they_are_worded(reason: Any) -> None:
    talk = openai().make_ready()
    failure, end = talk.hear(done("r1", "failed", status_details={"error": reason}))
    assert isinstance(failure, ErrorFrame)
    assert failure.message == "no memory"
    assert isinstance(end, ResponseEnd)
    assert end.status == "failed"


def test_the_end_is_told_after_the_bill_and_once() -> None:
    talk = openai().make_ready()
    frames = talk.hear(created("r1"), words("r1", "a1", "Hm"), done("r1", **USAGE), done("r1", **USAGE))
    assert frames[1:] == [Transcript("assistant", "Hm", True), Usage(3, 4, 100), ResponseEnd("done")]


def test_answers_without_any_id_end() -> None:
    talk = openai().make_ready()
    nameless = {"type": "response.output_audio.delta", "delta": "AAA="}
    for _ in range(2):
        # Some servers don't signal the beginning either.
        frames = talk.hear(nameless, {"type": "response.done", "response": {"status": "completed"}})
        assert frames == [Audio(b"\0\0", 24_000), ResponseEnd("done")]
        frames = talk.hear({"type": "response.created"}, nameless, {"type": "response.done"})
        assert frames == [Audio(b"\0\0", 24_000), ResponseEnd("done")]


def test_an_answer_whose_end_is_never_told_ends_with_the_next() -> None:
    talk = xai().make_ready()
    assert talk.hear(created("r1"), speech("r1", "a1", 20), created("r2")) == [
        Audio(pcm(20), 24_000),
        ResponseEnd("done"),
    ]
    assert talk.hear(created("r3")) == [ResponseEnd("interrupted")]


@pytest.mark.parametrize("by_us", [False, True])
def test_the_end_of_the_session_ends_the_answer(by_us: bool) -> None:
    for over in (False, True):
        talk = openai().make_ready()
        talk.hear(created("r1"), speech("r1", "a1", 20), *([done("r1")] if over else []))
        if by_us:
            talk.dialect.close()
        talk.dialect.receive_close(1000, "bye")
        *before, _ = talk.frames()
        assert before == ([] if over else [ResponseEnd("interrupted" if by_us else "failed")])
    talk = openai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 20))
    talk.dialect.receive_lost()
    end, close = talk.frames()
    assert end == ResponseEnd("failed")
    assert isinstance(close, Close)


def test_a_response_may_have_a_preamble_and_an_answer() -> None:
    talk = openai().make_ready()
    talk.dialect.playback.clock(0.0)
    kind = "response.output_audio_transcript.done"
    preamble = {"type": kind, "response_id": "r1", "item_id": "a1", "transcript": "Let me see."}
    frames = talk.hear(created("r1"), words("r1", "a1", "Let me see."), speech("r1", "a1", 400), preamble)
    frames += talk.hear(words("r1", "a2", "It is"), speech("r1", "a2", 400))
    assert [frame for frame in frames if isinstance(frame, Transcript)] == [
        Transcript("assistant", "Let me see.", False),
        Transcript("assistant", "Let me see.", True),
        Transcript("assistant", "It is", False),
    ]
    talk.dialect.playback.clock(0.5)
    assert talk.hear(SPEECH_STARTED) == [Interruption("user")]
    (truncate,) = talk.sent()
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a2", 99)
    assert talk.hear(done("r1", "cancelled")) == [
        Transcript("assistant", "It is", True),
        ResponseEnd("interrupted"),
    ]
