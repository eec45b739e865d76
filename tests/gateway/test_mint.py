"""``POST /v1/sessions``, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import jwt
import pytest

from speko_anyio.gateway import Gateway, KeyLimits, MemoryStore, SessionRecord, StoreError
from speko_anyio.gateway import _request_body as request_body
from speko_anyio.gateway import _session_handlers as session_handlers
from speko_anyio.gateway.store import Idempotency
from speko_anyio.gateway.store._records import NO_LIMITS

from .support import KEY, make_gateway

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.25
AUTH = {"Authorization": f"Bearer {KEY}"}
S2S = {"provider": "echo", "model": "m"}
BODY = {"mode": "s2s", "s2s": S2S}


ECHO = b'{"provider":"echo","model":"m"}'


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@asynccontextmanager
async def http(
    gateway: Gateway | None = None, base_url: str = "http://gw.test:81"
) -> AsyncIterator[httpx.AsyncClient]:
    gateway = gateway or make_gateway(now=lambda: NOW)
    transport = httpx.ASGITransport(app=gateway.app)
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url=base_url, headers=AUTH) as client,
    ):
        yield client


async def refused(status: int, code: str, message: str, **request: Any) -> httpx.Response:
    async with http() as client:
        response = await client.post("/v1/sessions", **request)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error", "code"}
    assert body["code"] == code
    assert message in body["error"]
    return response


async def test_a_grant_is_complete() -> None:
    async with http(make_gateway(secret="s" * 32, now=lambda: NOW)) as client:
        response = await client.post("/v1/sessions", json=BODY)
    assert response.status_code == 201
    grant = response.json()
    session_id = grant["sessionId"]
    assert grant["mode"] == "s2s"
    assert grant["wsUrl"] == f"ws://gw.test:81/v1/realtime/{session_id}"
    assert (grant["inputSampleRate"], grant["outputSampleRate"]) == (24000, 24000)
    expiry = datetime.fromisoformat(grant["expiresAt"])
    assert expiry == datetime.fromtimestamp(1_800_000_061, UTC)
    claims = jwt.decode(grant["wsToken"], "s" * 32, algorithms=["HS256"], options={"verify_exp": False})
    assert claims["sub"] == session_id
    assert claims["exp"] == 1_800_000_061


async def test_everything_that_can_be_asked_is_taken() -> None:
    kept: list[SessionRecord] = []

    class Store(MemoryStore):
        async def create(
            self,
            record: SessionRecord,
            *,
            idempotency: Idempotency | None,
            limits: KeyLimits = NO_LIMITS,
            now: float,
        ) -> SessionRecord:
            kept.append(record)
            return await super().create(record, idempotency=idempotency, limits=limits, now=now)

    asked = {
        **S2S,
        "voice": "v",
        "systemPrompt": "be kind",
        "temperature": 0.5,
        "inputSampleRate": 16000,
        "outputSampleRate": 24000,
        "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}],
        "unheardOf": 1,
    }
    async with http(make_gateway(store=Store(), now=lambda: NOW)) as client:
        response = await client.post(
            "/v1/sessions",
            json={"mode": "s2s", "s2s": asked, "metadata": {"a": [1]}, "ttlSeconds": 9000, "agentId": "x"},
        )
    assert response.status_code == 201
    assert (response.json()["inputSampleRate"], response.json()["outputSampleRate"]) == (16000, 24000)
    (record,) = kept
    assert record.metadata == {"a": [1]}
    assert record.ttl_seconds == 1800
    assert record.created_at == NOW
    assert record.config.system_prompt == "be kind"
    assert record.config.tools[0].parameters == {"type": "object"}
    assert KEY not in repr(record)


@pytest.mark.parametrize(
    ("public_url", "base_url", "expected"),
    [
        (None, "https://gw.test", "wss://gw.test/v1/realtime/"),
        (None, "http://[::1]:8000", "ws://[::1]:8000/v1/realtime/"),
        ("https://voice.example.com/api/", "http://internal", "wss://voice.example.com/api/v1/realtime/"),
        ("http://localhost:1234", "http://internal", "ws://localhost:1234/v1/realtime/"),
    ],
)
async def test_the_url_is_the_public_one_or_the_one_asked(
    public_url: str | None, base_url: str, expected: str
) -> None:
    async with http(make_gateway(public_url=public_url), base_url) as client:
        grant = (await client.post("/v1/sessions", json=BODY)).json()
    assert grant["wsUrl"] == expected + grant["sessionId"]


async def test_a_mounted_gateway_knows_its_path() -> None:
    gateway = make_gateway()
    transport = httpx.ASGITransport(app=gateway.app, root_path="/voice")
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gw.test", headers=AUTH) as client,
    ):
        grant = (await client.post("/voice/v1/sessions", json=BODY)).json()
    assert grant["wsUrl"] == f"ws://gw.test/voice/v1/realtime/{grant['sessionId']}"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY])
async def test_a_key_is_needed(header: str) -> None:
    response = await refused(401, "UNAUTHORIZED", "API key", json=BODY, headers={"Authorization": header})
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"mode":"s2s","s2s":{"provider":"echo","model":"m"}}',
        b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"},"ttlSeconds":60.0}',
        b'{"mode":"s2s","s2s":{"provider":"echo","model":"m","inputSampleRate":16000.0,"outputSampleRate":24e3}}',
        b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"},"metadata":{"a":"x\\ud83d"}}',
    ],
)
async def test_what_can_only_mean_one_thing_is_taken(body: bytes) -> None:
    async with http() as client:
        response = await client.post("/v1/sessions", content=body)
    assert response.status_code == 201, response.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"mode":"s2s","s2s":{"provider":"\xff","model":"m"}}', "not JSON"),
        (b"[]", "Expected `object`"),
        (b'{"mode":"s2s"}', "`s2s`"),
        (b'{"mode":"tts","s2s":{"provider":"echo","model":"m"}}', "$.mode"),
        (b'{"mode":"s2s","s2s":{"model":"m"}}', "`provider`"),
        (
            b'{"mode":"s2s","s2s":{"provider":"nope","model":"m"}}',
            "`$.s2s.provider`; this gateway serves echo",
        ),
        (
            b'{"mode":"s2s","s2s":{"provider":"google","model":"m"}}',
            "serves echo; `speko-anyio serve` adds google where GEMINI_API_KEY is set",
        ),
        (b'{"mode":"s2s","s2s":{"provider":"echo"}}', "`model`"),
        (b'{"mode":"s2s","s2s":{"provider":"echo","model":""}}', "$.s2s.model"),
        (b'{"mode":"s2s","s2s":{"provider":"echo","model":1}}', "$.s2s.model"),
        (
            b'{"mode":"s2s","s2s":{"provider":"echo","model":"m","inputSampleRate":8000}}',
            "`$.s2s.inputSampleRate`; it must be 16000 or 24000",
        ),
        (
            b'{"mode":"s2s","s2s":{"provider":"echo","model":"m","outputSampleRate":"24000"}}',
            "`$.s2s.outputSampleRate`; it must be 16000 or 24000",
        ),
        (b'{"mode":"s2s","s2s":{"provider":"echo","model":"m","tools":[{"name":1}]}}', "$.s2s.tools[0].name"),
        (b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"},"ttlSeconds":0}', "$.ttlSeconds"),
        (b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"},"ttlSeconds":"1"}', "$.ttlSeconds"),
        (b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"},"ttlSeconds":1.5}', "$.ttlSeconds"),
        (b'{"mode":"s2s","s2s":7,"ttlSeconds":60.0}', "$.s2s"),
        (b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"},"metadata":[]}', "$.metadata"),
        (b'{"metadata":' + b'{"a":' * 10_000, "nested too deeply; 128 levels"),
        (b'{"mode":"s2s","s2s":%b,"metadata":%b}' % (ECHO, nested(128)), "nested too deeply"),
        (b'{"mode":"s2s","s2s":{"provider":"echo\xff","model":"m"}}', "not JSON"),
    ],
)
async def test_a_wrong_request_is_told_which_field(body: bytes, message: str) -> None:
    await refused(400, "VALIDATION_ERROR", message, content=body)


async def test_who_asks_for_an_offline_voice_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = b'{"mode":"s2s","s2s":{"provider":"local","model":"m"}}'
    monkeypatch.setattr(session_handlers, "find_spec", lambda name: None)
    told = "this gateway serves echo. For the offline voice install speko-anyio with the extra `local`"
    await refused(400, "VALIDATION_ERROR", told, content=body)


async def test_what_is_nested_as_deeply_as_it_may_be_can_be_listed() -> None:
    body = b'{"mode":"s2s","s2s":%b,"metadata":%b}' % (ECHO, nested(127))
    async with http() as client:
        assert (await client.post("/v1/sessions", content=body)).status_code == 201
        listed = await client.get("/v1/sessions")
    assert listed.status_code == 200
    assert nested(127) in listed.content


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_an_idempotency_key_has_a_length(key: str) -> None:
    await refused(400, "VALIDATION_ERROR", "Idempotency-Key", json=BODY, headers={"Idempotency-Key": key})


async def test_a_url_that_can_not_be_told_is_refused() -> None:
    gateway = make_gateway()
    transport = httpx.ASGITransport(app=gateway.app, root_path="/caf\u00e9")
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gw.test", headers=AUTH) as client,
    ):
        response = await client.post("/caf\u00e9/v1/sessions", json=BODY)
    assert response.status_code == 400
    assert "Host" in response.json()["error"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "voice.example.com",
        "ftp://voice.example.com",
        "https://",
        "wss://x",
        "https://x/?a=1",
        "https://x?",
        "https://x/#a",
        "https://x#",
    ],
)
def test_a_public_url_is_checked_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="public_url"):
        make_gateway(public_url=url)


async def test_the_same_idempotency_key_gives_the_same_grant() -> None:
    async with http() as client:
        first, again, other = [
            await client.post("/v1/sessions", json=BODY, headers={"Idempotency-Key": key})
            for key in ("a", "a", "b")
        ]
        assert again.json() == first.json()
        assert other.json()["sessionId"] != first.json()["sessionId"]
        changed = await client.post(
            "/v1/sessions", json={**BODY, "ttlSeconds": 5}, headers={"Idempotency-Key": "a"}
        )
    assert changed.status_code == 409
    assert changed.json()["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_a_key_that_mints_too_fast_has_to_wait() -> None:
    gateway = Gateway(
        handlers=make_gateway()._handlers,
        api_keys=[KEY, "other"],
        mint_rate=0.01,
        mint_burst=2,
        now=lambda: NOW,
    )
    async with http(gateway) as client:
        statuses = [(await client.post("/v1/sessions", json=BODY)).status_code for _ in range(2)]
        third = await client.post("/v1/sessions", json=BODY)
        other = await client.post("/v1/sessions", json=BODY, headers={"Authorization": "Bearer other"})
    assert statuses == [201, 201]
    assert third.status_code == 429
    assert third.json()["code"] == "RATE_LIMITED"
    assert 98 <= int(third.headers["retry-after"]) <= 100
    assert other.status_code == 201


async def test_a_full_store_says_try_again() -> None:
    async with http(make_gateway(store=MemoryStore(max_records=1))) as client:
        assert (await client.post("/v1/sessions", json=BODY)).status_code == 201
        second = await client.post("/v1/sessions", json=BODY)
    assert second.status_code == 503
    assert second.json()["code"] == "SESSION_CREATE_FAILED"
    assert second.headers["retry-after"] == "5"


async def test_a_gateway_that_drains_mints_no_more() -> None:
    gateway = make_gateway()
    async with http(gateway) as client:
        await gateway.drain()
        response = await client.post("/v1/sessions", json=BODY)
    assert response.status_code == 503
    assert response.json()["code"] == "SESSION_CREATE_FAILED"


@pytest.mark.parametrize(
    # An OSError says that the store can't be reached, which passes; another error is a fault in it.
    ("error", "status"),
    [(OSError("disk on fire"), 503), (ValueError("disk on fire"), 500)],
)
async def test_a_failure_of_the_store_is_logged_and_not_shown(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryStore):
        async def create(self, *args: Any, **options: Any) -> SessionRecord:
            raise error

    async with http(make_gateway(store=Broken())) as client:
        response = await client.post("/v1/sessions", json=BODY)
    assert response.status_code == status
    assert response.json()["code"] == "SESSION_CREATE_FAILED"
    assert "disk" not in response.text
    assert "disk on fire" in caplog.text
    assert KEY not in caplog.text


async def test_a_store_that_is_away_says_try_again(caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryStore):
        async def create(self, *args: Any, **options: Any) -> SessionRecord:
            raise StoreError("no route to host")

    async with http(make_gateway(store=Away())) as client:
        response = await client.post("/v1/sessions", json=BODY)
    assert response.status_code == 503
    assert response.json()["code"] == "SESSION_CREATE_FAILED"
    assert response.headers["retry-after"] == "5"
    assert "route" not in response.text
    assert "no route to host" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/v1/realtime/sess_1", 404, "NOT_FOUND"),
        ("POST", "/v1/sessions/", 404, "NOT_FOUND"),
        ("PUT", "/v1/sessions", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_other_paths_answer_in_the_same_shape(method: str, path: str, status: int, code: str) -> None:
    async with http() as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert response.json()["code"] == code
    assert path in response.json()["error"]


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "BODY_TIMEOUT", 0.05)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        response = await answer_to(body())
    assert response.status_code == 408
    assert response.json()["code"] == "REQUEST_TIMEOUT"
    assert response.headers["connection"] == "close"


async def answer_to(body: AsyncIterator[bytes]) -> httpx.Response:
    """By hand, as httpx listens only when it has sent the whole body."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(body), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/sessions",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"gw.test"), (b"authorization", AUTH["Authorization"].encode())],
    }
    gateway = make_gateway()
    async with gateway.running():
        await gateway.app(scope, receive, send)
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])


async def test_what_the_client_sent_is_shown_in_part_only() -> None:
    long = "x" * 10_000
    response = await refused(400, "VALIDATION_ERROR", "$.mode", json={"mode": long, "s2s": S2S})
    assert 100 < len(response.text) < 350
    async with http() as client:
        assert len((await client.get(f"/{long}")).text) < 350
