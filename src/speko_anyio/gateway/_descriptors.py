"""The descriptors that the process may have open: a connection takes one, and so does a file."""

from __future__ import annotations

import math
import sys
from typing import Final

if sys.platform != "win32":
    import resource

_ENOUGH: Final = 65_536

_MACOS_MOST: Final = 10_240
"""The most that macOS may accept, although it reports no limit."""


def descriptor_limit() -> float:
    """Return how many descriptors the process may have open, `math.inf` for any number."""
    if sys.platform == "win32":
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """Raise the limit to what the system grants: the usual 1024 is for programs that use ``select``."""
    if sys.platform == "win32":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = math.inf if hard == resource.RLIM_INFINITY else hard
    for wanted in (_ENOUGH, _MACOS_MOST):
        limit = int(min(wanted, granted))
        if descriptor_limit() >= limit:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError):
            continue
