"""Logs whatever stalls a session, once each and with advice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio

from .._net.driver import Driver
from .._net.lifetime import Lifetime

logger: Final = logging.getLogger("speko_anyio.client")

STALLED_AFTER: Final = 10.0
"""Seconds without progress after which a reader or a handler counts as stuck."""

TOOL_STALLED_AFTER: Final = 30.0
"""The same for a tool, which may wait for other services."""


class Stall:
    """One wait under watch, from `StallWatch.begin` to `StallWatch.end`."""

    __slots__ = ("after", "mark", "message", "progress", "since")

    def __init__(
        self, message: Callable[[], str], *, since: float, after: float, progress: Callable[[], object] | None
    ) -> None:
        self.message: Callable[[], str] = message
        self.since: float = since
        self.after: float = after
        self.progress: Callable[[], object] | None = progress
        self.mark: object = None if progress is None else progress()


class StallWatch:
    """Watches the waits of one session.

    Its methods never block, and may be called outside of any task. No wait costs a task of its own: one task
    checks all of them, a few times a minute.
    """

    __slots__ = ("_driver", "_lifetime", "_name", "_stalls", "_watching")

    def __init__(self, name: str, driver: Driver, lifetime: Lifetime) -> None:
        self._name = name
        self._driver = driver
        self._lifetime = lifetime
        self._stalls: list[Stall] = []
        self._watching = False

    def begin(
        self,
        message: Callable[[], str],
        *,
        after: float = STALLED_AFTER,
        progress: Callable[[], object] | None = None,
    ) -> Stall:
        """Log `message()` unless this ends within `after` seconds of the last change of `progress()`.

        Nothing is logged while `progress()` is false, which means that nothing is stuck.
        """
        stall = Stall(message, since=self._driver.current_time(), after=after, progress=progress)
        self._stalls.append(stall)
        if not self._watching:
            self._watching = True
            self._lifetime.spawn(self._watch)
        return stall

    def end(self, stall: Stall) -> None:
        """End the wait. Does nothing if it was logged already."""
        if stall in self._stalls:
            self._stalls.remove(stall)

    async def _watch(self) -> None:
        await anyio.sleep(STALLED_AFTER)
        while self._stalls:
            now = self._driver.current_time()
            for stall in tuple(self._stalls):
                if now < stall.since + stall.after:
                    continue
                mark = None if stall.progress is None else stall.progress()
                if mark != stall.mark and mark:
                    stall.mark, stall.since = mark, now
                    continue
                self._stalls.remove(stall)
                if stall.progress is None or mark:
                    logger.warning("session %s: %s", self._name, stall.message())
            due = min((stall.since + stall.after for stall in self._stalls), default=now)
            await anyio.sleep(max(0.0, due - now))
        self._watching = False
