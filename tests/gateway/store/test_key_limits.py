from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.gateway import KeyLimits
from speko_anyio.gateway.store import LimitError
from speko_anyio.gateway.store._key_limits import BUSY_RETRY, DAY, MINUTE, KeyUse, day_start, granted_ttl

NOW = 20_000 * DAY + 3_600.5


def granted(limits: KeyLimits, ttl: int = 1800, **use: Any) -> int:
    return granted_ttl(limits, KeyUse(**use), ttl=ttl, now=NOW)


def retry(limits: KeyLimits, **use: Any) -> float:
    with pytest.raises(LimitError) as caught:
        granted(limits, **use)
    return caught.value.retry_after


def test_without_limits_nothing_is_counted() -> None:
    assert granted(KeyLimits(), open_sessions=10**6, spent_seconds=1e9, nth_newest_mint=NOW) == 1800


def test_the_minute_slides() -> None:
    limits = KeyLimits(mints_per_minute=3)
    assert retry(limits, nth_newest_mint=NOW) == MINUTE
    assert retry(limits, nth_newest_mint=NOW - 59.5) == 0.5
    assert granted(limits, nth_newest_mint=NOW - 60) == 1800
    # A node whose clock is ahead minted it.
    assert retry(limits, nth_newest_mint=NOW + 2) == MINUTE + 2


def test_sessions_at_once() -> None:
    limits = KeyLimits(max_sessions=2)
    assert granted(limits, open_sessions=1) == 1800
    assert retry(limits, open_sessions=2) == BUSY_RETRY


def test_the_day_gives_what_it_has_left() -> None:
    limits = KeyLimits(minutes_per_day=10)
    assert granted(limits) == 600
    assert granted(limits, ttl=60, spent_seconds=500.0) == 60
    assert granted(limits, spent_seconds=500.2, reserved_seconds=60.0) == 39
    assert retry(limits, spent_seconds=500.0, reserved_seconds=100.0) == BUSY_RETRY
    assert retry(limits, spent_seconds=599.5) == day_start(NOW) + DAY - NOW == DAY - 3_600.5
    assert retry(limits, spent_seconds=1000.0) == DAY - 3_600.5


@given(
    minutes=st.integers(1, 10_000),
    spent=st.floats(0, 1e6),
    reserved=st.integers(0, 10**6),
    ttl=st.integers(1, 1800),
    now=st.floats(0, 4e9),
)
def test_no_more_is_granted_than_there_is(
    minutes: int, spent: float, reserved: int, ttl: int, now: float
) -> None:
    use = KeyUse(spent_seconds=spent, reserved_seconds=float(reserved))
    left = minutes * MINUTE - spent - reserved
    limits = KeyLimits(minutes_per_day=minutes)
    if left >= 1:
        assert 1 <= granted_ttl(limits, use, ttl=ttl, now=now) <= min(ttl, left)
    else:
        with pytest.raises(LimitError) as caught:
            granted_ttl(limits, use, ttl=ttl, now=now)
        assert 0 < caught.value.retry_after <= DAY
