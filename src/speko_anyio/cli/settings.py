"""The gateway's settings as the command line gives them: options before the environment, before the file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

from ..gateway import Gateway, MemoryStore, SessionStore, SQLStore, default_handlers
from ..gateway.handlers import OWN_NAMES
from ..gateway.settings import Loaded, Settings, SettingsError, load_settings, parse_handlers
from ..gateway.store.limits import DAY
from .failures import USAGE, CommandError
from .loading import load_handlers

MEMORY: Final = "memory"
"""No database: the records end with the process."""

_OPTIONS: Final = {
    "host": "host",
    "port": "port",
    "public_url": "public_url",
    "handler": "handlers",
    "playground": "playground",
    "patience": "drain_seconds",
    "transcript_days": "transcript_days",
    "record_days": "record_days",
    "database": "database",
}
"""Options of `serve` and its like, and the settings that they stand for."""


def settings_of(options: argparse.Namespace) -> Loaded:
    """The settings and where each one stands; `CommandError` when one can't be used."""
    given = {
        setting: value
        for option, setting in _OPTIONS.items()
        if (value := getattr(options, option, None)) is not None
    }
    try:
        loaded = load_settings(options.config, os.environ)
        if "handlers" in given:
            given["handlers"] = parse_handlers(given["handlers"], source="--handler")
    except SettingsError as error:
        raise CommandError(str(error), USAGE) from None
    sources = {setting: f"--{option.replace('_', '-')}" for option, setting in _OPTIONS.items()}
    return Loaded(
        msgspec.structs.replace(loaded.settings, **given),
        loaded.sources | {setting: sources[setting] for setting in given},
    )


def database_of(settings: Settings) -> str:
    """The path or URL of the gateway's database; a file of the user's own when none is set."""
    return settings.database or str(_default())


def database_store_of(settings: Settings) -> SQLStore:
    """The gateway's database; `CommandError` when its records are in memory, where nobody else finds them."""
    database = database_of(settings)
    if database == MEMORY:
        raise CommandError(
            "the gateway's records are to be in memory, which ends with its process; name a database with "
            "--database or SPEKO_GATEWAY_DATABASE",
            USAGE,
        )
    return SQLStore(database)


def store_of(settings: Settings, *, migrate_at_start: bool | None = None) -> MemoryStore | SQLStore:
    """Where the gateway keeps its records; not entered."""
    database = database_of(settings)
    return MemoryStore() if database == MEMORY else SQLStore(database, migrate_at_start=migrate_at_start)


def gateway_of(
    settings: Settings, store: SessionStore, *, keys: Collection[str], playground: bool
) -> Gateway:
    """The gateway with these settings; `CommandError` when it can't work."""
    own = load_handlers(settings.handlers, reserved=OWN_NAMES)
    try:
        return Gateway(
            handlers={**default_handlers(), **own},
            api_keys=keys,
            secret=settings.secret,
            store=store,
            transcript_retention=_seconds(settings.transcript_days),
            record_retention=_seconds(settings.record_days),
            lease=settings.lease_seconds,
            public_url=settings.public_url,
            token_lifetime=settings.token_seconds,
            mint_rate=settings.mints_per_second,
            mint_burst=settings.mints_at_once,
            max_sessions=settings.max_sessions,
            idle_timeout=settings.idle_seconds,
            allowed_origins=settings.allowed_origins,
            metrics=settings.metrics,
            playground=playground,
        )
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY


def _default() -> Path:
    # Where the XDG base directories put what a program has to remember. Not the folder that the command
    # happens to run in: the next one would not find the keys.
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "speko-anyio" / "gateway.db"
