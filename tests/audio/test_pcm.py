from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.audio import _pcm as pcm

sample_lists = st.lists(st.integers(-32768, 32767), max_size=200)


def packed(values: list[int]) -> bytes:
    return pcm.to_bytes(array("h", values))


def test_samples_are_little_endian() -> None:
    assert list(pcm.samples(b"\x01\x00\xff\x7f\x00\x80")) == [1, 32767, -32768]


@given(sample_lists)
def test_to_bytes_is_the_inverse_of_samples(values: list[int]) -> None:
    assert list(pcm.samples(packed(values))) == values


def test_durations() -> None:
    assert pcm.duration(bytes(48_000), 24_000) == 1.0
    assert pcm.byte_count(0.02, 16_000) == 640
    assert pcm.silence(0.5, 16_000) == bytes(16_000)
    assert len(pcm.silence(1 / 3, 22_050)) == 14_700


def test_level_of_a_full_scale_sine_is_minus_three() -> None:
    sine = packed([round(32767 * math.sin(2 * math.pi * index / 100)) for index in range(1000)])
    assert pcm.rms_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert pcm.peak_dbfs(sine) == pytest.approx(0, abs=0.001)


def test_level_of_silence_is_finite() -> None:
    assert pcm.rms_dbfs(b"") == pcm.rms_dbfs(bytes(20)) == pcm.SILENCE_DBFS
    assert pcm.peak_dbfs(b"") == pcm.peak_dbfs(bytes(20)) == pcm.SILENCE_DBFS


def test_the_most_negative_sample_is_full_scale() -> None:
    assert pcm.peak_dbfs(packed([-32768])) == 0
    assert pcm.rms_dbfs(packed([-32768, -32768])) == 0


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="not whole frames of 2 bytes"):
        pcm.rms_dbfs(b"\0\0\0")


def test_downmix_is_the_mean_of_the_channels() -> None:
    assert list(pcm.samples(pcm.downmix(packed([100, 300, -5, -6]), 2))) == [200, -6]


@given(sample_lists, st.integers(1, 6))
def test_downmix_of_equal_channels_is_that_channel(values: list[int], channels: int) -> None:
    interleaved = packed([value for value in values for _ in range(channels)])
    assert pcm.downmix(interleaved, channels) == packed(values)


def test_downmix_refuses_what_is_no_frame() -> None:
    with pytest.raises(ValueError, match="whole frames of 4 bytes"):
        pcm.downmix(bytes(6), 2)
    with pytest.raises(ValueError, match="at least one channel"):
        pcm.downmix(bytes(6), 0)


def test_a_gain_of_nothing_changes_nothing_and_minus_infinity_is_silence() -> None:
    loud = packed([-32768, -1, 0, 1, 32767])
    assert pcm.gain(loud, 0) == loud
    assert pcm.gain(loud, -math.inf) == bytes(10)
    assert pcm.gain(b"", 6) == b""


def test_a_gain_changes_the_level_by_its_decibels() -> None:
    sine = packed([round(10_000 * math.sin(2 * math.pi * index / 100)) for index in range(1000)])
    for decibels in (-20.0, -6.0, 3.0, 10.0):
        louder = pcm.gain(sine, decibels)
        assert pcm.rms_dbfs(louder) - pcm.rms_dbfs(sine) == pytest.approx(decibels, abs=0.01)


@given(sample_lists, st.floats(-120, 96))
def test_a_gain_is_the_nearest_sample_or_clipped(values: list[int], decibels: float) -> None:
    made = pcm.samples(pcm.gain(packed(values), decibels))
    for value, louder in zip(values, made, strict=True):
        exact = min(32767.0, max(-32768.0, value * 10 ** (decibels / 20)))
        assert abs(louder - exact) <= 0.51


@pytest.mark.parametrize("decibels", [49.0, 55.0, 90.0])
def test_a_large_gain_of_little(decibels: float) -> None:
    assert pcm.gain(b"", decibels) == b""
    assert pcm.gain(bytes(8), decibels) == bytes(8)
    (louder,) = pcm.samples(pcm.gain(packed([-1]), decibels))
    assert louder == pytest.approx(-(10 ** (decibels / 20)), abs=0.51)


@pytest.mark.parametrize("decibels", [math.nan, math.inf, 96.1, 1e308])
def test_a_gain_has_bounds(decibels: float) -> None:
    with pytest.raises(ValueError, match="a number of decibels up to 96, not"):
        pcm.gain(b"\0\0", decibels)


@given(st.lists(sample_lists, max_size=4))
def test_a_mix_is_the_clipped_sum(tracks: list[list[int]]) -> None:
    length = max(map(len, tracks), default=0)
    sums = [sum(track[at] for track in tracks if at < len(track)) for at in range(length)]
    expected = [max(-32768, min(32767, value)) for value in sums]
    assert list(pcm.samples(pcm.mix(*map(packed, tracks)))) == expected


def test_arrays_of_int16_are_audio_too() -> None:
    values = array("h", [1000, -1000])
    assert pcm.mix(values, packed([1])) == packed([1001, -1000])  # type: ignore[arg-type]
    assert pcm.peak_dbfs(values) == pcm.peak_dbfs(packed([1000]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not whole frames"):
        pcm.gain(b"\0", 1)
