"""The signals that ask a command to stop."""

from __future__ import annotations

import os
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
    with anyio.open_signal_receiver(*_heeded()) as signals:
        yield signals


def end_at_next_signal() -> None:
    """Within `stop_signals`, after the first: have the next one end the process at once.

    The exit code is the one that shells show for the signal: 130 for Ctrl-C, 143 for SIGTERM. Nothing is
    cleaned up.
    """
    for number in _heeded():
        signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    os._exit(128 + number)


def _heeded() -> list[signal.Signals]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, signal.SIGINT]
