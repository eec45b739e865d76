"""WAV files: any usual one in, as PCM16 mono at the rate you want; PCM16 mono out.

The standard library's `wave` refuses float samples, files of streaming writers and
``WAVE_FORMAT_EXTENSIBLE`` before Python 3.12, hence a RIFF reader of our own.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from . import pcm as pcm16
from .resample import resample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Default bound of what is read into memory: 45 minutes of 48 kHz stereo PCM16."""

_PCM: Final = 0x0001
_FLOAT: Final = 0x0003
_EXTENSIBLE: Final = 0xFFFE
_OTHER_FORMATS: Final = {
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "µ-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0040: "G.721 ADPCM",
    0x0050: "MPEG",
    0x0055: "MP3",
    0x00FF: "AAC",
}
_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the format tag in the sub-format of ``WAVE_FORMAT_EXTENSIBLE``."""

_UNTIL_END: Final = frozenset({0, 0xFFFFFFFF})
"""Sizes that a writer leaves in a data chunk when it cannot seek back to fill them in."""


class WavError(ValueError):
    """The file is no WAV that we can read; the message names it and says what to do."""


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
    bits: int

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8


def read_wav(
    path: str | PathLike[str], *, sample_rate: int | None = None, max_bytes: int = MAX_FILE_BYTES
) -> Wav:
    """Read the WAV file at `path` as PCM16 mono.

    Channels are mixed down, samples of other widths and floats are rounded to 16 bits (floats beyond
    full scale are clipped), and `sample_rate`, if given, is converted to.

    Blocks on the disk: in async code, call it in a worker thread.

    Args:
        path: the file.
        sample_rate: samples a second that the result shall have; the file's own when None.
        max_bytes: the largest file that is read.

    Raises:
        WavError: the file is not a WAV, is too large, cut short or empty, or its coding is not PCM.
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
    samples = _to_pcm16(data, form)
    mono = pcm16.downmix(samples, form.channels)
    if sample_rate is None or sample_rate == form.sample_rate:
        return Wav(mono, form.sample_rate)
    return Wav(resample(mono, form.sample_rate, sample_rate), sample_rate)


def write_wav(path: str | PathLike[str], pcm: bytes, sample_rate: int) -> None:
    """Write PCM16 mono `pcm`, whole samples at `sample_rate` samples a second, as a WAV file.

    Blocks on the disk. Raises OSError when the file can't be written and ValueError for half a sample.
    """
    Path(path).write_bytes(format_wav(pcm, sample_rate))


def format_wav(pcm: bytes, sample_rate: int) -> bytes:
    """The WAV file that holds PCM16 mono `pcm`."""
    if len(pcm) % pcm16.SAMPLE_BYTES:
        raise ValueError(f"{len(pcm)} bytes are not whole PCM16 samples; pass an even number")
    byte_rate = sample_rate * pcm16.SAMPLE_BYTES
    form = struct.pack("<HHIIHH", _PCM, 1, sample_rate, byte_rate, pcm16.SAMPLE_BYTES, 16)
    body = (
        b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(pcm)) + pcm
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _find(content: bytes, name: str) -> tuple[_Format, memoryview]:
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise WavError(f"{name} is not a WAV file; convert it to PCM WAV first")
    form: _Format | None = None
    for tag, size, chunk in _chunks(content):
        if tag == b"fmt ":
            form = _parse_format(bytes(chunk), name)
        elif tag == b"data":
            if form is None:
                raise WavError(f"{name} has audio before it says in which format; write the file again")
            if size not in _UNTIL_END and len(chunk) < size:
                raise WavError(
                    f"{name} is cut short: it announces {size} bytes of audio and has {len(chunk)}; "
                    "get the whole file"
                )
            whole = chunk[: len(chunk) - len(chunk) % form.frame_bytes]
            if not whole:
                raise WavError(f"{name} holds no audio; record it again")
            return form, whole
    if form is None:
        raise WavError(f"{name} is a WAV file without a format; write the file again")
    raise WavError(f"{name} is cut short: it has a format and no audio; get the whole file")


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, memoryview]]:
    view = memoryview(content)
    at = 12
    while at + 8 <= len(content):
        tag, size = struct.unpack_from("<4sI", content, at)
        at += 8
        until_end = tag == b"data" and size in _UNTIL_END
        yield tag, size, view[at:] if until_end else view[at : at + size]
        at += size + size % 2  # chunks start at even offsets


def _parse_format(chunk: bytes, name: str) -> _Format:
    if len(chunk) < 16:
        raise WavError(f"{name} is cut short within its format; get the whole file")
    tag, channels, sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _GUID_TAIL:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    widths = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}.get(tag)
    if widths is None:
        coding = _OTHER_FORMATS.get(tag, f"format 0x{tag:04x}")
        raise WavError(f"{name} is coded as {coding}, which is not read here; convert it to PCM16 WAV")
    if bits not in widths:
        raise WavError(f"{name} has samples of {bits} bits, which is not read here; convert it to PCM16 WAV")
    if not channels or not sample_rate:
        raise WavError(f"{name} says it has {channels} channels at {sample_rate} Hz; write the file again")
    return _Format(tag, channels, sample_rate, bits)


def _to_pcm16(data: memoryview, form: _Format) -> bytes:
    if form.tag == _FLOAT:
        return _float_to_pcm16(data, form.bits)
    width = form.bits // 8
    if width == 2:
        return bytes(data)
    if width == 1:  # the one unsigned width
        return pcm16.to_bytes(array("h", [(value - 128) << 8 for value in data]))
    # The two high bytes are the sample rounded down: the bytes below are beneath 16 bits' own noise.
    raw = bytes(data)
    out = bytearray(len(raw) // width * 2)
    out[0::2] = raw[width - 2 :: width]
    out[1::2] = raw[width - 1 :: width]
    return bytes(out)


def _float_to_pcm16(data: memoryview, bits: int) -> bytes:
    values = array("f" if bits == 32 else "d", bytes(data))
    if sys.byteorder == "big":
        values.byteswap()
    return pcm16.to_bytes(array("h", [_quantise(value) for value in values]))


def _quantise(value: float) -> int:
    if math.isnan(value):
        return 0
    return max(
        -32768,
        min(
            32767,
            math.floor(value * 32768 + 0.5) if math.isfinite(value) else int(math.copysign(32768, value)),
        ),
    )
