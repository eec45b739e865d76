"""Virtual time: when every task waits for a timer, the clock jumps to the next one, so timeouts take no time.

Give a test module this fixture, and its tests run on asyncio and trio with virtual clocks (uvloop has no
way to do it)::

    @pytest.fixture(params=VIRTUAL_BACKENDS)
    def anyio_backend(request): return virtual_backend(request.param)
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

import speko_anyio.client._direct  # noqa: F401 - a thread that loads it later would let the clock jump

VIRTUAL_BACKENDS = ("asyncio", "trio")


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return anyio's backend `name` with options that give it a virtual clock."""
    if name == "trio":
        import trio.testing  # here, since it may not be installed

        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock stands still while anything runs and jumps when nothing does."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _JumpingSelector(selectors.BaseSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return self._real.select(timeout)
        ready = self._real.select(0)
        if not ready:
            self._loop.jump(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
