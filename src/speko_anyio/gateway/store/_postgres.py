"""psycopg, with a deadline for all of its waits: its own timeout covers only connecting."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

from ._deadline import time_left

T = TypeVar("T")


class _Connection(psycopg.Connection[Any]):
    """A connection that closes itself at the deadline of the work that uses it.

    The server's own limits need a server that works, and TCP's limit covers only data that was sent.
    """

    def wait(self, gen: Generator[Any, Any, T], *rest: Any, **options: Any) -> T:
        return super().wait(self._in_time(gen), *rest, **options)

    def _in_time(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        # psycopg resumes it ten times a second while nothing comes.
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time_left() < 0:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("it did not answer in time")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result


def connect(dialect: object, record: object, arguments: Any, options: Any) -> _Connection:
    """Return a connection, as SQLAlchemy's event ``do_connect`` asks for it."""
    if time_left() < 0:
        raise psycopg.OperationalError("it did not answer in time")
    return _Connection.connect(*arguments, **options)
