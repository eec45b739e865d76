"""The gateway's beat, on virtual time."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import anyio
import pytest

from speko_anyio.gateway import MemoryStore, StoreError
from speko_anyio.gateway._housekeeping import Housekeeper, background
from speko_anyio.testing import VIRTUAL_BACKENDS, virtual_backend

from .store.support import claim, record

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Store(MemoryStore):
    """A store that notes what it is asked, and fails when a test wants it to."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.hangs = False
        self.backlog = 0

    async def renew(self, session_ids: Collection[str], *, node_id: str, lease: float, now: float) -> None:
        self.log.append(("renew", sorted(session_ids), node_id, lease, now))
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error
        await super().renew(session_ids, node_id=node_id, lease=lease, now=now)

    async def purge(
        self, *, transcripts_before: float | None, records_before: float | None, now: float
    ) -> bool:
        self.log.append(("purge", transcripts_before, records_before, now))
        self.backlog = max(0, self.backlog - 1)
        return self.backlog > 0


def keeper(
    store: Store,
    *,
    transcripts: float | None = None,
    records: float | None = None,
    retries: list[float] | None = None,
) -> Housekeeper:
    async def retry() -> None:
        if retries is not None:
            retries.append(anyio.current_time())

    return Housekeeper(
        store,
        node_id="node_a",
        lease=30.0,
        held=lambda: ["sess_1"],
        retry=retry,
        transcript_retention=transcripts,
        record_retention=records,
        now=anyio.current_time,
    )


async def test_it_beats_thrice_a_lease_from_the_start_until_the_block_ends() -> None:
    store, retries = Store(), list[float]()
    start = anyio.current_time()
    async with background(keeper(store, transcripts=100.0, records=1000.0, retries=retries).run):
        await anyio.sleep(25)
    await anyio.sleep(60)
    assert [entry[-1] - start for entry in store.log] == [0, 0, 10, 10, 20, 20]
    assert store.log[2] == ("renew", ["sess_1"], "node_a", 30.0, start + 10)
    assert store.log[3] == ("purge", start + 10 - 100, start + 10 - 1000, start + 10)
    assert [at - start for at in retries] == [0, 10, 20]


async def test_it_purges_until_there_is_no_more() -> None:
    store = Store()
    store.backlog = 5
    await keeper(store).beat()
    assert [entry[0] for entry in store.log].count("purge") == 5
    assert store.backlog == 0


async def test_its_own_sessions_live_and_those_of_a_lost_node_end(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    start = int(anyio.current_time())
    for number, node in ((1, "node_a"), (2, "node_b")):
        await store.create(record(number, token_expires_at=start + 60), idempotency=None, now=start)
        await claim(store, number, node_id=node, now=start)
    async with background(keeper(store).run):
        await anyio.sleep(95)
    mine, lost = await store.get("sess_1"), await store.get("sess_2")
    assert mine is not None
    assert lost is not None
    assert mine.life.ended_at is None
    assert (lost.life.ended_at, lost.life.closed_by) == (start + 30, "sweeper")
    assert "session sess_2: its node is lost" in caplog.text


@pytest.mark.parametrize("error", [StoreError("the database is away"), ValueError("a bug")])
async def test_what_fails_is_logged_and_tried_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    store.error = error
    async with background(keeper(store).run):
        await anyio.sleep(5)
        store.error = None
        await anyio.sleep(10)
    assert [entry[0] for entry in store.log] == ["renew", "purge", "renew", "purge"]
    (logged,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert "renewing the leases failed" in logged.getMessage()
    assert str(error) in caplog.text


async def test_what_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.hangs = True
    start = anyio.current_time()
    async with background(keeper(store).run):
        await anyio.sleep(15)
    assert [entry for entry in store.log if entry[0] == "purge"] == [("purge", None, None, start + 10)]
    assert "renewing the leases took too long" in caplog.text


async def test_it_beats_while_the_block_cleans_up_after_a_cancellation() -> None:
    store = Store()
    with anyio.CancelScope() as scope:
        async with background(keeper(store).run):
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(35)
    assert [entry[0] for entry in store.log].count("renew") == 4


async def test_an_error_of_the_block_leaves_bare() -> None:
    with pytest.raises(ZeroDivisionError):
        async with background(keeper(Store()).run):
            raise ZeroDivisionError
