"""`speko-anyio timeline`: a recorded session as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import anyio.to_thread

from ..recording.picture import draw_timeline
from ..recording.recording import Recording, RecordingError
from . import files
from .failures import BAD_INPUT, CommandError


async def timeline(options: argparse.Namespace) -> None:
    """Read the recording, write the picture, say where it is."""
    files.check_writable(options.output)
    await anyio.to_thread.run_sync(_draw, options.recording, options.output, options.title)
    print(f"timeline  written to {options.output}")


def _draw(directory: Path, output: Path, title: str) -> None:
    try:
        recording = Recording.load(directory)
    except RecordingError as error:
        raise CommandError(str(error), BAD_INPUT) from None
    except OSError as error:
        raise CommandError(
            f"can't read a recording in {directory}: {error.strerror}; check the path", BAD_INPUT
        ) from None
    picture = draw_timeline(recording, title=title)
    try:
        output.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"can't write {output}: {error.strerror}; choose another -o", BAD_INPUT) from None
