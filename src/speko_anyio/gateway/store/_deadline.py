"""The deadline of a call to the store, as the event loop sees it and as its thread does.

A database that hangs must cost a call some seconds, never a thread: each of the waits in `.database` and
`.postgres` ends by what is set here.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final, cast

import anyio

from ._contract import PATIENCE, SessionStore, StoreError

_DEADLINE: Final[ContextVar[float]] = ContextVar("deadline of the call to the database", default=math.inf)


@contextmanager
def ending_at(deadline: float) -> Iterator[None]:
    """Give the work of this thread until `deadline`, in seconds of `time.monotonic`."""
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def time_left() -> float:
    """Return the seconds that the work of this thread has left; negative if none, infinite without an end."""
    return _DEADLINE.get() - monotonic()


_BOUNDED_BY_THE_BEAT: Final = frozenset({"purge"})
"""It may take longer, since nobody waits for it; the gateway's beat gives it up."""


class _Bounded:
    """A store whose calls end after `PATIENCE`, whoever wrote it."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Awaitable[Any]] = getattr(self._store, name)
        if name in _BOUNDED_BY_THE_BEAT:
            return call

        async def in_time(*arguments: Any, **options: Any) -> Any:
            try:
                with anyio.fail_after(PATIENCE):
                    return await call(*arguments, **options)
            except TimeoutError:
                raise StoreError(f"the session store did not answer within {PATIENCE:g} s") from None
            except OSError as error:
                raise StoreError(f"the session store can't be reached: {error}") from error

        return in_time


def bounded(store: SessionStore) -> SessionStore:
    """Return `store` with a deadline for each call.

    What takes too long, or raises OSError as the store can't be reached, raises `StoreError`.
    """
    return cast(SessionStore, _Bounded(store))
