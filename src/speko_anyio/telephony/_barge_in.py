"""Barge-in: a caller who talks over the assistant silences it at once, before the session knows.

So the rest of the answer, which the session still sends, is dropped here.
"""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

from ..protocol.frames import Audio
from ._carrier import CarrierStream

MUTE_PATIENCE: Final = 2.0
"""Seconds without audio after which a muted answer counts as over: some services tell neither that they were
interrupted nor that the answer has ended, and the next one must be heard."""

MAX_MUTE: Final = 30.0
"""Seconds after which a muted answer is heard again, even if its audio never pauses: some services send
silence without end."""

_MAX_PLAYING: Final = 20.0
"""Seconds of the assistant's audio to keep for the detector: more than the line is sent ahead."""

MAX_BURST: Final = 5.0
"""Seconds of the caller's audio that the detector gets at once, after a network that stalled. It works about
a hundred times as long on audio as decoding takes, so a flood beyond real time is not for it."""


class SpeechDetector(Protocol):
    """Tells when the caller begins to talk over the assistant: `speko_anyio.audio.BargeInDetector` does."""

    def push(self, pcm: bytes, playing: bytes, /) -> bool:
        """Take a piece of the caller's audio; return whether an interruption begins in it.

        `playing` is what the line has played of the assistant's audio since the last call. Both are PCM16
        mono at the line's rate. What this raises comes out of the bridge, and ends the call.
        """
        ...


class BargeIn:
    """Lets a detector hear both directions of a line, and follows the answer that it has cut off."""

    __slots__ = (
        "_answering",
        "_carrier",
        "_detector",
        "_heard_until",
        "_received",
        "_resumes",
        "_sent",
        "_start",
        "muted",
        "passed",
    )

    def __init__(self, detector: SpeechDetector, carrier: CarrierStream) -> None:
        self._detector = detector
        self._carrier = carrier
        self._sent = bytearray()  # the audio for the line that the detector has not got
        self._start = 0  # its position in the audio since the last clear, in bytes
        self._heard_until = -inf  # when the caller's audio that the detector got would end in real time
        self._answering = False  # whether audio of an answer has come that is not over
        self._resumes = False  # whether nothing was admitted since the line was cleared
        self._received = 0.0  # seconds of the session's audio since its last interruption
        self.muted: bool = False
        """Whether the session's audio belongs to the answer that was cut off."""
        self.passed: float = 0.0
        """Seconds of the session's audio since its last interruption that came before the line's: they were
        played, or dropped."""

    # The line

    def send(self, pcm: bytes) -> None:
        """Note that the line gets this audio."""
        self._sent += pcm
        self._skip(len(self._sent) - self._size(_MAX_PLAYING))

    def hear(self, pcm: bytes, played: float, now: float) -> bool:
        """Return whether an interruption begins in the caller's `pcm`.

        The line has played so many seconds since the last clear.
        """
        until = max(self._heard_until, now - MAX_BURST) + len(pcm) / (2 * self._carrier.sample_rate)
        if until > now:
            return False
        self._heard_until = until
        size = self._size(played) - self._start
        playing = bytes(self._sent[: max(size, 0)])
        self._skip(size)
        return self._detector.push(pcm, playing)

    def _size(self, seconds: float) -> int:
        return int(seconds * self._carrier.sample_rate) * 2

    def _skip(self, size: int) -> None:
        if size > 0:
            del self._sent[:size]
            self._start += size

    def clear(self) -> None:
        """Note that the line plays nothing of all that any more."""
        self._sent.clear()
        self._start = 0

    # The session

    def cut(self, played: float) -> None:
        """Note that the line is cleared; the caller has heard `played` seconds since the last clear."""
        self.passed += played
        self.muted = self._answering
        self._resumes = True

    def admit(self, audio: Audio) -> bool:
        """Note a piece of the session's audio; return whether the caller may hear it."""
        if not self.muted:
            self._answering = True
            if self._resumes:
                self._resumes = False
                self.passed = self._received
        self._received += len(audio.pcm) / (2 * audio.sample_rate)
        return not self.muted

    def end_answer(self) -> None:
        """Note that the answer is over: audio from now on is another one."""
        self._answering = self.muted = False

    def interrupted(self) -> None:
        """Note that the session knows of an interruption: it counts its audio anew."""
        self._answering = self.muted = self._resumes = False
        self._received = self.passed = 0.0
