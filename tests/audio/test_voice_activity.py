"""Voice activity detection: which frames are speech, and whether turns are found in noise."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from speko_anyio.audio import (
    IsSpeech,
    SpeechStarted,
    SpeechStopped,
    TurnDetector,
    energy_vad,
    webrtc_vad,
)
from speko_anyio.testing import mumble
from tests.support.noise import RECORDINGS, Noise, Scene, noise_only, scene

needs_webrtc = [
    pytest.mark.speech,
    pytest.mark.skipif(
        importlib.util.find_spec("webrtcvad") is None, reason="the extra local is not installed"
    ),
]


class Turn(NamedTuple):
    """When a turn began and ended, in seconds, and what is in it."""

    start: float
    end: float
    utterance: bytes


def turns_in(pcm: bytes, rate: int, is_speech: IsSpeech) -> list[Turn]:
    """Return the turns; one that the audio ends in counts as ended there."""
    detector = TurnDetector(rate, is_speech=is_speech)
    turns = []
    start = 0.0
    size = rate // 50 * 2
    for at in range(0, len(pcm), size):
        for event in detector.push(pcm[at : at + size]):
            if isinstance(event, SpeechStarted):
                start = at / 2 / rate
            elif isinstance(event, SpeechStopped):
                turns.append(Turn(start, at / 2 / rate, event.utterance))
    if isinstance(last := detector.end_turn(), SpeechStopped):
        turns.append(Turn(start, len(pcm) / 2 / rate, last.utterance))
    return turns


def is_found(heard: Scene, rate: int, is_speech: IsSpeech) -> bool:
    """Return whether one turn has the speech, from its start to its end, and no other turn has any of it."""
    over_it = [
        turn
        for turn in turns_in(heard.pcm, rate, is_speech)
        if turn.start < heard.end and turn.end > heard.start
    ]
    if len(over_it) != 1:
        return False
    (turn,) = over_it
    at = heard.pcm.find(turn.utterance[len(turn.utterance) // 2 :][: rate // 5]) // 2
    begin = at / rate - len(turn.utterance) // 2 / 2 / rate
    # The VADs may take a breath for its beginning.
    return -0.8 < begin - heard.start < 0.15 and 0.2 < turn.end - heard.end < 1.0


def found(make: Callable[[int], IsSpeech], noise: Noise | None, snr: float, rate: int = 16_000) -> int:
    """Return in how many recordings the speech is found."""
    return sum(is_found(scene(name, noise, snr, rate), rate, make(rate)) for name in RECORDINGS)


def energy(rate: int) -> IsSpeech:
    return energy_vad()


MAKERS: Final[dict[str, Callable[[int], IsSpeech]]] = {"energy_vad": energy, "webrtc_vad": webrtc_vad}
EITHER = pytest.mark.parametrize("make", [energy, pytest.param(webrtc_vad, marks=needs_webrtc)])

FOUND: Final[dict[tuple[Noise | None, int], tuple[int, int]]] = {
    (None, 0): (3, 3),
    ("white", 20): (3, 3),
    ("white", 10): (3, 3),
    ("white", 5): (1, 3),
    ("pink", 20): (3, 3),
    ("pink", 10): (3, 3),
    ("pink", 5): (1, 3),
    ("babble", 30): (1, 2),
    ("babble", 20): (0, 0),
}
"""In how many of the three recordings `energy_vad` and `webrtc_vad` find the speech."""


@pytest.mark.parametrize(("noise", "snr"), FOUND)
@pytest.mark.parametrize("name", ["energy_vad", pytest.param("webrtc_vad", marks=needs_webrtc)])
def test_speech_is_found_in_noise(name: str, noise: Noise | None, snr: int) -> None:
    expected = FOUND[noise, snr][list(MAKERS).index(name)]
    assert found(MAKERS[name], noise, snr) >= expected


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
@pytest.mark.parametrize("noise", ["white", "pink"])
@EITHER
def test_speech_is_found_in_noise_at_any_rate(
    make: Callable[[int], IsSpeech], noise: Noise, rate: int
) -> None:
    assert found(make, noise, 10, rate) == len(RECORDINGS)


@pytest.mark.parametrize("level", [-60, -40, -20])
@pytest.mark.parametrize("noise", ["white", "pink"])
@EITHER
def test_steady_noise_is_a_second_of_speech_at_most(
    make: Callable[[int], IsSpeech], noise: Noise, level: int
) -> None:
    turns = turns_in(noise_only(noise, level, 20.0, 16_000), 16_000, make(16_000))
    assert all(turn.end < 2.0 for turn in turns)
    assert level > -50 or not turns


@EITHER
def test_speech_counts_from_the_first_frame_of_a_stream(make: Callable[[int], IsSpeech]) -> None:
    pcm = mumble(2.0, sample_rate=16_000)
    (turn,) = turns_in(pcm + bytes(32_000), 16_000, make(16_000))
    assert turn.start < 0.2
    assert pcm[4_000:] in turn.utterance


def test_a_stream_may_begin_in_the_middle_of_a_word() -> None:
    is_speech = energy_vad()
    assert all(is_speech(b"\0\x20" * 320) for _ in range(10))


@EITHER
def test_silence_is_not_speech(make: Callable[[int], IsSpeech]) -> None:
    assert turns_in(bytes(320_000), 16_000, make(16_000)) == []


@pytest.mark.parametrize("rate", [11_025, 22_050, 44_100, 0])
def test_webrtc_takes_certain_rates(rate: int) -> None:
    with pytest.raises(ValueError, match=f"8000, 16000, 24000, 32000, 48000, not {rate}; resample"):
        webrtc_vad(rate)


def test_webrtc_takes_a_certain_aggressiveness() -> None:
    with pytest.raises(ValueError, match="aggressiveness is 0, 1, 2 or 3, not 4"):
        webrtc_vad(16_000, aggressiveness=4)


def test_without_the_extra_webrtc_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(ImportError, match="extra `local`"):
        webrtc_vad(16_000)


def test_the_guide_has_these_figures() -> None:
    page = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+), (\d+) dB softer \| (\d) of 3 \| (\d) of 3 \|$", page, re.MULTILINE)
    told = {(noise, int(snr)): (int(first), int(second)) for noise, snr, first, second in rows}
    assert told == {key: counts for key, counts in FOUND.items() if key[0] is not None}
