"""Sessions of the command line, written down when that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..observe.observer import Observer
from .failures import BAD_INPUT, CommandError


@contextmanager
def recorded_to(directory: Path | None) -> Iterator[Observer | None]:
    """What observes the session of the block, so that it is in `directory` afterwards, also when it failed;
    None when there is nowhere to write. `CommandError` when it can't be written."""
    if directory is None:
        yield None
        return
    from ..recording.recorder import Recorder

    recorder = Recorder()
    try:
        # Now, and not when there is something to lose.
        directory.mkdir(parents=True, exist_ok=True)
        try:
            yield recorder
        finally:
            for recording in recorder.recordings:
                recording.save(directory)
    except OSError as error:
        raise CommandError(
            f"can't write {error.filename or directory}: {error.strerror}; choose another --record", BAD_INPUT
        ) from None
