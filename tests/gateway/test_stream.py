"""Sessions over real sockets, from a client that is nothing but the core and a TCP stream."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from speko_anyio.gateway import (
    Gateway,
    MemoryStore,
    ServerSession,
    SessionOutcome,
    SessionRecord,
    StoreError,
    echo,
    running_gateway,
)
from speko_anyio.gateway import _stream as stream
from speko_anyio.gateway._api_keys import APIKeys
from speko_anyio.gateway._request_body import MAX_BODY
from speko_anyio.gateway._session import RECEIVE_BUFFER
from speko_anyio.gateway._session_tokens import Claims, TokenSigner
from speko_anyio.gateway._uvicorn_server import MAX_MESSAGE
from speko_anyio.gateway.store import Refused
from speko_anyio.protocol import (
    Audio,
    Close,
    ConnectionClosed,
    ErrorFrame,
    Expiring,
    HandshakeError,
    Limits,
    Ready,
    RemoteProtocolError,
    Transcript,
    Usage,
)
from speko_anyio.protocol._pcm import MAX_AUDIO_MESSAGE
from tests.support.ways import WAYS, come_in_by

from .support import KEY, Recorder, make_gateway, mint, mint_in_memory, raw_client, stream_scope

pytestmark = pytest.mark.anyio

SECRET = "s" * 32
BROWSER = {"headers": (("Origin", "https://page.example"),)}


@pytest.fixture(params=WAYS)
def each_implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run over bytes, and with either of uvicorn's WebSocket implementations that we may use."""
    come_in_by(request.param, monkeypatch)


# Closing


CLOSES = 64
"""Sessions, of which every eighth is closed while its reader waits."""

AT_ONCE = 4
"""Of them at a time. Each has megabytes of speech on the way; uvicorn ends those whose pong needs 20 s."""


async def speak_until_closed(session: ServerSession) -> None:
    """Speak all the time, hear nothing, and say when no more from the client fits."""
    full = False
    with contextlib.suppress(ConnectionClosed):
        while True:
            await session.send_audio(bytes(MAX_AUDIO_MESSAGE))
            if not full and session.buffered[0] > RECEIVE_BUFFER:
                full = True
                await session.send_transcript("user", "full", final=True)


async def close_amid_speech(url: str, number: int, http: httpx.AsyncClient) -> str:
    """Mint a session, hear some of the speech and close as RFC 6455 says; return the session's id."""
    grant = await mint(url, "speaker", http=http)
    limits = Limits(max_outbox=2 * RECEIVE_BUFFER)
    async with raw_client(grant.ws_url, grant.ws_token, limits=limits) as client:
        await client.hear()
        if number % 8:
            for _ in range(number % 8):
                await client.hear()
        else:
            # As much as the session holds for its handler: then its reader waits, with the close behind that.
            for _ in range(RECEIVE_BUFFER // MAX_AUDIO_MESSAGE):
                client.connection.send_audio(bytes(MAX_AUDIO_MESSAGE))
            await client.flush()
            while not isinstance(await client.hear(), Transcript):
                pass
        client.connection.send_audio(bytes(960))
        client.connection.close(4000, f"enough {number}")
        await client.flush()
        await client.hear_all()
    return grant.session_id


@pytest.mark.usefixtures("each_implementation")
async def test_clients_that_close_while_the_server_speaks_are_not_lost() -> None:
    store = MemoryStore()
    gateway = make_gateway({"speaker": speak_until_closed}, store=store, mint_burst=CLOSES)
    minted: dict[str, int] = {}

    async def close_some(url: str, numbers: range) -> None:
        for number in numbers:
            minted[await close_amid_speech(url, number, http)] = number

    async with (
        running_gateway(gateway) as url,
        httpx.AsyncClient() as http,
        anyio.create_task_group() as tasks,
    ):
        for first in range(AT_ONCE):
            tasks.start_soon(close_some, url, range(first, CLOSES, AT_ONCE))
    assert len(minted) == CLOSES
    for session_id, number in minted.items():
        known = await store.get(session_id)
        assert known is not None
        ended = known.life
        assert (ended.close_code, ended.close_reason, ended.closed_by) == (4000, f"enough {number}", "client")


async def test_the_start_and_the_end_of_a_session_have_one_line_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    recorder = Recorder()
    async with running_gateway(make_gateway({"echo": echo, "recorder": recorder})) as url:
        grants = []
        for provider, code in (("echo", 4000), ("recorder", 1001)):
            grants.append(grant := await mint(url, provider))
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                await client.hear()
                client.connection.close(code, "enough of this secret")
                await client.flush()
                await client.hear_all()
    lines = [
        (record.levelname, re.sub(r"\d+\.\d s", "N s", record.getMessage()))
        for record in caplog.records
        if record.name == "speko_anyio.gateway.session"
    ]
    key_id = APIKeys([KEY]).identify(f"Bearer {KEY}")
    assert lines == [
        ("INFO", line)
        for grant, provider, code in zip(grants, ("echo", "recorder"), (4000, 1001), strict=True)
        for line in (
            f"session {grant.session_id} starts, provider {provider}, model m, for {key_id}",
            f"session {grant.session_id} ended after N s with {code}, by the client, provider {provider}",
        )
    ]
    assert "enough" not in caplog.text


async def test_a_model_in_the_log_is_one_short_line_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = "gpt\n sk-proj-8fJ2kQ9vXw3LmR7tZb1NcY5d " + "x" * 1000
    async with running_gateway(make_gateway({"echo": echo})) as url:
        grant = await mint(url, s2s={"provider": "echo", "model": model})
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            await client.hear()
    (line,) = [record.getMessage() for record in caplog.records if " starts, " in record.getMessage()]
    assert "model gpt" in line
    assert "8fJ2kQ9vXw3L" not in line
    assert "\n" not in line
    assert len(line) < 250


async def test_a_drain_with_open_sessions_is_logged_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with contextlib.AsyncExitStack() as clients:
        async with running_gateway(make_gateway({"echo": echo}), patience=0.01) as url:
            grant = await mint(url)
            client = await clients.enter_async_context(raw_client(grant.ws_url, grant.ws_token))
            await client.hear()
    lines = [record.getMessage() for record in caplog.records if "draining" in record.getMessage()]
    assert lines == ["draining: 1 open sessions get 0.01 s to finish"]


# Admission


async def refusal(ws_url: str, token: str) -> str:
    async with raw_client(ws_url, token) as client:
        with pytest.raises(HandshakeError) as caught:
            await client.hear()
    assert caught.value.status == 401
    assert token not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("each_implementation")
async def test_a_token_opens_its_own_session_once_and_in_time() -> None:
    time = 1_800_000_000.0
    async with running_gateway(make_gateway(secret=SECRET, now=lambda: time)) as url:
        grant, other, late = [await mint(url) for _ in range(3)]
        assert "not one of this gateway" in await refusal(grant.ws_url, "wrong")
        forged = TokenSigner("t" * 32).sign(Claims(grant.session_id, "x", 2_000_000_000))
        assert "not one of this gateway" in await refusal(grant.ws_url, forged)
        unminted = TokenSigner(SECRET).sign(Claims(grant.session_id, "x", 2_000_000_000))
        assert "not known" in await refusal(grant.ws_url, unminted)
        assert "another session" in await refusal(grant.ws_url, other.ws_token)
        # None of that has used the token up.
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert await client.hear() == Ready(24000, 24000, ("usage",))
            assert "used before" in await refusal(grant.ws_url, grant.ws_token)
        assert "used before" in await refusal(grant.ws_url, grant.ws_token)
        time += 61
        assert "expired" in await refusal(late.ws_url, late.ws_token)


async def upgrade(url: str, *fields: str, path: str = "/v1/realtime/sess_1") -> str:
    """Ask for a WebSocket by hand; the answer as far as its headers."""
    host, _, port = url.removeprefix("http://").partition(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        head = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            *fields,
        ]
        await stream.send("\r\n".join([*head, "", ""]).encode())
        answer = b""
        with anyio.fail_after(5):
            while b"}" not in answer and b"101" not in answer[:20]:
                answer += await stream.receive()
    return answer.decode("latin-1")


@pytest.mark.usefixtures("each_implementation")
async def test_the_answer_is_one_header_with_the_token_as_it_came() -> None:
    async with running_gateway(make_gateway()) as url:
        assert (await upgrade(url)).startswith("HTTP/1.1 401 ")
        answer = await upgrade(url, path="/elsewhere")
        assert answer.startswith("HTTP/1.1 404 ")
        assert '"code":"NOT_FOUND"' in answer
        for offer in ("Sec-WebSocket-Protocol: {}", "Sec-WebSocket-Protocol: {}, speko.v1"):
            grant = await mint(url)
            path = f"/v1/realtime/{grant.session_id}"
            answer = await upgrade(url, offer.format(grant.ws_token), path=path)
            assert answer.startswith("HTTP/1.1 101 ")
            lines = [
                line.partition(":")
                for line in answer.split("\r\n")
                if line.lower().startswith("sec-websocket-protocol:")
            ]
            assert [(name.lower(), value.strip()) for name, _, value in lines] == [
                ("sec-websocket-protocol", grant.ws_token)
            ]


@pytest.mark.usefixtures("each_implementation")
async def test_a_page_is_refused_by_frame_and_close_code() -> None:
    async with running_gateway(make_gateway()) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, "wrong", **BROWSER) as client:
            error, close = await client.hear_all()
        assert error == ErrorFrame(
            "UNAUTHORIZED", "the session token is not one of this gateway; mint a new session"
        )
        assert isinstance(close, Close)
        assert (close.code, close.initiated_by) == (4401, "remote")
        async with raw_client(grant.ws_url, grant.ws_token, **BROWSER) as client:
            assert isinstance(await client.hear(), Ready)


@pytest.mark.usefixtures("both_ways")
async def test_a_body_has_a_limit() -> None:
    async with running_gateway(make_gateway()) as url, httpx.AsyncClient() as http:
        response = await http.post(
            f"{url}/v1/sessions", content=b" " * (MAX_BODY + 1), headers={"Authorization": f"Bearer {KEY}"}
        )
    assert response.status_code == 413
    assert response.json()["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("leaves", ["before the answer", "during the answer"])
async def test_a_client_that_leaves_before_it_is_let_in_is_recorded(leaves: str) -> None:
    ended: list[tuple[str, SessionOutcome]] = []

    class Store(MemoryStore):
        async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
            ended.append((session_id, outcome))

    gateway = make_gateway(store=Store())

    async def receive() -> dict[str, Any]:
        if leaves == "during the answer":
            return {"type": "websocket.connect"}
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Any) -> None:
        raise OSError

    async with gateway.running():
        grant = await mint_in_memory(gateway)
        await gateway.app(stream_scope(grant["sessionId"], grant["wsToken"]), receive, send)
    assert ended == [(grant["sessionId"], SessionOutcome())]


class SlowStore(MemoryStore):
    """A store whose claims and records of ends wait until the test releases them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.ended: list[tuple[str, Close | None]] = []

    async def claim(
        self, session_id: str, token_id: str, *, node_id: str, lease: float, now: float
    ) -> SessionRecord | Refused:
        self.asked.set()
        assert await anyio.to_thread.run_sync(self.answer.wait, 10)
        return await super().claim(session_id, token_id, node_id=node_id, lease=lease, now=now)

    async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
        await super().end(session_id, outcome, now=now)
        self.ended.append((session_id, outcome.close))


@pytest.mark.usefixtures("both_ways")
async def test_a_session_that_is_claimed_while_the_gateway_stops_is_refused() -> None:
    store = SlowStore()
    gateway = make_gateway(store=store)
    async with running_gateway(gateway) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert await anyio.to_thread.run_sync(store.asked.wait, 10)
            await gateway.drain()
            store.answer.set()
            with pytest.raises(HandshakeError, match="shutting down") as caught:
                await client.hear()
    assert caught.value.status == 503
    assert store.ended == [(grant.session_id, None)]


async def test_a_session_that_is_accepted_while_the_gateway_stops_is_closed() -> None:
    recorder = Recorder()
    store = SlowStore()
    store.answer.set()
    gateway = make_gateway({"echo": recorder}, store=store)
    sent: list[Any] = []
    says: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1012, "reason": ""},
    ]

    async def receive() -> dict[str, Any]:
        if len(says) == 1:
            await closing.wait()
        return says.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.accept":
            await gateway.drain()
        if message["type"] == "websocket.close":
            closing.set()

    closing = anyio.Event()
    with anyio.fail_after(5):
        async with gateway.running():
            grant = await mint_in_memory(gateway)
            await gateway.app(stream_scope(grant["sessionId"], grant["wsToken"]), receive, send)
    assert sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "the gateway is restarting"}
    assert recorder.commands == []
    assert [close and close.code for _, close in store.ended] == [1012]


@pytest.mark.usefixtures("both_ways")
async def test_a_store_that_fails_to_claim_is_told_as_documented(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        async def claim(
            self, session_id: str, token_id: str, *, node_id: str, lease: float, now: float
        ) -> SessionRecord | Refused:
            raise ValueError("disk on fire")

    async with running_gateway(make_gateway(store=Broken())) as url:
        grant = await mint(url)
        answer = await upgrade(
            url,
            f"Sec-WebSocket-Protocol: {grant.ws_token}",
            path=f"/v1/realtime/{grant.session_id}",
        )
    # Whatever the fault is, the client may try again.
    assert answer.startswith("HTTP/1.1 503 ")
    assert '"code":"SESSION_CREATE_FAILED"' in answer
    assert "disk" not in answer
    assert "disk on fire" in caplog.text
    assert grant.ws_token not in caplog.text


# Sessions


@pytest.mark.usefixtures("each_implementation")
async def test_echo() -> None:
    async with running_gateway(make_gateway()) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert await client.hear() == Ready(24000, 24000, ("usage",))
            for pcm in (b"\1\2" * 240, b"\3\4" * 24_000):
                client.connection.send_audio(pcm)
                await client.flush()
                heard = b""
                while len(heard) < len(pcm):
                    frame = await client.hear()
                    assert isinstance(frame, Audio)
                    heard += frame.pcm
                assert heard == pcm
            client.connection.commit()
            await client.flush()
            assert await client.hear() == Transcript("user", "1.01 seconds of audio", True)
            assert await client.hear() == Usage(10, 10)
            client.connection.clear()
            client.connection.close(4000, "done")
            await client.flush()
            assert await client.hear_close() == Close(4000, "done", "local")


@pytest.mark.usefixtures("each_implementation")
@pytest.mark.parametrize("how", ["closes", "vanishes", "babbles", "says too much"])
async def test_the_handler_is_told_how_the_client_left(how: str) -> None:
    recorder = Recorder()
    async with running_gateway(make_gateway({"echo": recorder}, handler_grace=30)) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token, limits=Limits(max_outbox=1 << 24)) as client:
            assert isinstance(await client.hear(), Ready)
            match how:
                case "closes":
                    client.connection.close(4000, "bye")
                    await client.flush()
                case "vanishes":
                    pass
                case "babbles":
                    client.connection.dialect._queue_text("[]")
                    await client.flush()
                    assert (await client.hear_close()).code == 1007
                case _:
                    client.connection.dialect._queue_text("x" * 300_000)
                    await client.flush()
                    assert (await client.hear_close()).code == 1009
        await recorder.wait_done()
    (close,) = recorder.commands
    assert isinstance(close, Close)
    assert (close.code, close.initiated_by) == {
        "closes": (4000, "remote"),
        "vanishes": (1006, "transport"),
        "babbles": (1007, "local"),
        "says too much": (1009, "local"),
    }[how]
    assert (recorder.error is not None) is (how in {"babbles", "says too much"})
    assert recorder.error is None or isinstance(recorder.error, RemoteProtocolError)


@pytest.mark.usefixtures("each_implementation")
async def test_a_message_beyond_measure_is_not_collected() -> None:
    recorder = Recorder()
    async with running_gateway(make_gateway({"echo": recorder})) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert isinstance(await client.hear(), Ready)
            # The header of a binary message of 1 GiB, masked; its payload never comes whole. What comes is
            # more than the largest image, and so than what a server collects before the core judges it.
            # The server may hang up while the payload is still on its way: then there is nothing to hear.
            with contextlib.suppress(anyio.BrokenResourceError):
                await client.stream.send(
                    b"\x82\xff" + (1 << 30).to_bytes(8, "big") + bytes(4) + bytes(MAX_MESSAGE + 1)
                )
                assert (await client.hear_close()).code in {1009, 1006}
        await recorder.wait_done()
    assert isinstance(recorder.commands[-1], Close)


async def returns(session: ServerSession) -> None:
    await session.send_transcript("assistant", "that's all", final=True)


async def fails(session: ServerSession) -> None:
    raise ValueError("secret of the handler")


async def fails_in_a_group(session: ServerSession) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fails, session)


async def fails_by_another_session(session: ServerSession) -> None:
    raise ConnectionClosed(code=1000, reason="", initiated_by="remote")


@pytest.mark.usefixtures("both_ways")
async def test_a_handler_that_returns_closes_with_1000() -> None:
    async with running_gateway(make_gateway({"echo": returns})) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert await client.hear_all() == [
                Ready(24000, 24000, ("usage",)),
                Transcript("assistant", "that's all", True),
                Close(1000, "", "remote"),
            ]


async def fails_after_the_end(session: ServerSession) -> None:
    await session.close(4000, "enough")
    raise ValueError("too late to tell anybody")


@pytest.mark.usefixtures("both_ways")
async def test_a_handler_that_fails_after_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running_gateway(make_gateway({"echo": fails_after_the_end})) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert (await client.hear_close()) == Close(4000, "enough", "remote")
    assert "too late to tell anybody" in caplog.text


class Panic(BaseException):
    """As extension modules in Rust raise it."""


async def panics(session: ServerSession) -> None:
    raise Panic


async def lets_a_cancellation_out(session: ServerSession) -> None:
    # asyncio's, on whatever backend the test runs: the handler runs on asyncio.
    raise anyio.get_cancelled_exc_class()


@pytest.mark.parametrize(
    "handler", [fails, fails_in_a_group, fails_by_another_session, panics, lets_a_cancellation_out]
)
@pytest.mark.usefixtures("both_ways")
async def test_a_handler_that_fails_ends_its_own_session_only(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_gateway(make_gateway({"bad": handler, "echo": echo})) as url:
        good, bad = await mint(url), await mint(url, "bad")
        async with raw_client(good.ws_url, good.ws_token) as bystander:
            assert isinstance(await bystander.hear(), Ready)
            async with raw_client(bad.ws_url, bad.ws_token) as client:
                frames = await client.hear_all()
            bystander.connection.send_audio(b"\1\2")
            await bystander.flush()
            assert await bystander.hear() == Audio(b"\1\2", 24000)
    assert frames == [
        Ready(24000, 24000, ("usage",)),
        ErrorFrame("INTERNAL", "the gateway failed to serve this session"),
        Close(1011, "internal error", "remote"),
    ]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert bad.session_id in record.getMessage()
    assert record.exc_info is not None
    assert bad.ws_token not in caplog.text
    assert KEY not in caplog.text


async def speaks_on(session: ServerSession) -> None:
    async def speak() -> None:
        while True:
            await session.send_audio(bytes(4800))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(speak)
        tasks.start_soon(speak)


@pytest.mark.usefixtures("both_ways")
async def test_a_handler_that_only_learns_the_end_by_sending_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = make_gateway({"echo": speaks_on}, handler_grace=30)
    async with running_gateway(gateway) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert isinstance(await client.hear(), Ready)
            client.connection.close()
            await client.flush()
            await client.hear_close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("both_ways")
async def test_a_handler_that_stays_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[str] = []

    async def stays(session: ServerSession) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(session.session_id)

    with anyio.fail_after(10):
        async with running_gateway(make_gateway({"echo": stays}, handler_grace=0.05)) as url:
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert isinstance(await client.hear(), Ready)
    assert cancelled == [grant.session_id]
    assert f"session {grant.session_id}: the handler is cancelled" in caplog.text


@pytest.mark.usefixtures("both_ways")
async def test_a_session_ends_at_its_time() -> None:
    recorder = Recorder()
    async with running_gateway(make_gateway({"echo": recorder})) as url:
        grant = await mint(url, ttlSeconds=1)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert await client.hear_all() == [
                Ready(24000, 24000, ("usage",)),
                ErrorFrame("SESSION_EXPIRING", "the session ends in 1 seconds"),
                Close(1000, "session_expired", "remote"),
            ]
    assert recorder.commands == [Expiring(1.0), Close(1000, "session_expired", "local")]


@pytest.mark.usefixtures("each_implementation")
async def test_a_client_that_floods_has_to_wait() -> None:
    sessions: list[ServerSession] = []

    async def deaf(session: ServerSession) -> None:
        sessions.append(session)
        await session.wait_closed()

    async with running_gateway(make_gateway({"echo": deaf})) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert isinstance(await client.hear(), Ready)
            sent = 0
            with anyio.move_on_after(30):
                while sent < 256 << 20:
                    client.connection.send_audio(bytes(1 << 20))
                    with anyio.move_on_after(0.5) as stuck:
                        await client.flush()
                    if stuck.cancelled_caught:
                        break
                    sent += 1 << 20
            # Two socket buffers and one of ours.
            assert sent < 64 << 20
            assert sessions[0].buffered[0] < RECEIVE_BUFFER + (1 << 20)


@pytest.mark.usefixtures("both_ways")
async def test_a_client_that_does_not_read_holds_nothing_up() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": speaks_on}, close_timeout=0.2)) as url:
            grant = await mint(url, ttlSeconds=1)
            async with raw_client(grant.ws_url, grant.ws_token):
                other = await mint(url)
                async with raw_client(other.ws_url, other.ws_token) as client:
                    assert [type(await client.hear()) for _ in range(2)] == [Ready, Audio]


async def test_the_end_is_recorded_also_when_the_server_is_cancelled() -> None:
    class Store(SlowStore):
        async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
            await anyio.lowlevel.checkpoint()
            await super().end(session_id, outcome, now=now)

    store = Store()
    store.answer.set()
    gateway = make_gateway(store=store)
    says = [{"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        if not says:
            await anyio.sleep_forever()
        return says.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            tasks.cancel_scope.cancel()

    with anyio.fail_after(5):
        async with gateway.running(), anyio.create_task_group() as tasks:
            grant = await mint_in_memory(gateway)
            scope = stream_scope(grant["sessionId"], grant["wsToken"])
            tasks.start_soon(gateway.app, scope, receive, send)
    assert [close and close.code for _, close in store.ended] == [1006]


async def test_a_client_is_told_to_connect_again_when_the_server_is_cancelled() -> None:
    store = SlowStore()
    store.answer.set()
    gateway = make_gateway(store=store)
    sent: list[dict[str, Any]] = []
    closing = anyio.Event()
    says: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1012, "reason": "the gateway is restarting"},
    ]

    async def receive() -> dict[str, Any]:
        if len(says) == 1:
            await closing.wait()
        return says.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.send":
            tasks.cancel_scope.cancel()
        if message["type"] == "websocket.close":
            closing.set()

    with anyio.fail_after(5):
        async with gateway.running(), anyio.create_task_group() as tasks:
            grant = await mint_in_memory(gateway)
            scope = stream_scope(grant["sessionId"], grant["wsToken"])
            tasks.start_soon(gateway.app, scope, receive, send)
    assert sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "the gateway is restarting"}
    assert [close and close.code for _, close in store.ended] == [1012]


@pytest.mark.parametrize("how", ["fails", "hangs"])
@pytest.mark.usefixtures("both_ways")
async def test_a_store_that_can_not_record_the_end_is_logged(
    how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_RECORD_TIMEOUT", 0.05)

    class Broken(MemoryStore):
        async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
            if how == "hangs":
                await anyio.sleep_forever()
            raise OSError("disk on fire")

    gateway = make_gateway({"echo": returns}, store=Broken())
    with anyio.fail_after(10):
        async with running_gateway(gateway) as url:
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert (await client.hear_close()).code == 1000
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert grant.session_id in record.getMessage()


async def test_an_end_that_the_store_could_not_take_is_recorded_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By the gateway's beat, with the time at which it was."""
    time = 1_800_000_000.0

    class Away(MemoryStore):
        away = True

        async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
            if self.away:
                raise StoreError("no route to host")
            await super().end(session_id, outcome, now=now)

    store = Away()
    gateway = make_gateway({"echo": returns}, store=store, now=lambda: time)
    async with gateway.running():
        grants = [await mint_in_memory(gateway) for _ in range(2)]
        for grant in grants:
            await leave_after_opening(gateway, grant)
        assert "no route to host" in caplog.text
        assert gateway._stream.held == frozenset()
        time += 10
        store.away = False
        await gateway._housekeeper.beat()
        for grant in grants:
            history = await store.get(grant["sessionId"])
            assert history is not None
            assert history.life.ended_at == time - 10
        await gateway._housekeeper.beat()


async def test_an_end_that_is_never_taken_holds_up_no_other() -> None:
    class Picky(MemoryStore):
        away = True
        refused = ""

        async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
            if self.away or session_id == self.refused:
                raise StoreError("not that one")
            await super().end(session_id, outcome, now=now)

    store = Picky()
    gateway = make_gateway({"echo": returns}, store=store)
    async with gateway.running():
        first, second = [(await mint_in_memory(gateway)) for _ in range(2)]
        for grant in (first, second):
            await leave_after_opening(gateway, grant)
        store.away, store.refused = False, first["sessionId"]
        for _ in range(2):
            await gateway._housekeeper.beat()
        history = await store.get(second["sessionId"])
        assert history is not None
        assert history.life.ended_at is not None
        assert list(gateway._stream._unrecorded) == [first["sessionId"]]


async def test_ends_that_can_not_be_recorded_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_UNRECORDED", 1)

    class Away(MemoryStore):
        async def end(self, session_id: str, outcome: SessionOutcome, *, now: float) -> None:
            raise StoreError("no route to host")

    gateway = make_gateway({"echo": returns}, store=Away())
    async with gateway.running():
        for _ in range(3):
            await leave_after_opening(gateway, await mint_in_memory(gateway))
    assert len(gateway._stream._unrecorded) == 1
    assert gateway._stream.held == frozenset()


async def leave_after_opening(gateway: Gateway, grant: dict[str, str]) -> None:
    says: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1000, "reason": ""},
    ]

    async def receive() -> dict[str, Any]:
        return says.pop(0)

    async def send(message: Any) -> None:
        pass

    with anyio.fail_after(10):
        await gateway.app(stream_scope(grant["sessionId"], grant["wsToken"]), receive, send)
