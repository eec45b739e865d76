"""docs/wire.md and its JSON Schema against the codec, in both directions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs import wire_schema
from speko_anyio.gateway._session import EXPIRING
from speko_anyio.protocol import (
    NEED_DATA,
    Capabilities,
    ClientProtocol,
    CloseMessage,
    Command,
    ErrorFrame,
    Frame,
    ServerProtocol,
    State,
    Unknown,
    close_codes,
)
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol._extensions import COMMANDS, KNOWN
from speko_anyio.protocol.mint import (
    APIErrorBody,
    InvalidRequestError,
    MintRequest,
    SessionConfig,
    SessionGrant,
    ToolSpec,
    decode_request,
)

from .programs import DOCS

PAGE = (DOCS / "wire.md").read_text(encoding="utf-8")
UNIONS = {"client": codec.ClientMessage, "server": codec.ServerMessage}
MESSAGES = {
    (side, tag): kind for side, union in UNIONS.items() for tag, kind in wire_schema.messages(union).items()
}


def section(title: str, level: int = 2, page: str = PAGE) -> str:
    """What stands under a heading of the page."""
    mark = "#" * level
    found = re.search(
        rf"^{mark} {re.escape(title)}\n(.*?)(?=^#{{1,{level}}} |\Z)", page, re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


SIDES = {"client": section("From the client"), "server": section("From the server")}


def examples(text: str) -> list[str]:
    return re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def conversation() -> Iterator[tuple[str, str]]:
    for line in section("A conversation").splitlines():
        if line[:3] in ("> {", "< {"):
            yield ("client" if line[0] == ">" else "server"), line[2:]


EXAMPLES = [
    *(
        (side, tag, example)
        for side, tag in MESSAGES
        for example in examples(section(f"`{tag}`", 3, SIDES[side]))
    ),
    *((side, json.loads(text)["t"], text) for side, text in conversation()),
]


@cache
def validator(definition: str) -> Any:
    schema = {**wire_schema.schema(), "$ref": f"#/$defs/{definition}"}
    return pytest.importorskip("jsonschema").Draft202012Validator(schema)


# The page


def test_every_message_of_the_codec_has_its_section_and_there_is_no_other() -> None:
    for side, text in SIDES.items():
        told = re.findall(r"^### `(\w+)`$", text, re.MULTILINE)
        assert sorted(told) == sorted(tag for of, tag in MESSAGES if of == side)
        assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == ["binary"]


@pytest.mark.parametrize(("side", "tag"), MESSAGES)
def test_every_message_has_an_example_and_all_its_fields(side: str, tag: str) -> None:
    text = section(f"`{tag}`", 3, SIDES[side])
    (example,) = examples(text)
    fields = {field.encode_name for field in msgspec.structs.fields(MESSAGES[side, tag])}
    assert json.loads(example).keys() == fields | {"t"}
    told = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE)))
    extra = {"code"} if tag == "error" else set()  # its codes are a table of their own
    if tag == "ready":
        extra |= {field.encode_name for field in msgspec.structs.fields(Capabilities)}
    assert fields <= set(told)
    assert {name for name in told if not name.isupper()} <= fields | extra


@pytest.mark.parametrize(("side", "tag", "example"), EXAMPLES)
def test_every_example_is_read_as_what_it_is(side: str, tag: str, example: str) -> None:
    odd: list[str] = []
    decode = codec.decode_from_client if side == "client" else codec.decode_from_server
    read = decode(example, odd)
    assert not isinstance(read, Unknown)
    assert odd == []
    text = json.loads(codec.encode(read))
    assert text["t"] == tag
    assert text | json.loads(example) == text
    validator(side).validate(json.loads(example))
    validator(f"{side}_{tag}").validate(json.loads(example))


def test_every_extension_is_there() -> None:
    names = re.findall(r"^\| `(\w+)` \|", section("Extensions"), re.MULTILINE)
    assert names == list(KNOWN)


def test_every_refusal_of_the_core_is_there_and_is_what_it_says() -> None:
    codes = section("`error`", 3, SIDES["server"])
    assert [f"{name.upper()}_REFUSED" for name in COMMANDS] == re.findall(
        r"`(\w+_REFUSED)`", codes.partition("| `code` | meaning")[2]
    )
    assert f"| `{EXPIRING}` |" in codes


def test_every_close_code_is_there() -> None:
    told = re.findall(r"^\| (\d{4}) \|", section("Closing"), re.MULTILINE)
    known = {code for name, code in vars(close_codes).items() if name.isupper() and name != "MAX_REASON"}
    assert sorted(map(int, told)) == sorted(known)


def test_the_conversation_is_one() -> None:
    client, server = ClientProtocol(), ServerProtocol(extensions=["text", "respond", "usage"])
    server.send_ready()
    events: list[Frame | Command] = []
    for line in section("A conversation").splitlines():
        if line.startswith("< {"):
            client.receive_message(line[2:])
            if '"tool_call"' in line:
                server.send_tool_call("call_1", "get_weather", "{}")
        elif line.startswith("> {"):
            server.receive_message(line[2:])
    for side in (client, server):
        while (event := side.next_event()) is not NEED_DATA:
            events.append(event)
    assert not any(isinstance(event, Unknown | ErrorFrame) for event in events)
    assert client.state is server.state is State.OPEN


# The HTTP API


def test_the_mint_and_its_answer_are_whole() -> None:
    create = section("Create a session")
    request, grant = examples(create)
    asked = decode_request(request.encode())
    assert json.loads(msgspec.json.encode(asked)) == json.loads(request)
    granted = msgspec.json.decode(grant, type=SessionGrant)
    assert json.loads(msgspec.json.encode(granted)) == json.loads(grant)
    for prefix, kind in (("", MintRequest), ("s2s.", SessionConfig), ("", SessionGrant)):
        for field in msgspec.structs.fields(kind):
            assert f"`{prefix}{field.encode_name}`" in create or field.encode_name == "s2s", field.encode_name
    assert json.loads(request)["s2s"]["tools"][0].keys() == set(ToolSpec.__struct_fields__)
    validator("MintRequest").validate(json.loads(request))
    validator("SessionGrant").validate(json.loads(grant))


def test_the_body_of_an_error_is_whole() -> None:
    (example,) = examples(section("Errors of the HTTP API"))
    assert json.loads(msgspec.json.encode(msgspec.json.decode(example, type=APIErrorBody))) == json.loads(
        example
    )
    validator("Error").validate(json.loads(example))


# The schema


def test_the_schema_is_up_to_date() -> None:
    committed = wire_schema.FILE.read_text(encoding="utf-8")
    assert committed == wire_schema.text(), "run: python docs/wire_schema.py"


def test_the_schema_is_one_and_names_every_message() -> None:
    schema = wire_schema.schema()
    pytest.importorskip("jsonschema").Draft202012Validator.check_schema(schema)
    assert schema["$defs"].keys() >= {f"{side}_{tag}" for side, tag in MESSAGES}
    for side in UNIONS:
        refs = [each["$ref"].rpartition("/")[2] for each in schema["$defs"][side]["oneOf"]]
        assert refs == [f"{of}_{tag}" for of, tag in MESSAGES if of == side]
    mentioned = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert mentioned <= schema["$defs"].keys()


SCALARS = st.sampled_from([None, True, False, 0, 7, -1, 1.5, -0.5, "", "x", "user", "\u00fc"])
ANY = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(st.sampled_from(["name", "x"]), SCALARS, max_size=2)
)
VALUES: dict[str, list[Any]] = {
    "role": ["user", "assistant", "system"],
    "status": ["done", "interrupted", "failed", "started", "completed", "paused"],
    "at": ["user", "assistant"],
    "action": ["commit", "clear", "end_turn", "pause"],
    "mimeType": ["image/png", "image/svg+xml", "text/html", "image/png;x=1"],
    "data": ["AAAA", "AA==", "AAA=", "@", "AAA", ""],
    "tools": [[], [{"name": "f"}], [{"name": ""}], [{"name": "f", "parameters": {"x": 1}}], [{"name": 1}]],
    "turns": ["auto", "manual", "never"],
    "extensions": [[], ["usage", "new"], ["usage", 1], "usage"],
    "capabilities": [
        {},
        {"text": True, "new": 1},
        {"say": "verbatim"},
        {"say": "sung"},
        {"inputRates": [1, "2"]},
    ],
    "final": [True, False],
    "respond": [True, False],
    "inputSampleRate": [16_000, 24_000],
    "outputSampleRate": [0, 24_000],
    "seconds": [0, 3, 1.5, -1],
}


@st.composite
def spoken(draw: st.DrawFn, side: str) -> dict[str, Any]:
    """A message of that side, often a valid one."""
    tag = draw(st.sampled_from([tag for of, tag in MESSAGES if of == side]))
    message: dict[str, Any] = {"t": tag}
    for field in msgspec.structs.fields(MESSAGES[side, tag]):
        name = field.encode_name
        usual = st.sampled_from(VALUES.get(name, ["x", "hello", 0, 7]))
        if draw(st.integers(0, 3)):
            message[name] = draw(ANY) if draw(st.integers(0, 4)) == 0 else draw(usual)
    if draw(st.booleans()):
        message["future"] = draw(ANY)
    return message


@given(message=spoken("client"))
def test_the_core_takes_of_a_client_what_the_schema_allows(message: dict[str, Any]) -> None:
    valid = validator("client").is_valid(message)
    assert valid == validator(f"client_{message['t']}").is_valid(message)
    server = ServerProtocol(extensions=KNOWN)
    server.send_ready()
    server.send_tool_call("x", "f", "{}")
    server.send_tool_call("hello", "f", "{}")
    server.send_tool_call("", "f", "{}")
    server.messages_to_send()
    server.receive_message(json.dumps(message))
    answers = [answer for answer in server.messages_to_send() if isinstance(answer, CloseMessage | str)]
    event = server.next_event() if server.events else None
    taken = not answers and not isinstance(event, Unknown)
    if message["t"] == "tool_result" and isinstance(event, Unknown):
        taken = True  # it answers no open call, which no schema can say
    if message["t"] == "extensions":
        taken = not answers  # whatever is accepted, it is no error
        assert valid
    assert taken == valid, (event, answers)


@given(message=spoken("server"))
def test_the_core_takes_of_a_server_what_the_schema_allows(message: dict[str, Any]) -> None:
    valid = validator("server").is_valid(message)
    assert valid == validator(f"server_{message['t']}").is_valid(message)
    odd: list[str] = []
    try:
        read: Any = codec.decode_from_server(json.dumps(message), odd)
    except codec.MalformedMessage:
        read = None
    assert (read is not None and not isinstance(read, Unknown) and not odd) == valid


@given(
    config=st.fixed_dictionaries(
        {},
        optional={
            "provider": st.just("openai") | ANY,
            "model": st.just("m") | ANY.filter(lambda value: value != ""),
            "voice": ANY,
            "temperature": ANY,
            "inputSampleRate": st.sampled_from([16_000, 24_000, 8_000, None, "24000"]),
            "output": st.sampled_from(["audio", "text", "both", None]),
            "tools": st.sampled_from([*VALUES["tools"], 7]),
        },
    ),
    rest=st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["s2s", "s2s", "s2s", "stt"]),
            "metadata": ANY,
            "ttlSeconds": st.sampled_from([60, None, "60", 1.5]),
            "webhookTags": st.sampled_from([None, {}, {"a": "b"}, {"a": 1}]),
        },
    ),
)
def test_the_gateway_takes_the_mints_that_the_schema_allows(config: Any, rest: dict[str, Any]) -> None:
    body = {"mode": "s2s", **rest, "s2s": {"provider": "openai", "model": "m", **config}}
    try:
        decode_request(json.dumps(body).encode())
        taken = True
    except InvalidRequestError:
        taken = False
    assert taken == validator("MintRequest").is_valid(body)
