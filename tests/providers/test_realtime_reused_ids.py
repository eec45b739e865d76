"""Servers that reuse the ids of calls, responses and items: nothing is lost or reported twice."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.protocol import Audio, ResponseEnd, ServerToolCall, ToolCall, Transcript, Usage

from .realtime_talk import (
    COMMITTED,
    MANUAL,
    SPEECH_STARTED,
    SPEECH_STOPPED,
    Event,
    Talk,
    audio,
    call,
    created,
    done,
    openai,
    speech,
    words,
    xai,
    xai_call,
)

ITEM = "conversation.item.create"
CREATE = "response.create"
MAKERS = [(openai, call), (xai, xai_call)]


def calls(talk: Talk[Any], *events: Event) -> list[str]:
    return [frame.call_id for frame in talk.hear(*events) if isinstance(frame, ToolCall)]


@pytest.mark.parametrize(("make", "make_call"), MAKERS)
def test_each_response_may_have_a_call_with_the_same_id(make: Any, make_call: Any) -> None:
    talk = make().make_ready()
    for number in range(3):
        name = f"r{number}"
        output = [call(name, "call_0")["item"]]
        told = calls(talk, created(name), make_call(name, "call_0"), done(name, output=output))
        assert told == ["call_0"]
        talk.dialect.send_tool_result("call_0", str(number))
        result, _ = talk.sent()
        assert result["item"] == {"type": "function_call_output", "call_id": "call_0", "output": str(number)}


@pytest.mark.parametrize(("make", "make_call"), MAKERS)
def test_two_open_calls_with_one_id_have_two_names(make: Any, make_call: Any) -> None:
    talk = make().make_ready()
    assert calls(talk, created("r1"), make_call("r1", "call_0"), done("r1")) == ["call_0"]
    assert calls(talk, created("r2"), make_call("r2", "call_0"), done("r2")) == ["call_0-2"]
    assert talk.dialect.open_calls == ("call_0", "call_0-2")
    talk.dialect.send_tool_result("call_0-2", "second")
    talk.dialect.send_tool_result("call_0", "first")
    results = [message["item"] for message in talk.sent() if message["type"] == ITEM]
    assert [(item["call_id"], item["output"]) for item in results] == [
        ("call_0", "second"),
        ("call_0", "first"),
    ]
    assert talk.dialect.open_calls == ()
    assert calls(talk, created("r3"), make_call("r3", "call_0")) == ["call_0"]


def test_the_late_result_of_a_moot_call_does_not_answer_another() -> None:
    talk = openai().make_ready()
    assert calls(talk, created("r1"), call("r1", "call_0")) == ["call_0"]
    talk.hear(SPEECH_STARTED, done("r1", "cancelled"))
    talk.hear(SPEECH_STOPPED, COMMITTED)
    assert calls(talk, created("r2"), call("r2", "call_0"), done("r2")) == ["call_0-2"]
    talk.dialect.send_tool_result("call_0", "late")
    assert talk.dialect.open_calls == ("call_0-2",)
    talk.dialect.send_tool_result("call_0-2", "")
    assert talk.sent_types() == [ITEM, CREATE, ITEM]


def test_two_calls_of_one_response_may_have_one_id() -> None:
    talk = openai().make_ready()
    first, second = call("r1", "call_0"), call("r1", "call_0")
    second["item"] |= {"id": "item_2", "arguments": '{"city":"Rome"}'}
    told = talk.hear(created("r1"), first, second, done("r1", output=[first["item"], second["item"]]))
    assert told[:-1] == [
        ToolCall("call_0", "get_weather", "{}"),
        ToolCall("call_0-2", "get_weather", '{"city":"Rome"}'),
    ]
    talk.dialect.send_tool_result("call_0", "")
    assert talk.sent_types() == [ITEM]
    talk.dialect.send_tool_result("call_0-2", "")
    assert talk.sent_types() == [ITEM, CREATE]


def test_a_call_that_is_told_with_another_item_is_the_same_one() -> None:
    talk = openai().make_ready()
    again = call("r1", "call_0")
    again["item"]["id"] = "item_another"
    assert calls(talk, created("r1"), call("r1", "call_0"), again) == ["call_0"]


@pytest.mark.parametrize("make", [openai, xai])
def test_all_responses_may_have_the_same_id(make: Any) -> None:
    talk = make().make_ready()
    answer = [
        created("r"),
        words("r", "a", "Yes."),
        audio("r", "a"),
        {
            "type": "response.output_audio_transcript.done",
            "response_id": "r",
            "item_id": "a",
            "transcript": "Yes.",
        },
        done("r", usage={"input_token_details": {"audio_tokens": 1}}),
    ]
    for _ in range(3):
        frames = talk.hear(*answer)
        assert frames == [
            Transcript("assistant", "Yes.", False),
            Audio(frames[1].pcm, 24_000),
            Transcript("assistant", "Yes.", True),
            Usage(1, 0),
            ResponseEnd("done"),
        ]
        assert not talk.dialect.responding


@pytest.mark.parametrize(("make", "make_call"), MAKERS)
def test_all_ids_may_be_the_same(make: Any, make_call: Any) -> None:
    talk = make().make_ready()
    for _ in range(3):
        assert calls(talk, created("r"), make_call("r", "c"), make_call("r", "c"), done("r")) == ["c"]
        talk.dialect.send_tool_result("c", "")
        assert talk.sent_types() == [ITEM, CREATE]
        assert talk.hear(created("r"), done("r")) == [ResponseEnd("done")]


def test_a_response_that_was_cut_off_may_be_followed_by_one_with_its_id() -> None:
    talk = openai().make_ready()
    talk.hear(created("r"), speech("r", "a", 400), SPEECH_STARTED, SPEECH_STOPPED)
    assert talk.hear(audio("r", "a")) == []
    frames = talk.hear(created("r"), audio("r", "a"))
    assert [type(frame) for frame in frames] == [ResponseEnd, Audio]
    assert talk.hear(done("r")) == [ResponseEnd("done")]


def test_what_comes_late_of_a_response_stays_late() -> None:
    talk = openai(MANUAL).make_ready()
    assert talk.hear(created("r1"), done("r1"), audio("r1", "a1"), done("r1")) == [ResponseEnd("done")]
    assert talk.dialect.stats.late_events == 1
    assert talk.dialect.stats.repeated_events == 1


def test_what_the_user_says_may_have_one_item_id() -> None:
    kind = "conversation.item.input_audio_transcription"
    talk = openai().make_ready()
    for number in range(3):
        talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED)
        text = f"Turn {number}"
        words = {"type": f"{kind}.completed", "item_id": "item_u1", "transcript": text}
        assert talk.hear(words, words) == [Transcript("user", text, True)]
    talk = openai(MANUAL).make_ready()
    for number in range(3):
        talk.hear(COMMITTED)
        words = {"type": f"{kind}.completed", "item_id": "item_u1", "transcript": f"Turn {number}"}
        assert len(talk.hear(words, words)) == 1


def test_what_the_user_says_may_have_one_item_id_at_xai() -> None:
    kind = "conversation.item.input_audio_transcription"
    talk = xai().make_ready()
    for number in range(3):
        text = f"Turn {number}"
        events = [
            {"type": f"{kind}.completed", "item_id": "item_u1", "transcript": text, "status": "completed"}
        ]
        frames = talk.hear(SPEECH_STARTED, *events, SPEECH_STOPPED, COMMITTED)
        frames += talk.hear(created(f"r{number}"), audio(f"r{number}", "a"), done(f"r{number}"))
        assert [frame.text for frame in frames if isinstance(frame, Transcript) and frame.final] == [text]


def test_texts_without_an_item_id_are_never_repeats() -> None:
    kind = "conversation.item.input_audio_transcription.completed"
    talk = openai().make_ready()
    for _ in range(2):
        assert talk.hear({"type": kind, "transcript": "Yes."}) == [Transcript("user", "Yes.", True)]


def test_server_tools_may_have_one_id() -> None:
    talk = openai().make_ready()
    item = {"id": "mcp_0", "type": "mcp_call", "name": "search"}
    for number in range(3):
        name = f"r{number}"
        frames = talk.hear(
            created(name),
            {"type": "response.output_item.added", "response_id": name, "item": item},
            {"type": "response.mcp_call.completed", "item_id": "mcp_0"},
            {"type": "response.output_item.done", "response_id": name, "item": item},
            done(name),
        )
        assert frames == [
            ServerToolCall("mcp_0", "search", "started"),
            ServerToolCall("mcp_0", "search", "completed"),
            ResponseEnd("done"),
        ]


def test_an_item_with_the_id_of_an_earlier_one_is_truncated_by_itself() -> None:
    talk = openai().make_ready()
    talk.dialect.playback.clock(0.0)
    talk.hear(created("r1"), speech("r1", "a", 400), done("r1"))
    talk.dialect.playback.clock(1.0)
    talk.hear(created("r2"), speech("r2", "a", 400))
    talk.dialect.playback.clock(1.1)
    talk.hear(SPEECH_STARTED)
    (truncate,) = talk.sent()
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a", 100)


def test_a_function_name_that_only_its_item_tells() -> None:
    talk = xai().make_ready()
    item = {"id": "f1", "type": "function_call", "name": "clock", "call_id": "c1"}
    event = {**xai_call("r1", "c1"), "item_id": "f1", "name": None}
    frames = talk.hear(
        created("r1"), {"type": "response.output_item.added", "response_id": "r1", "item": item}, event
    )
    assert frames == [ToolCall("c1", "clock", "{}")]


def test_a_call_that_only_its_arguments_tell_is_made_at_the_end() -> None:
    talk = openai().make_ready()
    assert calls(talk, created("r1"), xai_call("r1", "c1")) == []
    assert calls(talk, done("r1", output=None)) == ["c1"]
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM, CREATE]
    # A server may report it as in progress even at its end.
    assert calls(talk, created("r4"), call("r4", "c4", "in_progress")) == []
    assert calls(talk, done("r4")) == ["c4"]
    talk.dialect.send_tool_result("c4", "")
    talk.sent()
    # Nor one that was cut off.
    assert calls(talk, created("r2"), xai_call("r2", "c2"), done("r2", "cancelled")) == []
    assert calls(talk, created("r3"), done("r3")) == []


def test_an_answer_whose_end_is_never_told_may_be_followed_by_one_with_its_id() -> None:
    talk = xai().make_ready()
    for _ in range(2):
        talk.hear(created("r"), audio("r", "a"))
        assert talk.hear(created("r")) == [ResponseEnd("done")]
        assert talk.hear(done("r")) == [ResponseEnd("done")]
