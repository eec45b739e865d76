"""Where Gemini's answers begin and end: late words, missing ends, statuses, and how each answer ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from speko_anyio.protocol import (
    Audio,
    ErrorFrame,
    Frame,
    Interruption,
    LocalProtocolError,
    ResponseEnd,
    ServerToolCall,
    State,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.providers.google import GoogleDialect
from speko_anyio.providers.google._assistant import (
    CUT_TIMEOUT,
    GOING_ON_TIMEOUT,
    MUTE_TIMEOUT,
    STALLED_TIMEOUT,
)
from speko_anyio.providers.google._words import LATE_WORDS_TIMEOUT, SETTLED_TIMEOUT

from . import bridge_talk
from .google_talk import (
    COMPLETE,
    GENERATED,
    INTERRUPTED,
    MANUAL,
    Json,
    Talk,
    call,
    content,
    frames,
    heard,
    said,
    speech,
    usage,
)

PCM = bytes(range(8))
SPOKEN = Audio(PCM, 24_000)
DONE = ResponseEnd("done")
CUT_OFF = ResponseEnd("interrupted")
HANDLE: Json = {"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}}


def assistant(found: list[Frame]) -> list[str]:
    """The assistant's final texts."""
    return [
        frame.text
        for frame in found
        if isinstance(frame, Transcript) and frame.final and frame.role == "assistant"
    ]


def ends(found: list[Frame]) -> list[ResponseEnd]:
    return [frame for frame in found if isinstance(frame, ResponseEnd)]


def rests(talk: Talk) -> bool:
    return talk.dialect.at_rest


def responds(talk: Talk) -> bool:
    return talk.dialect.responding


# Late words


def test_late_words_are_told_and_begin_no_answer() -> None:
    talk = Talk()
    talk.hear(speech(PCM), said("It is"), COMPLETE, HANDLE)
    assert talk.hear(said(" no"), said("on.")) == [
        Transcript("assistant", "no", False),
        Transcript("assistant", "noon.", False),
    ]
    assert not responds(talk)
    assert talk.dialect.idle
    assert not rests(talk)  # more of them may come, for a moment
    assert talk.dialect.stats.late_events == 2
    assert talk.wait(LATE_WORDS_TIMEOUT) == [Transcript("assistant", "noon.", True)]
    assert rests(talk)


@pytest.mark.parametrize(
    "next_one", [speech(PCM), call(("c", {})), heard("And in Rome?")], ids=["a", "c", "u"]
)
def test_late_words_end_where_something_else_begins(next_one: Json) -> None:
    talk = Talk()
    talk.hear(heard("Hm?"), speech(PCM), said("It is"), COMPLETE, said(" noon."))
    found = talk.hear(next_one)
    assert found[0] == Transcript("assistant", "noon.", True)
    found = talk.hear(speech(PCM), said("One o'clock."), COMPLETE)
    assert assistant(found) == ["One o'clock."]
    assert ends(found) == [DONE]


@pytest.mark.parametrize(
    "prompt", ["words", "interim", "commit", "result", "activity", "status", "time", "no handle"]
)
def test_words_that_something_asked_for_begin_an_answer(prompt: str) -> None:
    talk = Talk()
    talk.hear(heard("Hm?"), speech(PCM), call(("c", {})), said("It is noon."), COMPLETE)
    match prompt:
        case "words":
            talk.hear(heard("And in Rome?"))
        case "interim":
            talk.hear(content(interimInputTranscription={"text": "And in"}))
        case "commit":
            talk.dialect.commit()
        case "result":
            talk.dialect.send_tool_result("c", "{}")
        case "activity":
            talk.hear({"voiceActivity": {"voiceActivityType": "ACTIVITY_END"}})
        case "status":
            talk.hear(content(interactionStatus="IN_PROGRESS"))
        case "time":
            talk.wait(LATE_WORDS_TIMEOUT)
        case "no handle":
            talk.hear(HANDLE, {"sessionResumptionUpdate": {}})
    talk.hear(said("One"))
    assert responds(talk)
    found = talk.hear(speech(PCM), said(" o'clock."), COMPLETE)
    assert assistant(found) == ["One o'clock."]
    assert ends(found) == [DONE]


def test_the_first_words_of_a_session_begin_an_answer() -> None:
    talk = Talk()
    talk.hear(said("Good"))
    assert responds(talk)
    found = talk.hear(speech(PCM), said(" day."), COMPLETE)
    assert (assistant(found), ends(found)) == (["Good day."], [DONE])


def test_words_alone_are_an_answer_if_a_turn_ends_with_them() -> None:
    talk = Talk()
    for text in ("One.", "Two.", "Three."):
        found = talk.hear(said(text), COMPLETE)
        assert (assistant(found), ends(found)) == ([text], [DONE])
    assert ends(talk.hear(COMPLETE)) == []


def test_words_that_nothing_confirms_are_no_answer() -> None:
    talk = Talk()
    talk.hear(speech(PCM), said("It is"), COMPLETE, HANDLE, heard("what time", finished=True), said(" noon."))
    assert responds(talk)  # as far as anybody can know
    assert talk.wait(LATE_WORDS_TIMEOUT) == [Transcript("assistant", "noon.", True)]
    assert not responds(talk)
    assert talk.dialect.idle
    assert talk.hear(HANDLE, COMPLETE) == []
    assert rests(talk)


@pytest.mark.parametrize(
    "confirmation", [speech(PCM), call(("c", {})), GENERATED], ids=["audio", "call", "generated"]
)
def test_a_confirmed_answer_takes_its_time(confirmation: Json) -> None:
    talk = Talk()
    talk.hear(said("Well,"), confirmation)
    assert talk.wait(LATE_WORDS_TIMEOUT * 2) == []
    found = talk.hear(said(" yes."), COMPLETE)
    assert (assistant(found), ends(found)) == (["Well, yes."], [DONE])


THOUGHT = content(modelTurn={"parts": [{"text": "**Thinking**", "thought": True}]})


@pytest.mark.parametrize("sign", [speech(PCM), THOUGHT], ids=["audio", "thought"])
def test_an_answer_with_a_sign_of_life_does_not_stall(sign: Json) -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    talk.wait(STALLED_TIMEOUT - 1)
    talk.hear(sign)
    assert ends(talk.wait(STALLED_TIMEOUT)) == []
    assert ends(talk.wait(STALLED_TIMEOUT)) == [DONE]


def test_late_words_of_an_answer_that_was_cut_off_are_dropped() -> None:
    talk = Talk()
    talk.hear(speech(PCM), said("Once upon"), INTERRUPTED)
    assert talk.hear(said(" a time")) == []
    assert talk.hear(COMPLETE, said(" there")) == [Transcript("assistant", "there", False)]
    assert ends(talk.wait(60)) == []


def very_late(**parameters: Any) -> Talk:
    """An answer is over, and words come so late that only the passing of time prompts them."""
    talk = Talk(**parameters)
    talk.hear(HANDLE, heard("Time?"), speech(PCM), said("It is"), GENERATED, COMPLETE, HANDLE)
    talk.dialect.playback.flush()
    talk.wait(LATE_WORDS_TIMEOUT + 1)
    assert talk.hear(said(" noon.")) == [Transcript("assistant", "noon.", False)]
    return talk


def test_an_interruption_of_very_late_words_stops_no_answer() -> None:
    talk = very_late()
    talk.dialect.interrupt()
    assert frames(talk.dialect) == [Transcript("assistant", "noon.", True)]
    talk.hear(heard("And Rome?"))
    found = talk.hear(speech(PCM), said("One o'clock."), COMPLETE)
    assert SPOKEN in found
    assert (assistant(found), ends(found)) == (["One o'clock."], [DONE])


def test_very_late_words_leave_the_handle_fresh() -> None:
    talk = very_late()
    assert not rests(talk)
    talk.wait(LATE_WORDS_TIMEOUT)
    assert rests(talk)


def test_very_late_words_do_not_refresh_a_handle() -> None:
    talk = very_late()
    talk.hear({"sessionResumptionUpdate": {}})
    talk.wait(60)
    assert not rests(talk)


@pytest.mark.parametrize("prompt", ["words", "activity", "commit"])
def test_very_late_words_are_not_of_the_next_answer(prompt: str) -> None:
    talk = very_late(options=MANUAL) if prompt == "commit" else very_late()
    if prompt == "words":
        talk.hear(heard("And Rome?"))
    elif prompt == "activity":
        talk.hear({"voiceActivity": {"voiceActivityType": "ACTIVITY_START"}})
    else:
        talk.dialect.send_audio(bytes(480))
        talk.dialect.commit()
    found = talk.hear(speech(PCM), said("One o'clock."), COMPLETE)
    assert assistant(found)[-1:] == ["One o'clock."]
    assert ends(found) == [DONE]


def test_an_answer_that_the_user_prompted_can_be_interrupted_from_its_first_word() -> None:
    talk = Talk()
    talk.hear(heard("Time?"), speech(PCM), COMPLETE, heard("And Rome?"))
    talk.wait(LATE_WORDS_TIMEOUT)
    talk.hear(said("One"))
    talk.dialect.interrupt()
    assert CUT_OFF in frames(talk.dialect)
    assert SPOKEN not in talk.hear(speech(PCM))


@pytest.mark.parametrize("after", [0.0, LATE_WORDS_TIMEOUT + 1])
@pytest.mark.parametrize(
    "empty",
    [
        said(""),
        said("  "),
        content(outputTranscription={"finished": True}),
        speech(b""),
        content(modelTurn={"parts": [{"text": " "}]}),
    ],
    ids=["no words", "blanks", "finished", "no audio", "blank text"],
)
def test_what_is_empty_begins_no_answer(empty: Json, after: float) -> None:
    talk = Talk()
    talk.hear(heard("Time?"), speech(PCM), said("It is noon."), GENERATED, COMPLETE, HANDLE)
    talk.wait(after)
    assert talk.hear(empty) == []
    assert talk.dialect.idle
    assert [frame for frame in talk.wait(60) if not isinstance(frame, Transcript)] == []
    assert rests(talk)


def test_an_empty_piece_completes_late_words() -> None:
    talk = Talk()
    talk.hear(heard("Time?"), speech(PCM), said("It is"), COMPLETE, said("half past"))
    assert talk.hear(said(" "), said("noon."))[-1] == Transcript("assistant", "half past noon.", False)
    assert talk.hear(said("", finished=True)) == [Transcript("assistant", "half past noon.", True)]


def test_late_words_do_not_hold_up_a_move() -> None:
    talk = bridge_talk.google()
    talk.hear(HANDLE, speech(PCM), said("It is"), COMPLETE, HANDLE, said(" noon."))
    talk.frames()
    talk.wait(30)
    talk.frames()
    talk.hear({"goAway": {"timeLeft": "50s"}})
    assert talk.provider.state is not State.OPEN
    assert not [frame for frame in talk.frames() if isinstance(frame, Interruption | ErrorFrame)]


def test_late_usage_and_grounding_are_of_the_turn_that_is_over() -> None:
    talk = Talk()
    talk.hear(heard("Hm?"), speech(PCM), COMPLETE, HANDLE)
    assert talk.hear(usage(3, 4), content(groundingMetadata={"webSearchQueries": ["x"]})) == [
        Usage(3, 4),
        ServerToolCall("google_search-1", "google_search", "completed"),
    ]
    assert rests(talk)
    assert not responds(talk)


def test_vertex_names_its_counts_differently() -> None:
    details = [{"modality": "AUDIO", "tokenCount": 75}, {"modality": "TEXT", "tokenCount": 12}]
    counts = {"candidatesTokenCount": 87, "candidatesTokensDetails": details}
    talk = Talk()
    assert talk.hear({**COMPLETE, "usageMetadata": counts}) == [Usage(0, 75, output_text_tokens=12)]
    assert talk.dialect.stats.unknown_fields == 0
    talk.hear(speech(PCM))
    assert talk.hear(content(turnComplete=True, usageMetadata=counts)) == [
        Usage(0, 75, output_text_tokens=12),
        DONE,
    ]


# Ends that were not signalled


@pytest.mark.parametrize("sign", ["words", "time", "generated", "call"])
def test_an_interruption_without_an_end_does_not_swallow_the_next_answer(sign: str) -> None:
    talk = Talk()
    assert talk.hear(speech(PCM), INTERRUPTED) == [Interruption("user"), CUT_OFF]
    assert talk.hear(speech(PCM)) == []  # of what was cut off
    match sign:
        case "words":
            talk.hear(heard("No."))
        case "time":
            for _ in range(5):  # dropped output does not extend the wait
                assert talk.hear(said("x")) == []
                assert talk.wait(CUT_TIMEOUT / 5) == []
        case "generated":
            talk.hear(GENERATED)
        case "call":
            talk.hear(call(("c", {})))
            talk.wait(CUT_TIMEOUT)
    found = talk.hear(speech(PCM), said("Sorry."), speech(PCM), COMPLETE)
    assert found.count(SPOKEN) == 2
    assert assistant(found) == ["Sorry."]
    assert ends(found) == [DONE]


def test_the_answer_after_our_own_interruption_and_theirs() -> None:
    talk = Talk(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    assert frames(talk.dialect) == [Interruption("assistant"), CUT_OFF]
    assert talk.hear(speech(PCM), INTERRUPTED, speech(PCM)) == []
    talk.wait(CUT_TIMEOUT)
    assert talk.hear(speech(PCM), COMPLETE) == [SPOKEN, DONE]


def test_a_commit_after_their_interruption_is_answered() -> None:
    talk = Talk(options=MANUAL)
    talk.hear(speech(PCM))
    talk.dialect.send_audio(PCM)
    assert talk.hear(INTERRUPTED) == [Interruption("user"), CUT_OFF]
    talk.dialect.commit()
    assert talk.hear(speech(PCM), COMPLETE) == [SPOKEN, DONE]


def test_the_late_end_of_what_was_cut_off_ends_nothing() -> None:
    talk = Talk()
    talk.hear(speech(PCM), INTERRUPTED)
    talk.wait(CUT_TIMEOUT)
    talk.dialect.commit()
    assert talk.hear(heard("No,"), COMPLETE, heard(" stop.")) == [
        Transcript("user", "No,", False),
        Transcript("user", "No, stop.", False),
    ]
    assert talk.hear(COMPLETE) == [Transcript("user", "No, stop.", True), DONE]


@pytest.mark.parametrize(
    "before",
    [
        (speech(PCM), GENERATED, COMPLETE),
        (speech(PCM), content(generationComplete=True, turnComplete=True)),
        (speech(PCM), COMPLETE, GENERATED),
        (GENERATED,),
        (speech(PCM), INTERRUPTED, GENERATED, COMPLETE),
        (speech(PCM), GENERATED, content(turnComplete=True, interactionStatus="IN_PROGRESS")),
        (speech(PCM), GENERATED, content(interactionStatus="IDLE")),
        (speech(PCM), GENERATED, content(waitingForInput=True)),
        (speech(PCM), call(("c", {})), GENERATED, {"toolCallCancellation": {"ids": ["c"]}}, COMPLETE),
        (speech(PCM), GENERATED, heard("And?")),
    ],
    ids=lambda messages: " ".join(next(iter(message.get("serverContent", message))) for message in messages),
)
def test_that_all_was_generated_is_forgotten_with_the_turn(before: tuple[Json, ...]) -> None:
    talk = Talk()
    talk.hear(*before)
    found = talk.hear(speech(PCM))
    assert found[-1] == SPOKEN
    assert responds(talk)
    talk.dialect.interrupt()
    frames(talk.dialect)
    assert talk.hear(speech(PCM)) == []  # more of the same answer, which is not complete yet


def test_that_all_was_generated_does_not_last_while_the_model_goes_on() -> None:
    talk = Talk()
    going_on = content(turnComplete=True, interactionStatus="IN_PROGRESS")
    talk.hear(speech(PCM), GENERATED, going_on)
    assert responds(talk)
    talk.dialect.interrupt()
    frames(talk.dialect)
    # What is muted goes on, too, with another turn, of which not all has come.
    assert talk.hear(speech(PCM), GENERATED, going_on, speech(PCM)) == []
    assert talk.hear(GENERATED, speech(PCM)) == [SPOKEN]


@pytest.mark.parametrize("rest", [content(interactionStatus="IDLE"), content(waitingForInput=True), COMPLETE])
def test_that_all_was_generated_does_not_unmute_the_next_answer(rest: Json) -> None:
    talk = Talk(options=MANUAL)
    talk.hear(speech(PCM), GENERATED, rest)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.dialect.interrupt()
    frames(talk.dialect)
    assert talk.hear(speech(PCM)) == []


def test_a_call_is_no_end_although_all_was_generated() -> None:
    for messages in ((GENERATED, call(("c", {}))), (call(("c", {})), GENERATED)):
        talk = Talk()
        talk.hear(speech(PCM), *messages)
        assert responds(talk)
        talk.dialect.send_tool_result("c", "{}")
        assert ends(talk.hear(speech(PCM), GENERATED, COMPLETE)) == [DONE]


def test_a_straggler_is_of_the_same_answer() -> None:
    talk = Talk()
    talk.hear(speech(PCM), heard("What time is it?"))
    assert ends(talk.hear(GENERATED, speech(PCM), COMPLETE)) == [DONE]


def test_an_answer_whose_end_is_not_told_ends_all_the_same() -> None:
    talk = Talk()
    talk.hear(speech(PCM), said("Yes."), HANDLE)
    assert talk.wait(STALLED_TIMEOUT - 1) == []
    assert responds(talk)
    assert talk.wait(STALLED_TIMEOUT + 1) == [Transcript("assistant", "Yes.", True), DONE]
    assert not responds(talk)
    assert rests(talk)
    # Its end, if it still comes, does not end another answer.
    assert talk.hear(COMPLETE) == []


def test_an_answer_that_still_plays_or_waits_for_a_tool_is_not_over() -> None:
    talk = Talk()
    talk.dialect.playback.follow(lambda: 0.0)
    talk.hear(speech(bytes(48_000)))
    assert talk.wait(5 * STALLED_TIMEOUT) == []
    talk.dialect.playback.flush()
    talk.hear(call(("c", {})))
    assert talk.wait(5 * STALLED_TIMEOUT) == []
    talk.dialect.send_tool_result("c", "{}")
    assert ends(talk.wait(2 * STALLED_TIMEOUT)) == [DONE]


def test_an_answer_that_does_not_come_is_not_awaited_for_ever() -> None:
    talk = Talk(options=MANUAL)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.hear(HANDLE)
    assert not rests(talk)
    [error] = talk.wait(STALLED_TIMEOUT)
    assert isinstance(error, ErrorFrame)
    assert error.code == "provider_no_response"
    assert rests(talk)
    assert talk.hear(speech(PCM), COMPLETE) == [SPOKEN, DONE]


def test_what_the_user_said_holds_up_nothing_for_ever() -> None:
    talk = bridge_talk.google()
    talk.hear(HANDLE, heard("Well"))
    talk.hear({"goAway": {"timeLeft": "50s"}})
    talk.wait(SETTLED_TIMEOUT - 1)
    provider = talk.provider
    assert provider.resumption is not None
    assert provider.closed is None
    talk.wait(1)
    assert isinstance(provider, GoogleDialect)
    assert provider.state is State.CLOSING
    provider.receive_close(1000, "")
    assert not provider.cut_short  # nobody was in the middle of anything


# The interaction's status


@pytest.mark.parametrize("status", ["IDLE", "REQUIRES_ACTION"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_model_is_idle_when_it_says_so(status: str, beside: bool) -> None:
    talk = Talk()
    talk.hear(speech(PCM), content(turnComplete=True, interactionStatus="IN_PROGRESS"), HANDLE)
    assert not rests(talk)
    talk.hear({"interactionStatus": status} if beside else content(interactionStatus=status))
    assert rests(talk)
    assert talk.dialect.stats.unknown_fields == 0


def test_a_status_ends_an_answer_once() -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    assert talk.hear({**COMPLETE, "interactionStatus": "IDLE"}) == [DONE]
    assert talk.hear({"interactionStatus": "IDLE"}, content(interactionStatus="IDLE")) == []
    assert talk.hear(speech(PCM), {"interactionStatus": "IDLE"}) == [SPOKEN, DONE]


def test_a_model_does_not_go_on_for_ever() -> None:
    talk = Talk()
    talk.hear(speech(PCM), content(turnComplete=True, interactionStatus="IN_PROGRESS"), HANDLE)
    assert talk.wait(GOING_ON_TIMEOUT - 1) == []
    assert not rests(talk)
    assert talk.wait(1) == []
    assert rests(talk)


@pytest.mark.parametrize("status", ["", "NEWER", None, 7, "INTERACTION_STATUS_UNSPECIFIED"])
def test_a_status_that_says_nothing(status: Any) -> None:
    talk = Talk()
    talk.hear(speech(PCM), content(turnComplete=True, interactionStatus=status), HANDLE)
    assert rests(talk)


# How each answer ended


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("MAX_TOKENS", "incomplete"),
        ("SAFETY", "incomplete"),
        ("PROHIBITED_CONTENT", "incomplete"),
        ("GENERATED_AUDIO_SAFETY", "incomplete"),
        ("GENERATED_OTHER", "incomplete"),
        ("MAX_REGENERATION_REACHED", "incomplete"),
        ("MALFORMED_FUNCTION_CALL", "failed"),
        ("RESPONSE_REJECTED", "failed"),
        ("PROHIBITED_INPUT_CONTENT", "failed"),
        ("INPUT_OTHER", "failed"),
        ("SOMETHING_NEW", "failed"),
        ("NEED_MORE_INPUT", "done"),
        ("STOP", "done"),
        ("TURN_COMPLETE_REASON_UNSPECIFIED", "done"),
    ],
)
@pytest.mark.parametrize("field", ["turnCompleteReason", "finishReason"])
@pytest.mark.parametrize("before", [False, True])
def test_how_it_ended(reason: str, status: Any, field: str, before: bool) -> None:
    talk = Talk()
    talk.hear(speech(PCM), said("Yes"))
    why = {field: reason}
    found = talk.hear(content(**why), COMPLETE) if before else talk.hear(content(turnComplete=True, **why))
    end = ResponseEnd(status, "" if status == "done" else reason)
    assert [frame for frame in found if not isinstance(frame, ErrorFrame)] == [
        Transcript("assistant", "Yes", True),
        end,
    ]
    assert len(found) == 2 + (status == "failed")
    # The reason applied to this answer only.
    assert ends(talk.hear(speech(PCM), COMPLETE)) == [DONE]


def test_an_answer_with_tools_ends_once() -> None:
    talk = Talk()
    found = talk.hear(speech(PCM), {**call(("c", {})), **usage(1, 1)})
    assert ends(found) == []
    talk.dialect.send_tool_result("c", "{}")
    assert ends(talk.hear(speech(PCM), GENERATED, COMPLETE, COMPLETE)) == [DONE]


def test_a_call_in_the_message_that_ends_the_turn() -> None:
    talk = Talk()
    assert talk.hear({**speech(PCM), **call(("c", {}))}) == [SPOKEN, ToolCall("c", "get_weather", "{}")]
    assert talk.hear(usage(1, 2)) == [Usage(1, 2)]
    talk.dialect.send_tool_result("c", "{}")
    assert talk.hear({**COMPLETE, **call(("d", {})), **usage(3, 4)}) == [
        Usage(3, 4),
        ToolCall("d", "get_weather", "{}"),
        DONE,
    ]
    assert not responds(talk)


def test_an_answer_whose_calls_were_given_up_was_interrupted() -> None:
    talk = Talk()
    talk.hear(heard("Hm?"), said("I look."), call(("c", {})))
    found = talk.hear({"toolCallCancellation": {"ids": ["c"]}}, COMPLETE)
    assert found == [Transcript("assistant", "I look.", True), CUT_OFF]
    talk.wait(CUT_TIMEOUT)
    talk.hear(said("All"))
    assert assistant(talk.hear(speech(PCM), said(" right."), COMPLETE)) == ["All right."]
    # The model may also go on without them.
    talk.hear(speech(PCM), call(("d", {})), {"toolCallCancellation": {"ids": ["d"]}})
    assert talk.hear(speech(PCM), COMPLETE) == [SPOKEN, DONE]


def test_an_answer_of_nothing_ends_if_it_was_asked_for() -> None:
    for talk in (Talk(), Talk(options=MANUAL)):
        assert talk.hear(COMPLETE) == []
        talk.dialect.send_audio(PCM)
        talk.dialect.commit()
        assert talk.hear(COMPLETE) == [DONE]
        assert talk.hear(COMPLETE) == []


def test_an_interrupted_answer_ends_once() -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    assert frames(talk.dialect) == [Interruption("assistant"), CUT_OFF]
    assert talk.hear(INTERRUPTED, COMPLETE, INTERRUPTED, COMPLETE) == []
    talk.hear(speech(PCM))
    assert talk.hear(INTERRUPTED, INTERRUPTED, COMPLETE) == [Interruption("user"), CUT_OFF]


def test_an_answer_that_was_asked_for_and_interrupted_has_ended() -> None:
    talk = Talk(options=MANUAL)
    talk.dialect.send_audio(PCM)
    talk.dialect.commit()
    talk.dialect.interrupt()
    assert frames(talk.dialect) == [Interruption("assistant"), CUT_OFF]
    assert talk.hear(speech(PCM), COMPLETE) == []
    talk.wait(MUTE_TIMEOUT)
    assert talk.hear(speech(PCM), COMPLETE) == [SPOKEN, DONE]


# Calls


def test_ids_come_again() -> None:
    talk = Talk()
    for _ in range(3):
        assert talk.hear(call(("call_0", {})), call(("call_0", {}))) == [
            ToolCall("call_0", "get_weather", "{}")
        ]
        talk.dialect.send_tool_result("call_0", "{}")
        [message] = talk.sent()
        assert message["toolResponse"]["functionResponses"][0]["id"] == "call_0"
        talk.hear(speech(PCM), COMPLETE)
    assert talk.dialect.stats.repeated_events == 3


@pytest.mark.parametrize("given_up", ["cancelled", "interrupted"])
def test_an_id_that_comes_again_while_an_old_result_may_still_come(given_up: str) -> None:
    talk = Talk()
    talk.hear(call(("call_0", {})))
    if given_up == "cancelled":
        talk.hear({"toolCallCancellation": {"ids": ["call_0"]}})
    else:
        talk.dialect.interrupt()
    talk.hear(COMPLETE)
    [again] = talk.hear(call(("call_0", {"n": 2})))
    assert isinstance(again, ToolCall)
    assert again.call_id != "call_0"
    talk.dialect.send_tool_result(again.call_id, '{"n":2}')
    [message] = talk.sent()
    assert message["toolResponse"]["functionResponses"] == [
        {"id": "call_0", "name": "get_weather", "response": {"n": 2}}
    ]
    talk.dialect.send_tool_result("call_0", "late")
    assert len(talk.sent()) == (given_up == "interrupted")


def test_a_cancellation_means_the_call_that_waits() -> None:
    talk = Talk()
    talk.hear(call(("call_0", {})))
    talk.dialect.send_tool_result("call_0", "{}")
    talk.hear({"toolCallCancellation": {"ids": ["call_0", "unknown", ""]}})  # too late
    [again] = talk.hear(call(("call_0", {})))
    talk.hear({"toolCallCancellation": {"ids": ["call_0"]}}, {"toolCallCancellation": {"ids": ["call_0"]}})
    assert talk.dialect.open_calls == ()
    talk.sent()
    talk.dialect.send_tool_result("call_0", "{}")
    assert talk.sent() == []
    assert isinstance(again, ToolCall)


def test_a_cancellation_never_means_a_call_without_a_name() -> None:
    talk = Talk()
    [nameless] = talk.hear(call((None, {})))
    assert isinstance(nameless, ToolCall)
    talk.hear({"toolCallCancellation": {"ids": [nameless.call_id, ""]}})
    assert talk.dialect.open_calls == (nameless.call_id,)


@pytest.mark.parametrize(
    "abandoned", [INTERRUPTED, {"toolCallCancellation": {"ids": ["c"]}}], ids=["cut", "cancelled"]
)
def test_an_abandoned_call_is_not_delivered(abandoned: Json) -> None:
    talk = Talk()
    talk.hear(speech(PCM))
    for message in (call(("c", {})), abandoned):
        talk.dialect.receive_message(json.dumps(message))
    assert not [frame for frame in frames(talk.dialect) if isinstance(frame, ToolCall)]
    assert talk.dialect.open_calls == ()
    assert not talk.dialect.takes_result("c")
    with pytest.raises(LocalProtocolError, match="no tool call 'c'"):
        talk.dialect.send_tool_result("c", "{}")
    # The id is free again.
    assert talk.hear(COMPLETE, call(("c", {})))[-1] == ToolCall("c", "get_weather", "{}")


def test_a_call_is_told_although_we_interrupted_since_the_model_waits_for_it() -> None:
    talk = Talk()
    talk.dialect.receive_message(json.dumps(call(("c", {}))))
    talk.dialect.interrupt()
    assert [type(frame) for frame in frames(talk.dialect)] == [ToolCall, Interruption, ResponseEnd]
    talk.dialect.send_tool_result("c", "{}")
    assert len(talk.sent()) == 1


@pytest.mark.parametrize(
    ("args", "arguments"),
    [
        ({}, "{}"),
        (None, "{}"),
        ({"a": 1.0}, '{"a":1.0}'),
        ('{"a":1}', '{"a":1}'),
        ("[1]", '"[1]"'),
        ("x", '"x"'),
        ([1], "[1]"),
        ({"a": "\ud800"}, '{"a":"\ufffd"}'),
    ],
)
def test_arguments(args: Any, arguments: str) -> None:
    talk = Talk()
    talk.dialect.receive_message(json.dumps({"toolCall": {"functionCalls": [{"name": "n", "args": args}]}}))
    [frame] = frames(talk.dialect)
    assert isinstance(frame, ToolCall)
    assert json.loads(frame.arguments) == json.loads(arguments)
