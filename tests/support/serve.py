"""``speko-anyio serve`` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served(
    *options: str, python: tuple[str, ...] = (), stderr: int = subprocess.STDOUT
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve with these options, none of them from the environment, in a Python with the options `python`: the
    process, and what it told until it was ready. Killed at the end, when it still runs."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SPEKO_")}
    command = [sys.executable, "-u", *python, "-m", "speko_anyio.cli", "serve", "--patience", "0"]
    server = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
    )
    try:
        assert server.stdout is not None
        told = ""
        for line in server.stdout:
            told += line
            if "stop with Ctrl-C" in line:
                break
        yield server, told
    finally:
        server.kill()
        server.communicate(timeout=10)
