"""Audio for tests that looks and sounds like speech, without a recording or a synthesiser."""

from __future__ import annotations

import math
from array import array
from random import Random
from typing import Final

from ..audio._pcm import to_bytes
from ..protocol.mint import DEFAULT_SAMPLE_RATE

_SYLLABLE: Final = (0.11, 0.26)
"""Length in seconds, the shortest and the longest."""
_VOLUME: Final = 9_000
"""The largest sample of the loudest syllable: ordinary speech, far from clipping."""


def mumble(
    seconds: float, *, sample_rate: int = DEFAULT_SAMPLE_RATE, pitch: float = 120.0, seed: int = 0
) -> bytes:
    """Make `seconds` of speech without words: PCM16 syllables that vary in length, loudness and pitch.

    The same arguments return the same bytes. `pitch` is in Hz: 120 is a man's voice, 210 a woman's.
    """
    random = Random(seed)  # noqa: S311 - nothing to guess here
    total = round(seconds * sample_rate)
    values = array("h")
    phase = 0.0
    while len(values) < total:
        length = min(round(random.uniform(*_SYLLABLE) * sample_rate), total - len(values))
        volume = _VOLUME * random.uniform(0.35, 1.0) / 1.75
        height = pitch * random.uniform(0.85, 1.2)
        for index in range(length):
            phase += 2 * math.pi * height / sample_rate
            envelope = math.sin(math.pi * (index + 0.5) / length)
            tone = math.sin(phase) + 0.5 * math.sin(2 * phase) + 0.25 * math.sin(5 * phase)
            values.append(round(volume * envelope * tone))
    return to_bytes(values)
