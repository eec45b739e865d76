"""Where a conversation's sound comes from and goes to: devices, or files that stand in for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, Self

import anyio

from ..audio.playback import Playback
from ..protocol.frames import Frame
from . import files
from .turn import CHUNK_SECONDS


class Ears(Protocol):
    """The user's speech: an iteration over pieces of PCM16, at the speed of speech."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Mouth(Protocol):
    """What plays the answers: fed with every frame."""

    @property
    def playback(self) -> Playback: ...

    def feed(self, frame: Frame) -> None: ...


class Recording:
    """A recorded question in place of a microphone: the pieces come when they would have been spoken."""

    def __init__(self, pcm: bytes, sample_rate: int) -> None:
        self._pcm = pcm
        self._size = round(sample_rate * CHUNK_SECONDS) * 2
        self._position = 0
        self._due: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._position >= len(self._pcm):
            raise StopAsyncIteration
        self._due = anyio.current_time() if self._due is None else self._due + CHUNK_SECONDS
        await anyio.sleep_until(self._due)
        piece = self._pcm[self._position : self._position + self._size]
        self._position += self._size
        return piece


class Tape:
    """A file in place of a loudspeaker: what would have been heard, silences and interruptions included."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._path = path
        self._heard = bytearray()
        self._playback = Playback(sample_rate=sample_rate)

    @property
    def playback(self) -> Playback:
        return self._playback

    def feed(self, frame: Frame) -> None:
        self._playback.feed(frame)

    async def run(self) -> None:
        """Listen at the speed of speech, until cancelled."""
        async for chunk in self._playback.chunks():
            self._heard += chunk

    async def save(self) -> None:
        """Write the file; `CommandError` when it can't be."""
        await files.save(self._path, bytes(self._heard), self._playback.sample_rate)
