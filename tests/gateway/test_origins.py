"""Which pages may use the gateway, by WebSocket and by HTTP."""

from __future__ import annotations

import anyio
import httpx
import pytest

from speko_anyio.gateway import running_gateway
from speko_anyio.gateway._origins import Origins
from speko_anyio.protocol import ErrorFrame, Ready

from .support import KEY, make_gateway, mint, raw_client

APP = "https://app.example.com"


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        "https://",
        "https://app.example.com/path",
        "ftp://x",
        "https://u@x",
        "*",
        "https://x:y",
    ],
)
def test_what_is_no_origin_is_refused_at_once(origin: str) -> None:
    with pytest.raises(ValueError, match="is not an origin; give scheme and host"):
        Origins([origin])


def test_a_usual_port_would_never_match() -> None:
    with pytest.raises(ValueError, match="browsers leave out"):
        Origins(["https://app.example.com:443"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("allowed", "origin", "admitted"),
    [
        (None, "https://anywhere.test", True),
        ([APP], APP, True),
        ([APP], "HTTPS://APP.example.com", True),
        ([APP], None, True),
        ([APP], "https://evil.test", False),
        ([APP], "null", False),
        ([APP], "https://app.example.com.evil.test", False),
        ([APP], "http://app.example.com", False),
        ([], APP, False),
        ([], "http://[broken", False),
    ],
)
async def test_a_websocket_is_admitted_by_its_origin(
    allowed: list[str] | None, origin: str | None, admitted: bool
) -> None:
    headers = [] if origin is None else [("Origin", origin)]
    with anyio.fail_after(20):
        async with running_gateway(make_gateway(allowed_origins=allowed)) as url:
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token, headers=headers) as client:
                first = await client.hear()
                if admitted:
                    assert first == Ready(24000, 24000, ("usage",))
                    return
                # A page is told by a frame and a close code: it sees no HTTP status.
                assert isinstance(first, ErrorFrame)
                assert first.code == "FORBIDDEN"
                assert (await client.hear_close()).code == 1008


@pytest.mark.anyio
async def test_the_gateway_s_own_page_is_always_admitted() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway(allowed_origins=[])) as url:
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token, headers=[("Origin", url)]) as client:
                assert await client.hear() == Ready(24000, 24000, ("usage",))


async def preflight(
    allowed: list[str] | None, origin: str, headers: str = "authorization,content-type"
) -> httpx.Response:
    transport = httpx.ASGITransport(make_gateway(allowed_origins=allowed).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        return await http.options(
            "/v1/sessions",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": headers,
            },
        )


@pytest.mark.anyio
async def test_allowed_pages_may_mint_across_origins_and_others_may_not() -> None:
    allowed = await preflight([APP], APP)
    assert allowed.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in allowed.headers
    for answer in (await preflight([APP], "https://evil.test"), await preflight(None, APP)):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        "authorization,content-type,user-agent",
        "accept,authorization,content-type,idempotency-key,user-agent",
        "authorization,baggage,content-type,sentry-trace,traceparent,x-request-id,x-speko-sdk",
    ],
)
@pytest.mark.anyio
async def test_an_allowed_page_may_send_what_its_sdk_sets(headers: str) -> None:
    """The published SDKs set User-Agent, which Firefox and Safari ask for and Chromium leaves out."""
    allowed = await preflight([APP], APP, headers)
    assert allowed.status_code == 200
    names = allowed.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    assert set(headers.split(",")) <= set(names)
    # A browser asks for no more of another page than that it may.
    other = await preflight([APP], "https://evil.test", headers)
    assert "access-control-allow-origin" not in other.headers
    assert other.status_code == 400


@pytest.mark.parametrize("allowed", [None, []])
@pytest.mark.anyio
async def test_without_a_list_no_page_of_another_origin_may_mint(allowed: list[str] | None) -> None:
    gateway = make_gateway(allowed_origins=allowed)
    transport = httpx.ASGITransport(gateway.app)
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http,
    ):
        body = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}
        headers = {"Origin": APP, "Authorization": f"Bearer {KEY}"}
        answer = await http.post("/v1/sessions", json=body, headers=headers)
        asked = await http.options(
            "/v1/sessions", headers={**headers, "Access-Control-Request-Method": "POST"}
        )
    # The browser sends no such request, as its preflight is not answered; and if it did, shows no answer.
    assert answer.status_code == 201
    assert asked.status_code == 405
    for response in (answer, asked):
        assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.anyio
async def test_an_allowed_page_can_read_errors_and_when_to_come_again() -> None:
    gateway = make_gateway(allowed_origins=[APP])
    transport = httpx.ASGITransport(gateway.app)
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http,
    ):
        answer = await http.post(
            "/v1/sessions", content=b"{", headers={"Origin": APP, "Authorization": f"Bearer {KEY}"}
        )
    assert answer.status_code == 400
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-expose-headers"] == "Retry-After"
