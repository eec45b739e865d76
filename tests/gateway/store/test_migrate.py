"""The steps that make the tables, on both databases."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from speko_anyio.gateway import SessionOutcome, SQLStore, StoreError
from speko_anyio.gateway.store import _database as database_module
from speko_anyio.gateway.store import sql
from speko_anyio.gateway.store._contract import OldTablesError
from speko_anyio.gateway.store._database import Database
from speko_anyio.gateway.store._tables import METADATA
from speko_anyio.gateway.store.migrate import _config, check_schema, migrate

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


def test_a_migration_is_told_and_no_other_start(bare_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "speko_anyio")
    database = Database(bare_url)
    for _ in range(2):
        database.do(migrate)
    database.close()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("speko_anyio")]
    assert ours == ["bringing the database's tables to version 0002"]


async def test_sessions_of_an_older_version_are_kept(bare_url: str) -> None:
    database = Database(bare_url)
    database.do(migrate_to_the_first_version)
    database.do(lambda connection: connection.execute(text(OLD_SESSION)))
    with pytest.raises(OldTablesError):
        database.do(check_schema)
    database.do(migrate)
    database.close()
    async with SQLStore(bare_url) as store:
        history = await store.get("sess_old")
        assert history is not None
        assert history.life.outcome == SessionOutcome(
            input_audio_tokens=7, output_audio_tokens=8, input_audio_seconds=1.5, output_audio_seconds=2.5
        )


def migrate_to_the_first_version(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


OLD_SESSION = """
INSERT INTO sessions (session_id, key_id, token_id, provider, config, ttl_seconds, created_at,
    token_expires_at, started_at, ended_at, input_audio_seconds, output_audio_seconds, input_audio_tokens,
    output_audio_tokens, tool_calls)
VALUES ('sess_old', 'key', 'token', 'echo', '{"provider":"echo","model":"echo"}', 60, 1, 61, 2, 3, 1.5, 2.5,
    7, 8, '{}')
"""


def test_nodes_that_start_together_migrate_once(bare_url: str) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(3)

    async def serve() -> None:
        async with SQLStore(bare_url, migrate_at_start=True) as store:
            await store.keys()

    def node() -> None:
        start.wait(10)
        try:
            anyio.run(serve)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=node) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody who writes to the file, until it is told `rollback`."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield writer


async def test_a_new_file_that_is_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path / "new.db") as writer:
        monkeypatch.setattr(database_module, "sleep", lambda seconds: writer.rollback())
        with anyio.fail_after(30):
            async with SQLStore(str(tmp_path / "new.db")) as store:
                await store.keys()


class Do(logging.Handler):
    """Does something when a start has to wait."""

    def __init__(self, what: Callable[[], object]) -> None:
        super().__init__()
        self.what = what

    def emit(self, record: logging.LogRecord) -> None:
        assert "is held by another process" in record.getMessage()
        self.what()


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A file with tables."""
    database = Database(str(tmp_path / "held.db"))
    database.do(migrate)
    database.close()
    return tmp_path / "held.db"


@contextmanager
def when_it_waits(what: Callable[[], object]) -> Iterator[None]:
    handler = Do(what)
    sql.logger.addHandler(handler)
    try:
        yield
    finally:
        sql.logger.removeHandler(handler)


@pytest.mark.parametrize("migrate_at_start", [True, False])
async def test_a_start_waits_for_a_long_migration(held: Path, migrate_at_start: bool) -> None:
    with writing(held) as writer, when_it_waits(writer.rollback):
        store = SQLStore(f"sqlite:///{held}?timeout=0.01", migrate_at_start=migrate_at_start)
        with anyio.fail_after(30):
            async with store:
                assert not writer.in_transaction
                await store.keys()


async def test_a_start_does_not_wait_for_ever(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "MIGRATION_PATIENCE", 0.0)
    with writing(held), pytest.raises(StoreError, match="locked"):
        async with SQLStore(f"sqlite:///{held}?timeout=0.01"):
            raise AssertionError


async def test_a_start_that_waits_can_be_cancelled(held: Path) -> None:
    scope = anyio.CancelScope()
    with writing(held), when_it_waits(scope.cancel), anyio.fail_after(30), scope:
        async with SQLStore(f"sqlite:///{held}?timeout=0.01"):
            raise AssertionError
    assert scope.cancelled_caught


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
