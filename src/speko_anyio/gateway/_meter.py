"""What a session used and how fast it answered: plain counters beside the hot path, read once at its end."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from speko_anyio.protocol._session import ServerFrame
from speko_anyio.protocol.frames import Close, ErrorFrame, Role, ServerToolCall, ToolCall, Transcript, Usage

from ._instrumentation import Instrumentation
from .store._records import SessionOutcome, TranscriptLine

MAX_TOOL_NAMES: Final = 64
"""Tools that are counted by their names; the calls of further names, which a model may invent, are counted as
`OTHER_TOOLS`."""

OTHER_TOOLS: Final = "(other)"

MAX_TOOL_NAME: Final = 128
"""Characters of a tool's name; the calls of longer names are counted as `OTHER_TOOLS`."""

MAX_TRANSCRIPT: Final = 1024 * 1024
"""Characters of a transcript that are kept: hours of speech. Further text is not."""

MAX_LINES: Final = 20_000
"""Lines of a transcript that are kept, whatever is in them."""

MAX_TOKENS: Final = 2**63 - 1
"""The largest integer that a database holds. A provider may send any number, and a record that can't be
stored would be retried for ever."""

_BYTES_PER_SAMPLE: Final = 2
_NOBODY: Final = Instrumentation()


class Meter:
    """Counts for one session, and tells `observer` what can't wait for its end.

    - `keep_transcript`: whether final texts are kept until then.
    """

    __slots__ = (
        "_keep_transcript",
        "_kept",
        "_observer",
        "_provider",
        "asked_at",
        "audio_in",
        "audio_out",
        "messages_in",
        "time_to_first_audio",
        "tool_calls",
        "transcript",
        "usage",
    )

    def __init__(
        self, *, keep_transcript: bool = False, observer: Instrumentation = _NOBODY, provider: str = ""
    ) -> None:
        self.messages_in: int = 0
        """Messages from the client. While this number stands still, the client is idle."""
        self.audio_in: int = 0
        """Bytes of audio from the client."""
        self.audio_out: int = 0
        """Bytes of audio that went out to the client."""
        self.usage: Usage = Usage()
        """The sum of what was reported."""
        self.asked_at: float | None = None
        """When the user's turn ended, while no audio has gone out since."""
        self.time_to_first_audio: float | None = None
        """Seconds, of the first turn that was answered with audio."""
        self.tool_calls: dict[str, int] = {}
        self.transcript: list[TranscriptLine] = []
        self._keep_transcript = keep_transcript
        self._kept = 0
        self._observer = observer
        self._provider = provider

    def turn_ended(self, now: float) -> None:
        """Start the time to first audio: the user has finished speaking.

        `now` is in seconds of the same clock as for `answered`.
        """
        self.asked_at = now

    def answered(self, now: float) -> None:
        """Stop that time: the first audio since the user's turn ended went out."""
        assert self.asked_at is not None
        seconds = now - self.asked_at
        if self.time_to_first_audio is None:
            self.time_to_first_audio = seconds
        self.asked_at = None
        self._observer.answered(self._provider, seconds)

    def queued(self, frame: ServerFrame) -> None:
        """Count a frame that was queued for the client. Audio is counted when it goes out."""
        match frame:
            case Transcript(role=role, text=text, final=True):
                self.said(role, text, time.time())
            case ToolCall(name=name) | ServerToolCall(name=name, status="started"):
                self.tool_called(name)
            case Usage():
                self.usage += frame
            case ErrorFrame(code=code):
                self.failed(code)
            case _:
                pass  # counts for nothing

    def failed(self, code: str) -> None:
        """Count an error that is sent to the client."""
        self._observer.failed(self._provider, code)

    def tool_called(self, name: str) -> None:
        """Count the call of a tool, on whichever side it runs."""
        full = len(self.tool_calls) >= MAX_TOOL_NAMES
        if len(name) > MAX_TOOL_NAME or (full and name not in self.tool_calls):
            name = OTHER_TOOLS
        self.tool_calls[name] = self.tool_calls.get(name, 0) + 1

    def said(self, role: Role, text: str, at: float) -> None:
        """Keep a final text, said `at` seconds since the epoch, if transcripts are kept and it fits."""
        fits = self._kept + len(text) <= MAX_TRANSCRIPT and len(self.transcript) < MAX_LINES
        if self._keep_transcript and fits:
            self._kept += len(text)
            self.transcript.append(TranscriptLine(role, text, at))

    def outcome(
        self, close: Close | None, *, input_sample_rate: int, output_sample_rate: int
    ) -> SessionOutcome:
        """Return all of it, for the record."""
        usage = {name: min(count, MAX_TOKENS) for name, count in msgspec.structs.asdict(self.usage).items()}
        reported_seconds = float(usage.pop("seconds"))
        return SessionOutcome(
            close=close,
            input_audio_seconds=self.audio_in / _BYTES_PER_SAMPLE / input_sample_rate,
            output_audio_seconds=self.audio_out / _BYTES_PER_SAMPLE / output_sample_rate,
            reported_seconds=reported_seconds,
            **usage,
            time_to_first_audio=self.time_to_first_audio,
            tool_calls=self.tool_calls,
            transcript=tuple(self.transcript),
        )
