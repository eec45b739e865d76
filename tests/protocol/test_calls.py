from __future__ import annotations

from speko_anyio.protocol._calls import Calls


def test_an_issued_call_is_open_until_it_is_answered() -> None:
    calls = Calls(4)
    calls.issue("b")
    calls.issue("a")
    assert list(calls.open) == ["b", "a"]
    assert "a" in calls
    calls.answer("b")
    assert list(calls.open) == ["a"]
    assert "b" not in calls


def test_an_id_may_be_used_again_after_its_answer() -> None:
    calls = Calls(4)
    calls.issue("a")
    calls.answer("a")
    calls.issue("a")
    assert list(calls.open) == ["a"]


def test_it_is_full_at_its_limit_and_an_answer_makes_room() -> None:
    calls = Calls(2)
    seen = []
    for step, call_id in ((calls.issue, "a"), (calls.issue, "b"), (calls.answer, "a")):
        step(call_id)
        seen.append(calls.full)
    assert seen == [False, True, False]


def test_a_moot_call_can_still_be_answered_once_and_does_not_count() -> None:
    calls = Calls(1)
    calls.issue("a")
    calls.abandon_open()
    assert list(calls.open) == []
    assert not calls.full
    assert "a" in calls
    calls.answer("a")
    assert "a" not in calls


def test_too_many_moot_calls_push_out_the_oldest() -> None:
    calls = Calls(2)
    for call_id in ("a", "b"):
        calls.issue(call_id)
    calls.abandon_open()
    calls.issue("c")
    calls.abandon_open()
    assert [call_id in calls for call_id in ("a", "b", "c")] == [False, True, True]


def test_a_moot_id_issued_again_is_answered_once() -> None:
    calls = Calls(4)
    calls.issue("a")
    calls.abandon_open()
    calls.issue("a")
    calls.answer("a")
    assert "a" not in calls
