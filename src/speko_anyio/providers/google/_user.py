"""The user's audio on its way to Gemini, and the turns it is divided into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ...protocol.errors import LocalProtocolError
from . import _events as wire
from ._config import Rules

_MESSAGE_MS: Final = 100
"""Audio in one message we send; the longest that Google recommends."""


class UserTurn:
    """The user's turn, as far as the provider knows it.

    - `sample_rate`: of the audio.
    - `queue`: queues all of these messages or none; raises `LocalProtocolError` when there is no room.

    The methods raise what `queue` raises, and then change nothing.
    """

    __slots__ = ("_auto", "_message_size", "_mime_type", "_open", "_silence", "lost", "messages", "queue")

    def __init__(self, rules: Rules, sample_rate: int, queue: Callable[[Sequence[str]], None]) -> None:
        self._auto = rules.auto
        self._silence = rules.silence_ms * sample_rate // 1000 * 2
        self._mime_type = f"audio/pcm;rate={sample_rate}"
        self._message_size = _MESSAGE_MS * sample_rate // 1000 * 2
        self.queue = queue
        self._open = False
        self.messages: int = 0
        """Messages of audio in the turn."""
        self.lost: int = 0
        """Bytes of held audio that did not fit into the outbox."""

    @property
    def open(self) -> bool:
        """Whether a turn was announced to the provider and has not ended yet (manual mode)."""
        return self._open and not self._auto

    def send(self, pcm: bytes) -> None:
        """Queue audio. In manual mode the first of a turn begins it."""
        messages = self._split(pcm)
        self.queue(messages if self._auto or self._open else [wire.ACTIVITY_START, *messages])
        self._open = True
        self.messages += len(messages)

    def send_what_fits(self, pcm: bytes) -> None:
        """Queue held audio; count what does not fit, since there is no caller to raise to."""
        for start in range(0, len(pcm), self._message_size):
            try:
                self.send(pcm[start : start + self._message_size])
            except LocalProtocolError:
                self.lost += len(pcm) - start
                return

    def begin(self) -> None:
        """Tell the provider that the user speaks, which stops the model; only in manual mode."""
        if not self._open:
            self.queue([wire.ACTIVITY_START])
            self._open = True

    def end(self) -> bool:
        """Tell the provider that the turn is over; False if there is no turn to end.

        In auto mode silence makes the provider's detection end the turn: some models want to be told, others
        ignore that. In manual mode the model would answer an empty turn, so it stays open.
        """
        if self._auto:
            self.queue([*self._split(bytes(self._silence)), wire.STREAM_END])
        elif self.messages:
            self.queue([wire.ACTIVITY_END])
        else:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Note that the turn is over."""
        self._open = False
        self.messages = 0

    def _split(self, pcm: bytes) -> list[str]:
        size = self._message_size
        return [wire.audio(pcm[start : start + size], self._mime_type) for start in range(0, len(pcm), size)]
