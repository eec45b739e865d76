"""What a packet of a phone call costs: G.711 and the messages of the carriers.

``docs/benchmarks-details.md`` explains how to read the results.

    python benchmarks/telephony.py [--quick] [--rounds N] [--bare] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import random
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import application_heap
from bar_chart import Bar, Kind, Panel, draw
from measuring import Case, Figure, Neighbours, Ratio, measure, versions
from report import publish, table

from speko_anyio.telephony import TwilioStream, g711

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        import audioop
    except ImportError:
        audioop = None  # type: ignore[assignment]
try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]

Figures = dict[tuple[str, str], Figure]

PACKAGES: Final = ("msgspec", "audioop-lts", "numpy")

OURS: Final = "speko-anyio"
TABLES: Final = "speko-anyio, without audioop"
AUDIOOP: Final = "audioop"
INTEGER: Final = "one long integer"
NUMPY: Final = "numpy"
STANDARD: Final = "json, base64, audioop"

_KINDS: Final = {
    OURS: Kind("speko-anyio", "#2b6cb0"),
    TABLES: Kind("speko-anyio, without audioop", "#90b8e0"),
    AUDIOOP: Kind("compiled", "#d9a441"),
    NUMPY: Kind("compiled", "#d9a441"),
    STANDARD: Kind("compiled", "#d9a441"),
    INTEGER: Kind("Python", "#b7b7b7"),
}

DECODE: Final = "µ-law to PCM, 160 bytes"
ENCODE: Final = "PCM to µ-law, 160 samples"
A_DECODE: Final = "A-law to PCM, 160 bytes"
A_ENCODE: Final = "PCM to A-law, 160 samples"
RECEIVE: Final = "Twilio's media message to PCM, 160 bytes"
SEND: Final = "PCM to a media message for Twilio, 160 samples"

AT_MOST: Final = 0.6
"""µs that a packet may take longer than with `audioop`."""

_noise = random.Random(1)
PCM: Final = struct.pack("<160h", *(round(8000 * math.sin(n / 5) + _noise.gauss(0, 500)) for n in range(160)))
"""Speech, as far as its levels go."""
ULAW: Final = g711.pcm_to_ulaw(PCM)
ALAW: Final = g711.pcm_to_alaw(PCM)

MEDIA: Final = json.dumps(
    {
        "event": "media",
        "sequenceNumber": "4",
        "media": {
            "track": "inbound",
            "chunk": "3",
            "timestamp": "60",
            "payload": base64.b64encode(ULAW).decode(),
        },
        "streamSid": "MZ00000000000000000000000000000001",
    }
)
START: Final = json.dumps({"event": "start", "start": {"streamSid": "MZ00000000000000000000000000000001"}})


def _case(task: str, contender: str, work: Callable[[Any], object], given: object) -> Case:
    def run(times: int) -> object:
        result: object = None
        for _ in repeat(None, times):
            result = work(given)
        return result

    return Case(task, contender, run)


def cases() -> Iterator[Case]:
    """Yield each contender's way to do each task, after a check that all give the same."""
    yield _case(DECODE, OURS, g711.ulaw_to_pcm, ULAW)
    yield _case(DECODE, TABLES, lambda data: g711._decode(data, g711._ULAW_VALUES), ULAW)
    yield _case(ENCODE, OURS, g711.pcm_to_ulaw, PCM)
    yield _case(ENCODE, TABLES, lambda pcm: g711._encode(pcm, g711._ULAW_CODES), PCM)
    assert LongInteger(160).encode(PCM) == ULAW
    yield _case(ENCODE, INTEGER, LongInteger(160).encode, PCM)
    yield _case(A_DECODE, OURS, g711.alaw_to_pcm, ALAW)
    yield _case(A_DECODE, TABLES, lambda data: g711._decode(data, g711._ALAW_VALUES), ALAW)
    yield _case(A_ENCODE, OURS, g711.pcm_to_alaw, PCM)
    yield _case(A_ENCODE, TABLES, lambda pcm: g711._encode(pcm, g711._ALAW_CODES), PCM)
    stream = TwilioStream()
    stream.receive_message(START)
    yield _case(RECEIVE, OURS, stream.receive_message, MEDIA)
    yield _case(SEND, OURS, stream.audio, PCM)
    if audioop is not None:
        assert audioop.lin2ulaw(PCM, 2) == ULAW
        yield _case(DECODE, AUDIOOP, lambda data: audioop.ulaw2lin(data, 2), ULAW)
        yield _case(ENCODE, AUDIOOP, lambda pcm: audioop.lin2ulaw(pcm, 2), PCM)
        yield _case(A_DECODE, AUDIOOP, lambda data: audioop.alaw2lin(data, 2), ALAW)
        yield _case(A_ENCODE, AUDIOOP, lambda pcm: audioop.lin2alaw(pcm, 2), PCM)
        yield _case(RECEIVE, STANDARD, _receive, MEDIA)
        yield _case(SEND, STANDARD, _send, PCM)
    if np is not None:
        yield from _numpy_cases()


def _receive(message: str) -> bytes:
    fields = json.loads(message)
    return audioop.ulaw2lin(base64.b64decode(fields["media"]["payload"]), 2)


def _send(pcm: bytes) -> str:
    payload = base64.b64encode(audioop.lin2ulaw(pcm, 2)).decode()
    return json.dumps({"event": "media", "streamSid": "MZ", "media": {"payload": payload}})


def _numpy_cases() -> Iterator[Case]:
    codes = np.array(g711._ULAW_CODES, dtype=np.uint8)
    values = np.frombuffer(g711.ulaw_to_pcm(bytes(range(256))), dtype="<i2")

    def encode(pcm: bytes) -> bytes:
        return codes.take(np.frombuffer(pcm, dtype="<u2")).tobytes()

    def decode(data: bytes) -> bytes:
        return values.take(np.frombuffer(data, dtype=np.uint8)).tobytes()

    assert (encode(PCM), decode(ULAW)) == (ULAW, g711.ulaw_to_pcm(ULAW))
    yield _case(ENCODE, NUMPY, encode, PCM)
    yield _case(DECODE, NUMPY, decode, ULAW)


class LongInteger:
    """Encodes µ-law with arithmetic on all samples at once: the fastest way in Python that we know.

    All samples are one integer. Bias and complement make every lane of 16 bits a positive magnitude, whose
    upper byte gives the segment, and with the upper bits of the lower byte, the step.
    """

    def __init__(self, samples: int) -> None:
        self._ones = int.from_bytes(b"\1\0" * samples, "little")
        self._bias = 132 * self._ones
        self._size = samples
        upper = range(256)
        self._class = bytes(min(byte.bit_length(), 5) << 5 for byte in upper)
        self._low = bytes(byte >> 3 for byte in upper)
        self._step = bytes(self._step_of(byte >> 5, byte & 31) for byte in upper)
        self._base = bytes(map(self._base_of, upper))
        self._sign = bytes(0xFF if byte < 128 else 0x7F for byte in upper)

    @staticmethod
    def _step_of(kind: int, low: int) -> int:
        """Return the bits of the step that the lower byte has."""
        return low & 15 if kind == 0 else (low >> kind) & (31 >> kind) if kind < 5 else 0

    @staticmethod
    def _base_of(upper: int) -> int:
        """Return the segment, and the bits of the step that the upper byte has."""
        if upper >= 128:
            return 0x7F  # louder than the loudest
        segment = upper.bit_length()
        rest = upper - (1 << segment - 1) if segment else 0
        return segment << 4 | (rest << 5 >> segment if segment <= 5 else rest >> segment - 5)

    def encode(self, pcm: bytes) -> bytes:
        number = int.from_bytes(pcm, "little")
        negative = (number >> 15) & self._ones
        magnitudes = ((number + self._bias - negative * 268) ^ (negative * 0xFFFF)).to_bytes(
            2 * self._size, "little"
        )
        upper = magnitudes[1::2]
        kinds = int.from_bytes(upper.translate(self._class), "little")
        low = int.from_bytes(magnitudes[::2].translate(self._low), "little")
        steps = int.from_bytes((kinds | low).to_bytes(self._size, "little").translate(self._step), "little")
        codes = int.from_bytes(upper.translate(self._base), "little") | steps
        signs = int.from_bytes(pcm[1::2].translate(self._sign), "little")
        return (codes ^ signs).to_bytes(self._size, "little")


def _tasks(figures: Figures) -> list[str]:
    return list(dict.fromkeys(task for task, _ in figures))


def figure_tables(figures: Figures) -> str:
    """Return one table per task."""
    parts = []
    for task in _tasks(figures):
        base = figures[task, OURS]
        rows = [
            (
                contender,
                f"{figure.median * 1e6:.2f}",
                f"{figure.lower * 1e6:.2f} to {figure.upper * 1e6:.2f}",
                f"{figure.least * 1e6:.2f}",
                "" if figure is base else f"{Ratio.of(base, figure).median:.2f}",
            )
            for (of, contender), figure in figures.items()
            if of == task
        ]
        parts.append(table((f"**{task}**", "µs, median", "quartiles", "least", "ours / it"), rows))
    return "\n\n".join(parts)


def target_table(figures: Figures) -> str:
    """Return how much longer each way takes than `audioop` does."""
    rows = []
    for task in (DECODE, ENCODE, A_DECODE, A_ENCODE):
        compiled = figures.get((task, AUDIOOP))
        for contender in (OURS, TABLES):
            if compiled is None:
                rows.append((f"{task}: {contender}", f"{AT_MOST:.2f}", "", "?"))
                continue
            more = (figures[task, contender].median - compiled.median) * 1e6
            verdict = "met" if more <= AT_MOST else "missed"
            rows.append((f"{task}: {contender}", f"{AT_MOST:.2f}", f"{more:.2f}", verdict))
    return table(("µs more than audioop", "at most", "measured", ""), rows)


def plot(figures: Figures) -> str:
    """Draw the times of all contenders as multiples of ours."""
    return draw(
        "CPU time per packet of a phone call, as a multiple of speko-anyio's",
        "20 ms of audio; shorter is faster.",
        [Panel(task, list(_bars(figures, task))) for task in (DECODE, ENCODE, RECEIVE, SEND)],
    )


def _bars(figures: Figures, task: str) -> Iterator[Bar]:
    base = figures[task, OURS]
    for (of, contender), figure in figures.items():
        if of == task:
            name = contender.removeprefix("speko-anyio, ")
            yield Bar(name, Ratio.of(figure, base).median, f"{figure.median * 1e6:.2f} µs", _KINDS[contender])


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time per packet of a phone call.")
    parser.add_argument("--quick", action="store_true", help="a glance: few rounds, shorter timings")
    parser.add_argument("--rounds", type=int, help="how often each contender is timed (101; quick: 7)")
    parser.add_argument("--bare", action="store_true", help="a process without an application's heap")
    parser.add_argument("--out", type=Path, help="folder for telephony.json, telephony.md and telephony.svg")
    parser.add_argument("--docs", action="store_true", help="also renew tables and plot in docs/")
    options = parser.parse_args()
    rounds: int = options.rounds or (7 if options.quick else 101)
    if rounds < 2:
        parser.error("quartiles need at least 2 rounds")

    if not options.bare:
        application_heap.enter()
    started = time.monotonic()
    neighbours = Neighbours()
    figures = measure(list(cases()), rounds=rounds, seconds=0.001 if options.quick else 0.004)
    about = versions(PACKAGES)
    measured = ", ".join(f"{name} {version}" for name, version in about.items() if name != "python")
    text = (
        f"{about['python']}; {measured}. Medians of {rounds} rounds.{neighbours.sentence()}\n\n"
        f"{target_table(figures)}\n\n{figure_tables(figures)}\n"
    )
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    found = {
        "versions": about,
        "rounds": rounds,
        "figures": [
            {"task": task, "contender": contender, **figure.rounded(1e6)}
            for (task, contender), figure in figures.items()
        ],
    }
    publish("telephony", text, plot(figures), found, out=options.out, docs=options.docs)


if __name__ == "__main__":
    main()
