"""`Speko`: where it gets its key and URL, what it shows, and whose client it closes."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with` or `async for`

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from speko_anyio import ConfigurationError, MissingAPIKeyError, Ready, SessionGrant, Speko, ToolResult
from speko_anyio.client import opening as opening_module
from speko_anyio.client.stream_driver import StreamDriver
from speko_anyio.protocol.url import WebSocketURL
from tests.support.server import FakeServer, grant

pytestmark = pytest.mark.anyio

KEY = "sk_live_0123456789"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPEKO_API_KEY", "SPEKO_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class API(httpx.AsyncBaseTransport):
    """Grants the session of `tests.support.server` to whoever asks."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        given = grant()
        body = {
            "mode": "s2s",
            "sessionId": given.session_id,
            "wsUrl": given.ws_url,
            "wsToken": given.ws_token,
            "expiresAt": given.expires_at,
        }
        return httpx.Response(201, json=body)


async def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "  "):
        if value is not None:
            monkeypatch.setenv("SPEKO_API_KEY", value)
        with pytest.raises(MissingAPIKeyError, match="SPEKO_API_KEY"):
            Speko()


async def test_an_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", " from-environment\n")
    monkeypatch.setenv("SPEKO_BASE_URL", "http://localhost:1/")
    seen = []
    for key, url in ((None, None), ("own", "https://own.test")):
        transport = API()
        async with httpx.AsyncClient(transport=transport) as client:
            speko = Speko(key, url, http_client=client)
            await speko.realtime.create_session(provider="openai", model="m")
        (request,) = transport.requests
        seen.append((str(request.url), request.headers["authorization"]))
    assert seen == [
        ("http://localhost:1/v1/sessions", "Bearer from-environment"),
        ("https://own.test/v1/sessions", "Bearer own"),
    ]


async def test_no_repr_shows_the_key() -> None:
    speko = Speko(KEY)
    assert repr(speko) == "Speko(base_url='https://api.speko.dev')"
    assert KEY not in repr(speko.realtime)
    assert KEY not in repr(vars(speko))


@pytest.mark.parametrize(
    "url",
    [
        "api.speko.dev",
        "ftp://x",
        "https://",
        "https://x/?q=1",
        "http://[::1",
        "wss://x",
        "http://x:99999",
        "http://x:abc",
        "http://a\tb",
        f"http://{'a' * 300}",
        "http://a..b",
        "https://user:hunter2@x",
    ],
)
async def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SPEKO_BASE_URL") as caught:
        Speko(KEY, url)
    assert isinstance(caught.value, ValueError)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["clé", "two\nlines"])
async def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="SPEKO_API_KEY") as caught:
        Speko(key)
    assert key not in str(caught.value)


async def test_its_own_client_lives_as_long_as_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = API()
    made = httpx.AsyncClient(transport=transport)
    monkeypatch.setattr(httpx, "AsyncClient", lambda: made)
    async with Speko(KEY) as speko:
        for _ in range(2):
            await speko.realtime.create_session(provider="openai", model="m")
        assert len(transport.requests) == 2
        states = [made.is_closed]
    assert [*states, made.is_closed] == [False, True]
    async with Speko(KEY) as unused:
        pass
    assert len(transport.requests) == 2
    speko = unused
    with pytest.raises(RuntimeError, match="async with"):
        await speko.realtime.create_session(provider="openai", model="m")


async def test_a_client_that_was_passed_in_is_not_closed() -> None:
    transport = API()
    async with httpx.AsyncClient(transport=transport) as client:
        async with Speko(KEY, http_client=client) as speko:
            await speko.realtime.create_session(provider="openai", model="m")
        assert not client.is_closed


async def test_connect_mints_and_opens() -> None:
    server = FakeServer()
    server.core.input_sample_rate = 16000
    transport = API()

    async def get_time() -> str:
        """The time."""
        return "noon"

    with anyio.fail_after(5):
        async with (
            httpx.AsyncClient(transport=transport) as client,
            Speko(KEY, http_client=client) as speko,
            speko.realtime.connect(
                provider="openai",
                model="gpt-realtime",
                tools=iter([get_time]),
                ttl_seconds=5000,
                input_sample_rate=16000,
                stream=server.stream,
            ) as session,
        ):
            assert session.input_sample_rate == 16000
            assert isinstance(await session.receive(), Ready)
            server.core.send_tool_call("c1", "get_time", "{}")
            server.flush()
            await session.receive()
            await anyio.wait_all_tasks_blocked()
            assert server.commands == [ToolResult("c1", "noon")]
    body = json.loads(transport.requests[0].content)
    assert body["ttlSeconds"] == 5000
    assert [item["name"] for item in body["s2s"]["tools"]] == ["get_time"]


async def test_an_error_of_the_body_comes_through_connect_bare() -> None:
    server = FakeServer()
    with pytest.raises(ZeroDivisionError):
        async with httpx.AsyncClient(transport=API()) as client:
            connecting = Speko(KEY, http_client=client).realtime.connect(
                provider="openai", model="m", stream=server.stream
            )
            async with connecting:
                raise ZeroDivisionError
    assert server.stream.closed


async def test_open_dials_where_the_grant_says(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    dialled: list[tuple[WebSocketURL, dict[str, object]]] = []

    async def dial(where: WebSocketURL, **options: object) -> StreamDriver:
        dialled.append((where, options))
        return StreamDriver(server.stream)

    monkeypatch.setattr(opening_module, "dial", dial)
    opened: SessionGrant = grant("wss://speko.test:8443/x")
    async with Speko(KEY).realtime.open(opened, connect_timeout=3.0):
        pass
    ((where, options),) = dialled
    assert (where.secure, where.host, where.port) == (True, "speko.test", 8443)
    assert options == {"connect_timeout": 3.0, "ssl_context": None, "proxy": True}


async def test_a_misspelt_option_is_refused_before_anything_is_minted() -> None:
    transport = API()
    misspelt: dict[str, Any] = {"conect_timeout": 1}
    async with httpx.AsyncClient(transport=transport) as client:
        connecting = Speko(KEY, http_client=client).realtime.connect(provider="openai", model="m", **misspelt)
        with pytest.raises(TypeError, match="'conect_timeout'"):
            await connecting.__aenter__()
    assert transport.requests == []
