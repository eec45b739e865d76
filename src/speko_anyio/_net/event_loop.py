"""What depends on the event loop that runs: its name and its clock, and loading a module beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import anyio
import anyio.to_thread


def on_asyncio() -> bool:
    """Whether a task of asyncio is running, on any implementation of its loop."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.current_task() is not None
    except RuntimeError:
        return False  # no loop of asyncio in this thread


def name_event_loop() -> None:
    """Make anyio's functions work in callbacks of the event loop that run in this context."""
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None and on_asyncio() and sniffio.current_async_library_cvar.get() is None:
        # `anyio.run` sets it. Otherwise sniffio looks for the current task, and a callback has none.
        sniffio.current_async_library_cvar.set("asyncio")


def clock() -> Callable[[], float]:
    """Return the clock of the event loop that runs this task, in seconds.

    It may be read in a callback of the loop too, where some versions of anyio do not know the loop.
    """
    if on_asyncio():
        time: Callable[[], float] = sys.modules["asyncio"].get_running_loop().time
        return time
    return anyio.current_time


async def preload(name: str) -> None:
    """Load a module in a thread, unless it is loaded, so that the import statement that follows is quick.

    Some modules take 90 ms to load, which would delay four pieces of audio.
    """
    module = sys.modules.get(name)
    if module is None or getattr(module.__spec__, "_initializing", False):  # by another session
        await anyio.to_thread.run_sync(import_module, name, abandon_on_cancel=True)
