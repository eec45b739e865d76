"""`speko-anyio serve`: a gateway until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import gc
import logging
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from ..gateway import MemoryStore, SQLStore, running_gateway
from ..gateway._descriptors import descriptor_limit, raise_descriptor_limit
from ..gateway._log_format import start_log
from ..gateway._served_phone import phone_setup
from ._display import Display
from ._failures import USAGE, CommandError, no_listening
from ._gateway_options import (
    NO_KEYS,
    KeysInUse,
    describe_links,
    find_weak_secrets,
    gateway_of,
    generates_key,
    is_private,
    keys_in_use,
    new_temporary_key,
    phone_urls,
    settings_of,
    store_of,
)
from ._signals import stop_signals
from ._standard_streams import check_output

logger: Final = logging.getLogger("speko_anyio.cli")


async def serve(options: argparse.Namespace) -> None:
    """Serve the installed handlers; on a signal close the open sessions and end."""
    loaded = settings_of(options)
    settings = loaded.settings
    if weak := find_weak_secrets(loaded):
        raise CommandError(weak[0], USAGE, more=weak[1:])
    start_log(settings)
    raise_descriptor_limit()
    if descriptor_limit() < 2 * settings.max_sessions:
        logger.warning(
            "%g descriptors are available, and a session may need two; raise `ulimit -n` for %d sessions",
            descriptor_limit(),
            settings.max_sessions,
        )
    if loaded.service_links:
        logger.info(describe_links(loaded.service_links))
    display = Display()
    store = store_of(settings)
    keys: Collection[str] = tuple(filter(None, settings.keys))
    in_use = await _keys_in_use(store)
    generated = generates_key(loaded, in_use)
    key = new_temporary_key(settings)
    if generated:
        keys = (*keys, key)
    playground = settings.playground
    if playground is None:
        playground = generated and is_private(settings)
    gateway = gateway_of(settings, store, keys=keys, playground=playground)
    # The signals are awaited before the server starts: one that comes early ends it as well.
    with stop_signals(second_ends=True) as signals:
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(
                    running_gateway(
                        gateway, host=settings.host, port=settings.port, patience=settings.drain_seconds
                    )
                )
            except (OSError, UnicodeError) as error:
                raise no_listening(settings.host, settings.port, error) from None
            stack.enter_context(_frozen_heap())
            display.line(f"gateway    {url}")
            display.line(f"providers  {', '.join(sorted(gateway.providers))}")
            for carrier, webhook in phone_urls(settings, url):
                display.line(f"phone      {phone_setup(carrier)} {webhook}")
            display.line(f"records    {store.url if isinstance(store, SQLStore) else 'in memory'}")
            if generated:
                display.line("An API key for this run; in your client's shell:")
                display.line(f"  export SPEKO_BASE_URL={url} SPEKO_API_KEY={key}")
            elif not keys and not in_use.usable:
                display.line(f"keys       none: {NO_KEYS}")
            if playground:
                # In the fragment, which stays in the browser.
                display.line(f"playground {url}/{f'#key={key}' if generated else ''}")
            display.line("stop with Ctrl-C")
            if generated:
                # If the key could not be printed, no client can ever connect.
                check_output("the gateway started")
            async for _ in signals:
                break
            seconds = settings.drain_seconds
            display.line(f"stopping: open sessions get {seconds:g} s to finish; Ctrl-C again ends them now")


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Exclude the objects that exist now from garbage collection, during the block.

    A full collection visits every object and stops all sessions meanwhile; the objects of the start alone
    take 60 ms. During the block it visits only newer objects. It affects the whole process, so the command
    does it, and `running_gateway` does not.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _keys_in_use(store: MemoryStore | SQLStore) -> KeysInUse:
    if isinstance(store, MemoryStore):
        return await keys_in_use(store)
    async with store:
        return await keys_in_use(store)
