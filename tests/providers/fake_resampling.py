"""A resampler without soxr: it repeats and drops samples, and holds some back as a real one does."""

from __future__ import annotations

import array
import sys

HELD = 8
"""Samples of the input that are held back."""


class FakeResampling:
    """Repeats or drops samples."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        assert source_rate != target_rate
        self._source, self._target = source_rate, target_rate
        self.reset()

    def push(self, pcm: bytes) -> bytes:
        assert len(pcm) % 2 == 0
        self._kept += pcm
        return self._give(max(0, len(self._kept) // 2 - HELD))

    def flush(self) -> bytes:
        rest = self._give(len(self._kept) // 2)
        self.reset()
        return rest

    def reset(self) -> None:
        self._kept = b""
        self._taken = self._made = 0

    def _give(self, count: int) -> bytes:
        """The next `count` samples of the input, converted."""
        samples = array.array("h", self._kept[: 2 * count])
        if sys.byteorder == "big":
            samples.byteswap()
        self._kept = self._kept[2 * count :]
        converted = array.array("h")
        total = (self._taken + count) * self._target // self._source
        while self._made < total:
            converted.append(
                samples[min(count - 1, max(0, self._made * self._source // self._target - self._taken))]
            )
            self._made += 1
        self._taken += count
        if sys.byteorder == "big":
            converted.byteswap()
        return converted.tobytes()
