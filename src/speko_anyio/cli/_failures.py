"""The failures of the command: a readable line for each, and an exit code that scripts can tell apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from ..errors import APIConnectionError, APIStatusError, ConfigurationError, MissingAPIKeyError
from ..protocol.errors import HandshakeError, SpekoError

FAILED: Final = 1
"""Something went wrong that no other code names."""
USAGE: Final = 2
"""The command line makes no sense (argparse's own code for it)."""
BAD_INPUT: Final = 3
"""A file can't be read or written, or is not a usable WAV."""
REFUSED: Final = 4
"""The service said no: wrong key, unknown provider, too many requests."""
UNREACHABLE: Final = 5
"""Nobody answered at that address."""
NO_ANSWER: Final = 6
"""The session worked, but no answer came, or not all of it."""
INTERRUPTED: Final = 130
"""Ctrl-C (128 + SIGINT, as shells count)."""

EXIT_CODES_HELP: Final = (
    "exit codes: 0 done, 1 failed, 2 usage, 3 bad input file, 4 refused by the service, "
    "5 unreachable, 6 no complete answer, 130 interrupted"
)


class CommandError(Exception):
    """The command can't continue.

    It has the message to print, `more` messages if there are several faults, and the exit code.
    """

    def __init__(self, message: str, exit_code: int = FAILED, *, more: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.lines: tuple[str, ...] = (message, *more)


def exit_code_of(error: SpekoError) -> int:
    """Return the exit code for an error of the library."""
    if isinstance(error, (MissingAPIKeyError, ConfigurationError)):
        return USAGE
    if isinstance(error, APIConnectionError):
        return UNREACHABLE
    if isinstance(error, (APIStatusError, HandshakeError)):
        return REFUSED
    return FAILED


def no_listening(host: str, port: int, error: Exception) -> CommandError:
    """Return the error for an address that can't be used, without the text that `create_server` adds."""
    if isinstance(error, OSError):
        # A failed name look-up has a negative number, which is not an errno.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else str(error.strerror or error).partition(" (while")[0]
    else:
        why = "that is not a host name"
    return CommandError(f"can't listen on {host}:{port}: {why}; choose another host or port", USAGE)
