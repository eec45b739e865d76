"""Authenticates requests: looks up the API key in the configuration and the store, and checks its scopes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from anyio.lowlevel import RunVar

from ._api_keys import APIKeys, bearer, is_key, stored_key_id
from ._http_errors import RequestError, too_many
from .store import KeyLimits, Scope, StoreError
from .store._records import NO_LIMITS

if TYPE_CHECKING:
    from starlette.requests import Request

    from .store import SessionStore, StoredKey

_CONFIGURED: Final[tuple[Scope, ...]] = ("mint", "read")
"""What the keys of the configuration may do; they have no limits of their own."""


class Caller(msgspec.Struct, frozen=True):
    """A known key."""

    key_id: str
    scopes: tuple[Scope, ...]
    limits: KeyLimits


class Authenticator:
    """Checks the API keys of requests: those of the configuration and those of the store."""

    def __init__(self, configured: APIKeys, store: SessionStore) -> None:
        self._configured = configured
        self._stored = KeyLookup(store)

    async def caller(self, request: Request, *scopes: Scope) -> Caller:
        """Return whose key the request has.

        Raises `RequestError` if the key is unknown or has none of `scopes`, or if too many keys are being
        looked up.
        """
        authorization = request.headers.get("authorization")
        caller = self._configured_caller(authorization) or await self._stored_caller(authorization)
        if caller is None:
            raise RequestError(
                401,
                "UNAUTHORIZED",
                "the API key is missing or not valid; send it as Authorization: Bearer <api key>",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not any(scope in caller.scopes for scope in scopes):
            raise RequestError(
                403,
                "FORBIDDEN",
                f"this API key lacks the scope {' or '.join(scopes)}; use one that has it",
            )
        return caller

    def _configured_caller(self, authorization: str | None) -> Caller | None:
        key_id = self._configured.identify(authorization)
        return None if key_id is None else Caller(key_id, _CONFIGURED, NO_LIMITS)

    async def _stored_caller(self, authorization: str | None) -> Caller | None:
        stored = await self._stored.find(bearer(authorization))
        return None if stored is None else Caller(stored.key_id, stored.scopes, stored.limits)


BATCH: Final = 256
"""Requests whose keys one query looks up."""

REST: Final = 0.05
"""Seconds without a query after one that met an invalid key."""

MAX_WAITING: Final = 1024
"""Requests that wait for a look-up; more are refused."""

_RETRY: Final = 1
"""Seconds after which a refused request may come again."""


class _Asked:
    """The key of one request, and what the store says of it."""

    def __init__(self, key: str, key_id: str) -> None:
        self.key = key
        self.key_id = key_id
        self.answered = False
        self.found: StoredKey | None = None
        self.error: StoreError | None = None


class KeyLookup:
    """Finds the keys of `store`.

    Anybody can make up keys of the right shape. No result is cached: a valid key must work the moment it is
    made, and stop working the moment it is revoked, on every node. Instead there is one query at a time, for
    all the requests that wait then, and a rest after each query that met an invalid key. So a flood of
    invalid keys costs the store `1 / REST` short queries a second per node, and delays a valid key by `REST`
    seconds.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._waiting: dict[_Asked, None] = {}
        # Of the event loop that serves: it need not be the one in which the gateway was made.
        self._turn: RunVar[anyio.Lock] = RunVar("turn to look up API keys")
        self._rest_until = 0.0

    async def find(self, key: str) -> StoredKey | None:
        """Return the record of `key`; None if it is unknown or was revoked.

        Raises `RequestError` if too many others wait, `StoreError` if the store can't be asked.
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
                # The previous turn may have answered this request already.
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
        """Answer the requests that wait, the oldest first; if cancelled, leave them to the next."""
        # Bounded, since the last rest may have been measured by the clock of another event loop.
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
