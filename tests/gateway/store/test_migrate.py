"""The steps that make the tables, on both databases."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from speko_anyio.gateway import SQLStore, StoreError
from speko_anyio.gateway.store.database import Database
from speko_anyio.gateway.store.migrate import check_schema, migrate
from speko_anyio.gateway.store.tables import METADATA

from .support import record

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgres"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return str(tmp_path / "bare.db")
    url: str = request.getfixturevalue("postgres").new_database()
    return url


def test_the_steps_make_what_the_code_expects(bare_url: str) -> None:
    database = Database(bare_url)

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), METADATA)

    assert database.do(differences) != []
    database.do(migrate)
    assert database.do(differences) == []
    database.do(check_schema)
    # Again it has nothing to do.
    database.do(migrate)
    database.close()


def test_nodes_that_start_together_migrate_once(bare_url: str) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(3)

    def node() -> None:
        database = Database(bare_url)
        start.wait(10)
        try:
            database.do(migrate)
            database.do(check_schema)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=node) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


async def test_a_file_is_made_and_a_server_is_asked_to_be_migrated(bare_url: str) -> None:
    store = SQLStore(bare_url)
    if bare_url.startswith("postgres"):
        with pytest.raises(StoreError, match="speko-anyio gateway migrate"):
            async with store:
                raise AssertionError
        await store.migrate()
    async with store:
        await store.create(record(), idempotency=None, now=0)


async def test_who_starts_it_decides(bare_url: str) -> None:
    with pytest.raises(StoreError, match="speko-anyio gateway migrate"):
        async with SQLStore(bare_url, migrate_at_start=False):
            raise AssertionError
    async with SQLStore(bare_url, migrate_at_start=True) as store:
        await store.create(record(), idempotency=None, now=0)


@pytest.mark.parametrize("migrate_at_start", [True, False])
async def test_a_newer_version_s_database_is_left_alone(bare_url: str, migrate_at_start: bool) -> None:
    database = Database(bare_url)
    database.do(migrate)
    database.do(
        lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    )
    database.close()
    with pytest.raises(StoreError, match="newer version"):
        async with SQLStore(bare_url, migrate_at_start=migrate_at_start):
            raise AssertionError
