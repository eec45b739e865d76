"""What can go wrong with a transport, and how it is told."""

from __future__ import annotations

from typing import Final

import anyio

TRANSPORT_ERRORS: Final = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.BusyResourceError,
    OSError,
)
"""What a byte stream raises when it can't go on, beside `anyio.EndOfStream`."""


def root(error: Exception) -> BaseException:
    """The operating system's own error beneath anyio's, when there is one; the first of several."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        return cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


def describe(error: Exception) -> str:
    """What a transport's exception says; many say nothing but their name."""
    told = root(error)
    return str(told) or type(told).__name__
