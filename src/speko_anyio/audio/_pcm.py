"""Arithmetic on PCM16: little-endian signed 16-bit samples, mono unless stated otherwise.

Every function takes bytes, or an array of int16, of whole samples. It raises `ValueError` for an odd number
of bytes (`speko_anyio.protocol._pcm.whole_samples` splits a stream of bytes into whole samples), and
TypeError for an array of other samples.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from typing import Final

from ..protocol._pcm import Buffer, pcm_bytes

SAMPLE_BYTES: Final = 2

FULL_SCALE: Final = 32768
"""The magnitude that is 0 dBFS."""

SILENCE_DBFS: Final = -96.0
"""The level reported for digital silence: the floor of 16 bits, so that levels stay finite."""

_LOUDEST: Final = FULL_SCALE - 1

_GAIN_BITS: Final = 24
"""The bits after the point of a factor: enough for half a step of a sample at any factor."""

_MAX_GAIN: Final = 96.0
"""Decibels: the smallest sample at full scale."""

_FLIPPED: Final = bytes(value ^ 0x80 for value in range(256))
"""Adds 32768 to a sample in its high byte, or subtracts it."""

_MIXED: Final = 1 << 30
"""Keeps sums positive; what the two high bytes of a sum hold beyond it did not fit."""


def samples(pcm: Buffer) -> array[int]:
    """Return the samples of `pcm` as native integers."""
    values = array("h", _whole(pcm))
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


def rms_dbfs(pcm: Buffer) -> float:
    """Return the RMS level in dB relative to full scale: 0 for a full-scale square wave, -3 for a sine.

    For empty input and digital silence it is `SILENCE_DBFS`.
    """
    values = samples(pcm)
    if not values:
        return SILENCE_DBFS
    # sumprod would be faster, but is new in Python 3.12
    return _dbfs(math.sqrt(sum(value * value for value in values) / len(values)))


def peak_dbfs(pcm: Buffer) -> float:
    """Return the level of the loudest sample in dB relative to full scale; `SILENCE_DBFS` for empty input."""
    return _dbfs(_peak(samples(pcm)))


def _peak(values: array[int]) -> int:
    return max(max(values), -min(values)) if values else 0


def gain(pcm: Buffer, decibels: float) -> bytes:
    """Make `pcm` louder by `decibels`, or quieter if that is negative. Samples beyond full scale are clipped.

    6 dB are about twice the amplitude, and minus infinity is silence. ValueError for NaN, or more than 96.
    """
    if not decibels <= _MAX_GAIN:
        raise ValueError(f"the gain is a number of decibels up to {_MAX_GAIN:g}, not {decibels!r}")
    pcm = _whole(pcm)
    one, half = 1 << _GAIN_BITS, 1 << _GAIN_BITS - 1
    factor = round(10 ** (decibels / 20) * one)
    if factor > one and _peak(values := samples(pcm)) * factor >= _LOUDEST * one:
        return _clipped([value * factor + half >> _GAIN_BITS for value in values])
    # Each sample plus 32768, times the factor, plus what makes that 32768 again.
    again = FULL_SCALE * one + half - FULL_SCALE * factor
    count = len(pcm) // SAMPLE_BYTES
    scaled = _lanes(pcm, 6) * factor + _every(again, count, 6)
    return _from_lanes(scaled.to_bytes(6 * count, "little"), 6, at=_GAIN_BITS // 8)


def mix(*pieces: Buffer) -> bytes:
    """Add up audio of one sample rate that begins at the same time, as a mixer does.

    Pieces that are shorter than the longest are silent from there on. Samples beyond full scale are clipped:
    lower the pieces with `gain` first if they are loud.
    """
    tracks = [_whole(piece) for piece in pieces]
    size = max(map(len, tracks), default=0)
    count = size // SAMPLE_BYTES
    offset = _MIXED - FULL_SCALE * (len(tracks) - 1)
    total = sum(_lanes(track.ljust(size, b"\0"), 4) for track in tracks) + _every(offset, count, 4)
    lanes = total.to_bytes(4 * count, "little")
    if lanes[2::4].count(0) == lanes[3::4].count(_MIXED >> 24) == count:
        return _from_lanes(lanes, 4)
    return _clipped([lane - _MIXED - FULL_SCALE for lane in struct.unpack(f"<{count}I", lanes)])


def _lanes(pcm: bytes, width: int) -> int:
    """Return the samples plus 32768 as one number, each in `width` bytes of it.

    One operation on that number is one on all samples: some ten times as fast as one by one.
    """
    lanes = bytearray(len(pcm) // SAMPLE_BYTES * width)
    lanes[0::width] = pcm[0::2]
    lanes[1::width] = pcm[1::2].translate(_FLIPPED)
    return int.from_bytes(lanes, "little")


def _every(value: int, count: int, width: int) -> int:
    """Return what adds `value`, which may be negative or wider than a lane, to each of `count` lanes."""
    return value * int.from_bytes(b"\1".ljust(width, b"\0") * count, "little")


def _from_lanes(lanes: bytes, width: int, *, at: int = 0) -> bytes:
    """Invert `_lanes`; the samples begin at byte `at` of each lane."""
    pcm = bytearray(len(lanes) // width * SAMPLE_BYTES)
    pcm[0::2] = lanes[at::width]
    pcm[1::2] = lanes[at + 1 :: width].translate(_FLIPPED)
    return bytes(pcm)


def _clipped(values: list[int]) -> bytes:
    top, bottom = _LOUDEST, -FULL_SCALE
    # A call of max() for each sample would take twice as long.
    return to_bytes(array("h", [top if v > top else bottom if v < bottom else v for v in values]))  # noqa: FURB136


def downmix(pcm: Buffer, channels: int) -> bytes:
    """Mix `channels` interleaved channels down to mono: their mean, rounded down, so it can't clip."""
    if channels < 1:
        raise ValueError(f"audio has at least one channel, not {channels}")
    pcm = pcm_bytes(pcm)
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


def _whole(pcm: Buffer) -> bytes:
    pcm = pcm_bytes(pcm)
    _check_whole(pcm, SAMPLE_BYTES)
    return pcm


def _check_whole(pcm: bytes, frame_bytes: int) -> None:
    if len(pcm) % frame_bytes:
        raise ValueError(f"{len(pcm)} bytes are not whole frames of {frame_bytes} bytes; pass whole samples")
