"""Statistics of a conversation: turns, interruptions and latencies. Pure: time is an argument."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from ..audio._pcm import SILENCE_DBFS, rms_dbfs
from ..protocol.frames import Audio, Frame, Interruption, ResponseEnd, ToolCall, Transcript

SPEECH_DBFS: Final = -40.0
"""Louder audio counts as speech: between the noise of a quiet room and a voice half a metre from a laptop."""


class ConversationStats:
    """Counts the user's audio and every frame; `now` is the event loop's clock in seconds.

    `written`: the assistant answers in text, without audio.
    """

    def __init__(self, *, written: bool = False) -> None:
        self._written = written
        self.turns: int = 0
        """Answers that began."""
        self.interruptions: int = 0
        self.tool_calls: int = 0
        self.level: float = SILENCE_DBFS
        """Level of the user's last piece of audio, in dBFS."""
        self.latencies: list[float] = []
        """Seconds from the end of the user's speech to the first audio or words, one for each answer."""
        self.last_received: float = 0.0
        """Time of the last frame."""
        self.waited_from: str = "the end of your speech"
        """What the latest latency begins with."""
        self._speech_ended: float | None = None
        self._answering = False

    @property
    def awaiting(self) -> bool:
        """Whether the user has said something that no audio has followed yet."""
        return self._speech_ended is not None

    @property
    def answered(self) -> bool:
        """Whether an answer came and the last one is complete."""
        return self.turns > 0 and not self._answering and not self.awaiting

    def said(self, pcm: bytes, now: float) -> None:
        """Count a piece of the user's audio."""
        self.level = rms_dbfs(pcm)
        if self.level > SPEECH_DBFS:
            self._speech_ended = now
            self.waited_from = "the end of your speech"

    def typed(self, now: float) -> None:
        """Count a line that the user typed."""
        self._speech_ended = now
        self.waited_from = "your line"

    def committed(self, now: float) -> None:
        """Note that the user's turn was ended: an answer is due, however quiet they were."""
        if not self.turns and self._speech_ended is None:
            self._speech_ended = now

    def received(self, frame: Frame, now: float) -> float | None:
        """Count a frame; return the latency of the answer that it begins, None for any other frame."""
        self.last_received = now
        latency = None
        match frame:
            case Audio():
                latency = self._output(now)
            case Transcript(role="assistant") if self._written:
                latency = self._output(now)
            case ResponseEnd():
                self._answering = False
            case Interruption():
                self._answering = False
                self.interruptions += 1
            case ToolCall():
                self.tool_calls += 1
            case _:
                pass
        return latency

    def _output(self, now: float) -> float | None:
        latency = None
        if not self._answering:
            self._answering = True
            self.turns += 1
            if self._speech_ended is not None:
                latency = now - self._speech_ended
                self.latencies.append(latency)
        self._speech_ended = None
        return latency

    def summary(self) -> str:
        """Return all of it in one line."""
        parts = [
            _count(self.turns, "answer"),
            _count(self.interruptions, "interruption"),
            _count(self.tool_calls, "tool call"),
        ]
        text = ", ".join(parts)
        if self.latencies:
            what = "words" if self._written else "audio"
            text += f"; time to first {what}: {median_text(self.latencies)}"
        return text


def median_text(seconds: Sequence[float], what: str = "") -> str:
    """Return the median and the range in milliseconds, as in ``median 310 ms of 3 turns (290 to 450)``."""
    times = [each * 1000 for each in seconds]
    return f"median {statistics.median(times):.0f} ms{what} ({min(times):.0f} to {max(times):.0f})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
