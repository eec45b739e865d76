"""`speko-anyio gateway`: check a gateway's configuration, or bring its database's tables up to date."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

import anyio

from .._accounts import PROVIDERS
from .._extras import install_extra
from ..gateway import Gateway, MemoryStore, SQLStore
from ..gateway._settings import Loaded, Settings
from ..gateway.store._contract import OldTablesError
from ..protocol.errors import SpekoError
from ._display import Display
from ._failures import USAGE, CommandError, exit_code_of, no_listening
from ._gateway_options import (
    NO_KEYS,
    KeysInUse,
    database_store_of,
    describe_links,
    find_weak_secrets,
    gateway_of,
    generates_key,
    is_loopback,
    keys_in_use,
    phone_urls,
    read_settings_of,
    settings_of,
    store_of,
    without_faults,
)

_PATIENCE: Final = 15.0
"""Seconds for the database to answer."""

_ANY_KEY: Final = "any"


async def gateway(options: argparse.Namespace) -> None:
    """Check the configuration, or bring the database's tables up to date."""
    if options.action == "check":
        await _check(options)
        return
    store = database_store_of(settings_of(options).settings)
    await store.migrate()
    print(f"the tables of {store.url} are up to date")


async def _check(options: argparse.Namespace) -> None:
    """Show every setting and its source, try what a start would need, and note what looks unwise.

    Raises `CommandError` at the end, with every fault that would keep the gateway from starting.
    """
    loaded = read_settings_of(options)
    faults = _Faults()
    faults.add(USAGE, *loaded.faults, *find_weak_secrets(loaded))
    settings, refused = without_faults(loaded)
    faults.add(USAGE, *refused)
    display = Display()
    for line in _shown(loaded):
        display.line(line)
    gateway = None
    keys = KeysInUse(0, unused=True)
    for kind in PROVIDERS:
        with faults.caught():
            if kind.is_configured():
                kind()
    with faults.caught():
        gateway = gateway_of(settings, MemoryStore(), keys=settings.keys or (_ANY_KEY,), playground=False)
        if not (loaded.faults or refused):
            display.line(f"ok    providers: {', '.join(sorted(gateway.providers))}")
            for carrier, url in phone_urls(settings, f"http://{settings.host}:{settings.port}"):
                display.line(f"ok    phone: {carrier} must call {url}")
    with faults.caught():
        # An older schema is not migrated here: nodes of that version may be using it.
        store = store_of(settings, migrate_at_start=False)
        keys = await _check_store(store, display)
    with faults.caught():
        _check_address(settings, display)
    if loaded.service_links:
        display.line(f"note  {describe_links(loaded.service_links)}")
    faults.raise_if_any()
    assert gateway is not None, "otherwise there was a fault"
    generates = generates_key(loaded, keys)
    has_keys = any(settings.keys) or keys.usable > 0
    for line in _advice(settings, gateway, has_keys=has_keys, generates=generates):
        display.line(f"note  {line}")


class _Faults:
    """Collects everything that would keep the gateway from starting.

    Finding the faults one by one would cost a deployment each.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._exit_code = 0

    def add(self, exit_code: int, *lines: str) -> None:
        new = [line for line in lines if line not in self._lines]
        if new:
            self._exit_code = self._exit_code or exit_code
            self._lines += new

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Record the error that the block raises, and continue after it."""
        try:
            yield
        except CommandError as error:
            self.add(error.exit_code, *error.lines)
        except SpekoError as error:
            self.add(exit_code_of(error), str(error))

    def raise_if_any(self) -> None:
        """Raise `CommandError` with all faults, if there are any."""
        if self._lines:
            raise CommandError(self._lines[0], self._exit_code, more=self._lines[1:])


def _shown(loaded: Loaded) -> Iterator[str]:
    shown = loaded.settings.shown()
    widths = max(len(name) for name, _ in shown), max(len(value) for _, value in shown)
    for name, value in shown:
        source = loaded.sources.get(name, "default")
        yield f"      {name:<{widths[0]}}  {value:<{widths[1]}}  {source}"


async def _check_store(store: MemoryStore | SQLStore, display: Display) -> KeysInUse:
    """Check the store; return what it knows about API keys."""
    if isinstance(store, MemoryStore):
        display.line("ok    records: in memory, until the process ends")
        return KeysInUse(0, unused=True)
    if store.file is not None and not store.file.exists():
        _check_folder(store.file)
        display.line(f"ok    records: {store.url}, which `serve` will create")
        return KeysInUse(0, unused=True)
    try:
        with anyio.fail_after(_PATIENCE):
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(store)
                keys = await keys_in_use(store)
    except TimeoutError:
        raise CommandError(f"the database {store.url} did not answer in {_PATIENCE:g} s; is it up?") from None
    except OldTablesError as error:
        if store.file is None:
            raise CommandError(str(error)) from None
        display.line(f"ok    records: {store.url}, whose tables the start brings up to date")
        return KeysInUse(1, unused=False)  # unknown: no advice about keys
    except SpekoError as error:
        raise CommandError(str(error)) from None
    noun = "key" if keys.usable == 1 else "keys"
    display.line(f"ok    records: {store.url}, with {keys.usable} usable API {noun}")
    return keys


def _check_folder(file: Path) -> None:
    """Raise `CommandError` if `file` and its folders can't be made."""
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise CommandError(f"can't make the database {file}: {folder} can't be written; choose another path")


def _check_address(settings: Settings, display: Display) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except (OSError, TypeError, ValueError) as error:  # the last two for invalid host names
        raise no_listening(settings.host, settings.port, error) from None
    display.line(f"ok    address: {settings.host}:{settings.port}")


def _advice(settings: Settings, gateway: Gateway, *, has_keys: bool, generates: bool) -> Iterator[str]:
    public = not is_loopback(settings.host)
    if generates:
        yield "`serve` generates an API key for one run; create a lasting one with `speko-anyio keys create`"
    elif not has_keys:
        yield f"no API key works: {NO_KEYS}"
    for kind in PROVIDERS:
        given = [name for name in ("models", "provider_options") if kind.name in getattr(settings, name)]
        if given and kind.name not in gateway.providers:
            names = " and ".join(given)
            yield f"{names} for {kind.name} have no effect: set {kind.key_variable} to serve {kind.name}"
    if settings.secret is None:
        yield "secret is not set: tokens are good on this node only, and not after a restart"
    if public and settings.public_url is None:
        yield "public_url is not set: clients are told the address of their mint's request"
    if settings.public_url is not None and settings.public_url.startswith("http://"):
        yield "public_url is http: tokens and speech cross the network readable; put TLS in front"
    for carrier, phone in settings.phones.items():
        if phone.unsigned:
            yield f"the phone {carrier} checks no signatures; it takes calls from this machine only"
    if public and settings.playground:
        yield "the playground is on, at an address that others reach; it is for development"
    if public and settings.metrics:
        yield "/metrics needs no authentication; block it in the public proxy"
    if gateway.providers == {"echo"}:
        yield f"echo is the only provider; set a provider's API key, or {install_extra('local')}"
