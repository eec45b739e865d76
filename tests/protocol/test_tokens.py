from __future__ import annotations

import pytest

from speko_anyio.protocol import LocalProtocolError
from speko_anyio.protocol._tokens import (
    MAX_TOKEN,
    check_token,
    find_key_fault,
    hide,
    redact,
    strip_invisible,
)

from .helpers import says

# RFC 9110 section 5.6.2, written out.
TCHAR = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("token", ["a", TCHAR, "eyJhbGciOi.eyJzdWIi.c2ln", "a" * MAX_TOKEN])
def test_a_token_that_a_websocket_can_carry_is_returned(token: str) -> None:
    assert check_token(token) == token


def test_no_other_character_is_taken() -> None:
    lookalikes = {"\u0131", "\u212a", "\U0001d7d8"}  # digits and letters to `str`, or once folded
    for character in ({chr(code) for code in range(0x100)} - set(TCHAR)) | lookalikes:
        with pytest.raises(LocalProtocolError):
            check_token(f"ab{character}cd")


@pytest.mark.parametrize("token", ["", "a\n", "\na", "a" * (MAX_TOKEN + 1)])
def test_empty_long_and_line_ends(token: str) -> None:
    with says(
        "the session token can't be a WebSocket subprotocol: it must have 1 to 4096 characters of RFC 9110's "
        "token set; pass the mint's wsToken unchanged"
    ):
        check_token(token)


def test_the_error_does_not_show_the_token() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        check_token("s3cret token")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("around", ["", "\ufeff", "\n", "\r\n", " \t", "\u200b", "\ufeff \n"])
def test_a_key_is_stripped_of_what_editors_and_shells_leave_around_it(around: str) -> None:
    assert strip_invisible(f"{around}sk-1 2{around}") == "sk-1 2"


def test_the_longest_secret_is_hidden_first_and_a_short_one_only_as_a_word() -> None:
    secrets = ["", "k3y", "a-longer-key", "a-longer-key-still"]
    text = "monk3y k3y: a-longer-key-still, xa-longer-keyx"
    assert hide(text, secrets, "<key>") == "monk3y <key>: <key>, x<key>x"


@pytest.mark.parametrize("word", ["wrong", "key", "missing", "test", "api", "Test", "KEY", "valid", "is"])
def test_a_secret_that_is_an_ordinary_word_leaves_sentences_readable(word: str) -> None:
    sentence = (
        "the API key is missing or not valid; send it as Authorization: Bearer <api key>. This is a test, "
        "so a wrong key is refused: Test it, KEY or no KEY"
    ).replace("key is", "keys are")
    assert hide(sentence, [word], "***") == sentence


@pytest.mark.parametrize("word", ["wrong", "key", "missing", "test", "Test", "TEST"])
@pytest.mark.parametrize(
    "given",
    ["'{}'", '"{}"', "`{}`", "?k={}&x=1", "Bearer {}", "your key {} is unknown", "api key: {}", "token {}"],
)
def test_a_secret_that_is_an_ordinary_word_is_hidden_where_it_is_given_as_a_value(
    word: str, given: str
) -> None:
    assert hide(given.format(word), [word], "***") == given.format("***")
    assert hide(given.format(f"{word}s"), [word], "***") == given.format(f"{word}s")


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("'sk-1'", "is in quotes; remove them"),
        ('"sk-1', "is in quotes; remove them"),
        ("Bearer sk-1", "begins with `Bearer`; remove that and give the key alone"),
        ("sk-Bearer-1", None),
        ("", None),
    ],
)
def test_what_was_copied_along_with_a_key_is_named(key: str, fault: str | None) -> None:
    assert find_key_fault(key) == fault


@pytest.mark.parametrize("invisible", ["\u200b", "\u2060", "\ufeff", "\x00"])
def test_a_secret_with_invisible_characters_in_it_is_hidden(invisible: str) -> None:
    secret = "sk-proj-0123456789abcdef"
    told = f"the key {invisible.join(secret)} is not valid"
    assert redact(told, [secret]) == "the key *** is not valid"
    # Without a secret in it the text stays as it is.
    assert redact(f"caf{invisible}e", [secret]) == f"caf{invisible}e"
