"""Addresses, failures and cancellation of the database; what it stores is in `test_contract`."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, event, text

from speko_anyio._extras import install_extra
from speko_anyio.gateway import SessionOutcome, SQLStore, StoreError
from speko_anyio.gateway.store import TranscriptLine, sql
from speko_anyio.gateway.store._database import Database
from tests.support.processes import run_python

from .support import claim, record

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "driver", "name"),
    [
        ("/var/lib/gateway.db", "sqlite", "/var/lib/gateway.db"),
        ("gateway.db", "sqlite", "gateway.db"),
        ("sqlite:///gateway.db", "sqlite", "gateway.db"),
        ("postgresql://u:p@h/d", "postgresql+psycopg", "d"),
        ("postgres://u:p@h/d", "postgresql+psycopg", "d"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+psycopg", "d"),
    ],
)
def test_an_address_is_a_path_or_a_url(url: str, driver: str, name: str) -> None:
    database = Database(url)
    assert (database.url.drivername, database.url.database) == (driver, name)


def test_a_path_that_is_not_utf_8_can_be_shown() -> None:
    path = os.fsdecode(b"/tmp/\xff\xfe/x.db")
    assert repr(SQLStore(path)) == repr(SQLStore(path)).encode().decode()
    assert "/tmp/\\xff\\xfe/x.db" in str(Database(path))


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///:memory:", "mysql://u:hunter2@h/d", "://hunter2", "x://"]
)
def test_no_other_address_is_taken_or_shown(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        SQLStore(url)
    assert "hunter2" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    store = SQLStore("postgresql://user:hunter2@host/name")
    assert "hunter2" not in f"{store!r} {store.url} {Database('postgres://u:hunter2@h/d')}"


def test_a_driver_that_is_missing_is_named() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from speko_anyio.gateway import SQLStore, StoreError\n"
        "try:\n    SQLStore('postgresql://u:p@h/d')\n"
        "except StoreError as error:\n    print(error)"
    )
    assert run_python("-c", code).strip() == (
        f"the database needs psycopg, which is not installed; {install_extra('gateway', 'postgres')}"
    )


async def test_an_error_shows_neither_what_was_stored_nor_the_statement(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with SQLStore(database_url) as store:
        await store.create(record(metadata={"said": "hunter2"}), idempotency=None, now=0)
        with pytest.raises(StoreError) as caught:
            await store.create(record(metadata={"said": "hunter2"}), idempotency=None, now=0)
    assert "\n" not in str(caught.value)
    assert "INSERT" not in str(caught.value)
    cause = caught.value.__cause__
    assert "hunter2" not in f"{caught.value} {cause} {caplog.text}"


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Connection refused"):
        async with SQLStore("postgresql://u:p@127.0.0.1:1/d"):
            raise AssertionError
    with pytest.raises(StoreError, match="can't make the database"):
        async with SQLStore("/dev/null/gateway.db"):
            raise AssertionError
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        async with SQLStore(str(broken)):
            raise AssertionError


async def test_a_purge_takes_so_much_at_a_time(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "PURGE_BATCH", 2)
    async with SQLStore(database_url) as store:
        await store.create(record(), idempotency=None, now=0)
        await claim(store)
        lines = tuple(TranscriptLine("user", str(at), float(at)) for at in range(5))
        await store.end("sess_1", SessionOutcome(transcript=lines), now=5)
        left = []
        while await store.purge(transcripts_before=4.5, records_before=None, now=5):
            left.append(len((await store.transcript("sess_1")).lines))
    assert left == [3, 1]


async def test_no_transcript_is_left_behind_without_its_session(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "PURGE_BATCH", 2)
    async with SQLStore(database_url) as store:
        for number in (1, 2, 3):
            await store.create(record(number), idempotency=None, now=0)
            await claim(store, number)
            lines = tuple(TranscriptLine("user", str(at), float(at)) for at in range(3))
            await store.end(f"sess_{number}", SessionOutcome(transcript=lines), now=5)
        left = []
        more = True
        while more:
            more = await store.purge(transcripts_before=None, records_before=1, now=60)
            sessions = [await store.get(f"sess_{number}") for number in (1, 2, 3)]
            lines_left = [len((await store.transcript(f"sess_{number}")).lines) for number in (1, 2, 3)]
            left.append((sum(session is not None for session in sessions), sum(lines_left)))
    # Two lines a time; with the last of two sessions' lines they go themselves.
    assert left == [(3, 7), (3, 5), (3, 3), (1, 3), (1, 1), (0, 0)]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # SQLite has one writer at a time
async def test_nodes_that_purge_at_once_share_the_work(database_url: str) -> None:
    async with SQLStore(database_url) as store:
        for number in (1, 2):
            await store.create(record(number, created_at=float(number)), idempotency=None, now=0)
        database = Database(database_url)
        with database.engine.begin() as other_node:
            other_node.execute(text("SELECT 1 FROM sessions WHERE session_id = 'sess_1' FOR UPDATE"))
            assert not await store.purge(transcripts_before=None, records_before=3, now=60)
        database.close()
        assert await store.get("sess_1") is not None
        assert await store.get("sess_2") is None
        assert not await store.purge(transcripts_before=None, records_before=3, now=60)
        assert await store.get("sess_1") is None


async def test_a_call_that_is_cancelled_does_not_wait_for_its_thread(database_url: str) -> None:
    database = Database(database_url)
    begun, go_on = threading.Event(), threading.Event()

    def hang(connection: Connection) -> None:
        begun.set()
        assert go_on.wait(10)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.run, hang)
            assert await anyio.to_thread.run_sync(begun.wait, 10)
            tasks.cancel_scope.cancel()
    go_on.set()
    # What it held is given back.
    with anyio.fail_after(10):
        assert await database.run(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
        database.close()


@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)  # for the options
async def test_a_lock_is_not_waited_for_without_end(database_url: str) -> None:
    sqlite = database_url.startswith("sqlite")
    impatient = f"{database_url}?timeout=0.1" if sqlite else f"{database_url}&options=-c lock_timeout=100"
    holder = Database(database_url)
    async with SQLStore(impatient) as store:
        with holder.engine.begin() as connection, anyio.fail_after(10):
            if not sqlite:  # there a transaction is the lock
                connection.execute(text("LOCK TABLE sessions"))
            with pytest.raises(StoreError, match="lock"):
                await store.create(record(), idempotency=None, now=0)
        assert (await store.create(record(), idempotency=None, now=0)).session_id == "sess_1"
    holder.close()


def test_a_connection_in_use_is_closed_when_it_is_given_back(database_url: str) -> None:
    database = Database(database_url)
    closed: list[object] = []
    event.listen(database.engine.pool, "close", lambda connection, _: closed.append(connection))

    def close_meanwhile(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        database.close()
        assert closed == []

    database.do(close_meanwhile)
    assert len(closed) == 1
