"""Engines that need no account: the offline voice (extra ``local``) and a model made of a few rules."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from speko_anyio.gateway.engines import Engines, Message, ToolRequest
from speko_anyio.gateway.local import Grammar, PocketsphinxEar, Synthesizer
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


@asynccontextmanager
async def offline_engines() -> AsyncIterator[Engines]:
    """Start the recogniser's process and load the voice; stop it at the end of the block."""
    async with PocketsphinxEar(phrases=PHRASES) as ear, Synthesizer() as voice:
        yield Engines(ear, ToyModel(), voice)
