"""Engines that need no account: the offline voice (extra ``local``) and a model made of a few rules."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio.to_thread
from engines import EngineError, Engines, Message, ToolRequest

from speko_anyio.audio.resample import resample
from speko_anyio.gateway.local import speak_to_pcm
from speko_anyio.gateway.local._grammar import Grammar
from speko_anyio.gateway.local._recognizer import Recognizer, RecognizerError, open_recognizer
from speko_anyio.gateway.local._worker_messages import SAMPLE_RATE
from speko_anyio.protocol.mint import ToolSpec

PHRASES = Grammar(
    ("hello", "tell me a story", "what is the weather in <city>"),
    {"city": ("paris", "oslo", "london")},
)
"""The phrases that the recogniser expects; it guesses at anything else."""

STORY = (
    "Once there was a bot that talked and talked.",
    "Then somebody talked over it.",
    "It stopped, and listened.",
    "That is the whole story.",
)


class OfflineRecognizer:
    """Recognise English in another process."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        try:
            heard = await self._recognizer.hear(resample(pcm, sample_rate, SAMPLE_RATE), PHRASES)
        except RecognizerError as error:
            raise EngineError(error.code, str(error)) from error
        return heard.text


class ToyModel:
    """Tell a story, and call a tool for the weather."""

    async def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        text = messages[-1].text
        if messages[-1].role == "tool":
            yield f"I was told: {text}."
        elif messages[-1].role == "system":
            yield "Hello! Ask me about the weather, or for a story."
        elif match := re.search(r"weather in (\w+)", text):
            if any(tool.name == "get_weather" for tool in tools):
                yield ToolRequest("get_weather", f'{{"city": "{match[1].title()}"}}')
            else:
                yield "I have no window."
        elif "story" in text:
            for sentence in STORY:
                yield sentence
        else:
            yield f"You said: {text}."


class OfflineVoice:
    """Speak with espeak-ng, in a thread."""

    async def synthesize(self, text: str, sample_rate: int) -> bytes:
        return await anyio.to_thread.run_sync(speak_to_pcm, text, sample_rate)


@asynccontextmanager
async def offline_engines() -> AsyncIterator[Engines]:
    """Start the recogniser's process, and stop it at the end of the block."""
    async with open_recognizer() as recognizer:
        yield Engines(OfflineRecognizer(recognizer), ToyModel(), OfflineVoice())
