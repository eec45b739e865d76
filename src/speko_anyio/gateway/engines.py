"""Interfaces of the engines that make a voice bot: speech to text, a language model and text to speech.

`speko_anyio.gateway.local.LocalVoice` takes any of them in place of its own, and a handler of your own may be
built on them. An engine is shared by all sessions, which may call it at the same time. If it is also an async
context manager, `LocalVoice` enters it at startup and exits it at shutdown.

Every call is cancelled when the user interrupts the bot. An engine raises `EngineError` for its failures; any
other exception is considered a bug and ends the session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from speko_anyio.protocol.errors import SpekoError
from speko_anyio.protocol.mint import ToolSpec

from ._spoken_text import HeardText, SpokenText

__all__ = [
    "EngineError",
    "Engines",
    "HeardText",
    "LanguageModel",
    "Message",
    "SpeaksInParts",
    "SpeechToText",
    "SpokenText",
    "TextToSpeech",
    "ToolRequest",
    "VoiceChoice",
]


class EngineError(SpekoError):
    """An engine failed. The client receives `code` and the message, and the session continues."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code: str = code

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, str(self))


class ToolRequest(NamedTuple):
    """The model calls a tool of the client."""

    name: str
    arguments: str
    """JSON text."""


class Message(NamedTuple):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    request: ToolRequest | None = None
    """What a message of the role `tool` answers."""
    heard_seconds: float | None = None
    """Of an answer that the user interrupted: seconds of it that were heard. `text` has only those words."""


class SpeechToText(Protocol):
    """Recognises speech."""

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        """Return the text of `pcm`, PCM16 mono at `sample_rate`; empty if it contains no speech."""
        ...


class LanguageModel(Protocol):
    """Decides what to say."""

    def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        """Yield sentences and tool calls.

        After a `ToolRequest` it is called again with the results, which are the last messages. If the last
        message is of the role `system`, the bot is asked to speak without a new turn of the user.
        """
        ...


class TextToSpeech(Protocol):
    """Speaks."""

    def synthesize(self, text: str, sample_rate: int) -> AsyncGenerator[bytes, None]:
        """Yield `text` as speech, PCM16 mono at `sample_rate`, in pieces of whole samples, the first soon.

        The pieces are played one after the other without a gap.
        """
        ...


@runtime_checkable
class VoiceChoice(Protocol):
    """Text to speech that has several voices. Optional: without it, clients can't choose."""

    async def with_voice(self, voice: str) -> TextToSpeech:
        """Return the same engine with the voice of that name; raise ValueError if there is none."""
        ...


@runtime_checkable
class SpeaksInParts(Protocol):
    """Text to speech that knows what each of its pieces says. Optional.

    Then the words that were heard of an interrupted sentence are known better. Without it they follow from
    the pace of the sentences before.
    """

    def parts(self, text: str) -> Sequence[str]:
        """Return `text` in parts: what each of the pieces says that `synthesize` yields for it, in order.

        Joined by single spaces they are `text`.
        """
        ...


class Engines(NamedTuple):
    """One engine of each kind."""

    ear: SpeechToText
    brain: LanguageModel
    voice: TextToSpeech
