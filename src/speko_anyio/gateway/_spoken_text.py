"""Tells how much of an answer the user has heard, from the audio that was sent and the client's reports."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import anyio

from speko_anyio.audio._pcm import duration
from speko_anyio.providers._heard import HeardEstimate

_CHARACTER_SECONDS: Final = 1 / 15
"""Of speech, until a sentence has ended whose length is known."""

_WORD = re.compile(r"\S+")
_SPELLED_OUT = re.compile(r"\d")
_DIGIT_LETTERS: Final = 3
_ROUNDING: Final = 0.002


class HeardText(NamedTuple):
    """The part of an answer that the user has heard."""

    text: str
    """The words, the last of which was heard at least by half."""
    seconds: float
    """Of its audio, to the millisecond."""


class _Part:
    """Text that is spoken without a known position inside it."""

    __slots__ = ("seconds", "start", "text")

    def __init__(self, text: str, start: float, seconds: float | None) -> None:
        self.text = text
        self.start = start
        self.seconds = seconds


class SpokenText:
    """Follows the answers of one session: what they say, what was sent, and what the user has heard of it.

    Without reports (`played`) it assumes that the client plays audio as soon as it comes. A handler that
    declares ``truncate`` gets reports, and then it is as exact as they are. Inside a sentence the position in
    the text follows from the lengths of its words.

    For each answer call `begin`; before the audio of each sentence `say`; after each `send_audio` `add`. When
    the user interrupts, call `heard` and then `flush`, just before `send_interruption`.

    Args:
        sample_rate: samples a second of the PCM16 mono that is sent, `ServerSession.output_sample_rate`.
        clock: returns seconds that never go back; by default `anyio.current_time`.
    """

    def __init__(self, sample_rate: int, *, clock: Callable[[], float] = anyio.current_time) -> None:
        self._sample_rate = sample_rate
        self._playback = HeardEstimate(sample_rate)
        self._playback.follow(clock)
        self._answers = 0
        self._parts: list[_Part] = []
        self._sent = 0.0
        self._characters = 0
        self._spoken = 0.0

    def begin(self) -> None:
        """Begin an answer. The audio of the one before counts as heard, or is still being played."""
        self._end_part()
        self._answers += 1
        self._parts = []
        self._sent = 0.0

    def say(self, text: str, seconds: float | None = None) -> None:
        """Note that the audio that follows says `text`, which takes `seconds`, if that is known."""
        self._end_part()
        self._parts.append(_Part(text, self._sent, seconds))

    def add(self, pcm: bytes) -> None:
        """Note that `pcm` was sent to the client: PCM16 mono."""
        self._sent += duration(pcm, self._sample_rate)
        self._playback.add(str(self._answers), 0, len(pcm))

    def played(self, ms: float) -> None:
        """Take a client's report: a `speko_anyio.protocol.Played` has its `ms`.

        A report that can't be true is ignored.
        """
        self._playback.played(ms)

    @property
    def unplayed(self) -> float:
        """Seconds of the audio that the client still has to play."""
        return self._playback.unplayed_ms / 1000

    def heard(self) -> HeardText:
        """Return what the user has heard of this answer by now."""
        items = [item for item in self._playback.heard() if item.item_id == str(self._answers)]
        seconds = items[-1].heard / 1000 if items else 0.0
        words = (_heard_words(part.text, self._share(part, seconds)) for part in self._parts)
        return HeardText(" ".join(heard for heard in words if heard), seconds)

    def flush(self) -> None:
        """Forget the audio that was not played, as the client does at an interruption."""
        self._playback.flush()

    def _share(self, part: _Part, position: float) -> float:
        """Return how much of `part`, from 0 to 1, comes before a position in seconds."""
        into = position - part.start
        if into <= 0:
            return 0.0
        seconds = part.seconds
        if seconds is None:
            pace = self._spoken / self._characters if self._characters else _CHARACTER_SECONDS
            seconds = max(self._sent - part.start, len(part.text) * pace)
        return 1.0 if into >= seconds - _ROUNDING else into / seconds

    def _end_part(self) -> None:
        if not self._parts or self._parts[-1].seconds is not None:
            return
        part = self._parts[-1]
        part.seconds = self._sent - part.start
        self._spoken += part.seconds
        self._characters += len(part.text)


def _heard_words(text: str, share: float) -> str:
    """Return the words of `text` whose middle comes within its first part, a `share` of its time."""
    if share >= 1:
        return text
    words = [(match, _length(match[0])) for match in _WORD.finditer(text)]
    left = share * sum(length for _, length in words)
    end = 0
    for match, length in words:
        if left < length / 2:
            break
        left -= length
        end = match.end()
    return text[:end]


def _length(word: str) -> int:
    """Return the length in letters of a spoken word; a digit takes several, and each gap one."""
    return len(_SPELLED_OUT.sub("x" * _DIGIT_LETTERS, word)) + 1
