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
