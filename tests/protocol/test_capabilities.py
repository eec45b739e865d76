"""The record of what a session can do: made from extensions, made into them, and read from a peer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import Capabilities, ClientProtocol, Ready, Update
from speko_anyio.protocol._extensions import COMMANDS, KNOWN
from speko_anyio.protocol.capabilities import UPDATABLE, extensions_of, refusal, unchangeable

from .test_extensions import JSON, received

FULL = Capabilities(
    text=True,
    image=True,
    respond=True,
    say="verbatim",
    update=("system_prompt", "voice"),
    history=True,
    manual_turns=True,
    interrupt=True,
    truncate=True,
    resume="handle",
    text_output=True,
    server_tools=True,
    full_duplex=True,
    input_rates=(16_000, 24_000),
    output_rates=(24_000,),
    shutdown="2027-01-31",
    replaced_by="newer",
    as_of="2026-11-30",
)


def test_the_least_is_the_default() -> None:
    nothing = Capabilities()
    assert {value for value in msgspec.structs.astuple(nothing) if value} == {"no"}
    assert extensions_of(nothing) == ("usage",)
    assert not any(nothing.takes(name) for name in COMMANDS)


def test_everything_offers_everything() -> None:
    assert extensions_of(FULL) == KNOWN
    assert FULL.offered(KNOWN) == FULL
    assert not FULL.takes("usage")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_extension_is_one_capability(name: str) -> None:
    alone = Capabilities.from_extensions((name,))
    assert [other for other in COMMANDS if alone.takes(other)] == [name]
    assert extensions_of(alone) == (name, "usage")
    without = FULL.offered(tuple(other for other in KNOWN if other != name))
    assert [other for other in COMMANDS if not without.takes(other)] == [name]


def test_what_extensions_do_not_say_is_assumed_to_be_the_least() -> None:
    known = Capabilities.from_extensions(("say", "update", "text", "new"))
    assert known.say == "instructed"
    assert known.update == UPDATABLE == Update.__struct_fields__
    assert known.history
    assert (known.manual_turns, known.interrupt) == (True, True)
    assert not Capabilities.from_extensions(()).history
    assert FULL.offered(("say", "update")).say == "verbatim"
    assert FULL.offered(("say", "update")).update == ("system_prompt", "voice")


def test_a_refusal_says_who_and_what_to_do() -> None:
    for name, text in {
        "text": "this service takes no text; say it in speech",
        "image": "this service takes no images; describe the picture in words",
        "respond": "this service can't be asked to speak; it answers turns of the user only",
        "say": "this service can't be told what to say; put it in the system prompt",
        "update": "this service can't change an open session; open a new one with the new settings",
    }.items():
        assert str(refusal(name)) == text
        assert str(refusal(name, "Gemini")) == text.replace("this service", "Gemini")
    assert str(unchangeable(("tools", "voice"), "xAI")) == (
        "xAI can't change tools and voice in an open session; open a new one for that"
    )


# On the wire


def ready(capabilities: object, extensions: object = KNOWN) -> str:
    return json.dumps({"t": "ready", "extensions": extensions, "capabilities": capabilities})


def test_a_record_comes_through() -> None:
    client = ClientProtocol()
    (event,) = received(client, ready(json.loads(msgspec.json.encode(FULL))))
    assert event == Ready(24_000, 24_000, KNOWN, FULL)
    assert client.capabilities == FULL
    assert client.odd_fields == 0


def test_what_is_not_offered_is_not_there_whatever_the_record_says() -> None:
    client = ClientProtocol()
    received(client, ready({"text": True, "say": "verbatim", "image": True}, ["image", "respond"]))
    assert [name for name in COMMANDS if client.capabilities.takes(name)] == ["image", "respond"]


def test_a_record_of_a_newer_peer() -> None:
    client = ClientProtocol()
    received(client, ready({"text": True, "smell": {"deep": [1]}, "update": ["mood", "voice"]}))
    assert client.capabilities == Capabilities(text=True, update=("mood", "voice")).offered(KNOWN)
    assert client.odd_fields == 0


def test_null_is_no_record_and_not_odd() -> None:
    client = ClientProtocol()
    received(client, ready(None))
    assert client.capabilities == Capabilities.from_extensions(KNOWN)
    assert client.odd_fields == 0


@pytest.mark.parametrize(
    ("record", "read", "odd"),
    [
        ([], None, 1),
        ("text", None, 1),
        ({"text": 1, "interrupt": True}, Capabilities(interrupt=True), 1),
        ({"say": "sung", "resume": None, "truncate": True}, Capabilities(truncate=True), 2),
        ({"inputRates": [16_000, "24000"], "outputRates": [8_000]}, Capabilities(output_rates=(8_000,)), 1),
        ({"update": {}, "asOf": "2026-11-30"}, Capabilities(as_of="2026-11-30"), 1),
    ],
    ids=range(6),
)
def test_an_odd_field_takes_its_default_and_no_other_with_it(
    record: object, read: Capabilities | None, odd: int
) -> None:
    client = ClientProtocol()
    assert received(client, ready(record)) == [Ready(24_000, 24_000, KNOWN, read)]
    assert client.odd_fields == odd


@given(
    field=st.sampled_from([field.encode_name for field in msgspec.structs.fields(Capabilities)]), value=JSON
)
def test_no_value_of_any_field_costs_the_session_or_another_field(field: str, value: Any) -> None:
    record = {**json.loads(msgspec.json.encode(FULL)), field: value}
    client = ClientProtocol()
    (event,) = received(client, ready(record))
    assert isinstance(event, Ready)
    read = event.capabilities
    assert read is not None
    mine = {each.name: each.encode_name for each in msgspec.structs.fields(Capabilities)}
    for name, encoded in mine.items():
        if encoded != field:
            assert getattr(read, name) == getattr(FULL, name)
    for name in COMMANDS:
        assert client.capabilities.takes(name)


@given(value=JSON)
def test_no_value_in_place_of_a_record_costs_the_session(value: Any) -> None:
    client = ClientProtocol()
    (event,) = received(client, ready(value))
    assert isinstance(event, Ready)
    assert event.extensions == KNOWN
