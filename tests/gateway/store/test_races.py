"""Two nodes on one database, at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import pytest

from speko_anyio.gateway import KeyLimits, SessionRecord, SQLStore
from speko_anyio.gateway.store import Idempotency, LimitError, Refused

from .support import claim, record

pytestmark = pytest.mark.anyio

TIMES = 12


@pytest.fixture
async def nodes(database_url: str, anyio_backend: object) -> AsyncIterator[tuple[SQLStore, ...]]:
    async with AsyncExitStack() as stack:
        yield tuple([await stack.enter_async_context(SQLStore(database_url)) for _ in range(2)])


async def together(*calls: Callable[[], Awaitable[SessionRecord | Refused]]) -> list[object]:
    """What each call gives, or its `LimitError`."""
    results: list[object] = []

    async def call(work: Callable[[], Awaitable[SessionRecord | Refused]]) -> None:
        try:
            results.append(await work())
        except LimitError as error:
            results.append(error)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for work in calls:
                tasks.start_soon(call, work)
    return results


async def test_one_of_them_gets_the_session(nodes: tuple[SQLStore, ...]) -> None:
    await nodes[0].create(record(), idempotency=None, now=0)

    def one(number: int) -> Callable[[], Awaitable[SessionRecord | Refused]]:
        return lambda: claim(nodes[number % 2], node_id=f"node_{number % 2}")

    results = await together(*map(one, range(TIMES)))
    assert results.count(record()) == 1
    assert results.count(Refused.USED) == TIMES - 1


async def test_one_request_makes_one_session(nodes: tuple[SQLStore, ...]) -> None:
    same = Idempotency("key_a", "k", b"body")

    def one(number: int) -> Callable[[], Awaitable[SessionRecord]]:
        return lambda: nodes[number % 2].create(record(number), idempotency=same, now=0)

    results = await together(*map(one, range(TIMES)))
    assert all(result == results[0] for result in results)
    assert isinstance(results[0], SessionRecord)


@pytest.mark.parametrize(
    ("limits", "granted"),
    [
        (KeyLimits(max_sessions=5), [60] * 5),
        (KeyLimits(mints_per_minute=5), [60] * 5),
        (KeyLimits(minutes_per_day=3), [60] * 3),
    ],
)
async def test_limits_hold(nodes: tuple[SQLStore, ...], limits: KeyLimits, granted: list[int]) -> None:
    def one(number: int) -> Callable[[], Awaitable[SessionRecord]]:
        return lambda: nodes[number % 2].create(record(number), idempotency=None, limits=limits, now=0)

    results = await together(*map(one, range(TIMES)))
    assert [result.ttl_seconds for result in results if isinstance(result, SessionRecord)] == granted
    assert sum(isinstance(result, LimitError) for result in results) == TIMES - len(granted)
