"""The lifetime of a session: its tasks, the user's ``async with`` body, and the error that the block raises.

No task raises: an error in one cancels the body, and the block raises it unwrapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from contextvars import Context, copy_context
from itertools import starmap
from typing import Any, TypeVarTuple

import anyio
from anyio.abc import TaskGroup

from ..errors import InternalError
from .event_loop import name_event_loop
from .tasks import HeldError, is_exit

_Args = TypeVarTuple("_Args")


class Lifetime:
    """The tasks of one session, which the log calls `name`.

    `enter` and `exit` take the place of an async context manager made of a generator, which would take
    0.7 KiB for as long as the session lives.
    """

    __slots__ = (
        "_body",
        "_context",
        "_early",
        "_held",
        "_scopes",
        "_stopping",
        "_tasks",
    )

    def __init__(self, name: str) -> None:
        self._held = HeldError(name)
        self._tasks: TaskGroup | None = None
        self._context: Context | None = None
        self._early: tuple[Callable[[TaskGroup], None], ...] = ()
        self._scopes: list[anyio.CancelScope] = []
        self._stopping = False
        self._body = anyio.CancelScope()

    @property
    def running(self) -> int:
        """The number of tasks that run."""
        return len(self._scopes)

    def spawn(self, work: Callable[[*_Args], Coroutine[Any, Any, None]], *args: *_Args) -> None:
        """Run `work` beside the body, in the context of the block.

        It is cancelled only when the block ends, after the body. The block raises an exit of the program
        unchanged, and any other error of `work` as an `InternalError`.

        Never blocks, and may be called outside of any task, such as from an event loop's callback. If the
        block is not entered yet, the work starts then.
        """
        self._start(work, args, shield=True)

    def spawn_shielded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` as `spawn` does, but with no cancel scope around it.

        It must shield itself where it waits, and end when the session is over or aborted.
        """
        self._start(work, (), shield=False)

    def copy_context(self) -> Context:
        """Copy the context of the block.

        A callback that runs in it sees the user's context variables, not those of the code that calls it.
        """
        return copy_context() if self._context is None else self._context.copy()

    def _start(
        self,
        work: Callable[[*_Args], Coroutine[Any, Any, None]],
        args: tuple[*_Args],
        *,
        shield: bool,
    ) -> None:
        def start(tasks: TaskGroup) -> None:
            tasks.start_soon(self._run, work, args, shield)

        if self._tasks is None or self._context is None:
            self._early += (start,)
        else:
            # A copy, since a context can't be entered twice.
            self.copy_context().run(start, self._tasks)

    def fail(self, error: BaseException) -> None:
        """Cancel the body because of `error`, which the block then raises."""
        self._held.hold(error)
        self._body.cancel()

    async def enter(self) -> None:
        """Start the tasks, before the body. The same task must call `exit` after it."""
        self._tasks = tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._context = copy_context()
        self._context.run(name_event_loop)  # an event loop's callback may start tasks in it
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
        """End the block, after the body, which raised `error`. Raises the block's error.

        `leave` says goodbye after a body that was not cancelled. `abort` ends the session at once in any
        case; when it returns, nothing of the session waits any more. `wait_gone` runs last and must not be
        cancelled.
        """
        tasks = self._tasks
        assert tasks is not None, "enter first"
        cancelled = anyio.get_cancelled_exc_class()
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
                        # The body saw a handler's error only as a cancellation.
                        self._held.hold(exc, preferred=True)
                    if not is_exit(self._held.error):
                        with self._held:
                            await leave()
                finally:
                    abort("the block of the session was cancelled")
                    self._stop()
        finally:
            try:
                await wait_gone()
            finally:
                self._held.release()

    async def _run(
        self, work: Callable[[*_Args], Coroutine[Any, Any, None]], args: tuple[*_Args], shield: bool
    ) -> None:
        """Run `work`. Whatever it raises goes to `fail`."""
        # On trio, Ctrl-C may strike between the call that makes a coroutine and its await, and Python would
        # warn about a coroutine that was never awaited. C code makes it and keeps it in one step.
        made: list[Coroutine[Any, Any, None]] = []
        try:
            made.extend(starmap(work, (args,)))
            if not shield:
                await made[0]
                return
            # When the body is cancelled, its `finally` blocks still have a live connection. `_stop` is the
            # other end of every such scope.
            with anyio.CancelScope(shield=True) as scope:
                self._scopes.append(scope)
                if self._stopping:
                    scope.cancel()
                try:
                    await made[0]
                finally:
                    self._scopes.remove(scope)
        except (SystemExit, KeyboardInterrupt) as exc:
            # Raised by a handler or a tool. On asyncio, an exit that leaves a task would bypass the block.
            self.fail(exc)
        except anyio.get_cancelled_exc_class() as exc:
            # On asyncio, something that a handler awaited was cancelled. A task group would treat that as its
            # own cancellation, and end the block as if the body had finished.
            self.fail(exc)
        except Exception as exc:  # noqa: BLE001 - nothing may come out of a task but through the owner
            self.fail(bug(exc))
        finally:
            for coroutine in made:
                coroutine.close()

    def _stop(self) -> None:
        self._stopping = True
        for scope in self._scopes:
            scope.cancel()


def bug(error: Exception) -> InternalError:
    """Wrap an unexpected error in an `InternalError`."""
    internal = InternalError(f"bug in speko_anyio, please report it: {type(error).__name__}: {error}")
    internal.__cause__ = error
    return internal
