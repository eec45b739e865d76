"""The command's files: a failure to read or write one becomes a line for the user."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread

from ..audio.wav import WavError, read_wav, write_wav
from ..client._history import HistoryItem
from ._failures import BAD_INPUT, CommandError


async def load(path: Path, sample_rate: int) -> bytes:
    """Return the WAV at `path` as PCM16 mono at `sample_rate`; raise `CommandError` if that fails."""
    try:
        return (await anyio.to_thread.run_sync(lambda: read_wav(path, sample_rate=sample_rate))).pcm
    except WavError as error:
        raise CommandError(str(error), BAD_INPUT) from None
    except OSError as error:
        raise CommandError(f"can't read {path}: {error.strerror}; check the path", BAD_INPUT) from None


async def load_history(path: Path | None) -> tuple[HistoryItem, ...]:
    """Return the history in the file at `path`, if there is one; raise `CommandError` if that fails."""
    if path is None:
        return ()
    try:
        return HistoryItem.from_json(await anyio.to_thread.run_sync(path.read_bytes))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise CommandError(f"can't use {path}: {error}", BAD_INPUT) from None
    except OSError as error:
        raise CommandError(f"can't read {path}: {error.strerror}; check the path", BAD_INPUT) from None


async def save_history(path: Path, history: Iterable[HistoryItem]) -> None:
    """Write `history` to the file at `path`; raise `CommandError` if that fails."""
    with writing(path, "--history"):
        await anyio.to_thread.run_sync(path.write_text, HistoryItem.to_json(history), "utf-8")


async def load_or_speak(path: Path | None, text: str, sample_rate: int) -> bytes:
    """Return the recording at `path`, or else `text` spoken by the offline voice; or raise `CommandError`."""
    if path is not None:
        return await load(path, sample_rate)
    try:
        from ..gateway.local import speak_to_pcm

        return await anyio.to_thread.run_sync(speak_to_pcm, text, sample_rate)
    except ImportError as error:
        raise CommandError(f"the offline voice is not installed ({error})") from None


async def save(path: Path, pcm: bytes, sample_rate: int) -> None:
    """Write PCM16 mono to `path` as a WAV; raise `CommandError` if that fails."""
    with writing(path):
        await anyio.to_thread.run_sync(write_wav, path, pcm, sample_rate)


@contextmanager
def writing(path: Path, option: str = "-o") -> Iterator[None]:
    """Turn the block's failure to write `path`, which the user gave by `option`, into a `CommandError`."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(error.filename or path, error.strerror, option) from None


def check_writable(path: Path, option: str = "-o") -> None:
    """Raise `CommandError` if `path`, which the user gave by `option`, can't be written.

    Now, not after a conversation that would be lost.
    """
    folder = path.parent
    if path.is_dir():
        why = "it is a folder"
    elif not folder.is_dir():
        why = f"{folder} is no folder"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        why = "it may not be written"
    else:
        return
    raise _cannot_write(path, why, option)


def _cannot_write(path: object, why: str | None, option: str = "-o") -> CommandError:
    return CommandError(f"can't write {path}: {why}; choose another {option}", BAD_INPUT)
