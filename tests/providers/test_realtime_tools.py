"""Tool calls: when they are handed out, how they are answered, and the one request that follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from speko_anyio.protocol import (
    ErrorFrame,
    Interruption,
    Limits,
    LocalProtocolError,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
)
from speko_anyio.protocol._commands import Update
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.openai import OpenAIOptions, ServerVad

from .realtime_talk import (
    COMMITTED,
    MANUAL,
    SPEECH_STARTED,
    SPEECH_STOPPED,
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
    xai,
    xai_call,
)

ITEM = "conversation.item.create"
CREATE = "response.create"

Setting = tuple[Talk[Any], Callable[[str, str], Event]]


@pytest.fixture(params=["openai", "xai"])
def setting(request: pytest.FixtureRequest) -> Setting:
    """A session in automatic mode, and how its provider makes a call."""
    if request.param == "openai":
        return openai().make_ready(), call
    return xai().make_ready(), xai_call


def acknowledged(call_id: str) -> Event:
    return {"type": "conversation.item.added", "item": {"type": "function_call_output", "call_id": call_id}}


def test_a_call_is_answered_and_the_model_asked_to_go_on(setting: Setting) -> None:
    talk, make_call = setting
    assert talk.hear(created("r1"), make_call("r1", "c1")) == [ToolCall("c1", "get_weather", "{}")]
    assert talk.dialect.open_calls == ("c1",)
    talk.hear(done("r1"))
    talk.dialect.send_tool_result("c1", "7 degrees")
    item, request = talk.sent()
    assert item["item"] == {"type": "function_call_output", "call_id": "c1", "output": "7 degrees"}
    assert request["type"] == CREATE
    assert talk.dialect.open_calls == ()


def test_parallel_calls_are_followed_by_one_request(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), make_call("r1", "c1"), make_call("r1", "c2"), make_call("r1", "c3"))
    talk.dialect.send_tool_result("c2", "")
    assert talk.sent_types() == [ITEM]
    talk.hear(done("r1"))
    talk.dialect.send_tool_result("c3", "")
    assert talk.sent_types() == [ITEM]
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM, CREATE]


def test_results_before_the_end_of_the_response_wait_for_it(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), make_call("r1", "c1"))
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM]
    talk.hear(done("r1"))
    assert talk.sent_types() == [CREATE]


def test_a_result_needs_an_open_call(setting: Setting) -> None:
    talk, make_call = setting
    with pytest.raises(LocalProtocolError, match="no tool call 'c1' is open"):
        talk.dialect.send_tool_result("c1", "")
    talk.hear(created("r1"), make_call("r1", "c1"))
    talk.dialect.send_tool_result("c1", "")
    with pytest.raises(LocalProtocolError, match="no tool call 'c1' is open"):
        talk.dialect.send_tool_result("c1", "")


def test_a_result_must_be_text(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), make_call("r1", "c1"))
    with pytest.raises(TypeError, match="JSON text"):
        talk.dialect.send_tool_result("c1", {"temp": 7})
    with pytest.raises(LocalProtocolError, match="surrogate"):
        talk.dialect.send_tool_result("c1", "\ud800")
    assert talk.sent() == []
    talk.dialect.send_tool_result("c1", "7")
    assert talk.sent_types() == [ITEM]


def test_a_result_that_does_not_fit_can_be_sent_again() -> None:
    talk = openai(limits=Limits(max_outbox=10_000)).make_ready()
    talk.hear(created("r1"), call("r1", "c1"), done("r1"))
    with pytest.raises(LocalProtocolError, match="outbox"):
        talk.dialect.send_tool_result("c1", "x" * 10_000)
    talk.dialect.send_tool_result("c1", "x")
    assert talk.sent_types() == [ITEM, CREATE]


def test_calls_repeat(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), make_call("r1", "c1"))
    assert talk.hear(make_call("r1", "c1")) == []
    assert talk.dialect.stats.repeated_events == 1
    talk.dialect.send_tool_result("c1", "")
    assert talk.hear(make_call("r1", "c1")) == []


def test_a_call_that_was_cut_off_is_none() -> None:
    talk = openai().make_ready()
    arguments = {**xai_call("r1", "c1"), "arguments": '{"city":"Os'}
    assert talk.hear(created("r1"), arguments, call("r1", "c1", "incomplete"), done("r1", "cancelled")) == [
        ResponseEnd("interrupted")
    ]


def test_calls_that_are_only_in_the_response_count() -> None:
    talk = openai().make_ready()
    output = [call("r1", "c1")["item"], call("r1", "c2")["item"], call("r1", "c3", "incomplete")["item"]]
    frames = talk.hear(created("r1"), call("r1", "c1"), done("r1", output=[*output, {"type": "message"}]))
    assert frames == [
        ToolCall("c1", "get_weather", "{}"),
        ToolCall("c2", "get_weather", "{}"),
        ResponseEnd("done"),
    ]
    talk.dialect.send_tool_result("c2", "")
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM, ITEM, CREATE]


def test_a_call_after_the_end_of_its_response_is_answered_like_any() -> None:
    talk = openai().make_ready()
    assert len(talk.hear(created("r1"), done("r1"), call("r1", "c1"))) == 2
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM, CREATE]


def test_a_call_without_an_id_cannot_be_answered() -> None:
    talk = xai().make_ready()
    (frame,) = talk.hear({**xai_call("r1", ""), "call_id": None})
    assert isinstance(frame, ErrorFrame)


def test_more_calls_than_the_limit_break_the_protocol(setting: Setting) -> None:
    make_call = setting[1]
    limits = Limits(max_open_calls=2)
    talk: Talk[Any] = openai(limits=limits) if make_call is call else xai(limits=limits)
    talk.make_ready()
    frames = talk.hear(*(make_call("r1", f"c{number}") for number in range(3)))
    assert [type(frame).__name__ for frame in frames] == ["ToolCall", "ToolCall", "ResponseEnd", "Close"]
    assert talk.dialect.closed is not None
    assert talk.dialect.closed.code == 1008


def test_several_things_wrong_with_one_event_are_one_end() -> None:
    talk = openai(limits=Limits(max_open_calls=1, max_text_size=4000)).make_ready()
    output = [call("r1", f"c{number}")["item"] for number in range(3)]
    frames = talk.hear(done("r1", output=output, usage={"input_token_details": {}}))
    assert [type(frame).__name__ for frame in frames] == ["ToolCall", "ResponseEnd", "Close"]


# The floor


def test_no_answer_is_forced_while_the_user_speaks(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), make_call("r1", "c1"), done("r1"), SPEECH_STARTED)
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM]
    talk.hear(acknowledged("c1"), SPEECH_STOPPED, COMMITTED, created("r2"), done("r2"))
    assert talk.sent() == []  # the provider's own answer knew the result


def test_an_answer_that_may_not_know_the_result_is_followed_by_another(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), make_call("r1", "c1"), done("r1"), SPEECH_STARTED)
    talk.dialect.send_tool_result("c1", "")
    talk.hear(SPEECH_STOPPED, COMMITTED, created("r2"), acknowledged("c1"), done("r2"))
    assert talk.sent_types() == [ITEM, CREATE]


def test_a_provider_that_does_not_answer_the_user_is_asked(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), make_call("r1", "c1"), done("r1"), SPEECH_STARTED)
    talk.dialect.send_tool_result("c1", "")
    talk.hear(SPEECH_STOPPED)
    talk.sent()
    talk.wait(4.9)
    assert talk.sent() == []
    talk.wait(0.2)
    assert talk.sent_types() == [CREATE]


def test_where_turns_are_not_answered_unasked_the_result_need_not_wait() -> None:
    talk = openai(OpenAIOptions(turn_detection=ServerVad(create_response=False))).make_ready()
    talk.hear(created("r1"), call("r1", "c1"), done("r1"), SPEECH_STARTED)
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM]
    talk.hear(SPEECH_STOPPED)
    assert talk.sent_types() == [CREATE]


def test_speech_that_is_cleared_gives_the_floor_back() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), call("r1", "c1"), done("r1"), SPEECH_STARTED)
    talk.dialect.send_tool_result("c1", "")
    talk.hear({"type": "input_audio_buffer.cleared"})
    assert talk.sent_types() == [ITEM, CREATE]


def test_results_after_an_interruption_still_count(setting: Setting) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), speech("r1", "a1", 100), make_call("r1", "c1"), make_call("r1", "c2"))
    talk.dialect.interrupt()
    talk.hear(done("r1", "cancelled"))
    talk.sent()
    assert talk.dialect.open_calls == ()
    talk.dialect.send_tool_result("c1", "")
    talk.dialect.send_tool_result("c2", "")
    assert talk.sent_types() == [ITEM, ITEM, CREATE]


def test_an_interruption_leaves_the_answer_to_tools_owed() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(created("r1"), call("r1", "c1"), done("r1"), created("r2"))
    talk.dialect.send_tool_result("c1", "")
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    talk.dialect.interrupt()
    talk.sent()
    talk.hear(done("r2", "cancelled"))
    assert talk.sent_types() == [CREATE]


def test_forgotten_calls_do_not_hold_up_the_others() -> None:
    talk = openai(limits=Limits(max_open_calls=1)).make_ready()
    for number in range(3):
        talk.hear(created(f"r{number}"), call(f"r{number}", f"c{number}"))
        talk.dialect.interrupt()
        talk.hear(done(f"r{number}", "cancelled"))
    talk.sent()
    with pytest.raises(LocalProtocolError):
        talk.dialect.send_tool_result("c0", "")
    talk.dialect.send_tool_result("c2", "")
    assert talk.sent_types() == [ITEM, CREATE]


def test_a_request_for_tools_that_met_another_response_is_repeated() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), call("r1", "c1"), done("r1"))
    talk.dialect.send_tool_result("c1", "")
    request = talk.sent()[-1]
    talk.hear(created("vad"), refusal(request, "vad"))
    assert talk.sent() == []
    talk.hear(done("vad"))
    assert talk.sent_types() == [CREATE]


def test_the_same_on_xai_which_names_no_request() -> None:
    talk = xai().make_ready()
    talk.hear(created("r1"), xai_call("r1", "c1"), done("r1"))
    talk.dialect.send_tool_result("c1", "")
    talk.sent()
    talk.hear(error(None, "Conversation already has an active response"), created("vad"), done("vad"))
    assert talk.sent_types() == [CREATE]


def test_a_request_for_tools_is_granted() -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), call("r1", "c1"), done("r1"))
    talk.dialect.send_tool_result("c1", "")
    request = talk.sent()[-1]
    assert talk.hear(granted(request, "r2"), done("r2")) == [ResponseEnd("done")]
    assert talk.wait(10) == []
    assert talk.sent() == []


def test_a_turn_and_tools_are_answered_together() -> None:
    talk = openai(MANUAL).make_ready()
    talk.hear(created("r1"), call("r1", "c1"))
    talk.dialect.send_tool_result("c1", "")
    talk.dialect.send_audio(pcm(100))
    talk.dialect.commit()
    talk.sent()
    talk.hear(done("r1"))
    (request,) = talk.sent()
    talk.hear(granted(request, "r2"), done("r2"))
    assert talk.sent() == []


# Tools on the provider's side


def mcp(status: str, item_id: str = "m1") -> Event:
    return {"type": f"response.mcp_call.{status}", "item_id": item_id}


def item(event: str, status: str, kind: str = "mcp_call") -> Event:
    return {
        "type": f"response.output_item.{event}",
        "response_id": "r1",
        "item": {"id": "m1", "type": kind, "name": "search", "status": status},
    }


def test_a_server_tool_is_told_once_per_step() -> None:
    talk = openai().make_ready()
    frames = talk.hear(
        item("added", "in_progress"),
        mcp("in_progress"),
        mcp("completed"),
        item("done", "completed"),
        mcp("completed"),
        mcp("in_progress"),
    )
    assert frames == [ServerToolCall("m1", "search", "started"), ServerToolCall("m1", "search", "completed")]


@pytest.mark.parametrize("end", [mcp("failed"), item("done", "failed"), item("done", "incomplete")])
def test_a_server_tool_fails(end: Event) -> None:
    talk = xai(XAI_MANUAL).make_ready()
    assert talk.hear(mcp("in_progress"), end)[-1].status == "failed"  # type: ignore[union-attr]


def test_server_tools_of_other_kinds_are_told_by_their_items() -> None:
    talk = xai().make_ready()
    frames = talk.hear(
        item("added", "in_progress", "web_search_call"),
        item("done", "in_progress", "web_search_call"),
        item("done", "completed", "web_search_call"),
        item("added", "in_progress", "message"),
        {**item("done", "completed"), "item": {"id": "x"}},
    )
    assert [frame.status for frame in frames] == ["started", "completed"]  # type: ignore[union-attr]


def test_server_tools_are_forgotten_in_time() -> None:
    talk = openai().make_ready()
    for number in range(300):
        talk.hear(mcp("in_progress", f"m{number}"))
    assert len(talk.hear(mcp("in_progress", "m0"))) == 1
    assert talk.hear(mcp("in_progress", "m299")) == []


# Approvals


APPROVAL = {
    "id": "appr_1",
    "type": "mcp_approval_request",
    "name": "search",
    "server_label": "docs",
    "arguments": "{}",
}


def _asks(kind: str, response_id: str = "r1") -> Event:
    return {"type": kind, "response_id": response_id, "item": APPROVAL}


@pytest.mark.parametrize(
    "events",
    [
        [_asks("response.output_item.added"), _asks("response.output_item.done")],
        [_asks("conversation.item.added"), _asks("response.output_item.done")],
        [_asks("conversation.item.created")],
        [],
    ],
)
def test_an_approval_that_nobody_can_give_is_told_and_denied(events: list[Event]) -> None:
    talk = openai().make_ready()
    *told, end = talk.hear(created("r1"), *events, done("r1", output=[APPROVAL]))
    assert told[:-1] == [
        ServerToolCall("appr_1", "search", "started"),
        ServerToolCall("appr_1", "search", "failed"),
    ]
    assert isinstance(told[-1], ErrorFrame)
    assert told[-1].code == "provider_approval_denied"
    assert "'search'" in told[-1].message
    assert "require_approval" in told[-1].message
    assert end == ResponseEnd("done")
    denial, request = talk.sent()
    assert (denial["item"]["approval_request_id"], denial["item"]["approve"]) == ("appr_1", False)
    assert request["type"] == CREATE
    # A repeated request is not answered again.
    assert talk.hear(granted(request, "r2"), _asks("conversation.item.added"), done("r2")) == [
        ResponseEnd("done")
    ]
    assert talk.sent() == []


@pytest.mark.parametrize("response_id", ["r3", "r1"])
def test_an_approval_may_have_the_id_of_an_earlier_one(response_id: str) -> None:
    talk = openai().make_ready()
    talk.hear(created("r1"), _asks("response.output_item.added"), done("r1"))
    talk.hear(granted(talk.sent()[1], "r2"), done("r2"))
    talk.hear(created(response_id), _asks("response.output_item.added", response_id), done(response_id))
    assert talk.sent_types() == [ITEM, CREATE]


ASKED = '{"server_label":"docs","name":"search","arguments":"{}"}'
APPROVING = OpenAIOptions(approval_tool="approve")


@pytest.mark.parametrize(
    ("result", "approve", "reason"),
    [("true", True, None), ("false", False, "false"), ("too dear", False, "too dear")],
)
def test_a_tool_of_the_session_decides_on_approvals(result: str, approve: bool, reason: str | None) -> None:
    talk = openai(APPROVING).make_ready()
    incomplete = {**APPROVAL, "arguments": ""}
    begins = {"type": "response.output_item.added", "response_id": "r1", "item": incomplete}
    added = {"type": "conversation.item.added", "item": incomplete}
    asks = _asks("response.output_item.done")
    assert talk.hear(created("r1"), begins, added, asks, asks) == [ToolCall("appr_1", "approve", ASKED)]
    assert talk.dialect.open_calls == ("appr_1",)
    assert talk.hear(done("r1", output=[APPROVAL])) == [ResponseEnd("done")]
    assert talk.sent() == []
    talk.dialect.send_tool_result("appr_1", result)
    answer, request = talk.sent()
    assert answer["item"]["type"] == "mcp_approval_response"
    assert (answer["item"]["approval_request_id"], answer["item"]["approve"]) == ("appr_1", approve)
    assert answer["item"].get("reason") == reason
    assert request["type"] == CREATE


def test_approvals_and_calls_of_one_response_are_followed_by_one_request() -> None:
    talk = openai(APPROVING).make_ready()
    talk.hear(created("r1"), call("r1", "c1"), _asks("response.output_item.done"), done("r1"))
    talk.dialect.send_tool_result("appr_1", "true")
    assert talk.sent_types() == [ITEM]
    talk.dialect.send_tool_result("c1", "{}")
    assert talk.sent_types() == [ITEM, CREATE]


def test_a_call_with_the_id_of_an_answered_approval_gets_the_result_of_a_call() -> None:
    talk = openai(APPROVING).make_ready()
    talk.hear(created("r1"), _asks("response.output_item.done"), done("r1"))
    talk.dialect.send_tool_result("appr_1", "true")
    talk.hear(granted(talk.sent()[1], "r2"), call("r2", "appr_1"), done("r2"))
    talk.dialect.send_tool_result("appr_1", "{}")
    result, _ = talk.sent()
    assert result["item"]["type"] == "function_call_output"


def test_an_approval_that_only_the_end_of_a_response_reports_is_asked_for() -> None:
    talk = openai(APPROVING).make_ready()
    frames = talk.hear(created("r1"), done("r1", output=[APPROVAL]))
    assert frames == [ToolCall("appr_1", "approve", ASKED), ResponseEnd("done")]


def test_too_many_approvals_end_the_session() -> None:
    talk = openai(APPROVING, limits=Limits(max_open_calls=1)).make_ready()
    talk.hear(created("r1"), call("r1", "c1"), _asks("response.output_item.done"))
    assert talk.dialect.closed is not None


def test_the_model_can_not_call_the_tool_that_approves() -> None:
    tools = (ToolSpec(name="approve"), ToolSpec(name="other"))
    config = SessionConfig(provider="openai", model="gpt-realtime-2.1", tools=tools)
    talk = openai(APPROVING, config)
    talk.hear({"type": "session.created"})
    assert [tool["name"] for tool in talk.sent()[0]["session"]["tools"]] == ["other"]
    talk.hear({"type": "session.updated", "session": {}})
    talk.dialect.update(Update(tools=tools))
    assert [tool["name"] for tool in talk.sent()[0]["session"]["tools"]] == ["other"]


# Interruptions


@pytest.mark.parametrize("by_user", [True, False])
def test_calls_that_an_interruption_made_moot_are_not_waited_for(setting: Setting, by_user: bool) -> None:
    talk, make_call = setting
    talk.hear(created("r1"), speech("r1", "a1", 400), make_call("r1", "c1"), make_call("r1", "c2"))
    assert talk.dialect.open_calls == ("c1", "c2")
    assert not talk.dialect.at_rest
    if by_user:
        talk.hear(SPEECH_STARTED, done("r1", "cancelled"), SPEECH_STOPPED)
    else:
        talk.dialect.interrupt()
        talk.hear(done("r1", "cancelled"))
    assert talk.dialect.open_calls == ()
    assert talk.dialect.at_rest
    assert talk.dialect.takes_result("c1")
    talk.sent()
    # They don't count against the limit either.
    for number in range(3, 3 + talk.dialect.limits.max_open_calls):
        assert len(talk.hear(make_call("r2", f"c{number}"))) == 1


def test_calls_that_nobody_took_yet_are_taken_back(setting: Setting) -> None:
    talk, make_call = setting
    assert len(talk.hear(created("r1"), make_call("r1", "c1"))) == 1
    frames = talk.hear(
        make_call("r1", "c2"), SPEECH_STARTED, done("r1", "cancelled"), SPEECH_STOPPED, COMMITTED
    )
    assert frames == [Interruption("user"), ResponseEnd("interrupted")]
    assert not talk.dialect.takes_result("c2")
    # The call that was reported is complete without it.
    talk.dialect.send_tool_result("c1", "")
    assert talk.sent_types() == [ITEM, CREATE]
    # Another call may reuse its id.
    assert talk.hear(created("r2"), make_call("r2", "c2")) == [
        ToolCall("c2", "get_weather", "{}"),
    ]


@pytest.mark.parametrize("by_user", [True, False])
def test_calls_of_an_answer_that_was_cut_off_are_not_told_any_more(by_user: bool) -> None:
    for talk, status in ((xai().make_ready(), None), (openai().make_ready(), "incomplete")):
        talk.hear(created("r1"), speech("r1", "a1", 400))
        if by_user:
            talk.hear(SPEECH_STARTED)
        else:
            talk.dialect.interrupt()
            talk.frames()
        late = [xai_call("r1", "c1"), call("r1", "c1", status or "in_progress"), done("r1", "cancelled")]
        assert talk.hear(*late) == [ResponseEnd("interrupted")]
        assert talk.dialect.open_calls == ()
