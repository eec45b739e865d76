"""The gateway that the command's options ask for; they override the environment, which overrides the file."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import msgspec.inspect

from .._accounts import PROVIDERS
from ..gateway import Gateway, MemoryStore, Phone, SessionStore, SQLStore, default_handlers, echo
from ..gateway._api_keys import LOCAL_KEY, LOCAL_KEY_ID, find_weakness
from ..gateway._served_phone import check_phones, phone_path
from ..gateway._session_handlers import OWN_NAMES
from ..gateway._settings import (
    Loaded,
    Settings,
    SettingsError,
    convert_table,
    parse_handlers,
    parse_phones,
    read_settings,
)
from ..gateway.engines import SpeechToText
from ..gateway.local._ears import make_ear
from ..gateway.store import SessionQuery
from ..gateway.store._key_limits import DAY
from ._failures import USAGE, CommandError
from ._loading import load_handlers

MEMORY: Final = "memory"
"""No database: the records end with the process."""

NO_KEYS: Final = (
    "nobody can create a session; make a key with `speko-anyio keys create --name NAME`, or start with "
    "--temporary-key"
)

_FILE: Final = Path("speko-anyio", "gateway.db")

_OPTIONS: Final = {
    "host": "host",
    "port": "port",
    "public_url": "public_url",
    "handler": "handlers",
    "phone": "phones",
    "ear": "ear",
    "temporary_key": "temporary_key",
    "playground": "playground",
    "drain_seconds": "drain_seconds",
    "transcript_days": "transcript_days",
    "record_days": "record_days",
    "database": "database",
}
"""Options of `serve`, and the settings that they override."""


def settings_of(options: argparse.Namespace) -> Loaded:
    """Return the settings and the source of each.

    Raises `CommandError`, which lists every fault, if any setting is invalid.
    """
    loaded = read_settings_of(options)
    if loaded.faults:
        raise CommandError(loaded.faults[0], USAGE, more=loaded.faults[1:])
    return loaded


def read_settings_of(options: argparse.Namespace) -> Loaded:
    """Like `settings_of`, but lists the faults in `Loaded.faults` instead of raising."""
    given = {
        setting: value
        for option, setting in _OPTIONS.items()
        if (value := getattr(options, option, None)) is not None
    }
    loaded = read_settings(options.config, os.environ)
    faults = loaded.faults
    for setting, option, parse in (
        ("handlers", "--handler", parse_handlers),
        ("phones", "--phone", _parse_phones),
    ):
        if setting in given:
            try:
                given[setting] = parse(given[setting], source=option)
            except SettingsError as error:
                del given[setting]
                faults += error.faults
    if getattr(options, "unsigned_phones", False):
        phones = given.get("phones", loaded.settings.phones)
        if not (phones or faults):
            lacking = "no phone is configured; add --phone CARRIER=HANDLER, such as twilio=local"
            faults += (f"--unsigned-phones: {lacking}",)
        given["phones"] = {
            carrier: msgspec.structs.replace(phone, unsigned=True) for carrier, phone in phones.items()
        }
    sources = {setting: f"--{option.replace('_', '-')}" for option, setting in _OPTIONS.items()}
    return Loaded(
        msgspec.structs.replace(loaded.settings, **given),
        loaded.sources | {setting: sources[setting] for setting in given},
        faults,
        loaded.service_links,
    )


def _parse_phones(texts: Iterable[str], *, source: str) -> dict[str, Phone]:
    return {carrier: Phone(**fields) for carrier, fields in parse_phones(texts, source=source).items()}


def describe_links(variables: Sequence[str]) -> str:
    """Return the note about ignored variables, for the log and for ``gateway check``."""
    others = f" and {len(variables) - 1} more" if len(variables) > 1 else ""
    return (
        f"{variables[0]}{others} ignored: Kubernetes or Docker sets them for a service of that name; set "
        "enableServiceLinks: false to leave them out"
    )


def database_of(settings: Settings) -> str:
    """Return the path or URL of the gateway's database, by default a file in the user's state folder."""
    return settings.database or str(_default())


def database_store_of(settings: Settings) -> SQLStore:
    """Return the gateway's database; raise `CommandError` if its records are in memory only."""
    database = database_of(settings)
    if database == MEMORY:
        raise CommandError(
            "the gateway's records are to be in memory, which ends with its process; name a database with "
            "--database or SPEKO_GATEWAY_DATABASE",
            USAGE,
        )
    return SQLStore(database)


def store_of(settings: Settings, *, migrate_at_start: bool | None = None) -> MemoryStore | SQLStore:
    """Return the store of the gateway's records, not entered."""
    database = database_of(settings)
    return MemoryStore() if database == MEMORY else SQLStore(database, migrate_at_start=migrate_at_start)


class KeysInUse(NamedTuple):
    """What a store knows about API keys."""

    usable: int
    """How many keys it holds that were not revoked."""
    unused: bool
    """Whether only generated keys were ever used with it: it holds no keys, not even revoked ones, and its
    latest session, if any, was created with a generated key."""


async def keys_in_use(store: MemoryStore | SQLStore) -> KeysInUse:
    """Return what `store`, which must be entered, knows about API keys."""
    keys = await store.keys()
    latest = await store.sessions(SessionQuery(limit=1), now=time.time())
    unused = not keys and all(one.record.key_id.startswith(LOCAL_KEY_ID) for one in latest.sessions)
    return KeysInUse(sum(key.revoked_at is None for key in keys), unused)


def generates_key(loaded: Loaded, keys: KeysInUse) -> bool:
    """Return whether `serve` generates an API key for this run.

    A gateway that its operator closed stays closed: if the keys of the store were revoked, or those of the
    configuration removed, a key is generated only if the operator asks for it.
    """
    settings = loaded.settings
    if settings.temporary_key is not None:
        return settings.temporary_key
    return keys.unused and "keys" not in loaded.sources and is_private(settings)


def new_temporary_key(settings: Settings) -> str:
    """Return a key for one run."""
    return f"{LOCAL_KEY if is_private(settings) else 'sk_temporary_'}{secrets.token_urlsafe(24)}"


def is_private(settings: Settings) -> bool:
    """Return whether only programs on this machine reach the gateway, as far as the settings tell."""
    return is_loopback(settings.host) and settings.public_url is None


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_weak_secrets(loaded: Loaded) -> list[str]:
    """Return a message for each API key and signing secret of the settings that can be guessed."""
    settings = loaded.settings
    faults = []
    for number, key in enumerate(settings.keys, 1):
        if key and (weakness := find_weakness(key)) is not None:
            which = "the API key" if len(settings.keys) == 1 else f"API key {number} of {len(settings.keys)}"
            faults.append(f"{loaded.sources['keys']}: {which} {weakness}")
    if settings.secret is not None and (weakness := find_weakness(settings.secret)) is not None:
        faults.append(f"{loaded.sources['secret']}: the secret {weakness}")
    return faults


def gateway_of(
    settings: Settings, store: SessionStore, *, keys: Collection[str], playground: bool
) -> Gateway:
    """Return the gateway with these settings; raise `CommandError` if it can't work."""
    own = load_handlers(settings.handlers, reserved=OWN_NAMES)
    try:
        check_phones(settings.phones)  # a misspelled carrier can't be reached either, which would mislead
        _check_reach(settings)
        ours = default_handlers(
            models=settings.models,
            provider_options=provider_options_of(settings),
            ear=ear_of(settings),
        )
        return Gateway(
            handlers={**ours, **own},
            phones=settings.phones,
            api_keys=keys,
            store=store,
            playground=playground,
            **_gateway_options(settings),
        )
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None


def _check_reach(settings: Settings) -> None:
    """Raise ValueError if carriers can't reach a phone, or others can reach one that checks no signatures."""
    for carrier, phone in settings.phones.items():
        if phone.unsigned and not is_private(settings):
            raise ValueError(
                f"the phone {carrier} checks no signatures, so it must stay on this machine: listen on "
                "127.0.0.1 without a public URL, or let it check them"
            )
        if not phone.unsigned and not (settings.public_url or "").startswith("https://"):
            raise ValueError(
                f"the phone {carrier} needs an HTTPS address that {carrier} can reach; pass --public-url "
                "https://..., that of your proxy or tunnel, or try it on this machine with --unsigned-phones"
            )


def phone_urls(settings: Settings, url: str) -> Iterator[tuple[str, str]]:
    """Yield each carrier, and the URL of its webhook, for a gateway that listens on `url`."""
    for carrier in settings.phones:
        yield carrier, f"{(settings.public_url or url).rstrip('/')}{phone_path(carrier)}"


def ear_of(settings: Settings) -> SpeechToText | None:
    """Return the offline voice's ear, None for its own; raise ValueError if there is none of that name."""
    if settings.ear is None:
        return None
    return make_ear(settings.ear)


def provider_options_of(settings: Settings) -> dict[str, Any]:
    """Return the options of each provider's account.

    Raises ValueError for an unknown provider and for invalid options.
    """
    kinds = {kind.name: kind for kind in PROVIDERS}
    for name, models in settings.models.items():
        if name not in kinds:
            raise ValueError(f"models: unknown provider {name}; choose from {', '.join(kinds)}")
        if not models:
            raise ValueError(f"models: {name} has no model; name those that clients may use")
    options = {}
    for name, fields in settings.provider_options.items():
        if name not in kinds:
            raise ValueError(f"provider_options: unknown provider {name}; choose from {', '.join(kinds)}")
        options[name] = convert_table(f"provider_options for {name}", fields, kinds[name].options_type)
    return options


def without_faults(loaded: Loaded) -> tuple[Settings, list[str]]:
    """Return the settings that the gateway accepts, and one message for each fault.

    A setting that it refuses has its default.
    """
    settings = loaded.settings
    usable: dict[str, Any] = {}
    faults: list[str] = []
    for name, source in loaded.sources.items():
        found: list[str] = []
        for one in _singly(name, getattr(settings, name)):
            try:
                load_handlers(one.handlers, reserved=OWN_NAMES)
                provider_options_of(one)
                check_phones(one.phones)
                ear_of(one)
                Gateway(handlers={"echo": echo}, api_keys=("any",), **_gateway_options(one))
            except CommandError as error:
                found.append(str(error))
            except ValueError as error:
                found.append(f"{source}: {error}")
        if found:
            faults += found
        else:
            usable[name] = getattr(settings, name)
    return Settings(**usable), faults


def _singly(name: str, value: Any) -> Iterator[Settings]:
    """Yield one `Settings` per item of this setting: the gateway raises for the first fault only."""
    items: list[Any] = [value]
    if isinstance(value, tuple):
        items = [(item,) for item in value]
    elif isinstance(value, dict):
        items = [{key: item} for key, item in value.items()]
    for item in items:
        yield Settings(**{name: item})


def _gateway_options(settings: Settings) -> dict[str, Any]:
    return {
        "secret": settings.secret,
        "transcript_retention": _seconds(settings.transcript_days),
        "record_retention": _seconds(settings.record_days),
        "lease": settings.lease_seconds,
        "public_url": settings.public_url,
        "token_lifetime": settings.token_seconds,
        "mint_rate": settings.mints_per_second,
        "mint_burst": settings.mints_at_once,
        "read_rate": settings.reads_per_second,
        "read_burst": settings.reads_at_once,
        "max_sessions": settings.max_sessions,
        "idle_timeout": settings.idle_seconds,
        "allowed_origins": settings.allowed_origins,
        "metrics": settings.metrics,
    }


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY


def _default() -> Path:
    # Where the XDG base directories put what a program has to remember. Not the folder that the command
    # happens to run in: the next one would not find the keys.
    state = os.environ.get("XDG_STATE_HOME")
    if state and Path(state).is_absolute():  # the specification says to ignore relative paths
        return Path(state) / _FILE
    try:
        return Path.home() / ".local" / "state" / _FILE
    except RuntimeError:
        raise CommandError(
            "this user has no home directory for the gateway's database; choose a path with --database or "
            "SPEKO_GATEWAY_DATABASE, or set HOME",
            USAGE,
        ) from None
