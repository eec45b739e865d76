from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.gateway.store import (
    RECORD_OVERHEAD,
    Idempotency,
    IdempotencyError,
    MemoryStore,
    Refused,
    SessionRecord,
    SessionStore,
    StoreFullError,
)
from speko_anyio.protocol.mint import SessionConfig, ToolSpec

pytestmark = pytest.mark.anyio


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


async def test_a_session_is_claimed_once() -> None:
    store: SessionStore = MemoryStore()
    first = record()
    assert await store.create(first, idempotency=None, now=0) == first
    assert await store.claim("sess_1", "token_1", now=1) == first
    assert await store.claim("sess_1", "token_1", now=1) is Refused.USED
    await store.end("sess_1", None, now=2)
    assert await store.claim("sess_1", "token_1", now=3) is Refused.USED


@pytest.mark.parametrize(
    ("session_id", "token_id", "now"),
    [("sess_2", "token_1", 1), ("sess_1", "token_2", 1), ("sess_1", "token_1", 60)],
)
async def test_only_the_very_session_in_time(session_id: str, token_id: str, now: float) -> None:
    store = MemoryStore()
    await store.create(record(), idempotency=None, now=0)
    assert await store.claim(session_id, token_id, now=now) is Refused.UNKNOWN


async def test_the_same_request_makes_one_record() -> None:
    store = MemoryStore()
    same = Idempotency("key_a", "k", b"body")
    first = await store.create(record(1), idempotency=same, now=0)
    assert await store.create(record(2), idempotency=Idempotency("key_a", "k", b"body"), now=0) == first
    with pytest.raises(IdempotencyError):
        await store.create(record(3), idempotency=Idempotency("key_a", "k", b"other"), now=0)
    other = await store.create(record(4), idempotency=Idempotency("key_b", "k", b"body"), now=0)
    assert other.session_id == "sess_4"
    assert len(store) == 2


async def test_it_forgets_what_expired_and_refuses_what_does_not_fit() -> None:
    store = MemoryStore(max_records=2)
    same = Idempotency("key_a", "k", b"body")
    await store.create(record(1), idempotency=same, now=0)
    await store.create(record(2, token_expires_at=70), idempotency=None, now=0)
    with pytest.raises(StoreFullError):
        await store.create(record(3), idempotency=None, now=59)
    again = await store.create(record(3, token_expires_at=120), idempotency=same, now=60)
    assert again.session_id == "sess_3"
    assert len(store) == 2
    await store.end("sess_3", None, now=120)
    assert len(store) == 0


async def test_it_holds_so_many_bytes() -> None:
    store = MemoryStore(max_bytes=3 * RECORD_OVERHEAD)
    big: dict[str, Any] = {"a": [{}] * RECORD_OVERHEAD}
    with pytest.raises(StoreFullError):
        await store.create(record(1, metadata=big), idempotency=None, now=0)
    await store.create(record(2), idempotency=None, now=0)
    await store.create(record(3, token_expires_at=70), idempotency=None, now=0)
    with pytest.raises(StoreFullError):
        await store.create(record(4), idempotency=None, now=59)
    await store.create(record(4, token_expires_at=70), idempotency=None, now=60)
    assert len(store) == 2


async def test_a_record_comes_back_as_it_was() -> None:
    store = MemoryStore()
    tools = (ToolSpec(name="f", parameters={"type": "object", "n": [1, -0.5, None, 10**25, "\u20ac"]}),)
    config = SessionConfig(provider="p", model="m", input_sample_rate=16000, tools=tools)
    first = record(config=config, metadata={"a": {"b": []}}, created_at=1_800_000_000.1234567)
    await store.create(first, idempotency=None, now=0)
    assert await store.claim("sess_1", "token_1", now=1) == first
