"""What is said to Gemini other than in speech: its form for each family of models, and when it goes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from speko_anyio import Google
from speko_anyio.protocol import (
    Audio,
    CloseMessage,
    ErrorFrame,
    Interruption,
    Limits,
    LocalProtocolError,
    Ready,
    ResponseEnd,
    ToolCall,
)
from speko_anyio.protocol._commands import TextRole, Update
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers._provider import SAY_EXACTLY
from speko_anyio.providers.google import GoogleDialect, GoogleOptions
from speko_anyio.providers.google._assistant import CUT_TIMEOUT, STALLED_TIMEOUT
from speko_anyio.providers.google._config import configure
from speko_anyio.providers.google._gate import MAX_PROMPTS
from speko_anyio.providers.google._resumption import Carried

from .google_talk import (
    COMPLETE,
    END,
    GENERATED,
    INTERRUPTED,
    MANUAL,
    MODEL,
    READY,
    START,
    WEATHER,
    Json,
    Talk,
    call,
    content,
    heard,
    is_audio,
    speech,
)

PCM = bytes(range(8))
V2_5 = "gemini-2.5-flash-native-audio-latest"
V3_1 = "gemini-3.1-flash-live-preview"
THINKING = "gemini-3.8-live-extended-thinking"
VERTEX = "gemini-live-2.5-flash-native-audio"
JPEG = b"\xff\xd8\xff\xe0"
HANDLE: Json = {"sessionResumptionUpdate": {"newHandle": "h-1", "resumable": True}}

ASK: Json = {"clientContent": {"turnComplete": True}}
NUDGE: Json = {"realtimeInput": {"text": "Please speak now."}}


def talk_to(model: str = MODEL, **parameters: Any) -> Talk:
    return Talk(SessionConfig(provider="google", model=model, tools=(WEATHER,)), **parameters)


def wrote(text: str, role: str = "user", *, complete: bool = False) -> Json:
    turn = {"role": role, "parts": [{"text": text}]}
    return {"clientContent": {"turns": [turn], "turnComplete": complete}}


def typed(text: str) -> Json:
    return {"realtimeInput": {"text": text}}


def picture(mime_type: str = "image/jpeg", *, complete: bool = False) -> Json:
    blob = {"mimeType": mime_type, "data": base64.b64encode(JPEG).decode()}
    turn = {"role": "user", "parts": [{"inlineData": blob}]}
    return {"clientContent": {"turns": [turn], "turnComplete": complete}}


SEEN: Json = {"realtimeInput": {"video": {"mimeType": "image/jpeg", "data": base64.b64encode(JPEG).decode()}}}
DOT = {"role": "user", "parts": [{"text": "."}]}

# The form


@pytest.mark.parametrize("model", [MODEL, THINKING, "gemini-9-live", V2_5])
def test_a_model_that_takes_content_at_any_time(model: str) -> None:
    talk = talk_to(model)
    dialect = talk.dialect
    note = "(Note for the assistant, not said by the user:) "
    for _ in range(2):
        dialect.send_text("Earlier.", respond=False)
        dialect.send_text("Yes?", role="assistant")
        dialect.send_text("It rains.", role="system")
        dialect.send_image(JPEG, mime_type="image/jpeg")
        dialect.send_text("Hello")
        assert talk.sent() == [
            wrote("Earlier."),
            wrote("Yes?", "model"),
            wrote(note + "It rains."),
            picture(),
            wrote("Hello", complete=True),
        ]
        talk.hear(speech(PCM), GENERATED, COMPLETE)
    dialect.send_image(JPEG, mime_type="image/png", respond=True)
    assert talk.sent() == [picture("image/png", complete=True)]


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (lambda dialect: dialect.respond("Greet me."), wrote("Greet me.", complete=True)),
        (lambda dialect: dialect.say("Good day."), wrote(SAY_EXACTLY + "Good day.", complete=True)),
        (lambda dialect: dialect.respond(), ASK),
        (
            lambda dialect: dialect.send_text("Hm.", role="assistant", respond=True),
            wrote("Hm.", "model", complete=True),
        ),
    ],
)
def test_requests(verb: Callable[[GoogleDialect], None], message: Json) -> None:
    talk = talk_to()
    verb(talk.dialect)
    assert talk.sent() == [message]
    assert talk.hear(speech(PCM), GENERATED, COMPLETE) == [Audio(PCM, 24_000), ResponseEnd("done")]


def test_a_model_that_answers_only_the_user_gets_a_turn_of_the_user() -> None:
    talk = talk_to(V2_5)
    talk.dialect.respond()
    assert talk.sent() == [{"clientContent": {"turns": [DOT], "turnComplete": True}}]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    talk.dialect.send_text("Hm.", role="assistant", respond=True)
    [message] = talk.sent()
    assert message["clientContent"]["turns"] == [{"role": "model", "parts": [{"text": "Hm."}]}, DOT]


def test_a_model_with_an_initial_history() -> None:
    talk = talk_to(V3_1)
    dialect = talk.dialect
    assert talk.setup["historyConfig"] == {"initialHistoryInClientContent": True}
    dialect.send_text("Hi.", respond=False)
    dialect.send_text("Hello.", role="assistant")
    assert talk.sent() == [wrote("Hi."), wrote("Hello.", "model")]
    dialect.say("Where were we?")
    assert talk.sent() == [ASK, typed(SAY_EXACTLY + "Where were we?")]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    dialect.send_text("Weather!")
    assert talk.sent() == [typed("Weather!")]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    dialect.send_image(JPEG, mime_type="image/jpeg")
    assert talk.sent() == [SEEN]
    dialect.send_image(JPEG, mime_type="image/jpeg", respond=True)
    assert talk.sent() == [SEEN, NUDGE]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    dialect.respond()
    assert talk.sent() == [NUDGE]
    refused: list[tuple[TextRole, bool]] = [("user", False), ("system", False), ("assistant", True)]
    for role, respond in refused:
        with pytest.raises(LocalProtocolError, match="only before the user's first input"):
            dialect.send_text("x", role=role, respond=respond)
    assert talk.sent() == []


def test_audio_ends_the_initial_history() -> None:
    talk = talk_to(V3_1)
    talk.dialect.send_audio(PCM)
    ask, audio = talk.sent()
    assert ask == ASK
    assert is_audio(audio)
    talk.dialect.send_audio(PCM)
    assert all(map(is_audio, talk.sent()))
    with pytest.raises(LocalProtocolError, match="only before the user's first input"):
        talk.dialect.send_text("x", respond=False)


def test_audio_that_was_held_ends_the_initial_history() -> None:
    talk = talk_to(V3_1, ready=False)
    talk.sent()
    talk.dialect.send_text("Hi.", respond=False)
    talk.dialect.send_audio(PCM)
    with pytest.raises(LocalProtocolError, match="only before the user's first input"):
        talk.dialect.send_text("x", respond=False)
    talk.hear(READY)
    first, ask, audio = talk.sent()
    assert (first, ask, is_audio(audio)) == (wrote("Hi."), ASK, True)


def test_a_resumed_session_has_its_history() -> None:
    talk = talk_to(V3_1, resumption_handle="h")
    with pytest.raises(LocalProtocolError, match="only before"):
        talk.dialect.send_text("x", respond=False)
    talk.dialect.send_text("Hello")
    assert talk.sent() == [typed("Hello")]


@pytest.mark.parametrize("mime_type", ["image/gif", "image/svg+xml"])
def test_pictures_that_gemini_does_not_take(mime_type: str) -> None:
    talk = talk_to()
    with pytest.raises(LocalProtocolError, match=f"takes no .*{mime_type[6:9]}.*; convert"):
        talk.dialect.send_image(JPEG, mime_type=mime_type)
    assert talk.sent() == []


def test_typing_in_manual_mode_is_a_turn() -> None:
    talk = talk_to(V3_1, options=MANUAL)
    talk.dialect.send_text("Hello")
    assert talk.sent() == [ASK, START, typed("Hello"), END]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    talk.dialect.respond("Go on.")
    assert talk.sent() == [START, typed("Go on."), END]
    assert talk_to(options=MANUAL).sent() == []


# Updates


def test_an_update_of_the_session() -> None:
    talk = talk_to()
    talk.dialect.update(Update(system_prompt="Be kind."))
    instruction = {"systemInstruction": {"parts": [{"text": "Be kind."}]}}
    assert talk.sent() == [{"contextUpdate": instruction}]
    talk.dialect.update(Update(tools=(ToolSpec(name="hang_up"),)))
    tools = [{"functionDeclarations": [{"name": "hang_up"}]}]
    assert talk.sent() == [{"contextUpdate": {"tools": {"tools": tools}}}]
    talk.dialect.update(Update(system_prompt="", tools=()))
    assert talk.sent() == [
        {"contextUpdate": {"systemInstruction": {"parts": [{"text": ""}]}, "tools": {"tools": []}}}
    ]


def test_an_update_goes_while_the_model_speaks() -> None:
    talk = talk_to()
    talk.hear(speech(PCM))
    talk.dialect.update(Update(system_prompt="Be kind."))
    assert len(talk.sent()) == 1
    talk.dialect.say("Later")
    talk.dialect.update(Update(system_prompt="Be terse."))
    assert talk.sent() == []
    talk.hear(GENERATED, COMPLETE)
    assert [next(iter(message)) for message in talk.sent()] == ["clientContent", "contextUpdate"]


def test_vertex_takes_a_system_instruction_in_the_conversation() -> None:
    talk = talk_to(VERTEX)
    talk.hear(speech(PCM))
    talk.dialect.update(Update(system_prompt="Be kind."))
    assert talk.sent() == []  # it would cut the answer off
    talk.hear(GENERATED, COMPLETE)
    assert talk.sent() == [wrote("Be kind.", "system")]


@pytest.mark.parametrize(
    ("model", "update", "words"),
    [
        (MODEL, {"voice": "Kore"}, "Gemini can't change voice in an open session"),
        (MODEL, {"turns": "manual", "system_prompt": "x"}, "can't change turns in"),
        (VERTEX, {"tools": ()}, "can't change tools in"),
        (V2_5, {"system_prompt": "x"}, "Gemini can't change an open session"),
        (V3_1, {"tools": ()}, "Gemini can't change an open session"),
    ],
)
def test_updates_that_gemini_can_not_make(model: str, update: Any, words: str) -> None:
    talk = talk_to(model)
    with pytest.raises(LocalProtocolError) as caught:
        talk.dialect.update(Update(**update))
    assert words in str(caught.value)
    assert talk.sent() == []


def test_tools_that_can_not_be_declared() -> None:
    talk = talk_to()
    with pytest.raises(LocalProtocolError, match="as the name of a tool"):
        talk.dialect.update(Update(tools=(ToolSpec(name="1st"),)))
    deep: Json = {}
    for _ in range(3):
        deep = {"anyOf": [{"properties": {f"p{n}": deep}, "required": [f"p{n}"]} for n in range(60)]}
    with pytest.raises(LocalProtocolError, match="too long to convert"):
        talk.dialect.update(Update(tools=(ToolSpec(name="t", parameters={"properties": {"x": deep}}),)))
    assert talk.sent() == []


# Who waits for whom


def test_context_never_cuts_an_answer_off() -> None:
    talk = talk_to()
    talk.hear(speech(PCM))
    talk.dialect.send_text("It rains.", role="system")
    talk.dialect.send_image(JPEG, mime_type="image/jpeg")
    talk.hear(speech(PCM), GENERATED)
    assert talk.sent() == []
    assert not talk.dialect.at_rest
    talk.hear(COMPLETE)
    assert len(talk.sent()) == 2


def test_requests_wait_for_each_other() -> None:
    talk = talk_to()
    dialect = talk.dialect
    dialect.say("One")
    dialect.say("Two")
    dialect.respond("Three")
    dialect.send_text("Context", respond=False)
    sent = []
    for _ in range(3):
        sent.append(talk.sent())
        assert talk.hear(speech(PCM), GENERATED, COMPLETE)[-1] == ResponseEnd("done")
    assert [len(messages) for messages in sent] == [1, 1, 1]
    assert talk.sent() == [wrote("Context")]


def test_a_text_of_the_user_interrupts() -> None:
    talk = talk_to()
    dialect = talk.dialect
    talk.hear(speech(PCM))
    dialect.send_text("Context", respond=False)
    dialect.say("Later")
    dialect.send_text("Stop!")
    assert talk.hear() == [Interruption("user"), ResponseEnd("interrupted")]
    assert talk.sent() == [wrote("Context"), wrote("Stop!", complete=True)]
    # The rest of the old answer is not heard; the new one is, and only then comes what waits.
    assert talk.hear(speech(b"\1\1"), INTERRUPTED, COMPLETE) == []
    assert talk.sent() == []
    assert talk.hear(speech(PCM), GENERATED, COMPLETE) == [Audio(PCM, 24_000), ResponseEnd("done")]
    assert talk.sent() == [wrote(SAY_EXACTLY + "Later", complete=True)]


def test_a_text_interrupts_what_is_not_heard_yet() -> None:
    talk = talk_to()
    talk.dialect.playback.follow(lambda: 0.0)
    talk.hear(speech(bytes(48_000)), GENERATED, COMPLETE)
    talk.dialect.send_text("Stop!")
    assert talk.hear() == [Interruption("user")]


def test_a_text_does_not_interrupt_where_speech_does_not() -> None:
    talk = talk_to(options=GoogleOptions(interrupts=False))
    talk.hear(speech(PCM))
    talk.dialect.send_text("Stop!")
    assert talk.hear() == []
    assert talk.sent() == []
    talk.hear(GENERATED, COMPLETE)
    assert talk.sent() == [wrote("Stop!", complete=True)]


def test_texts_that_can_not_interrupt_keep_their_order() -> None:
    talk = talk_to(options=GoogleOptions(interrupts=False, gate_input=True))
    talk.hear(speech(PCM))
    talk.dialect.send_text("One")
    talk.hear(call(("c", {})))
    talk.dialect.send_text("Two")
    talk.dialect.interrupt()
    assert talk.sent() == [wrote("One", complete=True)]


def test_a_bare_request_is_met_by_any_answer() -> None:
    talk = talk_to()
    talk.hear(speech(PCM))
    talk.dialect.respond()
    talk.dialect.respond()
    talk.hear(GENERATED, COMPLETE)
    assert talk.sent() == [ASK]
    talk.hear(speech(PCM))
    talk.dialect.respond()
    # A model that reports its status goes on with another turn by itself.
    talk.hear(content(turnComplete=True, interactionStatus="IN_PROGRESS"), speech(PCM), GENERATED)
    talk.hear(content(turnComplete=True, interactionStatus="IDLE"))
    assert talk.sent() == []


def test_the_user_s_speech_meets_a_bare_request_only() -> None:
    talk = talk_to()
    talk.hear(speech(PCM))
    talk.dialect.respond()
    talk.dialect.say("Later")
    talk.hear(INTERRUPTED)
    assert talk.sent() == []
    talk.hear(COMPLETE)
    assert talk.sent() == [wrote(SAY_EXACTLY + "Later", complete=True)]


def test_an_interruption_drops_what_is_to_be_said() -> None:
    talk = talk_to()
    talk.hear(speech(PCM))
    talk.dialect.say("Later")
    talk.dialect.respond()
    talk.dialect.send_text("Context", respond=False)
    talk.dialect.interrupt()
    # The answer goes on unheard: what cuts that off does no harm.
    assert talk.sent() == [wrote("Context")]
    talk.dialect.say("Sorry")
    assert talk.sent() == [wrote(SAY_EXACTLY + "Sorry", complete=True)]


def test_nothing_is_said_into_the_end_of_an_interrupted_answer() -> None:
    talk = talk_to()
    talk.hear(speech(PCM), INTERRUPTED)
    talk.dialect.say("One")
    assert talk.sent() == []
    talk.wait(CUT_TIMEOUT)  # the end that should follow does not come
    assert talk.sent() == [wrote(SAY_EXACTLY + "One", complete=True)]


def test_an_answer_that_does_not_come_holds_nothing_up_for_ever() -> None:
    talk = talk_to()
    talk.dialect.say("One")
    talk.dialect.say("Two")
    assert len(talk.sent()) == 1
    [error] = talk.wait(STALLED_TIMEOUT)
    assert isinstance(error, ErrorFrame)
    assert error.code == "provider_no_response"
    assert len(talk.sent()) == 1


def test_requests_wait_for_tools() -> None:
    talk = talk_to()
    talk.hear(speech(PCM), call(("c", {})))
    talk.dialect.say("Later")
    talk.dialect.send_text("Context", respond=False)
    assert talk.sent() == []
    talk.dialect.send_tool_result("c", "{}")
    [message] = talk.sent()
    assert "toolResponse" in message
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    assert talk.sent() == [wrote(SAY_EXACTLY + "Later", complete=True)]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    assert talk.sent() == [wrote("Context")]


def test_a_text_waits_where_speech_waits_for_a_tool() -> None:
    talk = talk_to(V2_5)
    [*_, called] = talk.hear(call(("c", {})))
    assert isinstance(called, ToolCall)
    talk.dialect.send_audio(PCM)
    talk.dialect.send_text("Hurry!")
    assert talk.sent() == []
    talk.dialect.send_tool_result("c", "{}")
    result, audio, text = talk.sent()
    assert "toolResponse" in result
    assert is_audio(audio)
    assert text == wrote("Hurry!", complete=True)


def test_a_text_interrupts_a_tool_that_nothing_waits_for() -> None:
    talk = talk_to()
    talk.hear(call(("c", {})))
    talk.dialect.send_text("Stop!")
    assert talk.hear() == [Interruption("user"), ResponseEnd("interrupted")]
    assert talk.sent() == [wrote("Stop!", complete=True)]
    talk.dialect.send_tool_result("c", "{}")  # the provider may still wait for it
    assert len(talk.sent()) == 1


# Turns that the client ends


def test_a_text_in_an_open_turn_is_part_of_it() -> None:
    talk = talk_to(options=MANUAL)
    dialect = talk.dialect
    dialect.send_audio(PCM)
    dialect.send_text("Look:")
    dialect.send_image(JPEG, mime_type="image/jpeg", respond=True)
    start, audio, text, image = talk.sent()
    assert (start, is_audio(audio), text, image) == (START, True, typed("Look:"), SEEN)
    dialect.commit()
    assert talk.sent() == [END]


def test_requests_wait_for_the_end_of_the_turn_and_its_answer() -> None:
    talk = talk_to(options=MANUAL)
    talk.dialect.send_audio(PCM)
    talk.sent()
    talk.dialect.say("Later")
    talk.dialect.respond()
    assert talk.sent() == []
    talk.dialect.commit()
    assert talk.sent() == [END]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    assert talk.sent() == [wrote(SAY_EXACTLY + "Later", complete=True)]
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    assert talk.sent() == []  # the answers since then met the bare request


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (lambda dialect: dialect.say("Sorry"), typed(SAY_EXACTLY + "Sorry")),
        (lambda dialect: dialect.respond(), NUDGE),
        (lambda dialect: dialect.send_text("Well?"), typed("Well?")),
    ],
)
def test_a_request_ends_the_empty_turn_of_an_interruption(
    verb: Callable[[GoogleDialect], None], message: Json
) -> None:
    talk = talk_to(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    assert talk.sent() == [START]
    verb(talk.dialect)
    assert talk.sent() == [message, END]
    talk.dialect.commit()
    assert talk.dialect.stats.skipped_commits == 1
    talk.hear(INTERRUPTED, COMPLETE)
    assert talk.hear(speech(PCM)) == [Audio(PCM, 24_000)]


def test_context_goes_before_the_end_of_the_turn_that_follows() -> None:
    talk = talk_to(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.send_text("Context", respond=False)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    assert [message for message in talk.sent() if not is_audio(message)] == [START, wrote("Context"), END]


# Before the session is ready


def until_refused(talk: Talk, words: str) -> int:
    """How many texts of 1000 letters are taken before one is refused."""
    for taken in range(100):
        try:
            talk.dialect.send_text("x" * 1000, respond=False)
        except LocalProtocolError as error:
            assert words in str(error)  # noqa: PT017 - it comes at some time
            return taken
    raise AssertionError("everything was taken")


def test_everything_keeps_its_order_until_the_session_is_ready() -> None:
    talk = talk_to(ready=False)
    dialect = talk.dialect
    talk.sent()
    dialect.send_text("First", respond=False)
    dialect.send_audio(PCM)
    dialect.update(Update(system_prompt="Be kind."))
    dialect.send_text("Second")
    dialect.say("Third")
    assert talk.sent() == []
    assert isinstance(talk.hear(READY)[0], Ready)
    first, audio, update, second = talk.sent()
    assert (first, is_audio(audio), second) == (wrote("First"), True, wrote("Second", complete=True))
    assert "contextUpdate" in update
    talk.hear(speech(PCM), GENERATED, COMPLETE)
    assert talk.sent() == [wrote(SAY_EXACTLY + "Third", complete=True)]


def test_no_more_is_held_than_the_limit() -> None:
    talk = talk_to(ready=False, limits=Limits(max_outbox=40_000))
    talk.sent()
    sent = until_refused(talk, "no more can be held")
    assert 5 < sent < 20
    talk.hear(READY)
    assert len(talk.sent()) == sent


def test_what_waits_is_bounded() -> None:
    talk = talk_to(limits=Limits(max_outbox=40_000))
    talk.hear(speech(PCM))
    for _ in range(MAX_PROMPTS):
        talk.dialect.say("x")
    with pytest.raises(LocalProtocolError, match="16 answers wait to be asked for"):
        talk.dialect.respond("y")
    assert 3 < until_refused(talk, "bytes would wait for the end of an answer") < 20


def test_what_finds_no_room_changes_nothing() -> None:
    talk = talk_to(limits=Limits(max_outbox=3_000))
    talk.hear(speech(PCM))
    talk.sent()
    with pytest.raises(LocalProtocolError, match="outbox"):
        talk.dialect.send_text("x" * 4_000)
    assert talk.hear() == []
    assert talk.sent() == []
    talk.dialect.send_text("Stop!")
    assert talk.sent() == [wrote("Stop!", complete=True)]


def test_what_finds_no_room_later_goes_when_there_is_room() -> None:
    talk = talk_to(limits=Limits(max_outbox=3_000))
    talk.hear(speech(PCM))
    talk.dialect.send_text("x" * 500, respond=False)
    while True:
        try:
            talk.dialect.send_audio(bytes(200))
        except LocalProtocolError:
            break
    talk.hear(GENERATED, COMPLETE)
    assert not any("clientContent" in message for message in talk.sent())
    talk.hear(heard("Hm"))
    assert talk.sent() == [wrote("x" * 500)]


def test_what_waited_for_the_session_is_bounded_when_it_is_ready() -> None:
    talk = talk_to(ready=False)
    talk.sent()
    for _ in range(MAX_PROMPTS + 3):
        talk.dialect.say("x")
    _, *errors = talk.hear(READY)
    assert len(talk.sent()) == 1
    assert [error.code for error in errors if isinstance(error, ErrorFrame)] == ["say_refused"] * 2
    assert "16 answers wait" in str(errors[0])


@pytest.mark.parametrize("ends", [True, False])
def test_an_answer_to_an_interrupting_turn_that_does_not_come(ends: bool) -> None:
    talk = talk_to(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.dialect.say("Later")
    talk.sent()
    if ends:
        talk.hear(INTERRUPTED, COMPLETE)
    found = talk.wait(1.5 * STALLED_TIMEOUT)
    assert [frame.code for frame in found if isinstance(frame, ErrorFrame)] == ["provider_no_response"]
    assert talk.sent() == [wrote(SAY_EXACTLY + "Later", complete=True)]


def test_an_interrupted_answer_that_goes_on_for_long_hides_no_silence() -> None:
    talk = talk_to(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    for _ in range(12):
        assert [frame for frame in talk.wait(2.0) if isinstance(frame, ErrorFrame)] == []
        talk.hear(speech(PCM))  # the rest of the old answer
    found = talk.wait(2 * STALLED_TIMEOUT)
    assert [frame.code for frame in found if isinstance(frame, ErrorFrame)] == ["provider_no_response"]


# From one connection to the next


def test_context_that_the_handle_may_lack_is_said_again() -> None:
    carried = Carried(configure(SessionConfig(provider="google", model=MODEL), GoogleOptions()))
    first = talk_to(carried=carried)
    first.dialect.send_text("Kept", respond=False)
    first.hear(HANDLE)
    first.hear(speech(PCM))
    first.dialect.send_text("Said late", respond=False)
    first.dialect.say("Dropped")
    first.hear(GENERATED, COMPLETE)
    first.sent()
    first.hear(speech(PCM))
    first.dialect.send_text("Not said", respond=False)
    first.dialect.receive_lost()
    second = talk_to(carried=carried, resumption_handle="h-1")
    assert second.sent() == [wrote("Said late"), wrote("Not said")]
    second.hear({"sessionResumptionUpdate": {"newHandle": "h-2", "resumable": True}})
    assert talk_to(carried=carried, resumption_handle="h-2").sent() == []


def test_updates_are_part_of_the_next_connection_s_setup() -> None:
    config = SessionConfig(provider="google", model=MODEL, system_prompt="Old", tools=(WEATHER,))
    carried = Carried(configure(config, GoogleOptions()))
    first = talk_to(carried=carried)
    first.hear(speech(PCM))
    first.dialect.say("Later")
    first.dialect.update(Update(system_prompt="New", tools=()))  # waits for its turn
    assert first.sent() == []
    first.dialect.receive_lost()
    setup = talk_to(carried=carried, resumption_handle="h-1").setup
    assert setup["systemInstruction"] == {"parts": [{"text": "New"}]}
    assert setup["tools"] == []
    assert setup["sessionResumption"] == {"handle": "h-1"}


def test_context_of_another_connection_is_bounded() -> None:
    carried = Carried(configure(SessionConfig(provider="google", model=MODEL), GoogleOptions()))
    first = talk_to(carried=carried)
    for _ in range(5):
        first.dialect.send_image(bytes(1_000_000), mime_type="image/png")
    assert len(carried.context) == 4
    without = Carried(
        configure(SessionConfig(provider="google", model=MODEL), GoogleOptions(resumption=False))
    )
    talk_to(carried=without).dialect.send_text("x", respond=False)
    assert without.context == ()


def test_the_history_of_a_model_that_takes_it_first_is_said_again_to_a_new_conversation() -> None:
    carried = Carried(configure(SessionConfig(provider="google", model=V3_1), GoogleOptions()))
    talk_to(carried=carried).dialect.send_text("Kept", respond=False)
    assert talk_to(carried=carried, resumption_handle="h").sent() == []
    assert talk_to(carried=carried).sent() == [wrote("Kept")]


def test_nothing_follows_our_close() -> None:
    talk = Talk()
    talk.dialect.send_text("What is that?")
    talk.hear(speech(PCM))
    talk.dialect.send_text("It rains.", role="system")
    talk.dialect.close()
    assert isinstance(talk.dialect.messages_to_send()[-1], CloseMessage)
    # The answer ends for which the context waited.
    talk.hear(COMPLETE)
    assert talk.dialect.messages_to_send() == []


def test_the_connections_of_a_session_share_what_outlives_them() -> None:
    prepared = Google("k")._prepared(SessionConfig(provider="google", model=MODEL), None, quick=False)

    def opened(handle: str | None) -> GoogleDialect:
        dialect = prepared.connection(resumption=handle).dialect
        assert isinstance(dialect, GoogleDialect)
        return dialect

    first, second = opened(None), opened("h-1")
    assert first._gate._carried is second._gate._carried
    other = Google("k")._prepared(SessionConfig(provider="google", model=MODEL), None, quick=False)
    third = other.connection().dialect
    assert isinstance(third, GoogleDialect)
    assert third._gate._carried is not first._gate._carried
