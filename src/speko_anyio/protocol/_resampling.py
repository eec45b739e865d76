"""Converts the sample rate of a stream of audio, with a resampler that the caller provides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias


class Resampling(Protocol):
    """Resamples PCM16 mono piece by piece, as `speko_anyio.audio.resample.Resampler` does."""

    def push(self, pcm: bytes) -> bytes:
        """Take whole samples; return what is ready, which may be nothing yet."""
        ...

    def flush(self) -> bytes:
        """End the stream and return what was held back. The next `push` starts anew."""
        ...

    def reset(self) -> None:
        """Forget everything that was pushed."""
        ...


ResamplingFactory: TypeAlias = Callable[[int, int], Resampling]
"""Makes a resampler from the first rate, in samples a second, to the second. The two are different."""


class Converter:
    """Converts audio of one direction, from whatever rate it has to whatever rate is wanted."""

    __slots__ = ("_make", "_rates", "resampling")

    def __init__(self, make: ResamplingFactory) -> None:
        self._make = make
        self._rates = 0, 0
        self.resampling: Resampling | None = None
        """What converts the stream under way; None while the rates are equal."""

    def convert(self, pcm: bytes, source_rate: int, target_rate: int) -> bytes:
        """Convert `pcm`, the next piece of a stream; return what is ready. A new rate begins a new stream."""
        if (source_rate, target_rate) == self._rates:
            return pcm if self.resampling is None else self.resampling.push(pcm)
        rest = self.flush()
        self._rates = source_rate, target_rate
        self.resampling = None if source_rate == target_rate else self._make(source_rate, target_rate)
        return rest + self.convert(pcm, source_rate, target_rate)

    def flush(self) -> bytes:
        """End the stream, and return what was held back of it."""
        return b"" if self.resampling is None else self.resampling.flush()

    def reset(self) -> None:
        """Forget what was held back, since the stream was cut off."""
        if self.resampling is not None:
            self.resampling.reset()
