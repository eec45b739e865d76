"""The signals that ask a command to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FrameType

import anyio


@contextmanager
def stop_signals(*, second_ends: bool = False) -> Iterator[AsyncIterator[signal.Signals]]:
    """Catch SIGTERM and Ctrl-C within the block; iterate over the result to wait for one.

    SIGINT stays ignored if it was ignored at the start: shell scripts start background jobs that way, so that
    Ctrl-C stops only the script. SIGTERM stops such a job.

    With `second_ends` the second one ends the process at once, without cleaning up, even after the block or
    while something blocks the event loop. The exit code is the one that shells show for the signal: 130 for
    Ctrl-C, 143 for SIGTERM.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    with anyio.open_signal_receiver(*numbers) as signals:
        seen = _end_at_second(numbers) if second_ends else []
        yield signals
    if seen:
        for number in numbers:
            signal.signal(number, _end)


def _end_at_second(numbers: list[signal.Signals]) -> list[int]:
    """Let the second signal end the process; return the list that the received signals are added to."""
    seen: list[int] = []

    def catch(number: signal.Signals) -> None:
        # trio learns of the signal from this handler; asyncio in another way, and its handler does nothing.
        pass_on = signal.getsignal(number)

        def caught(number: int, frame: FrameType | None) -> None:
            if seen:
                _end(number, frame)
            seen.append(number)
            if callable(pass_on):
                pass_on(number, frame)

        signal.signal(number, caught)

    for number in numbers:
        catch(number)
    return seen


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
