"""``speko-anyio serve`` in a process of its own, and applications in a thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

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


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Run the application under uvicorn in its own thread; yields the host and port."""
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5, ws="websockets-sansio")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def tell(*args: Any, **options: Any) -> None:
        await startup(*args, **options)
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(30)
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
