"""The process of `WhisperEar`: ``python -m speko_anyio.gateway.local._whisper_worker``, with arguments.

They are a model, a language and a number of threads. A process of its own, like PocketSphinx's, so that the
model's memory and threads end with the ear, and a crash of its libraries ends no gateway.
"""

from __future__ import annotations

import difflib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.utils import available_models, download_model

from ._whisper_model import find_folder
from ._worker_loop import CannotStartError, main
from ._worker_messages import SAMPLE_RATE, Recognised

if TYPE_CHECKING:
    from ._grammar import Grammar


class WhisperEngine:
    """One loaded model, which transcribes in `language`."""

    def __init__(self, model: str, language: str, threads: int) -> None:
        folder = find_model(model)
        try:
            self._model: Any = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)
        except (RuntimeError, ValueError, OSError) as error:
            raise CannotStartError(f"could not load the Whisper model {model!r}: {error}") from None
        self._language = language

    def warm_up(self) -> None:
        """Make the library allocate its buffers."""
        self._transcribe(bytes(SAMPLE_RATE))

    def hear(self, pcm: bytes, grammar: Grammar) -> Recognised:
        """Return what is said in `pcm`. The grammar makes no difference to this model."""
        return Recognised(self._transcribe(pcm), known=False)

    def _transcribe(self, pcm: bytes) -> str:
        audio = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / 32768
        segments, _ = self._model.transcribe(
            audio,
            language=self._language,
            beam_size=5,
            # One attempt: the hotter ones after a doubtful one triple the time of noise and invent words.
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(text for segment in segments if (text := segment.text.strip()))


def find_model(name: str) -> str:
    """Return the folder of a model: `name` itself, or a copy from the Hugging Face hub.

    Downloads it unless it is there already. Raises CannotStartError if that is impossible.
    """
    try:
        folder = find_folder(name)
    except ValueError as error:
        raise CannotStartError(str(error)) from None
    if folder is not None:
        return folder
    known = available_models()
    if "/" not in name and name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}, or name a folder"
        raise CannotStartError(f"knows no Whisper model {name!r}; {hint}")
    try:
        # A model that is there needs no network at all.
        return str(download_model(name, local_files_only=True))
    except (OSError, ValueError):
        pass
    try:
        return str(download_model(name))
    except Exception as error:  # noqa: BLE001 - of the hub's client, whose HTTP library differs by version
        raise CannotStartError(
            f"has no Whisper model {name!r} on this machine and could not download it "
            f"({_first_line(error)}); connect to the network once, or name a folder that holds the model"
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]


if __name__ == "__main__":
    main(partial(WhisperEngine, sys.argv[1], sys.argv[2], int(sys.argv[3])))
