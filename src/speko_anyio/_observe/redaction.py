"""Descriptions of frames and commands that are safe to log: more people read logs than hear calls.

Audio, transcripts, and the arguments and results of tools appear as sizes only; anything that looks like a
key or a token is removed. Text from the peer is quoted, so that it can't forge a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

from ..protocol._commands import (
    AudioIn,
    Clear,
    Command,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
    UpgradeRequest,
)
from ..protocol._tokens import REDACTED as REDACTED
from ..protocol._tokens import redact as redact
from ..protocol.frames import (
    Audio,
    Close,
    Digit,
    ErrorFrame,
    Expiring,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)

_MAX_QUOTE: Final = 200
"""Most characters of the peer's text in one line."""


def quote(text: str, secrets: Iterable[str] = ()) -> str:
    """Quote the peer's words on one line, shortened if long."""
    # Redact before cutting: half a token would not be recognized.
    text = redact(text[: 16 * _MAX_QUOTE], secrets)
    return repr(text) if len(text) <= _MAX_QUOTE else f"{text[:_MAX_QUOTE]!r}..."


def describe(event: Frame | Command, secrets: Iterable[str] = ()) -> str:
    """Describe `event` on one line, without what was said in it."""
    name = type(event).__name__
    match event:
        case Audio(pcm=pcm) | AudioIn(pcm=pcm):
            return f"{name}: {len(pcm)} bytes"
        case Transcript(role=role, text=text, final=final):
            return f"{name}: {role}, {'final' if final else 'partial'}, {len(text)} characters"
        case ToolCall(call_id=call_id, name=tool, arguments=text):
            return f"{name}: {quote(tool, secrets)}, {quote(call_id, secrets)}, {len(text)} characters"
        case ToolResult(call_id=call_id, output=text):
            return f"{name}: {quote(call_id, secrets)}, {len(text)} characters"
        case TextIn(role=role, text=text):
            return f"{name}: {role}, {len(text)} characters"
        case Say(text=text) | Respond(instructions=text):
            return f"{name}: {len(text)} characters"
        case ImageIn(mime_type=kind, data=data):
            return f"{name}: {quote(kind, secrets)}, {len(data)} bytes"
        case Update(fields=fields):
            return f"{name}: {', '.join(fields)}"
        case Played(ms=ms):
            return f"{name}: {ms} ms"
        case ServerToolCall(id=call_id, name=tool, status=status):
            return f"{name}: {quote(tool, secrets)}, {quote(call_id, secrets)}, {status}"
        case Ready(input_sample_rate=taken, output_sample_rate=given):
            return f"{name}: takes {taken} Hz, gives {given} Hz"
        case Interruption(at=role):
            return f"{name}: by the {role}"
        case Usage(input_audio_tokens=taken, output_audio_tokens=given):
            return f"{name}: {taken} tokens in, {given} out"
        case ResponseEnd(status=status, reason=text):
            return f"{name}: {status}, {quote(text, secrets)}" if text else f"{name}: {status}"
        case ErrorFrame(code=code, message=text):
            return f"{name}: {quote(code, secrets)}, {quote(text, secrets)}"
        case Unknown(t=kind, raw=text):
            return f"{name}: {quote(kind, secrets)}, {len(text)} characters"
        case Expiring(seconds=seconds):
            return f"{name}: in {seconds:g} s"
        case Close(code=code, reason=text, initiated_by=who):
            return f"{name}: {code} {quote(text, secrets)}, by {who}"
        case Commit() | Clear() | EndTurn() | Interrupt() | UpgradeRequest() | Digit():
            return name
        case _:
            assert_never(event)
