"""Sample rate conversion of a stream by soxr, which is imported only once two rates really differ."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from speko_anyio._extras import install_extra
from speko_anyio.protocol._pcm import Buffer, pcm_bytes, whole_samples

from . import _pcm as pcm16

if TYPE_CHECKING:
    from types import ModuleType

Quality: TypeAlias = Literal["LQ", "HQ"]
"""soxr's recipes for 16 bits that do not alias (its ``QQ`` does: -2 dB at 10 kHz, 24 to 16 kHz)."""

REALTIME: Final[Quality] = "LQ"
"""The recipe for live speech.

How long soxr 1.1 holds input back, at most, and what it keeps of the sound, as measured:

    recipe   24 to 16 kHz   16 to 24 kHz   22.05 to 24 kHz   level at 6 / 7 kHz   image
    LQ          20.0 ms        20.0 ms          1.0 ms         -0.3 / -13 dB      -82 dB
    HQ          36.6 ms        36.6 ms         41.9 ms          0.0 / 0.0 dB      -82 dB

(MQ delays as HQ does and keeps no more.) All cost about 0.5 us a millisecond of audio. A listener notices 17
ms of delay in a 300 ms answer sooner than missing sound above 6.5 kHz in 16 kHz speech.
"""

OFFLINE: Final[Quality] = "HQ"
"""The recipe for whole files, where delay does not count."""


_PIECE_BYTES: Final = 1 << 20
"""A long recording is converted in pieces of this size: as floats it takes several times the memory."""


class Resampler:
    """PCM16 mono from one sample rate to another, piece by piece.

    What comes out does not depend on how the input was cut into pieces. An odd byte is kept for the
    next piece. When the rates are equal the input passes through and soxr is not needed.

    Args:
        source_rate: samples a second of what is pushed.
        target_rate: samples a second of what comes out.
        quality: soxr's recipe, `REALTIME` or `OFFLINE`, which says what each costs in delay.

    Raises:
        ValueError: when a rate is not positive.
        ImportError: when the rates differ and soxr is not installed.
    """

    def __init__(self, source_rate: int, target_rate: int, *, quality: Quality = REALTIME) -> None:
        if source_rate <= 0 or target_rate <= 0:
            raise ValueError(f"sample rates are positive, not {source_rate} and {target_rate}")
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._quality: Quality = quality
        self._odd = b""
        # Any: neither soxr's stream nor numpy has types that this package may depend on
        self._stream: Any = None
        self._numpy: Any = None
        if source_rate != target_rate:
            self._numpy = _import("numpy")
            self._stream = _import("soxr").ResampleStream(
                source_rate, target_rate, 1, dtype="float32", quality=quality
            )

    @property
    def max_held_back(self) -> float:
        """The most audio, in seconds, that is held back at any time.

        It is measured, since soxr doesn't report it.
        """
        if self._stream is None:
            return 0.0
        return _max_held_back(self.source_rate, self.target_rate, self._quality)

    def push(self, pcm: Buffer) -> bytes:
        """Take a piece of any number of bytes; return what is ready, which may be nothing yet.

        TypeError for an array of anything but int16.
        """
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        whole, self._odd = whole_samples(self._odd, pcm)
        return self._convert(whole, last=False) if whole else b""

    def flush(self) -> bytes:
        """End the stream; return what was held back, except an odd byte. The next `push` starts anew."""
        rest = self._convert(b"", last=True)
        self.reset()
        return rest

    def reset(self) -> None:
        """Forget everything that was pushed, as if newly made."""
        self._odd = b""
        if self._stream is not None:
            self._stream.clear()

    def _convert(self, pcm: bytes, *, last: bool) -> bytes:
        if self._stream is None:
            return pcm
        np = self._numpy
        # Floats, because soxr dithers 16-bit output with noise that differs from stream to stream.
        block = np.frombuffer(pcm, dtype="<i2").astype("float32")
        converted = self._stream.resample_chunk(block, last=last)
        return bytes(np.clip(np.rint(converted), -32768, 32767).astype("<i2").tobytes())


def resample(pcm: Buffer, source_rate: int, target_rate: int, *, quality: Quality = OFFLINE) -> bytes:
    """Return all of `pcm`, PCM16 mono at `source_rate`, converted to `target_rate`. Raises as `Resampler`."""
    pcm = pcm_bytes(pcm)
    resampler = Resampler(source_rate, target_rate, quality=quality)
    pieces = [resampler.push(pcm[at : at + _PIECE_BYTES]) for at in range(0, len(pcm), _PIECE_BYTES)]
    converted = b"".join((*pieces, resampler.flush()))
    # soxr rounds a stream's length up or down; callers count on the nearest
    wanted = pcm16.byte_count(pcm16.duration(pcm, source_rate), target_rate)
    return converted[:wanted].ljust(wanted, b"\0")


@lru_cache(maxsize=64)
def _max_held_back(source_rate: int, target_rate: int, quality: Quality) -> float:
    """Return the most seconds held back. The amount depends on both rates and varies along the stream."""
    resampler = Resampler(source_rate, target_rate, quality=quality)
    samples = max(1, source_rate // 200)
    silence = bytes(samples * pcm16.SAMPLE_BYTES)
    pushed = given = worst = 0.0
    for _ in range(100):  # half a second, within which the pattern repeats
        pushed += samples / source_rate
        given += pcm16.duration(resampler.push(silence), target_rate)
        worst = max(worst, pushed - given)
    return worst


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "changing a sample rate needs soxr, which is not installed; "
            f"{install_extra('audio')}, or use audio that already has the rate",
            name=name,
        ) from error
