"""Async context managers, and what their types tell a checker and a user."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def never_swallows(
    function: Callable[P, AsyncGenerator[T, None]],
) -> Callable[P, AbstractAsyncContextManager[T, None]]:
    """Make an async context manager of a generator that swallows no exception, as its type then says.

    The type of `asynccontextmanager`'s result allows it to swallow exceptions. So checkers report variables
    assigned in the block as possibly unbound after it, and a ``return`` in it as one that may not happen.
    """
    return asynccontextmanager(function)  # type: ignore[return-value]


class AsyncOnly:
    """An object for ``async with`` only.

    Any other use raises an error that says so. Python itself would only name the missing method.
    """

    __slots__ = ()

    _what: ClassVar[str]
    """The beginning of a sentence, such as "a session is opened"."""
    _example: ClassVar[str]
    """The line of code that shows the right use."""

    def __enter__(self) -> NoReturn:
        self._refuse("a plain `with`")

    def __exit__(self, *exc_info: object) -> None:
        # Python looks for both methods before it calls the first.
        self._refuse("a plain `with`")

    def _refuse(self, wrong: str) -> NoReturn:
        raise TypeError(f"{self._what} with `async with`, not with {wrong}: `{self._example}`")


class Block(AsyncOnly):
    """An ``async with`` block whose value does not exist until the block is entered."""

    __slots__ = ()

    def __await__(self) -> NoReturn:
        self._refuse("await")

    def __aiter__(self) -> NoReturn:
        self._refuse("`async for` alone")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            # pickle, copy and inspect probe for names with an underscore.
            if name.startswith("_"):
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
                )
            raise AttributeError(
                f"{name!r} can't be used yet: {self._what} with `async with`: `{self._example}`",
                name=name,
                obj=self,
            )


class SessionBlock(Block):
    """The block around a session."""

    __slots__ = ()

    _what = "a session is opened"
    _example = "async with speko.realtime.connect(...) as session:"


class DeferredContext(SessionBlock, Generic[T]):
    """The session's block that `find` returns, which is called once, when this one is entered.

    Not a generator, which would keep its arguments and take 0.7 KiB for as long as the block lasts.
    """

    __slots__ = ("_block", "_find")

    def __init__(self, find: Callable[[], Awaitable[AbstractAsyncContextManager[T, None]]]) -> None:
        self._find: Callable[[], Awaitable[AbstractAsyncContextManager[T, None]]] | None = find

    async def __aenter__(self) -> T:
        find, self._find = self._find, None
        if find is None:
            raise RuntimeError("a session is entered once; call `connect` or `open` again for another one")
        self._block = await find()
        return await self._block.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._block.__aexit__(kind, error, traceback)
