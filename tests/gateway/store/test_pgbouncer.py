"""The PostgreSQL store behind PgBouncer with its default settings. The contract of stores and their races are
tested there, too."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from speko_anyio.gateway import SQLStore, StoreError
from speko_anyio.gateway.store._database import _LONGEST, PATIENCE, Database
from tests.support.pgbouncer import find_program, running_pgbouncer
from tests.support.postgres import Postgres

from .support import claim, key, record

pytestmark = pytest.mark.anyio

LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
async def test_a_new_database_is_migrated_and_used(postgres: Postgres, pool_mode: str) -> None:
    program = find_program()
    if program is None:
        pytest.skip("PgBouncer is not installed (pgbouncer)")
    with running_pgbouncer(program, postgres.new_database(), pool_mode=pool_mode) as url:
        await SQLStore(url).migrate()
        # Often enough, on shared connections, for a driver that prepares repeated statements.
        async with SQLStore(url) as one, SQLStore(url) as other:
            await one.add_key(key())
            for number in range(24):
                store = (one, other)[number % 2]
                await store.create(record(number), idempotency=None, now=0)
                assert await claim(store, number) == record(number)
                assert len(await store.keys()) == 1


def limits(connection: Connection) -> list[str]:
    return [connection.execute(text(f"SHOW {name}")).scalar_one() for name in LIMITS]


# In work without a deadline, such as `do` by itself.
LONGEST = [f"{_LONGEST:g}s"] * 3


@pytest.mark.parametrize("database_url", ["postgres", "pgbouncer"], indirect=True)
async def test_the_server_ends_what_the_call_can_not_wait_for(database_url: str) -> None:
    database = Database(database_url)
    query = text("SELECT setting::int FROM pg_settings WHERE name = ANY(:names) AND unit = 'ms'")

    def work(connection: Connection) -> list[int]:
        return list(connection.execute(query, {"names": list(LIMITS)}).scalars())

    try:
        limits = await database.run(work)
    finally:
        database.close()
    assert len(limits) == 3
    assert all(0 < limit <= PATIENCE * 1000 for limit in limits)


@pytest.mark.parametrize("database_url", ["postgres", "pgbouncer"], indirect=True)
def test_the_limits_hold_in_a_transaction_and_are_left_to_nobody(database_url: str) -> None:
    database = Database(database_url)
    try:
        assert database.do(limits) == LONGEST
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            assert limits(connection) == ["0", "0", "0"]
    finally:
        database.close()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_options_in_the_url_override_the_limits(database_url: str) -> None:
    for options, expected in (("-c lock_timeout=100", ["0", "100ms", "0"]), ("", LONGEST)):
        database = Database(f"{database_url}&options={options}")
        try:
            assert database.do(limits) == expected
        finally:
            database.close()


@pytest.mark.parametrize("database_url", ["pgbouncer"], indirect=True)
def test_options_in_the_url_are_what_pgbouncer_refuses(database_url: str) -> None:
    database = Database(f"{database_url}&options=-c lock_timeout=100")
    with pytest.raises(StoreError, match=r"startup parameter.*; leave `options` out of the URL"):
        database.do(limits)
