"""How much a `MemoryStore` holds; what it does is in `test_contract`."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.gateway import MemoryStore, SessionOutcome
from speko_anyio.gateway.store import (
    RECORD_OVERHEAD,
    Idempotency,
    StoreFullError,
    TranscriptLine,
)

from .support import claim, record

pytestmark = pytest.mark.anyio


async def test_it_forgets_what_expired_for_what_comes_and_refuses_what_does_not_fit() -> None:
    store = MemoryStore(max_records=2)
    same = Idempotency("key_a", "k", b"body")
    await store.create(record(1), idempotency=same, now=0)
    await store.create(record(2, token_expires_at=70), idempotency=None, now=0)
    with pytest.raises(StoreFullError):
        await store.create(record(3), idempotency=None, now=59)
    again = await store.create(record(3, token_expires_at=120), idempotency=same, now=60)
    assert again.session_id == "sess_3"
    assert len(store) == 2
    assert await store.get("sess_1") is None


async def test_it_forgets_no_session_that_lives_and_the_oldest_that_is_over() -> None:
    store = MemoryStore(max_records=3)
    for number in (1, 2, 3):
        await store.create(record(number), idempotency=None, now=0)
        await claim(store, number)
    with pytest.raises(StoreFullError):
        await store.create(record(4, token_expires_at=160), idempotency=None, now=100)
    for number in (2, 1):
        await store.end(f"sess_{number}", SessionOutcome(), now=100)
    await store.create(record(4, token_expires_at=160), idempotency=None, now=101)
    assert [number for number in (1, 2, 3, 4) if await store.get(f"sess_{number}")] == [1, 3, 4]


async def test_a_record_that_waited_behind_a_longer_lived_one_is_forgotten_once() -> None:
    store = MemoryStore(max_records=2)
    await store.create(record(1, token_expires_at=100), idempotency=None, now=0)
    await store.create(record(2), idempotency=None, now=0)
    await claim(store, 2)
    await store.end("sess_2", SessionOutcome(), now=70)
    await store.create(record(3, token_expires_at=300), idempotency=None, now=80)
    await store.create(record(4, token_expires_at=300), idempotency=None, now=110)
    assert len(store) == 2
    with pytest.raises(StoreFullError):
        await store.create(record(5, token_expires_at=300), idempotency=None, now=120)


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


async def test_a_transcript_that_does_not_fit_is_not_kept() -> None:
    store = MemoryStore(max_bytes=4 * RECORD_OVERHEAD)
    for number in (1, 2):
        await store.create(record(number), idempotency=None, now=0)
        await claim(store, number)
    short, long = [(TranscriptLine("user", "x" * size, 1.0),) for size in (10, RECORD_OVERHEAD)]
    await store.end("sess_1", SessionOutcome(transcript=short), now=2)
    await store.end("sess_2", SessionOutcome(transcript=long), now=3)
    assert (await store.transcript("sess_1")).lines == short
    assert (await store.transcript("sess_2")).lines == ()
    assert (await store.get("sess_2")) is not None


async def test_a_transcript_pushes_out_what_is_past() -> None:
    store = MemoryStore(max_bytes=4 * RECORD_OVERHEAD)
    for number in (1, 2):
        await store.create(record(number), idempotency=None, now=0)
        await claim(store, number)
    await store.end("sess_1", SessionOutcome(), now=100)
    lines = (TranscriptLine("user", "x" * (RECORD_OVERHEAD // 2), 1.0),)
    await store.end("sess_2", SessionOutcome(transcript=lines), now=101)
    assert await store.get("sess_1") is None
    assert (await store.transcript("sess_2")).lines == lines
