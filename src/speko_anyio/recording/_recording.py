"""Recorded sessions: who said what when, as timed JSON lines and two WAV files.

A recording is a directory:

- ``session.jsonl``: a line about the session, then one for each thing that was said, in order. ``at`` is in
  seconds since the session was open, ``by`` is ``client`` or ``gateway``. Its content is one of ``message``,
  the message as sent; ``audio``, the number of samples, which are the next ones in the WAV file of that side;
  ``unknown``, the text of a message that this version does not know; ``expiring`` and ``close``.
- ``user.wav``, ``assistant.wav``: the audio of either side, without the pauses. A side that never spoke has
  no file.

It holds no tokens or keys, since no message of a session does.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from ..audio.wav import WavError, read_wav, write_wav
from ..protocol import _codec as codec
from ..protocol._commands import AudioIn, Command, UpgradeRequest
from ..protocol._pcm import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, is_sample_rate
from ..protocol.frames import Audio, Close, Digit, Expiring, Frame, Initiator, Unknown
from ..protocol.mint import DEFAULT_SAMPLE_RATE

Side: TypeAlias = Literal["client", "gateway"]

LINES: Final = "session.jsonl"
WAVES: Final[dict[Side, str]] = {"client": "user.wav", "gateway": "assistant.wav"}
"""The audio of each side."""

_FORMAT: Final = "speko-anyio recording 1"

T = TypeVar("T")


class RecordingError(ValueError):
    """The directory holds no readable recording; the message names the file and says what to do."""


class Moment(msgspec.Struct, frozen=True):
    """A frame or a command, and its time."""

    at: float
    """Seconds since the session opened."""
    by: Side
    what: Command | Frame


class Recording(msgspec.Struct, kw_only=True):
    """One session, from its opening to its end."""

    session_id: str = ""
    provider: str | None = None
    model: str | None = None
    input_sample_rate: int = DEFAULT_SAMPLE_RATE
    """Samples a second of the client's audio."""
    output_sample_rate: int = DEFAULT_SAMPLE_RATE
    """Samples a second of the gateway's audio."""
    moments: list[Moment] = []
    """All frames and commands, in order."""
    truncated: bool = False
    """Whether the recording is incomplete, because it reached the recorder's limit."""

    @property
    def seconds(self) -> float:
        """The time of the last moment."""
        return self.moments[-1].at if self.moments else 0.0

    def audio(self, by: Side) -> bytes:
        """Return the audio of one side: PCM16 at its rate, without the pauses."""
        return b"".join(
            moment.what.pcm
            for moment in self.moments
            if moment.by == by and isinstance(moment.what, Audio | AudioIn)
        )

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the recording to `directory`, which is created if missing. OSError when that fails."""
        where = Path(directory)
        where.mkdir(parents=True, exist_ok=True)
        lines = [msgspec.json.encode(self._head()), *map(self._line, self.moments)]
        (where / LINES).write_bytes(b"\n".join([*lines, b""]))
        for by, name in WAVES.items():
            pcm = self.audio(by)
            if pcm:
                write_wav(where / name, pcm, self._rate(by))
            else:
                (where / name).unlink(missing_ok=True)

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Recording:
        """Read what `save` wrote. `RecordingError` if it is invalid, OSError if it can't be read."""
        path = Path(directory) / LINES
        try:
            lines = path.read_bytes().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            if not Path(directory).exists():
                raise
            raise RecordingError(
                f"{directory} is not a recording: it is not a folder with a {LINES}; name the folder that "
                "--record or a Recorder wrote"
            ) from None
        head = _decode(lines[0] if lines else b"", _Head, path, 1)
        if head.format != _FORMAT:
            raise RecordingError(
                f"{path} is {head.format!r}, which this version does not read; record it again"
            )
        _check_rate(head.input_sample_rate, path, 1)
        _check_rate(head.output_sample_rate, path, 1)
        recording = cls(
            session_id=head.session_id,
            provider=head.provider,
            model=head.model,
            input_sample_rate=head.input_sample_rate,
            output_sample_rate=head.output_sample_rate,
            truncated=head.truncated,
        )
        voices = {by: _Voice(Path(directory) / name) for by, name in WAVES.items()}
        for number, text in enumerate(lines[1:], 2):
            line = _decode(text, _Line, path, number)
            if line.sample_rate is not None:
                _check_rate(line.sample_rate, path, number)
            try:
                what = recording._what(line, voices[line.by])
            except codec.MalformedMessage as error:
                raise RecordingError(f"{path}, line {number}: {error}; record it again") from None
            recording.moments.append(Moment(line.at, line.by, what))
        return recording

    def _rate(self, by: Side) -> int:
        return self.input_sample_rate if by == "client" else self.output_sample_rate

    def _head(self) -> _Head:
        return _Head(
            format=_FORMAT,
            session_id=self.session_id,
            provider=self.provider,
            model=self.model,
            input_sample_rate=self.input_sample_rate,
            output_sample_rate=self.output_sample_rate,
            truncated=self.truncated,
        )

    def _line(self, moment: Moment) -> bytes:
        line = _Line(at=moment.at, by=moment.by)
        match moment.what:
            case Audio(pcm=pcm, sample_rate=rate) | AudioIn(pcm=pcm, sample_rate=rate):
                line.audio = len(pcm) // 2
                line.sample_rate = None if rate == self._rate(moment.by) else rate
            case Unknown(raw=raw):
                line.unknown = raw
            case Expiring(seconds=seconds):
                line.expiring = seconds
            case Digit(digit=digit):
                line.digit = digit
            case Close(code=code, reason=reason, initiated_by=who):
                line.close = _End(code, reason, who)
            case what:
                assert not isinstance(what, UpgradeRequest)
                line.message = msgspec.Raw(codec.encode(what).encode())
        return msgspec.json.encode(line)

    def _what(self, line: _Line, voice: _Voice) -> Command | Frame:
        if line.audio is not None:
            pcm, rate = voice.take(line.audio), line.sample_rate or self._rate(line.by)
            return AudioIn(pcm, rate) if line.by == "client" else Audio(pcm, rate)
        if line.close is not None:
            return Close(line.close.code, line.close.reason, line.close.initiated_by)
        if line.expiring is not None:
            return Expiring(line.expiring)
        if line.digit is not None:
            return Digit(line.digit)
        text = line.unknown if line.unknown is not None else bytes(line.message).decode()
        decode = codec.decode_from_client if line.by == "client" else codec.decode_from_server
        what = decode(text)
        if isinstance(what, codec.End):
            raise codec.MalformedMessage("an `end` is part of a close")
        if isinstance(what, codec.UseExtensions):
            raise codec.MalformedMessage("accepting extensions is not a command")
        return what


class _Head(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """The first line."""

    format: str
    session_id: str = ""
    provider: str | None = None
    model: str | None = None
    input_sample_rate: int
    output_sample_rate: int
    truncated: bool = False


class _End(msgspec.Struct, rename="camel"):
    code: int
    reason: str
    initiated_by: Initiator


class _Line(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Any further line."""

    at: float
    by: Side
    message: msgspec.Raw = msgspec.Raw()
    audio: int | None = None
    sample_rate: int | None = None
    """The rate of this piece, if it is not that of its side."""
    unknown: str | None = None
    expiring: float | None = None
    digit: str | None = None
    close: _End | None = None


class _Voice:
    """The audio of one side, read from its file when first needed and consumed from the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: Iterator[bytes] | None = None
        self._pcm: bytes | None = None
        self._at = 0

    def take(self, samples: int) -> bytes:
        if self._pcm is None:
            try:
                self._pcm = read_wav(self._path).pcm
            except FileNotFoundError:
                raise RecordingError(
                    f"{self._path} is missing, though {LINES} refers to its audio; record the session again"
                ) from None
            except WavError as error:
                raise RecordingError(str(error)) from None
        start, self._at = self._at, self._at + 2 * samples
        if samples < 0 or self._at > len(self._pcm):
            raise RecordingError(f"{self._path} is shorter than {LINES} says; record the session again")
        return self._pcm[start : self._at]


def _check_rate(rate: int, path: Path, number: int) -> None:
    if not is_sample_rate(rate):
        raise RecordingError(
            f"{path}, line {number}, has a sample rate that is not from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz; record it again"
        )


def _decode(text: bytes, kind: type[T], path: Path, number: int) -> T:
    try:
        # As text: the decoder does not look into what stays `Raw`, so that bytes in it could be anything.
        return msgspec.json.decode(text.decode(), type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RecordingError(f"{path}, line {number}, is invalid ({error}); record it again") from None
