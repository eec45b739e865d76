"""One session for a command: with a service, with a provider, or with a gateway in this process."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from ..accounts import PROVIDERS, Provider
from ..client.api import Speko
from ..client.session import RealtimeSession
from ..client.tools import AnyTool
from ..observe.observer import Observer
from .display import Display
from .failures import USAGE, CommandError
from .recording import recorded_to

SERVED_HERE: Final = ("local", "echo")
"""Providers that a gateway in this process serves when no other is named."""

_KINDS: Final = {kind.name: kind for kind in PROVIDERS}


def usual_model(provider: str) -> str:
    """The model to use when none is given. For a provider that this library doesn't know, that is the
    provider's own name."""
    kind = _KINDS.get(provider)
    return provider if kind is None else kind.usual_model


@asynccontextmanager
async def connected(
    options: argparse.Namespace, display: Display, *, tools: Iterable[AnyTool] = ()
) -> AsyncIterator[RealtimeSession]:
    """Open the session that the options of the command ask for, see `main`; `tools` are answered in it."""
    async with AsyncExitStack() as stack:
        observer = stack.enter_context(recorded_to(options.record))
        yield await stack.enter_async_context(await _session(options, tools, observer, display, stack))


async def _session(
    options: argparse.Namespace,
    tools: Iterable[AnyTool],
    observer: Observer | None,
    display: Display,
    stack: AsyncExitStack,
) -> AbstractAsyncContextManager[RealtimeSession]:
    """The session that the options ask for; what it needs beneath it is entered into `stack`."""
    account = _account(options)
    model = options.model or usual_model(options.provider)
    if options.direct:
        assert account is not None
        display.status(f"opening a session with {options.provider}")
        return account.connect(
            model=model,
            voice=options.voice,
            system_prompt=options.system_prompt,
            input_sample_rate=options.rate,
            output_sample_rate=options.rate,
            tools=tools,
            observer=observer,
        )
    base_url = options.base_url or os.environ.get("SPEKO_BASE_URL")
    api_key = None
    if account is not None or (base_url is None and options.provider in SERVED_HERE):
        from .here import gateway_here

        display.status("starting a gateway in this process")
        base_url, api_key = await stack.enter_async_context(gateway_here(account))
    speko = await stack.enter_async_context(Speko(api_key, base_url))
    display.status("opening a session")
    return speko.realtime.connect(
        provider=options.provider,
        model=model,
        voice=options.voice,
        system_prompt=options.system_prompt,
        input_sample_rate=options.rate,
        output_sample_rate=options.rate,
        tools=tools,
        observer=observer,
    )


def _account(options: argparse.Namespace) -> Provider | None:
    """The account with the provider that is to be used here, out of the environment; None: a service's.

    An option that asks for it goes before everything, then a service that was named or has a key.
    """
    kind = _KINDS.get(options.provider)
    asked = options.direct or options.provider_url is not None
    if asked and kind is None:
        raise CommandError(
            f"{options.provider} has no API of its own; use --direct and --provider-url with "
            f"{', '.join(_KINDS)}",
            USAGE,
        )
    service = options.base_url or os.environ.get("SPEKO_BASE_URL") or os.environ.get("SPEKO_API_KEY")
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
