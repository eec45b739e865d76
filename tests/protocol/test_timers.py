from __future__ import annotations

from math import inf

from speko_anyio.protocol._timers import AT_ONCE, Timers


def expired(timers: Timers, now: float) -> list[tuple[str, float]]:
    """What is due at `now`, all of it."""
    return list(timers.expired(now))


def test_nothing_runs_at_first() -> None:
    timers = Timers()
    assert timers.next() is None
    assert expired(timers, 1e9) == []


def test_a_started_timer_asks_for_the_time_at_once() -> None:
    timers = Timers()
    timers.start("a", 5.0)
    assert timers.next() == AT_ONCE == -inf


def test_its_seconds_count_from_the_next_known_time() -> None:
    timers = Timers()
    timers.start("a", 5.0)
    assert expired(timers, 100.0) == []
    assert timers.next() == 105.0
    assert expired(timers, 104.75) == []
    assert expired(timers, 105.0) == [("a", 0.0)]
    assert timers.next() is None


def test_an_expired_timer_no_longer_runs() -> None:
    timers = Timers()
    timers.start("a", 0.0)
    assert expired(timers, 1.0) == [("a", 0.0)]
    assert expired(timers, 2.0) == []


def test_the_earliest_comes_first_and_each_with_how_late_it_is() -> None:
    timers = Timers()
    for name, seconds in (("late", 3.0), ("early", 1.0), ("middle", 2.0), ("beyond", 9.0)):
        timers.start(name, seconds)
    timers.settle(0.0)
    assert timers.next() == 1.0
    assert expired(timers, 5.0) == [("early", 4.0), ("middle", 3.0), ("late", 2.0)]
    assert timers.next() == 9.0


def test_starting_again_forgets_the_first_start() -> None:
    timers = Timers()
    timers.start("a", 1.0)
    timers.settle(0.0)
    timers.start("a", 5.0)
    assert timers.next() == AT_ONCE
    assert expired(timers, 2.0) == []
    assert timers.next() == 7.0


def test_stop_forgets_one_timer_whether_or_not_it_runs() -> None:
    timers = Timers()
    timers.stop("never started")
    timers.start("a", 1.0)
    timers.start("b", 2.0)
    timers.settle(0.0)
    timers.start("c", 3.0)
    timers.stop("a")
    timers.stop("c")
    assert timers.next() == 2.0
    assert expired(timers, 10.0) == [("b", 8.0)]


def test_clear_forgets_them_all() -> None:
    timers = Timers()
    timers.start("a", 1.0)
    timers.settle(0.0)
    timers.start("b", 1.0)
    timers.clear()
    assert timers.next() is None
    assert expired(timers, 10.0) == []


def test_settling_makes_instants_and_expires_nothing() -> None:
    timers = Timers()
    timers.start("a", 1.0)
    timers.settle(10.0)
    timers.settle(20.0)
    assert timers.next() == 11.0
    assert expired(timers, 20.0) == [("a", 9.0)]


def test_what_an_earlier_timer_stops_does_not_come() -> None:
    timers = Timers()
    timers.start("first", 1.0)
    timers.start("second", 2.0)
    timers.settle(0.0)
    seen = []
    for name, _ in timers.expired(5.0):
        seen.append(name)
        timers.stop("second")
    assert seen == ["first"]


def test_what_an_earlier_timer_starts_waits_for_the_next_call() -> None:
    timers = Timers()
    timers.start("again", 0.0)
    rounds = []
    for name, _ in timers.expired(5.0):
        rounds.append(name)
        timers.start("again", 0.0)
    assert rounds == ["again"]
    timers.settle(5.0)
    assert timers.next() == 5.0
    assert expired(timers, 6.0) == [("again", 1.0)]


def test_a_timer_that_is_started_again_in_the_round_waits_for_the_next() -> None:
    timers = Timers()
    timers.start("first", 1.0)
    timers.start("second", 2.0)
    timers.settle(0.0)
    came = []
    for name, _ in timers.expired(5.0):
        came.append(name)
        timers.start("second", 2.0)
    assert came == ["first"]
    timers.settle(5.0)
    assert timers.next() == 7.0
