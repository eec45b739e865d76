"""Echo that is left in simulated rooms, how often it interrupts the assistant, and what becomes of the user.

``docs/benchmarks-details.md`` explains how to read the results.

    python benchmarks/echo.py [--quick] [--speech DIR] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import echo_rooms as rooms
import numpy as np
from bar_chart import Bar, Kind, Panel, draw
from echo_rooms import RATE, Devices, Room, Signal
from measuring import Case, measure, versions
from report import publish, table

from speko_anyio.audio import EchoCanceller, NoiseSuppressor, SpeechStarted, TurnDetector, webrtc_vad
from speko_anyio.audio._far_end import EchoPath, FarEnd
from speko_anyio.audio.resample import Resampler, resample
from speko_anyio.audio.wav import read_wav
from speko_anyio.gateway.local import speak_to_pcm

PACKAGES: Final = ("pywebrtc-audio", "numpy", "soxr", "webrtcvad-wheels")

SPEECH: Final = Path(__file__).parent.parent / "tests" / "data" / "speech"

DELAYS: Final = (0.02, 0.06, 0.12, 0.25)

SENTENCES: Final = (
    "It is a quarter past nine in the morning.",
    "The weather in Oslo is cloudy, with a little rain in the afternoon.",
    "Your timer for ten minutes is running.",
    "I can tell you the time, set a timer, add numbers, or tell you a story.",
    "Once upon a time there was a lighthouse keeper, who talked to the sea every evening.",
    "Seventeen and twenty five make forty two.",
    "Goodbye, and thank you for calling.",
    "The tea shop on the corner opens at eight, and it closes at six.",
)
"""What the offline voice says; each is an answer."""

PAUSE: Final = 1.0
"""Seconds between two answers."""

LEVELS: Final = (6.0, 0.0, -6.0)
"""By how many dB the user is louder than the echo."""

DEVICES: Final = {
    "in step": Devices(),
    "callbacks up to 4 ms late": Devices(jitter=0.004),
    "callbacks up to 10 ms late": Devices(jitter=0.010),
    "loudspeaker in bursts of 100 ms": Devices(latency=0.15, burst=5),
    "loudspeaker's clock 100 ppm fast": Devices(drift=1e-4, jitter=0.002),
    "loudspeaker's clock 100 ppm slow": Devices(drift=-1e-4, jitter=0.002),
    "clock 1000 ppm fast": Devices(drift=1e-3, jitter=0.002),
    "hardly any latency": Devices(latency=0.02, jitter=0.001),
}

_FIRST: Final = Kind("in the first second of speech", "#b7b7b7")
_SETTLED: Final = Kind("after that", "#2b6cb0")


class Talk(NamedTuple):
    """What an assistant says: its answers, one after another with pauses, as one signal."""

    speaker: str
    signal: Signal
    answers: Sequence[slice]


class Cancelling(NamedTuple):
    """How one room with one delay turned out."""

    speaker: str
    room: str
    delay: float
    first: float
    """dB by which the echo is reduced in the first second."""
    settled: float
    """The same after that."""
    before: int
    """Answers that the echo interrupts if it is not cancelled."""
    after: int
    """The same with the canceller."""
    answers: int


class Interrupting(NamedTuple):
    """How a user fares who talks over the assistant."""

    room: str
    level: float
    """dB by which the user is louder than the echo."""
    kept: float
    """Level of the user's speech, in dB, beside the same without an assistant."""
    noticed: int
    later: float
    """Milliseconds by which it is noticed later than without an assistant, median."""
    times: int


def talk(speaker: str, pieces: Sequence[Signal]) -> Talk:
    answers, parts, at = [], [], 0
    for piece in pieces:
        parts += [piece, np.zeros(round(PAUSE * RATE))]
        answers.append(slice(at, at + len(piece)))
        at += len(piece) + len(parts[-1])
    signal = np.concatenate(parts)
    return Talk(speaker, signal[: len(signal) // rooms.BLOCK * rooms.BLOCK], answers)


def interruptions(pcm: bytes, answers: Sequence[slice]) -> list[float | None]:
    """Return when the offline voice's turn detector takes each of `answers` for the user, in seconds.

    The detector begins anew with each answer, since an interrupted assistant is silent.
    """
    heard: list[float | None] = []
    for answer in answers:
        turns = TurnDetector(16_000, is_speech=webrtc_vad(16_000))
        piece = resample(pcm[2 * answer.start : 2 * answer.stop], RATE, 16_000)
        starts = (
            at / 32_000
            for at in range(0, len(piece), 640)
            if any(isinstance(event, SpeechStarted) for event in turns.push(piece[at : at + 640]))
        )
        heard.append(next(starts, None))
    return heard


def cancelled(near: Signal, far: Signal) -> Signal:
    """Return `near` as a microphone with echo cancellation returns it."""
    return rooms.from_pcm(
        EchoCanceller(noise_suppression=True).process(rooms.to_pcm(near), rooms.to_pcm(far))
    )


def cancelling(said: Talk, room: Room, delay: float) -> Cancelling:
    echo = rooms.echo(said.signal, room, delay)
    near = echo + rooms.noise(len(echo))
    left = cancelled(near, said.signal)
    speech = rooms.loud(echo)
    since = np.cumsum(speech)
    # An echo outlasts its answer.
    answers = [slice(each.start, each.stop + round(PAUSE * RATE)) for each in said.answers]
    before = interruptions(rooms.to_pcm(near), answers)
    after = interruptions(rooms.to_pcm(left), answers)
    return Cancelling(
        said.speaker,
        room.name,
        delay,
        rooms.erle(echo, left, speech & (since <= RATE)),
        rooms.erle(echo, left, speech & (since > RATE)),
        sum(start is not None for start in before),
        sum(start is not None for start in after),
        len(answers),
    )


def interrupting(said: Talk, user: Signal, room: Room, level: float) -> Interrupting:
    """Let the user say the same in every second answer, half a second after its beginning."""
    echo = rooms.echo(said.signal, room, 0.06)
    near = np.zeros(len(echo))
    times = []
    for answer in said.answers[1::2]:
        begin = answer.start + RATE // 2
        piece = user[: answer.stop - begin]
        near[begin : begin + len(piece)] += piece
        times.append(slice(begin, begin + len(piece)))
    talking = rooms.loud(near)
    near *= rooms.rms(echo[talking]) / rooms.rms(near[talking]) * 10 ** (level / 20)
    noise = rooms.noise(len(echo))
    both = cancelled(echo + near + noise, said.signal)
    alone = cancelled(near + noise, np.zeros(len(echo)))
    noticed = interruptions(rooms.to_pcm(both), times)
    usual = interruptions(rooms.to_pcm(alone), times)
    later = [(got - want) * 1000 for got, want in zip(noticed, usual, strict=True) if got and want]
    return Interrupting(
        room.name,
        level,
        20 * float(np.log10(rooms.rms(both[talking]) / rooms.rms(alone[talking]))),
        sum(start is not None for start in noticed),
        statistics.median(later) if later else float("nan"),
        len(times),
    )


def by_devices(said: Talk, room: Room, devices: Devices) -> float:
    """Return the dB by which the echo is reduced in the second half, through both devices' callbacks."""
    path = EchoPath(EchoCanceller(noise_suppression=True), Resampler(RATE, RATE))
    echo, left = rooms.record(said.signal, np.zeros(len(said.signal)), room, devices, path.process)
    counted = rooms.loud(echo)
    counted[: len(echo) // 2] = False
    return rooms.erle(echo, left, counted)


def cases(said: Talk) -> Iterator[Case]:
    """Yield what 10 ms of audio cost."""
    second = slice(2 * RATE, 4 * RATE)  # where somebody speaks
    far = rooms.to_pcm(said.signal[second])
    near = rooms.to_pcm(rooms.echo(said.signal, rooms.SMALL, 0.06)[second] + rooms.noise(2 * RATE))
    pieces = [(near[at : at + 960], far[at : at + 960]) for at in range(0, len(near), 960)]

    def case(task: str, process: Callable[[bytes, bytes], object], *, silent: bool = False) -> Case:
        audio = itertools.cycle([(near, bytes(len(far))) for near, far in pieces] if silent else pieces)

        def run(times: int) -> None:
            for near, far in itertools.islice(audio, times):
                process(near, far)

        return Case(task, "", run, 2)

    suppressor = NoiseSuppressor()
    yield case("echo cancellation", EchoCanceller().process)
    yield case("echo cancellation, nothing is played", EchoCanceller().process, silent=True)
    yield case("echo cancellation and noise suppression", EchoCanceller(noise_suppression=True).process)
    yield case("noise suppression", lambda near, _far: suppressor.process(near))
    far_end, now = FarEnd(RATE), 0.0

    def pair(near: bytes, far: bytes) -> None:
        nonlocal now
        now += 0.02
        far_end.put(far, RATE, now)
        far_end.take(len(near), now + 0.01)

    yield case("in the threads of both devices", pair)


def rooms_table(found: Sequence[Cancelling]) -> str:
    rows = [
        (
            f"{each.speaker}, {each.room}",
            f"{each.delay * 1000:.0f}",
            f"{each.first:.0f}",
            f"{each.settled:.0f}",
            f"{each.before} of {each.answers}",
            f"{each.after} of {each.answers}",
        )
        for each in found
    ]
    head = (
        "who speaks, where",
        "delay, ms",
        "first second, dB",
        "**later, dB**",
        "interrupted before",
        "**after**",
    )
    return table(head, rows)


def users_table(found: Sequence[Interrupting]) -> str:
    rows = [
        (
            f"{each.room}, {each.level:+.0f} dB",
            f"{each.kept:.1f}",
            f"{each.noticed} of {each.times}",
            f"{each.later:.0f}",
        )
        for each in found
    ]
    return table(("user beside the echo", "level kept, dB", "**noticed**", "later by, ms"), rows)


def plot(found: Sequence[Cancelling]) -> str:
    panels = []
    for speaker, room in dict.fromkeys((each.speaker, each.room) for each in found):
        bars = []
        for each in found:
            if (each.speaker, each.room) != (speaker, room):
                continue
            name = f"{each.delay * 1000:.0f} ms"
            left = f"{each.after} of {each.answers}"
            bars += [Bar(name, each.first, "", _FIRST), Bar("", each.settled, left, _SETTLED)]
        panels.append(Panel(f"{speaker}, {room}", bars, unit="dB"))
    return draw(
        "Echo that the canceller removes, by the delay",
        "beside the bars: answers that the echo still interrupts; without the canceller, "
        f"{sum(each.before for each in found)} of {sum(each.answers for each in found)}",
        panels,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Echo cancellation in simulated rooms.")
    parser.add_argument("--quick", action="store_true", help="a glance: one delay, few rounds")
    parser.add_argument("--speech", type=Path, default=SPEECH, metavar="DIR", help="WAVs of people")
    parser.add_argument("--out", type=Path, help="folder for echo.json, echo.md and echo.svg")
    parser.add_argument("--docs", action="store_true", help="also renew tables and plot in docs/")
    options = parser.parse_args()
    started = time.monotonic()
    people = [
        rooms.speech(read_wav(path, sample_rate=RATE).pcm) for path in sorted(options.speech.glob("*.wav"))
    ]
    voice = talk("offline voice", [rooms.speech(speak_to_pcm(text, RATE)) for text in SENTENCES])
    recorded = talk("recorded speech", people * (8 // len(people)))
    delays = DELAYS[:1] if options.quick else DELAYS
    found = [
        cancelling(said, room, delay)
        for said in (voice, recorded)
        for room in rooms.ROOMS
        for delay in delays
    ]
    users = [interrupting(voice, people[0], room, level) for room in rooms.ROOMS for level in LEVELS]
    devices = {
        name: [by_devices(voice, room, each) for room in rooms.ROOMS] for name, each in DEVICES.items()
    }
    costs = measure(list(cases(voice)), rounds=5 if options.quick else 31, seconds=0.005)
    about = versions(PACKAGES)
    text = "\n\n".join(
        (
            ", ".join(f"{name} {version}" for name, version in about.items()) + ".",
            "#### Echo",
            rooms_table(found),
            "#### Users who interrupt",
            users_table(users),
            "#### Devices",
            table(
                ("dB, second half", *(room.name for room in rooms.ROOMS)),
                [(name, *(f"{value:.0f}" for value in values)) for name, values in devices.items()],
            ),
            "#### Cost",
            table(
                ("µs of CPU per 10 ms of audio", "median", "quartiles"),
                [
                    (task, f"{cost.median * 1e6:.1f}", f"{cost.lower * 1e6:.1f} to {cost.upper * 1e6:.1f}")
                    for (task, _), cost in costs.items()
                ],
            ),
            "",
        )
    )
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    results = {
        "about": about,
        "echo": [each._asdict() for each in found],
        "users": [each._asdict() for each in users],
        "devices": {
            name: dict(zip(("small", "lively"), values, strict=True)) for name, values in devices.items()
        },
        "cost": {task: cost.rounded(1e6) for (task, _), cost in costs.items()},
    }
    publish("echo", text, plot(found), results, out=options.out, docs=options.docs)


if __name__ == "__main__":
    main()
