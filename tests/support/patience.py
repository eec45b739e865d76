"""How long tests wait for what is real: processes, sockets, threads."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 120.0
"""Seconds until a test gives up waiting for what takes a moment on an idle machine.

It ends a hang and measures nothing, so it is far more than a busy machine needs. A test that asserts how long
something takes runs on virtual time instead.
"""
