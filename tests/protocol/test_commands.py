"""Commands as data. Their JSON is in ``test_codec.py``."""

from __future__ import annotations

import typing

import msgspec
import pytest

from speko_anyio.protocol import (
    AudioIn,
    Clear,
    Close,
    Command,
    Commit,
    EndTurn,
    Expiring,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Unknown,
    Update,
    UpgradeRequest,
)

REQUEST = UpgradeRequest("/v1/stream", "h", ("s3cret",), (("cookie", "s3cret too"),))

COMMANDS: dict[type, Command] = {
    UpgradeRequest: REQUEST,
    AudioIn: AudioIn(b"ab", 16_000),
    Commit: Commit(),
    Clear: Clear(),
    EndTurn: EndTurn(),
    Interrupt: Interrupt(),
    ToolResult: ToolResult("c1", "42"),
    TextIn: TextIn("hi", "system", True),
    ImageIn: ImageIn("image/png", b"\x89PNG", True),
    Respond: Respond("briefly"),
    Say: Say("hello"),
    Update: Update(voice="Ara", turns="manual"),
    Played: Played(1234),
    Unknown: Unknown("new", '{"t":"new"}'),
    Expiring: Expiring(60.0),
    Close: Close(1000, "bye", "local"),
}


def describe(command: Command) -> str:
    match command:
        case UpgradeRequest(target=target, host=host, subprotocols=subprotocols, headers=headers):
            return f"{target} {host} {len(subprotocols)} {len(headers)}"
        case AudioIn(pcm=pcm, sample_rate=rate):
            return f"{pcm!r} {rate}"
        case Commit() | Clear() | EndTurn() | Interrupt():
            return type(command).__name__
        case ToolResult(call_id=call_id, output=output):
            return f"{call_id} {output}"
        case TextIn(text=text, role=role, respond=respond):
            return f"{text} {role} {respond}"
        case ImageIn(mime_type=mime_type, data=data, respond=respond):
            return f"{mime_type} {data!r} {respond}"
        case Respond(instructions=text) | Say(text=text):
            return text
        case Update(fields=fields):
            return " ".join(fields)
        case Played(ms=ms):
            return f"{ms} ms"
        case Unknown(t=t):
            return t
        case Expiring(seconds=seconds):
            return f"{seconds}"
        case Close(code=code):
            return f"{code}"


def test_match_takes_every_command_apart() -> None:
    assert [describe(command) for command in COMMANDS.values()] == [
        "/v1/stream h 1 1",
        "b'ab' 16000",
        "Commit",
        "Clear",
        "EndTurn",
        "Interrupt",
        "c1 42",
        "hi system True",
        "image/png b'\\x89PNG' True",
        "briefly",
        "hello",
        "voice turns",
        "1234 ms",
        "new",
        "60.0",
        "1000",
    ]


def test_the_union_is_complete() -> None:
    assert set(typing.get_args(Command)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: type(command).__name__)
def test_commands_are_frozen_and_compare_by_value(command: Command) -> None:
    assert msgspec.structs.replace(command) == command
    assert hash(msgspec.structs.replace(command)) == hash(command)
    for field in command.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(command, field, getattr(command, field))


def test_commands_without_fields_are_told_apart() -> None:
    assert len({Commit(), Clear(), EndTurn(), Interrupt()}) == 4


def test_a_request_in_a_log_shows_neither_token_nor_headers() -> None:
    assert repr(REQUEST) == "UpgradeRequest(target='/v1/stream', host='h')"


def test_nor_does_rich_show_them() -> None:
    assert REQUEST.__rich_repr__() == [("target", "/v1/stream"), ("host", "h")]


def test_an_image_in_a_log_is_one_short_line() -> None:
    image = ImageIn("image/png", bytes(640), False)
    assert repr(image) == "ImageIn(mime_type='image/png', data=<640 bytes>, respond=False)"


def test_audio_in_a_log_is_one_short_line() -> None:
    assert repr(AudioIn(bytes(640), 16_000)) == "AudioIn(pcm=<640 bytes>, sample_rate=16000)"
