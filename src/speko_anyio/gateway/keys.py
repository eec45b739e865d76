"""API keys: who may use the gateway, and how fast one may mint."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Final

from speko_anyio.protocol.tokens import find_key_fault, strip_invisible

from .store.records import KeyLimits, Scope, StoredKey

if TYPE_CHECKING:
    from collections.abc import Iterable

_STORED: Final = re.compile(r"sk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
"""A key of the store: it names its record, and has 256 random bits."""


class APIKeys:
    """The keys of the configuration, kept as hashes only; `may_be_empty` when there are others."""

    def __init__(self, keys: Iterable[str], *, may_be_empty: bool = False) -> None:
        if isinstance(keys, str):
            raise TypeError("api_keys must be a collection of keys, not one string; put it into a list")
        # Whitespace around a key, such as the end of the file's line it was read from, comes in no header.
        known = [key for key in map(strip_invisible, keys) if key]
        for key in known:
            fault = find_key_fault(key)
            if fault is not None:
                raise ValueError(f"an API key of the gateway {fault}")
        self._digests = tuple({_digest(key) for key in known})
        if not self._digests and not may_be_empty:
            raise ValueError(
                "a gateway needs at least one API key; pass api_keys=[secrets.token_urlsafe(32)]"
            )

    def identify(self, authorization: str | None) -> str | None:
        """The id of the key in an Authorization header; None when it holds no valid one.

        The id is the start of the key's hash: safe to store and to log.
        """
        key = bearer(authorization)
        if not key:
            return None
        digest = _digest(key)
        # Every key is compared, in constant time: how long it takes tells nothing about any of them.
        found = [known for known in self._digests if hmac.compare_digest(known, digest)]
        return f"key_{digest.hex()[:12]}" if found else None


def bearer(authorization: str | None) -> str:
    """The key in an Authorization header; empty when there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def new_key(name: str, scopes: Iterable[Scope], limits: KeyLimits, *, now: float) -> tuple[str, StoredKey]:
    """A new key, to be shown once, and what to keep of it. `now` in seconds since the epoch."""
    number = secrets.token_hex(8)
    key = f"sk_{number}_{secrets.token_urlsafe(32)}"
    stored = StoredKey(
        key_id=f"key_{number}",
        name=name,
        digest=_digest(key),
        scopes=tuple(scopes),
        limits=limits,
        created_at=now,
    )
    return key, stored


def stored_key_id(key: str) -> str | None:
    """The id under which `key` would be stored; None when it is no key that `new_key` makes."""
    match = _STORED.fullmatch(key)
    return None if match is None else f"key_{match[1]}"


def is_key(key: str, stored: StoredKey) -> bool:
    """Whether `key` is the one of which `stored` is kept; takes as long either way."""
    return hmac.compare_digest(_digest(key), stored.digest)


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
