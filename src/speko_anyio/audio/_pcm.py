"""Arithmetic on PCM16: little-endian signed 16-bit samples, mono unless stated otherwise.

Every function takes whole samples and raises `ValueError` for an odd number of bytes
(`speko_anyio.protocol._pcm.whole_samples` splits a stream of bytes into whole samples).
"""

from __future__ import annotations

import math
import sys
from array import array
from typing import Final

SAMPLE_BYTES: Final = 2

FULL_SCALE: Final = 32768
"""The magnitude that is 0 dBFS."""

SILENCE_DBFS: Final = -96.0
"""The level reported for digital silence: the floor of 16 bits, so that levels stay finite."""


def samples(pcm: bytes) -> array[int]:
    """Return the samples of `pcm` as native integers."""
    _check_whole(pcm, SAMPLE_BYTES)
    values = array("h", pcm)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def to_bytes(values: array[int]) -> bytes:
    """Invert `samples`; `values` must have type code ``h``."""
    if sys.byteorder == "big":
        values = array("h", values)
        values.byteswap()
    return values.tobytes()


def duration(pcm: bytes, sample_rate: int) -> float:
    """Return how many seconds `pcm` lasts at `sample_rate` samples a second."""
    return len(pcm) // SAMPLE_BYTES / sample_rate


def byte_count(seconds: float, sample_rate: int) -> int:
    """Return the number of bytes of `seconds` of audio, rounded to the nearest sample."""
    return round(seconds * sample_rate) * SAMPLE_BYTES


def silence(seconds: float, sample_rate: int) -> bytes:
    """Return `seconds` of digital silence, rounded to the nearest sample."""
    return bytes(byte_count(seconds, sample_rate))


def rms_dbfs(pcm: bytes) -> float:
    """Return the RMS level in dB relative to full scale: 0 for a full-scale square wave, -3 for a sine.

    For empty input and digital silence it is `SILENCE_DBFS`.
    """
    values = samples(pcm)
    if not values:
        return SILENCE_DBFS
    # sumprod would be faster, but is new in Python 3.12
    return _dbfs(math.sqrt(sum(value * value for value in values) / len(values)))


def peak_dbfs(pcm: bytes) -> float:
    """Return the level of the loudest sample in dB relative to full scale; `SILENCE_DBFS` for empty input."""
    values = samples(pcm)
    if not values:
        return SILENCE_DBFS
    return _dbfs(max(max(values), -min(values)))


def downmix(pcm: bytes, channels: int) -> bytes:
    """Mix `channels` interleaved channels down to mono: their mean, rounded down, so it can't clip."""
    if channels < 1:
        raise ValueError(f"audio has at least one channel, not {channels}")
    _check_whole(pcm, SAMPLE_BYTES * channels)
    if channels == 1:
        return pcm
    values = samples(pcm)
    tracks = [values[channel::channels] for channel in range(channels)]
    return to_bytes(array("h", (sum(frame) // channels for frame in zip(*tracks, strict=True))))


def _dbfs(magnitude: float) -> float:
    if magnitude == 0:
        return SILENCE_DBFS
    return max(SILENCE_DBFS, 20 * math.log10(magnitude / FULL_SCALE))


def _check_whole(pcm: bytes, frame_bytes: int) -> None:
    if len(pcm) % frame_bytes:
        raise ValueError(f"{len(pcm)} bytes are not whole frames of {frame_bytes} bytes; pass whole samples")
