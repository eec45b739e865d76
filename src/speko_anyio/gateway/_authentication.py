"""Authenticates requests: looks up the API key in the configuration and the store, and checks its scopes."""

from __future__ import annotations

from typing import Final

import anyio
import msgspec
from starlette.requests import Request

from ._api_keys import APIKeys, bearer, digest_of, is_key, stored_key_id
from ._http_errors import RequestError, too_many
from .store import KeyLimits, Scope, SessionStore, StoredKey, StoreError
from .store._records import NO_LIMITS

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
        self._refusals = Refusals()

    async def caller(self, request: Request, *scopes: Scope) -> Caller:
        """Return whose key the request has.

        Raises `RequestError` if the key is unknown or has none of `scopes`, or if too many keys are being
        looked up.
        """
        authorization = request.headers.get("authorization")
        caller = self._configured_caller(authorization) or await self._stored_caller(authorization)
        if caller is None:
            await self._refusals.wait()
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


REST: Final = 0.05
"""Seconds without a query for new keys after one that met an invalid key."""

MAX_WAITING: Final = 4096
"""Requests that wait for a look-up; more are refused. One query answers them all."""

MAX_SEEN: Final = 4096
"""Keys that are remembered as valid; beyond that the one that was seen first is forgotten."""

REFUSALS: Final = 1000.0
"""Refusals sent in a second: a client that waits for each refusal can't send more requests than that."""

MAX_REFUSING: Final = 4096
"""Refusals that are delayed at the same time; further ones are sent at once."""

_RETRY: Final = 1
"""Seconds after which a refused request may come again."""


class _Asked:
    """The key of one request, and what the store says of it."""

    def __init__(self, key: str, key_id: str) -> None:
        self.key = key
        self.key_id = key_id
        self.woken = anyio.Event()
        self.answered = False
        self.found: StoredKey | None = None
        self.error: StoreError | None = None


class _Queries:
    """Queries the store for keys, one query at a time, each for all the requests that wait.

    `rest`: seconds without a query after one that met an invalid key. At most `most` requests wait.
    """

    def __init__(self, store: SessionStore, *, rest: float, most: int) -> None:
        self._store = store
        self._rest = rest
        self._most = most
        self.waiting: dict[_Asked, None] = {}
        self._asking = False
        self._rest_until = 0.0

    async def find(self, key: str, key_id: str) -> StoredKey | None:
        """Return the record of `key`; None if it is unknown or was revoked.

        Raises `RequestError` if too many others wait, `StoreError` if the store can't be asked.
        """
        if len(self.waiting) >= self._most:
            raise too_many("the gateway looks up many API keys now; wait as long as Retry-After says", _RETRY)
        asked = _Asked(key, key_id)
        self.waiting[asked] = None
        try:
            # One of the waiting requests asks for all. If it is cancelled, the next one does.
            while not asked.answered:
                if self._asking:
                    await asked.woken.wait()
                    asked.woken = anyio.Event()
                else:
                    await self._ask()
        finally:
            self.waiting.pop(asked, None)
            if not self._asking and self.waiting:
                next(iter(self.waiting)).woken.set()
        if asked.error is not None:
            raise StoreError(str(asked.error)) from asked.error
        return asked.found

    async def _ask(self) -> None:
        self._asking = True
        try:
            # Bounded, since the last rest may have been measured by the clock of another event loop.
            rest = min(self._rest, self._rest_until - anyio.current_time())
            if rest > 0:
                await anyio.sleep(rest)
            await self._look_up(list(self.waiting))
        finally:
            self._asking = False

    async def _look_up(self, batch: list[_Asked]) -> None:
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
            self.waiting.pop(asked, None)
            asked.woken.set()
            known = by_id.get(asked.key_id)
            if known is not None and is_key(asked.key, known) and known.revoked_at is None:
                asked.found = known
        if any(asked.found is None for asked in batch):
            self._rest_until = anyio.current_time() + self._rest


class KeyLookup:
    """Finds the keys of `store`.

    Anybody can make up keys of the right shape. No result is cached: a valid key must work the moment it is
    made, and stop working the moment it is revoked, on every node. Instead one query looks up the keys of all
    waiting requests, and after a query that met an invalid key the next one waits for `REST` seconds. So a
    flood of invalid keys costs the store `1 / REST` short queries a second per node, and delays a key that is
    new to this node by `REST` seconds. Keys that were valid before have queries of their own, without a rest.
    """

    def __init__(self, store: SessionStore) -> None:
        self._new = _Queries(store, rest=REST, most=MAX_WAITING)
        self._known = _Queries(store, rest=0, most=MAX_WAITING)
        self._seen: dict[bytes, None] = {}

    async def find(self, key: str) -> StoredKey | None:
        """Return the record of `key`; None if it is unknown or was revoked.

        Raises `RequestError` if too many others wait, `StoreError` if the store can't be asked.
        """
        # Texts that do not have the shape of a key never reach the store.
        key_id = stored_key_id(key)
        if key_id is None:
            return None
        digest = digest_of(key)
        queries = self._known if digest in self._seen else self._new
        found = await queries.find(key, key_id)
        if found is None:
            self._seen.pop(digest, None)
        elif digest not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                del self._seen[next(iter(self._seen))]
            self._seen[digest] = None
        return found


class Refusals:
    """Delays refusals when there are many, at most `REFUSALS` a second; a single one is sent at once."""

    def __init__(self) -> None:
        self._next = 0.0

    async def wait(self) -> None:
        """Wait until another refusal may be sent."""
        now = anyio.current_time()
        longest = MAX_REFUSING / REFUSALS
        at = max(now, self._next)
        if at - now >= longest:
            # Too many wait already, or `_next` is a time of another event loop's clock.
            self._next = now + longest
            return
        self._next = at + 1 / REFUSALS
        await anyio.sleep_until(at)
