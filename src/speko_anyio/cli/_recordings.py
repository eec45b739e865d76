"""Recorded sessions: ``--record`` writes one, `speko-anyio timeline` draws it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread

from .._observe.observer import ObserverFactory
from . import _files as files
from ._failures import BAD_INPUT, CommandError


@contextmanager
def recorded_to(directory: Path | None) -> Iterator[ObserverFactory | None]:
    """Yield an observer that writes the block's session to `directory`, also if the session fails.

    Yields None if `directory` is None. Raises `CommandError` if the directory can't be written.
    """
    if directory is None:
        yield None
        return
    from ..recording._recorder import Recorder

    recorder = Recorder()
    with files.writing(directory, "--record"):
        # Made before there is a session to lose.
        directory.mkdir(parents=True, exist_ok=True)
        try:
            yield recorder
        finally:
            for recording in recorder.recordings:
                recording.save(directory)


async def timeline(options: argparse.Namespace) -> None:
    """Read the recording, write the picture, say where it is."""
    files.check_writable(options.output)
    await anyio.to_thread.run_sync(_draw, options.recording, options.output, options.title)
    print(f"timeline  written to {options.output}")


def _draw(directory: Path, output: Path, title: str) -> None:
    from ..recording._picture import draw_timeline
    from ..recording._recording import Recording, RecordingError

    try:
        recording = Recording.load(directory)
    except RecordingError as error:
        raise CommandError(str(error), BAD_INPUT) from None
    except OSError as error:
        raise CommandError(
            f"can't read a recording in {directory}: {error.strerror}; check the path", BAD_INPUT
        ) from None
    with files.writing(output):
        output.write_text(draw_timeline(recording, title=title), encoding="utf-8")
