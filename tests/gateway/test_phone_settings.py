"""The configuration of phones: of a `Gateway` in a program, and of the command's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speko_anyio import OpenAI, OpenAIOptions
from speko_anyio.gateway import Gateway, Phone, ProviderHandler, echo
from speko_anyio.gateway._served_phone import ServedPhone
from speko_anyio.gateway._settings import Settings, SettingsError

from .support import load_settings

SECRET = "the auth token of an account"


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWILIO_AUTH_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def gateway(phones: Any, **handlers: Any) -> Gateway:
    return Gateway(handlers={"echo": echo, **handlers}, phones=phones, api_keys=["k"])


@pytest.mark.parametrize(
    ("phones", "complaint"),
    [
        ({"twilo": Phone(handler="echo")}, r"unknown carrier 'twilo'; did you mean twilio\?"),
        ({"acme": Phone(handler="echo")}, r"unknown carrier 'acme'; choose from .*twilio"),
        (
            {"twilio": Phone(handler="ecco", auth_token="x")},
            r"the phone twilio has the unknown handler 'ecco'; did you mean echo\?",
        ),
        (
            {"twilio": Phone(handler="my-bot", auth_token="x")},
            "the phone twilio has the unknown handler 'my-bot'; choose from echo",
        ),
        (
            {"twilio": Phone(handler="local", auth_token="x")},
            "unknown handler 'local'; choose from echo; for the offline voice install speko-anyio",
        ),
        (
            {"twilio": Phone(handler="echo")},
            "can't check the signatures of twilio; set TWILIO_AUTH_TOKEN to the auth token of your",
        ),
        ({"twilio": Phone(handler="echo", auth_token=" ")}, "TWILIO_AUTH_TOKEN"),
        (
            {"twilio": Phone(handler="echo", auth_token="x", max_calls=0)},
            "max_calls must be 1 or more, or None, not 0",
        ),
        ({"twilio": Phone(handler="echo", auth_token="x", ttl_seconds=-1)}, "ttl_seconds must be 1 or more"),
    ],
)
def test_a_phone_that_can_t_work_is_told_in_one_sentence(phones: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        gateway(phones)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("phones", "complaint"),
    [
        ([Phone(handler="echo")], "phones must be a dict of phones by the carrier's name"),
        ({"twilio": "echo"}, "the phone 'twilio' must be a Phone, not str"),
        ({"twilio": Phone(handler=3, auth_token="x")}, "the phone twilio is not valid"),  # type: ignore[arg-type]
        ({"twilio": Phone(handler="echo", auth_token=b"x")}, "the phone twilio is not valid"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_phone_is_told(phones: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        gateway(phones)


def test_a_secret_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", f"{SECRET}\n")
    gateway({"twilio": Phone(handler="echo")})
    assert ServedPhone("twilio", Phone(handler="echo"), {"echo": echo}).secret == SECRET
    assert ServedPhone("twilio", Phone(handler="echo", auth_token="own"), {"echo": echo}).secret == "own"


def test_a_phone_shows_no_secret() -> None:
    phone = Phone(handler="echo", auth_token=SECRET, system_prompt="private words")
    settings = Settings(phones={"twilio": phone})
    for shown in (repr(phone), repr(settings), str(settings.shown()), str(phone.__rich_repr__())):
        assert SECRET not in shown
        assert "private" not in shown
    assert ("phones", "twilio=echo") in settings.shown()


def test_a_phone_s_sessions_have_the_rates_that_suit_a_line() -> None:
    config = ServedPhone("twilio", Phone(handler="echo", auth_token="x"), {"echo": echo}).config
    assert (config.input_sample_rate, config.output_sample_rate) == (16_000, 16_000)
    assert (config.provider, config.model) == ("echo", "echo")


def test_a_provider_s_phone_has_its_usual_model_and_its_operator_s_rules() -> None:
    account = OpenAI("sk-test", options=OpenAIOptions(max_output_tokens=100))
    handler = ProviderHandler(account)
    phone = Phone(handler="openai", auth_token="x", voice="marin")
    served = ServedPhone("twilio", phone, {"openai": handler})
    assert (served.config.model, served.config.voice) == (OpenAI.usual_model, "marin")
    named = ProviderHandler(account, models=["gpt-realtime-mini", "gpt-realtime"])
    served = ServedPhone("twilio", Phone(handler="openai", auth_token="x"), {"openai": named})
    assert served.config.model == "gpt-realtime-mini"
    with pytest.raises(ValueError, match=r"the phone twilio can't use openai: .* choose from gpt-realtime"):
        gateway({"twilio": Phone(handler="openai", auth_token="x", model="gpt-9")}, openai=named)
    metadata = {"provider_options": {"openai": {"nonsense": 1}}}
    with pytest.raises(ValueError, match="the phone twilio can't use openai"):
        gateway({"twilio": Phone(handler="openai", auth_token="x", metadata=metadata)}, openai=handler)


def test_phones_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[phones.twilio]\nhandler = "local"\nauth_token = "t"\nvoice = "v"\nmax_calls = 5\n')
    loaded = load_settings(file, {})
    assert loaded.settings.phones == {
        "twilio": Phone(handler="local", auth_token="t", voice="v", max_calls=5)
    }


def test_phones_in_the_environment() -> None:
    loaded = load_settings(None, {"SPEKO_GATEWAY_PHONES": "twilio=local, telnyx=my-bot,"})
    assert loaded.settings.phones == {"twilio": Phone(handler="local"), "telnyx": Phone(handler="my-bot")}


@pytest.mark.parametrize(
    ("variable", "complaint"),
    [
        (
            "twilio",
            "SPEKO_GATEWAY_PHONES: 'twilio' is not a phone; write carrier=handler, such as twilio=local",
        ),
        ("twilio=a,twilio=b", "SPEKO_GATEWAY_PHONES: twilio has two handlers; name one"),
    ],
)
def test_a_variable_that_is_no_phone(variable: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {"SPEKO_GATEWAY_PHONES": variable})
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[phones]\ntwilio = 's3cr3t'",
            "phones is invalid; it must be a table for each name, with handler, auth_token, ",
        ),
        (
            "[phones.twilio]\nhandler = 'a'\nauth_tokn = 's3cr3t'",
            "gateway.toml: the phone twilio: unknown option auth_tokn; did you mean auth_token?",
        ),
        (
            "[phones.twilio]\nhandler = 'a'\nmax_calls = 's3cr3t'",
            "gateway.toml: the phone twilio: max_calls is invalid; it must be a whole number",
        ),
        ("[phones.twilio]\nauth_token = 's3cr3t'", "gateway.toml: the phone twilio has no handler; name one"),
    ],
)
def test_a_file_that_has_no_phone_is_told_what_there_is(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    assert complaint in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
