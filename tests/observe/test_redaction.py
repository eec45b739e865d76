"""What a log may show of what is said in a session."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio import (
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
from speko_anyio._observe.redaction import REDACTED, describe, quote, redact
from speko_anyio.protocol import (
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

CASES: list[tuple[Frame | Command, str]] = [
    (Audio(b"\x01\x02" * 480, 24_000), "Audio: 960 bytes"),
    (AudioIn(b"\x01\x02", 24_000), "AudioIn: 2 bytes"),
    (Transcript("user", "my name is Ann", True), "Transcript: user, final, 14 characters"),
    (Transcript("assistant", "", False), "Transcript: assistant, partial, 0 characters"),
    (ToolCall("c1", "look_up", '{"name": "Ann"}'), "ToolCall: 'look_up', 'c1', 15 characters"),
    (ToolCall("c\n1", "look\x1bup", ""), "ToolCall: 'look\\x1bup', 'c\\n1', 0 characters"),
    (ToolResult("c1", "Ann's secret"), "ToolResult: 'c1', 12 characters"),
    (ServerToolCall("i1", "search", "failed"), "ServerToolCall: 'search', 'i1', failed"),
    (Ready(16_000, 24_000), "Ready: takes 16000 Hz, gives 24000 Hz"),
    (Interruption("user"), "Interruption: by the user"),
    (Usage(3, 4), "Usage: 3 tokens in, 4 out"),
    (ResponseEnd("done"), "ResponseEnd: done"),
    (ResponseEnd("failed", "a\nb"), "ResponseEnd: failed, 'a\\nb'"),
    (ErrorFrame("BUSY", "try later"), "ErrorFrame: 'BUSY', 'try later'"),
    (Unknown("news", '{"t":"news"}'), "Unknown: 'news', 12 characters"),
    (Digit("5"), "Digit"),
    (Expiring(59.5), "Expiring: in 59.5 s"),
    (Close(1000, "bye", "remote"), "Close: 1000 'bye', by remote"),
    (Commit(), "Commit"),
    (Clear(), "Clear"),
    (EndTurn(), "EndTurn"),
    (Interrupt(), "Interrupt"),
    (UpgradeRequest("/s?key=Ann", "h", ("wst",), ()), "UpgradeRequest"),
    (TextIn("my name is Ann", "system"), "TextIn: system, 14 characters"),
    (ImageIn("image/\x1bpng", b"Ann", True), "ImageIn: 'image/\\x1bpng', 3 bytes"),
    (Respond("greet Ann"), "Respond: 9 characters"),
    (Say("hello Ann"), "Say: 9 characters"),
    (Update(system_prompt="talk to Ann", tools=()), "Update: system_prompt, tools"),
    (Played(1234), "Played: 1234 ms"),
]


@pytest.mark.parametrize(("event", "expected"), CASES, ids=lambda value: type(value).__name__)
def test_the_line_of_each_event(event: Frame | Command, expected: str) -> None:
    assert describe(event) == expected


def test_every_frame_and_command_has_a_line_here() -> None:
    assert {type(event) for event, _ in CASES} == {*get_args(Frame), *get_args(Command)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("your key sk_live_0123456789 is wrong", "your key *** is wrong"),
        ("sk-proj-abcDEF_123", "***"),
        ("xai-0123456789", "***"),
        ("wst_0123456789abcdef.", "***."),
        ("?key=AIzaSyA1234567890", "?key=***"),
        ("Bearer abc.def, more", "Bearer *** more"),
        ("Proxy-Authorization: Basic bWU6aHVudGVyMg==", "Proxy-Authorization: Basic ***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "***"),
        ("ask_whatever risk-free desk", "ask_whatever risk-free desk"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text: str, expected: str) -> None:
    assert redact(text) == expected


@given(st.text(), st.text(st.characters(exclude_characters=REDACTED), min_size=8), st.text())
def test_a_secret_is_not_shown_whoever_says_it(before: str, secret: str, after: str) -> None:
    assert secret not in redact(before + secret + after, [secret])


@given(
    st.sampled_from(("", " ", "'", ":", "=", "(", "\n", "-")),
    # The surrounding text must not become part of it and be hidden, too.
    st.text(st.characters(exclude_characters=REDACTED + " ':=(\n-,."), min_size=1, max_size=7),
    st.sampled_from(("", " ", "'", ",", ".", "\n", "-")),
)
def test_a_short_secret_is_not_shown_on_its_own(before: str, secret: str, after: str) -> None:
    assert redact(before + secret + after, [secret]) == before + REDACTED + after


@pytest.mark.parametrize("secret", ["a", "e", "key", "in", "test"])
def test_a_short_secret_leaves_the_words_that_contain_it_whole(secret: str) -> None:
    text = "an invalid_key, monkeys tested: keyed"
    assert redact(text, [secret]) == text


def test_a_secret_is_not_cut_in_two() -> None:
    text = "x" * 195 + "token-of-mine"
    assert "token" not in quote(text, ["token-of-mine"])
    assert quote(text).endswith("'...")


@given(st.text())
def test_a_quote_is_one_line(text: str) -> None:
    assert quote(text).isprintable()
