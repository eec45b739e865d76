"""`speko-anyio serve --phone`: what it says, and the mistakes that it and `gateway check` tell."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path

import httpx
import pytest

from speko_anyio.cli import main
from speko_anyio.cli._failures import USAGE
from tests.support.serve import served

SECRET = "the auth token of an account"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "0")
    monkeypatch.setenv("SPEKO_GATEWAY_DATABASE", "memory")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", SECRET)


def told(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that `gateway check` ends with."""
    assert main(["gateway", "check", *options]) == USAGE
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    assert err.count("\n") == 1, err
    return err.removeprefix("speko-anyio: ").strip()


TLS = (
    "the phone twilio needs an HTTPS address that twilio can reach; pass --public-url https://..., that of "
    "your proxy or tunnel, or try it on this machine with --unsigned-phones"
)
PRIVATE = (
    "the phone twilio checks no signatures, so it must stay on this machine: listen on 127.0.0.1 without a "
    "public URL, or let it check them"
)
URL = ("--public-url", "https://voice.example.com")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--phone", "twilio"),
            "--phone: 'twilio' is not a phone; write carrier=handler, such as twilio=local",
        ),
        (
            ("--unsigned-phones",),
            "--unsigned-phones: no phone is configured; add --phone CARRIER=HANDLER, such as twilio=local",
        ),
        (("--phone", "twilo=echo"), "--phone: unknown carrier 'twilo'; did you mean twilio?"),
        (
            ("--phone", "twilio=ecco", *URL),
            "the phone twilio has the unknown handler 'ecco'; did you mean echo?",
        ),
        (
            ("--phone", "twilio=echo"),
            TLS,
        ),
        (
            ("--phone", "twilio=echo", "--public-url", "http://voice.example.com"),
            TLS,
        ),
        (
            ("--phone", "twilio=echo", "--unsigned-phones", *URL),
            PRIVATE,
        ),
        (
            ("--phone", "twilio=echo", "--unsigned-phones", "--host", "0.0.0.0"),
            PRIVATE,
        ),
    ],
)
def test_a_newcomer_s_mistakes(
    options: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, *options) == line


def test_a_missing_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWILIO_AUTH_TOKEN")
    assert told(capsys, "--phone", "twilio=echo", *URL) == (
        "--phone: the phone twilio can't check the signatures of twilio; set TWILIO_AUTH_TOKEN to the auth "
        "token of your account there, or pass auth_token"
    )


def test_serve_tells_a_misspelled_carrier_before_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--database", "memory", "--phone", "twilo=echo"]) == USAGE
    assert capsys.readouterr().err == "speko-anyio: unknown carrier 'twilo'; did you mean twilio?\n"


def test_check_shows_the_phones_and_no_secret(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'public_url = "https://x.example"\n[phones.twilio]\nhandler = "echo"\nauth_token = "{SECRET}"\n'
    )
    assert main(["gateway", "check", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert "twilio=echo" in out
    assert "ok    phone: twilio must call https://x.example/telephony/twilio\n" in out
    assert SECRET not in out


def test_check_points_out_a_phone_that_checks_no_signatures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "check", "--phone", "twilio=echo", "--unsigned-phones"]) == 0
    assert "note  the phone twilio checks no signatures; it takes calls from this machine only" in (
        capsys.readouterr().out
    )


def test_serve_takes_calls_and_says_what_to_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPEKO_GATEWAY_DATABASE")
    options = ("--port", "0", "--database", "memory", "--phone", "twilio=echo", *URL)
    with served(*options) as (_, lines):
        assert (
            "phone      twilio: set the webhook of your number for incoming calls (POST) to "
            "https://voice.example.com/telephony/twilio" in lines
        )
        url = re.findall(r"^gateway +(\S+)$", lines, re.MULTILINE)[0]
        signed = hmac.new(
            SECRET.encode(), b"https://voice.example.com/telephony/twilioCallSidCA1", hashlib.sha1
        )
        headers = {"X-Twilio-Signature": base64.b64encode(signed.digest()).decode()}
        answer = httpx.post(f"{url}/telephony/twilio", data={"CallSid": "CA1"}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert "wss://voice.example.com/telephony/twilio" in answer.text
        assert httpx.post(f"{url}/telephony/twilio", data={"CallSid": "CA1"}).status_code == 403


def test_serve_takes_unsigned_calls_of_this_machine_only_if_it_is_told() -> None:
    options = ("--port", "0", "--database", "memory", "--phone", "twilio=echo", "--unsigned-phones")
    with served(*options) as (_, lines):
        url = re.findall(r"^gateway +(\S+)$", lines, re.MULTILINE)[0]
        assert "/telephony/twilio\n" in lines
        answer = httpx.post(f"{url}/telephony/twilio", data={"CallSid": "CA1"})
        assert answer.status_code == 200, answer.text
        assert f'url="{url.replace("http", "ws")}/telephony/twilio"' in answer.text
