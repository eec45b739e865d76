"""The book of a bridged session's tool calls."""

from __future__ import annotations

from speko_anyio.providers.bridge._calls import CallNames


def test_the_client_gets_the_provider_s_own_ids() -> None:
    calls = CallNames(4)
    assert [calls.issue("a"), calls.issue("b")] == ["a", "b"]
    assert len(calls) == 2
    assert calls.answer("b") == "b"
    assert calls.answer("b") is None
    assert len(calls) == 1


def test_an_id_is_not_used_again() -> None:
    calls = CallNames(4)
    calls.issue("a")
    calls.disconnect()
    assert [calls.issue("a"), calls.issue("a")] == ["a-2", "a-3"]
    assert calls.answer("a") is None, "its connection is gone"
    assert calls.answer("a-2") == "a"
    assert calls.issue("a") == "a-4"


def test_abandoned_calls_take_no_place_and_can_be_answered() -> None:
    calls = CallNames(2)
    calls.issue("a")
    calls.issue("b")
    assert calls.full
    calls.abandon_open()
    assert len(calls) == 0
    assert calls.issue("c") == "c"
    assert calls.answer("a") == "a"


def test_the_oldest_that_nobody_waits_for_are_forgotten() -> None:
    calls = CallNames(2)
    for number in range(10):
        calls.issue(f"c{number}")
        calls.abandon_open()
    assert [name for name in map(calls.answer, [f"c{n}" for n in range(10)]) if name] == [
        "c6",
        "c7",
        "c8",
        "c9",
    ]
