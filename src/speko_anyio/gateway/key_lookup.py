"""The API keys of requests, looked up in the store: together, and no faster than it should be asked."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import RunVar

from .http_errors import too_many
from .keys import is_key, stored_key_id
from .store import StoreError

if TYPE_CHECKING:
    from .store import SessionStore, StoredKey

BATCH: Final = 256
"""Requests whose keys one query looks up."""

REST: Final = 0.05
"""Seconds without a query after one that met a wrong key."""

MAX_WAITING: Final = 1024
"""Requests that wait for a look-up; more are refused."""

_RETRY: Final = 1
"""Seconds after which a refused request may come again."""


class _Asked:
    """One request's key, and what became of it."""

    def __init__(self, key: str, key_id: str) -> None:
        self.key = key
        self.key_id = key_id
        self.answered = False
        self.found: StoredKey | None = None
        self.error: StoreError | None = None


class KeyLookup:
    """Finds the keys of `store`.

    Anybody can make up keys of the right shape. Nothing about them is remembered: what they look like says
    nothing about the next one, and a right key is to work the moment that it is made, and no longer when it
    is revoked, on every node. Instead there is one query at a time, for all the requests that wait then, and
    a rest after each that met a wrong key. So a flood of wrong keys costs the store `1 / REST` short queries
    a second of each node, and a right key among them, known or new, `REST` seconds.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._waiting: dict[_Asked, None] = {}
        # Of the event loop that serves: it need not be the one in which the gateway was made.
        self._turn: RunVar[anyio.Lock] = RunVar("turn to look up API keys")
        self._rest_until = 0.0

    async def find(self, key: str) -> StoredKey | None:
        """What is kept of `key`; None when it is not known, or was revoked.

        Raises `RequestError` when too many others wait, `StoreError` when the store can't be asked.
        """
        # The store is asked for what has a key's shape only.
        key_id = stored_key_id(key)
        if key_id is None:
            return None
        if len(self._waiting) >= MAX_WAITING:
            raise too_many("the gateway looks up many API keys now; wait as long as Retry-After says", _RETRY)
        asked = _Asked(key, key_id)
        self._waiting[asked] = None
        try:
            async with self._lock():
                # By whoever had the turn before, it may be answered already.
                while not asked.answered:
                    await self._look_up()
        finally:
            self._waiting.pop(asked, None)
        if asked.error is not None:
            raise StoreError(str(asked.error)) from asked.error
        return asked.found

    def _lock(self) -> anyio.Lock:
        lock = self._turn.get(None)
        if lock is None:
            lock = anyio.Lock()
            self._turn.set(lock)
        return lock

    async def _look_up(self) -> None:
        """Answer those that wait, the oldest first. Cancelled, it leaves them to whoever is next."""
        # No longer than that, whatever the clock of an event loop before this one was.
        rest = min(REST, self._rest_until - anyio.current_time())
        if rest > 0:
            await anyio.sleep(rest)
        batch = list(islice(self._waiting, BATCH))
        try:
            stored = await self._store.find_keys({asked.key_id for asked in batch})
        except StoreError as error:
            # For all of them: each would wait as long for the same answer.
            for asked in batch:
                asked.error = error
            stored = ()
        by_id = {key.key_id: key for key in stored}
        for asked in batch:
            asked.answered = True
            self._waiting.pop(asked, None)
            known = by_id.get(asked.key_id)
            if known is not None and is_key(asked.key, known) and known.revoked_at is None:
                asked.found = known
        if any(asked.found is None for asked in batch):
            self._rest_until = anyio.current_time() + REST
