"""`HeardEstimate` with a player that reports: against a player that plays sample by sample."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.providers._heard import HeardEstimate

RATE = 8000
MS = RATE * 2 // 1000
"""Bytes of a millisecond."""


class Player:
    """Plays at its own pace, in steps of a millisecond; it may begin late, and pause."""

    def __init__(self) -> None:
        self.got = 0
        self.played = 0

    def tick(self) -> None:
        self.played += self.played < self.got


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(1, 800)),
        st.tuples(st.just("play"), st.integers(1, 500)),
        st.tuples(st.just("stutter"), st.integers(1, 300)),
        st.tuples(st.just("report"), st.just(0)),
        st.tuples(st.just("stale report"), st.integers(0, 10_000)),
        st.tuples(st.just("interrupt"), st.just(0)),
        st.tuples(st.just("reconnect"), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_after_a_report_the_estimate_is_the_players_own(steps: list[tuple[str, int]]) -> None:
    estimate, player = HeardEstimate(RATE), Player()
    now = 100.0
    items = 0
    for kind, size in steps:
        estimate.clock(now)
        match kind:
            case "audio":
                items += 1
                estimate.add(f"item {items}", 0, size * MS)
                player.got += size
            case "play":
                for _ in range(size):
                    player.tick()
                now += size / 1000
            case "stutter":
                now += size / 1000
            case "report":
                estimate.played(player.played)
                assert estimate.unplayed_ms == pytest.approx(player.got - player.played, abs=1e-6)
            case "stale report":
                before = estimate.unplayed_ms
                if size > player.got + 50:
                    estimate.played(size)
                    assert estimate.unplayed_ms == before
            case "reconnect":
                before = estimate.unplayed_ms
                estimate, earlier = HeardEstimate(2 * RATE), estimate
                estimate.clock(now)
                estimate.follow_up(earlier)
                estimate.set_rate(RATE)
                assert estimate.unplayed_ms == pytest.approx(before)
            case _:
                estimate.flush()
                assert estimate.unplayed_ms == 0
                player.got = player.played = 0
    estimate.clock(now)
    estimate.played(player.played)
    assert estimate.unplayed_ms == pytest.approx(player.got - player.played, abs=1e-6)


def test_it_goes_on_from_a_report() -> None:
    estimate = HeardEstimate(RATE)
    estimate.clock(10.0)
    estimate.add("a", 0, 2000 * MS)
    estimate.clock(11.0)
    estimate.played(700)  # the player began late, or paused
    assert estimate.unplayed_ms == pytest.approx(1300)
    (item,) = estimate.heard()
    assert (item.item_id, item.sent) == ("a", 2000)
    assert item.heard == pytest.approx(700, abs=1)
    estimate.clock(11.5)
    assert estimate.unplayed_ms == pytest.approx(800)
    estimate.add("a", 0, 100 * MS)
    assert estimate.unplayed_ms == pytest.approx(900)
    estimate.clock(13.0)
    assert estimate.unplayed_ms == 0


def test_items_are_cut_where_the_player_is() -> None:
    estimate = HeardEstimate(RATE)
    estimate.clock(0.0)
    estimate.add("a", 0, 1000 * MS)
    estimate.add("b", 0, 1000 * MS)
    estimate.clock(1.9)
    estimate.played(1200)
    assert heard_of(estimate) == {"b": pytest.approx(200, abs=1)}
    estimate.played(300)
    assert heard_of(estimate) == {"a": pytest.approx(300, abs=1), "b": 0}


def heard_of(estimate: HeardEstimate) -> dict[str, Any]:
    return {item.item_id: item.heard for item in estimate.heard()}


@pytest.mark.parametrize(
    ("at", "ms", "taken"),
    [
        (0.5, 500, True),
        (0.5, 554, True),  # rounding, and what a resampler adds
        (0.5, 556, False),  # a player can't be ahead of the clock
        (0.5, 5000, False),  # from before the last interruption
        (10.0, 1050, True),
        (10.0, 1051, False),  # more than there was
    ],
)
def test_an_impossible_report_is_ignored(at: float, ms: int, taken: bool) -> None:
    estimate = HeardEstimate(RATE)
    estimate.clock(0.0)
    estimate.add("a", 0, 1000 * MS)
    estimate.clock(0.25)
    estimate.played(100)
    estimate.clock(at)
    before = estimate.unplayed_ms
    estimate.played(ms)
    assert (estimate.unplayed_ms != before) is (taken and before > 0)
    if taken:
        assert estimate.unplayed_ms == pytest.approx(max(0, 1000 - ms))


def test_a_report_of_more_than_there_was_does_not_end_what_still_plays() -> None:
    estimate = HeardEstimate(RATE)
    estimate.clock(0.0)
    estimate.add("a", 0, 1000 * MS)
    estimate.clock(3.0)
    estimate.played(100)  # a slow player
    estimate.played(2000)
    assert estimate.unplayed_ms == pytest.approx(900)


def test_an_interruption_ends_the_count_of_the_connection_before_too() -> None:
    earlier, estimate = HeardEstimate(RATE), HeardEstimate(RATE)
    earlier.clock(0.0)
    earlier.add("a", 0, 1000 * MS)
    estimate.follow_up(earlier)
    estimate.clock(5.0)
    estimate.flush()
    estimate.add("b", 0, 1000 * MS)
    estimate.clock(6.0)
    estimate.played(300)
    assert estimate.unplayed_ms == pytest.approx(700)


def test_a_report_of_nothing() -> None:
    estimate = HeardEstimate(RATE)
    estimate.played(0)  # no clock
    estimate.clock(1.0)
    estimate.played(0)
    assert estimate.unplayed_ms == 0
    estimate.add("a", 0, 1000 * MS)
    estimate.clock(1.5)
    estimate.played(0)  # a player that waits for more
    assert estimate.unplayed_ms == pytest.approx(1000)
    estimate.flush()
    estimate.played(40)
    assert estimate.unplayed_ms == 0


def test_without_a_clock_everything_counts_as_heard() -> None:
    estimate = HeardEstimate(RATE)
    estimate.add("a", 0, 1000 * MS)
    estimate.played(10)
    assert [(item.heard, item.sent) for item in estimate.heard()] == [(1000, 1000)]
