"""Protocols for the engines of the bot: speech to text, a language model and text to speech.

Each call is cancelled when the user interrupts the bot. An engine raises `EngineError` for its failures; any
other exception is considered a bug and ends the session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, NamedTuple, Protocol

from speko_anyio.protocol.mint import ToolSpec


class EngineError(Exception):
    """An engine failed. The client receives `code` and the message, and the session continues."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Message(NamedTuple):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str


class ToolRequest(NamedTuple):
    """The model calls a tool of the client."""

    name: str
    arguments: str
    """JSON text."""


class SpeechToText(Protocol):
    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        """Return the text of `pcm`, which is PCM16 mono; empty if it contains no speech."""
        ...


class LanguageModel(Protocol):
    def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        """Yield sentences and tool calls. After a `ToolRequest` it is called again with the results."""
        ...


class TextToSpeech(Protocol):
    async def synthesize(self, text: str, sample_rate: int) -> bytes:
        """Return `text` as speech, PCM16 mono."""
        ...


class Engines(NamedTuple):
    """One engine of each kind, shared by all sessions."""

    recognizer: SpeechToText
    model: LanguageModel
    voice: TextToSpeech
