"""Counters of a session, and how long its answers took."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from ..protocol.frames import Usage

MAX_TIMES: Final = 1000
"""How many times are kept, the newest: more than half an hour has answers."""


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one session, since its start."""

    bytes_received: int
    """Bytes read from the transport."""
    bytes_sent: int
    """Bytes written to the transport."""
    frames_received: int
    audio_bytes_received: int
    """PCM16 in the received `Audio` frames."""
    audio_bytes_sent: int
    frames_dropped: int
    """Frames received and never delivered to `receive`: mostly audio that an interruption made stale."""
    audio_bytes_dropped: int
    frames_buffered: int
    """Frames that wait for `receive`."""
    bytes_buffered: int
    """Their size, as ``max_buffer`` counts it."""
    seconds_buffered: float
    """How long the audio among them lasts."""
    odd_fields: int
    """Non-essential fields of received messages that had an odd value, such as a count of 3.0 or half of a
    surrogate pair. Each was read as the nearest valid value, or ignored."""
    interruptions: int
    """`Interruption` frames received."""
    tool_calls: int
    """`ToolCall` frames received, also those that the application answers."""
    tools_running: int
    """Functions passed as ``tools`` that run now."""
    usage: Usage
    """The sum of the `Usage` frames: what the service has reported as spent."""
    times_to_first_audio: tuple[float, ...]
    """Seconds from `commit`, `end_turn` or a text that is to be answered to the next audio that was read, for
    the last 1000 answers, oldest first.

    A turn that was ended again before any audio came counts from the last call. Audio of an earlier answer
    that was still under way counts too, since a client can't tell it apart. There are no times when the
    service ends the turns: the client does not know when the user stopped speaking.
    """

    @property
    def median_time_to_first_audio(self) -> float | None:
        """The median of `times_to_first_audio`; None when there are none."""
        from statistics import median  # here, since it loads fractions and decimal

        return median(self.times_to_first_audio) if self.times_to_first_audio else None


class TurnTimes:
    """Measures how long answers take, from the end of each turn to the first audio after it."""

    __slots__ = ("_ended", "_times")

    def __init__(self) -> None:
        self._ended = 0.0
        self._times: deque[float] | None = None

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds of each answer, the oldest first."""
        return tuple(self._times or ())

    def turn_ended(self, now: float) -> None:
        """Note that the user's turn ended."""
        self._ended = now

    def answer_began(self, now: float) -> None:
        """Note the first audio since then."""
        if self._times is None:
            self._times = deque(maxlen=MAX_TIMES)
        self._times.append(now - self._ended)
