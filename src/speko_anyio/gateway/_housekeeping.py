"""Regular work on the store: renew this node's leases, end the sessions of lost nodes, purge."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from speko_anyio._net.tasks import TaskGroup

from .store import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from .store import SessionStore

logger: logging.Logger = logging.getLogger("speko_anyio.gateway")

BEATS_PER_LEASE: Final = 3
"""Two of them may fail before a node is considered lost."""


class Housekeeper:
    """Keeps the records of one node true, by a beat at regular intervals.

    - `held`: returns the ids of the sessions that were claimed here and whose end is not recorded.
    - `retry`: records the ends that the store failed to record.
    - `lease`: seconds; a node silent for this long is considered lost.
    - `transcript_retention`, `record_retention`: seconds for which transcripts, and the records of sessions,
      are kept; None: as long as the database.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        node_id: str,
        lease: float,
        held: Callable[[], Collection[str]],
        retry: Callable[[], Awaitable[None]],
        transcript_retention: float | None,
        record_retention: float | None,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._lease = lease
        self._held = held
        self._retry = retry
        self._transcript_retention = transcript_retention
        self._record_retention = record_retention
        self._now = now
        self._failed: str | None = None

    @property
    def store_failure(self) -> str | None:
        """What the store failed at in the last beat; None if nothing."""
        return self._failed

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat()
            await anyio.sleep(self._lease / BEATS_PER_LEASE)

    async def beat(self) -> None:
        """Do all of it once; log what fails, which the next beat tries again."""
        steps = {
            "renewing the leases": self._renew,
            "recording what ended": self._retry,
            "ending the sessions of lost nodes": self._sweep,
            "purging": self._purge,
        }
        failed = [what for what, step in steps.items() if not await self._step(what, step)]
        self._failed = f"the session store fails at {failed[0]}" if failed else None

    async def _step(self, what: str, step: Callable[[], Awaitable[None]]) -> bool:
        """Return whether the step was done."""
        try:
            with anyio.fail_after(self._lease / BEATS_PER_LEASE):
                await step()
                return True
        except TimeoutError:
            logger.error("%s took too long", what)
        except StoreError as error:
            logger.error("%s failed: %s", what, error)
        except Exception:
            # A store of the operator's own may raise anything; the next beat tries again.
            logger.exception("%s failed", what)
        return False

    async def _renew(self) -> None:
        await self._store.renew(self._held(), node_id=self._node_id, lease=self._lease, now=self._now())

    async def _sweep(self) -> None:
        for session_id in await self._store.sweep(now=self._now()):
            logger.warning("session %s: its node is lost", session_id)

    async def _purge(self) -> None:
        now = self._now()
        transcripts = _before(now, self._transcript_retention)
        records = _before(now, self._record_retention)
        while await self._store.purge(transcripts_before=transcripts, records_before=records, now=now):
            pass  # each takes a bounded amount, and the beat's time bounds them all


def _before(now: float, retention: float | None) -> float | None:
    return None if retention is None else now - retention


@asynccontextmanager
async def background(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work`, which must not raise, during the block, also while that is cancelled and cleans up.

    An exception of the block leaves as itself.
    """
    scope = anyio.CancelScope(shield=True)

    async def run() -> None:
        with scope:
            await work()

    async with TaskGroup("the gateway") as tasks:
        tasks.start_soon(run)
        try:
            yield
        finally:
            scope.cancel()
