from __future__ import annotations

import struct
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.audio import pcm
from speko_anyio.audio.wav import Wav, WavError, format_wav, parse_wav, read_wav, write_wav

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(tag: bytes, body: bytes, *, size: int | None = None) -> bytes:
    return tag + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def form(tag: int, channels: int, rate: int, bits: int, extra: bytes = b"") -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extra)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def values(wav: Wav) -> list[int]:
    return list(pcm.samples(wav.pcm))


def int24(value: int) -> bytes:
    return value.to_bytes(3, "little", signed=True)


@pytest.mark.parametrize(
    ("tag", "bits", "data"),
    [
        pytest.param(1, 8, bytes([128, 255, 0]), id="8-bit"),
        pytest.param(1, 16, struct.pack("<3h", 0, 32512, -32768), id="16-bit"),
        pytest.param(1, 24, b"".join(map(int24, [0, 32512 << 8, -32768 << 8])), id="24-bit"),
        pytest.param(1, 32, struct.pack("<3i", 0, 32512 << 16, -32768 << 16), id="32-bit"),
        pytest.param(3, 32, struct.pack("<3f", 0, 32512 / 32768, -1), id="float32"),
        pytest.param(3, 64, struct.pack("<3d", 0, 32512 / 32768, -1), id="float64"),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_every_width_becomes_16_bits(tag: int, bits: int, data: bytes, extensible: bool) -> None:
    head = form(tag, 1, 16_000, bits)
    if extensible:
        extra = struct.pack("<HHIH", 22, bits, 4, tag) + GUID_TAIL
        head = form(0xFFFE, 1, 16_000, bits, extra)
    assert values(parse_wav(riff(head, chunk(b"data", data)))) == [0, 32512, -32768]


def test_floats_beyond_full_scale_are_clipped() -> None:
    data = struct.pack("<5f", 1.5, -2, float("inf"), float("-inf"), float("nan"))
    parsed = parse_wav(riff(form(3, 1, 16_000, 32), chunk(b"data", data)))
    assert values(parsed) == [32767, -32768, 32767, -32768, 0]


def test_channels_are_mixed_down() -> None:
    data = struct.pack("<6h", 10, 20, 30, -10, -20, -30)
    assert values(parse_wav(riff(form(1, 3, 8000, 16), chunk(b"data", data)))) == [20, -20]


def test_other_chunks_are_skipped_with_their_padding() -> None:
    content = riff(
        chunk(b"LIST", b"odd"), form(1, 1, 8000, 16), chunk(b"fact", b"1234"), chunk(b"data", b"\1\0")
    )
    assert values(parse_wav(content)) == [1]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_streaming_writers_size_means_the_end_of_the_file(size: int) -> None:
    content = riff(form(1, 1, 8000, 16), chunk(b"data", struct.pack("<3h", 1, 2, 3), size=size))
    assert values(parse_wav(content)) == [1, 2, 3]


def test_the_rate_is_converted() -> None:
    content = format_wav(bytes(44_100 * 2), 44_100)
    assert parse_wav(content).sample_rate == 44_100
    converted = parse_wav(content, sample_rate=16_000)
    assert (converted.sample_rate, converted.seconds, len(converted.pcm)) == (16_000, 1.0, 32_000)


@given(st.lists(st.integers(-32768, 32767), min_size=1), st.integers(1, 192_000))
def test_what_is_written_is_read(samples: list[int], rate: int) -> None:
    audio = pcm.to_bytes(array("h", samples))
    assert parse_wav(format_wav(audio, rate)) == Wav(audio, rate)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, b"\1\0\2\0", 24_000)
    assert read_wav(path) == Wav(b"\1\0\2\0", 24_000)


def test_human_speech() -> None:
    # Test data of CMU PocketSphinx, BSD-2-Clause: tests/data/speech/README.md
    wav = read_wav(Path(__file__).parents[1] / "data" / "speech" / "go-forward-ten-meters.wav")
    assert wav.sample_rate == 16_000
    assert wav.seconds == pytest.approx(2.79, abs=0.01)
    assert -40 < pcm.rms_dbfs(wav.pcm) < -10


GOOD = form(1, 1, 16_000, 16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a WAV file", id="empty file"),
        pytest.param(b"ID3" + bytes(50), "not a WAV file", id="mp3"),
        pytest.param(riff(form(7, 1, 8000, 8), chunk(b"data", b"ab")), "coded as µ-law", id="mu-law"),
        pytest.param(riff(form(6, 1, 8000, 8), chunk(b"data", b"ab")), "coded as A-law", id="A-law"),
        pytest.param(riff(form(2, 1, 8000, 4), chunk(b"data", b"ab")), "Microsoft ADPCM", id="adpcm"),
        pytest.param(riff(form(0x11, 1, 8000, 4), chunk(b"data", b"ab")), "IMA ADPCM", id="ima"),
        pytest.param(riff(form(0x1234, 1, 8000, 4), chunk(b"data", b"ab")), "format 0x1234", id="unknown"),
        pytest.param(
            riff(form(0xFFFE, 1, 8000, 16), chunk(b"data", b"ab")), "format 0xfffe", id="bad extensible"
        ),
        pytest.param(riff(form(1, 1, 8000, 12), chunk(b"data", b"ab")), "12 bits", id="12 bits"),
        pytest.param(riff(form(1, 0, 8000, 16), chunk(b"data", b"ab")), "0 channels", id="no channels"),
        pytest.param(riff(form(1, 1, 0, 16), chunk(b"data", b"ab")), "at 0 Hz", id="no rate"),
        pytest.param(
            riff(GOOD, chunk(b"data", b"abcd", size=400)), "announces 400 bytes.*has 4", id="truncated"
        ),
        pytest.param(riff(GOOD, chunk(b"data", b"")), "holds no audio", id="no samples"),
        pytest.param(riff(GOOD, chunk(b"data", b"a")), "holds no audio", id="half a sample"),
        pytest.param(riff(GOOD), "has a format and no audio", id="no data chunk"),
        pytest.param(riff(), "without a format", id="no chunks"),
        pytest.param(riff(chunk(b"data", b"ab"), GOOD), "before it says in which format", id="order"),
        pytest.param(riff(chunk(b"fmt ", b"\1\0\1\0")), "cut short within its format", id="short fmt"),
    ],
)
def test_what_is_no_usable_wav_is_told_in_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(WavError, match=message) as caught:
        parse_wav(content, name="question.wav")
    assert str(caught.value).startswith("question.wav ")
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(WavError, match=r"notes\.txt is not a WAV file"):
        read_wav(path)


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, bytes(100), 16_000)
    assert read_wav(path, max_bytes=144).seconds == 50 / 16_000
    with pytest.raises(WavError, match="larger than 143 bytes"):
        read_wav(path, max_bytes=143)


def test_half_a_sample_is_not_written() -> None:
    with pytest.raises(ValueError, match="even number"):
        format_wav(b"abc", 16_000)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_parsed_or_refused(content: bytes) -> None:
    try:
        wav = parse_wav(riff(content))
    except WavError:
        return
    assert wav.pcm
