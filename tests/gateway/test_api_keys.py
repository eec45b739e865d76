from __future__ import annotations

import pytest

from speko_anyio.gateway._api_keys import APIKeys
from speko_anyio.gateway._mint_endpoint import RateLimiter


def test_a_key_is_known_by_an_id_that_is_not_the_key() -> None:
    keys = APIKeys(["first", "second"])
    first = keys.identify("Bearer first")
    second = keys.identify("bearer  second ")
    assert first is not None
    assert second is not None
    assert first.startswith("key_")
    assert first != second
    assert "first" not in first
    assert "first" not in repr(vars(keys))


@pytest.mark.parametrize(
    "header",
    [None, "", "first", "Basic first", "Bearer", "Bearer ", "Bearer firs", "Bearer first2", "Bearer \udce4"],
)
def test_nothing_else_is_a_key(header: str | None) -> None:
    assert APIKeys(["first", ""]).identify(header) is None


def test_whitespace_around_a_configured_key_is_no_part_of_it() -> None:
    assert APIKeys([" first\n"]).identify("Bearer first") == APIKeys(["first"]).identify("Bearer first")
    assert APIKeys(["first\n"]).identify("Bearer first") is not None


@pytest.mark.parametrize("keys", [[], [""], [" \n"]])
def test_there_must_be_a_key(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="at least one API key"):
        APIKeys(keys)


@pytest.mark.parametrize("key", ["'first'", '"first"', "Bearer first"])
def test_a_key_with_something_around_it_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"an API key of the gateway (is in quotes|begins with `Bearer`)"):
        APIKeys(["other", key])


def test_one_string_is_not_a_list_of_keys() -> None:
    with pytest.raises(TypeError, match="one string"):
        APIKeys("abc")


def test_a_bucket_empties_and_fills() -> None:
    limiter = RateLimiter(rate=2.0, burst=3)
    assert [limiter.take("a", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limiter.take("b", 100.0) == 0.0
    assert limiter.take("a", 100.25) == 0.25
    assert limiter.take("a", 100.5) == 0.0
    assert limiter.take("a", 100.5) == 0.5
    assert [limiter.take("a", 1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (1.0, 0), (-1.0, 1), (float("nan"), 1)])
def test_a_limit_that_lets_nothing_through_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate limit"):
        RateLimiter(rate=rate, burst=burst)
