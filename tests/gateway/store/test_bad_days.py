"""A database that hangs: every call ends, nobody else waits, and all is well once it is back."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread
import httpx
import pytest
from sqlalchemy import Connection, text

from speko_anyio.gateway import SessionOutcome, SessionQuery, SQLStore, StoreError, running_gateway
from speko_anyio.gateway.store import _database as database_module
from speko_anyio.gateway.store._database import PATIENCE, Database
from speko_anyio.protocol import Audio, Ready, SpekoError
from tests.support.event_loops import event_loop
from tests.support.patience import PATIENCE as WHILE
from tests.support.stopping_proxy import StoppingProxy, stopping_proxy

from ..support import KEY, make_gateway, mint, raw_client
from .support import LEASE, NODE, claim, key, record

pytestmark = pytest.mark.anyio

BOUND = 5.0
"""Seconds within which every caller must receive an answer while the database hangs."""

BACK = 2.0
"""Seconds after which all must be well again."""


class Hanging:
    """A database that can hang."""

    def __init__(self, url: str, hang: Callable[[], object], go_on: Callable[[], object]) -> None:
        self.url = url
        self.hang = hang
        self.go_on = go_on


@pytest.fixture(params=["asyncio", "trio"])  # they treat threads each in its way; and this takes real seconds
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return event_loop(request.param)


@pytest.fixture
def proxy(migrated_postgres: str) -> Iterator[StoppingProxy]:
    (folder,) = parse_qs(urlsplit(migrated_postgres).query)["host"]
    with stopping_proxy(f"{folder}/.s.PGSQL.5432") as running:
        yield running


@pytest.fixture(params=["stopped server", "silent network", "locked file"])
def hanging(request: pytest.FixtureRequest, database_folder: Path) -> Iterator[Hanging]:
    """Each kind of database and of hanging, with empty tables."""
    from ..conftest import empty_database

    if request.param == "locked file":
        url = empty_database("sqlite", request, database_folder)
        other = sqlite3.connect(urlsplit(url).path[1:], isolation_level=None, check_same_thread=False)
        yield Hanging(url, lambda: other.execute("BEGIN IMMEDIATE"), lambda: other.execute("ROLLBACK"))
        other.close()
        return
    url = empty_database("postgres", request, database_folder)
    if request.param == "silent network":
        proxy = request.getfixturevalue("proxy")
        yield Hanging(through(proxy, url), proxy.stop, proxy.go_on)
        return
    processes = server_processes(url)

    def tell(what: signal.Signals) -> Callable[[], None]:
        def send() -> None:
            # With the processes of the connections, which come and go.
            for process in processes():
                os.kill(process, what)

        return send

    try:
        yield Hanging(url, tell(signal.SIGSTOP), tell(signal.SIGCONT))
    finally:
        tell(signal.SIGCONT)()


def through(proxy: StoppingProxy, url: str) -> str:
    parts = urlsplit(url)
    return f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}"


def server_processes(url: str) -> Callable[[], list[int]]:
    (folder,) = parse_qs(urlsplit(url).query)["host"]
    server = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])

    def find() -> list[int]:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return [server, *map(int, children)]

    return find


def calls(store: SQLStore) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every call that waits for a lock or for an answer."""
    return {
        "create": lambda: store.create(record(9), idempotency=None, now=0),
        "claim": lambda: claim(store, 1),
        "renew": lambda: store.renew(["sess_1"], node_id=NODE, lease=LEASE, now=1),
        "sweep": lambda: store.sweep(now=1),
        "end": lambda: store.end("sess_1", SessionOutcome(), now=2),
        "add_key": lambda: store.add_key(key(1)),
        "revoke_key": lambda: store.revoke_key("key_1", now=1),
        "get": lambda: store.get("sess_1"),
        "transcript": lambda: store.transcript("sess_1"),
        "sessions": lambda: store.sessions(SessionQuery(limit=1), now=1),
        "find_keys": lambda: store.find_keys(["key_1"]),
        "keys": store.keys,
    }


READS = {"get", "transcript", "sessions", "find_keys", "keys"}


@pytest.mark.parametrize(
    ("hanging", "warm"),
    [
        ("stopped server", True),
        ("silent network", True),
        ("silent network", False),
        ("locked file", True),
    ],
    indirect=["hanging"],
)
async def test_no_call_waits_for_a_database_that_hangs(hanging: Hanging, warm: bool) -> None:
    ended: dict[str, object] = {}
    begin = time.monotonic()

    async def call(name: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
            ended[name] = "done"
        except StoreError:
            ended[name] = time.monotonic() - begin

    with anyio.fail_after(WHILE):
        async with SQLStore(hanging.url) as store:
            await store.create(record(1), idempotency=None, now=0)
            if not warm:
                store._database.close()
            hanging.hang()
            try:
                begin = time.monotonic()
                async with anyio.create_task_group() as tasks:
                    for name, work in calls(store).items():
                        tasks.start_soon(call, name, work)
                waited = time.monotonic() - begin
            finally:
                hanging.go_on()
            back = time.monotonic()
            while True:
                try:
                    await claim(store, 1)
                    break
                except StoreError:
                    assert time.monotonic() - back < BACK
    failed = {name for name, how in ended.items() if how != "done"}
    # In SQLite a reader waits for no writer.
    assert failed == (ended.keys() - READS if hanging.url.startswith("sqlite") else ended.keys())
    assert waited < BOUND


@pytest.mark.parametrize("hanging", ["silent network"], indirect=True)
async def test_threads_that_a_database_holds_up_end_and_are_limited(hanging: Hanging) -> None:
    with anyio.fail_after(WHILE):
        async with SQLStore(hanging.url) as store:
            await store.create(record(1), idempotency=None, now=0)
            lane = store._database.work
            hanging.hang()
            try:
                for _ in range(20):
                    with anyio.move_on_after(0.05), contextlib.suppress(StoreError):
                        await store.sweep(now=1)
                assert lane._running <= lane._threads + database_module._LEFT_BEHIND
                begin = time.monotonic()
                while lane._running:  # noqa: ASYNC110 - it tells nobody
                    await anyio.sleep(0.05)
                assert time.monotonic() - begin < BOUND
            finally:
                hanging.go_on()


async def test_connections_that_never_answer_again_are_replaced(
    migrated_postgres: str, proxy: StoppingProxy
) -> None:
    """As after a failover: the address has another host, which knows nothing of them."""
    with anyio.fail_after(WHILE):
        async with SQLStore(through(proxy, migrated_postgres)) as store:
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(store.find_keys, ["key_1"])
                    tasks.start_soon(lambda: claim(store, 77))
            proxy.stop()
            with pytest.raises(StoreError):
                await claim(store, 77)
            proxy.go_on(forget=True)
            begin = time.monotonic()
            await claim(store, 77)
            assert time.monotonic() - begin < BACK


async def test_a_server_that_sends_without_an_end_is_given_up(migrated_postgres: str) -> None:
    """Each byte resets no deadline."""
    database = Database(migrated_postgres)
    rows = text("SELECT repeat('x', 1000), pg_sleep(0.01) FROM generate_series(1, 2000)")

    def work(connection: Connection) -> None:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(rows)

    begin = time.monotonic()
    with anyio.fail_after(WHILE), pytest.raises(StoreError, match="in time"):
        await database.run(work, patience=0.5)
    assert time.monotonic() - begin < BOUND
    database.close()


async def test_a_long_statement_of_sqlite_is_given_up(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "x.db"))
    endless = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    with anyio.fail_after(WHILE):
        for lane in (database.work, database.reading):
            # On a loaded machine the wait may end before the statement, which is interrupted all the same.
            with pytest.raises(StoreError, match=r"interrupted|did not answer within"):
                await database.run(lambda connection: connection.execute(endless).scalar(), lane=lane)
            # Its connection is as good as before.
            one = await database.run(lambda connection: connection.execute(text("SELECT 1")).scalar())
            assert one == 1
    database.close()


async def test_readers_hold_up_nobody_else(database_url: str) -> None:
    go_on = threading.Event()
    begun = threading.Semaphore(0)

    def read(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        begun.release()
        assert go_on.wait(WHILE)

    with anyio.fail_after(WHILE):
        async with SQLStore(database_url) as store:
            database = store._database

            async def hang() -> None:
                await database.run(read, lane=database.reading, patience=WHILE)

            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(hang)
                for _ in range(database.reading._threads):
                    await anyio.to_thread.run_sync(begun.acquire)
                await store.create(record(1), idempotency=None, now=0)
                assert await claim(store, 1) == record(1)
                assert list(await store.find_keys(["key_1"])) == []
                go_on.set()


async def test_a_gateway_survives_a_database_that_hangs(hanging: Hanging) -> None:
    authorization = {"Authorization": f"Bearer {KEY}"}
    body = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}
    answers: list[tuple[str, int, float]] = []
    gateway = make_gateway(store=SQLStore(hanging.url))

    async def ask(name: str, work: Callable[[], Awaitable[Any]]) -> None:
        begin = time.monotonic()
        status = await work()
        answers.append((name, status, time.monotonic() - begin))

    async def opened(url: str, token: str) -> int:
        async with raw_client(url, token) as client:
            with pytest.raises(SpekoError) as caught:
                await client.hear()
        return int(getattr(caught.value, "status", 0))

    with anyio.fail_after(WHILE):
        async with running_gateway(gateway) as url, httpx.AsyncClient(base_url=url) as http:
            grant, other = [await mint(url, http=http) for _ in range(2)]

            async def minted() -> int:
                return (await http.post("/v1/sessions", json=body, headers=authorization)).status_code

            async def ready() -> int:
                return (await http.get("/readyz")).status_code

            assert await ready() == 200
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert isinstance(await client.hear(), Ready)
                hanging.hang()
                try:
                    async with anyio.create_task_group() as tasks:
                        for _ in range(12):
                            tasks.start_soon(ask, "mint", minted)
                            tasks.start_soon(ask, "ready", ready)
                        tasks.start_soon(ask, "open", lambda: opened(other.ws_url, other.ws_token))
                        client.connection.send_audio(bytes(960))
                        await client.flush()
                        assert await client.hear() == Audio(bytes(960), 24000)
                    # And it ends while nobody can record that.
                    client.connection.close()
                    await client.flush()
                    assert (await client.hear_close()).code == 1000
                    with anyio.move_on_after(PATIENCE + 1):
                        while not gateway._stream._unrecorded:  # noqa: ASYNC110 - it tells nobody
                            await anyio.sleep(0.05)
                    assert list(gateway._stream._unrecorded) == [grant.session_id]
                    assert await ready() == 503
                finally:
                    hanging.go_on()
            begin = time.monotonic()
            while await ready() != 200:
                assert time.monotonic() - begin < BACK
            assert await minted() == 201
            await gateway._housekeeper.beat()
            one = await http.get(f"/v1/sessions/{grant.session_id}", headers=authorization)
    assert [(name, status) for name, status, _ in answers if status != 503] == []
    assert max(waited for _, _, waited in answers) < BOUND
    assert one.json()["status"] == "ended"
    assert one.json()["close"] == {"code": 1000, "reason": "", "by": "client"}
