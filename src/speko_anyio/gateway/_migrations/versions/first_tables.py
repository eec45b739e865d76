"""Sessions, keys, what makes mints repeatable, transcripts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("max_sessions", sa.Integer),
        sa.Column("mints_per_minute", sa.Integer),
        sa.Column("minutes_per_day", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text),
        sa.Column("ttl_seconds", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("token_expires_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("node_id", sa.String(64)),
        sa.Column("lease_expires_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("close_code", sa.Integer),
        sa.Column("close_reason", sa.Text),
        sa.Column("closed_by", sa.String(16)),
        sa.Column("input_audio_seconds", sa.Double),
        sa.Column("output_audio_seconds", sa.Double),
        sa.Column("input_audio_tokens", sa.BigInteger),
        sa.Column("output_audio_tokens", sa.BigInteger),
        sa.Column("time_to_first_audio", sa.Double),
        sa.Column("tool_calls", sa.Text),
    )
    op.create_index("sessions_by_creation", "sessions", ["created_at", "session_id"])
    op.create_index("sessions_by_key", "sessions", ["key_id", "created_at", "session_id"])
    alive = sa.text("ended_at IS NULL")
    op.create_index(
        "sessions_by_lease", "sessions", ["lease_expires_at"], postgresql_where=alive, sqlite_where=alive
    )
    op.create_table(
        "idempotency",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("request", sa.LargeBinary(32), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_idempotency_expires_at", "idempotency", ["expires_at"])
    serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "transcripts",
        sa.Column("id", serial, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("ix_transcripts_session_id", "transcripts", ["session_id"])
    op.create_index("ix_transcripts_at", "transcripts", ["at"])


def downgrade() -> None:
    """Remove them, with all that is in them."""
    for table in ("transcripts", "idempotency", "sessions", "api_keys"):
        op.drop_table(table)
