from __future__ import annotations

import array
import ctypes
import io
import sys
from pathlib import Path
from typing import Literal

import pytest

from speko_anyio.protocol import Audio
from speko_anyio.protocol._pcm import Buffer, pcm_bytes, whole_samples

SAMPLES = [1, -2, 300, -400]
PCM = b"".join(sample.to_bytes(2, "little", signed=True) for sample in SAMPLES)


def shaped(*shape: int, code: Literal["h", "B"] = "h") -> memoryview:
    return memoryview(PCM).cast("B").cast(code, shape)


@pytest.mark.parametrize(
    "pcm",
    [
        PCM,
        bytearray(PCM),
        memoryview(PCM),
        memoryview(PCM).cast("b"),
        memoryview(PCM).cast("c"),
        array.array("B", PCM),
        memoryview(PCM).cast("h"),
        shaped(4, 1),
        shaped(1, 4),
        (ctypes.c_int16.__ctype_le__ * 4)(*SAMPLES),
        (ctypes.c_ubyte * 8)(*PCM),
        memoryview(b"".join(PCM[at : at + 2] + b"??" for at in range(0, 8, 2))).cast("h")[::2],
    ],
    ids=lambda pcm: f"{type(pcm).__name__} {getattr(pcm, 'format', '')}",
)
def test_bytes_and_mono_int16_are_audio(pcm: Buffer) -> None:
    if sys.byteorder == "little" or "h" not in memoryview(pcm).format:
        assert pcm_bytes(pcm) == PCM


class Tensor:
    """A tensor of torch, which is no buffer."""

    def __array__(self) -> object:
        raise AssertionError("nobody converts it unasked")


WRONG = [
    (
        array.array("f", [0.5, -0.5]),
        "floating-point numbers; with numpy, pass speko_anyio.audio.numpy_to_pcm(samples) for samples",
    ),
    (array.array("d", [0.5]), "floating-point numbers"),
    (array.array("i", SAMPLES), "items of 4 bytes (format 'i'); scale the samples to 16 bits"),
    (array.array("H", [1, 2]), "items of 2 bytes (format 'H')"),
    (array.array("q", [1]), "items of 8 bytes"),
    (memoryview(b"\0\1").cast("?"), "items of 1 bytes (format '?')"),
    (
        (ctypes.c_int16.__ctype_be__ * 4)(*SAMPLES),
        "a big-endian array; with numpy, pass samples.astype(",
    ),
    ((ctypes.c_float.__ctype_le__ * 2)(0.5), "floating-point numbers"),
    (
        shaped(2, 2),
        "shape (2, 2); pass one channel, such as samples[:, 0], or speko_anyio.audio.numpy_to_pcm(samples)",
    ),
    (Tensor(), "not Tensor; with numpy, pass speko_anyio.audio.numpy_to_pcm(samples)"),
    (shaped(2, 4, code="B"), "an array of shape (2, 4)"),
    ([1, 2, 3], "not list; for a list of samples pass array.array('h', samples)"),
    ([0.0] * 480, "not list; for floating-point samples from -1 to 1 pass array.array('h', [round("),
    ((0, 0.5), "not tuple; for floating-point samples from -1 to 1"),
    ([b"ab", b"cd"], "not list; pass b''.join(pieces)"),
    ([None], "not list; pass bytes"),
    ([], "not list; pass bytes"),
    (
        "abcd",
        "not str; for a WAV file pass speko_anyio.audio.wav.read_wav(path, sample_rate=...).pcm, for",
    ),
    (Path("a.wav"), "; for a WAV file pass speko_anyio.audio.wav.read_wav(path, sample_rate=...).pcm"),
    (Audio(PCM, 24_000), "not Audio; pass its .pcm"),
    (io.BytesIO(PCM), "not BytesIO; pass the bytes that its read() returns"),
    (960, "not int; pass bytes"),
    (None, "not NoneType; pass bytes"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "header of a WAV file; pass speko_anyio.audio.wav.parse_wav(content, "),
    (bytearray(b"RIFF\x24\0\0\0WAVEfmt "), "header of a WAV file"),
]


@pytest.mark.parametrize(("pcm", "words"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_anything_else_is_refused_with_how_to_convert_it(pcm: Buffer, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        pcm_bytes(pcm)
    assert words in str(caught.value)


def test_the_conversion_that_is_advised_for_floats_works() -> None:
    with pytest.raises(TypeError) as caught:
        pcm_bytes([0.0, 1.0, -2.0])  # type: ignore[arg-type]
    expression = str(caught.value).partition(" pass ")[2]
    samples = eval(expression, {"array": array, "samples": [0.0, 1.0, -2.0]})
    assert list(samples) == [0, 32767, -32767]


@pytest.mark.parametrize("pcm", [b"RIFF", b"R\0", b"RIFFabcdAVI LIST", b"xxRIFF\x24\0\0\0WAVE"])
def test_samples_that_only_resemble_a_wav_file_are_audio(pcm: bytes) -> None:
    assert pcm_bytes(pcm) == pcm


@pytest.mark.parametrize(
    ("odd", "pcm", "whole", "left"),
    [
        (b"", b"", b"", b""),
        (b"", b"a", b"", b"a"),
        (b"", b"ab", b"ab", b""),
        (b"", b"abc", b"ab", b"c"),
        (b"a", b"", b"", b"a"),
        (b"a", b"b", b"ab", b""),
        (b"a", b"bc", b"ab", b"c"),
        (b"a", b"bcd", b"abcd", b""),
    ],
)
def test_whole_samples(odd: bytes, pcm: bytes, whole: bytes, left: bytes) -> None:
    assert whole_samples(odd, pcm) == (whole, left)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 20])
def test_cut_anywhere_the_samples_are_the_same(size: int) -> None:
    stream = bytes(range(20))
    odd, samples = b"", b""
    for start in range(0, len(stream), size):
        whole, odd = whole_samples(odd, stream[start : start + size])
        assert len(whole) % 2 == 0
        samples += whole
    assert (samples, odd) == (stream, b"")
