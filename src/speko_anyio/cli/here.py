"""A gateway in this process, for whoever has no other: with the offline voice, and a key nobody else has."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from ..gateway import Gateway, default_handlers, running_gateway


class Endpoint(NamedTuple):
    """Where to mint, and with what. Shown nowhere: it holds the key."""

    base_url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"


@asynccontextmanager
async def gateway_here() -> AsyncIterator[Endpoint]:
    """Serve on a free port of the loopback interface while the block runs."""
    key = f"sk_local_{secrets.token_urlsafe(24)}"
    async with running_gateway(Gateway(handlers=default_handlers(), api_keys=[key])) as url:
        yield Endpoint(url, key)
