"""`speko-anyio gateway`: what an operator does to a gateway besides running it."""

from __future__ import annotations

import argparse

from .settings import database_store_of, settings_of


async def gateway(options: argparse.Namespace) -> None:
    """Check the configuration, or bring the database's tables up to date."""
    if options.action == "check":
        from .check import check

        await check(options)
        return
    store = database_store_of(settings_of(options).settings)
    await store.migrate()
    print(f"the tables of {store.url} are up to date")
