"""The database behind the SQL store: its address, its engine, and its work in threads.

SQLAlchemy's ordinary engine in worker threads, and not its asyncio one: it works on every event loop, needs
one driver for each database (that of SQLite is Python's own), and costs nothing that matters, since a session
comes here four times in its life and its audio never does.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from speko_anyio._extras import install_extra
from speko_anyio.protocol._text import clean
from speko_anyio.protocol._tokens import REDACTED, hide

from ._contract import StoreError
from ._deadline import ending_at, time_left

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds that a call may take, with its wait for a thread, a connection and a lock."""

_GRACE: Final = 0.15
"""Seconds after which a wait is ended from outside. So the database's own error, which says most, comes
first, then that of the connection, then that of an abandoned thread."""

_LEFT_BEHIND: Final = 8
"""How many threads of a lane may be abandoned: their calls were cancelled, or wait for something without a
deadline, such as a disk or a name server. While there are so many, calls fail at once."""

WORKERS: Final = 4
READERS: Final = 2
LOOKUPS: Final = 2
"""Connections to PostgreSQL, and so threads, of one node: to change records, to read them, and to look up
keys, known and new ones. A session needs one for some milliseconds."""

_MILLISECONDS: Final = int(PATIENCE * 1000)
_SQLITE_ARGUMENTS: Final = {"timeout": PATIENCE, "check_same_thread": False}
_POSTGRES_ARGUMENTS: Final = {
    "connect_timeout": math.ceil(PATIENCE),
    # Detects a server that vanished without closing the connection.
    "tcp_user_timeout": _MILLISECONDS,
    "application_name": "speko-anyio",
    # A pooler may run the next transaction on another connection, which lacks the prepared statements.
    "prepare_threshold": None,
}
_POSTGRES_LIMITS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
"""Set for each transaction rather than for the connection: PgBouncer rejects ``options`` at connection
start-up, and may switch connections between transactions."""

_LONGEST: Final = 5.0
"""Seconds that a statement of PostgreSQL may take in work that has no deadline."""

_PROGRESS: Final = 100_000
"""Steps of SQLite's machine, about a millisecond, after which a statement looks at its deadline."""

_PUBLIC: Final = frozenset(
    {
        "application_name",
        "connect_timeout",
        "host",
        "port",
        "prepare_threshold",
        "sslmode",
        "target_session_attrs",
    }
    | {"tcp_user_timeout", "timeout", "mode", "uri", "cache"}
)
"""The parameters of a URL that are never secret."""

_KNOWN: Final = frozenset(
    {"options", "password", "passfile", "sslcert", "sslkey", "sslpassword", "sslrootcert"}
)
"""Parameters whose names may be shown, but not their values, which may be secrets or say where they are."""

_LOG_NAME: Final = "speko_anyio"
"""The name of SQLAlchemy's logger of our engines, below ``sqlalchemy.engine.Engine``."""

_RETRY: Final = 0.02
"""Seconds between two tries at a lock that SQLite does not wait for."""

_LOCAL_FILE: Final = 0o600
"""Who may read the file: only its owner. It holds what people say, and the hashes of the keys."""


class BusyError(StoreError):
    """Another process has locked the SQLite file for `PATIENCE` seconds."""


class _Lane:
    """A pool of connections, each with a thread. Work in one lane never waits for work in another."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self.engine = engine
        self._threads = threads
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar("database threads")
        # Counted here, since the limiter of asyncio forgets an abandoned thread.
        self._lock = threading.Lock()
        self._running = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread. Cancelling abandons the thread, which finishes by itself."""
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(self._threads)
            self._limiter.set(limiter)

        def count() -> T:
            with self._counted():
                return work()

        return await anyio.to_thread.run_sync(count, abandon_on_cancel=True, limiter=limiter)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            if self._running >= self._threads + _LEFT_BEHIND:
                raise StoreError(f"the database holds up {self._running} calls; check it")
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


class Database:
    """One database by its URL: ``sqlite:///path``, a path, or ``postgresql://user:password@host/name``.

    It has three lanes: `work` changes records; `reading` reads them, which must not delay the opening of a
    session; and `lookups` looks up keys, which clients without a valid key can cause.

    Raises `StoreError` for a URL that names none, and when the database can't be used.
    """

    def __init__(self, url: str) -> None:
        whole = _url(url)
        self.is_sqlite: bool = whole.get_backend_name() == "sqlite"
        # Drivers and SQLAlchemy show all of a URL but its password: what may be secret is kept apart.
        self._hidden = {} if self.is_sqlite else dict(_private(whole).query)
        self.url: URL = whole.difference_update_query(self._hidden)
        self._secrets = [str(whole.password or ""), *_texts(self._hidden)]
        # SQLite has one writer at a time, and its readers work in this process: more threads would only wait
        # for each other.
        workers, readers = (1, 1) if self.is_sqlite else (WORKERS, READERS)
        self.work = _Lane(self._engine(workers), workers)
        self.reading = _Lane(self._engine(readers, reads=True), readers)
        self.lookups = _Lane(self._engine(LOOKUPS, reads=True), LOOKUPS)

    @property
    def engine(self) -> Engine:
        """The engine of `work`."""
        return self.work.engine

    def __str__(self) -> str:
        return f"the database {self.shown_url}"

    @property
    def shown_url(self) -> str:
        """The URL without secrets; the bytes of a path that are not UTF-8 are shown as ``\\xff``."""
        try:
            return self.url.difference_update_query(_private(self.url).query).render_as_string()
        except UnicodeEncodeError:
            path = os.fsencode(self.url.database or "").decode(errors="backslashreplace")
            return f"{self.url.get_backend_name()}:///{path}"

    def _engine(self, connections: int, *, reads: bool = False) -> Engine:
        options: dict[str, Any] = {"pool_timeout": PATIENCE, "pool_size": connections, "max_overflow": 0}
        arguments = _SQLITE_ARGUMENTS if self.is_sqlite else _POSTGRES_ARGUMENTS
        # The URL overrides these.
        options["connect_args"] = {
            name: value for name, value in arguments.items() if name not in self.url.query
        } | self._hidden
        if not self.is_sqlite:
            # The database was restarted, or a firewall forgot the connection.
            options["pool_pre_ping"] = True
            if reads:
                # A page is measured and then read: both see the same records.
                options["isolation_level"] = "REPEATABLE READ"
        try:
            # Statements hold metadata and prompts, and their errors get into the log.
            engine = create_engine(self.url, hide_parameters=True, logging_name=_LOG_NAME, **options)
        except ModuleNotFoundError as error:
            raise StoreError(
                f"the database needs {error.name}, which is not installed; "
                f"{install_extra('gateway', 'postgres')}"
            ) from None
        if self.is_sqlite:
            write = partial(_write_sqlite, "timeout" in self.url.query)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _read_sqlite if reads else write)
            return engine
        from ._postgres import connect

        event.listen(engine, "do_connect", connect)
        if not self._hidden.get("options"):
            event.listen(engine, "begin", _limit_postgres)
        return engine

    async def run(
        self, work: Callable[[Connection], T], *, lane: _Lane | None = None, patience: float = PATIENCE
    ) -> T:
        """Run `work` in a transaction, in a thread of `lane`, by default `self.work`.

        Raises `StoreError` after `patience` seconds, whatever the database does. Cancelling abandons the
        thread, which finishes by itself within the same time.
        """
        lane = lane or self.work
        deadline = monotonic() + patience + _GRACE
        limited = patience < math.inf

        def in_thread() -> T:
            with ending_at(deadline):
                return self.do(work, lane)

        try:
            with anyio.fail_after(patience + 2 * _GRACE if limited else None):
                return await lane.run(in_thread)
        except TimeoutError:
            raise StoreError(f"{self} did not answer within {patience:g} s; check it") from None

    def do(self, work: Callable[[Connection], T], lane: _Lane | None = None) -> T:
        """Run `work` in a transaction, in this thread."""
        engine = (lane or self.work).engine
        pool = engine.pool
        try:
            with engine.begin() as connection:
                return work(connection)
        except (DBAPIError, PoolTimeout) as error:
            kind = BusyError if _is_busy(getattr(error, "orig", None)) else StoreError
            said = str(getattr(error, "orig", None) or error)
            cause = clean(hide(said, self._secrets, REDACTED))
            advice = "check it, and the URL"
            if "startup parameter" in cause and self._hidden.get("options"):
                advice = "leave `options` out of the URL: PgBouncer rejects it"
            # A traceback shows the texts of all errors in the chain.
            can_be_shown = hide(str(error), self._secrets, REDACTED) == str(error)
            raise kind(f"{self} failed: {cause}; {advice}") from (error if can_be_shown else None)
        finally:
            # Closed meanwhile, as when the thread was abandoned: the connection went back to the old pool.
            if engine.pool is not pool:
                pool.dispose()

    def close(self) -> None:
        """Close the idle connections, and the others when they are given back. It can be used again."""
        for lane in (self.work, self.reading, self.lookups):
            lane.engine.dispose()

    @property
    def file(self) -> Path | None:
        """The SQLite file, which may not exist yet; None for another database."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    def make_file(self) -> None:
        """Make the SQLite file and its folder, for its owner only; do nothing for another database."""
        path = self.file
        if path is None:
            return
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, _LOCAL_FILE))
        except OSError as error:
            raise StoreError(
                f"can't make the database {path}: {error.strerror}; choose another path"
            ) from None


def _url(text: str) -> URL:
    try:
        url = make_url(text if "://" in text else f"sqlite:///{text}")
    except (ArgumentError, ValueError):
        raise _unknown_url() from None
    match url.get_backend_name():
        case "postgresql" | "postgres":
            if "@" in f"{url.host}{url.database}":
                # The end of a password was mistaken for the host.
                raise StoreError(
                    "the database's URL has more than one @; write those of the password as %40, and / as %2F"
                )
            return url.set(drivername="postgresql+psycopg")
        case "sqlite" if url.database and url.database != ":memory:":
            return url.set(drivername="sqlite")
        case "sqlite":
            raise StoreError("the database has no file; give its path, or use a MemoryStore")
        case _:
            raise _unknown_url()


def _is_no_row(record: logging.LogRecord) -> bool:
    """Keep the rows of results out of SQLAlchemy's log: they hold prompts, metadata and transcripts."""
    return not str(record.msg).startswith("Row ")


logging.getLogger(f"sqlalchemy.engine.Engine.{_LOG_NAME}").addFilter(_is_no_row)


def _private(url: URL) -> URL:
    """Return `url` with only those parameters that may be secrets."""
    return url.difference_update_query(_PUBLIC)


def _texts(query: Mapping[str, str | tuple[str, ...]]) -> Iterator[str]:
    """Yield what may be secret in the query of a URL."""
    for name, value in query.items():
        if name not in _KNOWN:
            yield name
        yield from (value,) if isinstance(value, str) else value


def _unknown_url() -> StoreError:
    # It is not shown: a password may be in it.
    return StoreError(
        "the database's URL is of an unknown kind; give sqlite:///path or postgresql://user:password@host/name"
    )


def _prepare_sqlite(connection: Any, record: object) -> None:
    # None: we say BEGIN ourselves, below. Python's driver would begin only at the first change, and a
    # transaction that has read before it writes can fail for another's sake.
    connection.isolation_level = None
    # Readers and the writer do not wait for each other. What was written last may be lost when the power
    # fails, but never half of it.
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.set_progress_handler(_out_of_time, _PROGRESS)


def _switch_to_wal(connection: Any) -> None:
    # On a file that is not in this mode yet, this is a read that becomes a write, which SQLite refuses at
    # once, whatever the timeout, while another process writes. That happens when nodes start together on a
    # new file.
    deadline = monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or monotonic() >= deadline:
                raise
        else:
            return
        sleep(_RETRY)


def _out_of_time() -> bool:
    return time_left() < 0


def _write_sqlite(own_timeout: bool, connection: Connection) -> None:
    if not own_timeout:
        left = min(time_left() - _GRACE, PATIENCE)
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_milliseconds(left)}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _read_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _limit_postgres(connection: Connection) -> None:
    left = min(time_left() - _GRACE, _LONGEST)
    limits = (f"set_config('{name}', '{_milliseconds(left)}', true)" for name in _POSTGRES_LIMITS)
    connection.exec_driver_sql(f"SELECT {', '.join(limits)}")


def _milliseconds(seconds: float) -> int:
    # 0 would be no limit.
    return max(1, int(seconds * 1000))


def _is_busy(error: BaseException | None) -> bool:
    # The lowest byte is the kind of error; what is above it says more of it.
    return isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
