"""Works out the timeline of a recording: who spoke when, as it was heard, and the latencies.

A gateway sends speech faster than it is spoken. So the assistant's speech is placed where its audio is
played: one piece after the other, until an interruption discards the unplayed rest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from ..audio._pcm import duration, rms_dbfs
from ..protocol._commands import (
    AudioIn,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from ..protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Interruption,
    Role,
    ServerToolCall,
    ToolCall,
    Transcript,
)
from ._recording import Recording

PAUSE: Final = 0.25
"""Seconds without audio that separate two utterances."""

LOUD_DBFS: Final = -45.0
"""A louder piece of the user's audio counts as speech. The last such piece ends a turn that no command
ends."""


class Utterance(msgspec.Struct):
    """Speech without a pause."""

    start: float
    """Seconds since the session opened, as everywhere here."""
    end: float
    pcm: bytearray
    sample_rate: int
    heard: bool = True
    """False for speech of the assistant that an interruption kept from being played."""


class Words(NamedTuple):
    """A final transcript, and the start of the utterance that it belongs to; or a text that was sent."""

    at: float
    role: Role
    text: str


class ToolRun(NamedTuple):
    """A run of a tool; `end` is None if it never answered."""

    name: str
    start: float
    end: float | None
    failed: bool = False


class AnswerWait(NamedTuple):
    """From the end of a turn of the user to the first audio of the answer."""

    start: float
    end: float


class Mark(NamedTuple):
    """An event without a duration."""

    at: float
    kind: str
    """``commit``, ``interrupt``, ``command`` for any other command, ``interruption``, ``error`` or
    ``close``."""
    text: str


class Timeline(msgspec.Struct):
    """Utterances, transcripts, tool runs, waits and marks of a recording."""

    user: list[Utterance] = []
    assistant: list[Utterance] = []
    words: list[Words] = []
    tools: list[ToolRun] = []
    waits: list[AnswerWait] = []
    marks: list[Mark] = []

    @property
    def seconds(self) -> float:
        """The end of the last item."""
        ends = [utterance.end for utterance in (*self.user, *self.assistant) if utterance.heard]
        ends += [run.end or run.start for run in self.tools]
        ends += [mark.at for mark in self.marks]
        return max(ends, default=0.0)


def timeline_of(recording: Recording) -> Timeline:
    """Return the timeline of a recording."""
    timeline = Timeline()
    runs: dict[str, tuple[str, float]] = {}
    turn_ended: float | None = None
    for at, _, what in ((moment.at, moment.by, moment.what) for moment in recording.moments):
        match what:
            case AudioIn(pcm=pcm, sample_rate=rate):
                _speak(timeline.user, at, pcm, rate)
                if rms_dbfs(pcm) > LOUD_DBFS:
                    turn_ended = timeline.user[-1].end
            case Audio(pcm=pcm, sample_rate=rate):
                if turn_ended is not None and at >= turn_ended:
                    timeline.waits.append(AnswerWait(turn_ended, at))
                turn_ended = None
                _speak(timeline.assistant, at, pcm, rate)
            case Commit() | EndTurn():
                turn_ended = at
                timeline.marks.append(Mark(at, "commit", "end of turn"))
            case TextIn(text=text, role=role, respond=respond):
                timeline.marks.append(Mark(at, "command", f"text of the {role}: {text}"))
                if role != "system":
                    timeline.words.append(Words(at, role, text))
                turn_ended = at if respond else turn_ended
            case ImageIn(mime_type=mime_type, respond=respond):
                timeline.marks.append(Mark(at, "command", mime_type))
                turn_ended = at if respond else turn_ended
            case Respond():
                timeline.marks.append(Mark(at, "command", "asked to speak"))
                turn_ended = at
            case Say(text=text):
                timeline.marks.append(Mark(at, "command", f"asked to say: {text}"))
            case Update(fields=fields):
                timeline.marks.append(Mark(at, "command", f"changed: {', '.join(fields)}"))
            case Interrupt():
                timeline.marks.append(Mark(at, "interrupt", "interrupt"))
            case Interruption(at=who):
                timeline.marks.append(Mark(at, "interruption", f"interrupted by the {who}"))
                _cut(timeline.assistant, at)
            case Transcript(role=role, text=text, final=True):
                spoken = timeline.user if role == "user" else timeline.assistant
                timeline.words.append(Words(spoken[-1].start if spoken else at, role, text))
            case ToolCall(call_id=call_id, name=name):
                runs[call_id] = name, at
            case ToolResult(call_id=call_id) if call_id in runs:
                name, start = runs.pop(call_id)
                timeline.tools.append(ToolRun(name, start, at))
            case ServerToolCall(id=id, name=name, status="started"):
                runs[f"server {id}"] = name, at
            case ServerToolCall(id=id, status=status) if f"server {id}" in runs:
                name, start = runs.pop(f"server {id}")
                timeline.tools.append(ToolRun(name, start, at, status == "failed"))
            case ErrorFrame(code=code, message=message):
                timeline.marks.append(Mark(at, "error", f"{code}: {message}"))
            case Close(code=code, reason=reason):
                timeline.marks.append(Mark(at, "close", f"closed {code} {reason}".rstrip()))
    timeline.tools.extend(ToolRun(name, start, None) for name, start in runs.values())
    timeline.tools.sort(key=lambda run: run.start)
    return timeline


def _speak(spoken: list[Utterance], at: float, pcm: bytes, rate: int) -> None:
    """Add a piece of speech that came `at`: it is played then, or after the pieces before it."""
    last = spoken[-1] if spoken else None
    if last is not None and last.heard and at < last.end + PAUSE and last.sample_rate == rate:
        last.pcm += pcm
        last.end = last.start + len(last.pcm) / 2 / rate
        return
    start = at if last is None or not last.heard else max(at, last.end)
    spoken.append(Utterance(start, start + duration(pcm, rate), bytearray(pcm), rate))


def _cut(spoken: list[Utterance], at: float) -> None:
    """Cut off the audio that was not played by then."""
    for index in range(len(spoken) - 1, -1, -1):
        utterance = spoken[index]
        if not utterance.heard or utterance.end <= at:
            return
        if utterance.start >= at:
            utterance.heard = False
            continue
        whole = round((at - utterance.start) * utterance.sample_rate) * 2
        rest = utterance.pcm[whole:]
        spoken.insert(index + 1, Utterance(at, utterance.end, rest, utterance.sample_rate, heard=False))
        del utterance.pcm[whole:]
        utterance.end = at
