"""What a session used and how fast it answered: plain counters beside the hot path, read once at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .observer import Observer
from .store.records import SessionOutcome, TranscriptLine

if TYPE_CHECKING:
    from speko_anyio.protocol.frames import Close, Role

MAX_TOOL_NAMES: Final = 64
"""Tools that are counted by their names; a model that makes names up is counted as `OTHER_TOOLS`."""

OTHER_TOOLS: Final = "(other)"

MAX_TRANSCRIPT: Final = 1024 * 1024
"""Characters of a transcript that are kept: hours of speech. What comes after them is not."""

MAX_TOKENS: Final = 2**63 - 1
"""What a database's integer holds. A provider's number may be any, and a record that can't be kept would be
tried again for ever."""

_BYTES_PER_SAMPLE: Final = 2
_NOBODY: Final = Observer()


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
        "input_tokens",
        "messages",
        "output_tokens",
        "time_to_first_audio",
        "tool_calls",
        "transcript",
    )

    def __init__(
        self, *, keep_transcript: bool = False, observer: Observer = _NOBODY, provider: str = ""
    ) -> None:
        self.messages = 0
        """That came from the client."""
        self.audio_in = 0
        """Bytes of audio that the client sent."""
        self.audio_out = 0
        """Bytes of audio that went out to it."""
        self.input_tokens = 0
        self.output_tokens = 0
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
        """The user has finished speaking; `now` is of the clock that `answered` is told."""
        self.asked_at = now

    def answered(self, now: float) -> None:
        """Audio went out, the first since the user's turn ended."""
        assert self.asked_at is not None
        seconds = now - self.asked_at
        if self.time_to_first_audio is None:
            self.time_to_first_audio = seconds
        self.asked_at = None
        self._observer.answered(self._provider, seconds)

    def failed(self, code: str) -> None:
        """The client was told an error."""
        self._observer.failed(self._provider, code)

    def tool_called(self, name: str) -> None:
        """A tool was called, on whichever side it runs."""
        if name not in self.tool_calls and len(self.tool_calls) >= MAX_TOOL_NAMES:
            name = OTHER_TOOLS
        self.tool_calls[name] = self.tool_calls.get(name, 0) + 1

    def said(self, role: Role, text: str, at: float) -> None:
        """A final text, at `at` seconds since the epoch."""
        if self._keep_transcript and self._kept + len(text) <= MAX_TRANSCRIPT:
            self._kept += len(text)
            self.transcript.append(TranscriptLine(role, text, at))

    def outcome(
        self, close: Close | None, *, input_sample_rate: int, output_sample_rate: int
    ) -> SessionOutcome:
        """All of it, for the record."""
        return SessionOutcome(
            close=close,
            input_audio_seconds=self.audio_in / _BYTES_PER_SAMPLE / input_sample_rate,
            output_audio_seconds=self.audio_out / _BYTES_PER_SAMPLE / output_sample_rate,
            input_audio_tokens=min(self.input_tokens, MAX_TOKENS),
            output_audio_tokens=min(self.output_tokens, MAX_TOKENS),
            time_to_first_audio=self.time_to_first_audio,
            tool_calls=self.tool_calls,
            transcript=tuple(self.transcript),
        )
