"""Loads modules while the event loop goes on."""

from __future__ import annotations

import sys
from importlib import import_module

import anyio.to_thread


async def preload(name: str) -> None:
    """Import a module in a thread, if it is not loaded yet; the import itself follows.

    The event loop would stand still for what some modules take: for 90 ms, four pieces of audio.
    """
    module = sys.modules.get(name)
    if module is None or getattr(module.__spec__, "_initializing", False):  # by another session
        await anyio.to_thread.run_sync(import_module, name, abandon_on_cancel=True)
