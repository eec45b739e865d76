from __future__ import annotations

import pytest

from speko_anyio.protocol._framing import (
    BINARY,
    CLOSE,
    MASKED,
    PING,
    PONG,
    TEXT,
    close_payload,
    header,
    unmasked_payload,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (127, "827e007f"),
        (65_535, "827effff"),
        (65_536, "827f0000000000010000"),
        (2**40, "827f0000010000000000"),
    ],
)
def test_the_shortest_form_of_each_length(size: int, expected: str) -> None:
    assert header(BINARY, size, 0).hex() == expected
    masked = header(BINARY, size, MASKED)
    assert (masked[1] ^ MASKED, masked[:1] + masked[2:]) == (
        bytes.fromhex(expected)[1],
        bytes.fromhex(expected[:2] + expected[4:]),
    )


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_the_payload_of_a_frame(size: int) -> None:
    assert unmasked_payload(header(BINARY, size, 0) + bytes(size)) == bytes(size)


def test_first_bytes() -> None:
    assert [0x80 | opcode for opcode in (1, 2, 8, 9, 10)] == [TEXT, BINARY, CLOSE, PING, PONG]


def test_a_close_without_a_code_is_empty() -> None:
    assert close_payload(1005, "not sent") == b""


def test_code_and_reason() -> None:
    assert close_payload(1000, "") == b"\x03\xe8"
    assert close_payload(4401, "b\u00fc") == b"\x11\x31b\xc3\xbc"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("x" * 123, "x" * 123), ("\u00e9" * 62, "\u00e9" * 61)],
)
def test_a_long_reason_is_cut_by_whole_characters(reason: str, kept: str) -> None:
    assert close_payload(1000, reason)[2:].decode() == kept


def test_half_of_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert close_payload(1000, "a\ud800b") == b"\x03\xe8a?b"
