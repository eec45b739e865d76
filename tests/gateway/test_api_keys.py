from __future__ import annotations

import base64
import random
import secrets
import uuid

import pytest

from speko_anyio.gateway._api_keys import (
    LOCAL_KEY,
    LOCAL_KEY_ID,
    MIN_BITS,
    APIKeys,
    estimate_bits,
    find_weakness,
)
from speko_anyio.gateway._rate_limiter import RateLimiter


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


def test_a_generated_key_can_be_told_by_its_id() -> None:
    key = f"{LOCAL_KEY}{secrets.token_urlsafe(24)}"
    found = APIKeys([key, "other"]).identify(f"Bearer {key}")
    assert found is not None
    assert found.startswith(LOCAL_KEY_ID)
    other = APIKeys([key, "other"]).identify("Bearer other")
    assert other is not None
    assert not other.startswith(LOCAL_KEY_ID)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "sk_file",
        "test-api-key",
        "a" * 64,
        "abc" * 20,
        "Password1!" * 6,
        "changemechangemechangemechangeme",
        "0123456789" * 5,
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "0123456789abcdef0123456789abcdef",
        "é" * 60,
        "x" * 60 + "q7_Z-k",
        secrets.token_urlsafe(15),
        secrets.token_hex(15),
    ],
)
def test_a_key_that_can_be_guessed_is_told(key: str) -> None:
    weakness = find_weakness(key)
    assert weakness is not None
    assert "128 bits or more" in weakness
    assert not key or key not in weakness


def test_generated_keys_are_strong_enough() -> None:
    dice = random.Random(1)  # of the shortest keys that will do, one in 100,000 looks weaker than it is
    for _ in range(200):
        secret = dice.randbytes(16)
        number = uuid.UUID(bytes=secret, version=4)
        for key in (
            base64.urlsafe_b64encode(secret).rstrip(b"=").decode(),
            secret.hex(),
            secret.hex().upper(),
            number.hex,
            str(number),
        ):
            assert find_weakness(key) is None, key


def test_the_bits_of_a_key() -> None:
    assert MIN_BITS == 128
    assert estimate_bits("8213") == pytest.approx(4 * 3.32, abs=0.01)
    assert estimate_bits("82e1") == 4 * 4
    assert estimate_bits("82E1") == 4 * 4
    assert estimate_bits("8_e1") == 4 * 6
    assert estimate_bits("8.e1") == pytest.approx(4 * 6.55, abs=0.1)
    assert estimate_bits("sFq7_x") == estimate_bits("sFq7_a")


def test_the_bits_of_a_long_key_are_counted_in_linear_time() -> None:
    assert estimate_bits("ab" * 100_000) < 30
    assert estimate_bits(secrets.token_urlsafe(100_000)) > 100_000


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
