"""The deadline of a call to the store, as the event loop sees it and as its thread does.

A hanging database may cost a call some seconds, but never a thread, so every wait in `_database` and
`_postgres` ends at the deadline that is set here.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final, cast

import anyio

from ._contract import CALL_TIMEOUT, SessionStore, StoreError

_DEADLINE: Final[ContextVar[float]] = ContextVar("deadline of the call to the database", default=math.inf)


@contextmanager
def ending_at(deadline: float) -> Iterator[None]:
    """Set the deadline of the work in this thread, in seconds of `time.monotonic`, during the block."""
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def time_left() -> float:
    """Return the seconds until the deadline of this thread; negative after it, infinite without one."""
    return _DEADLINE.get() - monotonic()


_BOUNDED_BY_THE_BEAT: Final = frozenset({"purge"})
"""Calls that may take longer, since nobody waits for them; the gateway's beat has a time limit for them."""


class _Bounded:
    """Any store, with a limit of `CALL_TIMEOUT` seconds on each of its calls."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Awaitable[Any]] = getattr(self._store, name)
        if name in _BOUNDED_BY_THE_BEAT:
            return call

        async def in_time(*arguments: Any, **options: Any) -> Any:
            try:
                with anyio.fail_after(CALL_TIMEOUT):
                    return await call(*arguments, **options)
            except TimeoutError:
                raise StoreError(f"the session store did not answer within {CALL_TIMEOUT:g} s") from None
            except OSError as error:
                raise StoreError(f"the session store can't be reached: {error}") from error

        return in_time


def bounded(store: SessionStore) -> SessionStore:
    """Return `store` with a deadline for each call.

    A call that takes too long, or raises OSError because the store can't be reached, raises `StoreError`.
    """
    return cast(SessionStore, _Bounded(store))
