"""`speko-anyio demo` and `speko-anyio say`: a question, and the spoken answer into a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from ..audio._pcm import duration
from ..client._api import Speko
from . import _files as files
from ._connecting import connected, gateway_here
from ._conversation_stats import median_text
from ._display import Display
from ._failures import USAGE, CommandError
from ._parser import WRITTEN
from ._turn import Answer, take_turn

_RATE: Final = 24_000


async def demo(options: argparse.Namespace) -> None:
    """Start a gateway, ask it a spoken question, write the answer."""
    files.check_writable(options.output)
    answers: list[Answer] = []
    with Display() as display:
        display.status("starting the gateway and the offline voice")
        question = await files.load_or_speak(options.wav, options.text, _RATE)
        async with gateway_here() as here, Speko(here.api_key, here.base_url) as speko:
            display.line(f"gateway   {here.base_url}, provider local, on {options.backend}")
            display.line(f"question  {duration(question, _RATE):.1f} s of speech at {_RATE} Hz")
            for _ in range(options.turns):
                display.status("opening a session")
                async with speko.realtime.connect(
                    provider="local", model="local", input_sample_rate=_RATE, output_sample_rate=_RATE
                ) as session:
                    answers.append(
                        await take_turn(session, question, progress=display.progress, show=display.show)
                    )
        answer = answers[-1]
        await _save(answer, options.output, display)
        times = [each.time_to_first_audio for each in answers if each.time_to_first_audio is not None]
        if len(times) == 1:
            display.line(answer.timing())
        else:
            what = f" of {len(times)} turns"
            display.line(f"time to first audio: {median_text(times, what)}, after the end of the question")
        answer.check_whole()


async def say(options: argparse.Namespace) -> None:
    """Ask any endpoint, show the conversation, write the answer."""
    written = options.output == WRITTEN
    if not written:
        files.check_writable(options.output)
    questions = [None] * options.greet + await _questions(options)
    if not questions:
        raise CommandError("there is no question; name a recording, or use --text, --say or --greet", USAGE)
    answers: list[Answer] = []
    with Display() as display:
        async with connected(options, display) as session:
            for question in questions:
                if isinstance(question, bytes):
                    length = f"{duration(question, options.rate):.1f} s of speech at {options.rate} Hz"
                    display.line(f"question  {length}, to {options.provider}")
                elif question is not None:
                    display.line(f"you       {question}")
                answers.append(
                    await take_turn(
                        session, question, progress=display.progress, show=display.show, written=written
                    )
                )
        answer = answers[-1]
        if not written:
            answer.pcm[:0] = b"".join(each.pcm for each in answers[:-1])
            await _save(answer, options.output, display)
        display.line(answer.timing())
        for each in answers:
            each.check_whole()


async def _questions(options: argparse.Namespace) -> list[bytes | str | None]:
    """Return the question that the options ask for, if there is one."""
    if options.typed is not None:
        return [options.typed]
    if options.wav is None and options.text is None:
        return []
    return [await files.load_or_speak(options.wav, options.text, options.rate)]


async def _save(answer: Answer, path: Path, display: Display) -> None:
    pcm = bytes(answer.pcm)
    await files.save(path, pcm, answer.sample_rate)
    seconds = duration(pcm, answer.sample_rate)
    display.line(f"answer    {seconds:.1f} s of speech, written to {path}")
