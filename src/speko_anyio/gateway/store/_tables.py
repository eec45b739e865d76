"""The tables as today's code uses them, and their rows as records.

The steps in ``gateway/_migrations`` make the tables of a database. Times are seconds since the epoch, as
`Double`: a record comes back as it was. What clients write is kept as JSON in text: PostgreSQL's own JSON
types take no NUL, and nothing here looks inside.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    func,
)

from speko_anyio.protocol.frames import Usage
from speko_anyio.protocol.mint import SessionConfig

from ._records import (
    SCOPES,
    KeyLimits,
    SessionHistory,
    SessionLife,
    SessionOutcome,
    SessionRecord,
    StoredKey,
    StoredRecord,
    closing_fields,
)

METADATA: Final = MetaData()

_SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite only counts up automatically in a column whose type is INTEGER."""

KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("scopes", Text, nullable=False),
    *(Column(name, Integer) for name in KeyLimits.__struct_fields__),
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
    *(Column(name, BigInteger) for name in Usage.__struct_fields__ if name.endswith("_tokens")),
    Column("reported_seconds", Double),
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

_MINTED: Final = ("session_id", "key_id", "provider", "ttl_seconds", "created_at", "token_expires_at")
_LIVED: Final = tuple(name for name in SessionLife.__struct_fields__ if name in SESSIONS.c)
_USED: Final = tuple(
    name for name in SessionOutcome.__struct_fields__ if name in SESSIONS.c and name != "tool_calls"
)

_CONFIG: Final = msgspec.json.Decoder(SessionConfig)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_COUNTS: Final = msgspec.json.Decoder(dict[str, int])


def session_row(record: SessionRecord) -> dict[str, Any]:
    """Return the row of a session that was minted."""
    metadata = record.metadata
    return msgspec.structs.asdict(record) | {
        "provider": record.config.provider,
        "config": _json(record.config),
        "metadata": None if metadata is None else _json(metadata),
    }


def ending_columns(outcome: SessionOutcome) -> dict[str, Any]:
    """Return the columns that tell the end of a session, except the time."""
    columns = msgspec.structs.asdict(outcome) | closing_fields(outcome.close)
    del columns["close"], columns["transcript"]
    if columns["close_reason"] is not None:
        columns["close_reason"] = storable(columns["close_reason"])
    columns["tool_calls"] = _json(outcome.tool_calls)
    return columns


def record_of(row: Row[Any]) -> SessionRecord:
    """Return what was minted, from a session's row."""
    metadata = row._mapping["metadata"]
    return SessionRecord(
        **_fields(SessionRecord, row)
        | {
            "config": _CONFIG.decode(row.config),
            "metadata": None if metadata is None else _OBJECT.decode(metadata),
        }
    )


HISTORY: Final[tuple[ColumnElement[Any], ...]] = tuple(
    column for column in SESSIONS.c if column.name not in {"token_id", "config", "lease_expires_at"}
)
"""The columns of a session for those who read the records; `config` is large."""

MODEL_START: Final = func.substr(SESSIONS.c.config, 1, 512).label("start")
"""The start of a session's config, where its model is."""

_MODEL: Final = re.compile(r'\{"provider":"(?:[^"\\]|\\.)*","model":("(?:[^"\\]|\\.)*")')


class _Model(msgspec.Struct, frozen=True):
    model: str


_MODEL_ALONE: Final = msgspec.json.Decoder(_Model)


def model_at_start(start: str) -> str | None:
    """Return the model of a config by its `MODEL_START`; None if the start is too short."""
    found = _MODEL.match(start)
    return None if found is None else msgspec.json.decode(found[1], type=str)


def model_of(config: str) -> str:
    """Return the model of a config."""
    return _MODEL_ALONE.decode(config).model


def history_of(row: Any, *, model: str, config: str | None = None) -> SessionHistory:
    """Return everything in a session's row; what it used is known once it has ended."""
    known = row._mapping
    outcome = SessionOutcome()
    if row.tool_calls is not None:
        # A column is empty in a row that is older than the column.
        used = {name: known[name] for name in _USED if known[name] is not None}
        outcome = SessionOutcome(**used, tool_calls=_COUNTS.decode(row.tool_calls))
    record = StoredRecord(
        **{name: known[name] for name in _MINTED},
        model=model,
        config=None if config is None else msgspec.Raw(config),
        metadata=None if row.metadata is None else msgspec.Raw(row.metadata),
    )
    return SessionHistory(record, SessionLife(**{name: known[name] for name in _LIVED}, outcome=outcome))


def key_row(key: StoredKey) -> dict[str, Any]:
    """Return the row of a key."""
    row = msgspec.structs.asdict(key) | msgspec.structs.asdict(key.limits)
    del row["limits"]
    return row | {"name": storable(key.name), "scopes": ",".join(key.scopes)}


def key_of(row: Row[Any]) -> StoredKey:
    """Return the key of a row, without scopes that this version does not know."""
    kept = row.scopes.split(",")
    return StoredKey(
        **_fields(StoredKey, row)
        | {
            "digest": bytes(row.digest),
            "scopes": tuple(scope for scope in SCOPES if scope in kept),
            "limits": KeyLimits(**_fields(KeyLimits, row)),
        }
    )


def storable(text: str) -> str:
    """Return `text` as every database takes it: without NUL (PostgreSQL) and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _fields(kind: type[msgspec.Struct], row: Row[Any]) -> dict[str, Any]:
    # Not validated: a newer version may have written values that this one does not know.
    return {name: row._mapping[name] for name in kind.__struct_fields__ if name in row._mapping}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
