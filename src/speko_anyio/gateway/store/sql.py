"""`SQLStore`: the records in a SQLite file, or in a PostgreSQL database that several nodes share.

What must be decided once, whichever node asks, is one conditional ``UPDATE`` or happens under a lock of its
key: PostgreSQL's advisory lock, and in SQLite the write lock that every transaction takes first.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, assert_never

import anyio
import anyio.to_thread
import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    LargeBinary,
    and_,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.expression import GenerativeSelect

from ._contract import IdempotencyError, KeyNotFoundError, Refused
from ._database import PATIENCE, BusyError, Database
from ._key_limits import DAY, KeyUse, day_start, granted_ttl
from ._records import (
    NO_LIMITS,
    NODE_LOST,
    PAGE_BYTES,
    PAGE_LINES,
    Idempotency,
    KeyLimits,
    SessionHistory,
    SessionOutcome,
    SessionPage,
    SessionQuery,
    SessionRecord,
    Status,
    StoredKey,
    TranscriptLine,
    TranscriptPage,
    fitting,
)
from ._tables import (
    HISTORY,
    IDEMPOTENCY,
    KEYS,
    MODEL_START,
    SESSIONS,
    TRANSCRIPTS,
    ending_columns,
    history_of,
    key_of,
    key_row,
    model_at_start,
    model_of,
    record_of,
    session_row,
    storable,
)
from .migrate import check_schema, migrate

logger: Final = logging.getLogger("speko_anyio.gateway.store")

T = TypeVar("T")
Rows = TypeVar("Rows", bound=GenerativeSelect)

PURGE_BATCH: Final = 1000
"""Rows of a table that one purge removes, so that it delays no other statement."""

MIGRATION_PATIENCE: Final = 600.0
"""Seconds to wait at the start for another node that brings the tables of a SQLite file up to date."""

PURGE_PATIENCE: Final = 5.0
"""Seconds that a purge may take; nobody waits for it."""

RENEW_BATCH: Final = 500
"""Sessions that one statement renews."""

_S: Final = SESSIONS.c

_ALIVE: Final = or_(_S.ended_at.is_(None), _S.closed_by == "sweeper")
"""A session whose end the sweeper recorded may still live: its node was only too slow."""


class SQLStore:
    """A `SessionStore` in the database at `url`: a path or ``sqlite:///path``, or ``postgresql://...``.

    Entered, it makes a SQLite file and brings its tables up to date; of PostgreSQL it demands that
    ``speko-anyio gateway migrate`` was run. `migrate_at_start` decides otherwise. Raises `StoreError` for a
    URL that names no database; every call raises it when the database can't be used.

    Of the nodes that share a database the clocks must agree to a second or so (NTP).
    """

    def __init__(self, url: str, *, migrate_at_start: bool | None = None) -> None:
        self._database = Database(url)
        self._migrate_at_start = self._database.is_sqlite if migrate_at_start is None else migrate_at_start

    def __repr__(self) -> str:
        return f"SQLStore({self.url!r})"

    @property
    def url(self) -> str:
        """The URL, without its password."""
        return self._database.shown_url

    @property
    def file(self) -> Path | None:
        """The SQLite file, which may not exist yet; None for another database."""
        return self._database.file

    async def __aenter__(self) -> Self:
        if self._migrate_at_start:
            await self.migrate()
            return self
        try:
            await self._start(check_schema)
        except BaseException:
            self._database.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    async def migrate(self) -> None:
        """Bring the tables up to date; make missing ones, and a missing SQLite file.

        The store need not be entered, and no connection is left open.
        """
        await anyio.to_thread.run_sync(self._database.make_file)
        try:
            await self._start(migrate, patience=math.inf)
        finally:
            self._database.close()

    async def _start(self, work: Callable[[Connection], None], *, patience: float = PATIENCE) -> None:
        """Do `work`, waiting for other nodes that do the same at their start.

        PostgreSQL lets them wait for each other by itself, see `migrate`.
        """
        deadline = anyio.current_time() + MIGRATION_PATIENCE
        while True:
            try:
                return await self._database.run(work, patience=patience)
            except BusyError:
                if anyio.current_time() >= deadline:
                    raise
                logger.warning("%s is held by another process; waiting for it", self._database)

    # Sessions

    async def create(
        self,
        record: SessionRecord,
        *,
        idempotency: Idempotency | None,
        limits: KeyLimits = NO_LIMITS,
        now: float,
    ) -> SessionRecord:
        def work(connection: Connection) -> SessionRecord:
            if idempotency is not None or limits != NO_LIMITS:
                _lock_key(connection, record.key_id)
            if idempotency is not None:
                seen = _find_same(connection, idempotency, now)
                if seen is not None:
                    return seen
            kept = record
            if limits != NO_LIMITS:
                use = _use(connection, record.key_id, limits, now)
                ttl = granted_ttl(limits, use, ttl=record.ttl_seconds, now=now)
                kept = msgspec.structs.replace(record, ttl_seconds=ttl)
            connection.execute(insert(SESSIONS).values(session_row(kept)))
            if idempotency is not None:
                _keep_same(connection, idempotency, kept)
            return kept

        return await self._database.run(work)

    async def claim(
        self, session_id: str, token_id: str, *, node_id: str, lease: float, now: float
    ) -> SessionRecord | Refused:
        this = and_(_S.session_id == session_id, _S.token_id == token_id, _S.token_expires_at > now)
        revoked = (
            select(KEYS.c.key_id).where(KEYS.c.key_id == _S.key_id, KEYS.c.revoked_at.is_not(None)).exists()
        )
        take = (
            update(SESSIONS)
            .where(this, _S.started_at.is_(None), ~revoked)
            .values(started_at=now, node_id=node_id, lease_expires_at=now + lease)
        )

        def work(connection: Connection) -> SessionRecord | Refused:
            taken = connection.execute(take).rowcount == 1
            row = connection.execute(select(SESSIONS).where(this)).one_or_none()
            if row is None:
                return Refused.UNKNOWN
            if taken:
                return record_of(row)
            # Not revoked in the instant after: what was not started, was refused for its key.
            return Refused.REVOKED if row.started_at is None else Refused.USED

        return await self._database.run(work)

    async def renew(self, session_ids: Collection[str], *, node_id: str, lease: float, now: float) -> None:
        ids = sorted(session_ids)
        values = {"lease_expires_at": now + lease, "ended_at": None} | dict.fromkeys(NODE_LOST)

        def work(connection: Connection) -> None:
            for start in range(0, len(ids), RENEW_BATCH):
                these = _S.session_id.in_(ids[start : start + RENEW_BATCH])
                connection.execute(
                    update(SESSIONS).where(these, _S.node_id == node_id, _ALIVE).values(values)
                )

        if ids:
            await self._database.run(work)

    async def sweep(self, *, now: float) -> Sequence[str]:
        lost = and_(_S.ended_at.is_(None), _S.lease_expires_at <= now)
        end = (
            update(SESSIONS)
            .where(lost)
            .values(ended_at=_S.lease_expires_at, **NODE_LOST)
            .returning(_S.session_id)
        )
        return await self._database.run(lambda connection: list(connection.execute(end).scalars()))

    async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
        end = (
            update(SESSIONS)
            .where(_S.session_id == session_id, _S.started_at.is_not(None), _ALIVE)
            .values(ended_at=now, **ending_columns(outcome))
        )
        lines = [
            {"session_id": session_id, "role": line.role, "text": storable(line.text), "at": line.at}
            for line in outcome.transcript
        ]

        def work(connection: Connection) -> None:
            if connection.execute(end).rowcount == 1 and lines:
                connection.execute(insert(TRANSCRIPTS), lines)

        await self._database.run(work)

    # Reading

    async def get(self, session_id: str, *, key_id: str | None = None) -> SessionHistory | None:
        query = select(*HISTORY, _S.config).where(_S.session_id == storable(session_id))
        if key_id is not None:
            query = query.where(_S.key_id == key_id)

        def work(connection: Connection) -> SessionHistory | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else history_of(row, model=model_of(row.config), config=row.config)

        return await self._read(work)

    async def transcript(
        self, session_id: str, *, after: int = 0, max_bytes: int = PAGE_BYTES
    ) -> TranscriptPage:
        columns = TRANSCRIPTS.c
        mine = and_(columns.session_id == session_id, columns.id > after)
        sizes = select(columns.id, self._size(columns.text)).where(mine).order_by(columns.id)
        lines = select(columns.role, columns.text, columns.at).where(mine).order_by(columns.id)

        def work(connection: Connection) -> TranscriptPage:
            # One more than a page shows whether there is another.
            found = connection.execute(sizes.limit(PAGE_LINES + 1)).all()
            count = fitting((size for _, size in found[:PAGE_LINES]), max_bytes)
            if not count:
                return TranscriptPage()
            last = found[count - 1][0]
            page = connection.execute(lines.where(columns.id <= last))
            return TranscriptPage(
                tuple(TranscriptLine(*row) for row in page), last if count < len(found) else None
            )

        return await self._read(work)

    async def sessions(self, query: SessionQuery, *, now: float) -> SessionPage:
        position = (_S.created_at, _S.session_id)
        # Large columns are measured first, and read only if they fit on the page.
        sizes = (
            select(_S.session_id, MODEL_START, self._size(_S.metadata), self._size(_S.config))
            .order_by(*(column.desc() for column in position))
            .limit(query.limit + 1)
        )
        if query.key_id is not None:
            sizes = sizes.where(_S.key_id == storable(query.key_id))
        if query.provider is not None:
            sizes = sizes.where(_S.provider == storable(query.provider))
        if query.created_from is not None:
            sizes = sizes.where(_S.created_at >= query.created_from)
        if query.created_until is not None:
            sizes = sizes.where(_S.created_at < query.created_until)
        if query.after is not None:
            created_at, session_id = query.after
            sizes = sizes.where(
                tuple_(*position) < tuple_(literal(created_at), literal(storable(session_id)))
            )
        if query.status is not None:
            sizes = sizes.where(_is_status(query.status, now))

        def work(connection: Connection) -> SessionPage:
            models: dict[str, str | None] = {}
            left = query.max_bytes
            more = False
            with connection.execute(sizes) as found:
                for session_id, start, metadata, config in found:
                    model = model_at_start(start)
                    left -= (metadata or 0) + (config if model is None else 0)
                    more = len(models) == query.limit or (left < 0 and bool(models))
                    if more:
                        break  # SQLite has not computed the other rows yet
                    models[session_id] = model
            return SessionPage(tuple(_histories(connection, models)), more)

        return await self._read(work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._database.run(work, lane=self._database.reading)

    def _size(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the bytes of a text; SQLite has no function for it before version 3.43."""
        if self._database.is_sqlite:
            return func.length(cast(column, LargeBinary))
        return func.octet_length(column)

    async def purge(
        self, *, transcripts_before: float | None, records_before: float | None, now: float
    ) -> bool:
        same = IDEMPOTENCY.c
        expired = _some(select(same.key_id, same.request).where(same.expires_at <= now))
        forget = delete(IDEMPOTENCY).where(tuple_(same.key_id, same.request).in_(expired))

        def work(connection: Connection) -> bool:
            removed = [connection.execute(forget).rowcount]
            if transcripts_before is not None:
                removed.append(_purge_lines(connection, TRANSCRIPTS.c.at < transcripts_before))
            if records_before is not None:
                removed += _purge_sessions(connection, records_before, now)
            return max(removed) >= PURGE_BATCH

        return await self._database.run(work, patience=PURGE_PATIENCE)

    # Keys

    async def add_key(self, key: StoredKey) -> None:
        await self._database.run(lambda connection: connection.execute(insert(KEYS).values(key_row(key))))

    async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
        return await self._keys(KEYS.c.key_id.in_(key_ids))

    async def keys(self) -> Sequence[StoredKey]:
        return await self._keys()

    async def _keys(self, *which: ColumnElement[bool]) -> Sequence[StoredKey]:
        query = select(KEYS).where(*which).order_by(KEYS.c.created_at, KEYS.c.key_id)
        return await self._database.run(
            lambda connection: [key_of(row) for row in connection.execute(query)],
            lane=self._database.lookups,
        )

    async def revoke_key(self, key_id: str, *, now: float) -> StoredKey:
        this = KEYS.c.key_id == key_id

        def work(connection: Connection) -> StoredKey:
            connection.execute(update(KEYS).where(this, KEYS.c.revoked_at.is_(None)).values(revoked_at=now))
            row = connection.execute(select(KEYS).where(this)).one_or_none()
            if row is None:
                raise KeyNotFoundError(key_id)
            return key_of(row)

        return await self._database.run(work)


def _histories(connection: Connection, models: Mapping[str, str | None]) -> Iterator[SessionHistory]:
    """Read the sessions of these ids, in this order; `models` are those that are known without the config."""
    unknown = [session_id for session_id, model in models.items() if model is None]
    config = case((_S.session_id.in_(unknown), _S.config)).label("config")
    rows = connection.execute(select(*HISTORY, config).where(_S.session_id.in_(models)))
    found = {row.session_id: row for row in rows}
    for session_id, model in models.items():
        row = found[session_id]
        yield history_of(row, model=model_of(row.config) if model is None else model)


def _lock_key(connection: Connection, key_id: str) -> None:
    """Keep others from counting what this key has used, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key_id, 0))))


def _request_hash(idempotency: Idempotency) -> bytes:
    return hashlib.sha256(idempotency.key.encode(errors="surrogatepass")).digest()


def _find_same(connection: Connection, idempotency: Idempotency, now: float) -> SessionRecord | None:
    columns = IDEMPOTENCY.c
    this = and_(columns.key_id == idempotency.key_id, columns.request == _request_hash(idempotency))
    connection.execute(delete(IDEMPOTENCY).where(this, columns.expires_at <= now))
    row = connection.execute(select(columns.fingerprint, columns.session_id).where(this)).one_or_none()
    if row is None:
        return None
    if bytes(row.fingerprint) != idempotency.fingerprint:
        raise IdempotencyError
    return record_of(connection.execute(select(SESSIONS).where(_S.session_id == row.session_id)).one())


def _keep_same(connection: Connection, idempotency: Idempotency, record: SessionRecord) -> None:
    connection.execute(
        insert(IDEMPOTENCY).values(
            key_id=idempotency.key_id,
            request=_request_hash(idempotency),
            fingerprint=idempotency.fingerprint,
            session_id=record.session_id,
            expires_at=record.token_expires_at,
        )
    )


def _some(rows: Rows) -> Rows:
    """Limit `rows` to what one purge removes, without any that another node is removing now."""
    return rows.limit(PURGE_BATCH).with_for_update(skip_locked=True)


def _purge_lines(connection: Connection, which: ColumnElement[bool]) -> int:
    """Remove lines of transcripts; return how many."""
    some = _some(select(TRANSCRIPTS.c.id).where(which))
    return connection.execute(delete(TRANSCRIPTS).where(TRANSCRIPTS.c.id.in_(some))).rowcount


def _purge_sessions(connection: Connection, before: float, now: float) -> tuple[int, int]:
    """Remove sessions that are over, and their transcripts; return how many lines and sessions."""
    over = and_(_S.token_expires_at <= now, or_(_S.started_at.is_(None), _S.ended_at.is_not(None)))
    # Their ids by themselves: for each statement there may be others.
    ids = list(connection.execute(_some(select(_S.session_id).where(_S.created_at < before, over))).scalars())
    if not ids:
        return 0, 0
    lines = _purge_lines(connection, TRANSCRIPTS.c.session_id.in_(ids))
    if lines >= PURGE_BATCH:
        # A session may have more lines, which could not be found without it.
        return lines, 0
    return lines, connection.execute(delete(SESSIONS).where(_S.session_id.in_(ids))).rowcount


def _use(connection: Connection, key_id: str, limits: KeyLimits, now: float) -> KeyUse:
    mine = _S.key_id == key_id
    is_open = or_(_is_status(Status.LIVE, now), _is_status(Status.MINTED, now))
    nth_newest = None
    if limits.mints_per_minute is not None:
        nth_newest = connection.execute(
            select(_S.created_at)
            .where(mine)
            .order_by(_S.created_at.desc())
            .offset(max(0, limits.mints_per_minute - 1))
            .limit(1)
        ).scalar()
    open_sessions = 0
    if limits.max_sessions is not None:
        # What is a day old is over, as a session lasts half an hour; so the years before are not searched.
        recent = _S.created_at >= now - DAY
        open_sessions = connection.execute(select(func.count()).where(mine, recent, is_open)).scalar_one()
    spent = reserved = 0.0
    if limits.minutes_per_day is not None:
        length = case((_S.ended_at > _S.started_at, _S.ended_at - _S.started_at), else_=0.0)
        held = case((is_open, cast(_S.ttl_seconds, Float)), else_=0.0)
        spent, reserved = connection.execute(
            select(func.coalesce(func.sum(length), 0.0), func.coalesce(func.sum(held), 0.0)).where(
                mine, _S.created_at >= day_start(now)
            )
        ).one()
    return KeyUse(
        nth_newest_mint=nth_newest,
        open_sessions=open_sessions,
        spent_seconds=spent,
        reserved_seconds=reserved,
    )


def _is_status(status: Status, now: float) -> Any:
    match status:
        case Status.MINTED:
            return and_(_S.started_at.is_(None), _S.token_expires_at > now)
        case Status.LIVE:
            return and_(_S.started_at.is_not(None), _S.ended_at.is_(None))
        case Status.ENDED:
            return _S.ended_at.is_not(None)
        case Status.EXPIRED:
            return and_(_S.started_at.is_(None), _S.token_expires_at <= now)
        case _:
            assert_never(status)
