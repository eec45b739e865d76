"""WAV files: any usual one in, as PCM16 mono at the rate you want; PCM16 mono out.

The standard library's `wave` refuses float samples, files of streaming writers and
``WAVE_FORMAT_EXTENSIBLE`` before Python 3.12, hence a RIFF reader of our own.

Rules for the declared size of the audio, since many writers cannot seek back to fill it in:

- a size that is larger than the rest of the file means the end of the file;
- 0 means the end of the file too, unless the rest of the file is a sequence of whole chunks: then there is
  no audio;
- any other size is trusted, and data after the audio is ignored.
"""

from __future__ import annotations

import logging
import math
import struct
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ..protocol._pcm import Buffer, pcm_bytes
from . import _pcm as pcm16
from .resample import resample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

logger: Final = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Default limit on the file that is read into memory: 45 minutes of 48 kHz stereo PCM16. The converted audio
has the same limit."""

MIN_SAMPLE_RATE: Final = 1_000
MAX_SAMPLE_RATE: Final = 768_000
"""Valid sample rates: from below telephony to above every audio interface. Any other rate is a corrupt
header, and converting from it would take unbounded memory."""

_MAX_CHUNKS: Final = 10_000
"""Real files have a dozen. An empty chunk takes only 8 bytes, but each one costs time."""

_PCM: Final = 0x0001
_FLOAT: Final = 0x0003
_EXTENSIBLE: Final = 0xFFFE
_OTHER_FORMATS: Final = {
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "µ-law",
    0x0010: "OKI ADPCM",
    0x0011: "IMA ADPCM",
    0x0022: "TrueSpeech",
    0x0031: "GSM 6.10",
    0x0040: "G.721 ADPCM",
    0x0042: "G.723.1",
    0x0045: "G.726 ADPCM",
    0x0050: "MPEG",
    0x0055: "MP3",
    0x0064: "G.726 ADPCM",
    0x0065: "G.722 ADPCM",
    0x0083: "G.729",
    0x0092: "AC-3",
    0x00FF: "AAC",
    0x0160: "Windows Media Audio",
    0x0161: "Windows Media Audio",
    0x0162: "Windows Media Audio",
    0x0163: "Windows Media Audio",
    0x1600: "AAC",
    0x1610: "AAC",
    0x2000: "AC-3",
    0x704F: "Opus",
    0xF1AC: "FLAC",
}
_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the format tag in the sub-format of ``WAVE_FORMAT_EXTENSIBLE``."""
_GUID_TAIL_BIG: Final = bytes.fromhex("00000010800000aa00389b71")

_RIFF_ORDERS: Final[dict[bytes, Literal["little", "big"]]] = {
    b"RIFF": "little",
    b"RF64": "little",  # EBU Tech 3306: sizes of 64 bits in a chunk ds64
    b"BW64": "little",  # ITU-R BS.2088, its successor
    b"RIFX": "big",
}
_ELSEWHERE: Final = 0xFFFFFFFF
"""The size of a chunk whose real size is in the chunk ``ds64``."""

_OTHER_FILES: Final = (
    (b"riff\x2e\x91\xcf\x11", "Wave64"),
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg (Vorbis or Opus)"),
    (b".snd", "Sun AU"),
    (b"caff", "Core Audio (CAF)"),
    (b"#!AMR", "AMR"),
    (b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (b"\x30\x26\xb2\x75", "Windows Media"),
    (b"MThd", "MIDI"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"ID3", "MP3"),
)
_FORMS: Final = {b"AIFF": "AIFF", b"AIFC": "AIFF-C", b"AVI ": "AVI", b"WEBP": "WebP"}


class WavError(ValueError):
    """A WAV file that can't be read; the message names it and says what to do."""


class Wav(NamedTuple):
    """PCM16 mono audio and its rate in samples a second."""

    pcm: bytes
    sample_rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return pcm16.duration(self.pcm, self.sample_rate)


class _Format(NamedTuple):
    tag: int
    channels: int
    sample_rate: int
    width: int
    """Bytes per sample, including padding bits."""
    order: Literal["little", "big"]

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.width


def read_wav(
    path: str | PathLike[str], *, sample_rate: int | None = None, max_bytes: int = MAX_FILE_BYTES
) -> Wav:
    """Read the WAV file at `path` as PCM16 mono.

    Channels are mixed down, samples of other widths and floats are rounded to 16 bits (floats beyond
    full scale are clipped), and the audio is resampled to `sample_rate`, if given. Reads RIFF, RIFX, RF64
    and BW64 files, and skips an ID3v2 tag at the start. A truncated file is read to its end, with a warning
    on this module's logger unless the declared size is clearly a placeholder.

    Blocks on the disk: in async code, call it in a worker thread.

    Args:
        path: the file.
        sample_rate: samples a second of the result; None keeps the file's own.
        max_bytes: the largest file that is read.

    Raises:
        WavError: the file is not a WAV file, is too large or empty, has no format or no audio, is not PCM, or
            has a sample rate below `MIN_SAMPLE_RATE` or above `MAX_SAMPLE_RATE`.
        OSError: the file can't be read.
        ImportError: the rate has to change and soxr is not installed.
    """
    file = Path(path)
    with file.open("rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise WavError(f"{file} is larger than {max_bytes} bytes; cut it into shorter files")
    return parse_wav(content, sample_rate=sample_rate, name=str(file))


def parse_wav(content: bytes, *, sample_rate: int | None = None, name: str = "the audio") -> Wav:
    """Like `read_wav`, for a file that is already in memory; `name` is what errors call it."""
    form, data = _find(content, name)
    if sample_rate is not None and sample_rate <= 0:
        raise ValueError(f"sample rates are positive, not {sample_rate}")
    rate = form.sample_rate if sample_rate is None else sample_rate
    seconds = len(data) // form.frame_bytes / form.sample_rate
    if pcm16.byte_count(seconds, rate) > MAX_FILE_BYTES:
        raise WavError(
            f"{name} holds {seconds / 60:.0f} minutes of audio, which at {rate} Hz is more than "
            f"{MAX_FILE_BYTES} bytes; cut it into shorter files"
        )
    samples = _to_pcm16(data, form)
    mono = pcm16.downmix(samples, form.channels)
    return Wav(mono if rate == form.sample_rate else resample(mono, form.sample_rate, rate), rate)


def write_wav(path: str | PathLike[str], pcm: Buffer, sample_rate: int) -> None:
    """Write PCM16 mono `pcm`, whole samples at `sample_rate` samples a second, as a WAV file.

    Blocks on the disk. Raises OSError when the file can't be written and ValueError as `format_wav` does.
    """
    Path(path).write_bytes(format_wav(pcm, sample_rate))


def format_wav(pcm: Buffer, sample_rate: int) -> bytes:
    """Return a WAV file with the PCM16 mono audio `pcm`.

    Raises ValueError for an odd number of bytes, an invalid rate, and more audio than a WAV file can hold
    (4 GiB), and TypeError for an array of anything but int16.
    """
    pcm = pcm_bytes(pcm)
    if len(pcm) % pcm16.SAMPLE_BYTES:
        raise ValueError(f"{len(pcm)} bytes are not whole PCM16 samples; pass an even number")
    byte_rate = sample_rate * pcm16.SAMPLE_BYTES
    if not 0 < byte_rate < 2**32:
        raise ValueError(f"invalid sample rate {sample_rate} for a WAV file; pass samples per second")
    if len(pcm) > 2**32 - 64:
        raise ValueError(f"{len(pcm)} bytes are more than a WAV file can hold; write several files")
    form = struct.pack("<HHIIHH", _PCM, 1, sample_rate, byte_rate, pcm16.SAMPLE_BYTES, 16)
    body = (
        b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(pcm)) + pcm
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _find(content: bytes, name: str) -> tuple[_Format, memoryview]:
    if not content:
        raise WavError(f"{name} is empty, not a WAV file; record it again")
    start = _skip_id3(content)
    order = _RIFF_ORDERS.get(content[start : start + 4])
    if order is None or content[start + 8 : start + 12] not in (b"WAVE", b"WAV", b"WA", b"W", b""):
        raise WavError(f"{name} is not a WAV file{_other_kind(content, start)}; convert it to PCM WAV first")
    if len(content) < start + 12:
        raise WavError(f"{name} is only the beginning of a WAV file; get the whole file")
    form: _Format | None = None
    empty = False
    for chunk in _chunks(content, start + 12, order, name):
        if chunk.tag == b"fmt " and form is None:
            form = _parse_format(bytes(chunk.body), order, name)
        elif chunk.tag == b"data":
            if form is None:
                raise WavError(f"{name} has its audio before its format; write the file again")
            whole = chunk.body[: len(chunk.body) - len(chunk.body) % form.frame_bytes]
            if whole:
                _warn(chunk, name)
                return form, whole
            empty = True
    if form is None:
        raise WavError(f"{name} is a WAV file without a format; write the file again")
    if empty:
        raise WavError(f"{name} holds no audio; record it again")
    raise WavError(f"{name} is cut short: it has a format and no audio; get the whole file")


class _Chunk(NamedTuple):
    tag: bytes
    size: int
    """The declared size, in bytes."""
    body: memoryview
    """The bytes that are really there."""
    behind: bytes
    """The first 8 bytes after the chunk."""


def _chunks(content: bytes, at: int, order: Literal["little", "big"], name: str) -> Iterator[_Chunk]:
    view = memoryview(content)
    wide: dict[bytes, int] = {}
    chunks_follow = False
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(content):
            return
        tag, size = _chunk_head(content, at, order)
        at += 8
        if size == _ELSEWHERE and tag in wide:
            size = wide[tag]
        if tag == b"ds64":
            wide = _wide_sizes(view[at : at + size])
        left = len(content) - at
        if tag == b"data" and size == 0 and not chunks_follow:
            # Once is enough: what whole chunks are followed by are whole chunks, too.
            chunks_follow = _is_chunks(content, at, order)
        if tag == b"data" and (size > left or (size == 0 and not chunks_follow)):
            yield _Chunk(tag, size, view[at:], b"")
            return
        end = _end_of_chunk(content, at, size)
        yield _Chunk(tag, size, view[at : at + size], content[end : end + 8])
        at = end
    raise WavError(f"{name} has more than {_MAX_CHUNKS} chunks; write the file again")


def _chunk_head(content: bytes, at: int, order: Literal["little", "big"]) -> tuple[bytes, int]:
    return content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], order)


def _end_of_chunk(content: bytes, at: int, size: int) -> int:
    """Where the next chunk begins: at an even offset, unless the writer forgot the padding byte."""
    end = at + size
    if size % 2 == 0 or end >= len(content):
        return end
    padded = content[end] == 0 or content[end + 1 : end + 5] in (b"fmt ", b"data")
    return end + 1 if padded or not _is_tag(content[end : end + 4]) else end


def _is_tag(tag: bytes) -> bool:
    return len(tag) == 4 and all(0x20 <= byte < 0x7F for byte in tag) and tag[:1] != b" "


def _is_chunks(content: bytes, at: int, order: Literal["little", "big"]) -> bool:
    """Whether the rest of the file, from `at`, is nothing but whole chunks."""
    for _ in range(_MAX_CHUNKS):
        if at >= len(content):
            return True
        tag, size = _chunk_head(content, at, order)
        if at + 8 + size > len(content) or not _is_tag(tag):
            return False
        at = _end_of_chunk(content, at + 8, size)
    return False


def _wide_sizes(ds64: memoryview) -> dict[bytes, int]:
    """Return the 64-bit sizes by chunk tag (EBU Tech 3306)."""
    if len(ds64) < 24:
        return {}
    sizes = {b"data": int.from_bytes(ds64[8:16], "little")}
    # The table follows the sample count and its own length.
    for at in range(28, len(ds64) - 11, 12):
        sizes.setdefault(bytes(ds64[at : at + 4]), int.from_bytes(ds64[at + 4 : at + 12], "little"))
    return sizes


def _warn(chunk: _Chunk, name: str) -> None:
    """Warn about audio that may be missing: the file was truncated, or its size was never corrected."""
    # A placeholder is larger than any file that is read.
    if len(chunk.body) < chunk.size <= MAX_FILE_BYTES:
        logger.warning(
            "%s declares %d bytes of audio but has only %d, which are all read; if it was cut short, get the "
            "whole file",
            name,
            chunk.size,
            len(chunk.body),
        )
    follower = chunk.behind[:4]
    more_audio = follower in _RIFF_ORDERS or not (_is_tag(follower) or follower.startswith(_TAGS_BEHIND))
    if len(chunk.behind) == 8 and any(chunk.behind) and more_audio:
        logger.warning(
            "%s has more data after its %d declared bytes of audio, which is ignored; correct the header if "
            "that is audio",
            name,
            chunk.size,
        )


_TAGS_BEHIND: Final = (b"ID3", b"TAG")
"""Metadata tags that players append to a file: ID3v2 and ID3v1."""


def _skip_id3(content: bytes) -> int:
    """Return the offset after any ID3v2 tags. Their sizes are four bytes of seven bits each."""
    at = 0
    while content[at : at + 3] == b"ID3" and len(content) >= at + 10:
        size = 0
        for byte in content[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if content[at + 5] & 0x10 else 0)
    return at


def _other_kind(content: bytes, start: int) -> str:
    """Return the kind of file, as a phrase to append to "is not a WAV file"."""
    found = _FORMS.get(content[start + 8 : start + 12])
    if content[start + 4 : start + 8] == b"ftyp":
        found = "MP4 or M4A"
    for magic, kind in _OTHER_FILES:
        if found is None and content.startswith(magic, start):
            found = kind
    head = int.from_bytes(content[start : start + 2], "big")
    if found is None and head & 0xFFF6 == 0xFFF0:
        found = "AAC"
    if found is None and (start or (head & 0xFFE0 == 0xFFE0 and head & 0x0006)):
        found = "MP3"
    return "" if found is None else f" but {found}"


def _parse_format(chunk: bytes, order: Literal["little", "big"], name: str) -> _Format:
    if len(chunk) < 16:
        raise WavError(f"{name} is cut short within its format; get the whole file")
    fields = "<HHIIHH" if order == "little" else ">HHIIHH"
    tag, channels, sample_rate, _, block, bits = struct.unpack_from(fields, chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 40:
        tag = _sub_format(chunk[24:40], order)
    if tag not in (_PCM, _FLOAT):
        coding = _OTHER_FORMATS.get(tag, f"format 0x{tag:04x}")
        raise WavError(f"{name} is coded as {coding}, which is not read here; convert it to PCM16 WAV")
    if not channels:
        raise WavError(f"{name} declares 0 channels at {sample_rate} Hz; write the file again")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise WavError(
            f"{name} declares a sample rate of {sample_rate} Hz; write it again at {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz"
        )
    width = _container(tag, bits, block, channels)
    if width is None:
        raise WavError(f"{name} has samples of {bits} bits, which is not read here; convert it to PCM16 WAV")
    return _Format(tag, channels, sample_rate, width, order)


def _sub_format(guid: bytes, order: Literal["little", "big"]) -> int:
    """Return the format tag in the GUID of ``WAVE_FORMAT_EXTENSIBLE``; `_EXTENSIBLE` for any other GUID."""
    if guid[2:] == _GUID_TAIL:
        return int.from_bytes(guid[:2], order)
    # In big-endian files, some writers swap all numbers of the GUID, others only the tag.
    if order == "big" and guid[:2] == b"\0\0" and guid[4:] == _GUID_TAIL_BIG:
        return int.from_bytes(guid[2:4], "big")
    return _EXTENSIBLE


def _container(tag: int, bits: int, block: int, channels: int) -> int | None:
    """Bytes per sample, given its `bits` and the `block` bytes of all channels; None if unsupported.

    A sample occupies the high bits of its container, so the number of valid bits does not matter otherwise
    (Microsoft's "Multiple channel audio data and WAVE files").
    """
    if tag == _FLOAT:
        return bits // 8 if bits in (32, 64) else None
    if not 1 <= bits <= 32:
        return None
    narrowest = -(-bits // 8)
    width, rest = divmod(block, channels)
    if not rest and narrowest <= width <= 4:
        return width
    # Some writers leave the block size at 0, or give that of one channel.
    return narrowest if bits % 8 == 0 or not block else None


def _to_pcm16(data: memoryview, form: _Format) -> bytes:
    if form.tag == _FLOAT:
        return _float_to_pcm16(data, form)
    width = form.width
    raw = bytes(data)
    if width == 2 and form.order == "little":
        return raw
    # Keep the two high bytes, which rounds down: the lower bytes are below the noise of 16 bits.
    out = bytearray(len(raw) // width * 2)
    if width == 1:  # the one unsigned width
        out[1::2] = raw.translate(_UNSIGNED)
    elif form.order == "little":
        out[0::2] = raw[width - 2 :: width]
        out[1::2] = raw[width - 1 :: width]
    else:
        out[0::2] = raw[1::width]
        out[1::2] = raw[0::width]
    return bytes(out)


_UNSIGNED: Final = bytes(value ^ 0x80 for value in range(256))
"""Maps an unsigned 8-bit sample, centred on 128, to the high byte of a signed 16-bit sample."""


def _float_to_pcm16(data: memoryview, form: _Format) -> bytes:
    values = array("f" if form.width == 4 else "d", bytes(data))
    if sys.byteorder != form.order:
        values.byteswap()
    return pcm16.to_bytes(array("h", (_quantise(value) for value in values)))


def _quantise(value: float) -> int:
    if math.isnan(value):
        return 0
    # Clip first: a finite double may overflow when it is scaled, and infinity has no floor.
    return min(32767, math.floor(max(-1.0, min(1.0, value)) * 32768 + 0.5))
