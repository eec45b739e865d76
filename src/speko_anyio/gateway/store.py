"""Records of the sessions that were minted, and the promise that each is opened once.

`SessionStore` is what the gateway needs; `MemoryStore` keeps it in this process. A store that several nodes
share implements the same, with `create` and `claim` one transaction each.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, Final, Protocol

import msgspec

from speko_anyio.protocol.errors import SpekoError
from speko_anyio.protocol.frames import Close
from speko_anyio.protocol.mint import SessionConfig

MAX_RECORDS: Final = 100_000
"""Records that a `MemoryStore` holds."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""Bytes that a `MemoryStore` holds: all that was minted within one token's lifetime."""

RECORD_OVERHEAD: Final = 1024
"""Bytes that a record takes besides its encoded form, as a `MemoryStore` counts them."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session as it was minted."""

    session_id: str
    key_id: str
    """Which API key minted it; not the key."""
    token_id: str
    """The id of the one token that opens it."""
    config: SessionConfig
    metadata: dict[str, Any] | None
    ttl_seconds: int
    created_at: float
    """Seconds since the epoch."""
    token_expires_at: int
    """Seconds since the epoch."""


class Idempotency(msgspec.Struct, frozen=True):
    """What makes the repetition of a mint the same mint."""

    key_id: str
    """Which API key minted: another one's repetition is another mint."""
    key: str
    """The caller's ``Idempotency-Key``."""
    fingerprint: bytes
    """A hash of the request's body."""


class IdempotencyError(SpekoError):
    """An idempotency key came again with another request."""


class StoreFullError(SpekoError):
    """The store holds as many records as it may."""


class Refused(enum.Enum):
    """Why a session can't be claimed."""

    UNKNOWN = "the session is not known here; mint a new one"
    USED = "the session token was used before; mint a new session for every connection"


class SessionStore(Protocol):
    """Where the gateway keeps its records. Times are seconds since the epoch."""

    async def create(
        self, record: SessionRecord, *, idempotency: Idempotency | None, now: float
    ) -> SessionRecord:
        """Keep `record`; or, when `idempotency` was seen with the same request, return the record it made.

        Raises `IdempotencyError` when it was seen with another one, `StoreFullError` when nothing fits.
        """
        ...

    async def claim(self, session_id: str, token_id: str, *, now: float) -> SessionRecord | Refused:
        """Take the session: of all the calls for one record, ever and on any node, one gets it."""
        ...

    async def end(self, session_id: str, close: Close | None, *, now: float) -> None:
        """The claimed session is over; `close` says how, None that it ended before it began."""
        ...


class _Entry:
    __slots__ = ("claimed", "encoded", "expires_at", "idempotency", "session_id", "token_id")

    def __init__(self, record: SessionRecord, encoded: bytes, idempotency: Idempotency | None) -> None:
        self.session_id = record.session_id
        self.token_id = record.token_id
        self.expires_at = record.token_expires_at
        # Metadata and tools take up to 22 times as much as Python objects, and the client chooses them.
        self.encoded = encoded
        self.idempotency = idempotency
        self.claimed = False

    @property
    def size(self) -> int:
        return RECORD_OVERHEAD + len(self.encoded)

    @property
    def record(self) -> SessionRecord:
        return _DECODER.decode(self.encoded)


_DECODER: Final = msgspec.json.Decoder(SessionRecord)


class MemoryStore:
    """A `SessionStore` of one process, which holds `max_records` and `max_bytes` of them at most.

    The records are kept encoded, so that their bytes are known: each counts for its JSON and
    `RECORD_OVERHEAD`. It forgets a record when its token has expired: from then on the token's own signature
    refuses it.
    """

    def __init__(self, *, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[str, _Entry] = {}
        self._by_idempotency: dict[tuple[str, str], _Entry] = {}
        # In the order of creation, which is the order of expiry for all that matters: a record that waits
        # behind a longer-lived one is only forgotten later.
        self._oldest: deque[_Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    async def create(
        self, record: SessionRecord, *, idempotency: Idempotency | None, now: float
    ) -> SessionRecord:
        self._sweep(now)
        if idempotency is not None:
            seen = self._by_idempotency.get((idempotency.key_id, idempotency.key))
            if seen is not None:
                if seen.idempotency != idempotency:
                    raise IdempotencyError(
                        "the Idempotency-Key was used for another request; give every request its own"
                    )
                return seen.record
        entry = _Entry(record, msgspec.json.encode(record), idempotency)
        if len(self._entries) >= self._max_records or self._bytes + entry.size > self._max_bytes:
            raise StoreFullError(
                "the gateway holds as many sessions minted just now as it may; try again in a minute"
            )
        self._entries[record.session_id] = entry
        self._bytes += entry.size
        self._oldest.append(entry)
        if idempotency is not None:
            self._by_idempotency[idempotency.key_id, idempotency.key] = entry
        return record

    async def claim(self, session_id: str, token_id: str, *, now: float) -> SessionRecord | Refused:
        entry = self._entries.get(session_id)
        if entry is None or entry.token_id != token_id or entry.expires_at <= now:
            return Refused.UNKNOWN
        if entry.claimed:
            return Refused.USED
        entry.claimed = True
        return entry.record

    async def end(self, session_id: str, close: Close | None, *, now: float) -> None:
        self._sweep(now)

    def _sweep(self, now: float) -> None:
        while self._oldest and self._oldest[0].expires_at <= now:
            entry = self._oldest.popleft()
            del self._entries[entry.session_id]
            self._bytes -= entry.size
            if entry.idempotency is not None:
                del self._by_idempotency[entry.idempotency.key_id, entry.idempotency.key]
