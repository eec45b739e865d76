"""Wake-up calls from synchronous code to the tasks that wait for them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import anyio


class Waiter(Protocol):
    """Lets one task wait, again and again. `Wakeup` is one for any event loop."""

    def wait(self) -> Awaitable[object]:
        """Return what the task has to await."""
        ...

    def ring(self) -> None:
        """Wake the task. The task must have waited before; ignored when it no longer waits."""


class Wakeup:
    """A `Waiter` for any event loop, and for any number of tasks.

    Wait in a loop that checks its condition first: a call while nobody waits is lost. Cheaper than
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
