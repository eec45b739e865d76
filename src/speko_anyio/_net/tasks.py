"""Task groups that raise errors unwrapped, and calls that wake a waiting task.

anyio wraps the error of a task, or of the block, in an ExceptionGroup. So the error is held inside the group,
and raised once the group has ended: users never see an ExceptionGroup of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVarTuple

import anyio
from anyio.abc import TaskStatus

_Args = TypeVarTuple("_Args")

logger: Final = logging.getLogger("speko_anyio")


class HeldError:
    """The error of a task group's block or tasks, until the group has ended.

    The first one is held, since it may have caused the others, except that an exit (KeyboardInterrupt or
    SystemExit) takes precedence, with the error before it as its context. The others are logged with `name`.

    As a context manager it holds the exception of its body, so that the code after it can clean up while the
    tasks still run. Exits and cancellations propagate.
    """

    __slots__ = ("_name", "error")

    def __init__(self, name: str) -> None:
        self._name = name
        self.error: BaseException | None = None
        """The error that `release` raises; None while nothing has failed."""

    def hold(self, error: BaseException, *, preferred: bool = False) -> None:
        """Hold `error` if it is the first, an exit, or `preferred` to what is held. Log it otherwise."""
        held = self.error
        if is_exit(held):
            return  # later errors are consequences of the exit
        if is_exit(error):
            # Not logged: a traceback would stand above the one line with which a command ends.
            error.__context__ = error.__context__ or held
            self.error = error
            return
        if held is None or preferred:
            self.error, error = error, held or error
        if error is not self.error:
            logger.error("a further failure in %s", self._name, exc_info=error)

    def release(self) -> None:
        """Raise the error, if there is one.

        Call it outside of the group, in a ``finally``: otherwise an outer cancellation replaces the error.
        """
        # Its traceback refers to this frame: break the cycle, or only the garbage collector could free it.
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.hold(error)
        return True


class TaskGroup:
    """anyio's task group, except that it raises a single error, unwrapped. See `HeldError`.

    The first error, of the block or of a task, cancels the rest.
    """

    __slots__ = ("_tasks", "held")

    def __init__(self, name: str) -> None:
        self.held: HeldError = HeldError(name)
        self._tasks = anyio.create_task_group()

    @property
    def cancel_scope(self) -> anyio.CancelScope:
        """The scope around the block and the tasks."""
        return self._tasks.cancel_scope

    def start_soon(self, work: Callable[[*_Args], Awaitable[object]], *args: *_Args) -> None:
        """Run `work` as a task of the group."""
        self._tasks.start_soon(self._run, work, args)

    async def start(self, work: Callable[..., Awaitable[object]], *args: object) -> Any:
        """Run `work` as a task of the group, and wait until it calls ``task_status.started()``.

        Returns the value that was passed to it. Raises an error of `work` from before that call; a later one
        is raised by the group.
        """
        return await self._tasks.start(self._run_to_start, work, args)

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

    async def _run_to_start(
        self,
        work: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
        *,
        task_status: TaskStatus[Any],
    ) -> None:
        status = _Started(task_status)
        try:
            await work(*args, task_status=status)
        except BaseException as error:
            if not status.called or isinstance(error, (anyio.get_cancelled_exc_class(), GeneratorExit)):
                raise
            self.fail(error)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            if error is None or isinstance(error, anyio.get_cancelled_exc_class()):
                return await self._tasks.__aexit__(kind, error, traceback)
            self.held.hold(error)
            self.cancel_scope.cancel()
            return await self._tasks.__aexit__(None, None, None)
        finally:
            self.held.release()


class _Started:
    """A task's status that knows whether the task has started."""

    def __init__(self, status: TaskStatus[Any]) -> None:
        self._status = status
        self.called = False

    def started(self, value: object = None) -> None:
        self.called = True
        self._status.started(value)


def is_exit(error: BaseException | None) -> bool:
    """Return whether `error` ends the program or the task, which leaves no time for a goodbye."""
    return error is not None and not isinstance(error, Exception)


class Waiter(Protocol):
    """Lets one task wait, again and again. `Wakeup` is one for any event loop."""

    def wait(self) -> Awaitable[object]:
        """Return what the task has to await."""
        ...

    def ring(self) -> None:
        """Wake the task. The task must have waited before; ignored when it no longer waits."""


class Wakeup:
    """A `Waiter` for any event loop, and for any number of tasks.

    Wait in a loop that checks its condition first: a call while no task waits is lost. Cheaper than
    `anyio.Condition`, since ringing needs neither a lock nor an ``await``.
    """

    __slots__ = ("awaited",)

    def __init__(self) -> None:
        self.awaited: anyio.Event | None = None
        """None when no task waits, and a call can be saved."""

    def ring(self) -> None:
        """Wake the tasks in `wait`."""
        if self.awaited is not None:
            self.awaited.set()
            self.awaited = None

    def wait(self) -> Awaitable[None]:
        """Sleep until the next `ring`."""
        if self.awaited is None:
            self.awaited = anyio.Event()
        return self.awaited.wait()
