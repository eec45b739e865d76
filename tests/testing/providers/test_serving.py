"""The doubles as servers: over loopback and over memory, on asyncio, uvloop and trio."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trustme
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Pong,
    RejectConnection,
    RejectData,
    TextMessage,
)

from speko_anyio.testing._streams import stream_pair
from speko_anyio.testing.providers import (
    Die,
    GoogleDouble,
    Hangup,
    OpenAIDouble,
    Pace,
    ProviderDouble,
    Refusal,
    Say,
    XAIDouble,
    tone,
)

from .websocket_client import WebSocketClient

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def visitor(double: ProviderDouble[Any]) -> AsyncIterator[WebSocketClient]:
    """A client at `double`, over loopback."""
    with anyio.fail_after(10):
        async with double.serve() as url:
            host, port = url.removeprefix("ws://").split(":")
            async with await anyio.connect_tcp(host, int(port)) as stream:
                yield WebSocketClient(stream)


async def test_openai_over_loopback() -> None:
    double = OpenAIDouble([Say("Hello there.", 0.3)])
    async with visitor(double) as client:
        assert isinstance(await client.open(), AcceptConnection)
        assert await client.hear() == (TextMessage, double.session.sent[0])
        await client.say({"type": "response.create"})
        heard = await client.hear_until("response.done")
        assert heard.count("response.output_audio.delta") == 3
        answer = await client.close(1000)
        while not isinstance(answer, CloseConnection):
            answer = await client.event()
    assert double.session.closed == (1000, "bye")
    assert double.session.received == [{"type": "response.create"}]
    assert double.session.request.header("authorization") == "Bearer test-key"


async def test_gemini_says_json_in_binary_frames() -> None:
    double = GoogleDouble()
    async with visitor(double) as client:
        await client.open("/ws/any", header="x-goog-api-key")
        await client.say({"setup": {"model": "models/m"}})
        assert await client.hear() == (BytesMessage, {"setupComplete": {}})


async def test_a_subprotocol_carries_the_key_of_a_browser() -> None:
    async with visitor(OpenAIDouble()) as client:
        answer = await client.open(subprotocols=("realtime", "openai-insecure-api-key.test-key"))
        assert isinstance(answer, AcceptConnection)
        assert answer.subprotocol == "realtime"
    async with visitor(XAIDouble()) as client:
        answer = await client.open(subprotocols=("xai-client-secret.test-key",))
        assert isinstance(answer, AcceptConnection)
        assert answer.subprotocol == "xai-client-secret.test-key"


@pytest.mark.parametrize("kind", [OpenAIDouble, XAIDouble])
async def test_a_wrong_key_is_refused(kind: type[ProviderDouble[Any]]) -> None:
    double = kind()
    async with visitor(double) as client:
        answer = await client.open(key="wrong")
        assert isinstance(answer, RejectConnection)
        assert answer.status_code == 401
        body = await client.event()
        assert isinstance(body, RejectData)
        assert json.loads(body.data)["error"]["message"] == "Incorrect API key provided."
    assert double.sessions == []
    assert [request.path for request in double.refused] == ["/v1/realtime"]


async def test_the_first_requests_may_be_refused_for_any_reason() -> None:
    double = XAIDouble(refuse=[Refusal(429, "Too many sessions.")])
    with anyio.fail_after(10):
        async with double.serve() as url:
            for expected in (RejectConnection, AcceptConnection):
                async with await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2])) as stream:
                    assert isinstance(await WebSocketClient(stream).open(), expected)
    assert len(double.refused) == len(double.sessions) == 1


async def test_gemini_closes_for_a_wrong_key() -> None:
    async with visitor(GoogleDouble()) as client:
        assert isinstance(await client.open(key="wrong"), AcceptConnection)
        event = await client.event()
        assert isinstance(event, CloseConnection)
        assert (event.code, event.reason) == (1007, "API key not valid. Please pass a valid API key.")


async def test_a_ping_is_answered() -> None:
    async with visitor(OpenAIDouble()) as client:
        await client.open()
        await client.hear()
        assert await client.ping() == Pong(payload=b"x")


async def test_it_hangs_up() -> None:
    double = OpenAIDouble([Hangup(1011, "Goodbye.")])
    async with visitor(double) as client:
        await client.open()
        await client.hear()
        await client.say({"type": "response.create"})
        await client.hear_until("response.created")
        event = await client.event()
        assert isinstance(event, CloseConnection)
        assert (event.code, event.reason) == (1011, "Goodbye.")
        await client.send(event.response())
        with pytest.raises(anyio.EndOfStream):
            await client.stream.receive()
    assert double.session.closed == (1011, "Goodbye.")


async def test_it_dies() -> None:
    async with visitor(OpenAIDouble([[Die(after_ms=10), Say("x", 10.0)]])) as client:
        await client.open()
        await client.say({"type": "response.create"})
        await client.hear_until("response.output_audio.delta")
        while not isinstance(event := await client.event(), CloseConnection):
            pass
        assert event.code == 1006  # what wsproto calls an end without a close


async def test_a_test_directs_it_while_it_runs() -> None:
    double = OpenAIDouble()
    async with visitor(double) as client:
        await client.open()
        await client.hear()
        double.session.send({"type": "ping"})
        assert (await client.hear())[1] == {"type": "ping"}
        double.session.expire()
        assert await client.hear_until("error")
        event = await client.event()
        assert isinstance(event, CloseConnection)
        assert event.code == 1001


async def test_a_client_that_vanishes() -> None:
    double = OpenAIDouble([Say("x", 10.0)], pace=Pace(speed=1.0))
    async with visitor(double) as client:
        await client.open()
        await client.hear()
        await client.say({"type": "response.create"})
        await client.hear_until("response.created")
        await client.stream.aclose()
        while double.session.closed is None:
            await anyio.lowlevel.checkpoint()
    assert double.session.closed == (1006, "")


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01 no HTTP at all\r\n\r\n"])
async def test_a_client_of_another_protocol(rubbish: bytes) -> None:
    double = OpenAIDouble()
    async with visitor(double) as client:
        await client.stream.send(rubbish)
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await client.stream.receive()
    assert (double.sessions, double.refused) == ([], [])


async def test_over_memory() -> None:
    double = XAIDouble(user_says=["Hi"])
    ours, theirs = stream_pair()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(double.handle, theirs)
            client = WebSocketClient(ours)
            await client.open()
            assert await client.hear_until("ping") == ["session.created", "conversation.created", "ping"]
            detection = {"type": "server_vad", "silence_duration_ms": 200}
            await client.say({"type": "session.update", "session": {"turn_detection": detection}})
            pcm = tone(0.5, 24_000) + bytes(24_000)
            audio = base64.b64encode(pcm).decode()
            await client.say({"type": "input_audio_buffer.append", "audio": audio})
            heard = await client.hear_until("response.done")
            assert heard[:3] == [
                "session.updated",
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
            ]
            await client.close()


async def test_over_tls() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    with anyio.fail_after(10):
        async with OpenAIDouble().serve(ssl_context=server) as url:
            assert url.startswith("wss://127.0.0.1:")
            port = int(url.rpartition(":")[2])
            async with await anyio.connect_tcp(
                "127.0.0.1", port, ssl_context=client, tls_standard_compatible=False
            ) as stream:
                assert isinstance(await WebSocketClient(stream).open(), AcceptConnection)


async def test_several_at_once() -> None:
    double = OpenAIDouble(then=Say("x", 0.2))
    with anyio.fail_after(10):
        async with double.serve() as url, anyio.create_task_group() as tasks:

            async def visit() -> None:
                async with await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2])) as stream:
                    client = WebSocketClient(stream)
                    await client.open()
                    await client.say({"type": "response.create"})
                    await client.hear_until("response.done")

            for _ in range(5):
                tasks.start_soon(visit)
    assert len(double.sessions) == 5


async def test_the_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with OpenAIDouble().serve():
            raise KeyError("mine")


async def test_leaving_the_block_cuts_who_is_connected() -> None:
    double = OpenAIDouble()
    async with double.serve() as url:
        stream = await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))
        client = WebSocketClient(stream)
        await client.open()
        await client.hear()
    async with stream:
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)), anyio.fail_after(5):
            await stream.receive()
    assert double.session.closed == (1006, "")


async def test_the_port_is_ones_own_to_choose() -> None:
    async with OpenAIDouble().serve() as first:
        port = int(first.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with OpenAIDouble().serve(port):
                pass
