"""Holds input of the user until the provider is ready."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, TypeAlias

TurnMode: TypeAlias = Literal["auto", "manual"]
"""Who ends the user's turns: the provider's voice activity detection (VAD), or the client's `commit`."""

TurnEnd: TypeAlias = Literal["commit", "end_turn"]
"""The verb that ended a turn."""


_PIECE: Final = 4096
"""Bytes. Smaller pieces are joined: a peer may send samples one by one, each of which would take 60 bytes."""


class HeldInput:
    """A bounded amount of audio, and at most one end of a turn.

    `capacity`: bytes of PCM16. The newest bytes are kept, however the audio was divided into pieces.
    """

    __slots__ = ("_after", "_before", "_capacity", "_end", "_size", "dropped")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity & ~1
        self._before: deque[bytes | bytearray | memoryview] = deque()
        self._end: TurnEnd | None = None
        self._after: deque[bytes | bytearray | memoryview] = deque()
        self._size = 0
        self.dropped: int = 0
        """Bytes of audio that exceeded the capacity: the oldest were dropped."""

    def add(self, pcm: bytes) -> None:
        """Add audio, in whole samples."""
        if len(pcm) > self._capacity:
            # Copy: a view would keep a long recording in memory.
            start = len(pcm) - self._capacity
            self.dropped += start
            pcm = pcm[start:]
        last = self._after[-1] if self._after else None
        if len(pcm) >= _PIECE:
            self._after.append(pcm)
        elif type(last) is bytearray and len(last) < _PIECE:
            last += pcm
        else:
            self._after.append(bytearray(pcm))
        self._size += len(pcm)
        while (excess := self._size - self._capacity) > 0:
            pieces = self._before or self._after
            oldest = pieces.popleft()
            lost = min(excess, len(oldest))
            if lost < len(oldest):
                if type(oldest) is bytearray:
                    del oldest[:lost]
                else:
                    # Use a view: trimming a long piece repeatedly must not copy it each time.
                    oldest = memoryview(oldest)[lost:]
                pieces.appendleft(oldest)
            self._size -= lost
            self.dropped += lost

    def end_turn(self, verb: TurnEnd) -> None:
        """End the turn. A second turn joins the first: one answer to everything that was said."""
        self._before += self._after
        self._after.clear()
        self._end = verb

    def clear(self) -> None:
        """Forget the audio since the last end of a turn."""
        self._size -= sum(map(len, self._after))
        self._after.clear()

    def take(self) -> tuple[bytes, TurnEnd | None, bytes]:
        """Return and forget everything: audio, the end of its turn, and the audio after that."""
        taken = b"".join(self._before), self._end, b"".join(self._after)
        self._before.clear()
        self._after.clear()
        self._end = None
        self._size = 0
        return taken
