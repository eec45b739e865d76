"""The gateway's database, as the command line finds it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

DATABASE_ENV: Final = "SPEKO_GATEWAY_DATABASE"

MEMORY: Final = "memory"
"""No database: the records end with the process."""


def database_of(options: argparse.Namespace) -> str:
    """The path or URL: ``--database``, else the environment's, else a file of the user's own."""
    return options.database or os.environ.get(DATABASE_ENV) or str(_default())


def _default() -> Path:
    # Where the XDG base directories put what a program has to remember. Not the folder that the command
    # happens to run in: the next one would not find the keys.
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "speko-anyio" / "gateway.db"
