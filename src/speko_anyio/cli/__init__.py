"""The `speko-anyio` command (extra ``cli``)."""

from .main import main

__all__ = ["main"]
