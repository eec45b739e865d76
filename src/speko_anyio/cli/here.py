"""A gateway in this process, for whoever has no other: with a key that nobody else has."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from ..accounts import Provider
from ..gateway import Gateway, Handler, ProviderHandler, built_in_handlers, running_gateway


class Endpoint(NamedTuple):
    """Where to mint, and with what. Shown nowhere: it holds the key."""

    base_url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"


@asynccontextmanager
async def gateway_here(account: Provider | None = None) -> AsyncIterator[Endpoint]:
    """Serve on a free port of the loopback interface while the block runs: the built-in handlers, or the
    provider of `account`."""
    key = f"sk_local_{secrets.token_urlsafe(24)}"
    handlers: dict[str, Handler] = built_in_handlers()
    if account is not None:
        handlers = {account.name: ProviderHandler(account)}
    async with running_gateway(Gateway(handlers=handlers, api_keys=[key])) as url:
        yield Endpoint(url, key)
