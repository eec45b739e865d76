"""Holds input of the user until the provider is ready."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, TypeAlias

from ..protocol._commands import ExtensionCommand, content_size

TurnEnd: TypeAlias = Literal["commit", "end_turn"]
"""The verb that ended a turn."""

Held: TypeAlias = bytes | TurnEnd | ExtensionCommand
"""A stretch of audio, the end of a turn, or a command such as a text."""


_OVERHEAD: Final = 512
"""Bytes that a waiting command counts besides its content: the objects take memory, too."""

_PIECE: Final = 4096
"""Bytes. Smaller pieces are joined: a peer may send samples one by one, each of which would take 60 bytes."""


def held_size(command: ExtensionCommand) -> int:
    """Return how many bytes of memory `command` takes while it waits, about."""
    return _OVERHEAD + content_size(command)


class HeldInput:
    """A bounded amount of audio, at most one end of a turn, and commands, in their order.

    `capacity`: bytes of PCM16. The newest bytes are kept, however the audio was divided into pieces. The
    commands are not bounded here: see `commands_size`.
    """

    __slots__ = ("_capacity", "_end", "_marks", "_pieces", "_size", "_start", "commands_size", "dropped")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity & ~1
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._size = 0
        self._start = 0  # position of the first piece in all audio that was ever added
        self._marks: list[tuple[int, TurnEnd | ExtensionCommand]] = []  # each with its position in the audio
        self._end: int | None = None  # index of the end of the turn among them: thousands may be held
        self.commands_size: int = 0
        """Bytes of the commands; the caller must take no more input while they are too many."""
        self.dropped: int = 0
        """Bytes of audio that exceeded the capacity: the oldest were dropped."""

    def add(self, pcm: bytes) -> None:
        """Add audio, in whole samples."""
        if len(pcm) > self._capacity:
            # Copy: a view would keep a long recording in memory.
            start = len(pcm) - self._capacity
            self.dropped += start
            self._start += start
            pcm = pcm[start:]
        pieces = self._pieces
        last = pieces[-1] if pieces else None
        if len(pcm) >= _PIECE:
            pieces.append(pcm)
        elif type(last) is bytearray and len(last) < _PIECE:
            last += pcm
        else:
            pieces.append(bytearray(pcm))
        self._size += len(pcm)
        while (excess := self._size - self._capacity) > 0:
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
            self._start += lost
            self.dropped += lost

    def end_turn(self, verb: TurnEnd) -> None:
        """End the turn. A second turn joins the first: one answer to everything that was said."""
        if self._end is not None:
            del self._marks[self._end]
        self._end = len(self._marks)
        self._mark(verb)

    def add_command(self, command: ExtensionCommand, size: int) -> None:
        """Add a command of `size` bytes."""
        self.commands_size += size
        self._mark(command)

    def _mark(self, what: TurnEnd | ExtensionCommand) -> None:
        self._marks.append((self._start + self._size, what))

    def clear(self) -> None:
        """Forget the audio since the last end of a turn."""
        marks = self._marks
        kept = 0 if self._end is None else max(0, marks[self._end][0] - self._start)
        while (excess := self._size - kept) > 0:
            newest = self._pieces.pop()
            self._size -= len(newest)
            if excess < len(newest):
                self._pieces.append(newest[:-excess])
                self._size += len(newest) - excess
        end = self._start + self._size
        for place in reversed(range(len(marks))):
            if marks[place][0] <= end:
                break
            marks[place] = end, marks[place][1]

    def take(self) -> list[Held]:
        """Return and forget everything, in its order; audio between two others is one stretch."""
        audio = b"".join(self._pieces)
        taken: list[Held] = []
        at = 0
        for position, mark in self._marks:
            if at < (end := max(0, position - self._start)):
                taken.append(audio[at:end])
                at = end
            taken.append(mark)
        if at < len(audio):
            taken.append(audio[at:])
        self._pieces.clear()
        self._start += self._size
        self._size = 0
        self._marks.clear()
        self._end = None
        self.commands_size = 0
        return taken
