"""Records of the sessions that were minted, and the API keys that may mint them.

`SessionStore` is what the gateway needs. `MemoryStore` keeps it in this process; `SQLStore`, in `.sql`, in a
SQLite file or in a PostgreSQL database that several nodes share.
"""

from __future__ import annotations

from ._contract import (
    IdempotencyError,
    KeyNotFoundError,
    LimitError,
    Refused,
    SessionStore,
    StoreError,
    StoreFullError,
)
from ._memory import MAX_BYTES, MAX_RECORDS, RECORD_OVERHEAD, MemoryStore
from ._records import (
    Idempotency,
    KeyLimits,
    Scope,
    SessionHistory,
    SessionLife,
    SessionOutcome,
    SessionPage,
    SessionQuery,
    SessionRecord,
    Status,
    StoredKey,
    StoredRecord,
    TranscriptLine,
    TranscriptPage,
)

__all__ = [
    "MAX_BYTES",
    "MAX_RECORDS",
    "RECORD_OVERHEAD",
    "Idempotency",
    "IdempotencyError",
    "KeyLimits",
    "KeyNotFoundError",
    "LimitError",
    "MemoryStore",
    "Refused",
    "Scope",
    "SessionHistory",
    "SessionLife",
    "SessionOutcome",
    "SessionPage",
    "SessionQuery",
    "SessionRecord",
    "SessionStore",
    "Status",
    "StoreError",
    "StoreFullError",
    "StoredKey",
    "StoredRecord",
    "TranscriptLine",
    "TranscriptPage",
]
