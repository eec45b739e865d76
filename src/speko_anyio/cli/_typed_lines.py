"""Lines that the user types during a conversation."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Final

import anyio
import anyio.lowlevel

_MAX_LINE: Final = 16 * 1024
"""The most bytes of a line; the rest of a longer one is a line of its own. A terminal's lines have 4 KiB."""

_STDIN: Final = 0


async def typed_lines() -> AsyncGenerator[str, None]:
    """Iterate over the lines of standard input that are not blank. Cancelling it may lose part of a line.

    It yields nothing if another job has the terminal, since reading would stop the process. No thread waits
    for the input, since it would keep the process from ending.
    """
    if os.isatty(_STDIN) and os.tcgetpgrp(_STDIN) != os.getpgrp():
        return
    waiting = b""
    while True:
        try:
            await anyio.wait_readable(_STDIN)
        except OSError:
            await anyio.lowlevel.checkpoint()  # a file or /dev/null, which is always readable
        data = os.read(_STDIN, _MAX_LINE)
        *lines, waiting = (waiting + data).split(b"\n")
        if not data or len(waiting) >= _MAX_LINE:
            lines.append(waiting)
            waiting = b""
        for line in lines:
            if text := line.decode(errors="replace").strip():
                yield text
        if not data:
            return
