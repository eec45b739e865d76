"""The signals that ask a command to stop."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio


@contextmanager
def stop_signals() -> Iterator[AsyncIterator[signal.Signals]]:
    """Catch SIGTERM and Ctrl-C within the block; iterate over the result to wait for one.

    SIGINT stays ignored if it was ignored at the start: shell scripts start background jobs that way, so that
    Ctrl-C stops only the script. SIGTERM stops such a job.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    with anyio.open_signal_receiver(*numbers) as signals:
        yield signals
