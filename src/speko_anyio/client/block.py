"""Async context managers that let every exception through, for type checkers to know."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

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


def refuse_await() -> NoReturn:
    """Raise TypeError with advice: Python itself would only say that the object can't be awaited."""
    raise TypeError(
        "a session is opened with `async with`, not with await: `async with speko.realtime.connect(...) as "
        "session:`"
    )


class LateBlock(Generic[T]):
    """The block that `find` finds, once, when this one is entered. No generator: those keep what they were
    called with, and take 0.7 KiB themselves, for as long as the block lasts."""

    __slots__ = ("_block", "_find")

    def __init__(self, find: Callable[[], Awaitable[AbstractAsyncContextManager[T, None]]]) -> None:
        self._find: Callable[[], Awaitable[AbstractAsyncContextManager[T, None]]] | None = find

    def __await__(self) -> Generator[Any, Any, T]:
        refuse_await()

    async def __aenter__(self) -> T:
        find, self._find = self._find, None
        if find is None:
            raise RuntimeError("this block is entered once: ask for another one")
        self._block = await find()
        return await self._block.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._block.__aexit__(kind, error, traceback)
