"""The offline voice's ears: speech to text in processes of their own, which never hold the event loop."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import anyio

from speko_anyio._extras import install_extra
from speko_anyio.audio.resample import resample

from ._grammar import Grammar
from ._recognizer import POCKETSPHINX, WHISPER, RecognizerError, open_recognizer
from ._whisper_model import find_folder
from ._worker_messages import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import Self

    from ..engines import SpeechToText
    from ._recognizer import Recognizer


@runtime_checkable
class ExpectsPhrases(Protocol):
    """Speech to text that recognises better if it knows what may be said. Optional."""

    def expecting(self, phrases: Grammar) -> SpeechToText:
        """Return the same engine, which expects these phrases."""
        ...


@runtime_checkable
class RecognizesAhead(Protocol):
    """Speech to text that says when it can recognise a turn before it has ended. Optional.

    Without it, a turn is recognised ahead whenever the user pauses.
    """

    def recognizes_ahead(self, *, paused: bool) -> bool:
        """Return whether to recognise the turn so far now; `paused`: the user is silent."""
        ...


class PocketsphinxEar(anyio.AsyncContextManagerMixin):
    """Speech to text by PocketSphinx, the default: fast, and good at expected phrases (extra ``local``).

    It takes about 0.02 s for an expected phrase, and otherwise a tenth of the speech's duration. It often
    mishears what it does not expect. It understands English. Use it as an async context manager.

    Args:
        phrases: what may be said; the offline voice adds the phrases of each session's tools.
        workers: processes, each about 180 MB, which take one utterance at a time.

    Entering raises `EngineError` if a process does not start, and ImportError if the extra is not installed.
    """

    def __init__(self, *, phrases: Grammar | None = None, workers: int = 1) -> None:
        self._phrases = phrases or Grammar(())
        self._workers = workers
        self._recognizer: Recognizer | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator[Self]:
        _check_installed("pocketsphinx", "local")
        async with open_recognizer(workers=self._workers, command=POCKETSPHINX) as self._recognizer:
            try:
                yield self
            finally:
                self._recognizer = None

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        """Return the words of `pcm`, PCM16 mono at `sample_rate`, in lower case; empty if it has none.

        Raises `EngineError` if too many utterances wait, or the process failed twice.
        """
        return await _transcribe(self._recognizer, pcm, sample_rate, self._phrases)

    def expecting(self, phrases: Grammar) -> SpeechToText:
        """Return the same ear for these phrases."""
        return _Expecting(self, phrases)

    def recognizes_ahead(self, *, paused: bool) -> bool:
        """Return whether a process is idle; else it would delay the final transcript of another session."""
        return self._recognizer is not None and self._recognizer.idle


class WhisperEar(anyio.AsyncContextManagerMixin):
    """Speech to text by Whisper (extra ``whisper``): accurate, at the price of time.

    With ``tiny.en`` an utterance of up to 30 seconds takes half a second to a second of one core, however
    long it is. To save work, speech is recognised ahead only in pauses. Use it as an async context manager.

    Args:
        model: a name that `faster-whisper` knows, such as ``tiny.en`` or ``small``, a repository of the
            Hugging Face hub, or a folder with a model in CTranslate2's format. A model that is not on this
            machine is downloaded when the ear is entered, into the hub's cache.
        language: of the speech; models whose name ends with ``.en`` know English only.
        workers: processes, which take one utterance at a time; each holds the model.
        threads: threads of each process; 0 lets the library choose.

    Entering raises `EngineError` if the model is unknown or can't be downloaded, or a process does not start,
    and ImportError if the extra is not installed.
    """

    def __init__(
        self, model: str = "tiny.en", *, language: str = "en", workers: int = 1, threads: int = 0
    ) -> None:
        self.model: str = model
        self._arguments: Sequence[str] = (model, language, str(threads))
        self._workers = workers
        self._recognizer: Recognizer | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator[Self]:
        _check_installed("faster_whisper", "whisper")
        command = (*WHISPER, *self._arguments)
        async with open_recognizer(
            workers=self._workers, command=command, extra="whisper"
        ) as self._recognizer:
            try:
                yield self
            finally:
                self._recognizer = None

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        """Return the text of `pcm`, PCM16 mono at `sample_rate`, with punctuation; empty if it has none.

        Raises `EngineError` if too many utterances wait, or the process failed twice.
        """
        return await _transcribe(self._recognizer, pcm, sample_rate, Grammar(()))

    def recognizes_ahead(self, *, paused: bool) -> bool:
        """Return whether the user pauses and a process is idle."""
        return paused and self._recognizer is not None and self._recognizer.idle


def make_ear(choice: str) -> PocketsphinxEar | WhisperEar:
    """Return the ear that an operator names: ``pocketsphinx``, ``whisper`` or ``whisper:MODEL``.

    Raises ValueError for another name, for an ear whose extra is not installed, and for a folder without a
    model.
    """
    kind, colon, model = choice.partition(":")
    if kind == "pocketsphinx" and not colon:
        return PocketsphinxEar()
    if kind != "whisper" or (colon and not model):
        raise ValueError(f"unknown ear {choice!r}; choose pocketsphinx, or a model as in whisper:tiny.en")
    try:
        _check_installed("faster_whisper", "whisper")
    except ImportError as error:
        raise ValueError(str(error)) from None
    if not model:
        return WhisperEar()
    try:
        find_folder(model)
    except ValueError as error:
        raise ValueError(f"the ear {choice} {error}") from None
    return WhisperEar(model)


class _Expecting:
    def __init__(self, ear: PocketsphinxEar, phrases: Grammar) -> None:
        self._ear = ear
        self._phrases = phrases

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        return await _transcribe(self._ear._recognizer, pcm, sample_rate, self._phrases)

    def recognizes_ahead(self, *, paused: bool) -> bool:
        return self._ear.recognizes_ahead(paused=paused)


async def _transcribe(recognizer: Recognizer | None, pcm: bytes, sample_rate: int, phrases: Grammar) -> str:
    if recognizer is None:
        raise RecognizerError("the recogniser is not running; use the ear inside `async with`")
    return (await recognizer.hear(resample(pcm, sample_rate, SAMPLE_RATE), phrases)).text


def _check_installed(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise ImportError(
            f"recognising speech needs {module}, which is not installed; {install_extra(extra)}", name=module
        )
