"""Programs that tests run in processes of their own: they can be interrupted, and nothing of them is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .patience import PATIENCE

Argument = str | Path


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of ours, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPEKO_")}
    return kept | variables


@contextmanager
def interruptible(*, background: bool = False) -> Iterator[None]:
    """In the block Ctrl-C has its usual effect, in this process and in those that it starts.

    A shell script starts a job in the background with SIGINT ignored. Every process below inherits that, and
    Python leaves it so. `background` makes it so. Only for the main thread, as `signal.signal` is.
    """
    handler = signal.SIG_IGN if background else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_PR_SET_PDEATHSIG: Final = 1


def _bound_to_this_process() -> Callable[[], None] | None:
    """What a new process calls so that it is killed when this one ends, however that happens.

    When a test run is killed, no `finally` runs, and its servers would stay. Only Linux can do this; the
    signal is also sent when the thread that started the process ends, which is the main thread here.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, which leaves the child little that is safe
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)

    return bind


@contextmanager
def running(
    command: Sequence[Argument],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    background: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """`command` in a process while the block runs; `background` is as for `interruptible`.

    However the block ends, the process is killed if it still runs and waited for, and its pipes are closed:
    a failure here must not become a warning in a later test. On Linux it is also killed when this process is.
    """
    with interruptible(background=background):
        process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            preexec_fn=_bound_to_this_process(),
        )
    try:
        yield process
    finally:
        process.kill()
        try:
            process.wait(PATIENCE)
        finally:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # by what nobody will read now
                        pipe.close()


def run(
    command: Sequence[Argument], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end; what it said and how it ended, which is for the caller to check."""
    with running(command, env=env, cwd=cwd) as process:
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_python(*arguments: Argument, env: Mapping[str, str] | None = None) -> str:
    """Run a Python with `arguments`; what it printed. Fails with its error output when it fails."""
    done = run([sys.executable, *arguments], env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout
