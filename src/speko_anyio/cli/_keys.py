"""`speko-anyio keys`: the API keys that the gateway's database holds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from ..gateway import KeyLimits, SQLStore, StoredKey
from ..gateway._api_keys import new_key
from ..protocol._text import clean
from ._gateway_options import database_store_of, settings_of
from ._standard_streams import check_output


async def keys(options: argparse.Namespace) -> None:
    """Create, list or revoke keys, as asked."""
    async with database_store_of(settings_of(options).settings) as store:
        match options.action:
            case "create":
                await _create(store, options)
            case "list":
                _show(await store.keys())
            case _:
                revoked = await store.revoke_key(options.key_id, now=time.time())
                print(
                    f"revoked {revoked.key_id} ({clean(revoked.name)}); open sessions continue to their end"
                )


async def _create(store: SQLStore, options: argparse.Namespace) -> None:
    limits = KeyLimits(
        max_sessions=options.max_sessions,
        mints_per_minute=options.mints_per_minute,
        minutes_per_day=options.minutes_per_day,
    )
    key, stored = new_key(options.name, options.scopes, limits, now=time.time())
    await store.add_key(stored)
    print(f"id   {stored.key_id}")
    print(f"key  {key}")
    print("Keep the key now: it is stored as a hash only, and not shown again.")
    check_output(
        f"{stored.key_id} is stored and its key was never shown (`speko-anyio keys revoke {stored.key_id}`)"
    )


def _show(stored: Sequence[StoredKey]) -> None:
    rows = [("ID", "NAME", "SCOPES", "LIMITS", "CREATED", "REVOKED")]
    rows += [
        (
            key.key_id,
            # One line for each key, whatever its name is meant to do to the terminal.
            clean(key.name),
            ",".join(key.scopes),
            _limits(key.limits),
            _date(key.created_at),
            "" if key.revoked_at is None else _date(key.revoked_at),
        )
        for key in stored
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _limits(limits: KeyLimits) -> str:
    told = [
        f"{number} {what}"
        for number, what in (
            (limits.max_sessions, "at once"),
            (limits.mints_per_minute, "mints/min"),
            (limits.minutes_per_day, "min/day"),
        )
        if number is not None
    ]
    return ", ".join(told) or "none"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
