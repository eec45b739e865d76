"""`Recorder`: an observer that records sessions as they happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from .._net.event_loop import clock
from .._observe.observer import SessionInfo, SessionObserver
from .._observe.redaction import redact
from ..protocol._commands import AudioIn, Command, ImageIn, Respond, Say, TextIn, ToolResult, Update
from ..protocol._state import State
from ..protocol.frames import Audio, Close, ErrorFrame, Frame, Ready, ToolCall, Transcript, Unknown
from ._recording import Moment, Recording, Side

MAX_BYTES: Final = 256 * 1024 * 1024
"""Default limit in bytes of one recording in memory: 45 minutes of both sides talking at 24 kHz."""

_OVERHEAD: Final = 200
"""Bytes that a moment counts in addition to its audio and text."""

_TEXTS: Final[dict[type, str]] = {
    Transcript: "text",
    ToolCall: "arguments",
    ToolResult: "output",
    TextIn: "text",
    Say: "text",
    Respond: "instructions",
    Update: "system_prompt",
    ErrorFrame: "message",
    Unknown: "raw",
    Close: "reason",
}
"""The field of each type that holds free text."""


class Recorder:
    """Pass it as ``observer`` to `connect` or `open_session`: each session becomes a `Recording`.

    - `hide`: every text of a session goes through it: transcripts, the arguments and results of tools,
      errors. By default it removes anything that looks like a key or a token, since a peer may quote one that
      it refused.
    - `max_bytes`: the limit of one recording; anything beyond it is left out, and `truncated` is set.

    A recording is in memory and complete when its session is over; then call `Recording.save`.
    """

    def __init__(self, *, hide: Callable[[str], str] = redact, max_bytes: int = MAX_BYTES) -> None:
        self._hide = hide
        self._max_bytes = max_bytes
        self.recordings: list[Recording] = []
        """The recordings of all sessions that opened, in order."""

    @property
    def recording(self) -> Recording:
        """The only recording. AssertionError if there is none, or more than one."""
        assert len(self.recordings) == 1, f"{len(self.recordings)} sessions were recorded, not one"
        return self.recordings[0]

    def __call__(self, info: SessionInfo) -> SessionObserver:
        """Begin to record a session. Sessions call this, since a recorder is an observer factory."""
        recording = Recording(session_id=info.session_id, provider=info.provider, model=info.model)
        return _SessionRecorder(recording, self.recordings.append, self._hide, self._max_bytes)


class _SessionRecorder(SessionObserver):
    def __init__(
        self,
        recording: Recording,
        opened: Callable[[Recording], None],
        hide: Callable[[str], str],
        room: int,
    ) -> None:
        self._recording = recording
        self._opened = opened
        self._hide = hide
        self._room = room
        self._clock = clock()
        self._start = 0.0

    def state_changed(self, state: State) -> None:
        if state is State.OPEN:
            self._start = self._clock()
            self._opened(self._recording)

    def sent(self, command: Command) -> None:
        self._note("client", command)

    def received(self, frame: Frame) -> None:
        recording = self._recording
        if isinstance(frame, Ready):
            recording.input_sample_rate = frame.input_sample_rate
            recording.output_sample_rate = frame.output_sample_rate
        ours = isinstance(frame, Close) and frame.initiated_by == "local"
        self._note("client" if ours else "gateway", frame)

    def _note(self, by: Side, what: Command | Frame) -> None:
        field = _TEXTS.get(type(what))
        size = _OVERHEAD
        if field is not None:
            if (text := getattr(what, field)) is not msgspec.UNSET:
                text = self._hide(text)
                size += len(text)
                what = msgspec.structs.replace(what, **{field: text})
        elif isinstance(what, Audio | AudioIn):
            size += len(what.pcm)
        elif isinstance(what, ImageIn):
            size += len(what.data)
        self._room -= size
        if self._room < 0 and not isinstance(what, Close):
            self._recording.truncated = True
            return
        # Microseconds: finer than any clock here, and short to read.
        at = round(self._clock() - self._start, 6)
        self._recording.moments.append(Moment(at, by, what))
