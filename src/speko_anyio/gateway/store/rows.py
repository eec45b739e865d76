"""The rows of the tables as records, and records as rows."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Row

from speko_anyio.protocol.mint import SessionConfig

from .records import SCOPES, KeyLimits, SessionHistory, SessionLife, SessionOutcome, SessionRecord, StoredKey

_CONFIG: Final = msgspec.json.Decoder(SessionConfig)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_COUNTS: Final = msgspec.json.Decoder(dict[str, int])


def row_of(record: SessionRecord) -> dict[str, Any]:
    """A session that was minted, as its row begins."""
    metadata = record.metadata
    return {
        "session_id": record.session_id,
        "key_id": record.key_id,
        "token_id": record.token_id,
        "provider": record.config.provider,
        "config": msgspec.json.encode(record.config).decode(),
        "metadata": None if metadata is None else msgspec.json.encode(metadata).decode(),
        "ttl_seconds": record.ttl_seconds,
        "created_at": record.created_at,
        "token_expires_at": record.token_expires_at,
    }


def record_of(row: Row[Any]) -> SessionRecord:
    """What was minted, of a session's row."""
    columns = row._mapping
    metadata = columns["metadata"]
    return SessionRecord(
        session_id=columns["session_id"],
        key_id=columns["key_id"],
        token_id=columns["token_id"],
        config=_CONFIG.decode(columns["config"]),
        metadata=None if metadata is None else _OBJECT.decode(metadata),
        ttl_seconds=columns["ttl_seconds"],
        created_at=columns["created_at"],
        token_expires_at=columns["token_expires_at"],
    )


def history_of(row: Row[Any]) -> SessionHistory:
    """All of a session's row; what it used is told once it has ended."""
    outcome = SessionOutcome()
    if row.tool_calls is not None:
        outcome = SessionOutcome(
            input_audio_seconds=row.input_audio_seconds,
            output_audio_seconds=row.output_audio_seconds,
            input_audio_tokens=row.input_audio_tokens,
            output_audio_tokens=row.output_audio_tokens,
            time_to_first_audio=row.time_to_first_audio,
            tool_calls=_COUNTS.decode(row.tool_calls),
        )
    life = SessionLife(
        started_at=row.started_at,
        node_id=row.node_id,
        ended_at=row.ended_at,
        close_code=row.close_code,
        close_reason=row.close_reason,
        closed_by=row.closed_by,
        outcome=outcome,
    )
    return SessionHistory(record_of(row), life)


def key_of(row: Row[Any]) -> StoredKey:
    """A key's row; scopes that this version does not know are left out."""
    kept = row.scopes.split(",")
    return StoredKey(
        key_id=row.key_id,
        name=row.name,
        digest=bytes(row.digest),
        scopes=tuple(scope for scope in SCOPES if scope in kept),
        limits=KeyLimits(
            max_sessions=row.max_sessions,
            mints_per_minute=row.mints_per_minute,
            minutes_per_day=row.minutes_per_day,
        ),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )


def storable(text: str) -> str:
    """What every database takes: PostgreSQL knows no NUL, and UTF-8 no half of a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
