"""Errors, limits and the end of a session; and whatever a provider may send that makes no sense."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import (
    Close,
    ConnectionClosed,
    ErrorFrame,
    Expiring,
    Limits,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ResponseEnd,
    State,
    Unknown,
)
from speko_anyio.providers.realtime._events import IGNORED, KNOWN

from .realtime_talk import (
    MANUAL,
    SPEECH_STARTED,
    Event,
    Talk,
    audio,
    call,
    created,
    done,
    error,
    fixture,
    openai,
    pcm,
    speech,
    xai,
)

UPDATED: Event = {"type": "session.updated"}
CREATED: Event = {"type": "session.created"}


# Becoming ready


def test_nothing_counts_before_the_configuration_is_accepted() -> None:
    talk = xai()
    assert talk.hear(UPDATED, CREATED, created("r1"), speech("r1", "a1", 20), CREATED) == []
    assert talk.sent_types() == ["session.update"]
    assert len(talk.hear(UPDATED)) == 1
    assert talk.hear(UPDATED, CREATED) == []


def test_what_the_provider_says_of_the_session_is_known() -> None:
    talk = xai()
    session = {"id": "s1", "model": "grok-voice-2", "expires_at": 1790003600}
    talk.hear({**CREATED, "session": session}, {"type": "conversation.created", "conversation": {"id": "k1"}})
    first = talk.dialect.provider_session
    assert tuple(first) == ("s1", "grok-voice-2", 1790003600, "k1")
    talk.hear({**UPDATED, "session": {"model": "grok-voice-3"}})
    talk.hear(
        {"type": "conversation.created", "conversation": {"id": "k2"}}, {"type": "conversation.created"}
    )
    talk.hear({**UPDATED, "session": {"expires_at": 1790003601}})
    assert tuple(talk.dialect.provider_session) == ("s1", "grok-voice-3", 1790003601, "k2")


def test_a_refused_configuration_ends_the_session() -> None:
    talk = openai()
    talk.hear(CREATED)
    update = talk.sent()[0]
    (frame,) = talk.hear(error("unknown_parameter", "Unknown parameter: 'x'.", event_id=update["event_id"]))
    assert frame == ErrorFrame("provider_configuration_refused", "unknown_parameter: Unknown parameter: 'x'.")
    assert talk.dialect.failure == frame
    assert talk.sent() == []
    assert talk.closing is not None
    assert (talk.closing.code, talk.closing.reason) == (1000, "provider_configuration_refused")
    assert talk.hear(UPDATED, created("r1")) == []  # too late: the failure was reported
    talk.dialect.receive_close(1000)
    assert talk.frames() == [Close(1000, "provider_configuration_refused", "local")]


def test_an_error_before_the_configuration_was_sent_ends_the_session() -> None:
    talk = openai()
    assert talk.hear(error("model_not_found", "no such model")) == [
        ErrorFrame("model_not_found", "no such model")
    ]
    assert talk.dialect.failure == ErrorFrame("model_not_found", "no such model")
    talk = openai()
    assert talk.hear(error("invalid_api_key", "bad key")) == [ErrorFrame("invalid_api_key", "bad key")]
    talk = openai()
    assert talk.hear(error("session_expired")) == []
    talk.dialect.receive_close(1001)
    assert talk.frames() == [Close(1001, "provider_session_expired", "remote")]


def test_a_provider_that_does_not_accept_in_time_is_left() -> None:
    talk = openai(ready_timeout=3.0)
    talk.hear(CREATED)
    talk.sent()
    assert talk.wait(2.9) == []
    (frame,) = talk.wait(0.2)
    assert isinstance(frame, ErrorFrame)
    assert frame.code == "provider_not_ready"
    assert talk.dialect.state is State.CLOSING
    assert talk.wait(5.1) == [Close(1006, "the peer did not answer the close in time", "local")]
    assert talk.dialect.next_deadline() is None


# Errors


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("conversation_already_has_active_response", ""),
        ("response_cancel_not_active", ""),
        (None, "Cancellation failed: no active response found"),
        ("input_audio_buffer_commit_empty", ""),
        (None, "Cannot commit: buffer is empty"),
        (None, "Error committing input audio buffer: buffer too small."),
        ("invalid_value", "Audio content of 990ms is already shorter than 1200ms"),
        ("invalid_value", "Only model output audio messages can be truncated"),
    ],
)
def test_harmless_ends_of_races_are_only_counted(code: str | None, message: str) -> None:
    for talk in (openai().make_ready(), xai().make_ready()):
        assert talk.hear(error(code, message)) == []
        assert talk.dialect.stats.benign_errors == 1


def test_whatever_is_wrong_with_a_correction_is_harmless() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 20))
    talk.dialect.interrupt()
    for request in talk.sent():
        assert talk.hear(error("item_truncate_invalid_item_id", "?", event_id=request["event_id"]))[1:] == []
    assert talk.dialect.stats.benign_errors == 2


def test_requests_and_responses_of_long_ago_are_forgotten() -> None:
    talk = openai(MANUAL).make_ready()
    talk.dialect.clear()
    (oldest,) = talk.sent()
    for number in range(300):
        talk.dialect.clear()
        talk.hear(created(f"r{number}"), done(f"r{number}"))
    newest = talk.sent()[-1]
    talk.hear(done("r299"), done("r0"))
    assert talk.dialect.stats.repeated_events == 1
    for request in (oldest, newest):
        assert talk.hear(error("odd", "?", event_id=request["event_id"])) == [ErrorFrame("odd", "?")]


def test_other_errors_are_told_and_the_session_goes_on() -> None:
    talk = openai().make_ready()
    frames = talk.hear(
        error("rate_limit_exceeded", "slow down"),
        error(None, "odd", type="server_error"),
        error(42),  # type: ignore[arg-type]
        {"type": "error"},
    )
    assert frames == [
        ErrorFrame("rate_limit_exceeded", "slow down"),
        ErrorFrame("server_error", "odd"),
        ErrorFrame("42", "the provider gave no reason"),
        ErrorFrame("provider_error", "the provider gave no reason"),
    ]
    assert talk.dialect.state is State.OPEN


@pytest.mark.parametrize("where", ["code", "type"])
def test_fatal_errors_end_the_session(where: str) -> None:
    talk = openai().make_ready()
    info = {"code": None, "message": "You exceeded your current quota", where: "insufficient_quota"}
    assert talk.hear({"type": "error", "error": info}) == [
        ErrorFrame("insufficient_quota", "You exceeded your current quota")
    ]
    with pytest.raises(ConnectionClosed):
        talk.dialect.send_audio(pcm(20))
    talk.dialect.receive_close(1000)
    assert talk.frames() == [Close(1000, "insufficient_quota", "local")]


def test_fatal_errors_may_come_with_a_response() -> None:
    talk = openai().make_ready()
    details = {"error": {"code": "credit_balance_exhausted", "message": "top up"}}
    assert talk.hear(done("r1", "failed", status_details=details)) == [
        ErrorFrame("credit_balance_exhausted", "top up"),
        ResponseEnd("failed", "credit_balance_exhausted"),
    ]
    assert talk.dialect.state is State.CLOSING


@pytest.mark.parametrize("kind", ["invalid_request_error", "error", None, "new_kind"])
def test_an_account_without_money_ends_the_session_in_words_alone(kind: str | None) -> None:
    info = {"type": kind, "message": "Your team has used all available credits"}
    quota = ErrorFrame("provider_quota_exceeded", "Your team has used all available credits")
    for make in (openai, xai):
        talk = make().make_ready()
        assert talk.hear({"type": "error", "error": info}) == [quota]
        talk.dialect.receive_close(1000)
        assert talk.frames() == [Close(1000, "provider_quota_exceeded", "local")]

        talk = make().make_ready()
        assert talk.hear(done("r1", "failed", status_details={"error": info}))[0] == quota

        talk = make()
        talk.hear({"type": "session.created"})
        assert talk.hear({"type": "error", "error": info}) == [quota]


def test_a_rate_limit_about_money_passes() -> None:
    talk = openai().make_ready()
    info = {"code": "rate_limit_exceeded", "message": "slow down: no more credits this minute"}
    assert talk.hear({"type": "error", "error": info}) == [ErrorFrame(info["code"], info["message"])]
    assert talk.dialect.state is State.OPEN


def test_a_transcription_that_failed_without_reason() -> None:
    talk = openai().make_ready()
    kind = "conversation.item.input_audio_transcription.failed"
    assert talk.hear({"type": kind}) == [
        ErrorFrame("transcription_failed", "the provider could not write down what the user said")
    ]


# The end


@pytest.mark.parametrize(
    ("talk", "code", "reason"),
    [
        (openai(), "session_expired", "provider_session_expired"),
        (xai(), "max_duration", "provider_session_expired"),
        (xai(), "timeout", "provider_idle_timeout"),
    ],
)
def test_a_close_that_was_announced_has_its_reason(talk: Talk[Any], code: str, reason: str) -> None:
    talk.make_ready()
    assert talk.hear(error(None, "too long", type=code)) == []
    with pytest.raises(ConnectionClosed):
        talk.dialect.commit()
    talk.dialect.receive_close(1001, "whatever")
    assert talk.frames() == [Close(1001, reason, "remote")]


def test_the_limit_of_openai_is_announced_by_us() -> None:
    talk = openai().make_ready()
    assert talk.wait(3539) == []
    assert talk.wait(1) == [Expiring(60.0)]


def test_the_end_is_sticky_and_every_verb_says_so() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), call("r1", "c1"))
    talk.dialect.receive_close(1000, "bye")
    assert talk.frames() == [ResponseEnd("failed"), Close(1000, "bye", "remote")]
    for verb in (
        lambda: talk.dialect.send_audio(pcm(20)),
        talk.dialect.commit,
        talk.dialect.end_turn,
        talk.dialect.clear,
        talk.dialect.interrupt,
        lambda: talk.dialect.send_tool_result("c1", ""),
        talk.dialect.next_event,
    ):
        with pytest.raises(ConnectionClosed, match="bye"):
            verb()
    assert talk.hear(created("r2"), audio("r2", "a1")) == []
    assert talk.dialect.next_deadline() is None


def test_after_our_goodbye_we_listen_and_say_nothing() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 20), call("r1", "c1"))
    talk.dialect.send_tool_result("c1", "")
    talk.dialect.close(1000, "done")
    talk.sent()
    assert len(talk.hear(speech("r1", "a1", 20))) == 1
    frames = talk.hear(SPEECH_STARTED, done("r1"))
    assert [type(frame).__name__ for frame in frames] == ["Interruption", "ResponseEnd"]
    assert talk.sent() == []
    talk.dialect.handle_timeout(0.0)


def test_a_goodbye_before_the_configuration_is_accepted() -> None:
    talk = openai()
    talk.hear(CREATED)
    talk.dialect.send_audio(pcm(20))
    talk.dialect.close()
    assert talk.sent_types() == ["session.update"]
    assert len(talk.hear(UPDATED)) == 1
    assert talk.sent() == []


def test_a_provider_that_does_not_read_is_left() -> None:
    talk = openai(limits=Limits(max_outbox=2900)).make_ready()
    talk.dialect.send_audio(pcm(43))
    talk.hear(created("r1"), speech("r1", "a1", 20), SPEECH_STARTED)
    assert talk.dialect.closed is not None
    assert talk.dialect.closed.code == 1008
    assert talk.dialect.next_deadline() is None


# What makes no sense


def test_unknown_events_are_tolerated_and_seen() -> None:
    talk = openai().make_ready()
    text = '{"type":"response.hologram.delta","x":1}'
    assert talk.hear(text) == [Unknown("response.hologram.delta", text)]
    assert talk.dialect.stats.unknown_events == 1
    assert KNOWN.isdisjoint(IGNORED)
    assert talk.hear(*({"type": kind} for kind in IGNORED)) == []
    assert talk.dialect.stats.unknown_events == 1


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '{"type":"response.output_audio.delta","delta":"A"}',
        '{"type":"response.output_audio.delta","delta":"AA!A"}',
        "\ud800",
        '{"type":"x","y":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_what_is_no_event_breaks_the_protocol(text: str) -> None:
    talk = openai().make_ready()
    (frame,) = talk.hear(text)
    assert isinstance(frame, Close)
    assert (frame.code, frame.initiated_by) == (1007, "local")
    with pytest.raises(
        RemoteProtocolError, match="the provider sent a text message that is not of its protocol"
    ):
        talk.dialect.next_event()


def test_binary_messages_that_are_not_json_break_the_protocol() -> None:
    talk = xai().make_ready()
    talk.dialect.receive_message(b"\0\0")
    assert talk.frames()[0].code == 1007  # type: ignore[union-attr]
    with pytest.raises(RemoteProtocolError, match="sent a binary message that is not of its protocol"):
        talk.dialect.next_event()


def test_messages_beyond_the_limit_break_the_protocol() -> None:
    talk = openai(limits=Limits(max_text_size=1000)).make_ready()
    talk.hear(speech("r1", "a1", 100))
    with pytest.raises(RemoteProtocolError, match="more than 1000 bytes"):
        talk.dialect.next_event()


def test_json_in_binary_messages_has_the_limit_of_text() -> None:
    talk = openai(limits=Limits(max_text_size=1000)).make_ready()
    talk.dialect.receive_message(json.dumps(speech("r1", "a1", 100)).encode())
    assert [type(frame) for frame in talk.frames()] == [Close]
    with pytest.raises(RemoteProtocolError, match="binary message of more than 1000 bytes"):
        talk.dialect.next_event()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """An event of the fixtures, with something of it replaced, removed or added."""
    event = json.loads(json.dumps(draw(st.sampled_from(fixture("openai-server") + fixture("xai-server")))))
    for _ in range(draw(st.integers(0, 3))):
        inside = event
        while True:
            name = draw(st.sampled_from([*inside, "new"]))
            if isinstance(inside.get(name), dict) and draw(st.booleans()):
                inside = inside[name]
                continue
            break
        if draw(st.booleans()):
            inside[name] = draw(JSON)
        else:
            inside.pop(name, None)
    return json.dumps(event)


@given(st.booleans(), st.lists(mangled() | JSON.map(json.dumps) | st.text(max_size=20), max_size=12))
def test_nothing_a_provider_says_raises(is_xai: bool, texts: list[str]) -> None:
    talk: Talk[Any] = xai() if is_xai else openai()
    talk.make_ready()
    frames = talk.hear(*texts)
    closes = [position for position, frame in enumerate(frames) if isinstance(frame, Close)]
    assert closes in ([], [len(frames) - 1])
    talk.sent()
    if talk.dialect.state is State.OPEN:
        talk.wait(4000)
        talk.sent()
    try:
        talk.dialect.interrupt()
        talk.dialect.send_audio(pcm(200))
        talk.dialect.commit()
    except (ConnectionClosed, RemoteProtocolError, LocalProtocolError):
        assert talk.dialect.state is not State.OPEN
    talk.sent()


# Errors of our own housekeeping


@pytest.mark.parametrize(
    "message",
    [
        "Cancellation failed: no active response found",
        "Unknown event type: conversation.item.truncate",
        "Invalid value: 'conversation.item.delete'. Supported values are: 'session.update'",
        "Error truncating item: the item with id 'a1' does not exist.",
        "Only model output audio messages can be truncated",
        "Audio content of 90ms is already shorter than 100ms",
        "Error deleting item: the item with id 'a1' does not exist.",
        "response.cancel is not supported",
        "Item 'a1' is still being generated",
        "Item not found",
        "Invalid item_id: no such item",
    ],
)
@pytest.mark.parametrize("make", [openai, xai])
def test_errors_of_our_own_corrections_are_not_told(make: Any, message: str) -> None:
    talk = make().make_ready()
    talk.dialect.playback.clock(0.0)
    talk.hear(created("r1"), speech("r1", "a1", 400))
    talk.dialect.playback.clock(0.1)
    talk.hear(SPEECH_STARTED)
    assert "conversation.item.truncate" in talk.sent_types()
    assert talk.hear(error(None, message, type="invalid_request_error")) == []
    assert talk.dialect.stats.benign_errors == 1


@pytest.mark.parametrize("message", ["Item not found", "The item 'a1' is too long", "Slow down."])
def test_errors_of_anything_else_are_told(message: str) -> None:
    talk = xai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 400))
    assert talk.hear(error(None, message, type="t")) == [ErrorFrame("t", message)]


def test_errors_that_name_another_request_are_told() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 400), call("r1", "c1"))
    talk.dialect.interrupt()
    talk.dialect.send_tool_result("c1", "")
    (result,) = [message for message in talk.sent() if message["type"] == "conversation.item.create"]
    talk.frames()
    refused = error("x", "Item 'a1' not found", event_id=result["event_id"])
    assert talk.hear(refused) == [ErrorFrame("x", "Item 'a1' not found")]


# The first word


@pytest.mark.parametrize("make", [openai, xai])
def test_a_provider_that_opens_with_the_conversation_is_configured_once(make: Any) -> None:
    talk = make()
    opening = {"type": "conversation.created", "conversation": {"id": "c"}}
    talk.hear(opening)
    assert talk.sent_types() == ["session.update"]
    talk.hear(opening, CREATED, opening)
    assert talk.sent_types() == []
    assert [type(frame) for frame in talk.hear(UPDATED)] == [Ready]
    assert talk.dialect.provider_session.conversation_id == "c"
    talk.hear(opening, CREATED)
    assert talk.sent_types() == []


def test_what_else_comes_first_is_no_opening() -> None:
    talk = xai()
    assert talk.hear({"type": "ping"}, UPDATED) == []
    assert talk.sent() == []
