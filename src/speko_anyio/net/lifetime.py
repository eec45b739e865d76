"""How long a session lives: its tasks around the user's ``async with`` body, and whose error comes out.

None of the tasks raises. What goes wrong in one cancels the body and comes out of the block as it is, so
that no ExceptionGroup of ours reaches anybody.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from contextvars import Context, copy_context
from typing import Any, Final, TypeVarTuple

import anyio
from anyio.abc import TaskGroup

from ..errors import InternalError

_Args = TypeVarTuple("_Args")

logger: Final = logging.getLogger("speko_anyio")


class Lifetime:
    """The tasks of one session, which `name` is told in the log.

    `enter` and `exit` in place of an async context manager made of a generator: one of those takes 0.7 KiB,
    for as long as the session lives.
    """

    __slots__ = (
        "_body",
        "_context",
        "_early",
        "_failure",
        "_name",
        "_scopes",
        "_stopping",
        "_tasks",
    )

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: TaskGroup | None = None
        self._context: Context | None = None
        self._early: tuple[Callable[[TaskGroup], None], ...] = ()
        self._scopes: list[anyio.CancelScope] = []
        self._stopping = False
        self._body = anyio.CancelScope()
        self._failure: BaseException | None = None

    @property
    def running(self) -> int:
        """How many tasks run."""
        return len(self._scopes)

    def spawn(self, work: Callable[[*_Args], Awaitable[None]], *args: *_Args) -> None:
        """Run `work` beside the body, in the context of the block. It is cancelled only when the block ends,
        after the body; an exit of the program comes out of the block, any other error as a bug of ours.

        Never blocks, and may be called outside of any task, such as from an event loop's callback. Before
        the block is entered, the work waits for that.
        """

        self._begin(self._guard, work, args)

    def spawn_shielded(self, work: Callable[[], Awaitable[None]]) -> None:
        """The same for work that waits only where it has shielded itself, and ends when the session is over
        or aborted. It is spared a scope around its own."""
        self._begin(self._tell, work, ())

    def _begin(
        self,
        run: Callable[[Callable[[*_Args], Awaitable[None]], tuple[*_Args]], Coroutine[Any, Any, None]],
        work: Callable[[*_Args], Awaitable[None]],
        args: tuple[*_Args],
    ) -> None:
        def start(tasks: TaskGroup) -> None:
            tasks.start_soon(run, work, args)

        if self._tasks is None or self._context is None:
            self._early += (start,)
        else:
            # Of the block and not of whoever calls: work that a callback starts sees the user's variables. A
            # copy, since a context can't be entered twice.
            self._context.copy().run(start, self._tasks)

    def fail(self, error: BaseException) -> None:
        """Something outside the body failed: cancel the body, and let the error out of the block."""
        if self._failure is None:
            self._failure = error
        else:
            logger.error("a further failure in session %s", self._name, exc_info=error)
        self._body.cancel()

    async def enter(self) -> None:
        """Begin to live around the body, in the task that calls; `exit` has to follow."""
        self._tasks = tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._context = copy_context()
        for start in self._early:
            start(tasks)
        self._early = ()
        self._body.__enter__()

    async def exit(
        self,
        error: BaseException | None,
        *,
        leave: Callable[[], Awaitable[None]],
        abort: Callable[[str], None],
        wait_gone: Callable[[], Awaitable[None]],
    ) -> None:
        """End, after the body, which raised `error`; raises what is to come out of the block.

        `leave` says goodbye after a body that was not cancelled. `abort` ends the session at once, whatever
        came before; when it returns nothing of the session waits any more. `wait_gone` comes last, and is not
        for cancelling.
        """
        tasks = self._tasks
        assert tasks is not None, "enter first"
        cancelled = anyio.get_cancelled_exc_class()
        held: BaseException | None = None
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_exit(tasks)
                try:
                    try:
                        with ExitStack() as body:
                            body.push(self._body)
                            if error is not None:
                                raise error
                    except cancelled:
                        raise
                    except BaseException as exc:  # noqa: BLE001 - held, and raised below
                        held = exc
                    if not (_is_exit(held) or _is_exit(self._failure)):
                        await leave()
                finally:
                    abort("the block of the session was cancelled")
                    self._stop()
        finally:
            # Here and not behind the group: an outer cancellation would replace the user's error else.
            try:
                await wait_gone()
            finally:
                self._raise_what_failed(held)

    def _raise_what_failed(self, error: BaseException | None) -> None:
        # An exit goes before whatever it made of the body.
        if error is not None and not _is_exit(self._failure):
            if self._failure is not None:
                logger.error("a handler failed too, beside the session's body", exc_info=self._failure)
            raise error
        if self._failure is not None:
            raise self._failure

    async def _guard(self, work: Callable[[*_Args], Awaitable[None]], args: tuple[*_Args]) -> None:
        # Shielded: when the body is cancelled, its `finally` blocks still have a live connection.
        # `_stop` is the other end of every such scope.
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.append(scope)
            if self._stopping:
                scope.cancel()
            try:
                await self._tell(work, args, scope)
            finally:
                self._scopes.remove(scope)

    async def _tell(
        self,
        work: Callable[[*_Args], Awaitable[None]],
        args: tuple[*_Args],
        scope: anyio.CancelScope | None = None,
    ) -> None:
        try:
            await work(*args)
        except (SystemExit, KeyboardInterrupt) as exc:
            # Of a handler or a tool. Out of a task they would come in a group of ours, or past the loop.
            self.fail(exc)
        except anyio.get_cancelled_exc_class() as exc:
            if scope is not None and scope.cancel_called:
                raise
            # asyncio: something that a handler waited for was cancelled. A group takes that for its own
            # end, and would leave the block as if the body had come to it.
            self.fail(exc)
        except Exception as exc:  # noqa: BLE001 - nothing may come out of a task but through the owner
            self.fail(bug(exc))

    def _stop(self) -> None:
        self._stopping = True
        for scope in self._scopes:
            scope.cancel()


def bug(error: Exception) -> InternalError:
    """What users see of an error that nobody foresaw."""
    internal = InternalError(f"bug in speko_anyio, please report it: {type(error).__name__}: {error}")
    internal.__cause__ = error
    return internal


def _is_exit(error: BaseException | None) -> bool:
    """Whether it is to end the program, or the task: such an end does not wait for a goodbye."""
    return error is not None and not isinstance(error, Exception)
