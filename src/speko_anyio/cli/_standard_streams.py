"""Standard output and error that never raise: a command must not fail because of what it prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from ._failures import FAILED, CommandError


class SturdyStream(TextIOBase):
    """Writes to `stream` and never raises.

    It replaces characters that the encoding lacks by ``?``. After the first failure it discards everything;
    `broken` holds the error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.broken: Exception | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.broken is None:
            encoding = self.encoding or "utf-8"
            with self._noting_failure():
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        if self.broken is None:
            with self._noting_failure():
                self._stream.flush()

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self.broken = error
            # Python flushes its streams at exit and would report the same failure again.
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)


@contextmanager
def sturdy_output() -> Iterator[None]:
    """Make standard output and error sturdy while the block runs; a missing one discards what is written.

    Within the block, `check_output` raises if standard output broke.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file or socket to be opened would become a standard stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # also for the voice's processes
    before = sys.stdout, sys.stderr
    # They are None if the process was started without them.
    output, error = (
        SturdyStream(stream or Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        for stream in before
    )
    sys.stdout, sys.stderr = output, error
    try:
        yield
    finally:
        output.flush()
        error.flush()
        sys.stdout, sys.stderr = before


def check_output(done: str) -> None:
    """Raise `CommandError` if standard output broke; `done` says what the command did achieve."""
    sys.stdout.flush()
    if isinstance(sys.stdout, SturdyStream) and (error := sys.stdout.broken) is not None:
        raise CommandError(
            f"{done}, but its output could not be written ({error}); check where it goes", FAILED
        )
