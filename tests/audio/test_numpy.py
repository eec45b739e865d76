"""PCM16 to and from numpy arrays."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.audio import _numpy as arrays
from speko_anyio.audio import downmix, numpy_to_pcm, pcm_to_numpy

sample_lists = st.lists(st.integers(-32768, 32767), max_size=100)


def packed(values: Any) -> bytes:
    return np.array(values, "<i2").tobytes()


@given(sample_lists)
def test_there_and_back_is_exact(values: list[int]) -> None:
    pcm = packed(values)
    assert numpy_to_pcm(pcm_to_numpy(pcm)) == pcm
    assert numpy_to_pcm(pcm_to_numpy(pcm, "int16")) == pcm


def test_the_arrays_are_new_and_of_the_type() -> None:
    floats = pcm_to_numpy(packed([-32768, 0, 16384]))
    assert floats.dtype == np.float32
    assert floats.tolist() == [-1.0, 0.0, 0.5]
    whole = pcm_to_numpy(packed([-32768, 5]), "int16")
    assert whole.dtype == np.int16
    whole[0] = 1  # writable, unlike a view of bytes
    assert pcm_to_numpy(b"").shape == (0,)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "<f4", ">f8"])
def test_floats_are_rounded_and_clipped(dtype: str) -> None:
    values = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5], dtype)
    assert numpy_to_pcm(values) == packed([-32768, -32768, -16384, 0, 16384, 32767, 32767])


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "int16"])
def test_int16_of_either_byte_order(dtype: str) -> None:
    assert numpy_to_pcm(np.array([1, -2, 300], dtype)) == packed([1, -2, 300])


STEREO = [[100, 300], [-5, -6], [7, 7]]


@pytest.mark.parametrize("dtype", ["int16", ">i2"])
def test_channels_are_mixed_down_along_either_axis(dtype: str) -> None:
    stereo = np.array(STEREO, dtype)
    mono = packed([200, -6, 7])
    assert numpy_to_pcm(stereo) == numpy_to_pcm(stereo.T) == mono
    assert numpy_to_pcm(stereo, channel_axis=1) == numpy_to_pcm(stereo.T, channel_axis=0) == mono
    assert mono == downmix(packed(STEREO), 2)
    assert numpy_to_pcm(np.asfortranarray(stereo)) == mono


def test_floats_are_mixed_down() -> None:
    left_and_right = np.array([[0.5, 1.0, -1.0], [0.0, 1.0, 1.0]], "float32")
    assert numpy_to_pcm(left_and_right) == packed([8192, 32767, 0])
    surround = np.full((6, 1000), 0.25)
    assert numpy_to_pcm(surround) == packed([8192] * 1000)


def test_the_loudest_channels_do_not_overflow() -> None:
    assert numpy_to_pcm(np.full((100, 6), -32768, "int16")) == packed([-32768] * 100)
    assert numpy_to_pcm(np.full((100, 2), 60000.0, "float16") / 60000) == packed([32767] * 100)


def test_what_numpy_can_read_is_an_array() -> None:
    class Tensor:
        """As a tensor of torch."""

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([0.5, -0.5], "float32")

    assert numpy_to_pcm(Tensor()) == numpy_to_pcm([0.5, -0.5]) == packed([16384, -16384])
    assert numpy_to_pcm(np.float32(0.5)) == packed([16384])
    assert numpy_to_pcm([[0.5], [-0.5]]) == packed([16384, -16384])


class Unreadable:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize(
    ("samples", "kind", "text"),
    [
        (np.zeros(4, "int32"), TypeError, "not int32; scale them to one of these, such as values / 2**31"),
        (np.zeros(4, "uint8"), TypeError, "not uint8"),
        (np.zeros(4, "uint16"), TypeError, "not uint16"),
        (np.zeros(4, "complex64"), TypeError, "not complex64"),
        (np.zeros(4, "bool"), TypeError, "not bool"),
        (b"abcd", TypeError, "not |S4"),
        ("text", TypeError, "not <U4"),
        (None, TypeError, "not object"),
        (Unreadable(), TypeError, "can't read Unreadable as an array (Can't call numpy() on Tensor"),
        ([[0.5], [0.5, 0.5]], TypeError, "can't read list as an array"),
        (
            np.zeros((2, 2), "int16"),
            ValueError,
            "does not show which axis has the channels; pass channel_axis",
        ),
        (np.zeros((2, 3, 4), "int16"), ValueError, "shape (2, 3, 4) with channel_axis=None is not audio"),
        (np.zeros((100, 100), "f4")[:, :99], ValueError, "audio has 1 to 32 channels, not 99"),
        (np.zeros((0, 100), "f4"), ValueError, "audio has 1 to 32 channels, not 0"),
        ([0.5, float("nan")], ValueError, "some are NaN or infinite"),
        ([float("inf")], ValueError, "some are NaN or infinite"),
        ([0.0, -12000.0], ValueError, "one is -12000; pass samples.astype('int16')"),
    ],
)
def test_what_is_no_audio_is_refused(samples: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        numpy_to_pcm(samples)


def test_an_axis_belongs_to_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"shape \(4,\) with channel_axis=0"):
        numpy_to_pcm(np.zeros(4, "int16"), channel_axis=0)
    with pytest.raises(ValueError, match="channel_axis=2 is not audio"):
        numpy_to_pcm(np.zeros((4, 2), "int16"), channel_axis=2)
    assert numpy_to_pcm(np.array([[1, 3], [5, 7]], "int16"), channel_axis=0) == packed([3, 5])


def test_what_is_no_pcm_is_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes are not whole PCM16 samples"):
        pcm_to_numpy(b"abc")
    with pytest.raises(ValueError, match="must be 'float32' or 'int16', not 'float64'"):
        pcm_to_numpy(b"", "float64")  # type: ignore[arg-type]


def test_numpy_is_imported_only_when_it_is_needed() -> None:
    program = (
        "import sys, speko_anyio.audio as audio; audio.mix(b'ab', b'cd'); audio.gain(b'ab', -6)\n"
        "audio.numpy_to_pcm; assert 'numpy' not in sys.modules\n"
        "sys.modules['numpy'] = None\n"
        "try: audio.pcm_to_numpy(b'')\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.match(
        r"arrays need numpy, which is not installed; .*\[audio\].*, or work with bytes", said.stdout
    )


def test_the_module_says_how_loud_is_too_loud() -> None:
    assert numpy_to_pcm([arrays._LOUDEST]) == packed([32767])
    with pytest.raises(ValueError, match="-1 to 1"):
        numpy_to_pcm([arrays._LOUDEST * 1.01])
