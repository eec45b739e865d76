"""Regular work on the store: renew this node's leases, end the sessions of lost nodes, purge."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.lowlevel import RunVar

from speko_anyio._net.tasks import TaskGroup

from .store import SessionStore, StoreError

logger: logging.Logger = logging.getLogger("speko_anyio.gateway")

BEATS_PER_LEASE: Final = 3
"""Two of them may fail before a node is considered lost."""

CHECK_TIMEOUT: Final = 1.0
"""Seconds that the store has to answer a check. A load balancer waits for it."""

REST: Final = 0.1
"""Seconds between two checks."""

_OPENING: Final = "opening sessions"


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
        self._transcript_retention = transcript_retention
        self._record_retention = record_retention
        self._now = now
        self._steps: dict[str, Callable[[], Awaitable[None]]] = {
            "renewing the leases": self._renew,
            "recording what ended": retry,
            "ending the sessions of lost nodes": self._sweep,
            "purging": self._purge,
        }
        self._failed: list[str] = []
        """The steps whose last run failed."""
        # A lock for each event loop: the gateway may be created in another one than it serves in.
        self._checking: RunVar[anyio.Lock] = RunVar("turn to check the store")
        self._checks = 0
        self._checked = 0
        self._checked_at = -math.inf
        self._wrong: str | None = None

    async def store_failure(self) -> str | None:
        """Ask the store whether sessions can be opened; return what it fails at, or None.

        There is one check at a time, and `REST` seconds between two. A check answers all calls that came
        before it began, so many calls cost the store little, and none gets an outdated answer. A check also
        repeats the steps that failed in the last beat.
        """
        checking = self._checking.get(None)
        if checking is None:
            checking = anyio.Lock()
            self._checking.set(checking)
        asked = self._checks
        async with checking:
            if self._checked <= asked:
                # Bounded, since the last check may have been timed by the clock of another event loop.
                await anyio.sleep(max(0, min(REST, self._checked_at + REST - anyio.current_time())))
                self._checks += 1
                self._wrong = await self._check()
                self._checked, self._checked_at = self._checks, anyio.current_time()
        return self._wrong

    async def _check(self) -> str | None:
        what = _OPENING
        try:
            with anyio.fail_after(CHECK_TIMEOUT):
                # No session has this id, but the store does all the work of a claim.
                await self._store.claim("", "", node_id=self._node_id, lease=self._lease, now=self._now())
                for what in tuple(self._failed):
                    await self._steps[what]()
                    self._done(what, well=True)
        except Exception:
            # A store of the operator's own may raise anything. The next beat logs it as an error.
            logger.debug("%s failed", what, exc_info=True)
            return f"the session store fails at {what}"
        return None

    def _done(self, what: str, *, well: bool) -> None:
        if not well and what not in self._failed:
            self._failed.append(what)
        elif well and what in self._failed:
            self._failed.remove(what)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat()
            await anyio.sleep(self._lease / BEATS_PER_LEASE)

    async def beat(self) -> None:
        """Do all of it once; log what fails, which the next beat tries again."""
        for what, step in self._steps.items():
            self._done(what, well=await self._step(what, step))

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
