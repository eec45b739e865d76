"""The tables as the code of today uses them. What a database has is made by ``gateway/migrations``.

Times are seconds since the epoch, as `Double`: a record comes back as it was. What clients write is kept as
JSON in text: PostgreSQL's own JSON types take no NUL, and nothing here looks inside.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA: Final = MetaData()

_SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column that is called INTEGER."""

KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("max_sessions", Integer),
    Column("mints_per_minute", Integer),
    Column("minutes_per_day", Integer),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("session_id", String(64), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("token_id", String(64), nullable=False),
    Column("provider", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("metadata", Text),
    Column("ttl_seconds", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("token_expires_at", BigInteger, nullable=False),
    Column("started_at", Double),
    Column("node_id", String(64)),
    Column("lease_expires_at", Double),
    Column("ended_at", Double),
    Column("close_code", Integer),
    Column("close_reason", Text),
    Column("closed_by", String(16)),
    Column("input_audio_seconds", Double),
    Column("output_audio_seconds", Double),
    Column("input_audio_tokens", BigInteger),
    Column("output_audio_tokens", BigInteger),
    Column("time_to_first_audio", Double),
    Column("tool_calls", Text),
)
Index("sessions_by_creation", SESSIONS.c.created_at, SESSIONS.c.session_id)
Index("sessions_by_key", SESSIONS.c.key_id, SESSIONS.c.created_at, SESSIONS.c.session_id)
# The sessions that live, which are few, however many there were.
Index(
    "sessions_by_lease",
    SESSIONS.c.lease_expires_at,
    postgresql_where=SESSIONS.c.ended_at.is_(None),
    sqlite_where=SESSIONS.c.ended_at.is_(None),
)

IDEMPOTENCY: Final = Table(
    "idempotency",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("request", LargeBinary(32), primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)
"""`request` is a hash of the caller's key, which may be any text of any length."""

TRANSCRIPTS: Final = Table(
    "transcripts",
    METADATA,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("session_id", String(64), nullable=False, index=True),
    Column("role", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("at", Double, nullable=False, index=True),
)
