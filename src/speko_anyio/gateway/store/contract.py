"""What the gateway asks of a store, and how a store says no."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import Protocol

from speko_anyio.protocol.errors import SpekoError

from .records import (
    NO_LIMITS,
    Idempotency,
    KeyLimits,
    SessionHistory,
    SessionOutcome,
    SessionQuery,
    SessionRecord,
    StoredKey,
    TranscriptLine,
)


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
    """There is no such key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id}; `speko-anyio keys list` shows the existing ones")


class LimitError(SpekoError):
    """The key has used what it may; after `retry_after` seconds it is worth another try."""

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

    Every call is one transaction, and safe to make from several nodes at once. Cancelled, it may have
    happened or not. A store that is an async context manager is entered when the gateway starts, before
    anything else, and left when it has stopped.

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

        What is returned has a shorter TTL when the key has no more minutes than that left.

        Raises `IdempotencyError` when it was seen with another one, `LimitError` when the key has used what
        `limits` allow, `StoreFullError` when nothing fits.
        """
        ...

    async def claim(
        self, session_id: str, token_id: str, *, node_id: str, lease: float, now: float
    ) -> SessionRecord | Refused:
        """Take the session for `lease` seconds: of all the calls for one record, ever and on any node, one
        gets it."""
        ...

    async def renew(self, session_ids: Collection[str], *, node_id: str, lease: float, now: float) -> None:
        """The node still serves these: their leases last `lease` seconds from `now`. One that was swept
        meanwhile lives again."""
        ...

    async def sweep(self, *, now: float) -> Sequence[str]:
        """End the sessions whose lease ran out, as of that moment; their ids."""
        ...

    async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
        """The claimed session is over. Counts also when it was swept before, else only once."""
        ...

    async def get(self, session_id: str, *, key_id: str | None = None) -> SessionHistory | None:
        """The session, if it is known and, unless `key_id` is None, was minted with that key."""
        ...

    async def transcript(self, session_id: str) -> Sequence[TranscriptLine]:
        """What is stored of what was said, in order."""
        ...

    async def sessions(self, query: SessionQuery, *, now: float) -> Sequence[SessionHistory]:
        """The sessions that `query` asks for, newest first; of the same moment, by their ids downwards."""
        ...

    async def purge(
        self, *, transcripts_before: float | None, records_before: float | None, now: float
    ) -> bool:
        """Remove what nobody needs: transcript lines older than that (None: none of them), the sessions that
        were minted before that (None: none) and can't be, or come, alive, with all that is known of them, and
        what makes mints repeatable, once expired. A bounded amount at a time; True when there may be more."""
        ...

    async def add_key(self, key: StoredKey) -> None:
        """Keep a new key."""
        ...

    async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
        """Those of the keys with these ids that there are, revoked or not, in any order."""
        ...

    async def keys(self) -> Sequence[StoredKey]:
        """All keys, oldest first, revoked or not."""
        ...

    async def revoke_key(self, key_id: str, *, now: float) -> StoredKey:
        """The key mints and reads nothing from now on. What it minted is not let in any more; sessions that
        live go on. Raises `KeyNotFoundError`."""
        ...
