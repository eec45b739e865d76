"""Sessions with a provider that a service grants: minted in memory, held with doubles, reported in memory."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import msgspec
import pytest

from speko_anyio import (
    LocalProtocolError,
    Ready,
    RealtimeSession,
    Speko,
    Transcript,
    UnsupportedTransportError,
    Usage,
    open_session,
    tool,
)
from speko_anyio.client import _telemetry as telemetry
from speko_anyio.client._telemetry import Telemetry
from speko_anyio.protocol.mint import ProviderGrant
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend
from speko_anyio.testing.providers import GoogleDouble, OpenAIDouble, ProviderDouble, Say, XAIDouble, tone

CREDENTIAL = "ek-short-lived-secret"
DOUBLES: dict[str, type[ProviderDouble[Any]]] = {
    "openai.realtime.v1": OpenAIDouble,
    "xai.realtime.v1": XAIDouble,
    "google.live.v1": GoogleDouble,
}
PATHS = {
    "openai.realtime.v1": "/v1/realtime",
    "xai.realtime.v1": "/v1/realtime",
    "google.live.v1": "/ws/google.ai.generativelanguage.v1alpha.GenerativeService."
    "BidiGenerateContentConstrained",
}

pytestmark = pytest.mark.anyio


def answer(adapter: str, endpoint: str, **more: Any) -> dict[str, Any]:
    return {
        "mode": "s2s",
        "transport": "provider_direct",
        "sessionId": "s1",
        "planId": "plan_1",
        "attemptId": "att_1",
        "provider": adapter.partition(".")[0],
        "model": "gemini-3.8-live" if adapter == "google.live.v1" else "some-model",
        "adapter": adapter,
        "providerTransport": "websocket",
        "endpoint": endpoint,
        "credential": {"kind": "bearer", "value": CREDENTIAL, "expiresAt": "2100-01-01T00:05:00Z"},
        "telemetry": {"endpoint": "https://t.test/v1/events", "token": "tt-1", "flushIntervalMs": 5000},
        "reservation": {"id": "res_1", "authorizedDurationSeconds": 300},
        "session": {"voice": "Kore", "instructions": "Be terse."},
        "inputSampleRate": 24000,
        "outputSampleRate": 24000,
        "expiresAt": "2100-01-01T00:05:00Z",
        **more,
    }


class Reports:
    """Takes telemetry, or does not."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.stuck = False
        self.broken = False

    @property
    def events(self) -> list[list[dict[str, Any]]]:
        return [json.loads(request.content)["events"] for request in self.requests]

    async def take(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.stuck:
            await anyio.sleep_forever()
        if self.broken:
            raise httpx.ConnectError("no route")
        return httpx.Response(202)

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.take), **options)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    reports = Reports()

    async def make_http_client(proxy: object) -> httpx.AsyncClient:
        return reports.client()

    monkeypatch.setattr(telemetry, "make_http_client", make_http_client)
    return reports


def api(grant: dict[str, Any]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(201, json=grant)))


async def converse(session: RealtimeSession) -> str:
    """One turn; what the assistant said."""
    await session.send_audio(tone(0.4, session.input_sample_rate))
    await session.commit()
    said = ""
    async for frame in session:
        match frame:
            case Transcript(role="assistant", text=text, final=True):
                said = text
            case Usage():
                return said
    raise AssertionError("the session ended")


@pytest.mark.parametrize("adapter", DOUBLES)
async def test_connect_opens_what_is_granted_with_a_provider(adapter: str, reports: Reports) -> None:
    double = DOUBLES[adapter]([Say("It is sunny.", 0.2)], api_key=CREDENTIAL)
    with anyio.fail_after(10):
        async with double.serve() as url, api(answer(adapter, url + PATHS[adapter])) as http:
            async with Speko("sk", "http://api.test", http_client=http) as speko:
                async with speko.realtime.connect(provider="any", model="any") as session:
                    assert session.session_id == "s1"
                    assert session.expires_at == "2100-01-01T00:05:00Z"
                    assert await converse(session) == "It is sunny."
    configured = json.dumps(double.session.received[0])
    assert "Kore" in configured
    assert "Be terse." in configured
    if adapter != "google.live.v1":
        assert double.session.request.query("model") == "some-model"
    (last,) = reports.events
    assert [event["type"] for event in last] == ["usage.reported", "session.closed"]
    assert [event["event_id"] for event in last] == ["att_1:usage.reported:1", "att_1:session.closed"]
    assert {event["session_id"] for event in last} == {"s1"}
    assert reports.requests[0].headers["authorization"] == "Bearer tt-1"
    assert CREDENTIAL not in reports.requests[0].content.decode()


async def test_a_grant_that_was_minted_elsewhere_and_says_little(reports: Reports) -> None:
    @tool
    def look_up(city: str) -> str:
        """Look it up."""
        return city

    double = XAIDouble(api_key=CREDENTIAL)
    with anyio.fail_after(10):
        async with double.serve() as url:
            more: dict[str, Any] = {"telemetry": None, "reservation": None, "session": None}
            body = answer("xai.realtime.v1", url + PATHS["xai.realtime.v1"], **more, inputSampleRate=16000)
            grant = msgspec.convert(body, ProviderGrant)
            async with open_session(grant, tools=[look_up]) as session:
                assert await session.receive() == Ready(16_000, 24_000)
    assert "look_up" in json.dumps(double.session.received[0])
    assert reports.requests == []


@pytest.mark.parametrize("adapter", ["openai.realtime.v1", "xai.realtime.v1"])
async def test_an_endpoint_that_names_the_model_is_taken_at_its_word(adapter: str, reports: Reports) -> None:
    double = DOUBLES[adapter](api_key=CREDENTIAL)
    with anyio.fail_after(10):
        async with double.serve() as url:
            endpoint = f"{url}{PATHS[adapter]}?region=eu&model=the%20real-one"
            grant = msgspec.convert(answer(adapter, endpoint, telemetry=None), ProviderGrant)
            async with open_session(grant) as session:
                await session.receive()
    target = double.session.request.target
    assert target == f"{PATHS[adapter]}?region=eu&model=the+real-one"


@pytest.mark.parametrize("query", ["", "?model=gpt-live-1"])
async def test_a_granted_model_that_has_no_realtime_sessions(query: str, reports: Reports) -> None:
    body = answer("openai.realtime.v1", f"ws://127.0.0.1:1/v1/realtime{query}")
    body["model"] = body["model"] if query else "gpt-live-1"
    with pytest.raises(LocalProtocolError, match="gpt-live-1 has no realtime sessions"):
        async with open_session(msgspec.convert(body, ProviderGrant)):
            raise AssertionError("it opened")
    assert reports.requests == []


@pytest.mark.parametrize("how", ["stuck", "broken"])
async def test_telemetry_fails_no_session(
    how: str, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    setattr(reports, how, True)
    monkeypatch.setattr(telemetry, "LAST_REPORT_TIMEOUT", 0.01)
    double = XAIDouble([Say("It is sunny.", 0.2)], api_key=CREDENTIAL)
    with anyio.fail_after(10):
        async with double.serve() as url:
            grant = msgspec.convert(answer("xai.realtime.v1", url + PATHS["xai.realtime.v1"]), ProviderGrant)
            async with open_session(grant) as session:
                assert await converse(session) == "It is sunny."
    assert len(reports.requests) == 1


async def test_an_error_of_the_body_comes_out_and_the_end_is_reported(reports: Reports) -> None:
    double = XAIDouble(api_key=CREDENTIAL)
    with anyio.fail_after(10):
        async with double.serve() as url:
            grant = msgspec.convert(answer("xai.realtime.v1", url + PATHS["xai.realtime.v1"]), ProviderGrant)
            with pytest.raises(KeyError, match="mine"):
                async with open_session(grant):
                    raise KeyError("mine")
    assert len(reports.requests) == 1


async def test_what_never_opened_is_not_reported(reports: Reports) -> None:
    double = XAIDouble(api_key="another")
    with anyio.fail_after(10):
        async with double.serve() as url:
            grant = msgspec.convert(answer("xai.realtime.v1", url + PATHS["xai.realtime.v1"]), ProviderGrant)
            with pytest.raises(Exception, match="HTTP 401") as caught:
                async with open_session(grant):
                    raise AssertionError
    assert CREDENTIAL not in str(caught.value)
    assert reports.requests == []


@pytest.mark.parametrize(
    "more",
    [
        {"providerTransport": "webrtc"},
        {"adapter": "another.v1"},
    ],
)
async def test_a_transport_that_is_not_spoken_is_named(more: dict[str, Any]) -> None:
    body = {**answer("openai.realtime.v1", "https://provider.test/v1/realtime/calls"), **more}
    async with api(body) as http, Speko("sk", "http://api.test", http_client=http) as speko:
        with pytest.raises(UnsupportedTransportError, match="'provider_direct' ") as caught:
            async with speko.realtime.connect(provider="any", model="any"):
                raise AssertionError
    assert next(iter(more.values())) in str(caught.value)
    with pytest.raises(UnsupportedTransportError, match=next(iter(more.values()))):
        async with open_session(msgspec.convert(body, ProviderGrant)):
            raise AssertionError


async def test_it_is_not_to_be_handed_out() -> None:
    body = answer("xai.realtime.v1", "wss://api.x.ai/v1/realtime")
    async with api(body) as http, Speko("sk", "http://api.test", http_client=http) as speko:
        with pytest.raises(UnsupportedTransportError, match="only `connect` can open") as caught:
            await speko.realtime.create_session(provider="any", model="any")
    assert CREDENTIAL not in str(caught.value)


@pytest.mark.parametrize("anyio_backend", [virtual_backend(name) for name in VIRTUAL_BACKENDS])
async def test_reports_are_made_in_the_interval_that_was_asked_for(reports: Reports) -> None:
    grant = msgspec.convert(answer("xai.realtime.v1", "wss://x.test"), ProviderGrant)
    assert grant.telemetry is not None
    reporter = Telemetry(grant, grant.telemetry, clock=anyio.current_time, now=lambda: 1_790_000_000.5)
    with anyio.move_on_after(302):
        await reporter.run()
    assert len(reports.events) == 60
    ((first,), *_, (last,)) = reports.events
    assert first == {
        "type": "usage.reported",
        "session_id": "s1",
        "attempt_id": "att_1",
        "created_at_ms": 1_790_000_000_500,
        "event_id": "att_1:usage.reported:1",
        "data": {"unit": "duration_seconds", "quantity_millis": 5000},
    }
    assert last["data"]["quantity_millis"] == 300_000
    await anyio.sleep(100)
    await reporter.finish()
    usage, _ = reports.events[-1]
    assert usage["data"]["quantity_millis"] == 300_000  # not more than was reserved


@pytest.mark.parametrize("anyio_backend", [virtual_backend(name) for name in VIRTUAL_BACKENDS])
async def test_a_report_that_hangs_holds_up_nothing(reports: Reports) -> None:
    grant = msgspec.convert(answer("xai.realtime.v1", "wss://x.test"), ProviderGrant)
    assert grant.telemetry is not None
    target = msgspec.structs.replace(grant.telemetry, flush_interval_ms=0)
    reporter = Telemetry(grant, target, clock=anyio.current_time)
    reports.stuck = True
    started = anyio.current_time()
    with anyio.move_on_after(60):
        await reporter.run()
    assert len(reports.requests) == 10  # a second between them at least, and five until each is given up
    with anyio.CancelScope() as scope:
        scope.cancel()
        await reporter.finish()
    assert anyio.current_time() - started == 62
    assert len(reports.requests) == 11
