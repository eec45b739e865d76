"""Minting over HTTP, against a transport in memory and on a virtual clock."""

from __future__ import annotations

import email.utils
import gzip
import itertools
import json
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import httpx2
import msgspec
import pytest

from speko_anyio import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ProxyError,
    RateLimitError,
    ServerError,
    SessionGrant,
    Speko,
    ToolSpec,
    UnsupportedTransportError,
    tool,
)
from speko_anyio.errors import APIResponseError
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend

pytestmark = pytest.mark.anyio

KEY = "sk_live_0123456789"
ANSWER: dict[str, Any] = {
    "mode": "s2s",
    "sessionId": "s1",
    "wsUrl": "wss://api.speko.dev/v1/sessions/s1/stream",
    "wsToken": "wst_secret",
    "inputSampleRate": 16000,
    "outputSampleRate": 24000,
    "expiresAt": "2030-01-01T00:00:00Z",
}

Reply = httpx.Response | Exception


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class API:
    """Gives `replies` in order, the last one for ever, and keeps what it was asked."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)


async def mint(api: API, **options: Any) -> SessionGrant:
    base_url = options.pop("base_url", None)
    retries = options.pop("max_retries", 2)
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as client:
        speko = Speko(KEY, base_url, max_retries=retries, http_client=client)
        wanted: dict[str, Any] = {"provider": "openai", "model": "gpt-realtime-2.1", **options}
        return await speko.realtime.create_session(**wanted)


async def refused(api: API, **options: Any) -> APIError:
    with pytest.raises(APIError) as caught:
        await mint(api, **options)
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error} {error!r}"
        error = error.__cause__
    return caught.value


def ok(**changes: Any) -> httpx.Response:
    return httpx.Response(201, json={**ANSWER, **changes})


async def test_the_request_is_as_the_protocol_says_and_leaves_out_what_was_not_given() -> None:
    api = API(ok())
    await mint(api)
    (request,) = api.requests
    assert (request.method, str(request.url)) == ("POST", "https://api.speko.dev/v1/sessions")
    assert json.loads(request.content) == {
        "mode": "s2s",
        "s2s": {"provider": "openai", "model": "gpt-realtime-2.1"},
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("speko-anyio/")
    assert len(request.headers["idempotency-key"]) >= 32


async def test_everything_that_can_be_asked_for() -> None:
    @tool
    def now() -> str:
        """The time."""
        return ""

    api = API(ok())
    await mint(
        api,
        base_url="http://localhost:8080/api/",
        provider="xai",
        model="grok-voice-beta",
        voice="ara",
        system_prompt="Be brief.",
        temperature=0.5,
        input_sample_rate=16000,
        output_sample_rate=24000,
        tools=[now, ToolSpec(name="end", parameters={"type": "object"})],
        metadata={"call": 7},
        ttl_seconds=600,
        agent_id="a1",
        webhook_tags={"env": "test"},
    )
    assert str(api.requests[0].url) == "http://localhost:8080/api/v1/sessions"
    assert json.loads(api.requests[0].content) == {
        "mode": "s2s",
        "s2s": {
            "provider": "xai",
            "model": "grok-voice-beta",
            "voice": "ara",
            "systemPrompt": "Be brief.",
            "temperature": 0.5,
            "inputSampleRate": 16000,
            "outputSampleRate": 24000,
            "tools": [
                {
                    "name": "now",
                    "description": "The time.",
                    "parameters": {"type": "object", "properties": {}, "required": []},
                },
                {"name": "end", "description": "", "parameters": {"type": "object"}},
            ],
        },
        "metadata": {"call": 7},
        "ttlSeconds": 600,
        "agentId": "a1",
        "webhookTags": {"env": "test"},
    }


async def test_the_grant() -> None:
    grant = await mint(API(ok(newField=1)))
    assert grant == msgspec.convert(ANSWER, SessionGrant)
    assert "wst_secret" not in repr(grant)


@pytest.mark.parametrize(
    ("asked", "expected"), [({"input_sample_rate": 16000}, (16000, 24000)), ({}, (24000, 24000))]
)
async def test_rates_that_an_older_service_leaves_out(
    asked: dict[str, Any], expected: tuple[int, int]
) -> None:
    answer = {name: value for name, value in ANSWER.items() if not name.endswith("Rate")}
    grant = await mint(API(httpx.Response(201, json=answer)), **asked)
    assert (grant.input_sample_rate, grant.output_sample_rate) == expected


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, APIStatusError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
    ],
)
async def test_each_status_has_its_error(status: int, kind: type[APIStatusError]) -> None:
    error = await refused(API(httpx.Response(status, json={"error": "no such model", "code": "NOPE"})))
    assert type(error) is kind
    assert isinstance(error, APIStatusError)
    assert (error.status, error.code, error.message) == (status, "NOPE", "no such model")
    assert f"api.speko.dev answered HTTP {status} NOPE: no such model; " in str(error)


@pytest.mark.parametrize("status", [429, 503])
async def test_an_answer_s_own_advice_is_not_repeated(status: int) -> None:
    body = {"error": "the records are away; try again", "code": "NOPE"}
    error = await refused(API(httpx.Response(status, json=body)))
    assert isinstance(error, APIStatusError)
    assert error.message == "the records are away; try again"
    assert "NOPE: the records are away; try again" in str(error)
    assert str(error).count("try again") == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"Bad Gateway\n", "Bad Gateway"),
        (b"", "no message"),
        (b'{"error": {"nested": true}}', '{"error": {"nested": true}}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 10_000, "x" * 299 + "…"),
        (b"<p>\n\x1b[31mno\x07\r\n</p>", r"<p> \x1b[31mno\x07 </p>"),
        (f"key {KEY[:4]}\x00{KEY[4:]}".encode(), "key <api key>"),
        (f"your key {KEY} is wrong".encode(), "your key <api key> is wrong"),
    ],
)
async def test_a_body_that_is_not_the_documented_json_is_the_message(body: bytes, message: str) -> None:
    error = await refused(API(httpx.Response(500, content=body)))
    assert isinstance(error, APIStatusError)
    assert (error.code, error.message) == ("UNKNOWN", message)


@pytest.mark.parametrize("key", ["wrong", "key", "missing", "test", "api"])
async def test_a_key_that_is_an_ordinary_word_leaves_the_sentence_whole(key: str) -> None:
    said = "the API key is missing or not valid; send it as Authorization: Bearer <api key>"
    api = API(httpx.Response(401, json={"error": said, "code": "UNAUTHORIZED"}))
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as client:
        with pytest.raises(AuthenticationError) as caught:
            await Speko(key, http_client=client).realtime.create_session(provider="openai", model="m")
    assert caught.value.message == said


PAGE = b"\n<!DOCTYPE html><html><head><title>404</title></head><body>nothing here</body></html>"


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
@pytest.mark.parametrize("body", [PAGE, b'{"detail":"Not Found"}', b"404 page not found", b""])
async def test_a_server_that_is_no_speko_api_is_called_that(status: int, body: bytes) -> None:
    error = await refused(API(httpx.Response(status, content=body)), max_retries=0)
    assert str(error).endswith("; this is not a Speko API; check the base URL")
    assert "<" not in str(error)


@pytest.mark.parametrize("status", [401, 429, 500, 502])
async def test_no_error_shows_an_html_page(status: int) -> None:
    error = await refused(API(httpx.Response(status, content=PAGE)), max_retries=0)
    assert isinstance(error, APIStatusError)
    assert error.message == "an HTML page"
    assert "not a Speko API" not in str(error)


async def test_an_answer_that_is_not_json_is_not_from_a_speko_api() -> None:
    error = await refused(API(httpx.Response(200, content=PAGE)))
    assert str(error).endswith("; this is not a Speko API; check the base URL")
    assert "<" not in str(error)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1", "leave out /v1 at the end"),
        ("/v1/", "leave out /v1 at the end"),
        ("/api/v1/sessions", "leave out /v1/sessions at the end"),
    ],
)
@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(404, json={"error": "POST /v1/v1/sessions: Not Found", "code": "NOT_FOUND"}),
        httpx.Response(404, content=PAGE),
        httpx.Response(200, content=PAGE),
    ],
)
async def test_a_base_url_with_the_apis_own_path_is_corrected(
    path: str, words: str, reply: httpx.Response
) -> None:
    api = API(reply)
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as client:
        with pytest.raises(APIError, match=f"; {words} of the base URL$"):
            await Speko(KEY, f"https://x.test{path}", http_client=client).realtime.create_session(
                provider="openai", model="m"
            )
    assert str(api.requests[0].url).startswith(f"https://x.test{path.rstrip('/')}/v1/sessions")


def in_90_seconds(form: str) -> str:
    # What strftime writes for names depends on the locale, which the tests leave at C.
    return time.strftime(form, time.gmtime(time.time() + 90))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", 120.0),
        ("0", 0.0),
        # RFC 9110, section 5.6.7: IMF-fixdate and the two obsolete forms, of RFC 850 and asctime.
        ("%a, %d %b %Y %H:%M:%S GMT", pytest.approx(90, abs=3)),
        ("%A, %d-%b-%y %H:%M:%S GMT", pytest.approx(90, abs=3)),
        ("%a %b %e %H:%M:%S %Y", pytest.approx(90, abs=3)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("soon", None),
        ("-1", None),
        (None, None),
    ],
)
async def test_retry_after_in_every_form(
    header: str | None, expected: object, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {} if header is None else {"Retry-After": in_90_seconds(header) if "%" in header else header}
    reply = httpx.Response(429, headers=headers, json={"error": "slow down", "code": "RATE"})
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        error = await refused(API(reply), max_retries=0)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert isinstance(error, RateLimitError)
    assert error.retry_after == expected


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.Response(429),
        httpx.Response(502),
        httpx.Response(503),
        httpx.Response(504),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        ConnectionResetError("reset"),
    ],
    ids=repr,
)
async def test_what_is_safe_to_ask_again_is_asked_again_with_one_key(trouble: Reply) -> None:
    api = API(trouble, trouble, ok())
    start = anyio.current_time()
    assert (await mint(api)).session_id == "s1"
    assert len({request.headers["idempotency-key"] for request in api.requests}) == 1
    assert len({request.content for request in api.requests}) == 1
    assert 0.75 <= anyio.current_time() - start <= 1.5
    await refused(API(trouble), max_retries=1)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.Response(400),
        httpx.Response(401),
        httpx.Response(500),
        httpx.Response(429, headers={"Retry-After": "60"}),
        httpx.ReadTimeout("slow"),
        TimeoutError(),
        httpx.UnsupportedProtocol("gopher"),
        httpx.ProxyError("407 Proxy Authentication Required"),
    ],
    ids=repr,
)
async def test_what_is_not_is_not(trouble: Reply) -> None:
    api = API(trouble, ok())
    start = anyio.current_time()
    await refused(api)
    assert len(api.requests) == 1
    assert anyio.current_time() == start


class HTTPX2API(httpx2.AsyncBaseTransport):
    """The same as `API`, for a client of httpx2."""

    def __init__(self, *replies: httpx2.Response | Exception) -> None:
        self.replies = list(replies)
        self.asked = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


async def mint_with_httpx2(api: HTTPX2API) -> SessionGrant:
    async with httpx2.AsyncClient(transport=api) as client:
        speko = Speko(KEY, http_client=client)
        return await speko.realtime.create_session(provider="openai", model="gpt-realtime-2.1")


@pytest.mark.parametrize(
    "trouble",
    [
        httpx2.Response(503),
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("slow"),
        httpx2.RemoteProtocolError("Server disconnected without sending a response."),
    ],
    ids=repr,
)
async def test_a_client_of_httpx2_is_retried_as_one_of_httpx(trouble: httpx2.Response | Exception) -> None:
    api = HTTPX2API(trouble, httpx2.Response(201, json=ANSWER))
    assert (await mint_with_httpx2(api)).session_id == "s1"
    assert api.asked == 2


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (httpx2.ReadTimeout("slow"), APIConnectionError),
        (httpx2.PoolTimeout("slow"), APIConnectionError),
        (httpx2.UnsupportedProtocol("gopher"), APIConnectionError),
        (httpx2.ProxyError("407 no"), ProxyError),
        (httpx2.DecodingError("incorrect header check"), APIResponseError),
        (httpx2.Response(401), AuthenticationError),
        (httpx2.Response(307, headers={"Location": "https://evil.test/"}), APIStatusError),
    ],
    ids=repr,
)
async def test_a_client_of_httpx2_gives_the_same_errors(
    trouble: httpx2.Response | Exception, kind: type[APIError]
) -> None:
    api = HTTPX2API(trouble)
    with pytest.raises(APIError) as caught:
        await mint_with_httpx2(api)
    assert type(caught.value) is kind
    assert api.asked == 1


async def test_an_error_that_is_no_http_clients_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await mint(API(ZeroDivisionError()))


async def test_a_short_retry_after_is_kept() -> None:
    api = API(httpx.Response(429, headers={"Retry-After": "7"}), ok())
    start = anyio.current_time()
    await mint(api)
    assert anyio.current_time() - start == pytest.approx(7.0)


async def test_a_retry_after_that_is_a_date_is_kept_too() -> None:
    at = email.utils.formatdate(time.time() + 7, usegmt=True)
    api = API(httpx.Response(503, headers={"Retry-After": at}), ok())
    start = anyio.current_time()
    await mint(api)
    # A date has whole seconds, and the clock of the day goes on.
    assert 4.0 <= anyio.current_time() - start <= 7.0


async def test_the_waits_grow_and_are_not_all_alike() -> None:
    waits: list[list[float]] = []
    for _ in range(5):
        times: list[float] = []

        def note(request: httpx.Request, times: list[float] = times) -> httpx.Response:
            times.append(anyio.current_time())
            return httpx.Response(503)

        async with httpx.AsyncClient(transport=httpx.MockTransport(note)) as client:
            with pytest.raises(ServerError):
                await Speko(KEY, max_retries=6, http_client=client).realtime.create_session(
                    provider="openai", model="m"
                )
        waits.append([later - earlier for earlier, later in itertools.pairwise(times)])
    for row in waits:
        for wait, longest in zip(row, (0.5, 1.0, 2.0, 4.0, 8.0, 8.0), strict=True):
            assert longest / 2 <= wait <= longest
    assert len({row[0] for row in waits}) > 1


async def test_cancelled_while_it_waits_it_asks_no_more() -> None:
    api = API(httpx.Response(503))
    with anyio.move_on_after(0.2) as scope:
        await mint(api)
    assert scope.cancelled_caught
    await anyio.sleep(10.0)
    assert len(api.requests) == 1


async def test_each_session_has_a_key_of_its_own() -> None:
    api = API(ok())
    await mint(api)
    await mint(api)
    assert len({request.headers["idempotency-key"] for request in api.requests}) == 2


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (httpx.ConnectError("[Errno 111] refused"), "api.speko.dev can't be reached ([Errno 111] refused)"),
        (httpx.ReadTimeout(""), "api.speko.dev did not answer within 30 s"),
        (OSError(), "api.speko.dev can't be reached (OSError)"),
    ],
)
async def test_an_unreachable_service_is_one_error_that_names_it(trouble: Exception, words: str) -> None:
    error = await refused(API(trouble), max_retries=0)
    assert type(error) is APIConnectionError
    assert words in str(error)
    assert "check the network" in str(error)
    assert error.__cause__ is trouble


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["https://evil.test/v1/sessions", "/elsewhere", None])
async def test_a_redirect_is_not_followed(status: int, location: str | None) -> None:
    api = API(httpx.Response(status, headers={"Location": location} if location else {}), ok())
    error = await refused(api)
    assert [request.url.host for request in api.requests] == ["api.speko.dev"]
    assert isinstance(error, APIStatusError)
    assert error.status == status
    assert ("evil.test" in str(error)) == (location is not None and "evil" in location)


async def test_a_client_that_follows_redirects_by_itself_is_told_not_to() -> None:
    api = API(httpx.Response(307, headers={"Location": "https://evil.test/"}), ok())
    async with httpx.AsyncClient(transport=httpx.MockTransport(api), follow_redirects=True) as client:
        with pytest.raises(APIStatusError):
            await Speko(KEY, http_client=client).realtime.create_session(provider="openai", model="m")
    assert [request.url.host for request in api.requests] == ["api.speko.dev"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>welcome</html>",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**ANSWER, "wsToken": 7}).encode(),
        json.dumps({**ANSWER, "mode": "cascade"}).encode(),
    ],
    ids=["empty", "html", "array", "object", "not UTF-8", "deep", "wrong type", "other mode"],
)
async def test_an_answer_of_a_wrong_shape_is_one_clear_error(body: bytes) -> None:
    error = await refused(API(httpx.Response(201, content=body)))
    assert type(error) is APIResponseError
    assert "api.speko.dev answered with something that is not a session" in str(error)
    assert "wst_secret" not in f"{error!r}"


async def test_a_grant_for_another_transport_names_it_and_shows_no_credential() -> None:
    reply = {
        "mode": "s2s",
        "transport": "provider_direct",
        "sessionId": "s1",
        "provider": "openai",
        "model": "gpt-realtime-2.1",
        "adapter": "openai.realtime.v1",
        "providerTransport": "webrtc",
        "endpoint": "https://provider.test",
        "credential": {"kind": "bearer", "value": "ek_secret", "expiresAt": "2030-01-01T00:00:00Z"},
    }
    error = await refused(API(httpx.Response(201, json=reply)))
    assert isinstance(error, UnsupportedTransportError)
    assert error.transport == "provider_direct"
    assert "'provider_direct' (openai.realtime.v1, webrtc)" in str(error)
    assert "ek_secret" not in repr(error)


async def test_a_transport_that_comes_with_a_websocket_is_served() -> None:
    assert (await mint(API(ok(transport="proxy")))).session_id == "s1"


async def test_an_answer_that_cannot_be_decoded_is_an_error_of_ours() -> None:
    error = await refused(API(httpx.DecodingError("incorrect header check")), max_retries=0)
    assert isinstance(error, APIResponseError)
    assert "can't be decoded" in str(error)


async def test_a_redirect_to_no_url_is_an_error_of_ours() -> None:
    class Client:
        # Not httpx's, which refuses the header by itself.
        async def request(self, *args: object, **options: object) -> httpx.Response:
            return httpx.Response(302, headers={"location": "http://[::1"})

    with pytest.raises(APIStatusError, match="a redirect to elsewhere"):
        await Speko(KEY, http_client=Client()).realtime.create_session(provider="openai", model="m")


@pytest.mark.parametrize("temperature", [float("nan"), float("inf")])
async def test_a_temperature_that_json_has_no_number_for_asks_nothing(temperature: float) -> None:
    api = API(ok())
    with pytest.raises(ConfigurationError, match="temperature"):
        await mint(api, temperature=temperature)
    assert api.requests == []


async def test_a_wait_beyond_all_numbers_is_none() -> None:
    error = await refused(API(httpx.Response(429, headers={"retry-after": "9" * 400})), max_retries=0)
    assert isinstance(error, RateLimitError)
    assert error.retry_after is None


async def test_a_proxy_that_refuses_is_not_taken_for_the_service() -> None:
    error = await refused(API(httpx.ProxyError("407 no\x1b[1m\n way")))
    assert type(error) is ProxyError
    assert "the proxy on the way to api.speko.dev refused to connect (407 no\\x1b[1m way)" in str(error)


class Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), 65_536):
            yield self._content[start : start + 65_536]


async def answered(encoding: str, content: bytes) -> SessionGrant:
    body = Body(content)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(201, headers={"Content-Encoding": encoding}, stream=body)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        speko = Speko(KEY, http_client=client, max_retries=0)
        return await speko.realtime.create_session(provider="openai", model="m")


def bare(content: bytes) -> bytes:
    deflating = zlib.compressobj(wbits=-15)
    return deflating.compress(content) + deflating.flush()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare),
        ("deflate, gzip", lambda content: gzip.compress(zlib.compress(content))),
    ],
)
async def test_an_answer_that_is_compressed_unasked_is_read(
    encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    grant = await answered(encoding, encode(json.dumps(ANSWER).encode()))
    assert grant.session_id == "s1"


@pytest.mark.parametrize(
    ("encoding", "content", "why"),
    [
        ("gzip", gzip.compress(bytes(64 * 1024 * 1024), 1), "more than 1048576 bytes"),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(256 * 1024 * 1024), 1)), "more than 1048576 bytes"),
        ("", bytes(8 * 1024 * 1024), "more than 1048576 bytes"),
        ("br", b"\0", "can't be decoded"),
        ("gzip", b"\0", "can't be decoded"),
        ("gzip", gzip.compress(b"{}")[:-9], "can't be decoded"),
        ("gzip, gzip, gzip", b"", "can't be decoded"),
    ],
    ids=["bomb", "bomb in a bomb", "long", "unknown", "broken", "cut", "nested"],
)
async def test_an_answer_that_would_fill_the_memory_is_refused(
    encoding: str, content: bytes, why: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(APIResponseError, match=why):
            await answered(encoding, content)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "url", ["ws://speko.test/s", "WS://speko.test/s", "http://speko.test/s", "ws://[::2]/s"]
)
async def test_a_mint_over_https_grants_no_session_in_the_clear(url: str) -> None:
    api = API(httpx.Response(201, json={**ANSWER, "wsUrl": url}))
    with pytest.raises(APIResponseError, match="without encryption"):
        await mint(api)
    # Whoever mints in the clear asked for it.
    assert (await mint(api, base_url="http://speko.test")).ws_url == url


@pytest.mark.parametrize("host", ["localhost:8080", "a.localhost", "127.0.0.1:1", "[::1]"])
async def test_a_session_on_the_same_machine_needs_no_encryption(host: str) -> None:
    url = f"ws://{host}/s"
    assert (await mint(API(httpx.Response(201, json={**ANSWER, "wsUrl": url})))).ws_url == url


@pytest.mark.parametrize("rate", [1, 7_999, 192_001, 10**40, -16_000])
async def test_a_grant_has_a_possible_sample_rate(rate: int) -> None:
    body = json.dumps({**ANSWER, "outputSampleRate": rate})
    with pytest.raises(APIResponseError, match="a sample rate that is not from 8000 to 192000 Hz"):
        await mint(API(httpx.Response(201, content=body)))
