"""Every kind of store, each empty and ready."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from speko_anyio.gateway import MemoryStore, SessionStore, SQLStore
from speko_anyio.gateway.store._database import Database
from speko_anyio.gateway.store._tables import METADATA
from speko_anyio.gateway.store.migrate import migrate

from ..support.pgbouncer import find_program, running_pgbouncer
from ..support.postgres import Postgres, find_binaries, running_postgres
from ..support.ways import come_in_by


@pytest.fixture(params=["bytes", "websockets-sansio"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sessions over bytes, and over ASGI; gives the way."""
    way: str = request.param
    come_in_by(way, monkeypatch)
    return way


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed (initdb, postgres)")
    with running_postgres(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> str:
    url = postgres.new_database()
    database = Database(url)
    database.do(migrate)
    database.close()
    return url


@pytest.fixture(scope="session")
def migrated_pgbouncer(migrated_postgres: str) -> Iterator[str]:
    program = find_program()
    if program is None:
        pytest.skip("PgBouncer is not installed (pgbouncer)")
    with running_pgbouncer(program, migrated_postgres, pool_mode="transaction") as url:
        yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "gateway.db"
    database = Database(str(path))
    database.do(migrate)
    database.close()
    return path


@pytest.fixture
def database_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for databases: in memory where the system has such a file system.

    A disk to which other programs write can hold up one write for longer than a gateway waits for its store.
    """
    in_memory = Path("/dev/shm")
    if not os.access(in_memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=in_memory) as folder:
        yield Path(folder)


def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty database with its tables, which several stores may open."""
    if kind == "sqlite":
        path = folder / "gateway.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_postgres")
    if kind == "pgbouncer":
        url = request.getfixturevalue("migrated_pgbouncer")
    database = Database(url)
    tables = ", ".join(table.name for table in METADATA.sorted_tables)
    with database.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables}"))
    database.close()
    return url


@pytest.fixture(params=["sqlite", "postgres", "pgbouncer"])
def database_url(request: pytest.FixtureRequest, database_folder: Path) -> str:
    return empty_database(request.param, request, database_folder)


@pytest.fixture(params=["memory", "sqlite", "postgres", "pgbouncer"])
async def store(
    request: pytest.FixtureRequest, database_folder: Path, anyio_backend: object
) -> AsyncIterator[SessionStore]:
    """An empty store."""
    if request.param == "memory":
        yield MemoryStore()
        return
    async with SQLStore(empty_database(request.param, request, database_folder)) as opened:
        yield opened
