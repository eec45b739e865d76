"""Frames as data. Their JSON is in ``test_codec.py``."""

from __future__ import annotations

import typing

import msgspec
import pytest

from speko_anyio.protocol import (
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

FRAMES: dict[type, Frame] = {
    Ready: Ready(16_000, 24_000),
    Audio: Audio(b"ab", 24_000),
    Transcript: Transcript("user", "hi", True),
    ToolCall: ToolCall("c1", "f", "{}"),
    ServerToolCall: ServerToolCall("s1", "f", "completed"),
    Interruption: Interruption("assistant"),
    Usage: Usage(1, 2),
    ResponseEnd: ResponseEnd("incomplete", "max_output_tokens"),
    ErrorFrame: ErrorFrame("E", "m"),
    Unknown: Unknown("new", '{"t":"new"}'),
    Digit: Digit("5"),
    Expiring: Expiring(60.0),
    Close: Close(1000, "bye", "remote"),
}


def describe(frame: Frame) -> str:
    match frame:
        case Ready(input_sample_rate=in_rate, output_sample_rate=out_rate):
            return f"{in_rate} {out_rate}"
        case Audio(pcm=pcm, sample_rate=rate):
            return f"{pcm!r} {rate}"
        case Transcript(role=role, text=text, final=final):
            return f"{role} {text} {final}"
        case ToolCall(call_id=call_id, name=name, arguments=arguments):
            return f"{call_id} {name} {arguments}"
        case ServerToolCall(id=id, name=name, status=status):
            return f"{id} {name} {status}"
        case Interruption(at=at):
            return at
        case Usage(input_audio_tokens=spent_in, output_audio_tokens=spent_out):
            return f"{spent_in} {spent_out}"
        case ResponseEnd(status=status, reason=why):
            return f"{status} {why}"
        case ErrorFrame(code=code, message=message):
            return f"{code} {message}"
        case Unknown(t=t, raw=raw):
            return f"{t} {raw}"
        case Digit(digit=digit):
            return digit
        case Expiring(seconds=seconds):
            return f"{seconds}"
        case Close(code=number, reason=reason, initiated_by=who):
            return f"{number} {reason} {who}"


def test_match_takes_every_frame_apart() -> None:
    assert [describe(frame) for frame in FRAMES.values()] == [
        "16000 24000",
        "b'ab' 24000",
        "user hi True",
        "c1 f {}",
        "s1 f completed",
        "assistant",
        "1 2",
        "incomplete max_output_tokens",
        "E m",
        'new {"t":"new"}',
        "5",
        "60.0",
        "1000 bye remote",
    ]


def test_the_union_is_complete() -> None:
    assert set(typing.get_args(Frame)) == set(FRAMES)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=lambda frame: type(frame).__name__)
def test_frames_are_frozen_and_compare_by_value(frame: Frame) -> None:
    twin = msgspec.structs.replace(frame)
    assert twin is not frame
    assert twin == frame
    assert hash(twin) == hash(frame)
    field = frame.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(frame, field, getattr(frame, field))


def test_the_defaults_are_those_of_the_published_sdks() -> None:
    assert Transcript() == Transcript("assistant", "", False)
    assert ToolCall() == ToolCall("", "", "")
    assert ServerToolCall() == ServerToolCall("", "", "started")
    assert Interruption() == Interruption("user")
    assert Usage() == Usage(0, 0)
    assert ErrorFrame() == ErrorFrame("UNKNOWN", "")


def test_audio_in_a_log_is_one_short_line() -> None:
    assert repr(Audio(bytes(960), 24_000)) == "Audio(pcm=<960 bytes>, sample_rate=24000)"


@pytest.mark.parametrize(
    ("reason", "expired"),
    [
        ("session_expired", True),
        ("provider_session_expired", True),
        ("", False),
        ("my session_expired", False),
    ],
)
def test_a_close_tells_whether_the_time_was_up(reason: str, expired: bool) -> None:
    assert Close(1000, reason, "remote").expired is expired


def test_the_repr_of_a_digit_does_not_show_it() -> None:
    assert repr(Digit("5")) == "Digit(...)"  # it may be part of a card's number
