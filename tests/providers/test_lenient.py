"""Lenient decoding of odd fields."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given

from speko_anyio.protocol._codec import MalformedMessage, mended
from speko_anyio.protocol._loose_json import parse
from speko_anyio.providers._lenient import Count, Fitted, JsonText, Piece, fit

from .oddities import ANY_JSON


class Inner(msgspec.Struct, frozen=True):
    name: str | None = None
    tokens: Count = 0


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    is_done: bool | None = None


class Message(msgspec.Struct, frozen=True):
    text: str | None = None
    piece: Piece | None = None
    arguments: JsonText | None = None
    count: Count | None = None
    time: float | None = None
    flag: bool | None = None
    share: Annotated[int, msgspec.Meta(ge=0, le=1)] | None = None
    code: str | int | None = None
    audio: bytes = b""
    inner: Inner = Inner()
    optional: Inner | None = None
    several: tuple[Inner, ...] | None = None
    names: tuple[str, ...] | None = None
    anything: Any = None
    raw: msgspec.Raw = msgspec.Raw()
    raws: dict[str, msgspec.Raw] | None = None
    strict: Strict | None = None


def read(**fields: Any) -> tuple[Message, tuple[str, ...]]:
    fitted = fit(parse(json.dumps(fields)), Message)
    assert fitted.unknown == ()
    return fitted.value, fitted.odd


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("count", 3.0, 3),
        ("count", "3", 3),
        ("count", "3.0", 3),
        ("text", 7, "7"),
        ("text", 2.5, "2.5"),
        ("text", "a\ud83d", "a\ufffd"),
        ("arguments", {"a": [1, "ä"]}, '{"a":[1,"ä"]}'),
        ("arguments", [], "[]"),
        ("time", "12.5", 12.5),
        ("flag", "true", True),
        ("flag", 1, True),
        ("flag", 0, False),
        ("share", "1", 1),
        ("code", 2.0, "2.0"),
        ("inner", {"tokens": 1.0}, Inner(tokens=1)),
        ("several", [{"name": "a"}, 7, None, {"name": "b"}], (Inner("a"), Inner("b"))),
        ("names", ["a", {}, 7], ("a", "7")),
        ("anything", ["\ud83d", {"\ude00": 1.0}], ["\ufffd", {"\ufffd": 1.0}]),
    ],
)
def test_what_can_only_mean_one_thing_is_read_as_that(name: str, value: object, meant: object) -> None:
    message, odd = read(**{name: value})
    assert message == msgspec.structs.replace(Message(), **{name: meant})
    assert odd
    assert all(path.startswith(name) for path in odd)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", -1),
        ("count", 2.5),
        ("count", 2**60),
        ("count", 10**600),
        ("count", float("nan")),
        ("count", float("inf")),
        ("count", True),
        ("count", "many"),
        ("count", "2026-12-01"),
        ("count", []),
        ("text", True),
        ("text", float("nan")),
        ("text", {}),
        ("text", []),
        ("piece", {}),
        ("arguments", False),
        ("time", "2026-12-01T00:00:00Z"),
        ("time", float("inf")),
        ("time", False),
        ("time", {}),
        ("flag", 2),
        ("flag", "yes"),
        ("flag", []),
        ("code", {}),
        ("audio", None),
        ("audio", 7),
        ("audio", {}),
        ("inner", None),
        ("inner", "text"),
        ("inner", []),
        ("optional", "text"),
        ("several", {}),
        ("several", "text"),
        ("names", "text"),
        ("raws", []),
        ("strict", 1),
    ],
)
def test_any_other_value_counts_as_missing(name: str, value: object) -> None:
    message, odd = read(**{name: value})
    assert message == Message()
    assert odd == (name,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 3),
        ("time", 3),
        ("time", 2.5),
        ("text", "a"),
        ("text", None),
        ("code", 3),
        ("code", "3"),
        ("flag", True),
    ],
)
def test_what_is_as_documented_is_not_odd(name: str, value: object) -> None:
    message, odd = read(**{name: value})
    assert getattr(message, name) == value
    assert odd == ()


def test_a_piece_keeps_its_half_of_a_pair() -> None:
    message, odd = read(piece="a\ud83d")
    assert message.piece == "a\ud83d"
    assert odd == ()


@pytest.mark.parametrize("text", ["AAECAw==", "AAECAw", "AAECAw=", "AAEC\r\nAw==\n"])
def test_base64_needs_no_padding_and_may_have_lines(text: str) -> None:
    assert read(audio=text)[0].audio == bytes(range(4))


def test_base64_may_have_the_url_safe_alphabet() -> None:
    assert read(audio="_-8=")[0].audio == b"\xff\xef"


@pytest.mark.parametrize("text", ["not base64", "AAA!", "A", "ä"])
def test_text_that_is_not_base64_stays_an_error(text: str) -> None:
    with pytest.raises(MalformedMessage, match="audio is not base64"):
        read(audio=text)


def test_raw_json_is_json_again() -> None:
    message, odd = read(raw=[float("nan"), "\ud83d"], raws={"a": {"b": "ä"}})
    assert bytes(message.raw) == b'[null,"\xef\xbf\xbd"]'
    assert message.raws is not None
    assert bytes(message.raws["a"]) == '{"b":"ä"}'.encode()
    assert odd == ("raw", "raw")


def test_unknown_fields_of_strict_structs_are_named() -> None:
    fitted = fit(parse('{"strict":{"isDone":"true","x\\ud83d":1},"x":1}'), Message)
    assert fitted == Fitted(Message(strict=Strict(True)), ("strict.isDone",), ("strict.x\ufffd",))


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", ""),
        ("aä😀", "aä😀"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00a", "\ufffda"),
        ("\ud83d\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
    ],
)
def test_surrogates_are_mended(text: str, whole: str) -> None:
    assert mended(text) == whole


def test_a_half_at_the_end_waits_for_the_other_while_there_is_more() -> None:
    assert mended("a\ud83d", more=True) == "a"
    assert mended("a\ude00", more=True) == "a\ufffd"
    assert mended("\ud83da", more=True) == "\ufffda"


@given(ANY_JSON)
def test_any_value_fits_any_field(value: object) -> None:
    text = json.dumps({field: value for field in Message.__struct_fields__ if field != "audio"})
    fitted = fit(parse(text), Message)
    # The result can be written as JSON in UTF-8.
    msgspec.json.encode(msgspec.structs.replace(fitted.value, piece=None, anything=None))
    json.dumps(fitted.value.anything, ensure_ascii=False).encode()
    " ".join(fitted.odd).encode()
