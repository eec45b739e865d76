"""WAV files: all common kinds are read correctly, and others are rejected by name."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import tracemalloc
from array import array
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speko_anyio.audio import _pcm as pcm
from speko_anyio.audio.wav import (
    MAX_FILE_BYTES,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    Wav,
    WavError,
    format_wav,
    parse_wav,
    read_wav,
    write_wav,
)

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


def test_doubles_that_overflow_when_scaled_are_clipped() -> None:
    data = struct.pack("<6d", 1e308, -1.7e308, 6e303, float("inf"), -1e-320, float("nan"))
    parsed = parse_wav(riff(form(3, 1, 16_000, 64), chunk(b"data", data)))
    assert values(parsed) == [32767, -32768, 32767, 32767, 0, 0]


def test_channels_are_mixed_down() -> None:
    data = struct.pack("<6h", 10, 20, 30, -10, -20, -30)
    assert values(parse_wav(riff(form(1, 3, 8000, 16), chunk(b"data", data)))) == [20, -20]


def test_other_chunks_are_skipped_with_their_padding() -> None:
    content = riff(
        chunk(b"LIST", b"odd"), form(1, 1, 8000, 16), chunk(b"fact", b"1234"), chunk(b"data", b"\1\0")
    )
    assert values(parse_wav(content)) == [1]


@given(st.just(0) | st.integers(7, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
@example(0xFFFFFFFF, 0xFFFFFFFF)
@example(0x7FFFF000, 0x7FFFF024)
@example(2_000_000_000, 2_000_000_036)
def test_a_size_beyond_the_file_or_of_zero_means_the_end_of_the_file(size: int, riff_size: int) -> None:
    body = b"WAVE" + form(1, 1, 8000, 16) + chunk(b"data", struct.pack("<3h", 1, 2, 3), size=size)
    for magic in (b"RIFF", b"RF64"):
        assert values(parse_wav(magic + struct.pack("<I", riff_size) + body)) == [1, 2, 3]


def test_an_empty_data_chunk_before_others_is_empty() -> None:
    head = form(1, 1, 8000, 16)
    with pytest.raises(WavError, match="holds no audio"):
        parse_wav(riff(head, chunk(b"data", b""), chunk(b"LIST", b"INFOISFT"), chunk(b"id3 ", b"x")))
    assert values(parse_wav(riff(head, chunk(b"data", b""), chunk(b"data", b"\1\0")))) == [1]


def test_what_may_have_lost_audio_is_logged_and_a_placeholder_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    head = form(1, 1, 8000, 16)
    parse_wav(riff(head, chunk(b"data", b"\1\0", size=MAX_FILE_BYTES + 2)))
    parse_wav(riff(head, chunk(b"data", b"\1\0"), chunk(b"LIST", b"INFO")))
    parse_wav(riff(head, chunk(b"data", b"\1\0"), b"TAG" + bytes(125)))
    parse_wav(riff(head, chunk(b"data", b"\1\0"), bytes(512)))
    assert caplog.messages == []
    assert values(parse_wav(riff(head, chunk(b"data", b"\1\0", size=400)), name="cut.wav")) == [1]
    assert "cut.wav declares 400 bytes of audio but has only 2" in caplog.messages[0]
    # A writer that never corrected the size of its first piece, and files that were put one after the other
    for behind in (bytes(range(200, 240)), format_wav(b"\3\0", 8000)):
        caplog.clear()
        assert values(parse_wav(riff(head, chunk(b"data", b"\1\0"), behind))) == [1]
        assert "more data after its 2 declared bytes of audio" in caplog.messages[0]


@pytest.mark.parametrize(
    ("bits", "width", "data"),
    [
        pytest.param(12, 2, struct.pack("<3h", 0, 32512, -32768), id="12 in 16"),
        pytest.param(20, 3, b"".join(map(int24, [0, 32512 << 8, -32768 << 8])), id="20 in 24"),
        pytest.param(20, 4, struct.pack("<3i", 0, 32512 << 16, -32768 << 16), id="20 in 32"),
        pytest.param(24, 4, struct.pack("<3i", 0, 32512 << 16, -32768 << 16), id="24 in 32"),
        pytest.param(6, 1, bytes([128, 255, 0]), id="6 in 8"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "extensible", "extensible by the block"])
def test_samples_in_wider_containers(bits: int, width: int, data: bytes, kind: str) -> None:
    extra = struct.pack("<HHIH", 22, bits, 4, 1) + GUID_TAIL if kind != "plain" else b""
    tag = 1 if kind == "plain" else 0xFFFE
    declared = 8 * width if kind == "extensible" else bits
    body = struct.pack("<HHIIHH", tag, 1, 16_000, 16_000 * width, width, declared)
    content = riff(chunk(b"fmt ", body + extra), chunk(b"data", data))
    assert values(parse_wav(content)) == [0, 32512, -32768]


@pytest.mark.parametrize("block", [0, 2])
def test_a_careless_block_size_does_not_count(block: int) -> None:
    body = struct.pack("<HHIIHH", 1, 2, 16_000, 0, block, 16)
    content = riff(chunk(b"fmt ", body), chunk(b"data", struct.pack("<4h", 10, 20, 30, 40)))
    assert values(parse_wav(content)) == [15, 35]


def rifx(bits: int, tag: int, data: bytes, guid: bytes = b"") -> bytes:
    frame = bits // 8
    head = struct.pack(">HHIIHH", 0xFFFE if guid else tag, 1, 16_000, 16_000 * frame, frame, bits)
    if guid:
        head += struct.pack(">HHI", 22, bits, 4) + guid
    body = b"WAVEfmt " + struct.pack(">I", len(head)) + head + b"data" + struct.pack(">I", len(data)) + data
    return b"RIFX" + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    ("bits", "tag", "data"),
    [
        pytest.param(8, 1, bytes([128, 255, 0]), id="8-bit"),
        pytest.param(16, 1, struct.pack(">3h", 0, 32512, -32768), id="16-bit"),
        pytest.param(24, 1, bytes([0, 0, 0, 127, 0, 0, 128, 0, 0]), id="24-bit"),
        pytest.param(32, 1, struct.pack(">3i", 0, 32512 << 16, -32768 << 16), id="32-bit"),
        pytest.param(32, 3, struct.pack(">3f", 0, 32512 / 32768, -1), id="float32"),
        pytest.param(64, 3, struct.pack(">3d", 0, 32512 / 32768, -1), id="float64"),
    ],
)
@pytest.mark.parametrize("extensible", ["", "tag only", "whole GUID"])
def test_big_endian_files(bits: int, tag: int, data: bytes, extensible: str) -> None:
    guid = {
        "": b"",
        "tag only": struct.pack(">H", tag) + GUID_TAIL,
        "whole GUID": struct.pack(">IHH", tag, 0, 0x10) + GUID_TAIL[6:],
    }[extensible]
    assert values(parse_wav(rifx(bits, tag, data, guid))) == [0, 32512, -32768]


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_sizes_of_64_bits(magic: bytes) -> None:
    note = b"three"  # in a chunk whose size is in the table
    table = b"note" + struct.pack("<Q", len(note))
    for data_size, expected in ((4, [1, 2]), (0, [1, 2]), (2**40, [1, 2])):
        ds64 = struct.pack("<QQQI", 2**33, data_size, 2, 1) + table
        behind = chunk(b"LIST", b"INFO") if data_size == 4 else b""
        content = (
            magic
            + struct.pack("<I", 0xFFFFFFFF)
            + b"WAVE"
            + chunk(b"ds64", ds64)
            + chunk(b"note", note, size=0xFFFFFFFF)
            + form(1, 1, 8000, 16)
            + chunk(b"data", b"\1\0\2\0", size=0xFFFFFFFF)
            + behind
        )
        assert values(parse_wav(content)) == expected


def test_id3_tags_in_front_are_skipped() -> None:
    tag = b"ID3\4\0\0" + bytes([0, 0, 1, 2]) + b"x" * 130
    footed = b"ID3\4\0\x10" + bytes([0, 0, 0, 3]) + b"xyz" + b"3DI" + bytes(7)
    assert parse_wav(tag + footed + format_wav(b"\1\0", 8000)).pcm == b"\1\0"


CHUNKS = st.tuples(
    st.sampled_from([b"LIST", b"bext", b"fact", b"JUNK", b"PAD ", b"iXML", b"_PMX", b"id3 ", b"cue "]),
    st.binary(max_size=40),
)


@given(
    before=st.lists(CHUNKS, max_size=4),
    between=st.lists(CHUNKS, max_size=4),
    behind=st.lists(CHUNKS, max_size=4),
    audio=st.lists(st.integers(-32768, 32767), min_size=1, max_size=50),
    forgetful=st.booleans(),
)
def test_other_chunks_may_stand_anywhere(
    before: list[tuple[bytes, bytes]],
    between: list[tuple[bytes, bytes]],
    behind: list[tuple[bytes, bytes]],
    audio: list[int],
    forgetful: bool,
) -> None:
    def others(chunks: list[tuple[bytes, bytes]]) -> bytes:
        return b"".join(
            tag + struct.pack("<I", len(body)) + body if forgetful else chunk(tag, body)
            for tag, body in chunks
        )

    data = chunk(b"data", pcm.to_bytes(array("h", audio)))
    content = riff(others(before), form(1, 1, 8000, 16), others(between), data, others(behind))
    assert values(parse_wav(content)) == audio


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"ID3\4\0\0\0\0\0\3abc" + b"\xff\xfb\x90\0", "MP3"),
        (b"\xff\xfb\x90\0" * 20, "MP3"),
        (b"\xff\xf1\x50\x80" * 20, "AAC"),
        (b"fLaC" + bytes(40), "FLAC"),
        (b"OggS" + bytes(40), "Ogg"),
        (bytes.fromhex("726966662e91cf11a5d628db04c10000") + bytes(40), "Wave64"),
        (b"FORM\0\0\1\0AIFFCOMM" + bytes(40), "AIFF"),
        (b"FORM\0\0\1\0AIFCCOMM" + bytes(40), "AIFF-C"),
        (b"\0\0\0\x20ftypM4A " + bytes(40), "MP4 or M4A"),
        (b".snd" + bytes(40), "Sun AU"),
        (b"caff" + bytes(40), "CAF"),
        (b"\x1aE\xdf\xa3" + bytes(40), "WebM"),
        (b"RIFF\x40\0\0\0AVI LIST" + bytes(40), "AVI"),
    ],
)
def test_other_files_are_named(content: bytes, kind: str) -> None:
    with pytest.raises(WavError, match=rf"^a\.bin is not a WAV file but .*{kind}.*; convert it"):
        parse_wav(content, name="a.bin")


@pytest.mark.parametrize("rate", [1, MIN_SAMPLE_RATE - 1, MAX_SAMPLE_RATE + 1, 4_000_000_000])
def test_an_impossible_rate_is_refused(rate: int) -> None:
    head = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, rate, 0, 2, 16))
    with pytest.raises(WavError, match=f"rate of {rate} Hz; write it again at 1000 to 768000 Hz"):
        parse_wav(riff(head, chunk(b"data", b"\1\0")))


def test_a_conversion_does_not_blow_up_memory() -> None:
    head = form(1, 1, MIN_SAMPLE_RATE, 8)
    long = riff(head, chunk(b"data", bytes([128]) * (MAX_FILE_BYTES // 48 + 1)))
    tracemalloc.start()
    try:
        with pytest.raises(WavError, match=r"holds 93 minutes of audio, which at 24000 Hz is more than"):
            parse_wav(long, sample_rate=24_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("tag", "bits", "channels"), [(1, 8, 1), (1, 16, 2), (3, 32, 1)])
def test_reading_takes_a_few_times_the_file(tag: int, bits: int, channels: int) -> None:
    content = riff(form(tag, channels, 16_000, bits), chunk(b"data", bytes(800_000)))
    tracemalloc.start()
    try:
        parse_wav(content)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(content)
    finally:
        tracemalloc.stop()


def test_chunks_are_bounded() -> None:
    with pytest.raises(WavError, match="more than 10000 chunks"):
        parse_wav(riff(chunk(b"JUNK", b"") * 10_001))


@pytest.mark.skipif(shutil.which("sox") is None, reason="sox is not installed: apt-get install sox")
@pytest.mark.parametrize(
    "options",
    [
        "-b 8 -e unsigned", "-b 16", "-b 24", "-b 32", "-b 32 -e float", "-b 64 -e float", "-b 16 -B",
        "-b 24 -B", "-b 24 -c 2", "-b 16 -c 6",
    ],
)  # fmt: skip
@pytest.mark.parametrize("piped", [False, True])
def test_what_sox_writes_is_what_sox_reads(options: str, piped: bool, tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    noise = random.Random(7)
    write_wav(source, pcm.to_bytes(array("h", [noise.randrange(-30_000, 30_000) for _ in range(999)])), 8000)
    target = "-" if piped else str(tmp_path / "target.wav")
    written = subprocess.run(
        ["sox", "-D", str(source), *options.split(), "-t", "wav", target],
        check=True,
        capture_output=True,
        timeout=60,
    )
    content = written.stdout if piped else Path(target).read_bytes()
    got = values(parse_wav(content))
    expected = values(read_wav(source))
    if "-b 8" in options:
        assert all(abs(a - b) <= 256 for a, b in zip(got, expected, strict=True))
    else:
        assert got == expected


def test_the_rate_is_converted() -> None:
    content = format_wav(bytes(44_100 * 2), 44_100)
    assert parse_wav(content).sample_rate == 44_100
    converted = parse_wav(content, sample_rate=16_000)
    assert (converted.sample_rate, converted.seconds, len(converted.pcm)) == (16_000, 1.0, 32_000)


@given(st.lists(st.integers(-32768, 32767), min_size=1), st.integers(MIN_SAMPLE_RATE, 192_000))
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
        pytest.param(b"", "is empty, not a WAV file; record", id="empty file"),
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
        pytest.param(riff(form(1, 1, 0, 16), chunk(b"data", b"ab")), "rate of 0 Hz", id="no rate"),
        pytest.param(b"RIFF\x24\0", "only the beginning of a WAV file", id="truncated header"),
        pytest.param(
            riff(form(0xFFFE, 1, 8000, 16, bytes(24)), chunk(b"data", b"ab")), "format 0xfffe", id="GUID"
        ),
        pytest.param(riff(form(1, 1, 8000, 0), chunk(b"data", b"ab")), "samples of 0 bits", id="0 bits"),
        pytest.param(riff(form(1, 1, 8000, 48), chunk(b"data", b"ab")), "of 48 bits", id="48 bits"),
        pytest.param(riff(form(3, 1, 8000, 16), chunk(b"data", b"ab")), "of 16 bits", id="half floats"),
        pytest.param(riff(form(0x55, 1, 8000, 0), chunk(b"data", b"ab")), "coded as MP3", id="MP3 in WAV"),
        pytest.param(riff(GOOD, chunk(b"data", b"")), "holds no audio", id="no samples"),
        pytest.param(riff(GOOD, chunk(b"data", b"a")), "holds no audio", id="half a sample"),
        pytest.param(riff(GOOD), "has a format and no audio", id="no data chunk"),
        pytest.param(riff(), "without a format", id="no chunks"),
        pytest.param(riff(chunk(b"data", b"ab"), GOOD), "audio before its format", id="order"),
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


@pytest.mark.parametrize("rate", [0, -1, 2**31])
def test_a_rate_that_no_file_can_have_is_not_written(rate: int) -> None:
    with pytest.raises(ValueError, match="invalid sample rate"):
        format_wav(b"\1\0", rate)


MAGICS = [b"RIFF", b"RIFX", b"RF64", b"ID3", b"fmt ", b"data", b"ds64", b"WAVE", GUID_TAIL]


@given(st.lists(st.binary(max_size=40) | st.sampled_from(MAGICS), max_size=12).map(b"".join), st.booleans())
def test_arbitrary_bytes_are_parsed_or_refused(content: bytes, bare: bool) -> None:
    try:
        wav = parse_wav(content if bare else riff(content), sample_rate=16_000)
    except WavError:
        return
    assert wav.sample_rate == 16_000


@given(st.data())
def test_a_file_with_any_bytes_changed_is_parsed_or_refused(data: st.DataObject) -> None:
    content = bytearray(
        riff(chunk(b"LIST", b"odd"), form(1, 2, 8000, 24), chunk(b"data", bytes(range(60))), b"TAG")
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_wav(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except WavError:
        return
