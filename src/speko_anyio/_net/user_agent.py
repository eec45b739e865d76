"""The User-Agent of every connection. A module of its own, so that sessions do not load httpx."""

from __future__ import annotations

import platform
from typing import Final

from .._version import __version__

USER_AGENT: Final = f"speko-anyio/{__version__} python/{platform.python_version()}"
