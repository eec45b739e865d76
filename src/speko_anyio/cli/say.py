"""`speko-anyio say`: a recorded question to any endpoint, the spoken answer into a file."""

from __future__ import annotations

import argparse
import os
from contextlib import AsyncExitStack
from typing import Final

from ..client.api import Speko
from . import files
from .display import Display
from .recording import recorded_to
from .turn import take_turn

USUAL_MODELS: Final = {
    "openai": "gpt-realtime",
    "google": "gemini-2.5-flash-native-audio",
    "xai": "grok-voice-beta",
}
"""The model of a provider that was named without one; any other provider's is called as the provider is."""

SERVED_HERE: Final = ("local", "echo")
"""Providers that a gateway in this process serves when no other is named."""


def usual_model(provider: str) -> str:
    """The model of a provider that was named without one."""
    return USUAL_MODELS.get(provider, provider)


async def say(options: argparse.Namespace) -> None:
    """Ask, show the conversation, write the answer."""
    files.check_writable(options.output)
    question = await files.load(options.wav, options.rate)
    base_url = options.base_url or os.environ.get("SPEKO_BASE_URL")
    with Display() as display:
        async with AsyncExitStack() as stack:
            observer = stack.enter_context(recorded_to(options.record))
            api_key = None
            if base_url is None and options.provider in SERVED_HERE:
                from .here import gateway_here

                display.status("starting a gateway in this process")
                base_url, api_key = await stack.enter_async_context(gateway_here())
            speko = await stack.enter_async_context(Speko(api_key, base_url))
            display.status("opening a session")
            session = await stack.enter_async_context(
                speko.realtime.connect(
                    provider=options.provider,
                    model=options.model or usual_model(options.provider),
                    voice=options.voice,
                    system_prompt=options.system_prompt,
                    input_sample_rate=options.rate,
                    output_sample_rate=options.rate,
                    observer=observer,
                )
            )
            seconds = len(question) / 2 / options.rate
            display.line(f"question  {seconds:.1f} s of speech at {options.rate} Hz, to {options.provider}")
            answer = await take_turn(session, question, progress=display.progress, show=display.show)
        await files.save(options.output, bytes(answer.pcm), answer.sample_rate)
        seconds = len(answer.pcm) / 2 / answer.sample_rate
        display.line(f"answer    {seconds:.1f} s of speech, written to {options.output}")
        display.line(answer.timing())
