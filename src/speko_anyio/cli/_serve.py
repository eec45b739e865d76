"""`speko-anyio serve`: a gateway until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import logging
import secrets
from collections.abc import Collection
from contextlib import AsyncExitStack
from typing import Final

from ..gateway import SessionStore, SQLStore, running_gateway
from ..gateway._log_format import start_log
from ._display import Display
from ._failures import no_listening
from ._gateway_options import describe_links, gateway_of, settings_of, store_of
from ._signals import stop_signals
from ._standard_streams import check_output

logger: Final = logging.getLogger("speko_anyio.cli")


async def serve(options: argparse.Namespace) -> None:
    """Serve the installed handlers; on a signal close the open sessions and end."""
    loaded = settings_of(options)
    settings = loaded.settings
    start_log(settings)
    if loaded.service_links:
        logger.info(describe_links(loaded.service_links))
    display = Display()
    store = store_of(settings)
    keys: Collection[str] = settings.keys
    made_up = not keys and not await _has_keys(store)
    key = f"sk_local_{secrets.token_urlsafe(24)}"
    if made_up:
        keys = (key,)
    playground = made_up if settings.playground is None else settings.playground
    gateway = gateway_of(settings, store, keys=keys, playground=playground)
    # The signals are awaited before the server starts: one that comes early ends it as well.
    with stop_signals() as signals:
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(
                    running_gateway(
                        gateway, host=settings.host, port=settings.port, patience=settings.drain_seconds
                    )
                )
            except (OSError, UnicodeError) as error:
                raise no_listening(settings.host, settings.port, error) from None
            display.line(f"gateway    {url}")
            display.line(f"providers  {', '.join(sorted(gateway.providers))}")
            display.line(f"records    {store.url if isinstance(store, SQLStore) else 'in memory'}")
            if made_up:
                display.line("There are no API keys; one for this run, in your client's shell:")
                display.line(f"  export SPEKO_BASE_URL={url} SPEKO_API_KEY={key}")
            if playground:
                # In the fragment, which stays in the browser.
                display.line(f"playground {url}/{f'#key={key}' if made_up else ''}")
            display.line("stop with Ctrl-C")
            if made_up:
                # If the key could not be printed, no client can ever connect.
                check_output("the gateway started")
            async for _ in signals:
                break
            display.line(f"stopping: open sessions get {settings.drain_seconds:g} s to finish")


async def _has_keys(store: SessionStore) -> bool:
    """Whether anybody could mint with a key of the store."""
    if not isinstance(store, SQLStore):
        return False
    async with store:
        return any(key.revoked_at is None for key in await store.keys())
