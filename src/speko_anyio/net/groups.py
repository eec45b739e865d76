"""Errors leave task groups as they are: no ExceptionGroup of ours reaches anybody.

anyio wraps whatever a task of a group, or the block around it, raises. So the error is held inside the group,
and raised once the group has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVarTuple

import anyio

_Args = TypeVarTuple("_Args")

logger: Final = logging.getLogger("speko_anyio")


class HeldError:
    """The error of a task group's block or tasks, until the group has ended.

    An exit (KeyboardInterrupt or SystemExit) takes precedence. Then comes what the block raised, then the
    first error of a task. The others are logged; `name` says there whose they are.

    As a context manager in the block it holds an exception of what it surrounds, so that the block can clean
    up with its tasks still running. Exits and cancellations go straight through.
    """

    __slots__ = ("_from_block", "_from_task", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._from_block: BaseException | None = None
        self._from_task: BaseException | None = None

    @property
    def error(self) -> BaseException | None:
        """What `release` will raise; None while nothing has failed."""
        if self._from_block is None or is_exit(self._from_task):
            return self._from_task
        return self._from_block

    def hold(self, error: BaseException) -> None:
        """Hold an error of a task."""
        if self._from_task is None:
            self._from_task = error
        elif is_exit(error) and not is_exit(self._from_task):
            self._log(self._from_task)
            self._from_task = error
        else:
            self._log(error)

    def hold_of_block(self, error: BaseException) -> None:
        """Hold an error of the block."""
        if self._from_block is None:
            self._from_block = error
        else:
            self._log(error)

    def release(self) -> None:
        """Raise the error, if there is one.

        Call it outside of the group, in a ``finally``: otherwise an outer cancellation replaces the error.
        """
        error, of_task = self.error, self._from_task
        # Its traceback leads here: without this it could only be freed by the garbage collector.
        self._from_block = self._from_task = None
        if error is None:
            return
        if of_task is not None and of_task is not error:
            self._log(of_task)
        try:
            raise error
        finally:
            del error, of_task

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.hold_of_block(error)
        return True

    def _log(self, error: BaseException) -> None:
        logger.error("a further failure in %s", self._name, exc_info=error)


class TaskGroup:
    """anyio's task group, but one that raises a single error as it is. See `HeldError`.

    The first error, of the block or of a task, cancels the rest.
    """

    __slots__ = ("_tasks", "held")

    def __init__(self, name: str) -> None:
        self.held = HeldError(name)
        self._tasks = anyio.create_task_group()

    @property
    def cancel_scope(self) -> anyio.CancelScope:
        """Surrounds the block and the tasks."""
        return self._tasks.cancel_scope

    def start_soon(self, work: Callable[[*_Args], Awaitable[object]], *args: *_Args) -> None:
        """Run `work` as a task of the group."""
        self._tasks.start_soon(self._run, work, args)

    def fail(self, error: BaseException) -> None:
        """Hold `error` and cancel the group. May be called outside of any task."""
        self.held.hold(error)
        self.cancel_scope.cancel()

    async def _run(self, work: Callable[[*_Args], Awaitable[object]], args: tuple[*_Args]) -> None:
        try:
            await work(*args)
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised by `__aexit__`
            self.fail(error)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            if error is None or isinstance(error, (anyio.get_cancelled_exc_class(), GeneratorExit)):
                return await self._tasks.__aexit__(kind, error, traceback)
            self.held.hold_of_block(error)
            self.cancel_scope.cancel()
            return await self._tasks.__aexit__(None, None, None)
        finally:
            self.held.release()


def is_exit(error: BaseException | None) -> bool:
    """Whether `error` ends the program, or the task: nobody waits for a goodbye then."""
    return error is not None and not isinstance(error, Exception)
