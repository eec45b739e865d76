"""The database's tables, brought up to date by Alembic with the steps in ``gateway/_migrations``."""

from __future__ import annotations

import logging
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, select, text

from ._contract import OldTablesError, StoreError

logger: Final = logging.getLogger("speko_anyio.gateway.store")

_LOCATION: Final = "speko_anyio.gateway:_migrations"

_LOCK: Final = 0x5BE_C0DB
"""Any number that nothing else locks: nodes that start together migrate one after the other."""


def migrate(connection: Connection) -> None:
    """Make the tables, or bring them up to date; raise `StoreError` if a newer version has used them."""
    if connection.dialect.name == "postgresql":
        # A statement here may wait for another node's migration, which takes long for large tables.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    config = _config()
    config.attributes["connection"] = connection
    head = ScriptDirectory.from_config(config).get_current_head()
    if MigrationContext.configure(connection).get_current_revision() != head:
        logger.info("bringing the database's tables to version %s", head)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise _too_new() from error


def check_schema(connection: Connection) -> None:
    """Raise `StoreError` unless the tables are those of this version, `OldTablesError` if `migrate` helps."""
    scripts = ScriptDirectory.from_config(_config())
    current = MigrationContext.configure(connection).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is None or current in {script.revision for script in scripts.walk_revisions()}:
        raise OldTablesError
    raise _too_new()


def _too_new() -> StoreError:
    return StoreError("the database was used by a newer version of speko-anyio; install that one here too")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", _LOCATION)
    config.set_main_option("path_separator", "os")
    return config
