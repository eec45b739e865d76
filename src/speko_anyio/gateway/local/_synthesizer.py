"""Text to speech by hibari-tts, whose voice is part of its package, and by espeak-ng if that is installed."""

from __future__ import annotations

import importlib
import re
import threading
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import anyio
import anyio.to_thread

from speko_anyio._extras import install_extra
from speko_anyio.audio import _pcm as pcm16
from speko_anyio.audio.resample import OFFLINE, resample

from ._espeak import espeak
from ._sentences import clauses, sentences

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from types import ModuleType

DEFAULT_VOICE: Final = "heart"

THREADS: Final = 2
"""Pieces of speech that are synthesized at the same time."""

MAX_CACHED_TEXT: Final = 100
CACHED_TEXTS: Final = 32
"""How many short pieces of speech are kept, such as greetings: at most 12 MB."""

# Seconds
_LEAD_IN: Final = 0.015  # kept before the first sound, and after the last one
_LEAD_OUT: Final = 0.06
_FADE: Final = 0.01
_PAUSES: Final = {
    ",": 0.12,
    ":": 0.18,
    ";": 0.2,
    "—": 0.18,
    "–": 0.18,
    ".": 0.28,
    "!": 0.28,
    "?": 0.3,
    "…": 0.4,
}
_SHORT_PAUSE: Final = 0.04
"""Of silence after a piece of speech, by its last mark, or where it has none."""

_GAIN: Final = 1.5
_PEAK: Final = 0.9
"""hibari's peaks are mostly at 0.3 to 0.55 of full scale, quieter than what else is heard."""

_ARITHMETIC = re.compile(r"(?<=\d) ?([-−–*/]) ?(?=\d[\d.,+*×/÷−– -]*=)")
_OPERATORS: Final = {"-": " minus ", "−": " minus ", "–": " minus ", "*": " times ", "/": " divided by "}
"""hibari reads "7 - 3" as a range and "10/2" as a date, which is right where no equals sign follows."""

_SILENCE: Final = 0.003
"""What is quieter, of 1, is no speech."""


class UnknownVoiceError(ValueError):
    """The offline voice has no voice of that name."""


class _Speaker(Protocol):
    """One voice. Its method blocks."""

    @property
    def sample_rate(self) -> int: ...
    def speak(self, text: str) -> bytes:
        """Return a clause or sentence as PCM16 mono at `sample_rate`, with the pause after it."""
        ...


class Synthesizer(anyio.AsyncContextManagerMixin):
    """The offline voice's speech, a `TextToSpeech`; use it as an async context manager.

    A sentence takes 20 to 80 ms, in a thread. A long one comes in two pieces, so that its first clause is
    heard at once. The same text gets the same samples, and short texts are kept for the next time.

    Args:
        voice: a name, which clients may choose too: ``heart``, American English, is installed with the extra
            ``local``. hibari-tts has others, which work once they are on this machine: its command
            ``hibari --voice emma "Hello."`` downloads one. With the extra ``espeak`` there are espeak-ng's,
            such as ``en-us+f3`` or ``de``.

    Entering raises `UnknownVoiceError`, and ImportError when the extra ``local`` is not installed.
    """

    def __init__(self, voice: str = DEFAULT_VOICE) -> None:
        self._voice = voice
        self._limiter: anyio.CapacityLimiter | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self, None]:
        # Made here and not in the constructor, which may run on trio while the gateway serves on asyncio.
        self._limiter = anyio.CapacityLimiter(THREADS)
        # Loads the models and soxr, so that the first sentence does not wait for them.
        await anyio.to_thread.run_sync(lambda: speak_to_pcm("Ready.", 16_000, voice=self._voice))
        yield self

    async def synthesize(self, text: str, sample_rate: int) -> AsyncGenerator[bytes, None]:
        """See `TextToSpeech.synthesize`. Cancelling it waits for the piece in progress, up to 0.1 s."""
        for part in self.parts(text):
            yield await anyio.to_thread.run_sync(
                _speak, part, sample_rate, self._voice, limiter=self._running()
            )

    def parts(self, text: str) -> Sequence[str]:
        """See `SpeaksInParts.parts`."""
        return _parts(text)

    async def with_voice(self, voice: str) -> Synthesizer:
        """Return the same engine with another voice; raise `UnknownVoiceError` if it is unknown."""
        await anyio.to_thread.run_sync(_speaker, voice, limiter=self._running())
        chosen = Synthesizer(voice)
        chosen._limiter = self._limiter
        return chosen

    def _running(self) -> anyio.CapacityLimiter:
        if self._limiter is None:
            raise RuntimeError("the synthesizer is not running; use it inside `async with Synthesizer()`")
        return self._limiter


def speak_to_pcm(text: str, sample_rate: int, *, voice: str = DEFAULT_VOICE) -> bytes:
    """Speak `text` with the offline voice; return PCM16 mono at `sample_rate` samples a second.

    Blocks for about 20 ms a second of speech, the first time for another 0.6 s: in async code, call it in a
    worker thread, or use a `Synthesizer`.

    Raises:
        UnknownVoiceError: there is no such voice.
        ImportError: the extra ``local`` is not installed.
    """
    return b"".join(_speak(part, sample_rate, voice) for part in _parts(text))


def _parts(text: str) -> Sequence[str]:
    return [clause for sentence in sentences(text) for clause in clauses(sentence)]


def _speak(clause: str, sample_rate: int, voice: str) -> bytes:
    speaker = _speaker(voice)
    return resample(speaker.speak(clause), speaker.sample_rate, sample_rate, quality=OFFLINE)


_loading = threading.Lock()
_loaded: dict[str, _Speaker] = {}


def _speaker(voice: str) -> _Speaker:
    """Return a voice, loaded at the first call (0.6 s). Safe in any thread."""
    hibari = _import("hibari")
    with _loading:
        if voice in _loaded:
            return _loaded[voice]
        if voice in hibari.voices.VOICES:
            _loaded[voice] = _HibariSpeaker(hibari, voice)
            return _loaded[voice]
    if find_spec("espeakng_loader") is not None and espeak().has_voice(voice):
        return _EspeakSpeaker(voice)
    raise UnknownVoiceError(
        f"the offline voice has no voice {voice!r}; leave it out, or name {DEFAULT_VOICE!r} or, where the "
        "gateway has the extra `espeak`, one of espeak-ng's"
    )


class _HibariSpeaker:
    def __init__(self, hibari: ModuleType, voice: str) -> None:
        try:
            # Nothing is downloaded while a client waits, nor because a client wishes it.
            path = hibari.voices.voice_path(voice, download_missing=False)
        except FileNotFoundError:
            raise UnknownVoiceError(
                f"the offline voice has no voice {voice!r} on this machine; leave it out, or run there: "
                f"hibari --voice {voice} Hello"
            ) from None
        self._numpy: Any = _import("numpy")
        self._engine: Any = hibari.Hibari(voice=voice, model=path, threads=1)
        self._phonemizing = threading.Lock()
        self._cached = lru_cache(CACHED_TEXTS)(self._speak)
        self.sample_rate: int = self._engine.sample_rate

    def speak(self, text: str) -> bytes:
        return self._cached(text) if len(text) <= MAX_CACHED_TEXT else self._speak(text)

    def _speak(self, text: str) -> bytes:
        spoken = (self._trim(self._engine.from_phonemes(each, seed=0)) for each in self.phonemes(text))
        mark = text.rstrip("\"'”’)]")[-1:]
        pause = pcm16.silence(_PAUSES.get(mark, _SHORT_PAUSE), self.sample_rate)
        return b"".join(each + pause for each in spoken)

    def phonemes(self, text: str) -> list[str]:
        """Return how `text` is pronounced, a string for each sentence."""
        readable = _ARITHMETIC.sub(lambda match: _OPERATORS[match[1]], text)
        with self._phonemizing:
            return list(self._engine.phonemize(readable))

    def _trim(self, audio: Any) -> bytes:
        """Return PCM16 of the speech alone, faded in and out, so that pieces join without a click."""
        np = self._numpy
        loudness = np.abs(audio)
        loud = np.flatnonzero(loudness > _SILENCE)
        if not len(loud):
            return b""
        start = max(0, loud[0] - round(_LEAD_IN * self.sample_rate))
        audio = audio[start : loud[-1] + round(_LEAD_OUT * self.sample_rate)].copy()
        ramp = np.linspace(0, 1, min(len(audio), round(_FADE * self.sample_rate)), dtype=np.float32)
        audio[: len(ramp)] *= ramp
        audio[-len(ramp) :] *= ramp[::-1]
        return bytes((audio * min(_GAIN, _PEAK / loudness.max()) * 32767).astype("<i2").tobytes())


class _EspeakSpeaker:
    def __init__(self, voice: str) -> None:
        self._voice = voice
        self.sample_rate: int = espeak().sample_rate

    def speak(self, text: str) -> bytes:
        return espeak().speak(text, self._voice)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"speaking needs hibari-tts, which is not installed; {install_extra('local')}", name=name
        ) from error
