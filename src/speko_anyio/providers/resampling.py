"""Changing the sample rate of a stream of audio. How is decided elsewhere: it takes more than pure Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias


class Resampling(Protocol):
    """PCM16 mono from one sample rate to another, piece by piece; `speko_anyio.audio.resample.Resampler` is
    one."""

    def push(self, pcm: bytes) -> bytes:
        """Take whole samples; give what is ready, which may be nothing yet."""
        ...

    def flush(self) -> bytes:
        """End the stream: what was held back. The next `push` starts anew."""
        ...

    def reset(self) -> None:
        """Forget everything that was pushed."""
        ...


ResamplingFactory: TypeAlias = Callable[[int, int], Resampling]
"""Makes what converts from the first rate, in samples a second, to the second. It is called with different
rates only."""


class Converter:
    """Audio of one direction, from whatever rate it has to whatever rate is wanted."""

    __slots__ = ("_make", "_rates", "_resampling")

    def __init__(self, make: ResamplingFactory) -> None:
        self._make = make
        self._rates = 0, 0
        self._resampling: Resampling | None = None

    def convert(self, pcm: bytes, source_rate: int, target_rate: int) -> bytes:
        """What is ready of the stream that `pcm` goes on with. When a rate changes, the old stream ends."""
        if (source_rate, target_rate) == self._rates:
            return pcm if self._resampling is None else self._resampling.push(pcm)
        rest = self.flush()
        self._rates = source_rate, target_rate
        self._resampling = None if source_rate == target_rate else self._make(source_rate, target_rate)
        return rest + self.convert(pcm, source_rate, target_rate)

    def flush(self) -> bytes:
        """The end of a stream: what was held back of it."""
        return b"" if self._resampling is None else self._resampling.flush()

    def reset(self) -> None:
        """The stream was cut: what was held back of it is not wanted."""
        if self._resampling is not None:
            self._resampling.reset()
