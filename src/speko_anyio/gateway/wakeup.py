"""A wake-up call from synchronous code to the tasks that wait for it."""

from __future__ import annotations

import anyio


class Wakeup:
    """Wait in a loop that checks its condition first; a call while nobody waits is lost, and harmless.

    Cheaper than `anyio.Condition`: ringing needs neither a lock nor an ``await``.
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

    async def wait(self) -> None:
        """Sleep until the next `ring`."""
        if self.awaited is None:
            self.awaited = anyio.Event()
        await self.awaited.wait()
