"""`speko-anyio demo`: the whole product on one machine, in a few seconds."""

from __future__ import annotations

import argparse
import statistics
from typing import Final

from ..client.api import Speko
from . import files
from .display import Display
from .here import gateway_here
from .turn import Answer, take_turn

_RATE: Final = 24_000


async def demo(options: argparse.Namespace) -> None:
    """Start a gateway, ask it a spoken question, keep the answer."""
    files.check_writable(options.output)
    answers: list[Answer] = []
    with Display() as display:
        display.status("starting the gateway and the offline voice")
        question = await files.load_or_speak(options.wav, options.text, _RATE)
        async with gateway_here() as here, Speko(here.api_key, here.base_url) as speko:
            display.line(f"gateway   {here.base_url}, provider local, on {options.backend}")
            display.line(f"question  {len(question) / 2 / _RATE:.1f} s of speech at {_RATE} Hz")
            for _ in range(options.turns):
                display.status("opening a session")
                async with speko.realtime.connect(
                    provider="local", model="local", input_sample_rate=_RATE, output_sample_rate=_RATE
                ) as session:
                    answers.append(
                        await take_turn(session, question, progress=display.progress, show=display.show)
                    )
        answer = answers[-1]
        await files.save(options.output, bytes(answer.pcm), answer.sample_rate)
        seconds = len(answer.pcm) / 2 / answer.sample_rate
        display.line(f"answer    {seconds:.1f} s of speech, written to {options.output}")
        times = [a.time_to_first_audio * 1000 for a in answers if a.time_to_first_audio is not None]
        if len(times) == 1:
            display.line(answer.timing())
        else:
            display.line(
                f"time to first audio: median {statistics.median(times):.0f} ms of {len(times)} turns "
                f"({min(times):.0f} to {max(times):.0f}), after the end of the question"
            )
        answer.check_whole()
