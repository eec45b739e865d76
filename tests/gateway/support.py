"""What the gateway's tests share: a transport in memory, a raw client over TCP, minting."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx
from anyio.abc import ByteStream, SocketStream
from anyio.streams.memory import MemoryObjectReceiveStream

from speko_anyio.gateway import Gateway, Handler, ServerSession, echo, serve_session
from speko_anyio.gateway._settings import Loaded, SettingsError, read_settings
from speko_anyio.protocol import (
    NEED_DATA,
    ClientConnection,
    ClientProtocol,
    Close,
    CloseMessage,
    Frame,
    SpekoError,
)
from speko_anyio.protocol.mint import SessionConfig, SessionGrant

KEY = "test-api-key"
CONFIG = SessionConfig(provider="test", model="m", input_sample_rate=16000, output_sample_rate=24000)


class Hearing:
    """The client's side of a session in memory: what it hears goes through its core."""

    client: ClientProtocol
    _from_server: MemoryObjectReceiveStream[str | bytes | CloseMessage]

    async def hear_raw(self) -> str | bytes | CloseMessage:
        with anyio.fail_after(5):
            return await self._from_server.receive()

    async def hear(self) -> Frame:
        """The next frame from the server."""
        while True:
            event = self.client.next_event()
            if event is not NEED_DATA:
                return event
            message = await self.hear_raw()
            if isinstance(message, CloseMessage):
                self.client.receive_close(message.code, message.reason)
            else:
                self.client.receive_message(message)


class MemoryTransport(Hearing):
    """A session's transport without a network; the test plays the peer with a core of its own."""

    read_ahead = 0
    write_failure = "sending failed"

    def __init__(self) -> None:
        self._to_server, self._incoming = anyio.create_memory_object_stream[
            str | bytes | CloseMessage | None
        ](100_000)
        self._outgoing, self._from_server = anyio.create_memory_object_stream[str | bytes | CloseMessage](
            100_000
        )
        self.client = ClientProtocol(input_sample_rate=16000)
        self.writable = anyio.Event()
        self.writable.set()
        self.answers_close = True
        self.broken = False

    def serve(self, **options: Any) -> AbstractAsyncContextManager[ServerSession]:
        return serve_session(self, **options)

    def cut(self) -> None:
        """Break the connection."""
        self._to_server.close()

    async def receive(self) -> str | bytes | CloseMessage | None:
        return await self._incoming.receive()

    async def send(self, message: str | bytes) -> None:
        await self.writable.wait()
        if self.broken:
            raise anyio.BrokenResourceError
        await self._outgoing.send(message)

    async def close(self, code: int, reason: str) -> None:
        await self.writable.wait()
        if self.broken:
            raise anyio.BrokenResourceError
        await self._outgoing.send(CloseMessage(code, reason))
        if self.answers_close:
            await self._to_server.send(CloseMessage(code, ""))

    # The peer

    def say(self, *messages: str | bytes | CloseMessage | None) -> None:
        """Send as the client, raw; None: the connection is lost."""
        for message in messages:
            self._to_server.send_nowait(message)

    def flush(self) -> None:
        """Send what the client's core queued."""
        self.say(*self.client.messages_to_send())

    @property
    def untaken(self) -> int:
        """Messages said and not yet read by the server."""
        return self._incoming.statistics().current_buffer_used

    def stop(self) -> None:
        """Close what the test did not."""
        for stream in (self._to_server, self._incoming, self._outgoing, self._from_server):
            stream.close()


def load_settings(file: Path | None, environment: Mapping[str, str]) -> Loaded:
    """The settings; `SettingsError` for faults."""
    loaded = read_settings(file, environment)
    if loaded.faults:
        raise SettingsError(*loaded.faults)
    return loaded


def make_gateway(handlers: dict[str, Handler] | None = None, **options: Any) -> Gateway:
    return Gateway(handlers=handlers or {"echo": echo}, api_keys=[KEY], **options)


async def mint(
    url: str, provider: str = "echo", *, http: httpx.AsyncClient | None = None, **more: Any
) -> SessionGrant:
    """A grant; many of them come faster from one `http`, since a new one reads the certificates of CAs."""
    body = {"mode": "s2s", "s2s": {"provider": provider, "model": "m"}, **more}
    async with contextlib.nullcontext(http) if http is not None else httpx.AsyncClient() as client:
        response = await client.post(
            f"{url}/v1/sessions", json=body, headers={"Authorization": f"Bearer {KEY}"}
        )
    assert response.status_code == 201, response.text
    grant: SessionGrant = SessionGrant(
        **{
            name: response.json()[camel]
            for name, camel in {
                "session_id": "sessionId",
                "ws_url": "wsUrl",
                "ws_token": "wsToken",
                "expires_at": "expiresAt",
            }.items()
        }
    )
    return grant


async def mint_in_memory(gateway: Gateway, provider: str = "echo") -> dict[str, str]:
    """A grant, without a server."""
    transport = httpx.ASGITransport(app=gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http:
        body = {"mode": "s2s", "s2s": {"provider": provider, "model": "m"}}
        headers = {"Authorization": f"Bearer {KEY}"}
        grant: dict[str, str] = (await http.post("/v1/sessions", json=body, headers=headers)).json()
    return grant


def stream_scope(session_id: str, token: str) -> dict[str, Any]:
    """A WebSocket's opening, as an ASGI server hands it on."""
    return {
        "type": "websocket",
        "path": f"/v1/realtime/{session_id}",
        "headers": [],
        "subprotocols": [token],
    }


class RawClient:
    """A client of nothing but the core and a TCP stream."""

    def __init__(self, stream: ByteStream, connection: ClientConnection) -> None:
        self.stream = stream
        self.connection = connection

    async def flush(self) -> None:
        if data := self.connection.data_to_send():
            await self.stream.send(data)

    async def hear(self) -> Frame:
        """The next frame; raises what the core raises."""
        with anyio.fail_after(10):
            while True:
                try:
                    event = self.connection.next_event()
                finally:
                    # The core answers pings and closes as its events are taken.
                    await self._flush_if_open()
                if event is not NEED_DATA:
                    return event
                try:
                    self.connection.receive_data(await self.stream.receive())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    self.connection.receive_eof()

    async def _flush_if_open(self) -> None:
        try:
            await self.flush()
        except anyio.BrokenResourceError:
            self.connection.send_failed()

    async def hear_all(self) -> list[Frame]:
        """Every frame up to the last."""
        frames = []
        while True:
            try:
                frames.append(await self.hear())
            except SpekoError:
                return frames

    async def hear_close(self) -> Close:
        """The session's end, whatever comes before it."""
        last = (await self.hear_all())[-1]
        assert isinstance(last, Close)
        return last


@asynccontextmanager
async def raw_client(ws_url: str, token: str, **options: Any) -> AsyncIterator[RawClient]:
    async with raw_tcp(ws_url) as stream:
        client = RawClient(stream, ClientConnection(ws_url, token, **options))
        await client.flush()
        yield client


@asynccontextmanager
async def raw_tcp(url: str) -> AsyncIterator[SocketStream]:
    where = urlsplit(url)
    assert where.hostname is not None
    assert where.port is not None
    async with await anyio.connect_tcp(where.hostname, where.port) as stream:
        yield stream


async def raw_http(url: str, *parts: bytes) -> bytes:
    """Everything that comes back, until the server hangs up."""
    answer = b""
    async with raw_tcp(url) as stream:
        try:
            for part in parts:
                await stream.send(part)
            while True:
                answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return answer


class Recorder:
    """A handler that keeps what it received, and tells when its session is over."""

    def __init__(self) -> None:
        self.commands: list[object] = []
        self.error: SpekoError | None = None
        # A thread's event: the handler may run in another one than the test.
        self._done = threading.Event()

    async def __call__(self, session: ServerSession) -> None:
        try:
            async for command in session:
                self.commands.append(command)
        except SpekoError as error:
            self.error = error
        finally:
            self._done.set()

    async def wait_done(self) -> None:
        assert await anyio.to_thread.run_sync(self._done.wait, 10)
