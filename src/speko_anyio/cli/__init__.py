"""The `speko-anyio` command (extra ``cli``)."""

from ._main import main

__all__ = ["main"]
