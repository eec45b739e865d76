"""How Alembic runs the steps: on the connection, and in the transaction, that `store.migrate` has."""

from __future__ import annotations

from alembic import context

from speko_anyio.gateway.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
