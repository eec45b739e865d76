"""The response gate alone: which response is in flight, and whether another may be requested."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.protocol._timers import Timers
from speko_anyio.providers.realtime._gate import RESPONSE_TIMEOUT, Phase, Reason, ResponseGate

KEY = "request"


class Book:
    """A gate with its timers."""

    def __init__(self, *, auto: bool = True, metadata_key: str | None = KEY) -> None:
        self.timers = Timers()
        self.gate = ResponseGate(self.timers.start, self.timers.stop, auto=auto, metadata_key=metadata_key)

    def running(self) -> list[str]:
        """The timers that run: all of them for the same time, and none twice."""
        self.timers.settle(0.0)
        return sorted(name for name, late in self.timers.expired(RESPONSE_TIMEOUT) if late == 0.0)

    def begin(self, response_id: str, metadata: Any = None, *, user_speaking: bool = False) -> Any:
        return self.gate.begin(response_id, metadata, user_speaking=user_speaking)


def test_a_request_waits_so_long_and_no_longer() -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    assert (book.gate.phase, book.gate.in_flight) == (Phase.REQUESTED, False)
    assert book.running() == ["response"]
    assert [book.gate.request_failed(), book.gate.request_failed()] == [True, False]
    assert book.gate.idle


def test_a_failed_request_is_no_longer_waited_for() -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    book.gate.unwanted = True
    book.gate.request_failed()
    assert book.running() == []
    assert (book.gate.open_request, book.gate.unwanted) == (None, False)


def test_tools_take_precedence_over_a_turn() -> None:
    gate = Book().gate
    gate.defer(Reason.TURN)
    gate.defer(Reason.TOOLS)
    gate.defer(Reason.TURN)
    found = [gate.deferred]
    gate.drop_deferred_turn()
    found.append(gate.deferred)
    gate.unwanted = True
    gate.requested("e1", Reason.TOOLS)
    assert [*found, gate.deferred] == [Reason.TOOLS, Reason.TOOLS, None]
    assert not gate.unwanted


def test_a_deferred_turn_is_dropped_when_the_user_cuts_in() -> None:
    gate = Book().gate
    gate.defer(Reason.TURN)
    gate.drop_deferred_turn()
    assert gate.deferred is None


def test_the_provider_gets_time_to_answer_by_itself() -> None:
    book = Book()
    book.gate.expect_answer()
    assert book.running() == []
    book.gate.defer(Reason.TURN)
    book.gate.expect_answer()
    assert book.running() == ["deferred"]
    book.gate.requested("e1", Reason.TURN)
    book.gate.defer(Reason.TURN)
    book.gate.expect_answer()
    assert book.running() == ["response"]


def test_a_response_begins_and_ends() -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    assert book.begin("r1", {KEY: "e1"}) == (True, False)
    assert (book.gate.phase, book.gate.response_id) == (Phase.ACTIVE, "r1")
    assert book.running() == []
    book.gate.ended(reported=True)
    assert book.gate.idle
    assert book.gate.has_ended("r1")
    assert not book.gate.is_first_end_event("r1")


def test_a_cut_response_is_waited_for_until_it_ends() -> None:
    book = Book()
    book.begin("r1")
    book.gate.cut()
    assert (book.gate.phase, book.gate.in_flight) == (Phase.CANCELLING, True)
    assert book.running() == ["cancel"]
    book.gate.cut()
    book.gate.ended(reported=False)
    assert book.gate.response_id is None
    assert book.running() == []


@pytest.mark.parametrize(
    ("event", "timers"), [(ResponseGate.cut, ["cancel"]), (lambda gate: gate.ended(reported=True), [])]
)
def test_a_response_without_a_name_is_no_longer_waited_for(event: Any, timers: list[str]) -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    book.gate.refused("e1", None)
    event(book.gate)
    assert book.running() == timers


def test_a_response_of_the_providers_answers_a_deferred_turn() -> None:
    book = Book()
    book.gate.defer(Reason.TURN)
    book.begin("r1")
    assert book.gate.deferred is None


def test_an_end_that_was_inferred_may_still_be_reported_once() -> None:
    book = Book()
    book.begin("r1")
    book.gate.ended(reported=False)
    assert book.gate.is_first_end_event("r1")
    assert not book.gate.is_first_end_event("r1")
    book.begin("r2")
    book.gate.ended(reported=False)
    book.begin("r2")  # the id is used again
    assert not book.gate.has_ended("r2")
    assert not book.gate.is_first_end_event("r2")


def test_a_request_outlives_the_response_that_was_in_flight() -> None:
    book = Book()
    book.begin("r1")
    book.gate.requested("e1", Reason.TOOLS)
    book.begin("r2", {KEY: "someone's"})
    book.gate.ended(reported=True)
    assert book.gate.phase is Phase.IDLE, "in doubt r2 was the answer"


def test_known_metadata_tells_our_response_from_the_providers() -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    assert book.begin("r1", {KEY: "e1"}) == (True, False)
    book.gate.ended(reported=True)
    book.gate.requested("e2", Reason.TOOLS)
    assert book.begin("r2") == (False, False)
    assert book.gate.open_request == "e2"
    book.gate.ended(reported=True)
    assert book.gate.phase is Phase.REQUESTED
    assert book.running() == ["response"]


def test_without_turn_detection_every_response_is_ours() -> None:
    book = Book(auto=False)
    book.gate.requested("e1", Reason.TURN)
    book.begin("r1", {KEY: "e1"})
    book.gate.ended(reported=True)
    book.gate.requested("e2", Reason.TURN)
    assert book.begin("r2") == (True, False)


def test_any_metadata_is_ours_where_requests_have_none() -> None:
    book = Book(metadata_key=None)
    book.gate.requested("e1", Reason.TURN)
    assert book.begin("r1", {}) == (True, False)
    book.gate.requested("e2", Reason.TURN)
    assert book.begin("r2", None) == (False, False)
    assert not book.gate.repeats_request({KEY: "e1"})


@pytest.mark.parametrize(
    ("metadata", "repeats"), [({KEY: "e1"}, True), ({KEY: "e2"}, False), (None, False), ({"x": 1}, False)]
)
def test_a_request_that_was_answered_before_is_recognised(metadata: Any, repeats: bool) -> None:
    gate = Book().gate
    gate.requested("e2", Reason.TURN)
    assert gate.repeats_request(metadata) is repeats


@pytest.mark.parametrize(
    ("metadata", "speaking", "unwanted"),
    [({KEY: "e1"}, False, True), (None, True, True), (None, False, False)],
)
def test_an_unwanted_response_is_cancelled_if_it_is_surely_ours(
    metadata: Any, speaking: bool, unwanted: bool
) -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    book.gate.unwanted = True
    assert book.begin("r1", metadata, user_speaking=speaking) == (True, unwanted)
    assert not book.gate.unwanted


def test_a_refused_request_for_tools_is_deferred() -> None:
    book = Book()
    book.gate.requested("e1", Reason.TOOLS)
    assert book.gate.refused("e1", "r7")
    assert (book.gate.phase, book.gate.response_id) == (Phase.ACTIVE, "r7")
    assert book.gate.deferred is Reason.TOOLS
    assert book.running() == []
    assert not book.gate.refused("e1", "r7"), "once"


@pytest.mark.parametrize(("auto", "deferred"), [(True, None), (False, Reason.TURN)])
def test_a_refused_request_for_a_turn_is_deferred_where_nobody_else_answers(
    auto: bool, deferred: Reason | None
) -> None:
    book = Book(auto=auto)
    book.gate.requested("e1", Reason.TURN)
    book.gate.unwanted = True
    assert book.running() == ["response"]
    assert book.gate.refused(None, None)
    assert not book.gate.unwanted
    assert book.gate.deferred is deferred
    assert book.running() == ["response"], "the active one has no name, so its end may pass unseen"


def test_a_refusal_by_a_response_that_is_over_means_now() -> None:
    book = Book()
    book.begin("r1")
    book.gate.ended(reported=True)
    book.gate.requested("e1", Reason.TOOLS)
    assert book.gate.refused("e1", "r1")
    assert book.gate.idle
    assert book.gate.response_id is None
    assert book.running() == []


def test_a_refusal_of_an_older_request_changes_nothing() -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    book.gate.requested("e2", Reason.TURN)
    assert not book.gate.refused("e1", "r1")
    assert book.gate.phase is Phase.REQUESTED


def test_a_response_gets_its_name_late() -> None:
    book = Book()
    book.gate.requested("e1", Reason.TURN)
    book.gate.refused("e1", None)
    book.gate.name("r1")
    assert book.gate.response_id == "r1"
    assert book.running() == []
