"""Odd events of compatible servers: one odd field never ends a call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from speko_anyio.protocol import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Ready,
    State,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)

from .oddities import Message, Oddity, Path, dotted, oddities
from .realtime_talk import (
    Event,
    Talk,
    audio,
    call,
    created,
    done,
    error,
    fixture,
    openai,
    words,
    xai,
    xai_call,
)

PCM = bytes([0, 0, 1, 0, 2, 0, 3, 0])

CONVERSATIONS = {"openai": fixture("openai-server")[:-1], "xai": fixture("xai-server")[:-2]}
"""All events except errors that announce the end."""

USED = {
    "type",
    "audio",
    "call_id",
    "content_index",
    "conversation",
    "conversation.id",
    "delta",
    "item",
    "item.arguments",
    "item.call_id",
    "item.id",
    "item.name",
    "item.status",
    "item.type",
    "item_id",
    "name",
    "arguments",
    "response",
    "response.id",
    "response.metadata",
    "response.output",
    "response.status",
    "response.status_details",
    "response.status_details.error",
    "response.status_details.error.code",
    "response.status_details.error.message",
    "response.status_details.error.type",
    "response.status_details.reason",
    "response_id",
    "session",
    "status",
    "text",
    "transcript",
}
"""Fields that mean something to the dialect wherever they stand; `_is_used` has those of single events."""


def _is_used(message: Message, path: Path) -> bool:
    name = dotted(path)
    if name in USED or "usage" in name or name.startswith("response.output["):
        return True
    if name.startswith("session."):
        return name.startswith(("session.audio", "session.id", "session.model", "session.expires_at"))
    return name.startswith("error") or (message["type"] == "error" and name in ("code", "message", "detail"))


def _talk(provider: str) -> Talk[Any]:
    return openai(ttl=None) if provider == "openai" else xai()


def _run(provider: str, events: list[str] | list[Message]) -> tuple[Talk[Any], list[Frame]]:
    talk = _talk(provider)
    frames = []
    for event in events:
        frames += talk.hear(event)
        talk.dialect.messages_to_send()
    return talk, frames


UNCHANGED = {provider: _run(provider, events)[1] for provider, events in CONVERSATIONS.items()}


def _check_unneeded(provider: str, oddity: Oddity) -> None:
    talk, frames = _run(provider, oddity.spoil(CONVERSATIONS[provider]))
    assert frames == UNCHANGED[provider]
    assert talk.dialect.state is State.OPEN


@given(oddities(CONVERSATIONS["openai"], lambda message, path: not _is_used(message, path)))
def test_any_value_in_any_unneeded_field_changes_nothing_of_openai(oddity: Oddity) -> None:
    _check_unneeded("openai", oddity)


@given(oddities(CONVERSATIONS["xai"], lambda message, path: not _is_used(message, path)))
def test_any_value_in_any_unneeded_field_changes_nothing_of_xai(oddity: Oddity) -> None:
    _check_unneeded("xai", oddity)


ANSWER: list[Message] = [
    created("r9"),
    {"type": "response.output_item.added", "response_id": "r9", "item": {"id": "a9", "type": "message"}},
    words("r9", "a9", "Yes."),
    audio("r9", "a9"),
    {
        "type": "response.output_audio_transcript.done",
        "response_id": "r9",
        "item_id": "a9",
        "transcript": "Yes.",
    },
    {"type": "response.done", "response": {"id": "r9", "status": "completed", "usage": None}},
]
HEARD = [Transcript("assistant", "Yes.", False), Audio(PCM, 24_000), Transcript("assistant", "Yes.", True)]


def _check_used(provider: str, oddity: Oddity) -> None:
    """The event itself may mean something else, or nothing; the call goes on, and later answers are whole."""
    talk, _ = _run(provider, oddity.spoil(CONVERSATIONS[provider]))
    frames = [frame for event in ANSWER for frame in talk.hear(event)]
    assert talk.dialect.state is State.OPEN
    assert [frame for frame in frames if frame in HEARD][-3:] == HEARD
    talk.dialect.messages_to_send()


def _may_be_odd(message: Message, path: Path) -> bool:
    # An event of another type is another event, and text that is not base64 in place of audio stays an error.
    name = dotted(path)
    return name != "type" and not (message["type"] == "response.output_audio.delta" and name == "delta")


@given(oddities(CONVERSATIONS["openai"], _may_be_odd))
def test_any_value_in_any_field_leaves_the_call_of_openai(oddity: Oddity) -> None:
    _check_used("openai", oddity)


@given(oddities(CONVERSATIONS["xai"], _may_be_odd))
def test_any_value_in_any_field_leaves_the_call_of_xai(oddity: Oddity) -> None:
    _check_used("xai", oddity)


# Known oddities of servers


@pytest.mark.parametrize("make", [openai, xai])
def test_an_emoji_cut_in_two_is_joined(make: Any) -> None:
    talk = make().make_ready()
    frames = talk.hear(created("r1"), words("r1", "a1", "Hi \ud83d"), words("r1", "a1", "\ude00 there"))
    assert frames == [Transcript("assistant", "Hi ", False), Transcript("assistant", "Hi 😀 there", False)]
    assert talk.hear(done("r1"))[0] == Transcript("assistant", "Hi 😀 there", True)
    assert talk.dialect.stats.odd_fields == 2


def test_half_an_emoji_without_the_other_is_replaced() -> None:
    talk = openai().make_ready()
    assert talk.hear(created("r1"), words("r1", "a1", "\ud83d")) == []
    assert talk.hear(words("r1", "a1", "x")) == [Transcript("assistant", "\ufffdx", False)]
    assert talk.hear(words("r1", "a1", "\ude00")) == [Transcript("assistant", "\ufffdx\ufffd", False)]
    assert talk.hear(words("r1", "a1", "\ud83d")) == []
    assert talk.hear(done("r1"))[0] == Transcript("assistant", "\ufffdx\ufffd\ufffd", True)


def test_the_users_words_are_joined_too() -> None:
    talk = openai().make_ready()
    kind = "conversation.item.input_audio_transcription"
    frames = talk.hear(
        {"type": f"{kind}.delta", "item_id": "u1", "delta": "\ud83d"},
        {"type": f"{kind}.delta", "item_id": "u1", "delta": "\ude00"},
        {"type": f"{kind}.completed", "item_id": "u1", "transcript": "\ud83d"},
    )
    assert frames == [Transcript("user", "😀", False), Transcript("user", "\ufffd", True)]


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (
            {"type": "error", "error": "Too long.", "code": "invalid_audio"},
            ErrorFrame("invalid_audio", "Too long."),
        ),
        ({"type": "error", "message": "Too long.", "code": 413}, ErrorFrame("413", "Too long.")),
        ({"type": "error", "error": None, "detail": "Too long."}, ErrorFrame("provider_error", "Too long.")),
        ({"type": "error", "error": None}, ErrorFrame("provider_error", "the provider gave no reason")),
        ({"type": "error"}, ErrorFrame("provider_error", "the provider gave no reason")),
        ({"type": "error", "error": 503}, ErrorFrame("provider_error", "503")),
        ({"type": "error", "error": ["a", "b"]}, ErrorFrame("provider_error", '["a","b"]')),
        (
            {"type": "error", "error": {"message": {"why": "x"}, "code": 3.0}},
            ErrorFrame("3.0", '{"why":"x"}'),
        ),
        ({"error": {"code": "429", "message": "Slow down."}}, ErrorFrame("429", "Slow down.")),
        ({"type": "error", "error": "half \ud83d"}, ErrorFrame("provider_error", "half \ufffd")),
    ],
)
def test_errors_are_told_however_they_are_worded(event: Event, frame: ErrorFrame) -> None:
    talk = openai().make_ready()
    assert talk.hear(event) == [frame]
    assert talk.dialect.state is State.OPEN


def test_an_error_as_text_before_ready_is_the_reason() -> None:
    talk = openai()
    talk.hear({"type": "session.created"})
    (frame,) = talk.hear(
        {"type": "error", "error": "The model `x` does not exist.", "code": "model_not_found"}
    )
    assert isinstance(frame, ErrorFrame)
    assert "The model `x` does not exist." in frame.message


def test_json_in_binary_messages_is_read() -> None:
    talk = openai()
    for event in ({"type": "session.created"}, {"type": "session.updated", "session": None}):
        talk.dialect.receive_message(json.dumps(event).encode())
    talk.dialect.receive_message(b'{"type":"error","error":"caf\xe9"}')
    assert talk.frames() == [Ready(24_000, 24_000), ErrorFrame("provider_error", "caf\ufffd")]


def test_arguments_may_be_an_object() -> None:
    talk = openai().make_ready()
    event = call("r1", "c1")
    event["item"]["arguments"] = {"city": "Malmö"}
    assert talk.hear(event) == [ToolCall("c1", "get_weather", '{"city":"Malmö"}')]
    event = {**xai_call("r1", "c1"), "arguments": {"a": 1}}
    assert xai().make_ready().hear(event) == [ToolCall("c1", "get_weather", '{"a":1}')]


def test_counts_are_read_as_what_they_can_only_mean() -> None:
    talk = openai().make_ready()
    for number, (spent, counted) in enumerate([(3.0, 3), ("3", 3), (None, 0), (-3, 0), (10**30, 0), ({}, 0)]):
        usage = {"input_token_details": {"audio_tokens": spent}, "output_token_details": {"audio_tokens": 1}}
        assert Usage(counted, 1) in talk.hear(created(f"r{number}"), done(f"r{number}", usage=usage))


def test_an_audio_event_without_audio_is_ignored_and_counted() -> None:
    talk = openai().make_ready()
    event = {**audio("r1", "a1"), "delta": None}
    assert talk.hear(created("r1"), event) == []
    assert talk.dialect.stats.odd_fields == 1
    assert talk.hear(audio("r1", "a1")) == [Audio(PCM, 24_000)]


def test_a_time_as_text_is_read_or_left_out() -> None:
    talk = openai()
    talk.hear({"type": "session.created", "session": {"id": "s", "expires_at": "2026-12-01T00:00:00Z"}})
    assert talk.dialect.provider_session.expires_at is None
    assert talk.dialect.provider_session.id == "s"
    talk.hear({"type": "session.updated", "session": {"expires_at": "1796083200"}})
    assert talk.dialect.provider_session.expires_at == 1796083200.0


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("{}", Unknown("", "{}")),
        ('{"type":1}', Unknown("1", '{"type":1}')),
        ('{"type":null}', Unknown("", '{"type":null}')),
        ('{"type":"\ud800"}', Unknown("\ufffd", '{"type":"\ufffd"}')),
        ('{"type":"x","y":NaN}', Unknown("x", '{"type":"x","y":NaN}')),
    ],
    ids=ascii,
)
def test_events_of_no_known_type_are_shown(text: str, frame: Unknown) -> None:
    talk = openai().make_ready()
    assert talk.hear(text) == [frame]
    assert talk.dialect.stats.unknown_events == 1


def test_ids_may_be_numbers() -> None:
    talk = openai().make_ready()
    event = {**audio("", "a1"), "response_id": 7}
    frames = talk.hear({"type": "response.created", "response": {"id": 7}}, event, error("x", "y"))
    assert frames == [Audio(PCM, 24_000), ErrorFrame("x", "y")]
    talk.dialect.interrupt()
    assert talk.sent()[0]["response_id"] == "7"


def test_no_frame_of_an_odd_event_is_a_close() -> None:
    talk = openai().make_ready()
    odd = ["text", 7, None, [], {}, True, {"id": {}}, [None]]
    for name in (
        "item",
        "part",
        "response",
        "session",
        "conversation",
        "error",
        "usage",
        "content",
        "metadata",
    ):
        for kind in {event["type"] for conversation in CONVERSATIONS.values() for event in conversation}:
            for value in odd:
                frames = talk.hear({"type": kind, name: value})
                assert not any(isinstance(frame, Close) for frame in frames), (kind, name, value)
                talk.dialect.messages_to_send()


@pytest.mark.parametrize("kind", [openai, xai])
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("empty", ["", b"", "\n", " \r\n\t", b"\n", "\ufeff", b"\xef\xbb\xbf\n", "\n\ufeff"])
def test_empty_messages_are_ignored(kind: Callable[[], Talk[Any]], ready: bool, empty: str | bytes) -> None:
    talk = kind()
    if ready:
        talk.make_ready()
    odd = talk.dialect.odd_fields
    talk.dialect.receive_message(empty)
    assert talk.frames() == []
    assert talk.dialect.state is State.OPEN
    assert talk.dialect.odd_fields == odd + 1


@pytest.mark.parametrize("rate", [1, 2, 7_999, 192_001])
def test_a_sample_rate_that_no_speech_has_is_ignored(rate: int) -> None:
    talk = xai()
    talk.hear({"type": "session.created"})
    audio_format = {"format": {"type": "audio/pcm", "rate": rate}}
    frames = talk.hear(
        {"type": "session.updated", "session": {"audio": {"input": audio_format, "output": audio_format}}}
    )
    assert frames == [Ready(24_000, 24_000)]
