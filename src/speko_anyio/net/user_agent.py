"""What this client calls itself on every connection. On its own, so that sessions do not load what mints."""

from __future__ import annotations

import platform
from typing import Final

from .._version import __version__

USER_AGENT: Final = f"speko-anyio/{__version__} python/{platform.python_version()}"
