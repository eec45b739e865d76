"""What an operator lets clients choose, from the settings of `serve` to the answer of a mint."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from speko_anyio.cli import main
from speko_anyio.cli._failures import USAGE
from speko_anyio.cli._gateway_options import gateway_of
from speko_anyio.gateway import MemoryStore
from speko_anyio.gateway._settings import Settings

KEY = "sk_policy_Qm3vT9xLzR4cYb7NwK2p"


@pytest.fixture(autouse=True)
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-operators-own")
    monkeypatch.setenv("XAI_API_KEY", "xai-operators-own")
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "0")


def mint(settings: Settings, provider: str, model: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        gateway = gateway_of(settings, MemoryStore(), keys=[KEY], playground=False)
        transport = httpx.ASGITransport(app=gateway.app)
        async with (
            gateway.running(),
            httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http,
        ):
            body: dict[str, Any] = {"mode": "s2s", "s2s": {"provider": provider, "model": model}}
            if options:
                body["metadata"] = {"provider_options": {provider: options}}
            return await http.post("/v1/sessions", json=body, headers={"Authorization": f"Bearer {KEY}"})

    return anyio.run(ask)


def refusal(answer: httpx.Response) -> str:
    assert answer.status_code == 400
    assert answer.json()["code"] == "VALIDATION_ERROR"
    error: str = answer.json()["error"]
    return error


def test_models_are_an_allow_list_where_one_is_given() -> None:
    settings = Settings(models={"openai": ("gpt-realtime-2.1", "gpt-realtime-mini")})
    assert mint(settings, "openai", "gpt-realtime-mini").status_code == 201
    assert refusal(mint(settings, "openai", "gpt-realtime-2.1-pro")) == (
        "the request is not valid: this gateway does not serve that model of openai; choose from "
        "gpt-realtime-2.1, gpt-realtime-mini"
    )
    assert mint(settings, "xai", "any").status_code == 201
    assert mint(Settings(), "openai", "gpt-realtime-2.1-pro").status_code == 201


def test_a_model_that_has_no_sessions_is_refused_by_the_mint() -> None:
    assert "gpt-live-1 has no realtime sessions" in refusal(mint(Settings(), "openai", "gpt-live-1"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"reasoning_effort": "xhigh"},
            "can't have reasoning_effort above minimal: only the server's operator",
        ),
        ({"server_tools": [{"type": "mcp"}]}, "can't have server_tools: only the server's operator"),
        ({"max_output_tokens": 10**30}, "can't be used"),
        ({"max_output_tokens": -1}, "can't be used"),
        ({"speed": 1e300}, "can't be used"),
        ({"nope": 1}, "unknown field `nope`"),
    ],
)
def test_options_that_a_client_can_not_have_are_refused_by_the_mint(
    options: dict[str, Any], complaint: str
) -> None:
    assert complaint in refusal(mint(Settings(), "openai", "gpt-realtime-2.1", **options))


def test_the_options_of_the_settings_are_caps() -> None:
    settings = Settings(provider_options={"openai": {"max_output_tokens": 200, "tool_choice": "none"}})
    assert mint(settings, "openai", "gpt-realtime-2.1", max_output_tokens="inf").status_code == 201
    error = refusal(mint(settings, "openai", "gpt-realtime-2.1", tool_choice="required"))
    assert "can't have tool_choice" in error


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        (
            "MODELS",
            "opnai=gpt-realtime-2.1",
            "models: unknown provider opnai; choose from openai, xai",
        ),
        ("PROVIDER_OPTIONS", '{"opnai": {}}', "provider_options: unknown provider opnai"),
        (
            "PROVIDER_OPTIONS",
            '{"xai": {"tempo": 1}}',
            "provider_options for xai: unknown option tempo; choose",
        ),
        (
            "PROVIDER_OPTIONS",
            '{"openai": {"max_tokens": 9}}',
            "for openai: unknown option max_tokens; did you mean max_output_tokens?",
        ),
        (
            "PROVIDER_OPTIONS",
            '{"openai": {"speed": 9}}',
            "for openai: speed is invalid; it must be a number from 0.25 to 1.5",
        ),
        (
            "PROVIDER_OPTIONS",
            '{"openai": {"reasoning_effort": "lo"}}',
            "reasoning_effort is invalid; it must be high, low, medium, minimal or xhigh",
        ),
        (
            "PROVIDER_OPTIONS",
            '{"openai": {"max_output_tokens": "many"}}',
            "max_output_tokens is invalid; it must be a whole number from 1 to 4096 or inf",
        ),
        (
            "PROVIDER_OPTIONS",
            '{"openai": {"turn_detection": "off"}}',
            "turn_detection is invalid; it must be a table",
        ),
        (
            "PROVIDER_OPTIONS",
            '{"openai": {"server_tools": "mcp"}}',
            "server_tools is invalid; it must be a list of tables",
        ),
        (
            "PROVIDER_OPTIONS",
            '{"openai": {"turn_detection": {"type": "off"}}}',
            "turn_detection can't be used",
        ),
    ],
)
@pytest.mark.parametrize("command", [["gateway", "check"], ["serve"]])
def test_a_policy_that_makes_no_sense_is_one_line(
    command: list[str],
    name: str,
    text: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"SPEKO_GATEWAY_{name}", text)
    assert main([*command, "--database", "memory"]) == USAGE
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


def test_a_policy_for_a_provider_without_a_key_is_noted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("SPEKO_GATEWAY_MODELS", "xai=grok-voice")
    monkeypatch.setenv("SPEKO_GATEWAY_PROVIDER_OPTIONS", '{"openai": {"speed": 1}, "xai": {}}')
    command = ["gateway", "check", "--port", "0", "--database", "memory"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "note  models and provider_options for xai have no effect: set XAI_API_KEY to serve xai\n" in out
    assert "note  provider_options for openai have no effect: set OPENAI_API_KEY to serve openai\n" in out
    monkeypatch.setenv("XAI_API_KEY", "xai-1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert main(command) == 0
    assert "no effect" not in capsys.readouterr().out
