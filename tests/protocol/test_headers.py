"""Header fields that a caller adds: carried as given, or refused before anything is written."""

from __future__ import annotations

import pytest

from speko_anyio.protocol import LocalProtocolError
from speko_anyio.protocol._headers import encode_headers

# RFC 9110 section 5.6.2, written out.
TCHAR = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VISIBLE = "".join(chr(code) for code in range(0x20, 0x7F))


def test_no_headers() -> None:
    assert encode_headers(()) == []


def test_headers_keep_their_order_and_their_case_and_may_repeat() -> None:
    assert encode_headers([("X-B", "1"), ("x-a", "2"), ("X-B", "3")]) == [
        (b"X-B", b"1"),
        (b"x-a", b"2"),
        (b"X-B", b"3"),
    ]


def test_every_character_that_rfc_9110_admits() -> None:
    assert encode_headers([(TCHAR, f"a{VISIBLE}\tb")]) == [(TCHAR.encode(), f"a{VISIBLE}\tb".encode())]


@pytest.mark.parametrize(("value", "sent"), [("", b""), (" \t", b""), ("  a  b\t", b"a  b")])
def test_space_around_a_value_is_not_part_of_it(value: str, sent: bytes) -> None:
    assert encode_headers([("x", value)]) == [(b"x", sent)]


def test_no_other_character_is_taken_in_a_name() -> None:
    lookalikes = {"\u0131", "\u212a", "\U0001d7d8"}  # letters and digits to `str`, or once folded
    for character in ({chr(code) for code in range(0x100)} - set(TCHAR)) | lookalikes:
        for name in (f"a{character}b", f"{character}b", f"a{character}"):
            with pytest.raises(LocalProtocolError, match="must be an RFC 9110 token"):
                encode_headers([(name, "v")])


def test_no_other_character_is_taken_in_a_value() -> None:
    for character in ({chr(code) for code in range(0x100)} - set(VISIBLE) - {"\t"}) | {"\u20ac", "\ud800"}:
        for value in (f"a{character}b", f"{character}b", f"a{character}"):
            with pytest.raises(LocalProtocolError, match="a value visible ASCII on one line"):
                encode_headers([("x", value)])


def test_a_name_is_not_empty() -> None:
    with pytest.raises(LocalProtocolError, match="the header '' can't be sent"):
        encode_headers([("", "v")])


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "upgrade",
        "connection",
        "content-length",
        "content-type",
        "transfer-encoding",
        "sec-websocket-key",
        "sec-websocket-accept",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "sec-websocket-version",
        "sec-websocket-",
    ],
)
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_what_the_handshake_says_itself_is_refused(name: str, spell: type[str]) -> None:
    name = spell(name)
    with pytest.raises(LocalProtocolError, match=f"the header '{name}' belongs to the handshake itself"):
        encode_headers([("x", "1"), (name, "v")])


@pytest.mark.parametrize(
    "name", ["x-host", "hosts", "x-upgrade", "connection-id", "x-sec-websocket-key", "sec-"]
)
def test_a_name_that_only_resembles_one_of_those_is_carried(name: str) -> None:
    assert encode_headers([(name, "v")]) == [(name.encode(), b"v")]


@pytest.mark.parametrize("name", ["authorization", "host", "bad name"])
def test_the_error_does_not_show_the_value(name: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encode_headers([(name, "s3cret\r\n")])
    assert "s3cret" not in str(caught.value)
