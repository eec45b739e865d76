"""Whether the limits of a key allow one more session: pure, the same for every store."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from ._contract import LimitError
from ._records import KeyLimits

MINUTE: Final = 60
DAY: Final = 86_400

BUSY_RETRY: Final = 5
"""Seconds after which a client may try again, if it is unknown when there will be room."""


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a key has used; a store fills in only what its limits need."""

    nth_newest_mint: float | None = None
    """Time of the mint that is as many mints ago as a minute may have; None if there were fewer."""
    open_sessions: int = 0
    """Sessions that live, or can still be opened."""
    spent_seconds: float = 0.0
    """How long the sessions were that were minted today and are over."""
    reserved_seconds: float = 0.0
    """The TTLs of the sessions that were minted today and are open."""


def day_start(now: float) -> float:
    """Return when the day of UTC began."""
    return now - now % DAY


def granted_ttl(limits: KeyLimits, use: KeyUse, *, ttl: int, now: float) -> int:
    """Return the seconds that one more session may last: `ttl`, or what is left of the day.

    Raises `LimitError` if none is allowed.
    """
    if limits.mints_per_minute is not None and use.nth_newest_mint is not None:
        wait = use.nth_newest_mint + MINUTE - now
        if wait > 0:
            raise LimitError(
                f"this API key may mint {limits.mints_per_minute} sessions a minute; "
                "wait as long as Retry-After says",
                retry_after=wait,
            )
    if limits.max_sessions is not None and use.open_sessions >= limits.max_sessions:
        raise LimitError(
            f"this API key may have {limits.max_sessions} sessions at once; end one, or let an unused token "
            "expire",
            retry_after=BUSY_RETRY,
        )
    if limits.minutes_per_day is None:
        return ttl
    allowed = limits.minutes_per_day * MINUTE
    left = math.floor(allowed - use.spent_seconds - use.reserved_seconds)
    if left >= 1:
        return min(ttl, left)
    # What open sessions do not use comes back when they end; what is spent, not before midnight.
    spent = allowed - use.spent_seconds < 1
    raise LimitError(
        f"this API key may have {limits.minutes_per_day} minutes a day of UTC, and "
        + ("has had them; wait for the next day" if spent else "its open sessions hold the rest; end one"),
        retry_after=day_start(now) + DAY - now if spent else BUSY_RETRY,
    )
