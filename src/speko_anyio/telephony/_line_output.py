"""The assistant's audio on its way to the line: converted, cut into messages, and marked."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, Literal

from ..protocol._resampling import Converter, ResamplingFactory
from ..protocol.frames import Audio
from ._carrier import CarrierStream
from ._line_estimate import LineEstimate

LEAD: Final = 10.0
"""Seconds of audio to send ahead of the line, for a network that stalls. More stays here: carriers drop what
exceeds their buffers, and the smallest of those holds about a minute."""

FIRST_MARK_MS: Final = 20
"""Milliseconds of audio from where a silent line begins to play to the first mark: it tells when that was."""

_MARK_MS: Final = 200
"""Milliseconds of audio from one mark to the next. Both are whole frames for every carrier."""

_OVERHEAD: Final = 64
"""Bytes that a piece of audio counts in addition to its samples."""

LATEST_LOOK: Final = 0.05
"""Seconds after which to look again at a line that no mark has moved."""


class _Cue(enum.Enum):
    PAUSE = "speech may pause here, so nothing may be held back"
    MARK = "a mark goes here"


class LineOutput:
    """What waits for the line, and what the line has played.

    Audio is converted when the line has room for it: an interruption drops most of it.
    """

    __slots__ = (
        "_carrier",
        "_clear",
        "_converter",
        "_cut",
        "_early_mark_at",
        "_marks",
        "_unmarked",
        "_until_mark",
        "_waiting",
        "began",
        "line",
        "on_audio",
        "size",
    )

    def __init__(self, carrier: CarrierStream, make_resampler: ResamplingFactory) -> None:
        self._carrier = carrier
        self._converter = Converter(make_resampler)
        self._waiting: deque[Audio | Literal[_Cue.PAUSE]] = deque()
        self._until_mark = 0
        self._early_mark_at = -inf
        self._unmarked = False
        self._cut: deque[tuple[str | bytes, float] | Literal[_Cue.MARK]] = deque()
        self._clear: str | bytes | None = None
        self._marks = 0
        self.line: LineEstimate = LineEstimate()
        self.began: bool = False
        """Whether a silent line begins to play with a message that was taken. The caller resets it."""
        self.size: int = 0
        """Bytes of audio that wait, with an overhead for each piece."""
        self.on_audio: Callable[[bytes], None] | None = None
        """Called with the audio that goes to the line, at its rate."""

    @property
    def must_clear(self) -> bool:
        """Whether the next message is a clear."""
        return self._clear is not None

    @property
    def waiting(self) -> float:
        """Seconds of the audio that waits."""
        pieces = [item for item in self._waiting if isinstance(item, Audio)]
        return sum(len(piece.pcm) / (2 * piece.sample_rate) for piece in pieces)

    def is_silent(self, now: float) -> bool:
        """Return whether the line has played everything."""
        return self._carrier.started is None or not (self._waiting or self._cut or self.line.unplayed(now))

    def next_look(self, now: float) -> float | None:
        """Return when the line may have room for what waits; None if it has, and if nothing waits."""
        if not self._waiting or (unplayed := self.line.unplayed(now)) < LEAD:
            return None
        return now + max(unplayed - LEAD, LATEST_LOOK)

    # The session

    def push(self, audio: Audio) -> None:
        """Add a piece of the session's audio."""
        self._waiting.append(audio)
        self.size += _OVERHEAD + len(audio.pcm)

    def pause(self) -> None:
        """Hold nothing back of what came so far: speech may pause here."""
        if not self._waiting or self._waiting[-1] is not _Cue.PAUSE:
            self._waiting.append(_Cue.PAUSE)

    def clear(self) -> None:
        """Drop all audio, here and at the carrier."""
        self._drop()
        if self._carrier.started is not None:
            clear = self._carrier.clear()  # also of what the codec holds back
            if self.line.sent:
                self._clear = clear
        # Carriers answer the marks that they drop, so the marks are forgotten here.
        self.line.clear()
        self._early_mark_at = -inf

    def close(self) -> None:
        """Send nothing more."""
        self._drop()
        self._clear = None
        self.on_audio = None

    def _drop(self) -> None:
        self._waiting.clear()
        self.size = 0
        self._cut.clear()
        self._converter.reset()
        self._unmarked = False

    # The carrier

    def next_message(self, now: float) -> str | bytes | None:
        """Take the next message for the carrier, which is sent now; None when there is none yet."""
        if self._clear is not None:
            clear, self._clear = self._clear, None
            return clear
        while not self._cut:
            if not self._cut_next(now):
                return None
        item = self._cut.popleft()
        if item is _Cue.MARK:
            self._marks += 1
            name = str(self._marks)
            self.line.mark(name)
            return self._carrier.mark(name)
        message, seconds = item
        if not self.line.unplayed(now):
            self.began = True
        self.line.add(seconds, now)
        return message

    def _cut_next(self, now: float) -> bool:
        """Cut what waits next into messages; return False if nothing may be sent now."""
        if not self._waiting or self._carrier.started is None:
            return False
        unplayed = self.line.unplayed(now)
        if unplayed >= LEAD:
            return False
        if not unplayed and now >= self._early_mark_at:
            # But not again for each piece of an answer that arrives no faster than it is played.
            self._early_mark_at = now + _MARK_MS / 1000
            self._until_mark = self._bytes(FIRST_MARK_MS)
        item = self._waiting.popleft()
        if item is _Cue.PAUSE:
            self._cut_audio(self._converter.flush())
            self._cut_messages(self._carrier.unsent, self._carrier.flush())
            if self._unmarked:
                self._mark()
        else:
            self.size -= _OVERHEAD + len(item.pcm)
            self._cut_audio(self._converter.convert(item.pcm, item.sample_rate, self._carrier.sample_rate))
        return True

    def _cut_audio(self, pcm: bytes) -> None:
        if self.on_audio is not None:
            self.on_audio(pcm)
        start = 0
        while start < len(pcm):
            piece = pcm[start : start + self._until_mark]
            start += len(piece)
            size = self._carrier.unsent + len(piece)
            messages = self._carrier.audio(piece)
            self._cut_messages(size - self._carrier.unsent, messages)
            self._until_mark -= len(piece)
            if not self._until_mark:
                self._mark()

    def _cut_messages(self, size: int, messages: list[str | bytes]) -> None:
        """Append `messages`, which have `size` bytes of the session's audio together."""
        if messages:
            seconds = size / len(messages) / (2 * self._carrier.sample_rate)
            self._cut.extend((message, seconds) for message in messages)
            self._unmarked = True

    def _mark(self) -> None:
        self._until_mark = self._bytes(_MARK_MS)
        self._unmarked = False
        if self._carrier.has_marks:
            self._cut.append(_Cue.MARK)

    def _bytes(self, milliseconds: int) -> int:
        return 2 * (self._carrier.sample_rate * milliseconds // 1000)
