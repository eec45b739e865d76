"""`PhoneLine`: what a simulated phone line plays, to the sample, on the caller's clock.

It buffers audio, plays it in real time from the moment it arrives, and knows at any time how much was played.
Pure: every method takes the time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from ..audio._pcm import SAMPLE_BYTES

_ROUNDING: Final = 1e-6
"""Of a sample: what sums of floating-point times may lack."""


class HeardAnswer:
    """One stretch of speech on the line, until it is cleared or nothing follows for a while."""

    def __init__(self, started: float, sample_rate: int) -> None:
        self.started: float = started
        """When the line began to play it, in seconds of the event loop's clock."""
        self.sample_rate: int = sample_rate
        self.cleared: bool = False
        """Whether the application cleared the rest of it."""
        self._received = bytearray()
        self._played = 0

    @property
    def sent(self) -> float:
        """Seconds of it that the application sent."""
        return len(self._received) / SAMPLE_BYTES / self.sample_rate

    @property
    def played(self) -> float:
        """Seconds of it that the line has played."""
        return self._played / self.sample_rate

    @property
    def pcm(self) -> bytes:
        """What the caller heard of it: PCM16 at `sample_rate`."""
        return bytes(self._received[: self._played * SAMPLE_BYTES])

    def __repr__(self) -> str:
        end = ", cleared" if self.cleared else ""
        return f"<HeardAnswer played={self.played:.3f} of {self.sent:.3f} seconds{end}>"

    def take(self, pcm: bytes) -> None:
        """Add audio that the application sent."""
        self._received += pcm

    def play(self, samples: int) -> None:
        """Note that so many more samples of it were played."""
        self._played += samples


class PhoneLine:
    """Plays PCM16 mono at `sample_rate`.

    - `delay`: seconds from the first audio on a silent line until it is played.
    - `gap`: an answer ends when nothing was played for so many seconds.
    """

    def __init__(self, sample_rate: int, *, delay: float = 0.0, gap: float = 0.5) -> None:
        self.sample_rate = sample_rate
        self._delay = delay
        self.answers: list[HeardAnswer] = []
        self._gap = gap
        self._started = -math.inf
        """When the audio that is being played began, without a pause since."""
        self._run = 0
        """Samples that were received to be played without a pause since `_started`."""
        self._run_played = 0
        self._played = 0
        self._received = 0
        self._cleared_at = 0
        """`_played` at the last clear."""
        self._marks: deque[tuple[str, int]] = deque()
        """Marks that were not reached, with the number of samples before each."""
        self._stopped = False

    # The application

    def play(self, pcm: bytes, now: float) -> None:
        """Take whole samples, which follow what waits."""
        self.advance(now)
        if self._stopped or not pcm:
            return
        if self._run_played == self._run:
            answer = self.answers[-1] if self.answers else None
            if answer is None or answer.cleared or now - self.quiet_since > self._gap:
                self.answers.append(HeardAnswer(now + self._delay, self.sample_rate))
            self._started, self._run, self._run_played = now + self._delay, 0, 0
        samples = len(pcm) // SAMPLE_BYTES
        self._run += samples
        self._received += samples
        self.answers[-1].take(pcm)

    def mark(self, name: str, now: float) -> None:
        """Set a mark behind everything that was received."""
        self.advance(now)
        self._marks.append((name, self._received))

    def clear(self, now: float) -> list[str]:
        """Drop what was not played; return the marks that were not reached."""
        self.advance(now)
        names = [name for name, _ in self._marks]
        self._marks.clear()
        if self.answers and not self.answers[-1].cleared:
            self.answers[-1].cleared = True
        # Nothing is left of the run, so the line has been quiet from now on, and not from its former end.
        if self._run_played < self._run:
            self._started, self._run = now - self._run_played / self.sample_rate, self._run_played
        self._received = self._cleared_at = self._played
        return names

    def stop(self, now: float) -> None:
        """End the line: nothing more is played."""
        self.advance(now)
        self._stopped = True

    # The caller

    def advance(self, now: float) -> None:
        """Play until `now`."""
        if self._stopped or self._run_played == self._run:
            return
        reached = math.floor((now - self._started) * self.sample_rate + _ROUNDING)
        samples = min(max(reached, self._run_played), self._run) - self._run_played
        self._run_played += samples
        self._played += samples
        self.answers[-1].play(samples)

    def reached(self, now: float) -> list[str]:
        """Return the marks whose audio has been played by `now`, once."""
        self.advance(now)
        names: list[str] = []
        while self._marks and self._marks[0][1] <= self._played and not self._stopped:
            names.append(self._marks.popleft()[0])
        return names

    def next_deadline(self) -> float | None:
        """Return when the next mark is reached; None if there is none."""
        if not self._marks or self._stopped:
            return None
        return self.when(self._marks[0][1])

    def when(self, samples: int) -> float:
        """Return when so many samples, of all, will have been played; infinity if more audio is needed."""
        ahead = samples - self._played
        if ahead <= 0:
            return -math.inf
        if self._stopped or self._run_played + ahead > self._run:
            return math.inf
        return self._started + (self._run_played + ahead) / self.sample_rate

    @property
    def quiet_since(self) -> float:
        """When the line had, or will have, played all that it got; minus infinity if it never got any."""
        return self._started + self._run / self.sample_rate

    @property
    def buffered(self) -> float:
        """Seconds of audio that wait."""
        return (self._run - self._run_played) / self.sample_rate

    @property
    def received(self) -> int:
        """Samples that were received and not cleared."""
        return self._received

    @property
    def cleared_at(self) -> int:
        """Samples that had been played at the last clear."""
        return self._cleared_at

    @property
    def played(self) -> int:
        """Samples that were played since the last clear."""
        return self._played - self._cleared_at
