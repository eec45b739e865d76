"""Columns for all that providers count besides the tokens of audio."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TOKENS = (
    "input_text_tokens",
    "output_text_tokens",
    "input_image_tokens",
    "cached_audio_tokens",
    "cached_text_tokens",
    "output_reasoning_tokens",
)


def upgrade() -> None:
    """Add the columns, empty: neither database rewrites the table, however many sessions are in it."""
    for name in _TOKENS:
        op.add_column("sessions", sa.Column(name, sa.BigInteger))
    op.add_column("sessions", sa.Column("reported_seconds", sa.Double))


def downgrade() -> None:
    """Remove them."""
    for name in (*_TOKENS, "reported_seconds"):
        op.drop_column("sessions", name)
