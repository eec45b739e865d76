"""The bodies of ``POST /v1/sessions``: exactly the documented JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from speko_anyio.protocol.mint import (
    DEFAULT_SAMPLE_RATE,
    MAX_REQUEST_DEPTH,
    MAX_TTL_SECONDS,
    APIErrorBody,
    InvalidRequestError,
    Kept,
    MintRequest,
    ProviderGrant,
    SessionConfig,
    SessionGrant,
    ToolSpec,
    decode_request,
)

FULL_REQUEST: dict[str, Any] = {
    "mode": "s2s",
    "s2s": {
        "provider": "openai",
        "model": "gpt-realtime-2.1",
        "voice": "marin",
        "systemPrompt": "Be brief.",
        "temperature": 0.7,
        "inputSampleRate": 16000,
        "outputSampleRate": 24000,
        "tools": [{"name": "f", "description": "does f", "parameters": {"type": "object"}}],
        "output": "text",
    },
    "metadata": {"caller": {"id": 7}},
    "ttlSeconds": 600,
    "agentId": "agent_1",
    "webhookTags": {"team": "a"},
}

GRANT: dict[str, Any] = {
    "mode": "s2s",
    "sessionId": "sess_1",
    "wsUrl": "wss://h/v1/stream",
    "wsToken": "s3cret",
    "inputSampleRate": 16000,
    "outputSampleRate": 24000,
    "expiresAt": "2026-01-01T00:00:00Z",
}


def full_request() -> MintRequest:
    return MintRequest(
        mode="s2s",
        s2s=SessionConfig(
            provider="openai",
            model="gpt-realtime-2.1",
            voice="marin",
            system_prompt="Be brief.",
            temperature=0.7,
            input_sample_rate=16000,
            output_sample_rate=24000,
            tools=(ToolSpec(name="f", description="does f", parameters={"type": "object"}),),
            output="text",
        ),
        metadata={"caller": {"id": 7}},
        ttl_seconds=600,
        agent_id="agent_1",
        webhook_tags={"team": "a"},
    )


def grant(**changes: Any) -> SessionGrant:
    return msgspec.json.decode(json.dumps(GRANT | changes), type=SessionGrant)


def test_every_field_of_a_request() -> None:
    assert json.loads(msgspec.json.encode(full_request())) == FULL_REQUEST


def test_a_request_is_read_back() -> None:
    assert msgspec.json.decode(json.dumps(FULL_REQUEST), type=MintRequest) == full_request()


def test_absent_optionals_are_omitted_and_never_null() -> None:
    request = MintRequest(mode="s2s", s2s=SessionConfig(provider="xai", model="grok"))
    assert msgspec.json.encode(request) == b'{"mode":"s2s","s2s":{"provider":"xai","model":"grok"}}'


def test_a_tool_has_all_its_fields() -> None:
    tool = json.loads(msgspec.json.encode(ToolSpec(name="f")))
    assert tool == {"name": "f", "description": "", "parameters": {}}


def test_unknown_fields_of_a_request_are_ignored() -> None:
    body = FULL_REQUEST | {"new": 1, "s2s": FULL_REQUEST["s2s"] | {"new": [1]}}
    assert msgspec.json.decode(json.dumps(body), type=MintRequest) == full_request()


def test_any_provider_passes() -> None:
    assert msgspec.convert({"provider": "speko-lab", "model": "m"}, SessionConfig).provider == "speko-lab"


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "stt"},
        {"s2s": {"provider": "openai"}},
        {"s2s": {"model": "m"}},
        {"s2s": {"provider": "p", "model": "m", "inputSampleRate": 8000}},
        {"s2s": {"provider": "p", "model": "m", "output": "video"}},
        {"s2s": {"provider": "p", "model": "m", "tools": [{"description": "no name"}]}},
        {"ttlSeconds": "600"},
        {"webhookTags": {"team": 1}},
    ],
    ids=str,
)
def test_a_request_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(FULL_REQUEST | change), type=MintRequest)


@pytest.mark.parametrize("missing", ["mode", "s2s"])
def test_a_request_names_its_mode_and_session(missing: str) -> None:
    body = {name: value for name, value in FULL_REQUEST.items() if name != missing}
    with pytest.raises(msgspec.ValidationError, match=missing):
        msgspec.json.decode(json.dumps(body), type=MintRequest)


def test_every_field_of_a_grant() -> None:
    expected = SessionGrant(
        session_id="sess_1",
        ws_url="wss://h/v1/stream",
        ws_token="s3cret",
        expires_at="2026-01-01T00:00:00Z",
        input_sample_rate=16000,
        output_sample_rate=24000,
    )
    assert grant() == expected
    assert json.loads(msgspec.json.encode(expected)) == GRANT


def test_unknown_fields_of_a_grant_are_ignored() -> None:
    assert grant(transport="proxy", region={"name": "eu"}) == grant()


def test_older_grants_have_no_rates() -> None:
    body = {name: value for name, value in GRANT.items() if not name.endswith("Rate")}
    older = msgspec.json.decode(json.dumps(body), type=SessionGrant)
    assert (older.input_sample_rate, older.output_sample_rate) == (0, 0)


@pytest.mark.parametrize("missing", ["sessionId", "wsUrl", "wsToken", "expiresAt"])
def test_a_grant_without_its_essentials_is_refused(missing: str) -> None:
    body = {name: value for name, value in GRANT.items() if name != missing}
    with pytest.raises(msgspec.ValidationError, match=missing):
        msgspec.json.decode(json.dumps(body), type=SessionGrant)


def test_a_grant_in_a_log_hides_its_token() -> None:
    assert repr(grant()) == (
        "SessionGrant(session_id='sess_1', ws_token='***', expires_at='2026-01-01T00:00:00Z')"
    )


def test_nor_does_rich_show_it() -> None:
    assert grant().__rich_repr__() == [("session_id", "sess_1"), ("expires_at", "2026-01-01T00:00:00Z")]


def test_the_body_of_an_error() -> None:
    body = {"error": "bad key", "code": "UNAUTHORIZED"}
    assert msgspec.json.decode(json.dumps(body | {"new": 1}), type=APIErrorBody) == APIErrorBody(**body)
    assert json.loads(msgspec.json.encode(APIErrorBody(**body))) == body


def test_the_documented_numbers() -> None:
    assert (DEFAULT_SAMPLE_RATE, MAX_TTL_SECONDS) == (24000, 1800)


PROVIDER_GRANT: dict[str, Any] = {
    "mode": "s2s",
    "transport": "provider_direct",
    "sessionId": "s1",
    "planId": "plan_1",
    "attemptId": "att_1",
    "provider": "xai",
    "model": "grok-voice-latest",
    "adapter": "xai.realtime.v1",
    "providerTransport": "websocket",
    "endpoint": "wss://api.x.ai/v1/realtime",
    "credential": {"kind": "bearer", "value": "ek-secret", "expiresAt": "2100-01-01T00:05:00Z"},
    "telemetry": {"endpoint": "https://t.test/v1/events", "token": "tt-secret", "flushIntervalMs": 2000},
    "reservation": {"id": "res_1", "authorizedDurationSeconds": 300, "billing": {"mode": "x"}},
    "session": {"voice": "Ara", "instructions": "Be terse.", "tools": [{"name": "f", "parameters": {}}]},
    "inputSampleRate": 16000,
    "outputSampleRate": 24000,
    "expiresAt": "2100-01-01T00:05:00Z",
}


def test_a_grant_of_a_session_with_a_provider() -> None:
    grant = msgspec.convert(PROVIDER_GRANT, ProviderGrant)
    assert (grant.session_id, grant.attempt_id, grant.provider) == ("s1", "att_1", "xai")
    assert grant.credential.value == "ek-secret"
    assert grant.telemetry is not None
    assert grant.telemetry.flush_interval_ms == 2000
    assert grant.reservation is not None
    assert grant.reservation.authorized_duration_seconds == 300
    assert grant.session is not None
    assert grant.session.tools == (ToolSpec(name="f"),)


def test_a_grant_of_a_session_with_a_provider_that_says_little() -> None:
    optional = {"attemptId", "telemetry", "reservation", "session", "inputSampleRate", "outputSampleRate"}
    grant = msgspec.convert(
        {name: value for name, value in PROVIDER_GRANT.items() if name not in optional}, ProviderGrant
    )
    assert (grant.telemetry, grant.reservation, grant.session) == (None, None, None)
    assert (grant.attempt_id, grant.input_sample_rate, grant.output_sample_rate) == ("", 0, 0)


def test_a_grant_of_a_session_with_a_provider_shows_no_secret() -> None:
    shown = repr(msgspec.convert(PROVIDER_GRANT, ProviderGrant))
    assert "secret" not in shown
    assert "https://t.test/v1/events" in shown


S2S = b'"mode":"s2s","s2s":{"provider":"echo","model":"m"}'


@pytest.mark.parametrize(
    ("body", "ttl"),
    [
        (b"{%b}" % S2S, None),
        (b"\xef\xbb\xbf{%b}" % S2S, None),
        (b'{%b,"ttlSeconds":60}' % S2S, 60),
        (b'{%b,"ttlSeconds":60.0}' % S2S, 60),
        (b'{%b,"ttlSeconds":6e1,"metadata":{"a":[1.0]}}' % S2S, 60),
    ],
)
def test_a_server_accepts_what_can_only_mean_one_thing(body: bytes, ttl: int | None) -> None:
    request = decode_request(body)
    assert request.s2s == SessionConfig(provider="echo", model="m")
    assert request.ttl_seconds == ttl


def test_a_rate_may_be_written_as_a_float_and_half_a_pair_is_replaced() -> None:
    body = (
        b'{"mode":"s2s","s2s":{"provider":"echo","model":"m","inputSampleRate":16000.0,"outputSampleRate":24e3},'
        b'"metadata":{"a":"x\\ud83d"}}'
    )
    request = decode_request(body)
    assert (request.s2s.input_sample_rate, request.s2s.output_sample_rate) == (16000, 24000)
    assert request.metadata == {"a": "x\ufffd"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the request's body is not JSON"),
        (b"{", "the request's body is not JSON"),
        (b'{%b,"agentId":"\xed\xa0\xbd"}' % S2S, "the request's body is not JSON"),
        (b"[]", "the request is not valid: Expected `object`"),
        (
            b'{"mode":"s2s","s2s":7,"ttlSeconds":60.0}',
            "the request is not valid: Expected `object`, got `int`",
        ),
        (b'{"mode":"s2s","s2s":7}', "the request is not valid: Expected `object`, got `int` - at `$.s2s`"),
        (b'{%b,"ttlSeconds":1.5}' % S2S, "the request is not valid: Expected `int | null`, got `float`"),
        (b'{%b,"ttlSeconds":0}' % S2S, "the request is not valid: `$.ttlSeconds` must be 1 or more"),
        (
            b'{"mode":"s2s","s2s":{"provider":"echo","model":"m","inputSampleRate":8000}}',
            "the request is not valid: Invalid enum value 8000 - at `$.s2s.inputSampleRate`; it must be",
        ),
        (
            b'{"mode":"s2s","s2s":{"provider":"echo","model":""}}',
            "the request is not valid: `$.s2s.model`",
        ),
        (
            b'{%b,"metadata":%b1%b}' % (S2S, b'{"a":' * MAX_REQUEST_DEPTH, b"}" * MAX_REQUEST_DEPTH),
            "the request's body is nested too deeply; 128 levels are the limit",
        ),
    ],
)
def test_a_server_refuses_the_rest_with_the_reason(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_request(body)
    assert str(caught.value).startswith(words)


def test_a_large_value_is_kept_as_json() -> None:
    metadata = {"a": ["b"] * 1000}
    kept = Kept(metadata, dict)
    assert kept.get() == metadata
    assert kept.get() is not kept.get()


def test_small_ones_stay_objects() -> None:
    metadata = {"a": [1]}
    assert Kept(metadata, dict).get() is metadata


def test_what_json_has_not_stays_an_object() -> None:
    metadata = {"a": object(), "b": "x" * 10_000}
    assert Kept(metadata, dict).get() is metadata
