"""Text to speech by espeak-ng, loaded from the `espeakng-loader` package; GPL-3.0, hence only an extra."""

from __future__ import annotations

import ctypes
import importlib
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from speko_anyio._extras import install_extra
from speko_anyio.audio.resample import OFFLINE, resample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

DEFAULT_VOICE: Final = "en-us"

MAX_TEXT: Final = 2_000
"""Characters that are spoken of one text: about two minutes."""

_PIECE: Final = 200
"""Characters synthesised at a time, about 15 ms of work: a thread that is no longer wanted ends soon."""

# Of espeak-ng's speak_lib.h
_SYNCHRONOUS: Final = 2
_DONT_EXIT: Final = 0x8000
_UTF8: Final = 1
_RATE: Final = 1
_SENTENCE = re.compile(
    rf".{{1,{_PIECE}}}?(?:[.!?;](?=\s)|\Z)|.{{1,{_PIECE}}}(?=\s)|.{{1,{_PIECE}}}", re.DOTALL
)
_VOICE_NAME = re.compile(r"[A-Za-z0-9+_-]{1,40}\Z")


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class UnknownVoiceError(ValueError):
    """espeak-ng has no voice of that name."""


class Synthesizer:
    """The one espeak-ng of this process. Its state is global, so calls take turns; get it from `synthesizer`.

    Every method blocks: about 2 ms for a sentence.
    """

    def __init__(self) -> None:
        loader = _import_loader()
        self._lock = threading.Lock()
        self._library = ctypes.CDLL(loader.get_library_path())
        self._out = bytearray()
        self._callback = _CALLBACK(self._take)  # kept: ctypes does not hold what C keeps a pointer to
        self.sample_rate: int = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, loader.get_data_path().encode(), _DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise RuntimeError("espeak-ng found no voice data; reinstall the package espeakng-loader")
        self._library.espeak_SetSynthCallback(self._callback)

    def check_voice(self, voice: str) -> None:
        """Raise UnknownVoiceError if espeak-ng has no `voice`."""
        with self._lock:
            self._select(voice)

    def speak(self, text: str, *, voice: str = DEFAULT_VOICE, words_per_minute: int = 165) -> bytes:
        """Return `text` as PCM16 mono at `sample_rate`; raise UnknownVoiceError for an unknown voice.

        The pitch flutters from call to call: no two calls return the same samples, nor quite the same length.
        """
        with self._lock:
            self._select(voice)
            self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
            self._out.clear()
            encoded = text.encode() + b"\0"
            self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
            return bytes(self._out)

    def _select(self, voice: str) -> None:
        # The name reaches a C library that opens files by it: nothing but a name may pass.
        if not _VOICE_NAME.match(voice) or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UnknownVoiceError(
                f"the offline voice has no voice {voice!r}; "
                "leave it out, or name one of espeak-ng's, such as 'en-us'"
            )

    def _take(self, samples: Any, count: int, _events: object) -> int:
        if samples and count:
            self._out += ctypes.string_at(samples, count * 2)
        return 0


_creation = threading.Lock()
_created: list[Synthesizer] = []


def synthesizer() -> Synthesizer:
    """Return the process's synthesizer, loaded at the first call (about 10 ms). Safe in any thread.

    Raises ImportError when `espeakng-loader` is not installed.
    """
    with _creation:
        if not _created:
            _created.append(Synthesizer())
        return _created[0]


def pieces(text: str) -> Iterator[str]:
    """Cut `text` at `MAX_TEXT`, and into pieces of up to 200 characters, if possible at a sentence's end."""
    for match in _SENTENCE.finditer(text[:MAX_TEXT]):
        if piece := match[0].strip():
            yield piece


def speak_to_pcm(text: str, sample_rate: int, *, voice: str = DEFAULT_VOICE) -> bytes:
    """Speak `text` with espeak-ng's `voice`; return PCM16 mono at `sample_rate` samples a second.

    Blocks for about 1 ms a 20 characters: in async code, call it in a worker thread.

    Raises:
        UnknownVoiceError: espeak-ng has no such voice.
        ImportError: the extra ``local`` is not installed.
    """
    source = synthesizer()
    pcm = b"".join(source.speak(piece, voice=voice) for piece in pieces(text))
    return resample(pcm, source.sample_rate, sample_rate, quality=OFFLINE)


def _import_loader() -> ModuleType:
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise ImportError(
            f"speaking needs espeak-ng, which is not installed; {install_extra('local')}",
            name="espeakng_loader",
        ) from error
