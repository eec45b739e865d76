"""A wake-up call from synchronous code to the one task that waits for it."""

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
        """Wake the task in `wait`, if one is there."""
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Sleep until the next `ring`."""
        self._event = anyio.Event()
        try:
            await self._event.wait()
        finally:
            self._event = None
