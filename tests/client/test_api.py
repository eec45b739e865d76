"""`Speko`: where it gets its key and URL, what it shows, and whose client it closes."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with` or `async for`

from __future__ import annotations

import copy
import inspect
import json
import re
import sys
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketAttribute

from speko_anyio import (
    APIConnectionError,
    AuthenticationError,
    ConfigurationError,
    Google,
    MissingAPIKeyError,
    OpenAI,
    ProxyError,
    Ready,
    Realtime,
    SessionGrant,
    SessionOptions,
    Speko,
    open_session,
)
from speko_anyio._extras import install_extra
from speko_anyio._net.contexts import never_swallows
from speko_anyio._net.stream_driver import StreamDriver
from speko_anyio.client import _open_core as open_core_module
from speko_anyio.client import _parameters as parameters_module
from speko_anyio.client._mint import AnyGrant
from speko_anyio.protocol import ToolResult
from speko_anyio.protocol._timeouts import DEFAULT_TIMEOUTS
from speko_anyio.protocol.mint import Credential, ProviderGrant
from speko_anyio.protocol.url import WebSocketURL
from speko_anyio.testing.server import FakeServer, grant
from tests.support.proxy import HTTPProxy, SOCKSProxy, running_proxy

pytestmark = pytest.mark.anyio

KEY = "sk_live_0123456789"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPEKO_API_KEY", "SPEKO_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class API(httpx.AsyncBaseTransport):
    """Grants the session of `speko_anyio.testing.server` to whoever asks."""

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


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "https://x:0", "http://x:port", "http://[::1]:70000/v1"]
)
async def test_a_wrong_port_is_called_one_and_its_source_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "the base URL must have a port from 1 to 65535, or none; check the "
    with pytest.raises(ConfigurationError) as caught:
        Speko(KEY, base_url=url)
    assert str(caught.value) == f"{said}argument base_url (it overrides SPEKO_BASE_URL)"
    monkeypatch.setenv("SPEKO_BASE_URL", url)
    with pytest.raises(ConfigurationError) as caught:
        Speko(KEY)
    assert str(caught.value) == f"{said}variable SPEKO_BASE_URL"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": b"sk_secret"}, "api_key must be a string, not bytes; decode it first"),
        ({"api_key": 12345}, "api_key must be a string, not int"),
        ({"base_url": 8000}, "base_url must be a string, not int"),
        ({"timeout": "30"}, "timeout must be a number, not str"),
        ({"max_retries": "2"}, "max_retries must be a number, not str"),
    ],
)
async def test_an_argument_of_a_wrong_type_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        Speko(**{"api_key": KEY, **options})
    assert str(caught.value) == words


@pytest.mark.parametrize("around", ["\ufeff{}", "\ufeff {}\r\n", "\u200b{}\u00a0", "\n{}\n", "{}\ufeff"])
async def test_what_editors_and_shells_leave_around_a_key_is_no_part_of_it(
    around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", around.format(KEY))
    monkeypatch.setenv("SPEKO_BASE_URL", around.format("https://own.test"))
    transport = API()
    async with httpx.AsyncClient(transport=transport) as client:
        for speko in (Speko(http_client=client), Speko(around.format(KEY), http_client=client)):
            await speko.realtime.create_session(provider="openai", model="m")
    for request in transport.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.url.host == "own.test"
    monkeypatch.setenv("SPEKO_API_KEY", around.format(""))
    with pytest.raises(MissingAPIKeyError):
        Speko()


@pytest.mark.parametrize("key", ["clé", "two\nlines"])
async def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="SPEKO_API_KEY") as caught:
        Speko(key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        ("'{}'", "is in quotes; remove them"),
        ('"{}"', "is in quotes; remove them"),
        (' "{}"\n', "is in quotes; remove them"),
        ("Bearer {}", "begins with `Bearer`; remove that and give the key alone"),
        ("bearer: {}", "begins with `Bearer`"),
    ],
)
async def test_a_key_with_something_around_it_is_told_before_a_plain_401(
    around: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, kind in (("SPEKO_API_KEY", Speko), ("OPENAI_API_KEY", OpenAI), ("GEMINI_API_KEY", Google)):
        monkeypatch.setenv(variable, around.format(KEY))
        with pytest.raises(ConfigurationError, match=f"the API key {expected}") as caught:
            kind()
        assert variable in str(caught.value)
        assert KEY not in str(caught.value)


async def test_its_own_client_lives_as_long_as_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = API()
    made = httpx.AsyncClient(transport=transport)
    monkeypatch.setattr(httpx, "AsyncClient", lambda **_: made)
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
                model="gpt-realtime-2.1",
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


async def test_a_connection_is_made_once() -> None:
    server = FakeServer()
    transport = API()
    async with httpx.AsyncClient(transport=transport) as client:
        connecting = Speko(KEY, http_client=client).realtime.connect(
            provider="openai", model="m", stream=server.stream
        )
        async with connecting:
            with pytest.raises(RuntimeError, match="once"):
                await connecting.__aenter__()
    assert len(transport.requests) == 1


async def test_awaiting_a_session_says_how_it_is_opened() -> None:
    grants: list[AnyGrant] = [grant()]
    grants.append(
        ProviderGrant(
            transport="provider_direct",
            session_id="s1",
            provider="openai",
            model="m",
            adapter="openai.realtime.v1",
            provider_transport="websocket",
            endpoint="wss://p.test",
            credential=Credential(kind="bearer", value="ek"),
        )
    )
    waiting: list[Any] = [Speko(KEY).realtime.connect(provider="openai", model="m")]
    waiting += [open_session(granted) for granted in grants]
    waiting.append(OpenAI("sk-test").connect(model="m"))
    for session in waiting:
        with pytest.raises(TypeError, match="is opened with `async with`, not with await"):
            await session
        with pytest.raises(TypeError, match="a session is opened with `async with`, not with a plain `with`"):
            with session:
                pass
        with pytest.raises(TypeError, match="is opened with `async with`, not with `async for` alone"):
            async for _ in session:
                pass
        for name in ("commit", "send_audio", "frames", "on", "session_id"):
            with pytest.raises(
                AttributeError, match=f"'{name}' can't be used yet: .*async with .* as session:"
            ):
                getattr(session, name)
            assert not hasattr(session, name)
        assert not hasattr(session, "__len__")
        with pytest.raises(AttributeError, match="object has no attribute '_x'"):
            session._x  # noqa: B018
        assert inspect.isawaitable(copy.copy(session))
        repr(session)


class FakeHTTP:
    async def request(self, *_: object, **__: object) -> Any:
        raise ZeroDivisionError


async def test_a_session_is_entered_once() -> None:
    server = FakeServer()
    block = open_session(grant(), stream=server.stream)
    async with block:
        pass
    with pytest.raises(RuntimeError, match="call `connect` or `open_session` again for another one"):
        await block.__aenter__()
    async with Speko(KEY, http_client=FakeHTTP()) as speko:
        connecting = speko.realtime.connect(provider="local", model="any")
        with pytest.raises(ZeroDivisionError):
            await connecting.__aenter__()
        with pytest.raises(RuntimeError, match="call `connect` or `open` again for another one"):
            await connecting.__aenter__()


async def test_a_client_is_opened_with_async_with() -> None:
    speko: Any = Speko(KEY)
    with pytest.raises(TypeError, match="Speko is opened with `async with`, not with a plain `with`"):
        with speko:
            pass
    # Frameworks await anything awaitable, so a factory that returns a client must not look awaitable.
    assert not inspect.isawaitable(speko)


async def test_a_stream_of_frames_is_opened_with_async_with() -> None:
    server = FakeServer()
    async with open_session(grant(), stream=server.stream) as session:
        frames: Any = session.frames(Ready)
        with pytest.raises(
            TypeError, match="a stream of frames is opened with `async with`, not with `async"
        ):
            async for _ in frames:
                pass
        with pytest.raises(TypeError, match=r"not with await: `async with session\.frames"):
            await frames
        with pytest.raises(TypeError, match="not with a plain `with`"):
            with frames:
                pass
        with pytest.raises(AttributeError, match="'dropped_frames' can't be used yet: a stream of frames"):
            _ = frames.dropped_frames
        async with frames as stream:
            assert stream.dropped_frames == 0
        with pytest.raises(RuntimeError, match=r"call `session\.frames\(\.\.\.\)` again"):
            await frames.__aenter__()


async def test_open_dials_where_the_grant_says(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    dialled: list[tuple[WebSocketURL, dict[str, object]]] = []

    async def dial(where: WebSocketURL, **options: object) -> StreamDriver:
        dialled.append((where, options))
        return StreamDriver(server.stream)

    monkeypatch.setattr(open_core_module, "dial", dial)
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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("instructions", "did you mean system_prompt?"),
        ("Instructions", "did you mean system_prompt?"),
        ("sample_rate", "did you mean input_sample_rate?"),
        ("functions", "did you mean tools?"),
        ("temprature", "did you mean temperature?"),
        ("ttl", "did you mean ttl_seconds?"),
        ("timeout", "did you mean connect_timeout?"),
        (
            "provider_extra",
            "it is an option of a provider: pass OpenAI(options=OpenAIOptions(provider_",
        ),
        (
            "thinking_budget",
            "it is an option of a provider: pass Google(options=GoogleOptions(thinking_",
        ),
        ("colour", "the options are provider, model, voice, system_prompt, temperature, input_sample_rate, "),
    ],
)
async def test_an_unknown_option_is_answered_with_all_that_connect_takes(name: str, words: str) -> None:
    options: dict[str, Any] = {name: "x"}
    for connecting in (
        Speko(KEY).realtime.connect(provider="openai", model="m", **options),
        OpenAI("sk-test").connect(model="m", **options),
        open_session(grant(), **options),
    ):
        with pytest.raises(TypeError) as caught:
            await connecting.__aenter__()
        assert str(caught.value).startswith(f"unknown session option {name!r}; {words}")


async def test_the_words_for_other_names_name_what_there_is() -> None:
    named = {*inspect.signature(Realtime.connect).parameters} - {"self", "parameters"}
    known = {*named, *parameters_module.ConnectParameters.__annotations__}
    assert set(parameters_module._HABITS.values()) <= known
    assert set(parameters_module._MINTED) == known - set(SessionOptions.__annotations__)
    assert set(parameters_module._NUMBERS) <= set(SessionOptions.__annotations__)


async def test_what_a_mint_settles_is_not_an_option_of_open() -> None:
    voice: dict[str, Any] = {"voice": "marin"}
    with pytest.raises(TypeError, match=r"'voice'; voice is settled at the mint: pass it to speko"):
        await open_session(grant(), **voice).__aenter__()


def get_weather(city: str) -> str:
    """The weather.

    Args:
        city: where
    """
    return city


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": get_weather}, "tools must be a list, such as tools=[get_weather]"),
    ({"tools": "get_weather"}, "tools must be a list of functions, not str"),
    ({"tools": None}, "tools must be a list of functions, not NoneType"),
    ({"tools": {"name": "x"}}, "tools must be a list of functions, not dict"),
    ({"metadata": [1]}, "metadata must be a dict, not list"),
    ({"metadata": {"a": object()}}, "metadata can't be written as JSON (Encoding objects of type object"),
    ({"webhook_tags": ["a"]}, "webhook_tags must be a dict, not list"),
    ({"connect_timeout": "5"}, "connect_timeout must be a number, not str"),
    ({"ping_interval": "5"}, "ping_interval must be a number, not str"),
    ({"close_timeout": float("nan")}, "close_timeout is not a number (NaN)"),
    ({"max_buffer": "1M"}, "max_buffer must be a number, not str"),
    (
        {"proxy": 3128},
        "proxy must be the URL of a proxy, True for the environment's",
    ),
    ({"ssl_context": True}, "ssl_context must be an ssl.SSLContext, not bool"),
    ({"limits": 5}, "limits must be a speko_anyio.protocol.Limits"),
    ({"observer": 3}, "3 can't observe a session"),
    ({"ttl_seconds": "60"}, "ttl_seconds must be a number, not str"),
    ({"agent_id": 7}, "agent_id must be a string, not int"),
    ({"model": None}, "model must be a string, not NoneType"),
    ({"voice": b"marin"}, "voice must be a string, not bytes; decode it first"),
    ({"system_prompt": "\ud800"}, "system_prompt has half of a surrogate pair"),
    ({"temperature": "0.8"}, "temperature must be a number, not str"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[str(*options) for options, _ in WRONG])
async def test_a_value_of_a_wrong_type_is_a_sentence_and_mints_nothing(
    options: dict[str, Any], words: str
) -> None:
    transport = API()
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises((TypeError, ValueError)) as caught:
            connect: Any = Speko(KEY, http_client=client).realtime.connect
            async with connect(**{"provider": "openai", "model": "m", **options}):
                raise AssertionError
    assert str(caught.value).startswith(words)
    assert transport.requests == []
    minted_only = {"metadata", "webhook_tags", "agent_id", "ttl_seconds"}
    if not minted_only & options.keys():
        with pytest.raises((TypeError, ValueError)) as caught:
            connect = OpenAI("sk-test").connect
            async with connect(**{"model": "m", **options}):
                raise AssertionError
        assert str(caught.value).startswith(words)


async def test_a_providers_key_and_url_are_text() -> None:
    wrong: Any
    for wrong in (b"sk_secret", 12345):
        with pytest.raises(TypeError, match=f"api_key must be a string, not {type(wrong).__name__}"):
            OpenAI(wrong)
        with pytest.raises(TypeError, match=f"base_url must be a string, not {type(wrong).__name__}"):
            OpenAI("sk-test", base_url=wrong)


@never_swallows
async def refusing_service(before: bytes = b"") -> AsyncGenerator[tuple[int, list[str]], None]:
    """An HTTP server on the loopback that answers 401, and `before` ahead of that: its port, and what it was
    sent."""
    asked: list[str] = []

    async def serve(stream: ByteStream) -> None:
        async with stream:
            asked.append((await stream.receive()).decode())
            await stream.send(before + b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            yield listener.extra(SocketAttribute.local_port), asked
            tasks.cancel_scope.cancel()


async def ask(url: str, **options: Any) -> None:
    async with Speko(KEY, url, max_retries=0, **options) as speko:
        await speko.realtime.create_session(provider="openai", model="m")


async def test_the_mint_goes_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        refusing_service() as (port, asked),
        running_proxy(SOCKSProxy({"speko.test": port}, login=("me", "secret"))) as proxy,
    ):
        monkeypatch.setenv("ALL_PROXY", proxy.url("me:secret@"))
        with pytest.raises(AuthenticationError):
            await ask(f"http://speko.test:{port}")
    assert proxy.targets == [("speko.test", port)]
    assert asked[0].startswith("POST /v1/sessions HTTP/1.1\r\n")


async def test_the_mints_error_names_the_proxy_and_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    await listener.aclose()
    monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(APIConnectionError) as caught:
        await ask("https://speko.test")
    assert f"can't be reached through the proxy 127.0.0.1:{port} in https_proxy (" in str(caught.value)
    assert str(caught.value).endswith("; check https_proxy and that the proxy runs there")
    assert type(caught.value) is ProxyError
    assert "secret" not in str(caught.value)
    with pytest.raises(ProxyError, match=r"; check https_proxy and that the proxy runs there$"):
        async with open_session(grant("wss://speko.test")):
            pass
    async with running_proxy(HTTPProxy(login=("other", "secret"))) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url("me:secret@"))
        with pytest.raises(ProxyError, match=r"check https_proxy and the user:password@ there"):
            await ask("https://speko.test")
        assert proxy.logins == [("me", "secret")]


async def test_interim_responses_come_before_the_answer() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with refusing_service(interim * 3) as (port, _):
        with pytest.raises(AuthenticationError):
            await ask(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "value",
    ["127.0.0.0/8,::1/128", "[::1]:8080,127.0.0.1", "fd07:b51a:cc66::/64;127.0.0.1", "<local>|127.0.0.1"],
)
async def test_no_entry_of_no_proxy_keeps_the_mint_from_working(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", value)
    async with refusing_service() as (port, _):
        with pytest.raises(AuthenticationError):
            await ask(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["socks4://me:secret@a:1", "http://me:secret@[::1"])
async def test_a_proxy_of_the_environment_that_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    async with Speko(KEY) as speko:
        with pytest.raises(ConfigurationError, match="the environment variable HTTPS_PROXY is not") as caught:
            await speko.realtime.create_session(provider="openai", model="m")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_socks_proxy_without_the_library_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://a:1")
    monkeypatch.setitem(sys.modules, "socksio", None)
    for name in [name for name in sys.modules if name.startswith("httpcore._async.socks")]:
        monkeypatch.delitem(sys.modules, name)
    async with Speko(KEY) as speko:
        with pytest.raises(ConfigurationError, match=re.escape(install_extra("socks"))):
            await speko.realtime.create_session(provider="openai", model="m")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("temprature", "unknown session parameter 'temprature'; did you mean temperature?"),
        ("instructions", "unknown session parameter 'instructions'; did you mean system_prompt?"),
        ("timeout", "unknown session parameter 'timeout'; the options are provider, model, voice, "),
        ("close_timeout", "close_timeout is an option of the open session: pass it to connect or open"),
    ],
)
async def test_an_unknown_parameter_of_a_mint_is_named_before_anything_is_sent(name: str, words: str) -> None:
    transport = API()
    wrong: dict[str, Any] = {name: 1}
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(TypeError) as caught:
            await Speko(KEY, http_client=client).realtime.create_session(
                provider="openai", model="m", **wrong
            )
    assert str(caught.value).startswith(words)
    assert transport.requests == []


def test_a_session_needs_a_provider_and_a_model_at_once() -> None:
    missing: dict[str, Any] = {"provider": "openai"}
    for start in (Speko(KEY).realtime.connect, Speko(KEY).realtime.create_session):
        with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'model'"):
            start(**missing)


def test_the_documented_defaults_are_those_of_the_core() -> None:
    described = inspect.getsource(SessionOptions)
    for name, default in {
        "connect_timeout": DEFAULT_TIMEOUTS.connect,
        "handshake_timeout": DEFAULT_TIMEOUTS.handshake,
        "close_timeout": DEFAULT_TIMEOUTS.close,
        "ping_interval": DEFAULT_TIMEOUTS.ping_interval,
        "ping_timeout": DEFAULT_TIMEOUTS.ping_timeout,
        "warn_before": DEFAULT_TIMEOUTS.warn_before,
    }.items():
        assert re.search(rf'    {name}: .*\n    """[^"]*default {default:g}\."""', described), name
