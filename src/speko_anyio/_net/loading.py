"""Loads modules without blocking the event loop."""

from __future__ import annotations

import sys
from importlib import import_module

import anyio.to_thread


async def preload(name: str) -> None:
    """Load a module in a thread, unless it is loaded, so that the import statement that follows is quick.

    Some modules take 90 ms to load, which would delay four pieces of audio.
    """
    module = sys.modules.get(name)
    if module is None or getattr(module.__spec__, "_initializing", False):  # by another session
        await anyio.to_thread.run_sync(import_module, name, abandon_on_cancel=True)
