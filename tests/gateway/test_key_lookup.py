"""Keys that are looked up together, on virtual time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from speko_anyio.gateway import KeyLimits, MemoryStore, StoredKey, StoreError
from speko_anyio.gateway._api_keys import new_key
from speko_anyio.gateway._authentication import (
    MAX_REFUSING,
    MAX_SEEN,
    MAX_WAITING,
    REFUSALS,
    REST,
    KeyLookup,
    Refusals,
)
from speko_anyio.gateway._http_errors import RequestError
from speko_anyio.testing import VIRTUAL_BACKENDS, virtual_backend

pytestmark = pytest.mark.anyio

LATENCY = 0.01

STRANGERS = 3000
"""Who try made-up keys, each as fast as it is refused."""


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Store(MemoryStore):
    """Takes its time, and tells when it was asked for how many."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[tuple[float, int]] = []
        self.strange: list[float] = []
        """When it was asked for a key that it does not know."""
        self.error: Exception | None = None

    async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
        self.queries.append((anyio.current_time(), len(key_ids)))
        found = await super().find_keys(key_ids)
        if len(found) < len(key_ids):
            self.strange.append(anyio.current_time())
        await anyio.sleep(LATENCY)
        if self.error is not None:
            raise self.error
        return found

    async def make(self) -> str:
        """A key that is known."""
        key, kept = new_key("known", ("mint",), KeyLimits(), now=0)
        await self.add_key(kept)
        return key


def made_up() -> str:
    return new_key("nobody's", ("mint",), KeyLimits(), now=0)[0]


def right(found: StoredKey | None, key: str) -> bool:
    return found is not None and found.key_id == f"key_{key[3:19]}"


async def test_right_keys_are_looked_up_without_a_rest() -> None:
    store = Store()
    lookup = KeyLookup(store)
    start = anyio.current_time()
    for _ in range(10):
        key = await store.make()
        assert right(await lookup.find(key), key)
    assert anyio.current_time() - start == pytest.approx(10 * LATENCY)


async def test_those_that_wait_share_a_query() -> None:
    store = Store()
    lookup = KeyLookup(store)
    keys = [await store.make() for _ in range(300)]
    keys[5:5] = [keys[5]] * 3  # the same key, often
    found: dict[int, StoredKey | None] = {}

    async def find(index: int) -> None:
        found[index] = await lookup.find(keys[index])

    async with anyio.create_task_group() as tasks:
        for index in range(len(keys)):
            tasks.start_soon(find, index)
    assert all(right(found[index], key) for index, key in enumerate(keys))
    # The first asked for itself only.
    assert sum(count for _, count in store.queries) <= len(keys)
    assert len(store.queries) == 2


async def test_a_right_key_in_a_flood_waits_for_one_rest_and_a_familiar_one_for_none() -> None:
    store = Store()
    lookup = KeyLookup(store)
    known = await store.make()
    assert right(await lookup.find(known), known)
    refused = 0
    waits: dict[str, list[float]] = {"new": [], "familiar": []}

    async def flood() -> None:
        nonlocal refused
        while True:
            assert await lookup.find(made_up()) is None
            refused += 1
            await anyio.lowlevel.checkpoint()

    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(STRANGERS):
            tasks.start_soon(flood)
        await anyio.sleep(0.2)
        for moment in range(12):
            await anyio.sleep(0.013)
            kind = "familiar" if moment % 2 else "new"
            key = known if moment % 2 else await store.make()
            began = anyio.current_time()
            assert right(await lookup.find(key), key)
            waits[kind].append(anyio.current_time() - began)
        tasks.cancel_scope.cancel()
    took = anyio.current_time() - start
    assert refused >= STRANGERS * 4
    assert max(waits["new"]) <= REST + 2 * LATENCY + 1e-9
    assert max(waits["familiar"]) <= LATENCY + 1e-9
    assert len(store.strange) <= took / REST + 1
    assert all(later - at >= REST for at, later in pairwise(store.strange))


@pytest.mark.parametrize("wrong", ["secret", "revoked"])
async def test_a_key_whose_record_there_is_can_be_wrong_too(wrong: str) -> None:
    store = Store()
    lookup = KeyLookup(store)
    key = await store.make()
    if wrong == "secret":
        key = key[:-43] + "A" * 43
    else:
        await store.revoke_key(f"key_{key[3:19]}", now=1)
    for _ in range(3):
        assert await lookup.find(key) is None
    first, second, third = [at for at, _ in store.queries]
    assert second - first >= REST
    assert third - second >= REST


async def test_a_revoked_key_is_refused_at_once_and_a_new_one_known_at_once() -> None:
    store = Store()
    lookup = KeyLookup(store)
    key = await store.make()
    assert right(await lookup.find(key), key)
    await store.revoke_key(f"key_{key[3:19]}", now=1)
    assert await lookup.find(key) is None
    late, kept = new_key("late", ("mint",), KeyLimits(), now=0)
    assert await lookup.find(late) is None
    await store.add_key(kept)
    assert right(await lookup.find(late), late)


async def test_more_than_may_wait_are_refused() -> None:
    store = Store()
    lookup = KeyLookup(store)
    refused: list[RequestError] = []

    async def ask() -> None:
        try:
            await lookup.find(made_up())
        except RequestError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_WAITING + 5):
            tasks.start_soon(ask)
    assert [(error.status, error.headers) for error in refused] == [(429, {"Retry-After": "1"})] * 5
    # There is room again.
    key = await store.make()
    assert right(await lookup.find(key), key)


@pytest.mark.parametrize("stage", ["resting", "asking", "waiting"])
async def test_who_leaves_hands_its_turn_on(stage: str) -> None:
    store = Store()
    lookup = KeyLookup(store)
    key = await store.make()
    if stage == "resting":
        assert await lookup.find(made_up()) is None
    found: list[StoredKey | None] = []

    async def find() -> None:
        found.append(await lookup.find(key))

    leaving = anyio.CancelScope()

    async def leave() -> None:
        with leaving:
            await lookup.find(key)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(find if stage == "waiting" else leave)
        await anyio.sleep(LATENCY / 4)
        tasks.start_soon(leave if stage == "waiting" else find)
        await anyio.sleep(LATENCY / 4)
        leaving.cancel()
    assert leaving.cancelled_caught
    assert right(found[0], key)
    assert lookup._new.waiting == {}


async def test_a_store_that_fails_is_told_to_all_that_wait_and_asked_again_by_the_next() -> None:
    store = Store()
    lookup = KeyLookup(store)
    key = await store.make()
    store.error = StoreError("the database is away")
    told: list[str] = []

    async def find() -> None:
        try:
            await lookup.find(key)
        except StoreError as error:
            told.append(str(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(find)
    assert told == ["the database is away"] * 50
    assert len(store.queries) <= 2
    store.error = None
    assert right(await lookup.find(key), key)


async def test_a_bug_in_a_store_is_told_to_whom_it_met() -> None:
    store = Store()
    lookup = KeyLookup(store)
    key = await store.make()
    store.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await lookup.find(key)
    store.error = None
    assert right(await lookup.find(key), key)


@pytest.mark.parametrize("familiar", [False, True])
async def test_a_revoked_key_is_strange_again(familiar: bool) -> None:
    """So that its holder can't have queries of their own, without a rest, from it."""
    store = Store()
    lookup = KeyLookup(store)
    key = await store.make()
    if familiar:
        assert right(await lookup.find(key), key)
    await store.revoke_key(f"key_{key[3:19]}", now=1)
    began = anyio.current_time()
    for _ in range(10):
        assert await lookup.find(key) is None
    assert anyio.current_time() - began >= 8 * REST


async def test_so_many_familiar_keys_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speko_anyio.gateway._authentication.MAX_SEEN", 3)
    assert MAX_SEEN > 3
    store = Store()
    lookup = KeyLookup(store)
    keys = [await store.make() for _ in range(5)]
    for key in [*keys, *keys]:
        assert right(await lookup.find(key), key)
    assert len(lookup._seen) == 3


async def test_refusals_are_spread_over_time() -> None:
    refusals = Refusals()
    told: list[float] = []

    async def refuse() -> None:
        await refusals.wait()
        told.append(anyio.current_time())

    start = anyio.current_time()
    await refuse()
    assert told == [start], "one alone is told at once"
    await anyio.sleep(1)
    told.clear()
    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_REFUSING + 500):
            tasks.start_soon(refuse)
    assert told.count(start) == 501, "the first, and those for which there is no room"
    for second in range(1, 4):
        assert sum(at - start < second for at in told) - 500 == pytest.approx(second * REFUSALS, abs=2)


async def test_refusals_go_on_with_a_clock_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway may run again in an event loop of another clock."""
    refusals = Refusals()
    refusals._next = anyio.current_time() + 1e6
    with anyio.fail_after(2 * MAX_REFUSING / REFUSALS):
        await refusals.wait()
        await refusals.wait()
