from __future__ import annotations

from math import inf

from speko_anyio.protocol.timers import AT_ONCE, Timers


def test_nothing_runs_at_first() -> None:
    timers = Timers()
    assert timers.next() is None
    assert timers.expired(1e9) == []


def test_a_started_timer_asks_for_the_time_at_once() -> None:
    timers = Timers()
    timers.start("a", 5.0)
    assert timers.next() == AT_ONCE == -inf


def test_its_seconds_count_from_the_next_known_time() -> None:
    timers = Timers()
    timers.start("a", 5.0)
    assert timers.expired(100.0) == []
    assert timers.next() == 105.0
    assert timers.expired(104.999) == []
    assert timers.expired(105.0) == ["a"]
    assert timers.next() is None


def test_an_expired_timer_no_longer_runs() -> None:
    timers = Timers()
    timers.start("a", 0.0)
    assert timers.expired(1.0) == ["a"]
    assert timers.expired(2.0) == []


def test_the_earliest_comes_first() -> None:
    timers = Timers()
    for name, seconds in (("late", 3.0), ("early", 1.0), ("middle", 2.0), ("beyond", 9.0)):
        timers.start(name, seconds)
    timers.expired(0.0)
    assert timers.next() == 1.0
    assert timers.expired(5.0) == ["early", "middle", "late"]
    assert timers.next() == 9.0


def test_starting_again_forgets_the_first_start() -> None:
    timers = Timers()
    timers.start("a", 1.0)
    timers.expired(0.0)
    timers.start("a", 5.0)
    assert timers.next() == AT_ONCE
    assert timers.expired(2.0) == []
    assert timers.next() == 7.0


def test_stop_forgets_one_timer_whether_or_not_it_runs() -> None:
    timers = Timers()
    timers.stop("never started")
    timers.start("a", 1.0)
    timers.start("b", 2.0)
    timers.expired(0.0)
    timers.start("c", 3.0)
    timers.stop("a")
    timers.stop("c")
    assert timers.next() == 2.0
    assert timers.expired(10.0) == ["b"]


def test_clear_forgets_them_all() -> None:
    timers = Timers()
    timers.start("a", 1.0)
    timers.expired(0.0)
    timers.start("b", 1.0)
    timers.clear()
    assert timers.next() is None
    assert timers.expired(10.0) == []
