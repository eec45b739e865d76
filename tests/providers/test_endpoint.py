"""Where to connect, and that nobody sees with what."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio import XAI, ConfigurationError, Google, OpenAI
from speko_anyio.protocol import LocalProtocolError
from speko_anyio.protocol.url import parse_url
from speko_anyio.providers._endpoint import Endpoint, websocket_url
from speko_anyio.providers.google import google_endpoint
from speko_anyio.providers.openai import openai_endpoint
from speko_anyio.providers.xai import xai_endpoint

KEY = "sk-secret"


def test_openai() -> None:
    assert openai_endpoint(KEY, "gpt-realtime-2.1") == Endpoint(
        "wss://api.openai.com/v1/realtime?model=gpt-realtime-2.1",
        (("Authorization", "Bearer sk-secret"),),
        secrets=(KEY,),
    )


def test_openai_without_headers() -> None:
    endpoint = openai_endpoint("ek_1", "gpt-realtime-2.1", auth="subprotocol")
    assert endpoint.headers == ()
    assert endpoint.subprotocols == ("realtime", "openai-insecure-api-key.ek_1")


def test_xai() -> None:
    assert xai_endpoint(KEY, "grok-voice-latest") == Endpoint(
        "wss://api.x.ai/v1/realtime?model=grok-voice-latest",
        (("Authorization", "Bearer sk-secret"),),
        secrets=(KEY,),
    )


def test_xai_resumed_without_headers() -> None:
    endpoint = xai_endpoint("tok", "m", conversation_id="a b", reasoning_effort="high", auth="subprotocol")
    assert endpoint.url == "wss://api.x.ai/v1/realtime?model=m&conversation_id=a+b&reasoning.effort=high"
    assert endpoint.subprotocols == ("xai-client-secret.tok",)


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("https://api.openai.com/v1/", "/realtime", "wss://api.openai.com/v1/realtime?model=m%26x"),
        ("http://localhost:8000", "/any/path", "ws://localhost:8000/any/path?model=m%26x"),
        ("ws://[::1]:9/v9?api-version=3", "", "ws://[::1]:9/v9?api-version=3&model=m%26x"),
        ("ws://x.test/v1?model=a&b=%20&mod%65l=c&", "", "ws://x.test/v1?b=%20&model=m%26x"),
    ],
)
def test_any_server_will_do(base_url: str, path: str, url: str) -> None:
    endpoint = openai_endpoint(KEY, "m&x", base_url=base_url, path=path)
    assert endpoint.url == url
    parse_url(endpoint.url)


@pytest.mark.parametrize(
    "base_url", ["", "api.openai.com", "ftp://x", "wss://", "ws://x#y", "ws://[x", "ws://u:p@x"]
)
def test_no_address(base_url: str) -> None:
    with pytest.raises(LocalProtocolError, match="ws://"):
        websocket_url(base_url, "/realtime", ())


@pytest.mark.parametrize("endpoint", [openai_endpoint, xai_endpoint])
@pytest.mark.parametrize(
    ("key", "model"), [("", "m"), (KEY, ""), ("sk secret", "m"), ("sk-\n", "m"), ("é", "m"), (KEY, "\ud800")]
)
def test_what_cannot_be_used_is_refused_and_not_shown(endpoint: Any, key: str, model: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        endpoint(key, model)
    assert KEY not in str(caught.value)
    assert "sk" not in str(caught.value).split()


def test_what_no_error_may_show_is_known() -> None:
    base_url = "wss://proxy.test/v1?api-version=2026-11-25&subscription-key=0123456789abcdef"
    assert openai_endpoint(KEY, "m", base_url=base_url).secrets == (KEY, "0123456789abcdef")
    assert openai_endpoint("ek_1", "m", auth="subprotocol").secrets == ("ek_1",)
    # In a URL it looks otherwise.
    assert google_endpoint("auth_tokens/1", auth="query").secrets == ("auth_tokens/1", "auth_tokens%2F1")


PROXY_KEY = "0123456789abcdef/+"


def test_further_headers_and_query_replace_those_of_their_name() -> None:
    endpoint = openai_endpoint(KEY, "m", base_url="wss://x.test/v1?api-version=1")
    extended = endpoint.extended(
        {"authorization": "Basic 0123456789abcdef", "X-Team": "a"}, {"api-version": "2", "k": PROXY_KEY}
    )
    assert extended.url == "wss://x.test/v1/realtime?model=m&api-version=2&k=0123456789abcdef%2F%2B"
    assert extended.headers == (("authorization", "Basic 0123456789abcdef"), ("X-Team", "a"))
    assert {KEY, "Basic 0123456789abcdef", PROXY_KEY, "0123456789abcdef%2F%2B"} <= set(extended.secrets)
    assert "0123456789abcdef" in extended.secrets  # a provider quotes the key alone
    assert "2" not in extended.secrets
    assert endpoint.extended({}, {}) is endpoint


@pytest.mark.parametrize(
    ("headers", "query"),
    [({"X": "a\r\nb"}, {}), ({"Host": "x"}, {}), ({"X y": "a"}, {}), ({}, {"k": "\ud800"})],
)
def test_further_fields_that_can_not_be_sent(headers: dict[str, str], query: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        openai_endpoint(KEY, "m").extended(headers, query)


@pytest.mark.parametrize("account", [OpenAI, XAI, Google])
def test_an_account_has_them_in_every_request(account: Any) -> None:
    provider = account(KEY, headers={"X-Team": "a"}, query={"trace": "b"})
    endpoint = provider.endpoint(provider.usual_model)
    assert ("X-Team", "a") in endpoint.headers
    assert "trace=b" in endpoint.url
    with pytest.raises(ConfigurationError, match="header"):
        account(KEY, headers={"X-Team": "a\n"})


def test_the_repr_shows_no_secret() -> None:
    endpoint = Endpoint("wss://user:pass1@x.test/v1?key=pass2", (("Authorization", "pass3"),), ("pass4",))
    assert repr(endpoint) == (
        "Endpoint(url='wss://x.test/v1?***', headers=('Authorization',), subprotocols=<1>)"
    )
    assert repr(Endpoint("ws://x.test/v1")) == "Endpoint(url='ws://x.test/v1', headers=(), subprotocols=<0>)"
