"""Texts, images, `respond`, `say` and updates: what is sent, and what waits for what."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from speko_anyio.protocol import (
    Close,
    ConnectionClosed,
    ErrorFrame,
    Interruption,
    LocalProtocolError,
    Ready,
    ResponseEnd,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol._commands import Update
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers import codes
from speko_anyio.providers._provider import SAY_EXACTLY
from speko_anyio.providers.openai import OpenAIOptions, ServerTool, ServerVad
from speko_anyio.providers.realtime._gate import MAX_PROMPTS
from speko_anyio.providers.realtime._tools import MAX_DESCRIPTION
from speko_anyio.providers.xai import XAIOptions

from .realtime_talk import (
    COMMITTED,
    MANUAL,
    OPENAI,
    SPEECH_STARTED,
    SPEECH_STOPPED,
    WEATHER,
    XAI_MANUAL,
    Event,
    Talk,
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

PNG = b"\x89PNG\r\n\x1a\n"
BOTH = pytest.mark.parametrize("make", [openai, xai])


def text(role: str, words: str) -> Event:
    """The item that a text becomes."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": words}]}


def items(talk: Talk[Any]) -> list[Event]:
    return [message["item"] for message in talk.sent()]


def speaking(make: Any, *, seconds: float = 0.0) -> Talk[Any]:
    """The assistant speaks, and has been heard for so long."""
    talk: Talk[Any] = make().make_ready()
    talk.dialect.playback.clock(0.0)
    talk.hear(created("r1"), speech("r1", "a1", 2000))
    talk.dialect.playback.clock(seconds)
    return talk


# Texts


@BOTH
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_text_is_context_in_any_role(make: Any, role: Any) -> None:
    talk = speaking(make)
    talk.dialect.send_text("Paris", role=role, respond=False)
    assert items(talk) == [text(role, "Paris")]
    assert talk.frames() == []


@BOTH
def test_a_text_of_the_user_is_answered_and_others_are_not(make: Any) -> None:
    talk = make().make_ready()
    talk.dialect.send_text("In French, please.", role="system")
    talk.dialect.send_text("Hello!")
    assert talk.sent_types() == ["conversation.item.create"] * 2 + ["response.create"]
    talk.hear(created("r1", {}), done("r1"))
    talk.dialect.send_text("Go on.", role="system", respond=True)
    assert talk.sent_types() == ["conversation.item.create", "response.create"]


@BOTH
def test_a_text_of_the_user_cuts_in_as_speech_does(make: Any) -> None:
    talk = speaking(make, seconds=0.5)
    talk.dialect.send_text("Stop. What time is it?")
    sent = talk.sent()
    assert [message["type"] for message in sent] == [
        "response.cancel",
        "conversation.item.truncate",
        "conversation.item.create",
    ]
    assert sent[1]["audio_end_ms"] == 500
    assert talk.frames() == [Interruption("user")]
    ended = talk.hear(
        done("r1", "cancelled", status_details={"type": "cancelled", "reason": "client_cancelled"})
    )
    assert ended[-1].status == "interrupted"  # type: ignore[union-attr]
    assert talk.sent_types() == ["response.create"]


@BOTH
def test_a_text_cuts_off_what_is_generated_and_not_yet_heard(make: Any) -> None:
    talk = speaking(make, seconds=0.5)
    talk.hear(done("r1"))
    talk.dialect.send_text("Wait!")
    assert talk.sent_types() == ["conversation.item.truncate", "conversation.item.create", "response.create"]
    assert talk.frames() == [Interruption("user")]


def test_a_text_that_follows_a_request_gets_an_answer_of_its_own() -> None:
    talk = openai(MANUAL).make_ready()
    talk.dialect.send_text("What is the time?")
    first = talk.sent()[-1]
    talk.dialect.send_text("In Paris, I mean.")
    assert talk.sent_types() == ["conversation.item.create"]
    talk.hear(granted(first, "r1"))
    assert talk.sent_types() == ["response.cancel"]
    talk.hear(done("r1", "cancelled"))
    assert talk.sent_types() == ["response.create"]


@BOTH
def test_a_text_while_the_user_speaks_is_answered_with_their_speech(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_text("My address is 1 Main Street.")
    (item,) = items(talk)
    talk.hear({"type": "conversation.item.added", "item": item})
    talk.hear(SPEECH_STOPPED, COMMITTED, created("r1"), done("r1"))
    assert talk.sent() == []


def test_a_picture_that_was_refused_is_waited_for_no_more() -> None:
    talk = openai().make_ready()
    talk.dialect.send_image(b"no image", mime_type="image/png")
    (picture,) = talk.sent()
    talk.hear(error("invalid_value", "The image is not valid.", event_id=picture["event_id"]))
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_text("My address is 1 Main Street.")
    (item,) = items(talk)
    talk.hear({"type": "conversation.item.added", "item": item})
    talk.hear(SPEECH_STOPPED, COMMITTED, created("r1"), done("r1"))
    assert talk.sent() == []


@BOTH
def test_a_text_that_came_too_late_for_an_answer_gets_another(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_text("My address is 1 Main Street.")
    (item,) = items(talk)
    talk.hear(SPEECH_STOPPED, COMMITTED, created("r1"))
    talk.hear({"type": "conversation.item.added", "item": item}, done("r1"))
    assert talk.sent_types() == ["response.create"]


def test_a_text_whose_request_meets_another_response_is_answered_after_it() -> None:
    talk = openai().make_ready()
    talk.dialect.send_text("Hello!")
    request = talk.sent()[-1]
    talk.hear(created("r1"), refusal(request, "r1"), done("r1"))
    assert talk.sent_types() == ["response.create"]


@BOTH
def test_the_tools_of_a_response_that_a_text_cuts_off_are_abandoned(make: Any) -> None:
    talk = make().make_ready()
    made = xai_call if make is xai else call
    talk.hear(created("r1"), made("r1", "c1"), speech("r1", "a1", 500))
    talk.dialect.send_text("Never mind.")
    talk.sent()
    talk.dialect.send_tool_result("c1", "{}")
    assert talk.sent_types() == ["conversation.item.create"]
    talk.hear(done("r1", "cancelled"))
    assert talk.sent_types() == ["response.create"]


@BOTH
@pytest.mark.parametrize("value", ["\ud800", ""])
def test_a_text_that_can_not_be_sent_changes_nothing(make: Any, value: str) -> None:
    talk = speaking(make)
    for verb in (talk.dialect.send_text, talk.dialect.say):
        with pytest.raises(LocalProtocolError):
            verb(value)
    assert (talk.sent(), talk.frames()) == ([], [])
    assert talk.dialect.responding


@BOTH
def test_a_full_outbox_refuses_a_text_and_nothing_is_cut_off(make: Any) -> None:
    talk = speaking(make)
    talk.dialect.outbox.limit = 0
    for verb in (talk.dialect.send_text, talk.dialect.interrupt):
        with pytest.raises(LocalProtocolError, match="outbox"):
            verb(*["Hello!"] if verb == talk.dialect.send_text else [])
    assert talk.frames() == []


# Images


def test_an_image_is_an_item_of_the_user() -> None:
    talk = openai().make_ready()
    talk.dialect.send_image(PNG, mime_type="image/png")
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert items(talk) == [
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]}
    ]
    talk.dialect.send_image(PNG, mime_type="image/jpeg", respond=True)
    assert talk.sent_types() == ["conversation.item.create", "response.create"]


def test_images_that_are_refused() -> None:
    talk = openai().make_ready()
    with pytest.raises(LocalProtocolError, match="OpenAI Realtime takes PNG and JPEG images only"):
        talk.dialect.send_image(PNG, mime_type="image/webp")
    with pytest.raises(LocalProtocolError, match="xAI Grok Voice takes no images"):
        xai().make_ready().dialect.send_image(PNG, mime_type="image/png")
    assert talk.sent() == []


# Respond


@BOTH
def test_respond_has_the_assistant_speak_now(make: Any) -> None:
    talk = make().make_ready()
    talk.dialect.respond()
    (request,) = talk.sent()
    assert request["type"] == "response.create"
    assert "instructions" not in request.get("response", {})


@BOTH
def test_respond_waits_for_the_response_in_flight(make: Any) -> None:
    talk = speaking(make)
    talk.dialect.respond()
    talk.dialect.respond()
    assert (talk.sent(), talk.frames()) == ([], [])
    talk.hear(done("r1"))
    assert talk.sent_types() == ["response.create"]
    talk.hear(created("r2", {}), done("r2"))
    assert talk.sent() == []


@BOTH
def test_an_answer_to_the_user_meets_a_respond_without_instructions(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.respond()
    assert talk.sent() == []
    talk.hear(SPEECH_STOPPED, COMMITTED, created("r1"), done("r1"))
    assert talk.sent() == []


@BOTH
def test_respond_is_asked_for_when_nobody_answers_the_user(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.respond()
    talk.hear(SPEECH_STOPPED, COMMITTED)
    talk.wait(4.9)
    assert talk.sent() == []
    talk.wait(0.2)
    assert talk.sent_types() == ["response.create"]


@pytest.mark.parametrize(
    ("prompt", "whole"),
    [("You are a pirate.", "You are a pirate.\n\nGreet the user."), (None, "Greet the user.")],
)
def test_instructions_come_beside_the_system_prompt(prompt: str | None, whole: str) -> None:
    for make, provider in ((openai, "openai"), (xai, "xai")):
        config = SessionConfig(provider=provider, model="m", system_prompt=prompt)
        talk: Talk[Any] = make(config=config).make_ready()
        talk.dialect.respond("Greet the user.")
        (request,) = talk.sent()
        assert request["response"]["instructions"] == whole
        assert "tool_choice" not in request["response"]


@BOTH
def test_instructions_follow_the_system_prompt_of_an_update(make: Any) -> None:
    talk = make().make_ready()
    talk.dialect.update(Update(system_prompt="You are a judge."))
    talk.dialect.respond("Open the trial.")
    assert talk.sent()[-1]["response"]["instructions"] == "You are a judge.\n\nOpen the trial."


# Say


def test_openai_is_told_what_to_say_and_calls_no_tool_for_it() -> None:
    talk = openai().make_ready()
    talk.dialect.say("Good morning!")
    (request,) = talk.sent()
    assert request["response"]["instructions"] == SAY_EXACTLY + "Good morning!"
    assert request["response"]["tool_choice"] == "none"
    assert request["response"]["metadata"] == {"client_event_id": request["event_id"]}


def test_xai_says_it_without_the_model() -> None:
    talk = xai().make_ready()
    talk.dialect.say("Good morning!")
    assert items(talk) == [
        {
            "type": "force_message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Good morning!"}],
        }
    ]
    frames = talk.hear(created("r1"), words("r1", "a1", "Good morning!"), speech("r1", "a1", 100), done("r1"))
    assert frames[-1] == ResponseEnd("done")
    talk.wait(10.0)
    assert (talk.sent(), talk.frames()) == ([], [])


def test_what_xai_says_counts_as_asked_for_whatever_its_metadata() -> None:
    talk = xai().make_ready()
    talk.dialect.respond()
    talk.hear(created("r1", {}), done("r1"))
    talk.dialect.say("Good morning!")
    talk.hear(created("r2"), speech("r2", "a2", 100), done("r2"))
    talk.sent()
    assert talk.wait(10.0) == []
    assert talk.dialect.at_rest


def said(message: Event) -> str:
    """What a message of ours has the assistant say or do."""
    if "item" in message:
        return str(message["item"]["content"][0]["text"])
    return str(message.get("response", {}).get("instructions", "answer")).removeprefix(SAY_EXACTLY)


@BOTH
def test_what_is_to_be_said_keeps_its_order_and_the_answers_theirs(make: Any) -> None:
    talk = speaking(make)
    talk.dialect.say("one")
    talk.dialect.respond("two")
    talk.dialect.respond()
    talk.dialect.say("three")
    order = []
    for number in range(2, 7):
        talk.hear(done(f"r{number - 1}"))
        sent = talk.sent()
        order += [said(message) for message in sent]
        talk.hear(
            *(
                granted(m, f"r{number}") if "metadata" in m.get("response", {}) else created(f"r{number}", {})
                for m in sent
            )
        )
    assert order == ["one", "two", "answer", "three"]


@BOTH
def test_results_of_tools_keep_their_own_request(make: Any) -> None:
    talk = make().make_ready()
    made = xai_call if make is xai else call
    talk.hear(created("r1"), made("r1", "c1"))
    talk.dialect.say("One moment.")
    assert talk.sent() == []
    talk.hear(done("r1"))
    (first,) = talk.sent()
    assert said(first) == "One moment."
    talk.hear(created("r2", first.get("response", {}).get("metadata")), speech("r2", "a2", 100))
    talk.dialect.send_tool_result("c1", "{}")
    assert [message["item"]["type"] for message in talk.sent()] == ["function_call_output"]
    talk.hear(done("r2"))
    assert [said(message) for message in talk.sent()] == ["answer"]


@BOTH
def test_the_provider_s_answer_to_the_user_comes_first(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED)
    talk.dialect.say("By the way.")
    assert talk.sent() == []
    talk.hear(created("r1"), speech("r1", "a1", 100))
    talk.wait(6.0)
    assert talk.sent() == []
    talk.hear(done("r1"))
    assert [said(message) for message in talk.sent()] == ["By the way."]


@BOTH
def test_what_is_to_be_said_does_not_wait_for_an_answer_that_never_comes(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED)
    talk.dialect.say("Hello?")
    talk.wait(5.1)
    assert [said(message) for message in talk.sent()] == ["Hello?"]


@pytest.mark.parametrize("make", [lambda: openai(MANUAL), lambda: xai(XAI_MANUAL)])
def test_nobody_waits_for_the_provider_where_turns_are_manual(make: Any) -> None:
    talk = make().make_ready()
    talk.dialect.send_audio(pcm(200))
    talk.dialect.commit()
    talk.sent()
    talk.hear(COMMITTED, created("r1", {}), done("r1"))
    talk.dialect.say("That is all.")
    assert [said(message) for message in talk.sent()] == ["That is all."]


@BOTH
def test_the_user_who_cuts_in_does_not_lose_what_is_to_be_said(make: Any) -> None:
    talk = speaking(make)
    talk.dialect.say("This call is recorded.")
    talk.hear(SPEECH_STARTED, done("r1", "cancelled"))
    assert talk.sent_types() == ["conversation.item.delete"]
    talk.hear(SPEECH_STOPPED, COMMITTED, created("r2"), done("r2"))
    assert [said(message) for message in talk.sent()] == ["This call is recorded."]


@BOTH
def test_interrupt_silences_what_is_to_be_said_too(make: Any) -> None:
    talk = speaking(make)
    talk.dialect.say("one")
    talk.dialect.respond("two")
    talk.dialect.interrupt()
    talk.sent()
    talk.hear(done("r1", "cancelled"))
    assert talk.sent() == []
    assert talk.dialect.at_rest


def test_a_refused_say_is_said_later() -> None:
    talk = openai().make_ready()
    talk.dialect.say("Hello!")
    (request,) = talk.sent()
    talk.hear(refusal(request, "r9"), created("r9"))
    talk.hear(done("r9"))
    assert [said(message) for message in talk.sent()] == ["Hello!"]


def test_a_refused_force_message_is_said_later() -> None:
    talk = xai().make_ready()
    talk.dialect.say("Hello!")
    talk.sent()
    message = "Conversation already has an active response in progress: r9."
    talk.hear(error(None, message, type="invalid_request_error"), done("r9"))
    assert [said(message) for message in talk.sent()] == ["Hello!"]


@BOTH
def test_only_so_much_waits_to_be_said(make: Any) -> None:
    talk = speaking(make)
    for number in range(MAX_PROMPTS):
        talk.dialect.say(f"{number}")
    for verb in (talk.dialect.say, talk.dialect.respond):
        with pytest.raises(LocalProtocolError, match=f"{MAX_PROMPTS} responses wait to be spoken already"):
            verb("too much")
    talk.hear(done("r1"))
    assert [said(message) for message in talk.sent()] == ["0"]


# Updates


TOOL = ToolSpec(name="end_call", description="Hang up")
SENT_TOOL = {
    "type": "function",
    "name": "end_call",
    "description": "Hang up",
    "parameters": {"type": "object", "properties": {}},
}


def test_openai_gets_what_changed_and_no_more() -> None:
    talk = openai().make_ready()
    for update, changed in (
        (Update(system_prompt=""), {"instructions": ""}),
        (Update(tools=(TOOL,)), {"tools": [SENT_TOOL]}),
        (Update(tools=()), {"tools": []}),
        (Update(voice="cedar"), {"audio": {"output": {"voice": "cedar"}}}),
        (Update(voice="voice_1"), {"audio": {"output": {"voice": {"id": "voice_1"}}}}),
        (Update(turns="manual"), {"audio": {"input": {"turn_detection": None}}}),
    ):
        talk.dialect.update(update)
        (message,) = talk.sent()
        assert message["session"] == {"type": "realtime", **changed}


def test_xai_gets_what_changed_and_no_more() -> None:
    talk = xai().make_ready()
    detection = {
        "type": "server_vad",
        "threshold": 0.85,
        "prefix_padding_ms": 333,
        "silence_duration_ms": 500,
    }
    for update, changed in (
        (Update(system_prompt="Be kind.", voice="rex"), {"instructions": "Be kind.", "voice": "rex"}),
        (Update(tools=(TOOL,)), {"tools": [SENT_TOOL]}),
        (Update(turns="manual"), {"turn_detection": {"type": None}}),
        (Update(turns="auto"), {"turn_detection": detection}),
    ):
        talk.dialect.update(update)
        (message,) = talk.sent()
        assert message["session"] == changed


def test_the_tools_of_the_provider_stay() -> None:
    mcp = ServerTool("mcp", {"server_label": "docs"})
    for talk in (openai(OpenAIOptions(server_tools=(mcp,))), xai(XAIOptions(server_tools=(mcp,)))):
        talk.make_ready()
        talk.dialect.update(Update(tools=(TOOL,)))
        assert [tool["type"] for tool in talk.sent()[0]["session"]["tools"]] == ["function", "mcp"]


@BOTH
def test_notes_on_changes_do_not_pile_up(make: Any) -> None:
    talk = make().make_ready()
    for number in range(200):
        long = ToolSpec(name=f"f{number % 100}", description="x" * (MAX_DESCRIPTION + 1))
        talk.dialect.update(Update(tools=(long,)))
    assert any("'f0'" in note for note in talk.dialect.notes)
    assert len(talk.dialect.notes) < 60


def test_openai_locks_the_voice_once_the_assistant_has_spoken() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), call("r1", "c1"), done("r1"))
    talk.dialect.update(Update(voice="cedar"))
    talk.hear(created("r2"), speech("r2", "a1", 100), done("r2"))
    talk.sent()
    with pytest.raises(LocalProtocolError, match="can't change voice once the assistant has spoken"):
        talk.dialect.update(Update(system_prompt="x", voice="marin"))
    assert talk.sent() == []
    other = xai().make_ready()
    other.hear(created("r2"), speech("r2", "a1", 100), done("r2"))
    other.dialect.update(Update(voice="rex"))
    assert other.sent()[0]["session"] == {"voice": "rex"}


@BOTH
def test_tools_that_can_not_be_used_change_nothing(make: Any) -> None:
    talk = make().make_ready()
    before = talk.dialect.notes
    for tools in ((TOOL, TOOL), (ToolSpec(name="f", parameters={"type": "string"}),)):
        with pytest.raises(LocalProtocolError):
            talk.dialect.update(Update(system_prompt="x", tools=tools))
    assert talk.sent() == []
    assert talk.dialect.notes == before
    talk.dialect.respond("Go.")
    assert talk.sent()[0]["response"]["instructions"] == "Go."


@BOTH
def test_turns_become_manual_and_automatic_again(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.send_audio(pcm(300))
    talk.dialect.update(Update(turns="manual"))
    talk.hear({"type": "session.updated", "session": {}})
    talk.hear(SPEECH_STARTED)  # from before the change
    talk.sent()
    talk.dialect.commit()
    assert talk.sent_types() == ["input_audio_buffer.commit", "response.create"]
    talk.hear(COMMITTED, created("r1", {}), done("r1"))
    talk.dialect.update(Update(turns="auto"))
    talk.dialect.send_audio(pcm(300))
    talk.sent()
    talk.dialect.commit()
    assert set(talk.sent_types()) == {"input_audio_buffer.append"}  # silence, for the turn detection


@BOTH
def test_speech_from_before_turns_became_manual_still_cuts_in(make: Any) -> None:
    talk = speaking(make)
    talk.dialect.update(Update(turns="manual"))
    assert talk.hear(SPEECH_STARTED) == [Interruption("user")]
    talk.hear({"type": "session.updated", "session": {}})
    talk.wait(5.1)  # xAI does not report the end of that response
    assert not talk.dialect.responding
    talk.hear(created("r2"), speech("r2", "a2", 1000))
    assert talk.hear(SPEECH_STARTED) == []


@BOTH
def test_nothing_waits_for_the_end_of_speech_once_turns_are_manual(make: Any) -> None:
    talk = make().make_ready()
    talk.hear(SPEECH_STARTED)
    talk.dialect.say("Hello!")
    assert talk.sent() == []
    talk.dialect.update(Update(turns="manual"))
    update, request = talk.sent()
    assert update["type"] == "session.update"
    assert said(request) == "Hello!"


def test_a_change_that_openai_refuses_is_told_and_undone() -> None:
    talk = openai().make_ready()
    talk.dialect.update(Update(system_prompt="You are a judge.", turns="manual"))
    (update,) = talk.sent()
    refused = error("invalid_value", "No.", event_id=update["event_id"])
    assert talk.hear(refused) == [ErrorFrame(codes.REFUSED["update"], "No.")]
    talk.dialect.send_audio(pcm(300))
    talk.sent()
    talk.dialect.commit()
    assert set(talk.sent_types()) == {"input_audio_buffer.append"}
    talk.dialect.respond("Go.")
    assert talk.sent()[0]["response"]["instructions"] == "Go."
    assert talk.hear(refused) == [ErrorFrame("invalid_value", "No.")]


def test_a_change_that_xai_refuses_is_told_and_undone() -> None:
    talk = xai(XAI_MANUAL).make_ready()
    talk.dialect.update(Update(turns="auto"))
    talk.sent()
    refused = error(None, "invalid tools", type="invalid_event")
    assert talk.hear(refused) == [ErrorFrame(codes.REFUSED["update"], "invalid tools")]
    talk.dialect.send_audio(pcm(300))
    talk.dialect.commit()
    assert talk.sent_types()[1:] == ["input_audio_buffer.commit", "response.create"]
    talk.dialect.update(Update(turns="auto"))
    talk.hear({"type": "session.updated", "session": {}})
    assert talk.hear(refused) == [ErrorFrame("invalid_event", "invalid tools")]


# Before the provider is ready


@BOTH
def test_everything_keeps_its_place_until_the_provider_is_ready(make: Any) -> None:
    talk = make()
    dialect = talk.dialect
    dialect.send_text("We met in Rome.", role="system")
    dialect.send_audio(pcm(40))
    dialect.update(Update(system_prompt="Be brief."))
    dialect.send_audio(pcm(60))
    dialect.say("Hello!")
    dialect.respond("Ask for a name.")
    assert talk.sent() == []
    talk.hear({"type": "session.created"})
    talk.sent()
    assert talk.hear({"type": "session.updated", "session": {}}) == [Ready(24_000, 24_000)]
    sent = talk.sent()
    assert [message["type"] for message in sent[:4]] == [
        "conversation.item.create",
        "input_audio_buffer.append",
        "session.update",
        "input_audio_buffer.append",
    ]
    assert [said(message) for message in sent[4:]] == ["Hello!"]
    talk.hear(created("r1", sent[4].get("response", {}).get("metadata")), done("r1"))
    assert [said(message) for message in talk.sent()] == ["Be brief.\n\nAsk for a name."]


@BOTH
def test_what_can_not_be_had_is_refused_before_the_provider_is_ready(make: Any) -> None:
    talk = make()
    with pytest.raises(LocalProtocolError, match="two tools"):
        talk.dialect.update(Update(tools=(TOOL, TOOL)))
    with pytest.raises(LocalProtocolError):
        talk.dialect.send_image(PNG, mime_type="image/webp")
    talk.make_ready()
    assert talk.sent() == []


@BOTH
def test_only_so_much_is_held(make: Any) -> None:
    talk = make()
    for _ in range(8):
        talk.dialect.send_text("x" * 1_000_000, respond=False)
    with pytest.raises(LocalProtocolError, match="no more can be held"):
        talk.dialect.send_text("x" * 1_000_000, respond=False)
    talk.make_ready()
    assert len(talk.sent()) == 8


# Text instead of speech


def test_openai_writes_instead_of_speaking() -> None:
    talk = openai(config=SessionConfig(provider="openai", model="gpt-realtime-2.1", output="text"))
    talk.hear({"type": "session.created"})
    assert talk.sent()[0]["session"]["output_modalities"] == ["text"]
    talk.hear({"type": "session.updated", "session": {}})
    delta = {"type": "response.output_text.delta", "response_id": "r1", "item_id": "a1", "delta": "Hi"}
    whole = {"type": "response.output_text.done", "response_id": "r1", "item_id": "a1", "text": "Hi there."}
    assert talk.hear(created("r1"), delta, whole, done("r1")) == [
        Transcript("assistant", "Hi", False),
        Transcript("assistant", "Hi there.", True),
        ResponseEnd("done"),
    ]


def test_xai_always_speaks() -> None:
    with pytest.raises(LocalProtocolError, match='xAI Grok Voice always speaks, so it has no output="text"'):
        xai(config=SessionConfig(provider="xai", model="grok-voice-latest", output="text"))


# Usage


def test_the_whole_usage_is_told() -> None:
    talk = openai().make_ready()
    spent = {
        "input_token_details": {
            "audio_tokens": 1,
            "text_tokens": 2,
            "image_tokens": 3,
            "cached_tokens": 9,
            "cached_tokens_details": {"audio_tokens": 4, "text_tokens": 5, "image_tokens": 0},
        },
        "output_token_details": {"audio_tokens": 6, "text_tokens": 7, "reasoning_tokens": 8},
    }
    assert talk.hear(done("r1", usage=spent))[0] == Usage(
        input_audio_tokens=1,
        output_audio_tokens=6,
        input_text_tokens=2,
        output_text_tokens=7,
        input_image_tokens=3,
        cached_audio_tokens=4,
        cached_text_tokens=5,
        output_reasoning_tokens=8,
    )


@pytest.mark.parametrize(
    ("spent", "seconds"),
    [
        ({"output_audio_seconds": 1.5}, 1.5),
        ({"output_audio_seconds": 1.5, "billable_audio_seconds": 4}, 4.0),
        ({"billable_audio_seconds": -1}, 0.0),
    ],
)
def test_xai_tells_the_seconds(spent: Event, seconds: float) -> None:
    talk = xai().make_ready()
    assert talk.hear({**done("r1"), "usage": spent})[0] == Usage(seconds=seconds)


def transcribed(usage: Any) -> Event:
    return {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "u1",
        "transcript": "Hi",
        "usage": usage,
    }


def test_a_transcription_that_costs_by_time_counts_with_the_next_response() -> None:
    talk = openai().make_ready()
    talk.hear(
        transcribed({"type": "duration", "seconds": 2.5}), transcribed({"type": "tokens", "input_tokens": 9})
    )
    talk.hear(transcribed(None), transcribed("odd"))
    spent = {"input_token_details": {"audio_tokens": 1}}
    assert talk.hear(done("r1", usage=spent))[0] == Usage(1, seconds=2.5)


def test_usage_that_no_response_tells_comes_before_the_end() -> None:
    talk = openai().make_ready()
    talk.hear(transcribed({"type": "duration", "seconds": 2.5}))
    talk.dialect.receive_close(1000, "")
    first, second = talk.frames()
    assert first == Usage(seconds=2.5)
    assert isinstance(second, Close)


def test_the_voice_and_tools_that_were_configured_stay_in_force() -> None:
    assert OPENAI.tools == (WEATHER,)
    talk = openai(OpenAIOptions(turn_detection=ServerVad(create_response=False))).make_ready()
    talk.hear(SPEECH_STARTED, SPEECH_STOPPED, COMMITTED)
    talk.dialect.say("Nobody answers here by itself.")
    assert len(talk.sent()) == 1


# The provider's own protocol


@BOTH
def test_events_of_the_provider_are_seen_and_sent_as_they_are(make: Any) -> None:
    talk = make()
    seen: list[str] = []
    talk.dialect.watch_provider(seen.append)
    with pytest.raises(LocalProtocolError, match="not ready yet"):
        talk.dialect.send_provider_event("{}")
    talk.make_ready()
    assert [json.loads(event)["type"] for event in seen] == ["session.created", "session.updated"]
    odd = '{"type":"brand.new","x":1}'
    assert talk.hear(odd) == [Unknown("brand.new", odd)]
    talk.dialect.receive_message(odd.encode())
    assert seen[2:] == [odd, odd]
    talk.dialect.send_provider_event(odd)
    assert talk.dialect.messages_to_send() == [odd]
    with pytest.raises(LocalProtocolError, match="surrogate"):
        talk.dialect.send_provider_event("\ud800")
    talk.dialect.close()
    with pytest.raises(ConnectionClosed):
        talk.dialect.send_provider_event("{}")
