"""Runs Alembic's migrations on the connection, and in the transaction, of `store.migrate`."""

from __future__ import annotations

from alembic import context

from speko_anyio.gateway.store._tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
