"""Speech detection by loudness for doubles, and their voice, which is a tone."""

from __future__ import annotations

import functools
import math
from array import array
from typing import Final, NamedTuple

from ...audio._pcm import SAMPLE_BYTES, peak_dbfs, to_bytes

LOUD: Final = -40.0
"""Level in dBFS at which audio counts as speech."""

WINDOW_MS: Final = 20
_WINDOWS_TO_START: Final = 2
_TONE_HERTZ: Final = 220
_TONE_LEVEL: Final = 0.3


class SpeechEdge(NamedTuple):
    """Speech began or ended."""

    started: bool
    at_ms: int
    """Position in the received audio, in the provider's unit."""


class Ear:
    """Detects when speech starts and stops, in the time of the audio.

    A client that stops sending audio is still speaking.

    - `silence_ms`: how long it must be quiet for speech to be over.
    - `padding_ms`: how much audio before the first loud moment belongs to the speech.
    """

    def __init__(self, sample_rate: int, *, silence_ms: int, padding_ms: int) -> None:
        self.speaking: bool = False
        self._silence_ms = silence_ms
        self._padding_ms = padding_ms
        self._window = sample_rate * WINDOW_MS // 1000 * SAMPLE_BYTES
        self._rest = b""
        self._heard_ms = 0
        self._loud = 0
        self._quiet_ms = 0

    def hear(self, pcm: bytes) -> list[SpeechEdge]:
        """Return the edges of speech within `pcm`."""
        turns: list[SpeechEdge] = []
        audio = self._rest + pcm
        whole = len(audio) - len(audio) % self._window
        for start in range(0, whole, self._window):
            self._heard_ms += WINDOW_MS
            loud = peak_dbfs(audio[start : start + self._window]) > LOUD
            self._loud = self._loud + 1 if loud else 0
            self._quiet_ms = 0 if loud else self._quiet_ms + WINDOW_MS
            if not self.speaking and self._loud >= _WINDOWS_TO_START:
                self.speaking = True
                began = self._heard_ms - self._loud * WINDOW_MS - self._padding_ms
                turns.append(SpeechEdge(started=True, at_ms=max(0, began)))
            elif self.speaking and self._quiet_ms >= self._silence_ms:
                self.speaking = False
                turns.append(SpeechEdge(started=False, at_ms=self._heard_ms))
        self._rest = audio[whole:]
        return turns

    def forget(self) -> None:
        """Forget the audio so far."""
        self.speaking = False
        self._rest = b""
        self._loud = 0
        self._quiet_ms = 0


@functools.cache
def _second(sample_rate: int) -> bytes:
    step = 2 * math.pi * _TONE_HERTZ / sample_rate
    return to_bytes(
        array("h", [round(32767 * _TONE_LEVEL * math.sin(step * at)) for at in range(sample_rate)])
    )


def tone(seconds: float, sample_rate: int) -> bytes:
    """Make `seconds` of PCM16, rounded to the nearest sample, that is loud enough to count as speech."""
    second = _second(sample_rate)
    size = round(seconds * sample_rate) * SAMPLE_BYTES
    return (second * (size // len(second) + 1))[:size]
