"""`speko-anyio serve`: a gateway until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
from contextlib import AsyncExitStack
from typing import Final

import anyio

from ..gateway import Gateway, MemoryStore, SessionStore, SQLStore, default_handlers, running_gateway
from .database import MEMORY, database_of
from .display import Display
from .failures import USAGE, CommandError

_DAY: Final = 86_400


async def serve(options: argparse.Namespace) -> None:
    """Serve the installed handlers; on a signal close the living sessions in order and end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    display = Display()
    keys = [key.strip() for key in os.environ.get("SPEKO_GATEWAY_KEYS", "").split(",") if key.strip()]
    database = database_of(options)
    store = MemoryStore() if database == MEMORY else SQLStore(database)
    made_up = not keys and not await _has_keys(store)
    if made_up:
        keys = [f"sk_local_{secrets.token_urlsafe(24)}"]
    playground = made_up if options.playground is None else options.playground
    try:
        gateway = Gateway(
            handlers=default_handlers(),
            api_keys=keys,
            secret=os.environ.get("SPEKO_GATEWAY_SECRET") or None,
            store=store,
            transcript_retention=options.transcript_days and options.transcript_days * _DAY,
            public_url=options.public_url,
            playground=playground,
        )
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None
    # The signals are awaited before the server starts: one that comes early ends it as well.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(
                    running_gateway(gateway, host=options.host, port=options.port, patience=options.patience)
                )
            except OSError as error:
                why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
                where = f"{options.host}:{options.port}"
                raise CommandError(
                    f"can't listen on {where}: {why}; choose another --host or --port", USAGE
                ) from None
            display.line(f"gateway    {url}")
            display.line(f"providers  {', '.join(sorted(gateway.providers))}")
            display.line(f"records    {store.url if isinstance(store, SQLStore) else 'in memory'}")
            if made_up:
                display.line("There are no API keys; one for this run, in your client's shell:")
                display.line(f"  export SPEKO_BASE_URL={url} SPEKO_API_KEY={keys[0]}")
            if playground:
                # In the fragment, which stays in the browser.
                display.line(f"playground {url}/{f'#key={keys[0]}' if made_up else ''}")
            display.line("stop with Ctrl-C")
            async for _ in signals:
                break
            display.line(f"stopping: living sessions have {options.patience:g} s")


async def _has_keys(store: SessionStore) -> bool:
    """Whether anybody could mint with a key of the store."""
    if not isinstance(store, SQLStore):
        return False
    async with store:
        return any(key.revoked_at is None for key in await store.keys())
