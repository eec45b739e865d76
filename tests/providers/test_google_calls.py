"""What the Gemini dialect remembers of calls, of tools and of the handle to resume with."""

from __future__ import annotations

from speko_anyio.protocol import ServerToolCall
from speko_anyio.providers.google._calls import NamedCalls, ServerTools
from speko_anyio.providers.google._events import ResumptionUpdate
from speko_anyio.providers.google._resumption import Resumption


def test_the_provider_may_reuse_or_leave_out_ids() -> None:
    calls = NamedCalls(4)
    ids = [calls.issue("c", "f"), calls.issue("", "g"), calls.issue("", "g")]
    assert ids == ["c", "call-1", "call-2"]
    assert calls.is_open("c")
    assert (made_up := calls.answer_to("call-1")) is not None
    assert (made_up.name, made_up.wire_id) == ("g", None)
    calls.forget("c")
    assert not calls.is_open("c")
    assert calls.issue("c", "f") == "c"
    assert not calls.full
    calls.issue("", "g")
    assert calls.full


def test_a_cancelled_call_takes_a_result_that_is_not_answered() -> None:
    calls = NamedCalls(2)
    calls.issue("c", "f")
    assert calls.cancel("c") == "c"
    assert calls.cancel("c") is None
    assert calls.open == ()
    assert "c" in calls
    assert calls.answer_to("c") is None
    assert calls.issue("c", "f") == "call-1", "its earlier namesake may still get a result"
    calls.forget("c")
    assert "c" not in calls


def test_a_call_that_nobody_got_takes_no_result() -> None:
    calls = NamedCalls(2)
    calls.issue("c", "f")
    calls.forget("c")
    assert "c" not in calls
    assert calls.open == ()


def test_a_handle_goes_stale_with_an_answer_and_is_restored_when_there_was_none() -> None:
    handle = Resumption("old")
    assert handle.handle == "old"
    assert [handle.fresh] == [False]
    assert handle.receive(ResumptionUpdate(new_handle="new", resumable=True)) is True
    handle.begin_answer()
    assert [handle.fresh] == [False]
    handle.retract_answer()
    assert [handle.fresh] == [True]
    handle.begin_answer()
    handle.outdate()
    handle.retract_answer()
    assert [handle.fresh] == [False]
    assert handle.receive(ResumptionUpdate(new_handle="newer", resumable=False)) is False
    assert handle.handle == "new"


def test_googles_own_tools_are_reported_once_an_answer() -> None:
    tools = ServerTools()
    assert tools.completed("a", new_answer=True) == ServerToolCall("a-1", "a", "completed")
    assert tools.completed("a", new_answer=True) is None
    assert tools.completed("b", new_answer=True) == ServerToolCall("b-2", "b", "completed")
    tools.end_answer()
    assert tools.completed("a", new_answer=False) is None
    assert tools.completed("a", new_answer=True) == ServerToolCall("a-3", "a", "completed")
