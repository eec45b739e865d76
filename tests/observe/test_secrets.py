"""Nothing that any logger says, at its most talkative, gives away a key, a token, or what was said."""

from __future__ import annotations

import base64
import logging

import anyio
import pytest

from speko_anyio import (
    APIStatusError,
    Audio,
    Close,
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
from speko_anyio.gateway import Gateway, ServerSession, running_gateway
from speko_anyio.protocol import AudioIn, Commit, ToolResult
from speko_anyio.testing.providers import CallTools, OpenAIDouble, Say
from speko_anyio.testing.server import TOKEN, connected
from tests.support.proxy import HTTPProxy, SOCKSProxy, running_proxy

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
