"""The voices of espeak-ng, loaded from the `espeakng-loader` package; GPL-3.0, hence an extra of its own."""

from __future__ import annotations

import ctypes
import importlib
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from speko_anyio._extras import install_extra

if TYPE_CHECKING:
    from types import ModuleType

WORDS_PER_MINUTE: Final = 165

# Of espeak-ng's speak_lib.h
_SYNCHRONOUS: Final = 2
_DONT_EXIT: Final = 0x8000
_UTF8: Final = 1
_RATE: Final = 1
_VOICE_NAME = re.compile(r"[A-Za-z0-9+_-]{1,40}\Z")

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """The one espeak-ng of this process. Its state is global, so calls take turns; get it from `espeak`.

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

    def has_voice(self, voice: str) -> bool:
        """Return whether espeak-ng has `voice`."""
        with self._lock:
            return self._select(voice)

    def speak(self, text: str, voice: str) -> bytes:
        """Return `text` as PCM16 mono at `sample_rate`; nothing for an unknown voice.

        The pitch flutters from call to call: no two calls return the same samples, nor quite the same length.
        """
        with self._lock:
            if not self._select(voice):
                return b""
            self._library.espeak_SetParameter(_RATE, WORDS_PER_MINUTE, 0)
            self._out.clear()
            encoded = text.encode() + b"\0"
            self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
            return bytes(self._out)

    def _select(self, voice: str) -> bool:
        # The name reaches a C library that opens files by it: nothing but a name may pass.
        return bool(_VOICE_NAME.match(voice) and self._library.espeak_SetVoiceByName(voice.encode()) == 0)

    def _take(self, samples: Any, count: int, _events: object) -> int:
        if samples and count:
            self._out += ctypes.string_at(samples, count * 2)
        return 0


_creation = threading.Lock()
_created: list[Espeak] = []


def espeak() -> Espeak:
    """Return the process's espeak-ng, loaded at the first call (about 10 ms). Safe in any thread.

    Raises ImportError when `espeakng-loader` is not installed.
    """
    with _creation:
        if not _created:
            _created.append(Espeak())
        return _created[0]


def _import_loader() -> ModuleType:
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise ImportError(
            f"this voice needs espeak-ng, which is not installed; {install_extra('espeak')}",
            name="espeakng_loader",
        ) from error
