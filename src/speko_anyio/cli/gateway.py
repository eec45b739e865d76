"""`speko-anyio gateway`: what an operator does to a gateway besides running it."""

from __future__ import annotations

import argparse

from ..gateway import SQLStore
from .database import database_of


async def gateway(options: argparse.Namespace) -> None:
    """Bring the database's tables up to date."""
    store = SQLStore(database_of(options))
    await store.migrate()
    print(f"the tables of {store.url} are up to date")
