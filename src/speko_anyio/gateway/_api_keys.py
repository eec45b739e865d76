"""API keys: their shape, their hashes, and those of the configuration."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import string
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from speko_anyio.protocol._tokens import find_key_fault, strip_invisible

from .store._records import KeyLimits, Scope, StoredKey

_STORED: Final = re.compile(r"sk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
"""A key of the store: it names its record, and has 256 random bits."""


LOCAL_KEY: Final = "sk_local_"
"""The start of a key that ``speko-anyio serve`` generates on a loopback address for one run."""

LOCAL_KEY_ID: Final = "key_local_"
"""The start of its id."""


MIN_BITS: Final = 128
"""Bits of a key or a secret that nobody can guess, however fast they try."""

_ALPHABETS: Final = tuple(
    map(
        frozenset,
        (
            string.digits,
            string.digits + "abcdef",
            string.digits + "ABCDEF",
            string.ascii_lowercase,
            string.ascii_uppercase,
            string.digits + string.ascii_lowercase,
            string.digits + string.ascii_uppercase,
            string.digits + string.ascii_letters + "-_",
            string.digits + string.ascii_letters + string.punctuation,
        ),
    )
)
"""The usual alphabets of generated keys, by size."""

_REPETITION: Final = 8
"""Characters from which a repetition counts; shorter ones occur in random keys, too."""


def estimate_bits(key: str) -> float:
    """Return the most bits that `key` can be worth, to tell a generated key from an invented one.

    Each character counts for the bits of the smallest usual alphabet that has them all: 3.3 for digits, 4 for
    hexadecimal digits, 6 for base64url. A part of 8 characters or more that repeats an earlier one, or
    continues a sequence such as ``abcdef`` or ``aaaaaa``, counts as one character. Words of a dictionary are
    not recognised.
    """
    characters = frozenset(key)
    size = next((len(usual) for usual in _ALPHABETS if characters <= usual), 256)
    steps = [ord(later) - ord(earlier) for earlier, later in pairwise(key)]
    return math.log2(size) * min(_count_new(key), 1 + _count_new(steps))


def find_weakness(key: str) -> str | None:
    """Return what is wrong with a key or secret that can be guessed, phrased to follow its name."""
    bits = estimate_bits(key)
    if bits >= MIN_BITS:
        return None
    return (
        f"has {bits:.0f} bits at most and can be guessed; use one of {MIN_BITS} bits or more, as "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(32))'` prints it"
    )


def _count_new(items: Sequence[object]) -> int:
    """Count the items, where each stretch that repeats an earlier one counts once."""
    seen: dict[tuple[object, ...], int] = {}
    count = position = 0
    while position < len(items):
        earlier = seen.get(tuple(items[position : position + _REPETITION]))
        length = 1
        if earlier is not None:
            while position + length < len(items) and items[earlier + length] == items[position + length]:
                length += 1
        for start in range(position, position + length):
            if start + _REPETITION <= len(items):
                seen.setdefault(tuple(items[start : start + _REPETITION]), start)
        position += length
        count += 1
    return count


class APIKeys:
    """The keys of the configuration, kept as hashes only; `may_be_empty` if there are others."""

    def __init__(self, keys: Iterable[str], *, may_be_empty: bool = False) -> None:
        if isinstance(keys, str):
            raise TypeError("api_keys must be a collection of keys, not one string; put it into a list")
        # Whitespace around a key, such as the end of the file's line it was read from, comes in no header.
        known = [key for key in map(strip_invisible, keys) if key]
        for key in known:
            fault = find_key_fault(key)
            if fault is not None:
                raise ValueError(f"an API key of the gateway {fault}")
        self._digests = tuple({digest_of(key) for key in known})
        if not self._digests and not may_be_empty:
            raise ValueError(
                "a gateway needs at least one API key; pass api_keys=[secrets.token_urlsafe(32)]"
            )

    def identify(self, authorization: str | None) -> str | None:
        """Return the id of the key in an Authorization header; None if it holds no valid one.

        The id is the start of the key's hash: safe to store and to log.
        """
        key = bearer(authorization)
        if not key:
            return None
        digest = digest_of(key)
        # Compare every key, in constant time, so that the time reveals nothing about any of them.
        found = [known for known in self._digests if hmac.compare_digest(known, digest)]
        if not found:
            return None
        return f"{LOCAL_KEY_ID if key.startswith(LOCAL_KEY) else 'key_'}{digest.hex()[:12]}"


def bearer(authorization: str | None) -> str:
    """Return the key in an Authorization header; empty if there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def new_key(name: str, scopes: Iterable[Scope], limits: KeyLimits, *, now: float) -> tuple[str, StoredKey]:
    """Return a new key, to be shown once, and its record. `now` in seconds since the epoch."""
    number = secrets.token_hex(8)
    key = f"sk_{number}_{secrets.token_urlsafe(32)}"
    stored = StoredKey(
        key_id=f"key_{number}",
        name=name,
        digest=digest_of(key),
        scopes=tuple(scopes),
        limits=limits,
        created_at=now,
    )
    return key, stored


def stored_key_id(key: str) -> str | None:
    """Return the id under which `key` would be stored; None for a key that `new_key` can't have made."""
    match = _STORED.fullmatch(key)
    return None if match is None else f"key_{match[1]}"


def is_key(key: str, stored: StoredKey) -> bool:
    """Return whether `stored` is the record of `key`; takes as long either way."""
    return hmac.compare_digest(digest_of(key), stored.digest)


def digest_of(key: str) -> bytes:
    """Return the hash by which a key is known."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
