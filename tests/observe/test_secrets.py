"""Nothing that any logger says, at its most talkative, gives away a key, a token, or what was said."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest

from speko_anyio import (
    APIStatusError,
    Audio,
    Close,
    ErrorFrame,
    HandshakeError,
    OpenAI,
    SessionInfo,
    SessionObserver,
    Speko,
    ToolCall,
    Transcript,
    open_session,
    tool,
)
from speko_anyio.gateway import Gateway, ServerSession, SQLStore, StoreError, running_gateway
from speko_anyio.gateway._settings import read_settings
from speko_anyio.protocol import AudioIn, ClientConnection, Commit, ToolResult
from speko_anyio.providers.bridge._errors import for_client
from speko_anyio.testing.providers import CallTools, OpenAIDouble, Say
from speko_anyio.testing.server import TOKEN, connected
from tests.gateway.support import raw_client
from tests.protocol.test_text import encodings, parts
from tests.support.proxy import HTTPProxy, SOCKSProxy, running_proxy
from tests.support.ways import WAYS, come_in_by

pytestmark = pytest.mark.anyio

KEY = "sk_live_0123456789abcdef"
PCM = b"the-voice-of-the-user-" * 40
ANSWER = b"the-voice-of-the-model" * 40
TRANSCRIPT = "what-was-said"
ARGUMENT = "what-was-asked"
RESULT = "what-was-answered"

SPOKEN = [PCM[:22], ANSWER[:22]]
WRITTEN = [KEY, TRANSCRIPT, ARGUMENT, RESULT]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    """Every logger there is, at its lowest level."""
    caplog.set_level(1)
    caplog.set_level(1, "speko_anyio")
    for name in ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "asyncio", "websockets"):
        caplog.set_level(1, name)


def check(caplog: pytest.LogCaptureFixture, *secrets: str) -> str:
    """What was logged, in which no secret is."""
    formatter = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    log = "\n".join(map(formatter.format, caplog.records))
    for secret in (*WRITTEN, *secrets):
        assert secret not in log
        assert base64.b64encode(secret.encode()).decode().rstrip("=")[:-2] not in log
    for sound in SPOKEN:
        assert sound.decode() not in log
        assert sound.hex() not in log
        for shift in range(3):
            assert base64.b64encode(sound[shift:]).decode()[:-4] not in log
    return log


async def answer(session: ServerSession) -> None:
    async for command in session:
        match command:
            case AudioIn():
                await session.send_audio(ANSWER)
            case Commit():
                await session.send_transcript("user", TRANSCRIPT, final=True)
                await session.send_tool_call("c1", "look_up", f'{{"query": "{ARGUMENT}"}}')
            case ToolResult(output=output):
                await session.send_error("OOPS", f"the key {KEY} and the result {len(output)}")
                return
            case _:
                pass


@tool
def look_up(query: str) -> str:
    """Look it up."""
    return RESULT


async def test_a_whole_session_of_client_and_gateway(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(handlers={"fake": answer}, api_keys=[KEY])
    with anyio.fail_after(30):
        async with running_gateway(gateway) as url, Speko(KEY, url) as speko:
            grant = await speko.realtime.create_session(provider="fake", model="any", tools=[look_up])
            async with open_session(grant, tools=[look_up]) as session:
                await session.send_audio(PCM)
                await session.commit()
                frames = [frame async for frame in session]
    kinds = {type(frame) for frame in frames}
    assert {Audio, Transcript, ToolCall, Close} <= kinds
    log = check(caplog, grant.ws_token)
    # It would pass if nothing was logged.
    for logger in ("speko_anyio.client", "speko_anyio.gateway.session"):
        assert f"DEBUG {logger}: session {grant.session_id}" in log
    assert f"< Audio: {len(ANSWER)} bytes" in log
    assert f"> AudioIn: {len(PCM)} bytes" in log
    assert "answered HTTP 201 to a mint" in log


async def test_a_key_and_a_token_that_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(handlers={"fake": answer}, api_keys=[KEY])
    wrong = "another-key-without-prefix"
    with anyio.fail_after(30):
        async with running_gateway(gateway) as url:
            async with Speko(wrong, url) as speko:
                with pytest.raises(APIStatusError):
                    await speko.realtime.create_session(provider="fake", model="any")
            async with Speko(KEY, url) as speko:
                grant = await speko.realtime.create_session(provider="fake", model="any")
            async with open_session(grant) as session:
                await session.commit()
            with pytest.raises(HandshakeError):
                async with open_session(grant):
                    raise AssertionError("opened twice")
    assert "a WebSocket is refused with 401 UNAUTHORIZED: " in check(caplog, wrong, grant.ws_token)


async def test_a_peer_that_quotes_the_token(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as (session, server):
        server.core.send_error(TOKEN, f"not {TOKEN}")
        server.core.send_tool_call(TOKEN, TOKEN, TOKEN)
        server.core.close(4000, f"bye {TOKEN}")
        server.flush()
        assert [type(frame) async for frame in session][-1] is Close
    log = check(caplog, TOKEN)
    assert "'bye ***'" in log


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKSProxy])
async def test_the_password_of_a_proxy(
    kind: type[HTTPProxy | SOCKSProxy], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(handlers={"fake": answer}, api_keys=[KEY])
    login = ("me", "hunter2-and-more")
    with anyio.fail_after(30):
        async with running_gateway(gateway) as url:
            port = int(url.rpartition(":")[2])
            async with running_proxy(kind({"127.0.0.1": port}, login=login)) as proxy:
                async with Speko(KEY, url) as speko:
                    grant = await speko.realtime.create_session(provider="fake", model="any")
                monkeypatch.setenv("ALL_PROXY", proxy.url("me:hunter2-and-more@"))
                async with open_session(grant) as session:
                    await session.commit()
            assert proxy.logins == [login]
    log = check(caplog, grant.ws_token, login[1])
    assert f"through the proxy localhost:{proxy.port}" in log


async def test_a_session_straight_with_a_provider(caplog: pytest.LogCaptureFixture) -> None:
    infos: list[SessionInfo] = []

    def observer(info: SessionInfo) -> SessionObserver:
        infos.append(info)
        return SessionObserver()

    key = "no-prefix-at-all-0123"
    double = OpenAIDouble(
        replies=[CallTools([("look_up", {"query": ARGUMENT})]), Say(TRANSCRIPT)], api_key=key
    )
    with anyio.fail_after(30):
        async with double.serve() as url:
            provider = OpenAI(key, base_url=url)
            async with provider.connect(model="gpt", tools=[look_up], observer=observer) as session:
                await session.send_audio(PCM * 50)
                await session.commit()
                async for frame in session:
                    if isinstance(frame, Transcript) and frame.final and frame.role == "assistant":
                        break
            with pytest.raises(HandshakeError):
                async with OpenAI(f"{key}-wrong", base_url=url).connect(model="gpt"):
                    raise AssertionError("opened")
    (info,) = infos
    assert (info.provider, info.model, info.host) == ("openai", "gpt", "127.0.0.1")
    log = check(caplog, key)
    assert "< ToolCall: 'look_up'" in log


# Every door, with a secret that looks like an ordinary word

PLANTED = "correct.horse~battery-staple"


@pytest.fixture(params=WAYS)
def each_way_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    come_in_by(request.param, monkeypatch)


def check_planted(text: str, secret: str = PLANTED) -> None:
    for form in parts(secret):
        assert form not in text


@pytest.mark.usefixtures("each_way_in")
async def test_tokens_where_clients_should_not_put_them(caplog: pytest.LogCaptureFixture) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    bearer = {"Authorization": f"Bearer {KEY}"}
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the requests of this test
    with anyio.fail_after(30):
        async with running_gateway(Gateway(handlers={"fake": answer}, api_keys=[KEY])) as url:
            async with httpx.AsyncClient(base_url=url) as http:
                for path in (
                    f"/v1/realtime/sess_1?token={PLANTED}",
                    f"/v1/realtime/{PLANTED}",
                    f"/{PLANTED}/x?{PLANTED}={PLANTED}",
                ):
                    # On a connection of its own, since uvicorn's wsproto closes it without saying so.
                    async with httpx.AsyncClient(base_url=url) as opening:
                        response = await opening.get(path, headers=upgrade)
                    assert response.status_code in (401, 404)
                    await http.get(path)
                    await http.get(path, headers={"Authorization": f"Bearer {PLANTED}"})
                wanted = {"mode": "s2s", "s2s": {"provider": "fake", "model": "m"}}
                for body, headers in (
                    ({}, {}),
                    ({}, bearer),
                    ({**wanted, PLANTED: 1}, {**bearer, "Idempotency-Key": PLANTED * 20}),
                    ({**wanted, "mode": PLANTED}, bearer),
                    ({**wanted, "ttlSeconds": PLANTED}, bearer),
                    ({**wanted, "s2s": {"provider": PLANTED, "model": "m"}}, bearer),
                    ({**wanted, "metadata": {PLANTED: {PLANTED: None}}, "ttlSeconds": -1}, bearer),
                ):
                    path = f"/v1/sessions?key={PLANTED}"
                    assert (await http.post(path, json=body, headers=headers)).status_code >= 400
                await http.get(f"/v1/sessions/{PLANTED}?{PLANTED}={PLANTED}", headers=bearer)
                grant = (await http.post("/v1/sessions", json=wanted, headers=bearer)).json()
            ws_url = f"{grant['wsUrl']}?token={PLANTED}"
            async with raw_client(ws_url, grant["wsToken"]) as client:
                await client.hear()
                client.connection.close(4000, f"bye {KEY}")
                await client.flush()
                await client.hear_all()
    log = check(caplog, grant["wsToken"])
    check_planted(log)
    assert "INFO speko_anyio.gateway: a WebSocket is refused with 401 UNAUTHORIZED: " in log
    assert log.count("INFO speko_anyio.gateway: a mint is refused with 401 ") == 1
    assert log.count("INFO speko_anyio.gateway: a mint is refused with 400 ") == 6


DATABASES = [
    "postgresql://me:{}@127.0.0.1:1/db",
    "postgresql://127.0.0.1:1/db?user=me&password={}",
    "postgresql://127.0.0.1:1/db?sslmode=disable&sslpassword={}",
    "postgresql://127.0.0.1:1/db?sslpassword=x%26{}",
    "postgresql://127.0.0.1:1/db?options=-c%20search_path%3D{}",
    "postgresql://127.0.0.1:1/db?password=x&{}=y",
    "postgresql://127.0.0.1:1/db?{}",
    "postgresql://127.0.0.1:x{}/db",
    "postgresql://me:p@{}@127.0.0.1:1/db",
    "postgresql://me:p@{}/x@127.0.0.1:1/db",
    "postgresql+{}://127.0.0.1:1/db",
    "mysql://me:{}@127.0.0.1/db",
    "postgresql://me:{}@[::1/db",
]


@pytest.mark.parametrize("encode", [str, lambda text: "".join(f"%{ord(char):02X}" for char in text)])
@pytest.mark.parametrize("url", DATABASES)
async def test_a_password_anywhere_in_a_databases_url(
    url: str,
    encode: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = url.format(encode(PLANTED))
    told = []
    try:
        store = SQLStore(url)
        told += [repr(store), str(store.url), repr(store._database.engine), str(store._database)]
        async with store:
            raise AssertionError("nobody listens there")
    except StoreError as error:
        told += ["".join(traceback.format_exception(error)), repr(error)]
    environment = {
        "SPEKO_GATEWAY_DATABASE": url,
        "SPEKO_GATEWAY_PUBLIC_URL": f"https://me:{PLANTED}@x.example",
    }
    told.append(repr(read_settings(None, environment)))
    for text in (*told, *capsys.readouterr(), check(caplog)):
        check_planted(text)


async def test_what_a_database_answers(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    for name in ("sqlalchemy.engine", "sqlalchemy.engine.Engine", "sqlalchemy.pool"):
        caplog.set_level(1, name)
    store = SQLStore(str(tmp_path / "gateway.db"))
    bearer = {"Authorization": f"Bearer {KEY}"}
    wanted = {"provider": "fake", "model": "m", "systemPrompt": PLANTED}
    with anyio.fail_after(30):
        async with running_gateway(Gateway(handlers={"fake": answer}, api_keys=[KEY], store=store)) as url:
            async with httpx.AsyncClient(base_url=url, headers=bearer) as http:
                body = {"mode": "s2s", "s2s": wanted, "metadata": {"x": PLANTED}}
                assert (await http.post("/v1/sessions", json=body)).status_code == 201
                assert (await http.get("/v1/sessions")).json()["sessions"][0]["metadata"] == {"x": PLANTED}
    log = check(caplog)
    check_planted(log)
    assert "DEBUG sqlalchemy.engine.Engine.speko_anyio: " in log


async def test_the_login_of_a_socks_proxy_of_the_mint(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with anyio.fail_after(30):
        async with running_gateway(Gateway(handlers={"fake": answer}, api_keys=[KEY])) as url:
            port = int(url.rpartition(":")[2])
            proxy = SOCKSProxy({"127.0.0.1": port}, login=("me", PLANTED))
            async with running_proxy(proxy):
                monkeypatch.setenv("ALL_PROXY", proxy.url(f"me:{PLANTED}@"))
                async with Speko(KEY, url) as speko:
                    grant = await speko.realtime.create_session(provider="fake", model="any")
    assert proxy.logins == [("me", PLANTED)]
    log = check(caplog, grant.ws_token)
    check_planted(log)
    assert "setup_socks5_connection.started" in log


QUOTES = [
    "Incorrect API key provided: {}. You can find yours at https://platform.openai.com/account/api-keys.",
    "no {} here\n\x1b[2J",
    '{{"error": {{"message": "bad key {}"}}}}',
]


@pytest.mark.parametrize("form", range(15))
@pytest.mark.parametrize("words", QUOTES)
def test_what_a_client_is_told_of_a_provider(words: str, form: int) -> None:
    words = words.format(encodings(PLANTED)[form])
    told = for_client(ErrorFrame("server_error", f"{words} (org-AbCdEfGh12, api.openai.com:443)"), [PLANTED])
    check_planted(told.message)
    assert "org-" not in told.message
    assert "openai.com" not in told.message
    assert told.message.isprintable()


@pytest.mark.parametrize("form", range(15))
async def test_a_mint_that_quotes_the_key(form: int, caplog: pytest.LogCaptureFixture) -> None:
    said = encodings(PLANTED)[form]

    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"error": f"no {said}\n\u202e of org-AbCdEfGh12", "code": said})

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http:
        async with Speko(PLANTED, "http://speko.test", http_client=http) as speko:
            with pytest.raises(APIStatusError) as caught:
                await speko.realtime.create_session(provider="fake", model="any")
    text = "".join(traceback.format_exception(caught.value))
    for told in (text, caught.value.message, caught.value.code, check(caplog)):
        check_planted(told)
        assert "org-" not in told
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("form", range(15))
def test_a_server_that_quotes_the_token_when_it_refuses(form: int) -> None:
    client = ClientConnection("ws://speko.test/v1", "correct.horse-battery-staple")
    client.data_to_send()
    said = json.dumps({"error": f"no {encodings('correct.horse-battery-staple')[form]}\x9b"}).encode()
    client.receive_data(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
    with pytest.raises(HandshakeError) as caught:
        client.next_event()
    check_planted(str(caught.value), "correct.horse-battery-staple")
    assert str(caught.value).isprintable()
