"""`MemoryStore`: the records of one process, for programs that embed their gateway, and for tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from ._contract import IdempotencyError, KeyNotFoundError, Refused, StoreFullError
from ._key_limits import KeyUse, day_start, granted_ttl
from ._records import (
    NO_LIMITS,
    NODE_LOST,
    Idempotency,
    KeyLimits,
    SessionHistory,
    SessionLife,
    SessionOutcome,
    SessionQuery,
    SessionRecord,
    StoredKey,
    TranscriptLine,
    closing_fields,
)

MAX_RECORDS: Final = 100_000
"""Records that a `MemoryStore` holds."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""Bytes that a `MemoryStore` holds."""

RECORD_OVERHEAD: Final = 1024
"""Bytes that a record takes besides its encoded form, as a `MemoryStore` counts them."""

_LINE_OVERHEAD: Final = 128
"""Bytes that a transcript's line takes besides its text."""

_DECODER: Final = msgspec.json.Decoder(SessionRecord)


class _Entry:
    __slots__ = (
        "created_at",
        "encoded",
        "expires_at",
        "idempotency",
        "key_id",
        "lease_expires_at",
        "life",
        "session_id",
        "token_id",
        "transcript",
        "ttl_seconds",
    )

    def __init__(self, record: SessionRecord, encoded: bytes, idempotency: Idempotency | None) -> None:
        self.session_id = record.session_id
        self.key_id = record.key_id
        self.token_id = record.token_id
        self.created_at = record.created_at
        self.expires_at = record.token_expires_at
        self.ttl_seconds = record.ttl_seconds
        # Metadata and tools take up to 22 times as much as Python objects, and the client chooses them.
        self.encoded = encoded
        self.idempotency = idempotency
        self.life = SessionLife()
        self.lease_expires_at = 0.0
        self.transcript: tuple[TranscriptLine, ...] = ()

    @property
    def size(self) -> int:
        lines = sum(_LINE_OVERHEAD + 4 * len(line.text) for line in self.transcript)
        return RECORD_OVERHEAD + len(self.encoded) + lines

    @property
    def record(self) -> SessionRecord:
        return _DECODER.decode(self.encoded)

    @property
    def length(self) -> float:
        """Seconds that it lasted; 0 while it is not over."""
        started, ended = self.life.started_at, self.life.ended_at
        return 0.0 if started is None or ended is None else max(0.0, ended - started)

    def open(self, now: float) -> bool:
        """Return whether it is open, or can still be opened."""
        if self.life.started_at is None:
            return self.expires_at > now
        return self.life.ended_at is None

    def end(self, **how: Any) -> None:
        """End it; `how` are fields of `SessionLife`."""
        self.life = msgspec.structs.replace(self.life, **how)

    @property
    def so_far(self) -> SessionHistory:
        return SessionHistory(self.record, self.life)

    @property
    def position(self) -> tuple[float, str]:
        """The position of this record in a list."""
        return self.created_at, self.session_id


class MemoryStore:
    """A `SessionStore` of one process, which holds `max_records` and `max_bytes` of them at most.

    The records are kept encoded, so that their bytes are known: each counts for its JSON and
    `RECORD_OVERHEAD`. When there is no room it forgets the sessions that are over, and those that were not
    opened in time, the oldest first; it refuses new ones only when the others alone fill it.
    """

    def __init__(self, *, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[str, _Entry] = {}
        self._by_idempotency: dict[tuple[str, str], _Entry] = {}
        # Records whose token is valid, in the order of creation. That is nearly the order of expiry: a record
        # behind a longer-lived one is only removed a little later.
        self._minted: deque[_Entry] = deque()
        # What may be forgotten, the oldest first: it is over, and its token has expired.
        self._past: dict[str, _Entry] = {}
        self._keys: dict[str, StoredKey] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def create(
        self,
        record: SessionRecord,
        *,
        idempotency: Idempotency | None,
        limits: KeyLimits = NO_LIMITS,
        now: float,
    ) -> SessionRecord:
        self._expire(now)
        if idempotency is not None:
            seen = self._by_idempotency.get((idempotency.key_id, idempotency.key))
            if seen is not None:
                if seen.idempotency != idempotency:
                    raise IdempotencyError
                return seen.record
        if limits != NO_LIMITS:
            use = self._use(record.key_id, limits, now)
            ttl = granted_ttl(limits, use, ttl=record.ttl_seconds, now=now)
            record = msgspec.structs.replace(record, ttl_seconds=ttl)
        entry = _Entry(record, msgspec.json.encode(record), idempotency)
        self._make_room(entry.size)
        self._entries[record.session_id] = entry
        self._bytes += entry.size
        self._minted.append(entry)
        if idempotency is not None:
            self._by_idempotency[idempotency.key_id, idempotency.key] = entry
        return record

    def _use(self, key_id: str, limits: KeyLimits, now: float) -> KeyUse:
        entries = [entry for entry in self._entries.values() if entry.key_id == key_id]
        nth = limits.mints_per_minute or 0
        newest = sorted((entry.created_at for entry in entries), reverse=True)
        still_open = [entry for entry in entries if entry.open(now)]
        today = day_start(now)
        return KeyUse(
            nth_newest_mint=newest[nth - 1] if 0 < nth <= len(newest) else None,
            open_sessions=len(still_open),
            spent_seconds=sum(entry.length for entry in entries if entry.created_at >= today),
            reserved_seconds=sum(entry.ttl_seconds for entry in still_open if entry.created_at >= today),
        )

    async def claim(
        self, session_id: str, token_id: str, *, node_id: str, lease: float, now: float
    ) -> SessionRecord | Refused:
        entry = self._entries.get(session_id)
        if entry is None or entry.token_id != token_id or entry.expires_at <= now:
            return Refused.UNKNOWN
        if entry.life.started_at is not None:
            return Refused.USED
        key = self._keys.get(entry.key_id)
        if key is not None and key.revoked_at is not None:
            return Refused.REVOKED
        entry.life = SessionLife(started_at=now, node_id=node_id)
        entry.lease_expires_at = now + lease
        return entry.record

    async def renew(self, session_ids: Collection[str], *, node_id: str, lease: float, now: float) -> None:
        for session_id in session_ids:
            entry = self._entries.get(session_id)
            if entry is None or entry.life.node_id != node_id:
                continue
            if entry.life.closed_by == "sweeper":
                self._past.pop(session_id, None)
                entry.life = SessionLife(started_at=entry.life.started_at, node_id=node_id)
            entry.lease_expires_at = now + lease

    async def sweep(self, *, now: float) -> Sequence[str]:
        lost = [
            entry
            for entry in self._entries.values()
            if entry.life.started_at is not None and entry.open(now) and entry.lease_expires_at <= now
        ]
        for entry in lost:
            entry.end(ended_at=entry.lease_expires_at, **NODE_LOST)
            self._is_over(entry, now)
        return [entry.session_id for entry in lost]

    async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
        entry = self._entries.get(session_id)
        if entry is None or entry.life.started_at is None:
            return
        if entry.life.ended_at is not None and entry.life.closed_by != "sweeper":
            return
        used = msgspec.structs.replace(outcome, close=None, transcript=())
        entry.end(ended_at=now, **closing_fields(outcome.close), outcome=used)
        self._keep_transcript(entry, outcome.transcript)
        self._is_over(entry, now)
        while self._bytes > self._max_bytes:
            if not self._forget_oldest():
                self._keep_transcript(entry, ())
                break

    async def get(self, session_id: str, *, key_id: str | None = None) -> SessionHistory | None:
        entry = self._entries.get(session_id)
        if entry is None or (key_id is not None and entry.key_id != key_id):
            return None
        return entry.so_far

    async def transcript(self, session_id: str) -> Sequence[TranscriptLine]:
        entry = self._entries.get(session_id)
        return () if entry is None else entry.transcript

    async def sessions(self, query: SessionQuery, *, now: float) -> Sequence[SessionHistory]:
        found: list[SessionHistory] = []
        for entry in sorted(self._entries.values(), key=lambda entry: entry.position, reverse=True):
            if len(found) == query.limit:
                break
            if query.after is None or entry.position < query.after:
                history = entry.so_far
                if _matches(query, history, now):
                    found.append(history)
        return found

    async def purge(
        self, *, transcripts_before: float | None, records_before: float | None, now: float
    ) -> bool:
        self._expire(now)
        if records_before is not None:
            for entry in [entry for entry in self._past.values() if entry.created_at < records_before]:
                self._forget(entry)
        if transcripts_before is not None:
            for entry in self._entries.values():
                kept = tuple(line for line in entry.transcript if line.at >= transcripts_before)
                self._keep_transcript(entry, kept)
        return False

    async def add_key(self, key: StoredKey) -> None:
        self._keys[key.key_id] = key

    async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
        return [self._keys[key_id] for key_id in key_ids if key_id in self._keys]

    async def keys(self) -> Sequence[StoredKey]:
        return sorted(self._keys.values(), key=lambda key: key.created_at)

    async def revoke_key(self, key_id: str, *, now: float) -> StoredKey:
        key = self._keys.get(key_id)
        if key is None:
            raise KeyNotFoundError(key_id)
        if key.revoked_at is None:
            key = self._keys[key_id] = msgspec.structs.replace(key, revoked_at=now)
        return key

    def _keep_transcript(self, entry: _Entry, lines: tuple[TranscriptLine, ...]) -> None:
        self._bytes -= entry.size
        entry.transcript = lines
        self._bytes += entry.size

    def _expire(self, now: float) -> None:
        while self._minted and self._minted[0].expires_at <= now:
            entry = self._minted.popleft()
            if entry.idempotency is not None:
                del self._by_idempotency[entry.idempotency.key_id, entry.idempotency.key]
            self._is_over(entry, now)

    def _is_over(self, entry: _Entry, now: float) -> None:
        # It may have been forgotten while it waited behind a longer-lived one.
        if entry.expires_at <= now and not entry.open(now) and entry.session_id in self._entries:
            self._past[entry.session_id] = entry

    def _make_room(self, size: int) -> None:
        """Forget the oldest until a record of `size` bytes fits; raise `StoreFullError` if nothing is old."""
        while len(self._entries) >= self._max_records or self._bytes + size > self._max_bytes:
            if not self._forget_oldest():
                raise StoreFullError("the gateway holds as many sessions as it may; try again in a minute")

    def _forget_oldest(self) -> bool:
        if not self._past:
            return False
        self._forget(next(iter(self._past.values())))
        return True

    def _forget(self, entry: _Entry) -> None:
        del self._past[entry.session_id]
        del self._entries[entry.session_id]
        self._bytes -= entry.size


def _matches(query: SessionQuery, history: SessionHistory, now: float) -> bool:
    record = history.record
    return (
        (query.key_id is None or record.key_id == query.key_id)
        and (query.provider is None or record.config.provider == query.provider)
        and (query.status is None or history.status(now) is query.status)
        and (query.created_from is None or record.created_at >= query.created_from)
        and (query.created_until is None or record.created_at < query.created_until)
    )
