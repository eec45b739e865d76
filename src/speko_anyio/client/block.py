"""Async context managers that let every exception through, for type checkers to know."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def block(
    function: Callable[P, AsyncGenerator[T, None]],
) -> Callable[P, AbstractAsyncContextManager[T, None]]:
    """`asynccontextmanager` for functions that swallow nothing.

    That one's result may swallow exceptions as far as its type says, so that checkers take what is assigned
    in the block for possibly unbound, and a ``return`` in it for one that may not happen.
    """
    return asynccontextmanager(function)  # type: ignore[return-value]
