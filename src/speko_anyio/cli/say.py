"""`speko-anyio say`: a spoken question to any endpoint, the spoken answer into a file."""

from __future__ import annotations

import argparse

from . import files
from .connecting import connected
from .display import Display
from .turn import take_turn


async def say(options: argparse.Namespace) -> None:
    """Ask, show the conversation, write the answer."""
    files.check_writable(options.output)
    question = await files.load_or_speak(options.wav, options.text, options.rate)
    with Display() as display:
        async with connected(options, display) as session:
            seconds = len(question) / 2 / options.rate
            display.line(f"question  {seconds:.1f} s of speech at {options.rate} Hz, to {options.provider}")
            answer = await take_turn(session, question, progress=display.progress, show=display.show)
        await files.save(options.output, bytes(answer.pcm), answer.sample_rate)
        seconds = len(answer.pcm) / 2 / answer.sample_rate
        display.line(f"answer    {seconds:.1f} s of speech, written to {options.output}")
        display.line(answer.timing())
        answer.check_whole()
