"""What a double turns down, in the words of the provider it plays."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from speko_anyio.testing.providers import (
    CallTools,
    GoAway,
    GoogleDouble,
    GoogleSession,
    Incomplete,
    OpenAIDouble,
    OpenAISession,
    Pace,
    Request,
    Say,
    XAIDouble,
    XAISession,
    tone,
)

OPENAI = Request("/v1/realtime?model=gpt-realtime-2.1", (("Authorization", "Bearer test-key"),))
XAI = Request("/v1/realtime?model=grok-voice-latest", (("Authorization", "Bearer test-key"),))
GOOGLE = Request("/ws/x", (("x-goog-api-key", "test-key"),))
SLOW = Pace(speed=0.1)


def say(session: OpenAISession | XAISession | GoogleSession, *messages: Any) -> list[Any]:
    """Say that at second 0; the answers."""
    before = len(session.sent)
    for message in messages:
        session.receive(message if isinstance(message, str | bytes) else json.dumps(message), 0.0)
    return session.sent[before:]


def append(pcm: bytes) -> Any:
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()}


def error(session: OpenAISession | XAISession, message: Any) -> Any:
    """The inner object of the one error that answers `message`."""
    (answer,) = say(session, message)
    assert answer["type"] == "error"
    assert session.errors[-1] == answer["error"]
    return answer["error"]


def update(**session: Any) -> Any:
    return {"type": "session.update", "event_id": "mine", "session": {"type": "realtime", **session}}


# OpenAI


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not json", "invalid_json"),
        ("[1]", "invalid_json"),
        ({"type": "no.such.event"}, "invalid_value"),
        ({"type": "session.update"}, "missing_required_parameter"),
        ({"type": "session.update", "session": {"instructions": "x"}}, "missing_required_parameter"),
        (update(temperature=0.8), "unknown_parameter"),
        (update(audio={"input": {"turn_detection": {"type": "server_vad", "x": 1}}}), "unknown_parameter"),
        (update(model="another"), "invalid_request_error"),
        (
            update(audio={"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}),
            "invalid_value",
        ),
        ({"type": "input_audio_buffer.append"}, "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
        ({"type": "response.cancel"}, "response_cancel_not_active"),
        ({"type": "conversation.item.create"}, "missing_required_parameter"),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": "x", "output": "{}"},
            },
            "item_create_invalid_call_id",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": "x", "output": {}},
            },
            "invalid_type",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": 0},
            "item_truncate_invalid_item_id",
        ),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_delete_invalid_item_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("type"),
)
def test_openai_says_what_is_wrong(message: Any, code: str) -> None:
    session = OpenAIDouble().open(OPENAI)
    before = json.dumps(session.config)
    assert error(session, message)["code"] == code
    assert json.dumps(session.config) == before
    assert session.closed is None


def test_an_error_names_the_message_that_it_answers() -> None:
    session = OpenAIDouble().open(OPENAI)
    assert error(session, update(temperature=1))["event_id"] == "mine"
    assert error(session, {"type": "response.cancel"})["event_id"] is None


def active(session: OpenAISession | XAISession) -> str:
    """Begin a response and name it."""
    say(session, {"type": "response.create"})
    assert session.response is not None
    return session.response.id


def test_one_response_at_a_time() -> None:
    session = OpenAIDouble([Say("x", 5.0)], pace=SLOW).open(OPENAI)
    running = active(session)
    refused = error(session, {"type": "response.create", "event_id": "mine"})
    assert refused["code"] == "conversation_already_has_active_response"
    assert running in refused["message"]
    assert error(session, {"type": "response.cancel", "response_id": "resp_x"})["code"] == (
        "response_cancel_not_active"
    )
    cancelled = say(session, {"type": "response.cancel", "response_id": running})
    assert [event["type"] for event in cancelled][-2:] == ["response.done", "rate_limits.updated"]
    assert cancelled[-2]["response"]["status_details"]["reason"] == "client_cancelled"


def test_truncation_within_what_was_generated() -> None:
    session = OpenAIDouble([Say("x", 0.5), CallTools([("f", {})])]).open(OPENAI)
    say(session, {"type": "response.create"})
    session.advance(1.0)
    (item,) = [event["item"]["id"] for event in session.sent if event["type"] == "response.output_item.done"]
    truncate = {"type": "conversation.item.truncate", "item_id": item, "content_index": 0}
    assert "already shorter than 600ms" in error(session, {**truncate, "audio_end_ms": 600})["message"]
    assert error(session, {**truncate, "audio_end_ms": 1.5})["code"] == "invalid_type"
    assert say(session, {**truncate, "audio_end_ms": 200})[0]["type"] == "conversation.item.truncated"
    assert "already shorter" in error(session, {**truncate, "audio_end_ms": 300})["message"]
    assert session.truncations == [(item, 200)]
    say(session, {"type": "response.create"})
    call = session.sent[-2]["response"]["output"][0]
    text = error(session, {**truncate, "item_id": call["id"], "audio_end_ms": 0})["message"]
    assert text == "Only model output audio messages can be truncated"
    assert say(session, {"type": "conversation.item.delete", "item_id": item})[0]["item_id"] == item
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
    create = {"type": "conversation.item.create", "item": result}
    assert [event["type"] for event in say(session, create)] == [
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert error(session, create)["code"] == "item_create_duplicate_output"


def test_the_voice_is_locked_by_the_first_audio() -> None:
    session = OpenAIDouble().open(OPENAI)
    voice = {"output": {"voice": "marin"}}
    assert say(session, update(audio=voice))[0]["session"]["audio"]["output"]["voice"] == "marin"
    say(session, {"type": "response.create"})
    session.advance(5.0)
    assert say(session, update(audio=voice))[0]["type"] == "session.updated"
    assert error(session, update(audio={"output": {"voice": "cedar"}}))["code"] == "cannot_update_voice"


def test_an_update_changes_only_what_it_names() -> None:
    session = OpenAIDouble().open(OPENAI)
    say(session, update(instructions="Be terse.", audio={"input": {"turn_detection": None}}))
    assert session.config["audio"]["input"]["turn_detection"] is None
    assert session.config["audio"]["input"]["format"]["rate"] == 24_000
    assert session.config["instructions"] == "Be terse."
    assert session.config["audio"]["output"]["voice"] == "alloy"


def test_cleared_audio_is_forgotten() -> None:
    session = OpenAIDouble().open(OPENAI)
    say(session, append(tone(0.5, 24_000)))
    cleared = say(session, {"type": "input_audio_buffer.clear"}, {"type": "input_audio_buffer.commit"})
    assert [event["type"] for event in cleared] == ["input_audio_buffer.cleared", "error"]


def test_a_commit_while_the_user_speaks_is_that_speech() -> None:
    session = OpenAIDouble().open(OPENAI)
    started, committed, *_ = say(
        session, append(tone(0.5, 24_000)), {"type": "input_audio_buffer.commit", "event_id": "mine"}
    )
    assert committed["type"] == "input_audio_buffer.committed"
    assert committed["item_id"] == started["item_id"]
    # Neither answers by itself, nor hears the end of that speech again.
    assert session.response is None
    assert say(session, append(bytes(48_000))) == []


@pytest.mark.parametrize("name", ["create_response", "interrupt_response"])
def test_turn_detection_that_only_listens(name: str) -> None:
    session = OpenAIDouble([Say("x", 5.0)], pace=SLOW).open(OPENAI)
    detection = {"type": "server_vad", "silence_duration_ms": 200, name: False}
    say(session, update(audio={"input": {"turn_detection": detection}}))
    say(session, append(tone(0.5, 24_000) + bytes(24_000)))
    assert (session.response is None) == (name == "create_response")
    running = session.response
    say(session, append(tone(0.5, 24_000)))
    assert session.response is running


def test_a_response_that_is_cut_short() -> None:
    session = OpenAIDouble([[Say("x", 0.1), Incomplete("content_filter")]]).open(OPENAI)
    say(session, {"type": "response.create"})
    session.advance(1.0)
    done = session.sent[-2]["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("incomplete", "content_filter")


def test_text_of_the_user_becomes_an_item() -> None:
    session = OpenAIDouble().open(OPENAI)
    content = [{"type": "input_text", "text": "Hello"}]
    item = {"type": "message", "role": "user", "content": content}
    added, _ = say(session, {"type": "conversation.item.create", "item": item})
    assert added["item"]["content"] == content


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (OPENAI, None),
        (Request("/any/path?model=m", (), ("realtime", "openai-insecure-api-key.test-key")), None),
        (Request(OPENAI.target), 401),
        (Request(OPENAI.target, (("authorization", "Bearer other"),)), 401),
        (Request("/v1/realtime", OPENAI.headers), 400),
        (Request(OPENAI.target, (*OPENAI.headers, ("OpenAI-Beta", "realtime=v1"))), 400),
    ],
)
def test_who_gets_in_to_openai(request_: Request, status: int | None) -> None:
    refusal = OpenAIDouble().judge(request_)
    assert (refusal and refusal.status) == status


# xAI


def test_xai_takes_another_model_than_none() -> None:
    session = XAIDouble().open(Request("/v1/realtime", XAI.headers))
    assert session.sent[0]["session"]["model"] == "grok-voice-latest"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (XAI, None),
        (Request(XAI.target, (), ("xai-client-secret.test-key",)), None),
        (Request(XAI.target, (), ("xai-client-secret.other",)), 401),
        (Request(XAI.target), 401),
    ],
)
def test_who_gets_in_to_xai(request_: Request, status: int | None) -> None:
    double = XAIDouble()
    refusal = double.judge(request_)
    assert (refusal and refusal.status) == status
    assert double.subprotocol(request_) == (
        request_.subprotocols[0] if refusal is None and request_.subprotocols else None
    )


def test_xai_has_no_turn_detection_until_it_is_told_to() -> None:
    session = XAIDouble().open(XAI)
    assert say(session, append(tone(1.0, 24_000) + bytes(48_000))) == []
    detection = {"type": "server_vad", "silence_duration_ms": 300}
    say(session, {"type": "session.update", "session": {"turn_detection": detection}})
    assert say(session, append(tone(1.0, 24_000) + bytes(48_000)))
    say(session, {"type": "session.update", "session": {"turn_detection": None}})
    assert say(session, append(tone(1.0, 24_000))) == []


@pytest.mark.parametrize("rate", [12_000, None])
def test_xai_takes_the_documented_rates(rate: int | None) -> None:
    session = XAIDouble().open(XAI)
    audio = {"input": {"format": {"type": "audio/pcm", "rate": rate}}}
    assert error(session, {"type": "session.update", "session": {"audio": audio}})["type"] == "invalid_event"
    assert error(session, {"type": "session.update"})["type"] == "invalid_event"


def test_xai_errors_have_words_only() -> None:
    session = XAIDouble([Say("x", 5.0)], pace=SLOW).open(XAI)
    refused = error(session, {"type": "response.cancel", "event_id": "mine"})
    assert refused == {
        "type": "invalid_request_error",
        "code": None,
        "message": "Cancellation failed: no active response found",
    }
    active(session)
    assert "already has an active response" in error(session, {"type": "response.create"})["message"]


def test_xai_says_nothing_of_a_response_that_is_talked_over() -> None:
    session = XAIDouble([Say("x", 5.0)], pace=SLOW).open(XAI)
    say(session, {"type": "session.update", "session": {"turn_detection": {"type": "server_vad"}}})
    active(session)
    (started,) = say(session, append(tone(0.5, 24_000)))
    assert started["type"] == "input_audio_buffer.speech_started"
    assert session.response is None
    session.advance(100.0)
    assert session.sent[-1] == started


def test_xai_replays_what_was_said_when_a_conversation_is_resumed() -> None:
    double = XAIDouble()
    first = double.open(XAI)
    conversation = first.sent[1]["conversation"]["id"]
    second = double.open(Request(f"{XAI.target}&conversation_id={conversation}", XAI.headers))
    assert second.sent[1]["conversation"]["id"] == conversation
    again = say(second, {"type": "session.update", "session": {"resumption": {"enabled": True}}})
    assert [event["type"] for event in again] == ["conversation.item.added", "session.updated"]


def test_xai_ends_idle_sessions() -> None:
    session = XAIDouble().open(XAI)
    session.idle()
    assert session.errors[-1]["type"] == "timeout"
    assert session.closed is not None


# Gemini

SETUP: Any = {"setup": {"model": "models/gemini-3.8-live", "sessionResumption": {}}}
MANUAL: Any = {
    "setup": {
        "model": "models/m",
        "realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}},
    }
}


def thinking(model: str, **config: Any) -> Any:
    generation = {"generationConfig": {"thinkingConfig": config}} if config else {}
    return {"setup": {"model": f"models/{model}", **generation}}


def blob(pcm: bytes = tone(0.5, 16_000), mime_type: str = "audio/pcm;rate=16000") -> Any:
    return {"realtimeInput": {"audio": {"data": base64.b64encode(pcm).decode(), "mimeType": mime_type}}}


def google(*messages: Any, replies: Any = (), pace: Pace = Pace()) -> GoogleSession:  # noqa: B008
    session = GoogleDouble(replies, pace=pace).open(GOOGLE)
    say(session, *messages)
    return session


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        (["not json"], 1007, "Invalid JSON"),
        ([blob()], 1007, "setup must be the first"),
        ([SETUP, SETUP], 1007, "setup must be the first"),
        ([{"setup": {"model": "gemini"}}], 1008, "is not found"),
        (
            [{"setup": {"model": "models/m", "temperature": 1}}],
            1007,
            "Unknown name \"temperature\" at 'setup'",
        ),
        ([{"surprise": {}}], 1007, 'Unknown name "surprise": Cannot find field.'),
        (
            [{"setup": {"model": "models/m", "generationConfig": {"responseModalities": ["TEXT"]}}}],
            1007,
            "non-audio",
        ),
        ([thinking("gemini-3.8-live-extended-thinking")], 1007, "level is required"),
        ([thinking("gemini-3.8-live-extended-thinking", thinkingLevel="MINIMAL")], 1007, "MINIMAL is not"),
        ([thinking("gemini-3.8-live", thinkingLevel="LOW")], 1007, "Thinking is not supported"),
        ([{"setup": {"model": "models/m", "sessionResumption": {"handle": "old"}}}], 1008, "not found"),
        ([{"setup": {"model": "models/m", "sessionResumption": {"handle": None}}}], 1008, "not found"),
        (
            [
                {
                    "setup": {
                        "model": "models/m",
                        "tools": [
                            {
                                "functionDeclarations": [
                                    {
                                        "name": "f",
                                        "parameters": {
                                            "type": "OBJECT",
                                            "properties": {"additionalProperties": {"$ref": "x"}},
                                        },
                                    }
                                ]
                            }
                        ],
                    }
                }
            ],
            1007,
            'Unknown name "$ref"',
        ),
        ([SETUP, {"realtimeInput": {"activityStart": {}}}], 1007, "Explicit activity control"),
        ([SETUP, {"realtimeInput": {"video": {}}}], 1007, "invalid argument"),
        ([SETUP, {"realtimeInput": {"mediaChunks": []}}], 1007, "Unknown name"),
        ([SETUP, blob(mime_type="audio/wav")], 1007, "invalid argument"),
        ([SETUP, blob(b"")], 1007, "invalid argument"),
        (
            [SETUP, {"toolResponse": {"functionResponses": [{"id": "x", "name": "f", "response": {}}]}}],
            1008,
            "Requested entity was not found.",
        ),
        (
            [SETUP, {"toolResponse": {"functionResponses": [{"id": "x", "name": "f", "response": "yes"}]}}],
            1007,
            "Invalid value",
        ),
    ],
)
def test_every_refusal_of_gemini_is_a_close(messages: list[Any], code: int, reason: str) -> None:
    session = google(*messages)
    assert session.closed is not None
    assert session.closed[0] == code
    assert reason in session.closed[1]


@pytest.mark.parametrize(
    ("request_", "closed"),
    [
        (GOOGLE, None),
        (Request("/ws/x?key=test-key"), None),
        (Request("/ws/x?access_token=test-key"), None),
        (Request("/ws/x", (("authorization", "Token test-key"),)), None),
        (Request("/ws/x", (("authorization", "Bearer test-key"),)), None),
        (Request("/ws/x", (("x-goog-api-key", "other"),)), 1007),
        (Request("/ws/x"), 1008),
    ],
)
def test_who_gets_in_to_gemini(request_: Request, closed: int | None) -> None:
    double = GoogleDouble()
    assert double.judge(request_) is None
    session = double.open(request_)
    assert (session.closed and session.closed[0]) == closed


def test_snake_case_is_as_good() -> None:
    config = {"automatic_activity_detection": {"disabled": True}}
    session = google({"setup": {"model": "models/m", "realtime_input_config": config}})
    say(session, {"realtime_input": {"activity_start": {}}})
    assert session.closed is None
    assert session.setup["realtimeInputConfig"] == {"automaticActivityDetection": {"disabled": True}}


def test_audio_outside_of_a_turn_is_not_heard() -> None:
    session = google(MANUAL, blob(), {"realtimeInput": {"activityEnd": {}}})
    assert session.sent == [{"setupComplete": {}}]
    say(session, {"realtimeInput": {"activityStart": {}}}, blob(), {"realtimeInput": {"activityEnd": {}}})
    session.advance(5.0)
    assert "turnComplete" in session.sent[-1]["serverContent"]


def test_the_end_of_the_stream_ends_a_turn() -> None:
    session = google(SETUP, blob())
    end = {"realtimeInput": {"audioStreamEnd": True}}
    assert say(session, end)
    session.advance(5.0)
    assert say(session, end) == []


def test_a_change_of_rate_begins_anew() -> None:
    session = google(SETUP, blob(), blob(bytes(48_000), "audio/pcm;rate=24000"))
    assert session.sent[-1].keys() == {"sessionResumptionUpdate"}  # the speech of the old rate never ended


def test_text_and_content_are_answered() -> None:
    session = google(SETUP, {"realtimeInput": {"text": "Hello"}})
    session.advance(5.0)
    answers = len(session.sent)
    say(session, {"clientContent": {"turns": [], "turnComplete": True}})
    session.advance(10.0)
    assert len(session.sent) > answers


def test_content_that_only_interrupts() -> None:
    session = google(
        SETUP, {"realtimeInput": {"text": "Hello"}}, replies=[Say("x", 5.0)], pace=Pace(speed=1.0)
    )
    interrupted, over, _ = say(session, {"clientContent": {"turnComplete": False}})
    assert interrupted == {"serverContent": {"interrupted": True}}
    assert over["serverContent"] == {"turnComplete": True}


def test_no_interruption_where_none_is_wanted() -> None:
    config = {"activityHandling": "NO_INTERRUPTION"}
    setup = {"setup": {"model": "models/m", "realtimeInputConfig": config}}
    session = google(setup, {"realtimeInput": {"text": "Hello"}}, replies=[Say("x", 5.0)], pace=SLOW)
    assert say(session, blob()) == []


def test_an_interruption_of_audio_that_is_still_played() -> None:
    session = google(SETUP, {"realtimeInput": {"text": "Hello"}}, replies=[Say("x", 5.0)])
    session.advance(2.0)
    assert "turnComplete" in session.sent[-2]["serverContent"]
    session.receive(json.dumps(blob()), 2.0)
    assert session.sent[-1] == {"serverContent": {"interrupted": True}}
    session.receive(json.dumps(blob(bytes(32_000))), 10.0)


def said_by(session: GoogleSession) -> str:
    contents = [message.get("serverContent", {}) for message in session.sent]
    return "".join(content.get("outputTranscription", {}).get("text", "") for content in contents)


def test_a_turn_that_ends_while_another_is_answered_has_its_answer_after_that() -> None:
    setup = {**SETUP["setup"], "outputAudioTranscription": {}}
    setup["realtimeInputConfig"] = {"activityHandling": "NO_INTERRUPTION"}
    session = google({"setup": setup}, replies=[Say("first.", 1.0), Say("second.", 1.0)])
    say(session, {"realtimeInput": {"text": "Hello"}}, blob(), blob(bytes(32_000)))
    session.advance(5.0)
    assert said_by(session) == "first.second."


def test_results_that_come_while_the_model_speaks_are_answered_after_that() -> None:
    setup = {"setup": {**SETUP["setup"], "outputAudioTranscription": {}}}
    replies = [[CallTools([("f", {})]), Say("Let me look.", 1.0)], Say("Found.", 0.2)]
    session = google(setup, {"realtimeInput": {"text": "Hello"}}, replies=replies)
    answer = {"id": "function-call-1", "name": "f", "response": {}}
    say(session, {"toolResponse": {"functionResponses": [answer]}})
    session.advance(5.0)
    assert said_by(session) == "Let me look.Found."


def test_the_name_of_a_result_counts() -> None:
    session = google(SETUP, {"realtimeInput": {"text": "Hello"}}, replies=[CallTools([("get_weather", {})])])
    answer = {"id": "function-call-1", "name": "other", "response": {}}
    say(session, {"toolResponse": {"functionResponses": [answer]}})
    assert session.closed == (1007, "Request contains an invalid argument.")


def test_speech_takes_back_calls() -> None:
    session = google(SETUP, {"realtimeInput": {"text": "Hello"}}, replies=[CallTools([("get_weather", {})])])
    taken_back = say(session, blob())
    assert {"toolCallCancellation": {"ids": ["function-call-1"]}} in taken_back
    assert session.cancelled == {"function-call-1"}
    answer = {"id": "function-call-1", "name": "get_weather", "response": {}}
    say(session, {"toolResponse": {"functionResponses": [answer]}})
    assert session.closed == (1008, "Requested entity was not found.")


def test_going_away_and_coming_back() -> None:
    double = GoogleDouble([[GoAway(10.0), Say("x", 0.1)]])
    session = double.open(GOOGLE)
    say(session, SETUP, {"realtimeInput": {"text": "Hello"}})
    assert {"goAway": {"timeLeft": "10s"}} in session.sent
    session.advance(9.0)
    handle = session.sent[-1]["sessionResumptionUpdate"]["newHandle"]
    before = session.closed
    session.advance(10.0)
    after = (1001, "Deadline expired before operation could complete.")
    assert [before, session.closed] == [None, after]
    again = double.open(GOOGLE)
    say(again, {"setup": {"model": "models/m", "sessionResumption": {"handle": handle}}})
    assert again.resumed_from == handle
    before = again.closed
    again.expire()
    assert [before, again.closed] == [None, after]


# Texts, images, what is to be said


def item(*content: Any, role: str = "user", kind: str = "message") -> Any:
    return {
        "type": "conversation.item.create",
        "item": {"type": kind, "role": role, "content": list(content)},
    }


PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    "message",
    [
        item(),
        item({"type": "input_text", "text": ""}),
        item({"type": "output_text", "text": "x"}),
        item({"type": "input_text", "text": "x"}, role="assistant"),
        item({"type": "input_text", "text": "x"}, role="nobody"),
        item({"type": "input_image", "image_url": PNG}, role="system"),
        item({"type": "input_image", "image_url": "https://x.test/a.png"}),
        item({"type": "input_image", "image_url": PNG.replace("png", "webp")}),
        item({"type": "output_text", "text": "x"}, kind="force_message"),
    ],
)
def test_openai_refuses_items_that_are_not_as_documented(message: Any) -> None:
    session = OpenAIDouble().open(OPENAI)
    assert error(session, message)["code"] in ("invalid_value", "missing_required_parameter")
    assert session.items == []


@pytest.mark.parametrize(
    ("session", "problem"),
    [
        ({"output_modalities": ["audio", "text"]}, "supported combinations"),
        ({"truncation": {"type": "retention_ratio", "retention_ratio": 2}}, "retention_ratio"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "Tool choice 'f' not found"),
        (
            {"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper", "keywords": ["x"]}}}},
            "Keywords is not supported",
        ),
        (
            {"audio": {"input": {"transcription": {"model": "gpt-live-transcribe", "delay": "low"}}}},
            "Delay is not supported",
        ),
    ],
)
def test_openai_refuses_options_that_do_not_fit(session: Any, problem: str) -> None:
    assert problem in error(OpenAIDouble().open(OPENAI), update(**session))["message"]


@pytest.mark.parametrize(
    ("audio", "rest"),
    [
        ({"input": {"transcription": {"keyterms": ["x" * 51]}}}, {}),
        ({"input": {"transcription": {"keyterms": ["x"] * 101}}}, {}),
        ({"output": {"speed": 0.5}}, {}),
        ({}, {"reasoning": {"effort": "low"}}),
    ],
)
def test_xai_refuses_options_out_of_range(audio: Any, rest: Any) -> None:
    session = XAIDouble().open(XAI)
    message = {"type": "session.update", "session": {"audio": audio, **rest}}
    assert error(session, message)["type"] == "invalid_event"


def test_xai_says_one_thing_at_a_time_and_takes_no_images() -> None:
    session = XAIDouble([Say("x", 5.0)], pace=SLOW).open(XAI)
    greeting = item({"type": "output_text", "text": "Good morning!"}, kind="force_message", role="assistant")
    empty = item(kind="force_message", role="assistant")
    assert error(session, empty)["message"] == "force_message needs a text"
    say(session, greeting)
    assert session.response is not None
    assert "already has an active response" in error(session, greeting)["message"]
    assert "input_image" in error(session, item({"type": "input_image", "image_url": PNG}))["message"]
    session.advance(60.0)
    spoken = [event["transcript"] for event in session.sent if event["type"].endswith("transcript.done")]
    assert spoken == ["Good morning!"]
    assert session.items == [greeting["item"]]
