"""Which event loop runs, and what time it is there."""

from __future__ import annotations

import sys
from collections.abc import Callable

import anyio


def on_asyncio() -> bool:
    """Whether a task of asyncio is running, whosever loop it is."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.current_task() is not None
    except RuntimeError:
        return False  # no loop of asyncio in this thread


def clock() -> Callable[[], float]:
    """The clock of the event loop that the running task is of, in seconds. It may be read in a callback of
    the loop too, where anyio, depending on its version, does not know which loop that is."""
    if on_asyncio():
        time: Callable[[], float] = sys.modules["asyncio"].get_running_loop().time
        return time
    return anyio.current_time
