"""How much a `MemoryStore` holds; what it does is in `test_contract`."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from speko_anyio.gateway import KeyLimits, MemoryStore, SessionOutcome, SessionQuery
from speko_anyio.gateway.store import (
    RECORD_OVERHEAD,
    Idempotency,
    SessionPage,
    StoreFullError,
    TranscriptLine,
)
from speko_anyio.gateway.store._memory import _SLICE, _Entry

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


async def test_a_list_gives_others_their_turn_while_it_looks() -> None:
    store = MemoryStore()
    for number in range(10 * _SLICE):
        await store.create(record(number, created_at=float(number)), idempotency=None, now=number)
    turns = 0
    found: list[SessionPage] = []

    async def others() -> None:
        nonlocal turns
        while not found:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        found.append(await store.sessions(SessionQuery(limit=1, provider="none"), now=0))
    assert found == [SessionPage()]
    assert turns >= 9


async def test_a_list_goes_on_while_records_come_and_go() -> None:
    store = MemoryStore(max_records=4 * _SLICE)
    for number in range(4 * _SLICE):
        await store.create(record(number, created_at=float(number)), idempotency=None, now=0)
    found: list[SessionPage] = []

    async def look() -> None:
        found.append(await store.sessions(SessionQuery(limit=1, created_until=1.0), now=0))
        found.append(await store.sessions(SessionQuery(limit=1, provider="none"), now=0))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        for number in range(4 * _SLICE, 6 * _SLICE):
            # Each pushes out the oldest.
            new = record(number, created_at=float(number), token_expires_at=300)
            await store.create(new, idempotency=None, now=100)
            if number % 100 == 0:
                await anyio.lowlevel.checkpoint()
    assert [page.more for page in found] == [False, False]
    assert len(store) == 4 * _SLICE


async def test_what_is_over_costs_a_mint_and_a_beat_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    look = _Entry.open

    def counted(entry: _Entry, now: float) -> bool:
        nonlocal looked
        looked += 1
        return look(entry, now)

    store = MemoryStore()
    for number in range(1000):
        await store.create(record(number, created_at=float(number)), idempotency=None, now=0)
        await claim(store, number)
        await store.end(f"sess_{number}", SessionOutcome(), now=2)
    limits = KeyLimits(max_sessions=2, mints_per_minute=2, minutes_per_day=1000)
    monkeypatch.setattr(_Entry, "open", counted)
    # The first sees that their tokens have expired.
    await store.create(record(1001, created_at=5000.0, token_expires_at=9000), idempotency=None, now=5000)
    looked = 0
    new = record(1002, created_at=5000.0, token_expires_at=9000)
    await store.create(new, idempotency=None, limits=limits, now=5000)
    await store.sweep(now=5000)
    assert looked < 10


async def test_the_time_that_forgotten_sessions_took_counts() -> None:
    store = MemoryStore(max_records=1)
    limits = KeyLimits(minutes_per_day=1)
    await store.create(record(1), idempotency=None, limits=limits, now=0)
    await claim(store, 1, now=0)
    await store.end("sess_1", SessionOutcome(), now=45)
    granted = await store.create(
        record(2, created_at=70.0, token_expires_at=200), idempotency=None, limits=limits, now=70
    )
    assert granted.ttl_seconds == 15
