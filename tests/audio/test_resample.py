from __future__ import annotations

import math
import re
import sys
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio._extras import install_extra
from speko_anyio.audio import _pcm as pcm
from speko_anyio.audio.resample import Resampler, resample

RATES = [(16_000, 24_000), (24_000, 16_000), (22_050, 24_000), (48_000, 16_000)]


def tone(frequency: float, rate: int, seconds: float) -> bytes:
    count = round(rate * seconds)
    step = 2 * math.pi * frequency / rate
    return pcm.to_bytes(array("h", [round(12_000 * math.sin(step * index)) for index in range(count)]))


def crossings(audio: bytes) -> int:
    values = pcm.samples(audio)
    return sum(1 for before, after in pairwise(values) if before < 0 <= after)


def run(source: int, target: int, pieces: list[bytes]) -> bytes:
    resampler = Resampler(source, target)
    return b"".join(map(resampler.push, pieces)) + resampler.flush()


@given(st.sampled_from(RATES), st.lists(st.integers(0, 4000), max_size=8), st.integers(0, 1))
def test_the_cuts_of_the_input_do_not_matter(rates: tuple[int, int], cuts: list[int], odd: int) -> None:
    whole = tone(440, rates[0], 0.1) + b"\x7f" * odd
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    assert run(*rates, pieces) == run(*rates, [whole])


@pytest.mark.parametrize("rates", RATES)
def test_a_tone_keeps_its_pitch_level_and_duration(rates: tuple[int, int]) -> None:
    source, target = rates
    audio = tone(1000, source, 1)
    converted = run(source, target, [audio])
    assert pcm.duration(converted, target) == pytest.approx(1, abs=0.001)
    assert crossings(converted) == pytest.approx(1000, abs=2)
    assert pcm.rms_dbfs(converted) == pytest.approx(pcm.rms_dbfs(audio), abs=0.1)


@pytest.mark.parametrize("rates", RATES)
def test_delay_is_what_the_documentation_says(rates: tuple[int, int]) -> None:
    source, target = rates
    resampler = Resampler(source, target)
    frame = source // 100
    pushed = received = worst = 0.0
    for _ in range(50):
        received += pcm.duration(resampler.push(bytes(frame * 2)), target)
        pushed += frame / source
        worst = max(worst, pushed - received)
    assert worst <= 0.0205


def test_equal_rates_pass_through_and_carry_the_odd_byte() -> None:
    resampler = Resampler(16_000, 16_000)
    assert [resampler.push(b"abc"), resampler.push(b"d"), resampler.push(b"e")] == [b"ab", b"cd", b""]
    assert resampler.flush() == b""
    assert resampler.push(b"fg") == b"fg"


def test_reset_forgets_what_was_pushed() -> None:
    resampler = Resampler(24_000, 16_000)
    resampler.push(tone(440, 24_000, 0.3) + b"\x01")
    resampler.reset()
    audio = tone(1000, 24_000, 0.2)
    assert resampler.push(audio) + resampler.flush() == run(24_000, 16_000, [audio])


def test_a_flushed_resampler_starts_anew() -> None:
    resampler = Resampler(24_000, 16_000)
    audio = tone(1000, 24_000, 0.2)
    first = resampler.push(audio) + resampler.flush()
    assert resampler.push(audio) + resampler.flush() == first


def test_full_scale_does_not_wrap_around() -> None:
    square = pcm.to_bytes(array("h", ([32767] * 40 + [-32768] * 40) * 20))
    converted = pcm.samples(run(24_000, 16_000, [square]))
    middle = converted[200:-200]
    assert max(middle) == 32767
    assert min(middle) == -32768
    assert crossings(pcm.to_bytes(middle)) <= 20


@given(st.sampled_from(RATES), st.integers(0, 3000))
def test_resample_gives_the_nearest_number_of_samples(rates: tuple[int, int], count: int) -> None:
    source, target = rates
    converted = resample(bytes(count * 2), source, target)
    assert len(converted) / 2 == pytest.approx(count * target / source, abs=0.5001)


@pytest.mark.parametrize("rates", [(0, 16_000), (16_000, -1)])
def test_rates_are_positive(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Resampler(*rates)


def test_without_soxr_equal_rates_work_and_others_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert resample(b"\1\2", 16_000, 16_000) == b"\1\2"
    with pytest.raises(ImportError, match=re.escape(install_extra("audio"))):
        Resampler(16_000, 24_000)
