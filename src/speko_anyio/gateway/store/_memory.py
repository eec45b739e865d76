"""`MemoryStore`: the records of one process, for programs that embed their gateway, and for tests."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias

import anyio.lowlevel
import msgspec

from speko_anyio.protocol.mint import SessionConfig

from ._contract import IdempotencyError, KeyNotFoundError, Refused, StoreFullError
from ._key_limits import KeyUse, day_start, granted_ttl
from ._records import (
    NO_LIMITS,
    NODE_LOST,
    PAGE_BYTES,
    PAGE_LINES,
    Idempotency,
    KeyLimits,
    SessionHistory,
    SessionLife,
    SessionOutcome,
    SessionPage,
    SessionQuery,
    SessionRecord,
    StoredKey,
    StoredRecord,
    TranscriptLine,
    TranscriptPage,
    closing_fields,
    fitting,
    status_of,
)

MAX_RECORDS: Final = 100_000
"""Records that a `MemoryStore` holds."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""Bytes that a `MemoryStore` holds."""

RECORD_OVERHEAD: Final = 1024
"""Bytes that a record takes besides its encoded form, as a `MemoryStore` counts them."""

_LINE_OVERHEAD: Final = 128
"""Bytes that a transcript's line takes besides its text."""

_DAYS: Final = 2
"""Days for which the used time of a key is kept: a session may end on the day after its mint."""

_Position: TypeAlias = tuple[float, str]
"""When a record was created, and its id."""

_CONFIG: Final = msgspec.json.Decoder(SessionConfig)
_METADATA: Final = msgspec.json.Decoder(dict[str, Any])


_SLICE: Final = 500
"""Records that a list or a purge looks at before other tasks have their turn: a fraction of a millisecond."""

_PURGE_BATCH: Final = 1000
"""Records that one purge looks at."""


class _Entry:
    __slots__ = (
        "dropped",
        "idempotency",
        "key_id",
        "lease_expires_at",
        "life",
        "minted",
        "minted_size",
        "session_id",
        "size",
        "token_id",
        "transcript",
    )

    def __init__(self, record: SessionRecord, idempotency: Idempotency | None) -> None:
        # Metadata and tools take up to 22 times as much as Python objects, and the client chooses them.
        config = msgspec.json.encode(record.config)
        metadata = None if record.metadata is None else msgspec.json.encode(record.metadata)
        self.session_id = record.session_id
        self.key_id = record.key_id
        self.minted = StoredRecord(
            session_id=record.session_id,
            key_id=record.key_id,
            provider=record.config.provider,
            model=record.config.model,
            config=msgspec.Raw(config),
            metadata=None if metadata is None else msgspec.Raw(metadata),
            ttl_seconds=record.ttl_seconds,
            created_at=record.created_at,
            token_expires_at=record.token_expires_at,
        )
        self.token_id = record.token_id
        self.idempotency = idempotency
        self.life = SessionLife()
        self.lease_expires_at = 0.0
        self.transcript: tuple[TranscriptLine, ...] = ()
        self.dropped = 0
        """Lines of the transcript that were purged."""
        self.minted_size = RECORD_OVERHEAD + len(config) + len(metadata or b"")
        """Bytes that it counts for without a transcript."""
        self.size = self.minted_size
        """Bytes that it counts for."""

    @property
    def record(self) -> SessionRecord:
        minted = self.minted
        assert minted.config is not None
        return SessionRecord(
            session_id=self.session_id,
            key_id=self.key_id,
            token_id=self.token_id,
            config=_CONFIG.decode(minted.config),
            metadata=None if minted.metadata is None else _METADATA.decode(minted.metadata),
            ttl_seconds=minted.ttl_seconds,
            created_at=minted.created_at,
            token_expires_at=minted.token_expires_at,
        )

    @property
    def length(self) -> float:
        """Seconds that it lasted; 0 while it is not over."""
        started, ended = self.life.started_at, self.life.ended_at
        return 0.0 if started is None or ended is None else max(0.0, ended - started)

    def open(self, now: float) -> bool:
        """Return whether it is open, or can still be opened."""
        if self.life.started_at is None:
            return self.minted.token_expires_at > now
        return self.life.ended_at is None

    def end(self, **how: Any) -> None:
        """End it; `how` are fields of `SessionLife`."""
        self.life = msgspec.structs.replace(self.life, **how)

    @property
    def position(self) -> _Position:
        """The position of this record in a list."""
        return self.minted.created_at, self.session_id


class _Timeline:
    """The positions of records, oldest first. Adding a new one and removing an old one are cheap."""

    def __init__(self) -> None:
        self._positions: list[_Position] = []

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, position: _Position) -> None:
        insort(self._positions, position)

    def remove(self, position: _Position) -> None:
        del self._positions[bisect_left(self._positions, position)]

    def newest(self, count: int, *, before: _Position) -> list[_Position]:
        """Return up to `count` positions before another one, newest first."""
        end = bisect_left(self._positions, before)
        return self._positions[max(0, end - count) : end][::-1]

    def oldest(self, count: int) -> list[_Position]:
        return self._positions[:count]

    def nth_newest(self, number: int) -> float | None:
        """Return when the `number`-th newest record was created; None if there are fewer."""
        return self._positions[-number][0] if 0 < number <= len(self._positions) else None


class _KeyRecords:
    """The records of one key, and what its limits count."""

    def __init__(self) -> None:
        self.timeline = _Timeline()
        self.open: dict[str, _Entry] = {}
        """Sessions that are open, or may still be opened, by id."""
        self._spent: dict[float, float] = {}

    def spend(self, entry: _Entry, seconds: float) -> None:
        """Add the seconds of an ended session, or take them back (negative) if it lives after all."""
        day = day_start(entry.minted.created_at)
        self._spent[day] = self._spent.get(day, 0.0) + seconds
        if len(self._spent) > _DAYS:
            del self._spent[min(self._spent)]

    def use(self, limits: KeyLimits, now: float) -> KeyUse:
        for session_id in [each for each, entry in self.open.items() if not entry.open(now)]:
            del self.open[session_id]
        today = day_start(now)
        return KeyUse(
            nth_newest_mint=self.timeline.nth_newest(limits.mints_per_minute or 0),
            open_sessions=len(self.open),
            spent_seconds=self._spent.get(today, 0.0),
            reserved_seconds=sum(
                entry.minted.ttl_seconds for entry in self.open.values() if entry.minted.created_at >= today
            ),
        )


class MemoryStore:
    """A `SessionStore` of one process, which holds `max_records` and `max_bytes` of them at most.

    The records are kept encoded, so that their bytes are known: each counts for the JSON of its configuration
    and metadata, its transcript, and `RECORD_OVERHEAD`. When there is no room it forgets the sessions that
    are over, and those that were not opened in time, the oldest first; it refuses new ones only when the
    others alone fill it.
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
        self._timeline = _Timeline()
        self._by_key: dict[str, _KeyRecords] = {}
        self._live: dict[str, _Entry] = {}
        self._said: dict[str, _Entry] = {}
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
        mine = self._by_key.get(record.key_id) or _KeyRecords()
        if limits != NO_LIMITS:
            use = mine.use(limits, now)
            ttl = granted_ttl(limits, use, ttl=record.ttl_seconds, now=now)
            record = msgspec.structs.replace(record, ttl_seconds=ttl)
        entry = _Entry(record, idempotency)
        self._make_room(entry.size)
        self._entries[record.session_id] = entry
        self._timeline.add(entry.position)
        mine = self._by_key.setdefault(record.key_id, mine)
        mine.timeline.add(entry.position)
        mine.open[record.session_id] = entry
        self._bytes += entry.size
        self._minted.append(entry)
        if idempotency is not None:
            self._by_idempotency[idempotency.key_id, idempotency.key] = entry
        return record

    async def claim(
        self, session_id: str, token_id: str, *, node_id: str, lease: float, now: float
    ) -> SessionRecord | Refused:
        entry = self._entries.get(session_id)
        if entry is None or entry.token_id != token_id or entry.minted.token_expires_at <= now:
            return Refused.UNKNOWN
        if entry.life.started_at is not None:
            return Refused.USED
        key = self._keys.get(entry.key_id)
        if key is not None and key.revoked_at is not None:
            return Refused.REVOKED
        entry.life = SessionLife(started_at=now, node_id=node_id)
        entry.lease_expires_at = now + lease
        self._live[session_id] = entry
        return entry.record

    async def renew(self, session_ids: Collection[str], *, node_id: str, lease: float, now: float) -> None:
        for session_id in session_ids:
            entry = self._entries.get(session_id)
            if entry is None or entry.life.node_id != node_id:
                continue
            if entry.life.closed_by == "sweeper":
                self._past.pop(session_id, None)
                self._lives_again(entry)
                entry.life = SessionLife(started_at=entry.life.started_at, node_id=node_id)
                self._by_key[entry.key_id].open[session_id] = entry
                self._live[session_id] = entry
            entry.lease_expires_at = now + lease

    async def sweep(self, *, now: float) -> Sequence[str]:
        lost = [entry for entry in self._live.values() if entry.lease_expires_at <= now]
        for entry in lost:
            entry.end(ended_at=entry.lease_expires_at, **NODE_LOST)
            self._has_ended(entry, now)
        return [entry.session_id for entry in lost]

    async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
        entry = self._entries.get(session_id)
        if entry is None or entry.life.started_at is None:
            return
        if entry.life.ended_at is not None and entry.life.closed_by != "sweeper":
            return
        used = msgspec.structs.replace(outcome, close=None, transcript=())
        if entry.life.ended_at is not None:
            self._lives_again(entry)
        entry.end(ended_at=now, **closing_fields(outcome.close), outcome=used)
        self._keep_transcript(entry, outcome.transcript)
        self._has_ended(entry, now)
        while self._bytes > self._max_bytes:
            if not self._forget_oldest():
                self._keep_transcript(entry, ())
                break

    async def get(self, session_id: str, *, key_id: str | None = None) -> SessionHistory | None:
        entry = self._entries.get(session_id)
        if entry is None or (key_id is not None and entry.key_id != key_id):
            return None
        return SessionHistory(entry.minted, entry.life)

    async def transcript(
        self, session_id: str, *, after: int = 0, max_bytes: int = PAGE_BYTES
    ) -> TranscriptPage:
        entry = self._entries.get(session_id)
        if entry is None:
            return TranscriptPage()
        start = max(0, after - entry.dropped)
        lines = entry.transcript[start : start + PAGE_LINES]
        lines = lines[: fitting((len(line.text.encode(errors="replace")) for line in lines), max_bytes)]
        end = start + len(lines)
        return TranscriptPage(lines, end + entry.dropped if end < len(entry.transcript) else None)

    async def sessions(self, query: SessionQuery, *, now: float) -> SessionPage:
        timeline = self._timeline
        if query.key_id is not None:
            timeline = self._by_key.get(query.key_id, _NO_RECORDS).timeline
        found: list[_Entry] = []
        before = query.after or _END
        if query.created_until is not None:
            before = min(before, (query.created_until, ""))
        earliest = -math.inf if query.created_from is None else query.created_from
        # One more than asked for shows whether there is another page.
        while len(found) <= query.limit and (positions := timeline.newest(_SLICE, before=before)):
            for before in positions:
                if before[0] < earliest or len(found) > query.limit:
                    break
                entry = self._entries[before[1]]
                if _matches(query, entry, now):
                    found.append(entry)
            if before[0] < earliest:
                break
            await anyio.lowlevel.checkpoint()
        count = fitting(
            (len(entry.minted.metadata or b"") for entry in found[: query.limit]), query.max_bytes
        )
        page = tuple(
            SessionHistory(msgspec.structs.replace(entry.minted, config=None), entry.life)
            for entry in found[:count]
        )
        return SessionPage(page, more=count < len(found))

    async def purge(
        self, *, transcripts_before: float | None, records_before: float | None, now: float
    ) -> bool:
        self._expire(now)
        removed = 0
        if records_before is not None:
            for created_at, session_id in self._timeline.oldest(_PURGE_BATCH):
                if created_at >= records_before:
                    break
                if (entry := self._past.get(session_id)) is not None:
                    self._forget(entry)
                    removed += 1
        if transcripts_before is not None:
            for number, entry in enumerate(list(self._said.values())):
                kept = tuple(line for line in entry.transcript if line.at >= transcripts_before)
                if len(kept) < len(entry.transcript):
                    dropped = len(entry.transcript) - len(kept)
                    self._keep_transcript(entry, kept)
                    entry.dropped += dropped
                if number % _SLICE == _SLICE - 1:
                    await anyio.lowlevel.checkpoint()
        return removed == _PURGE_BATCH

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
        size = entry.minted_size + sum(_LINE_OVERHEAD + 4 * len(line.text) for line in lines)
        self._bytes += size - entry.size
        entry.size = size
        entry.transcript = lines
        if lines:
            self._said[entry.session_id] = entry
        else:
            self._said.pop(entry.session_id, None)

    def _has_ended(self, entry: _Entry, now: float) -> None:
        self._live.pop(entry.session_id, None)
        mine = self._by_key[entry.key_id]
        mine.open.pop(entry.session_id, None)
        mine.spend(entry, entry.length)
        self._is_over(entry, now)

    def _lives_again(self, entry: _Entry) -> None:
        """Take its time back: the sweeper was wrong, or did not know when the session ended."""
        self._by_key[entry.key_id].spend(entry, -entry.length)

    def _expire(self, now: float) -> None:
        while self._minted and self._minted[0].minted.token_expires_at <= now:
            entry = self._minted.popleft()
            if entry.idempotency is not None:
                del self._by_idempotency[entry.idempotency.key_id, entry.idempotency.key]
            self._is_over(entry, now)

    def _is_over(self, entry: _Entry, now: float) -> None:
        # It may have been forgotten while it waited behind a longer-lived one.
        expired = entry.minted.token_expires_at <= now
        if expired and not entry.open(now) and entry.session_id in self._entries:
            self._past[entry.session_id] = entry
            self._by_key[entry.key_id].open.pop(entry.session_id, None)

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
        self._said.pop(entry.session_id, None)
        self._timeline.remove(entry.position)
        mine = self._by_key[entry.key_id]
        mine.timeline.remove(entry.position)
        mine.open.pop(entry.session_id, None)
        if not len(mine.timeline):
            del self._by_key[entry.key_id]
        self._bytes -= entry.size


_NO_RECORDS: Final = _KeyRecords()

_END: Final[_Position] = (math.inf, "")


def _matches(query: SessionQuery, entry: _Entry, now: float) -> bool:
    return (query.provider is None or entry.minted.provider == query.provider) and (
        query.status is None or status_of(entry.life, entry.minted.token_expires_at, now) is query.status
    )
