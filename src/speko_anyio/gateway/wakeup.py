"""A wake-up call from synchronous code to the tasks that wait for it."""

from __future__ import annotations

import anyio


class Wakeup:
    """Wait in a loop that checks its condition first; a call while nobody waits is lost, and harmless.

    Cheaper than `anyio.Condition`: ringing needs neither a lock nor an ``await``.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Wake the tasks in `wait`."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Sleep until the next `ring`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
