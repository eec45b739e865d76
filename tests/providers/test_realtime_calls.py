"""The tool calls of the realtime dialect alone: groups, reused ids, and tools of the provider."""

from __future__ import annotations

import json

import pytest

from speko_anyio.protocol import ServerToolCall
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.openai import OpenAIDialect
from speko_anyio.providers.realtime import _events as wire
from speko_anyio.providers.realtime._calls import (
    Call,
    ServerTools,
    ToolCalls,
    asks_for_approval,
    is_server_tool,
)


def call(call_id: str, item_id: str = "", arguments: str = "{}") -> Call:
    return Call(call_id, item_id, "f", arguments)


def test_the_last_result_completes_the_calls_of_a_response_that_is_over() -> None:
    calls = ToolCalls(8)
    assert calls.issue("r1", call("a"), over=False) == "a"
    calls.issue("r1", call("b"), over=False)
    assert calls.open == ("a", "b")
    assert not calls.completes("a")
    calls.answer("a")
    assert not calls.completes("b"), "the response may still add calls"
    assert not calls.response_over("r1")
    assert calls.completes("b")
    calls.answer("b")
    assert "b" not in calls


def test_a_response_that_ends_after_all_results_wants_the_next_one() -> None:
    calls = ToolCalls(8)
    calls.issue("r1", call("a"), over=False)
    calls.answer("a")
    assert calls.response_over("r1")
    assert not calls.response_over("r1")
    assert not calls.response_over("r2"), "it had no calls"


def test_a_call_of_a_response_that_was_over_completes_at_once() -> None:
    calls = ToolCalls(8)
    calls.issue("r1", call("a"), over=True)
    assert calls.completes("a")


def test_an_interruption_abandons_open_calls_but_results_are_taken() -> None:
    calls = ToolCalls(1)
    calls.issue("r1", call("a"), over=False)
    assert calls.full
    calls.abandon_open()
    assert calls.open == ()
    assert "a" in calls
    assert not calls.full


def test_a_withdrawn_call_is_waited_for_by_nobody() -> None:
    calls = ToolCalls(8)
    calls.issue("r1", call("a"), over=False)
    calls.issue("r1", call("b"), over=False)
    calls.withdraw("a")
    assert "a" not in calls
    calls.response_over("r1")
    assert calls.completes("b")


def test_a_call_whose_id_is_taken_gets_another_name() -> None:
    calls = ToolCalls(8)
    names = [calls.issue(f"r{number}", call("call_0"), over=False) for number in range(3)]
    assert names == ["call_0", "call_0-2", "call_0-3"]
    assert [calls.provider_id(name) for name in names] == ["call_0"] * 3
    calls.answer("call_0-2")
    assert calls.provider_id("call_0-2") == "call_0-2", "no longer ours"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Call("a", "i1", "f", "{}"), True),
        (Call("a", "i1", "g", "[]"), True),
        (Call("a", "i2", "f", "{}"), True),
        (Call("a", "", "", "{}"), True),
        (Call("a", "i2", "f", "[]"), False),
        (Call("a", "i2", "g", "{}"), False),
        (Call("b", "i1", "f", "{}"), False),
    ],
)
def test_which_reports_are_of_one_call(other: Call, same: bool) -> None:
    calls = ToolCalls(8)
    calls.issue("r1", Call("a", "i1", "f", "{}"), over=False)
    assert calls.was_issued("r1", other) is same
    assert not calls.was_issued("r2", other)
    calls.response_begins("r1")
    assert not calls.was_issued("r1", other), "another response with the same id"


def test_a_response_that_reuses_an_id_does_not_wait_for_the_calls_of_the_first() -> None:
    calls = ToolCalls(8)
    calls.issue("r1", call("a"), over=False)
    calls.response_begins("r1")
    assert not calls.response_over("r1")
    assert calls.completes("a")


def test_results_count_as_known_once_confirmed_or_requested_after() -> None:
    calls = ToolCalls(8)
    for name in ("a", "b"):
        calls.issue(name, call("x"), over=False)
    found = [calls.all_acknowledged]
    calls.answer("x")
    calls.answer("x-2")
    calls.acknowledged("x")
    found.append(calls.all_acknowledged)
    calls.acknowledged("x")
    assert [*found, calls.all_acknowledged] == [True, False, True]
    calls.issue("c", call("y"), over=False)
    calls.answer("y")
    calls.forget_acknowledgements()
    assert calls.all_acknowledged


def test_the_name_of_a_function_may_come_with_the_item_only() -> None:
    calls = ToolCalls(8)
    calls.note_function(wire.Item(id="i1", type="function_call", name="f"))
    calls.note_function(wire.Item(id="i2", type="message", name="g"))
    assert calls.of_arguments(wire.ArgumentsDone(item_id="i1", call_id="a", arguments="{}")) == call(
        "a", "i1"
    )
    assert calls.of_arguments(wire.ArgumentsDone(item_id="i2")) == Call("i2", "i2", "", "")
    assert calls.of_arguments(wire.ArgumentsDone(item_id="i1", name="h")).name == "h"


def test_a_tool_of_the_provider_begins_and_ends_once() -> None:
    tools = ServerTools()
    assert tools.update("i1", "search", "started") == [ServerToolCall("i1", "search", "started")]
    assert tools.update("i1", None, "started") == []
    assert tools.update("i1", None, "completed") == [ServerToolCall("i1", "search", "completed")]
    assert tools.update("i1", None, "failed") == []
    assert tools.update("i1", None, "started") == []
    tools.response_begins("r2")
    assert tools.update("i1", "search", "started") != []


def test_a_running_tool_goes_on_in_the_next_response() -> None:
    tools = ServerTools()
    tools.update("i1", "search", "started")
    tools.response_begins("r2")
    assert tools.update("i1", None, "completed") == [ServerToolCall("i1", "search", "completed")]


def test_a_request_for_approval_is_new_once_in_its_response() -> None:
    tools = ServerTools()
    item = wire.Item(id="i1", type="mcp_approval_request")
    assert not tools.is_new_approval(wire.Item(type="mcp_approval_request"), "r1", "r1")
    assert tools.is_new_approval(item, None, "r1")
    assert not tools.is_new_approval(item, "r1", "r1")
    assert not tools.is_new_approval(item, None, "r2")
    assert tools.is_new_approval(item, "r2", "r2"), "the id is used again"
    tools.response_begins("r2")
    assert tools.is_new_approval(item, None, "r2")


@pytest.mark.parametrize(
    ("kind", "server_tool", "approval"),
    [
        ("mcp_call", True, False),
        ("web_search_call", True, False),
        ("function_call", False, False),
        ("message", False, False),
        ("mcp_approval_request", False, True),
        (None, False, False),
    ],
)
def test_which_items_are_tools_of_the_provider(kind: str | None, server_tool: bool, approval: bool) -> None:
    item = wire.Item(type=kind)
    assert (is_server_tool(item), asks_for_approval(item)) == (server_tool, approval)


def test_calls_that_nothing_confirms_are_bounded() -> None:
    dialect = OpenAIDialect(SessionConfig(provider="openai", model="m"))
    for message in ({"type": "session.created"}, {"type": "session.updated"}):
        dialect.receive_message(json.dumps(message))
    for number in range(dialect.limits.max_open_calls + 1):
        assert dialect.closed is None
        done = {"response_id": "r", "item_id": f"i{number}", "call_id": f"c{number}", "arguments": "{}"}
        dialect.receive_message(json.dumps({"type": "response.function_call_arguments.done", **done}))
    assert dialect.closed is not None
    assert dialect.closed.code == 1008
