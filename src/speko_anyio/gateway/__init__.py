"""The self-hosted gateway (extra ``gateway``): mints sessions, admits them, hands each to a handler.

A handler is a coroutine over a `ServerSession`; a `Gateway` maps provider names to handlers::

    gateway = Gateway(handlers=default_handlers(), api_keys=["a-key-of-your-own"])
    async with running_gateway(gateway) as base_url:
        ...

or run the gateway under any ASGI server: it is an ASGI application.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from .._extras import install_extra

if TYPE_CHECKING:
    from .app import Gateway
    from .echo_handler import echo
    from .handlers import Handler, built_in_handlers, default_handlers
    from .provider_handler import ProviderHandler
    from .server import running_gateway, serve
    from .session import MessageTransport, ServerSession, open_session
    from .store import (
        KeyLimits,
        MemoryStore,
        SessionHistory,
        SessionOutcome,
        SessionQuery,
        SessionRecord,
        SessionStore,
        StoredKey,
        StoreError,
    )
    from .store.sql import SQLStore

__all__ = [
    "Gateway",
    "Handler",
    "KeyLimits",
    "MemoryStore",
    "MessageTransport",
    "ProviderHandler",
    "SQLStore",
    "ServerSession",
    "SessionHistory",
    "SessionOutcome",
    "SessionQuery",
    "SessionRecord",
    "SessionStore",
    "StoreError",
    "StoredKey",
    "built_in_handlers",
    "default_handlers",
    "echo",
    "open_session",
    "running_gateway",
    "serve",
]

# Loaded on first use: a session over another transport, and the offline voice's worker processes, need
# nothing of the extra.
_HOMES: Final = {
    "Gateway": "app",
    "Handler": "handlers",
    "KeyLimits": "store",
    "MemoryStore": "store",
    "MessageTransport": "session",
    "ProviderHandler": "provider_handler",
    "SQLStore": "store.sql",
    "ServerSession": "session",
    "SessionHistory": "store",
    "SessionOutcome": "store",
    "SessionQuery": "store",
    "SessionRecord": "store",
    "SessionStore": "store",
    "StoreError": "store",
    "StoredKey": "store",
    "built_in_handlers": "handlers",
    "default_handlers": "handlers",
    "echo": "echo_handler",
    "open_session": "session",
    "running_gateway": "server",
    "serve": "server",
}
_EXTRA: Final = {"alembic", "jwt", "sqlalchemy", "starlette", "uvicorn"}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    try:
        return getattr(import_module(f".{home}", __name__), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        raise ImportError(
            f"the gateway needs {missing}, which is not installed; {install_extra('gateway')}",
            name=missing,
        ) from None
