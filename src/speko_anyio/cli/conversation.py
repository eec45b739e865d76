"""What a conversation comes to: who spoke when, and how long the answers took. Time is an argument here."""

from __future__ import annotations

import statistics
from typing import Final

from ..audio.pcm import SILENCE_DBFS, rms_dbfs
from ..protocol.frames import Audio, Frame, Interruption, ResponseEnd, ToolCall

SPEECH_DBFS: Final = -40.0
"""What is louder is taken for speech, to know when the user stopped: between the noise of a quiet room and a
voice half a metre from a laptop."""


class Conversation:
    """Told of the user's audio and of every frame, with the time of an event loop's clock in seconds."""

    def __init__(self) -> None:
        self.turns = 0
        """Answers that were heard, or began to be."""
        self.interruptions = 0
        self.tool_calls = 0
        self.level = SILENCE_DBFS
        """Of the user's last piece of audio, in dBFS."""
        self.latencies: list[float] = []
        """Of each answer, seconds from the end of the user's speech to the first audio."""
        self.last_received = 0.0
        """When the last frame came."""
        self._speech_ended: float | None = None
        self._answering = False

    @property
    def awaiting(self) -> bool:
        """Whether the user has said something that no audio has followed yet."""
        return self._speech_ended is not None

    @property
    def answered(self) -> bool:
        """Whether an answer came, and the last of them is complete."""
        return self.turns > 0 and not self._answering and not self.awaiting

    def said(self, pcm: bytes, now: float) -> None:
        """The user's microphone gave a piece of audio."""
        self.level = rms_dbfs(pcm)
        if self.level > SPEECH_DBFS:
            self._speech_ended = now

    def committed(self, now: float) -> None:
        """The user's turn was ended: an answer is due, however quiet they were."""
        if not self.turns and self._speech_ended is None:
            self._speech_ended = now

    def received(self, frame: Frame, now: float) -> float | None:
        """A frame came; gives the latency of the answer that begins with it, None for any other."""
        self.last_received = now
        latency = None
        match frame:
            case Audio():
                if not self._answering:
                    self._answering = True
                    self.turns += 1
                    if self._speech_ended is not None:
                        latency = now - self._speech_ended
                        self.latencies.append(latency)
                self._speech_ended = None
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

    def summary(self) -> str:
        """All of it in one line."""
        parts = [
            _count(self.turns, "answer"),
            _count(self.interruptions, "interruption"),
            _count(self.tool_calls, "tool call"),
        ]
        text = ", ".join(parts)
        if self.latencies:
            times = [seconds * 1000 for seconds in self.latencies]
            text += (
                f"; time to first audio: median {statistics.median(times):.0f} ms "
                f"({min(times):.0f} to {max(times):.0f})"
            )
        return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
