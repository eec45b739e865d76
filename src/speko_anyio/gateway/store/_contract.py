"""The interface of a store, and its errors."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import Final, Protocol

from speko_anyio.protocol.errors import SpekoError

from ._records import (
    NO_LIMITS,
    PAGE_BYTES,
    Idempotency,
    KeyLimits,
    SessionHistory,
    SessionOutcome,
    SessionPage,
    SessionQuery,
    SessionRecord,
    StoredKey,
    TranscriptPage,
)

CALL_TIMEOUT: Final = 2.4
"""Seconds that a call may take. A mint makes two calls, and must be answered within 5 seconds."""


class StoreError(SpekoError):
    """The store can't be used: wrong address, not reachable, schema too old or too new."""


class OldTablesError(StoreError):
    """The database's tables are those of an older version, or there are none."""

    def __init__(self) -> None:
        super().__init__(
            "the database's tables are not those of this version; run `speko-anyio gateway migrate`"
        )


class IdempotencyError(SpekoError):
    """An idempotency key came again with another request."""

    def __init__(self) -> None:
        super().__init__("the Idempotency-Key was used for another request; give every request its own")


class StoreFullError(SpekoError):
    """The store holds as many records as it may."""


class KeyNotFoundError(SpekoError):
    """The key is unknown."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id}; `speko-anyio keys list` shows the existing ones")


class LimitError(SpekoError):
    """The key has reached a limit; a retry may succeed after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(enum.Enum):
    """Why a session can't be claimed."""

    UNKNOWN = "the session is not known here; mint a new one"
    USED = "the session token was used before; mint a new session for every connection"
    REVOKED = "the API key that minted this session was revoked; mint with another one"


class SessionStore(Protocol):
    """Where the gateway keeps its records. Times are seconds since the epoch.

    Every call is one transaction, and safe to make from several nodes at once. A cancelled call may or may
    not have taken effect. The gateway cancels a call after 2.4 seconds, and treats OSError as `StoreError`.
    A store that is an async context manager is entered when the gateway starts, before anything else, and
    left when it has stopped.

    A claimed session has a lease, which its node renews. When the lease runs out, the node is considered
    lost, and `sweep` ends the session.
    """

    async def create(
        self,
        record: SessionRecord,
        *,
        idempotency: Idempotency | None,
        limits: KeyLimits = NO_LIMITS,
        now: float,
    ) -> SessionRecord:
        """Keep `record`; or, when `idempotency` was seen with the same request, return the record it made.

        The result has a shorter TTL if the key has fewer minutes left.

        Raises `IdempotencyError` if it was seen with another request, `LimitError` if the key has used what
        `limits` allow, `StoreFullError` if there is no room.
        """
        ...

    async def claim(
        self, session_id: str, token_id: str, *, node_id: str, lease: float, now: float
    ) -> SessionRecord | Refused:
        """Take the session for `lease` seconds.

        Of all the calls for one record, ever and on any node, one gets it.
        """
        ...

    async def renew(self, session_ids: Collection[str], *, node_id: str, lease: float, now: float) -> None:
        """Extend the leases of these sessions of the node to `lease` seconds from `now`.

        A session that was swept meanwhile lives again.
        """
        ...

    async def sweep(self, *, now: float) -> Sequence[str]:
        """End the sessions whose lease ran out, as of that moment; return their ids."""
        ...

    async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
        """Record the end of a claimed session: only once, except that it replaces what `sweep` recorded."""
        ...

    async def get(self, session_id: str, *, key_id: str | None = None) -> SessionHistory | None:
        """Return the session, if it is known and, unless `key_id` is None, was minted with that key."""
        ...

    async def transcript(
        self, session_id: str, *, after: int = 0, max_bytes: int = PAGE_BYTES
    ) -> TranscriptPage:
        """Return lines of what was said, in order, after the position `after` of the page before.

        A page has `PAGE_LINES` at most, and ends early at `max_bytes` of text; it has one line at least, if
        there is one.
        """
        ...

    async def sessions(self, query: SessionQuery, *, now: float) -> SessionPage:
        """Return the sessions that `query` asks for, newest first; of the same moment, by descending id."""
        ...

    async def purge(
        self, *, transcripts_before: float | None, records_before: float | None, now: float
    ) -> bool:
        """Remove a bounded number of expired records; return True if there may be more.

        That is transcript lines from before `transcripts_before`; sessions that were minted before
        `records_before` and are over, with their transcripts; and expired idempotency keys. None keeps all.
        """
        ...

    async def add_key(self, key: StoredKey) -> None:
        """Keep a new key."""
        ...

    async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
        """Find the keys with these ids, revoked or not, in any order; ignore unknown ids."""
        ...

    async def keys(self) -> Sequence[StoredKey]:
        """Return all keys, oldest first, revoked or not."""
        ...

    async def revoke_key(self, key_id: str, *, now: float) -> StoredKey:
        """Revoke a key: it mints and reads nothing from now on.

        Sessions that it minted can't be opened any more; open ones continue. Raises `KeyNotFoundError`.
        """
        ...
