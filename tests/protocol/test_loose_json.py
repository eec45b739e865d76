"""JSON of peers that are not strict about it."""

from __future__ import annotations

import pytest

from speko_anyio.protocol._codec import MalformedMessage
from speko_anyio.protocol._loose_json import parse, text_of


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"{}"', "\ud83d", '{"a":}', "{}{}"])
def test_what_is_no_json_object_stays_an_error(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(text)


def test_what_is_nested_too_deeply_stays_an_error() -> None:
    with pytest.raises(MalformedMessage, match="nested too deeply"):
        parse('{"a":' * 100_000)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff{}",
        "\n\ufeff {}",
        "{}\ufeff\r\n",
        ' {"a": NaN} ',
        '{"a":"line\nbreak"}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":1e999}',
    ],
)
def test_other_spellings_of_json_are_taken(text: str) -> None:
    assert isinstance(parse(text), dict)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("ä😀".encode(), "ä😀"),
        (b"a\xff", "a\ufffd"),
        (b"\xed\xa0\xbd", "\ud83d"),
    ],
)
def test_text_that_came_as_bytes(data: bytes, text: str) -> None:
    assert text_of(data) == text
