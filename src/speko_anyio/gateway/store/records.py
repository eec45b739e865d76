"""What is kept of a session and of a key: plain data. Times are seconds since the epoch."""

from __future__ import annotations

import enum
from typing import Any, Final, Literal, TypeAlias

import msgspec

from speko_anyio.protocol import close_codes
from speko_anyio.protocol.frames import Close, Initiator, Role
from speko_anyio.protocol.mint import SessionConfig

Scope: TypeAlias = Literal["mint", "read", "admin"]
"""What a key may do: mint sessions, read the records of its own ones, read everybody's."""

SCOPES: Final[tuple[Scope, ...]] = ("mint", "read", "admin")

ClosedBy: TypeAlias = Literal["client", "gateway", "transport", "sweeper"]
"""Who ended a session; the sweeper ends those whose node is lost."""

CLOSED_BY: Final[dict[Initiator, ClosedBy]] = {
    "local": "gateway",
    "remote": "client",
    "transport": "transport",
}

LOST_CODE: Final = close_codes.ABNORMAL
LOST_REASON: Final = "node lost"
"""How a session ends whose node stopped renewing its lease."""


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
    token_expires_at: int


class Idempotency(msgspec.Struct, frozen=True):
    """What makes the repetition of a mint the same mint."""

    key_id: str
    """Which API key minted: another one's repetition is another mint."""
    key: str
    """The caller's ``Idempotency-Key``."""
    fingerprint: bytes
    """A hash of the request's body."""


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a key may use; None is no limit. They hold across all nodes that share the store."""

    max_sessions: int | None = None
    """Sessions at once; one that was minted and can still be opened counts."""
    mints_per_minute: int | None = None
    """Sessions minted within any 60 seconds; a repetition by Idempotency-Key doesn't count."""
    minutes_per_day: int | None = None
    """Minutes of sessions minted within one day of UTC. Until a session ends its whole TTL counts, then how
    long it was."""


NO_LIMITS: Final = KeyLimits()


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is kept: not the key."""

    key_id: str
    name: str
    """Whose it is, or for what; for people."""
    digest: bytes
    """SHA-256 of the key, which is random enough to need no salt."""
    scopes: tuple[Scope, ...]
    limits: KeyLimits
    created_at: float
    revoked_at: float | None = None

    def __repr__(self) -> str:
        return f"StoredKey({self.key_id!r}, {self.name!r})"


class TranscriptLine(msgspec.Struct, frozen=True):
    """One final text of a session's transcript."""

    role: Role
    text: str
    at: float


class SessionOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a session went."""

    close: Close | None = None
    """None: it ended before it began."""
    input_audio_seconds: float = 0.0
    output_audio_seconds: float = 0.0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    time_to_first_audio: float | None = None
    """Seconds from the end of a turn of the user to the first audio after it, of the first such turn; None
    when there was none."""
    tool_calls: dict[str, int] = {}
    """How often each tool was called."""
    transcript: tuple[TranscriptLine, ...] = ()
    """Empty unless transcripts are to be stored."""


class Status(enum.Enum):
    """Where a session is in its life."""

    MINTED = "minted"
    """Its token can still open it."""
    LIVE = "live"
    ENDED = "ended"
    EXPIRED = "expired"
    """Nobody opened it in time."""


class SessionLife(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a session after its mint."""

    started_at: float | None = None
    node_id: str | None = None
    """Which node serves it, or served it."""
    ended_at: float | None = None
    close_code: int | None = None
    close_reason: str | None = None
    closed_by: ClosedBy | None = None
    outcome: SessionOutcome = SessionOutcome()
    """All but its `close`, which the fields above tell, and the transcript, which is asked for by itself."""


class SessionHistory(msgspec.Struct, frozen=True):
    """One session, from its mint to its end."""

    record: SessionRecord
    life: SessionLife

    def status(self, now: float) -> Status:
        """Where it is in its life at `now`."""
        if self.life.ended_at is not None:
            return Status.ENDED
        if self.life.started_at is not None:
            return Status.LIVE
        return Status.EXPIRED if self.record.token_expires_at <= now else Status.MINTED


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions to list, newest first; None does not filter."""

    limit: int
    key_id: str | None = None
    status: Status | None = None
    provider: str | None = None
    created_from: float | None = None
    """Not before this."""
    created_until: float | None = None
    """Before this."""
    after: tuple[float, str] | None = None
    """What the page before ended with: `created_at` and `session_id`."""
