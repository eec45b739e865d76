"""The event loops that tests run on, each as the options of anyio's backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from speko_anyio.testing._clock import VirtualTimeLoop, virtual_backend

Options = tuple[str, dict[str, Any]]
"""The name of anyio's backend, and what it is told."""


def _eager(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    return loop


_EVERY: Final[dict[str, Callable[[], Options]]] = {
    "asyncio": lambda: ("asyncio", {"use_uvloop": False}),
    "eager": lambda: ("asyncio", {"loop_factory": lambda: _eager(asyncio.new_event_loop())}),
    "uvloop": lambda: ("asyncio", {"use_uvloop": True}),
    "trio": lambda: ("trio", {}),
    "virtual asyncio": lambda: virtual_backend("asyncio"),
    "virtual eager": lambda: ("asyncio", {"loop_factory": lambda: _eager(VirtualTimeLoop())}),
    "virtual trio": lambda: virtual_backend("trio"),
}

# Eager tasks are of Python 3.12 and later.
_THERE: Final = {
    name: options
    for name, options in _EVERY.items()
    if "eager" not in name or hasattr(asyncio, "eager_task_factory")
}

EVENT_LOOPS: Final = tuple(name for name in _THERE if "virtual" not in name)
VIRTUAL_EVENT_LOOPS: Final = tuple(name for name in _THERE if "virtual" in name)


def event_loop(name: str) -> Options:
    """The loop of that name; a virtual one has a clock of its own."""
    return _THERE[name]()
