"""Standard output and error that no character and no reader can break: the work of a command is worth more
than what it prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from .failures import FAILED, CommandError


class SturdyStream(TextIOBase):
    """Writes to `stream`: characters that its encoding lacks are replaced by ``?``, and after the first
    failure the rest is discarded, which `broken` tells."""

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
            # Python flushes its streams at the end, and would report the same failure in lines of its own.
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)


@contextmanager
def sturdy_output() -> Iterator[None]:
    """Make standard output and error sturdy while the block runs; missing ones lead nowhere.

    Within the block `check_output` tells whether standard output broke.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file or socket that is opened would be standard output.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # for the voice's processes too
    before = sys.stdout, sys.stderr
    # The streams themselves are None where the process began without them.
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
    """`CommandError` when standard output broke, although what `done` tells is done."""
    sys.stdout.flush()
    if isinstance(sys.stdout, SturdyStream) and (error := sys.stdout.broken) is not None:
        raise CommandError(f"{done}, but the output broke: {error}; check where it goes", FAILED)
