"""Records and keys to put into stores."""

from __future__ import annotations

from typing import Any

from speko_anyio.gateway import KeyLimits, SessionRecord, SessionStore, StoredKey
from speko_anyio.gateway.store import Refused
from speko_anyio.protocol.mint import SessionConfig

NODE = "node_a"
LEASE = 30.0


def record(number: int = 1, **fields: Any) -> SessionRecord:
    defaults: dict[str, Any] = {
        "session_id": f"sess_{number}",
        "key_id": "key_a",
        "token_id": f"token_{number}",
        "config": SessionConfig(provider="p", model="m"),
        "metadata": None,
        "ttl_seconds": 60,
        "created_at": 0.0,
        "token_expires_at": 60,
    }
    return SessionRecord(**{**defaults, **fields})


def key(number: int = 1, **fields: Any) -> StoredKey:
    defaults: dict[str, Any] = {
        "key_id": f"key_{number}",
        "name": f"key number {number}",
        "digest": bytes(32),
        "scopes": ("mint", "read"),
        "limits": KeyLimits(),
        "created_at": float(number),
    }
    return StoredKey(**{**defaults, **fields})


async def claim(
    store: SessionStore, number: int = 1, *, now: float = 1, node_id: str = NODE
) -> SessionRecord | Refused:
    return await store.claim(f"sess_{number}", f"token_{number}", node_id=node_id, lease=LEASE, now=now)
