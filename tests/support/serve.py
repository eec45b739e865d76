"""``speko-anyio serve`` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .processes import environment, running


@contextmanager
def served(
    *options: str,
    python: tuple[str, ...] = (),
    stderr: int = subprocess.STDOUT,
    background: bool = False,
    descriptors: int | None = None,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve with these options, none of them from the environment, in a Python with the options `python`.

    Gives the process, and what it told until it was ready. It is killed at the end, when it still runs.
    In the `background` it ignores Ctrl-C. It may have no more than so many `descriptors`.
    """
    command = [sys.executable, "-u", *python, "-m", "speko_anyio.cli", "serve", "--patience", "0"]
    if descriptors is not None:
        command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$0" "$@"', *command]
    with running([*command, *options], env=environment(), stderr=stderr, background=background) as server:
        assert server.stdout is not None
        told = ""
        for line in server.stdout:
            told += line
            if "stop with Ctrl-C" in line:
                break
        yield server, told
