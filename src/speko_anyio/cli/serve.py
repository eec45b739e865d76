"""`speko-anyio serve`: a gateway until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
from contextlib import AsyncExitStack

import anyio

from ..gateway import Gateway, default_handlers, running_gateway
from .display import Display
from .failures import USAGE, CommandError


async def serve(options: argparse.Namespace) -> None:
    """Serve the installed handlers; on a signal close the living sessions in order and end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    display = Display()
    keys = [key.strip() for key in os.environ.get("SPEKO_GATEWAY_KEYS", "").split(",") if key.strip()]
    made_up = not keys
    if made_up:
        keys = [f"sk_local_{secrets.token_urlsafe(24)}"]
    playground = made_up if options.playground is None else options.playground
    try:
        gateway = Gateway(
            handlers=default_handlers(),
            api_keys=keys,
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
            if made_up:
                display.line("SPEKO_GATEWAY_KEYS is not set; a key for this run, in your client's shell:")
                display.line(f"  export SPEKO_BASE_URL={url} SPEKO_API_KEY={keys[0]}")
            if playground:
                # In the fragment, which stays in the browser.
                display.line(f"playground {url}/{f'#key={keys[0]}' if made_up else ''}")
            display.line("stop with Ctrl-C")
            async for _ in signals:
                break
            display.line(f"stopping: living sessions have {options.patience:g} s")
