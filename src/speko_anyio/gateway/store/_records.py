"""The records of sessions and of keys: plain data. Times are seconds since the epoch."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from speko_anyio.protocol import close_codes
from speko_anyio.protocol.frames import Close, Initiator, Role
from speko_anyio.protocol.mint import SessionConfig

Scope: TypeAlias = Literal["mint", "read", "admin"]
"""The rights of a key: mint sessions, read the records of its own sessions, read all records."""

SCOPES: Final[tuple[Scope, ...]] = ("mint", "read", "admin")

ClosedBy: TypeAlias = Literal["client", "gateway", "transport", "sweeper"]
"""Who ended a session; the sweeper ends those whose node is lost."""

_CLOSED_BY: Final[dict[Initiator, ClosedBy]] = {
    "local": "gateway",
    "remote": "client",
    "transport": "transport",
}

NODE_LOST: Final[dict[str, Any]] = {
    "close_code": close_codes.ABNORMAL,
    "close_reason": "node lost",
    "closed_by": "sweeper",
}
"""The fields of `SessionLife` for a session whose node stopped renewing its lease."""


PAGE_BYTES: Final = 256 * 1024
"""Bytes at which a page of records ends early, so that a page takes the event loop a millisecond."""

PAGE_LINES: Final = 500
"""Lines of a transcript on a page."""


def fitting(sizes: Iterable[int], max_bytes: int) -> int:
    """Return how many items of these sizes fit on a page. The first always does."""
    left = max_bytes
    count = 0
    for size in sizes:
        left -= size
        if left < 0 and count:
            break
        count += 1
    return count


def closed_by(close: Close) -> ClosedBy:
    """Return who ended a session."""
    return _CLOSED_BY[close.initiated_by]


def closing_fields(close: Close | None) -> dict[str, Any]:
    """Return the fields of `SessionLife` that tell how a session was closed."""
    return {
        "close_code": close and close.code,
        "close_reason": close and close.reason,
        "closed_by": close and closed_by(close),
    }


def iso_time(seconds: float, timespec: str = "milliseconds") -> str:
    """Return a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session as it was minted."""

    session_id: str
    key_id: str
    """The id of the API key that minted it."""
    token_id: str
    """The id of the one token that opens it."""
    config: SessionConfig
    metadata: dict[str, Any] | None
    ttl_seconds: int
    created_at: float
    token_expires_at: int


class Idempotency(msgspec.Struct, frozen=True):
    """Identifies a repeated mint."""

    key_id: str
    """The id of the API key; the same value from another key is another mint."""
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
    """The record of an API key, which does not hold the key."""

    key_id: str
    name: str
    """A name for people: the key's owner or purpose."""
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


class SessionOutcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a session went; encoded, by the names of the HTTP API."""

    close: Close | None = None
    """None if it ended before it began."""
    input_audio_seconds: float = 0.0
    output_audio_seconds: float = 0.0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_text_tokens: int = 0
    output_text_tokens: int = 0
    input_image_tokens: int = 0
    cached_audio_tokens: int = 0
    """The part of `input_audio_tokens` that the provider had cached, which costs less."""
    cached_text_tokens: int = 0
    output_reasoning_tokens: int = 0
    reported_seconds: float = 0.0
    """Seconds that the provider reported, if it counts time; the audio seconds are the gateway's own."""
    time_to_first_audio: float | None = msgspec.field(default=None, name="timeToFirstAudioSeconds")
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
    """The life of a session after its mint."""

    started_at: float | None = None
    node_id: str | None = None
    """The node that serves it, or served it."""
    ended_at: float | None = None
    close_code: int | None = None
    close_reason: str | None = None
    closed_by: ClosedBy | None = None
    outcome: SessionOutcome = SessionOutcome()
    """Without its `close`, which is in the fields above, and the transcript, which is read separately."""


def status_of(life: SessionLife, token_expires_at: int, now: float) -> Status:
    """Return where a session is in its life at `now`."""
    if life.ended_at is not None:
        return Status.ENDED
    if life.started_at is not None:
        return Status.LIVE
    return Status.EXPIRED if token_expires_at <= now else Status.MINTED


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session as it was minted, for those who read the records: its JSON as it is stored, not decoded."""

    session_id: str
    key_id: str
    provider: str
    model: str
    config: msgspec.Raw | None
    """The JSON of its `SessionConfig`; None in a list."""
    metadata: msgspec.Raw | None
    ttl_seconds: int
    created_at: float
    token_expires_at: int


class SessionHistory(msgspec.Struct, frozen=True):
    """One session, from its mint to its end."""

    record: StoredRecord
    life: SessionLife

    def status(self, now: float) -> Status:
        """Return where it is in its life at `now`."""
        return status_of(self.life, self.record.token_expires_at, now)


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
    """The end of the page before: `created_at` and `session_id`."""
    max_bytes: int = PAGE_BYTES
    """Bytes of metadata at which the page ends early; it has one session at least, if there is one."""


class SessionPage(msgspec.Struct, frozen=True):
    """A page of a list of sessions."""

    sessions: tuple[SessionHistory, ...] = ()
    more: bool = False
    """Whether there are more sessions after the last."""


class TranscriptPage(msgspec.Struct, frozen=True):
    """Some lines of a session's transcript, in order."""

    lines: tuple[TranscriptLine, ...] = ()
    next: int | None = None
    """Where the next page begins: the `after` that returns it; None if this is the last."""
