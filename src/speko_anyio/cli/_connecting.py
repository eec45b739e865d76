"""Opens one session for a command: with a service, a provider, or a gateway in this process."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple

import anyio

from .._accounts import PROVIDERS, Provider
from ..client._api import Speko
from ..client._session import RealtimeSession
from ..client.tools import AnyTool
from . import _files as files
from ._display import Display
from ._failures import USAGE, CommandError
from ._parser import WRITTEN
from ._recordings import recorded_to

SERVED_HERE: Final = ("local", "echo")
"""Providers that a gateway in this process serves if no service is named."""

_KINDS: Final = {kind.name: kind for kind in PROVIDERS}


def usual_model(provider: str) -> str:
    """Return the model to use if none is given: the provider's name for a provider that we don't know."""
    kind = _KINDS.get(provider)
    return provider if kind is None else kind.usual_model


class LocalGateway(NamedTuple):
    """Where to mint, and with which key."""

    base_url: str
    api_key: str

    def __repr__(self) -> str:
        return f"LocalGateway({self.base_url!r})"


@asynccontextmanager
async def gateway_here(account: Provider | None = None) -> AsyncIterator[LocalGateway]:
    """Run a gateway in this process during the block, on a free loopback port, with a key of its own.

    It serves the built-in handlers or, if given, the provider of `account`.
    """
    # Imported here: a session elsewhere needs nothing of the gateway.
    from .. import gateway

    key = f"sk_local_{secrets.token_urlsafe(24)}"
    handlers = gateway.built_in_handlers()
    if account is not None:
        handlers = {account.name: gateway.ProviderHandler(account)}
    async with gateway.running_gateway(gateway.Gateway(handlers=handlers, api_keys=[key])) as url:
        yield LocalGateway(url, key)


def base_url_of(options: argparse.Namespace) -> str | None:
    """Return the service's URL from ``--base-url`` or the environment; None if neither is set."""
    return options.base_url or os.environ.get("SPEKO_BASE_URL")


@asynccontextmanager
async def connected(
    options: argparse.Namespace, display: Display, *, tools: Iterable[AnyTool] = ()
) -> AsyncIterator[RealtimeSession]:
    """Open the session that the command's options ask for; it answers calls of `tools`.

    It continues the conversation in the file of ``--history``, and writes all of it there at the end.
    """
    if options.history is not None:
        files.check_writable(options.history, "--history")
    history = await files.load_history(options.history)
    async with AsyncExitStack() as stack:
        observer = stack.enter_context(recorded_to(options.record))
        account = _account(options)
        parameters: dict[str, Any] = {
            "model": options.model or usual_model(options.provider),
            "voice": options.voice,
            "system_prompt": options.system_prompt,
            "input_sample_rate": options.rate,
            "output_sample_rate": options.rate,
            "tools": tools,
            "observer": observer,
            "history": history,
            "output": "text" if options.output == WRITTEN else "audio",
        }
        if options.direct:
            assert account is not None
            display.status(f"opening a session with {options.provider}")
            connecting = account.connect(**parameters)
        else:
            base_url, api_key = options.base_url, None  # the client reads SPEKO_BASE_URL itself, and names it
            if account is not None or (base_url_of(options) is None and options.provider in SERVED_HERE):
                display.status("starting a gateway in this process")
                base_url, api_key = await stack.enter_async_context(gateway_here(account))
            speko = await stack.enter_async_context(Speko(api_key, base_url))
            display.status("opening a session")
            connecting = speko.realtime.connect(provider=options.provider, **parameters)
        session = await stack.enter_async_context(connecting)
        try:
            yield session
        finally:
            if options.history is not None:
                # Shielded: it is a short file, and all that is left of the conversation.
                with anyio.CancelScope(shield=True):
                    await files.save_history(options.history, session.history)


def _account(options: argparse.Namespace) -> Provider | None:
    """Return the user's own account with the provider, from the environment; None to use a service.

    ``--direct`` and ``--provider-url`` ask for it; otherwise a service that is named or has a key takes
    precedence.
    """
    kind = _KINDS.get(options.provider)
    asked = options.direct or options.provider_url is not None
    if asked and kind is None:
        raise CommandError(
            f"{options.provider} has no API of its own; use --direct and --provider-url with "
            f"{', '.join(_KINDS)}",
            USAGE,
        )
    service = base_url_of(options) or os.environ.get("SPEKO_API_KEY")
    if kind is None and not service and options.provider not in SERVED_HERE:
        known = ", ".join([*SERVED_HERE, *_KINDS])
        raise CommandError(
            f"there is no provider {options.provider} here, only {known}; a service may have more: set "
            "SPEKO_API_KEY, and SPEKO_BASE_URL or --base-url unless it is Speko's",
            USAGE,
        )
    if kind is None or (service and not asked):
        return None
    if not (asked or kind.is_configured()):
        raise CommandError(
            f"no API key: set {kind.key_variable} for your own account with {options.provider}, or "
            "SPEKO_API_KEY for a service's",
            USAGE,
        )
    return kind(base_url=options.provider_url)
