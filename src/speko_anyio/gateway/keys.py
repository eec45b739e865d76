"""API keys: who may mint, and how fast."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class APIKeys:
    """The keys that may mint, kept as hashes only."""

    def __init__(self, keys: Iterable[str]) -> None:
        if isinstance(keys, str):
            raise TypeError("api_keys must be a collection of keys, not one string; put it into a list")
        # Whitespace around a key, such as the end of the file's line it was read from, comes in no header.
        self._digests = tuple({_digest(key) for key in map(str.strip, keys) if key})
        if not self._digests:
            raise ValueError(
                "a gateway needs at least one API key; pass api_keys=[secrets.token_urlsafe(32)]"
            )

    def identify(self, authorization: str | None) -> str | None:
        """The id of the key in an Authorization header; None when it holds no valid one.

        The id is the start of the key's hash: safe to store and to log.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = _digest(key.strip())
        # Every key is compared, in constant time: how long it takes tells nothing about any of them.
        found = [known for known in self._digests if hmac.compare_digest(known, digest)]
        return f"key_{digest.hex()[:12]}" if found else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


class RateLimiter:
    """A token bucket for each of a known set of keys: `rate` a second on average, `burst` at once."""

    def __init__(self, *, rate: float, burst: int) -> None:
        if not rate > 0 or burst < 1:  # also refuses NaN
            raise ValueError(
                f"a rate limit needs a rate above 0 and a burst of 1 or more, not {rate}, {burst}"
            )
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, now: float) -> float:
        """Take one: 0.0 when there was one, else the seconds until there is. `now` is of any steady clock."""
        level, at = self._buckets.get(key_id, (float(self._burst), now))
        level = min(self._burst, level + (now - at) * self._rate)
        granted = level >= 1
        self._buckets[key_id] = (level - 1 if granted else level, now)
        return 0.0 if granted else (1 - level) / self._rate
