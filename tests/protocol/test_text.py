"""Text of others as it may be shown, and secrets that must not be in it."""

from __future__ import annotations

import base64
import time
import unicodedata
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import ConnectionClosed, ServerProtocol
from speko_anyio.protocol._text import clean, escape
from speko_anyio.protocol._tokens import hide, redact, shown

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ANY_TEXT = st.text(
    st.characters() | st.sampled_from("\n\r\t\x00\x1b\x7f\x85\x9b\u2028\u2029\ud800\udc80\ufeff\u200b" + BIDI)
)


def unsafe(text: str) -> list[str]:
    """What of `text` a terminal acts on, or what ends a line for somebody."""
    return [char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in BIDI]


@given(ANY_TEXT)
def test_cleaned_text_is_one_line_without_control_characters(text: str) -> None:
    for line in (clean(text), escape(text), clean(text, limit=20)):
        assert unsafe(line) == []
        assert len(line.splitlines()) <= 1
        line.encode()
    assert len(clean(text, limit=20)) <= 20
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\r\n  lines\t", "two lines"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("\x9b31mred", "\\x9b31mred"),
        ("a\u2028b\x85c", "a b c"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("sk_\u200blive", "sk_\\u200blive"),
        ("half \ud83d", "half \\ud83d"),
        # Words that need a joiner, and emoji
        ("می‌خواهم 👩‍🚀", "می‌خواهم 👩‍🚀"),
        ("résumé [bold]", "résumé [bold]"),
    ],
)
def test_what_becomes_of_text(text: str, line: str) -> None:
    assert clean(text) == line


def test_the_error_of_a_closed_session_shows_the_peers_reason_on_one_line() -> None:
    error = ConnectionClosed(code=4000, reason="bye\n\x1b[2J\u202e", initiated_by="remote")
    assert "with code 4000: bye \\x1b[2J\\u202e; open" in str(error)
    assert error.reason == "bye\n\x1b[2J\u202e"


def test_the_error_of_a_broken_protocol_quotes_the_peer_on_one_line() -> None:
    session = ServerProtocol()
    session.violated(1007, "Invalid enum value '\x1b[2J sk_live_0123456789'")
    assert str(session.error) == "Invalid enum value '\\x1b[2J ***'"


# Secrets

KEY = "sk-proj-AbC+/12-xyz_789defGHIJ"
PLAIN = "no.prefix+at/all_0123456789"


def encodings(key: str) -> list[str]:
    """The key as services, proxies and libraries quote it."""
    around = [b"", b"u:", b"me:"]
    data = key.encode()
    return [
        key,
        quote(key, safe=""),
        "".join(f"%{byte:02X}" for byte in data),
        "".join(f"%{byte:02x}" for byte in data),
        data.hex(),
        data.hex().upper(),
        f"{key[:3]}...{key[-4:]}",
        f"{key[:8]}********{key[-4:]}",
        f"{key[:2]}…{key[-3:]}",
        *(base64.b64encode(before + data).decode() for before in around),
        *(base64.urlsafe_b64encode(before + data + b"@host").decode() for before in around),
    ]


def parts(key: str) -> list[str]:
    """Enough of each encoding to be of use."""
    inner = [base64.b64encode(b"x" * shift + key.encode()).decode()[4:-4] for shift in range(3)]
    inner += [text.replace("+", "-").replace("/", "_") for text in inner]
    return [key, key[-4:], quote(key, safe=""), key.encode().hex(), *inner]


@pytest.mark.parametrize("key", [KEY, PLAIN])
@pytest.mark.parametrize("form", range(15))
def test_a_known_key_is_found_in_each_encoding(key: str, form: int) -> None:
    told = hide(f"the key '{encodings(key)[form]}' is wrong", [key], "***")
    assert "***" in told
    assert told.startswith("the key '")
    assert told.endswith("' is wrong")
    for part in parts(key):
        assert part not in told


@given(st.text(min_size=8, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_any_secret_is_found_in_base64(secret: str, before: bytes, after: bytes) -> None:
    data = secret.encode()
    quoted = base64.b64encode(before + data + after).decode()
    assert hide(quoted, [secret], "|") != quoted
    assert hide(quote(secret, safe=""), [secret], "|") == "|"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-...abcd. See the page.", "abcd"),
        ("Incorrect API key provided: xa***23.", "23"),
        ("Incorrect API key provided: sk-proj-********wxyz.", "wxyz"),
        ("Rate limit reached in organization org-AbCdEfGh12 on tokens", "org-AbCdEfGh12"),
        ("Project `proj_AbCdEfGhIj` does not have access to model `gpt-realtime`", "proj_AbCdEfGhIj"),
        ("Your team 3fa85f64-5717-4562-b3fc-2c963f66afa6 has used all credits", "3fa85f64"),
        ('organization "Acme & Sons" must be verified', "Acme"),
        ("Quota exceeded for consumer 'project_number:123456789'", "123456789"),
        ("permission denied on projects/our-secret-plan/locations/us", "our-secret-plan"),
        ("service account bot-1@our-plan.iam.gserviceaccount.com lacks it", "our-plan"),
        ("no login at postgresql://me:hunter2@db/x", "hunter2"),
        ("no login at postgresql://db/x?password=hunter2&sslmode=require", "hunter2"),
        ("no login at postgresql://db/x?sslpassword=hunter2", "hunter2"),
        ("host=db password=hunter2 user=me", "hunter2"),
        ('{"api_key": "hunter2", "model": "m"}', "hunter2"),
        ("GET /v1/realtime/x?token=hunter2 refused", "hunter2"),
    ],
)
def test_what_looks_like_a_secret_is_found_though_nobody_named_it(text: str, secret: str) -> None:
    told = redact(text)
    assert secret not in told
    assert "***" in told


@pytest.mark.parametrize(
    "text",
    [
        "can't reach wss://api.openai.com/v1/realtime?model=x now",
        "can't reach api.openai.com now",
        "can't reach speech.internal.corp:8443 now",
        "can't reach localhost:9000 now",
        "can't reach 10.0.12.3 now",
        "can't reach [fd00::12]:443 now",
        "can't reach db-3:5432 now",
    ],
)
def test_hosts_are_left_out_of_a_providers_words(text: str) -> None:
    assert shown(text, hosts=True, limit=200) == "can't reach *** now"


@pytest.mark.parametrize(
    "text",
    [
        "Invalid value: 'session.audio.input.format.rate'. Supported values are: 8000, 16000",
        "the model gpt-4.1-mini or gemini-2.5-flash is not available at 10:30",
        "max_output_tokens=200 is too few; turn_detection.threshold must be from 0.0 to 1.0",
        "your user-defined tool team-members has no key; the token must be new",
        "project a voice",
        "no API key: set the environment variable SPEKO_API_KEY or pass Speko(api_key=...)",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert shown(text, hosts=True, limit=200) == text


@pytest.mark.parametrize("between", ["\x00", "\u200b", "\x1b", "\u202e"])
def test_invisible_characters_do_not_protect_a_secret(between: str) -> None:
    assert redact(f"key {KEY[:9]}{between}{KEY[9:]}!", [KEY]) == "key ***!"
    assert redact(f"no{between}thing") == f"no{between}thing"


def test_a_secret_at_the_cut_is_not_shown_in_part() -> None:
    for size in range(180, 202):
        assert "sk-proj" not in shown(f"{'x' * size} {KEY}", [KEY], limit=200)


EVIL: dict[str, Callable[[int], str]] = {
    "one word": lambda size: "a" * size,
    "dots": lambda size: "a." * size,
    "dashes": lambda size: "a-" * size + "*",
    "addresses": lambda size: "x@" * size,
    "URLs": lambda size: "://" * size,
    "stars": lambda size: "a***" * size,
    "names": lambda size: "password" * size,
    "accounts": lambda size: "team '" * size,
    "numbers": lambda size: "1." * size,
    "brackets": lambda size: "[::" * size,
    "starts of a key": lambda size: KEY[:10] * size,
    "escapes": lambda size: "%73" * size,
}


@pytest.mark.parametrize("make", EVIL.values(), ids=EVIL.keys())
def test_the_work_grows_with_the_length_of_the_text(make: Callable[[int], str]) -> None:
    def seconds(size: int) -> float:
        text, times = make(size), []
        for _ in range(5):
            begin = time.process_time()
            redact(text, [KEY, PLAIN], hosts=True)
            times.append(time.process_time() - begin)
        return min(times)

    seconds(100)
    assert seconds(6000) < 6 * max(seconds(1500), 0.001)
