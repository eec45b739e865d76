"""The self-hosted gateway (extra ``gateway``): mints sessions, admits them, hands each to a handler.

A handler is a coroutine over a `ServerSession`; a `Gateway` maps provider names to handlers::

    gateway = Gateway(handlers=default_handlers(), api_keys=["a-key-of-your-own"])
    async with running_gateway(gateway) as base_url:
        ...

or run the gateway under any ASGI server: it is an ASGI application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ._app import Gateway
    from ._capabilities import takes
    from ._message_link import MessageTransport
    from ._phone import Phone
    from ._provider_handler import ProviderHandler
    from ._session import Handler, ServerSession, serve_session
    from ._session_handlers import built_in_handlers, default_handlers, echo
    from ._uvicorn_server import running_gateway, serve
    from ._uvicorn_turns import websocket_in_turns
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
    "Phone",
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
    "running_gateway",
    "serve",
    "serve_session",
    "takes",
    "websocket_in_turns",
]

# Loaded on first use: a session over another transport, and the offline voice's worker processes, need
# nothing of the extra.
lazy_exports(
    __name__,
    {
        "_app": "Gateway",
        "_capabilities": "takes",
        "_session_handlers": "built_in_handlers default_handlers echo",
        "_provider_handler": "ProviderHandler",
        "_uvicorn_server": "running_gateway serve",
        "_uvicorn_turns": "websocket_in_turns",
        "_message_link": "MessageTransport",
        "_phone": "Phone",
        "_session": "Handler ServerSession serve_session",
        "store": (
            "KeyLimits MemoryStore SessionHistory SessionOutcome SessionQuery SessionRecord "
            "SessionStore StoreError StoredKey"
        ),
        "store.sql": "SQLStore",
    },
    extra="gateway",
    requires={"alembic", "jwt", "sqlalchemy", "starlette", "uvicorn"},
)
