"""WAV files of the command line: failures become one line."""

from __future__ import annotations

import os
from pathlib import Path

import anyio.to_thread

from ..audio.wav import Wav, WavError, read_wav, write_wav
from .failures import BAD_INPUT, CommandError


async def load(path: Path, sample_rate: int) -> bytes:
    """PCM16 mono of the WAV at `path`, at `sample_rate`; `CommandError` when it can't be had."""
    try:
        wav: Wav = await anyio.to_thread.run_sync(lambda: read_wav(path, sample_rate=sample_rate))
    except WavError as error:
        raise CommandError(str(error), BAD_INPUT) from None
    except OSError as error:
        raise CommandError(f"can't read {path}: {error.strerror}; check the path", BAD_INPUT) from None
    return wav.pcm


async def load_or_speak(path: Path | None, text: str, sample_rate: int) -> bytes:
    """The recording at `path`, or else `text` as the offline voice speaks it; or `CommandError`."""
    if path is not None:
        return await load(path, sample_rate)
    try:
        from ..gateway.local import speak_to_pcm

        return await anyio.to_thread.run_sync(speak_to_pcm, text, sample_rate)
    except ImportError as error:
        raise CommandError(f"the offline voice is not installed ({error})") from None


async def save(path: Path, pcm: bytes, sample_rate: int) -> None:
    """Write PCM16 mono to `path` as a WAV; `CommandError` when it can't be."""
    try:
        await anyio.to_thread.run_sync(write_wav, path, pcm, sample_rate)
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror}; choose another -o", BAD_INPUT) from None


def check_writable(path: Path) -> None:
    """Before a conversation is held whose end would be lost: can `path` be written at all?"""
    folder = path.parent
    if path.is_dir():
        what = "it is a folder"
    elif not folder.is_dir():
        what = f"{folder} is no folder"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        what = "it may not be written"
    else:
        return
    raise CommandError(f"can't write {path}: {what}; choose another -o", BAD_INPUT)
