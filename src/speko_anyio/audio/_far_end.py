"""The far end's audio on its way from the loudspeaker to the echo canceller, in step with the microphone."""

from __future__ import annotations

import statistics
import threading
from typing import Final

from ._echo import EchoCanceller
from ._pcm import SAMPLE_BYTES
from .resample import Resampler

_KEPT: Final = 1.0
"""Seconds of audio that are kept for the microphone; it takes them within a tenth of that."""

_STALL: Final = 0.2
"""Seconds without audio from the loudspeaker after which it has stopped; what follows is aligned anew."""

_HEADROOM: Final = 0.002
"""Seconds that a callback of the loudspeaker may be late. More would be fatal with devices of little latency:
the far end would come after its echo."""

_WINDOW: Final = 50
"""Blocks over which the alignment is measured. Callbacks vary by milliseconds, and a few are late by tenths
of a second; the median ignores those."""

_TOLERANCE: Final = 0.005
"""Seconds of misalignment that are left alone. The canceller follows slow changes by itself, but a step costs
it a second of echo."""

_MAX_LATE: Final = 2
"""Late callbacks in a window that are left alone. Each is a gap in the far end, too short to be taken for
speech."""


class FarEnd:
    """What the loudspeaker plays, until the microphone has recorded the same length of time.

    Both devices call back in threads of their own, at times that vary, and their clocks drift apart by some
    milliseconds a minute. The canceller needs the audio of both in step, and the far end before its echo. So
    each `take` continues where the last one ended, one block behind the loudspeaker. Only when that distance
    has changed by milliseconds is some audio skipped or repeated.

    `near_rate` is that of the microphone, in samples a second. The methods' `now` is the time of the callback
    in seconds, by one clock for both devices. Positions are in samples since the loudspeaker started.
    """

    def __init__(self, near_rate: int) -> None:
        # Held only while bytes are copied: an audio callback must not wait longer.
        self._lock = threading.Lock()
        self._near_rate = near_rate
        self._stopped = True
        self._put_at = 0.0
        """When the last block was put."""
        self._fraction = 0.0
        """What the last `take` should have returned beyond whole samples."""
        self._restart(near_rate)

    def put(self, pcm: bytes, rate: int, now: float) -> None:
        """Take PCM16 mono that the loudspeaker plays next. Called in its thread."""
        with self._lock:
            if self._stopped or rate != self._rate:
                self._restart(rate)
            self._stopped = False
            self._block = self._end
            self._put_at = now
            self._audio += pcm
            self._end += len(pcm) // SAMPLE_BYTES
            excess = len(self._audio) - round(_KEPT * rate) * SAMPLE_BYTES
            if excess > 0:
                del self._audio[:excess]

    def take(self, size: int, now: float) -> tuple[bytes, int]:
        """Return what the loudspeaker played while `size` bytes were recorded, and its rate.

        It lasts as long, and is silence if nothing was played. Called in the microphone's thread.
        """
        with self._lock:
            exact = size / SAMPLE_BYTES * self._rate / self._near_rate + self._fraction
            count = int(exact)
            self._fraction = exact - count
            self._stopped = self._stopped or now - self._put_at > _STALL
            if self._stopped:
                return bytes(count * SAMPLE_BYTES), self._rate
            self._align(count, now)
            return self._cut(count), self._rate

    def _restart(self, rate: int) -> None:
        self._rate = rate
        self._audio = bytearray()
        self._end = 0
        self._block = 0
        """Where the last block begins that was put."""
        self._next: int | None = None
        """What `take` returns next; None before the first since the loudspeaker started."""
        self._behind = 0
        """Samples that it should be behind what is being played."""
        self._errors: list[float] = []
        """Samples that it was behind beyond that, in this window."""
        self._late: list[int] = []
        """Samples that were missing, in this window."""

    def _align(self, count: int, now: float) -> None:
        """Note how well the next `count` samples are aligned; correct it once a window."""
        played = self._block + (now - self._put_at) * self._rate
        if self._next is None:
            self._behind = count + round(_HEADROOM * self._rate)
            self._next = round(played) - self._behind
        self._errors.append(played - self._behind - self._next)
        if self._next + count > self._end:
            self._late.append(self._next + count - self._end)
        if len(self._errors) < _WINDOW:
            return
        error = statistics.median(self._errors)
        if abs(error) > max(_TOLERANCE * self._rate, (max(self._errors) - min(self._errors)) / 5):
            self._next += round(error)
        elif len(self._late) > _MAX_LATE:
            self._behind += max(self._late)
            self._next -= max(self._late)
        self._errors.clear()
        self._late.clear()

    def _cut(self, count: int) -> bytes:
        assert self._next is not None
        at = (self._next - self._end) * SAMPLE_BYTES + len(self._audio)
        size = count * SAMPLE_BYTES
        self._next += count
        # Before the loudspeaker's first sample there was silence, and there is where its callback is late.
        before = min(size, max(0, -at))
        return (bytes(before) + self._audio[max(0, at) : max(0, at + size)]).ljust(size, b"\0")


class EchoPath:
    """Cancels the echo in the microphone's audio, whatever the rates of both devices."""

    def __init__(self, canceller: EchoCanceller, resampler: Resampler) -> None:
        """Take the canceller, and the conversion of the microphone's audio to the canceller's rate."""
        self._canceller = canceller
        self._near_resampler = resampler
        self._far_resampler = Resampler(resampler.source_rate, resampler.target_rate)
        # A conversion holds audio back, so one end may be ahead of the other.
        self._near = bytearray()
        self._far = bytearray()

    def process(self, near: bytes, far: bytes, far_rate: int) -> bytes:
        """Return what is ready of `near`, at the canceller's rate and without its echo.

        `far` is at `far_rate` samples a second, and lasts as long as `near`.
        """
        if far_rate != self._far_resampler.source_rate:
            self._far += self._far_resampler.flush()
            self._far_resampler = Resampler(far_rate, self._far_resampler.target_rate)
        self._near += self._near_resampler.push(near)
        self._far += self._far_resampler.push(far)
        size = min(len(self._near), len(self._far))
        clean = self._canceller.process(bytes(self._near[:size]), bytes(self._far[:size]))
        del self._near[:size], self._far[:size]
        return clean
