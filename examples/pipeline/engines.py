"""What the bot needs of speech to text, a language model and text to speech: protocols of one method each.

All are cancelled when the user talks over the bot: they may be left at any ``await``. What is wrong with an
engine is an `EngineError`; anything else that it raises is taken for a bug, and ends the session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, NamedTuple, Protocol

from speko_anyio.protocol.mint import ToolSpec


class EngineError(Exception):
    """An engine can't do its work now; the client is told `code` and the message, and the session goes on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Message(NamedTuple):
    """One line of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str


class ToolRequest(NamedTuple):
    """The model wants a function of the client's to be run."""

    name: str
    arguments: str
    """JSON text."""


class SpeechToText(Protocol):
    async def hear(self, pcm: bytes, sample_rate: int) -> str:
        """What is said in `pcm`, PCM16 mono; empty when nothing is."""
        ...


class LanguageModel(Protocol):
    def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        """What to say next, by sentences. After a `ToolRequest` it is asked again, with the results."""
        ...


class TextToSpeech(Protocol):
    async def speak(self, text: str, sample_rate: int) -> bytes:
        """PCM16 mono of `text`."""
        ...


class Engines(NamedTuple):
    """One of each; shared by all sessions."""

    ears: SpeechToText
    mind: LanguageModel
    voice: TextToSpeech
