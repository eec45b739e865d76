"""Spoken questions, always the same samples."""

from __future__ import annotations

import functools
import subprocess
import sys

from .patience import PATIENCE

_SPEAK = (
    "import sys; from speko_anyio.gateway.local import speak_to_pcm; "
    "sys.stdout.buffer.write(speak_to_pcm(sys.argv[1], int(sys.argv[2])))"
)


@functools.cache
def spoken(text: str, sample_rate: int) -> bytes:
    """PCM16 mono of `text` at `sample_rate`, by the offline voice in a new process.

    The synthesiser's pitch flutters on from one call to the next. In this process the samples would depend on
    all that was said before, and so on timing; a recogniser that is unsure would hear now this, now that.
    """
    command = [sys.executable, "-c", _SPEAK, text, str(sample_rate)]
    return subprocess.run(command, stdout=subprocess.PIPE, timeout=PATIENCE, check=True).stdout
