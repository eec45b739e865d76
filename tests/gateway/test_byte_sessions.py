"""What only sessions over bytes can do: over real sockets, with a client that plays by none of the rules."""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from speko_anyio.gateway import MemoryStore, ServerSession, echo, running_gateway
from speko_anyio.protocol import Close
from speko_anyio.protocol._framing import BINARY, CLOSE, MASKED, TEXT, close_payload, header

from .support import Recorder, make_gateway, mint, raw_client

pytestmark = pytest.mark.anyio


def frame(first: int, payload: bytes) -> bytes:
    """A client's frame, with a mask that changes nothing."""
    return header(first, len(payload), MASKED) + bytes(4) + payload


class Blocking:
    """A client of blocking calls, used in a thread."""

    def __init__(self, url: str, path: str, token: str, *fields: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        head = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            f"Sec-WebSocket-Protocol: {token}",
            *fields,
        ]
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())
        self.heard = b""
        while b"\r\n\r\n" not in self.heard:
            self.heard += self.socket.recv(1)

    def hear_all(self) -> bytes:
        """Everything that still comes; raises ConnectionResetError if the server resets."""
        with self.socket:
            while piece := self.socket.recv(65_536):
                self.heard += piece
        return self.heard

    def hear_close(self) -> bytes:
        """Everything up to a close; then hangs up."""
        with self.socket:
            while b"\x88" not in self.heard:
                self.heard += self.socket.recv(65_536)
        return self.heard


@asynccontextmanager
async def blocking(url: str, *fields: str) -> AsyncIterator[Blocking]:
    grant = await mint(url)
    path = "/v1/realtime/" + grant.session_id
    client = await anyio.to_thread.run_sync(Blocking, url, path, grant.ws_token, *fields)
    with client.socket:
        yield client


def close_in(heard: bytes) -> int:
    """The code of the close frame at the end."""
    start = heard.rindex(b"\x88")
    return int.from_bytes(heard[start + 2 : start + 4], "big")


@pytest.mark.parametrize("unread", [0, 300_000, 8_000_000])
async def test_who_says_too_much_is_told_although_much_is_on_its_way(unread: int) -> None:
    """No reset: the kernel would send one for a socket that is closed while bytes are unread."""

    def flood(client: Blocking) -> bytes:
        # The header of a message beyond the limit, and then as much as it likes.
        client.socket.sendall(header(BINARY, 64 << 20, MASKED) + bytes(4) + bytes(unread))
        time.sleep(0.2)
        client.socket.sendall(bytes(1000))
        return client.hear_all()

    recorder = Recorder()
    with anyio.fail_after(20):
        async with (
            running_gateway(make_gateway({"echo": recorder})) as url,
            blocking(url, "Origin: https://page.example") as client,
        ):
            heard = await anyio.to_thread.run_sync(flood, client)
            assert close_in(heard) == 1009
            await recorder.wait_done()
    (close,) = recorder.commands
    assert isinstance(close, Close)
    assert close.code == 1009


async def test_what_is_dropped_at_the_end_has_a_bound() -> None:
    def flood(client: Blocking) -> int:
        sent = 0
        client.socket.sendall(header(BINARY, 1 << 40, MASKED) + bytes(4))
        try:
            while True:
                sent += client.socket.send(bytes(1 << 20))
        except OSError:
            return sent

    gateway = make_gateway(close_timeout=1.0)
    with anyio.fail_after(20):
        async with running_gateway(gateway) as url, blocking(url) as client:
            begin = anyio.current_time()
            sent = await anyio.to_thread.run_sync(flood, client)
            assert anyio.current_time() - begin < 5
    assert sent < 100 << 20


async def test_a_close_in_the_middle_of_a_message_is_answered() -> None:
    """Autobahn 7.1.5: a fragment, then a close."""

    def leave(client: Blocking) -> bytes:
        client.socket.sendall(frame(TEXT & 0x0F, b'{"t"') + frame(CLOSE, close_payload(1000, "")))
        return client.hear_all()

    recorder = Recorder()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": recorder})) as url, blocking(url) as client:
            assert close_in(await anyio.to_thread.run_sync(leave, client)) == 1000
            await recorder.wait_done()
    assert recorder.commands == [Close(1000, "", "remote")]


async def test_a_goodbye_that_had_arrived_is_known_although_our_write_failed() -> None:
    """It is unread when the connection is reset, and the write that fails would end the session first."""
    left = threading.Event()

    async def speaks_too_late(session: ServerSession) -> None:
        await session.receive()
        assert left.wait(10)  # blocks the event loop: nothing is read meanwhile
        for _ in range(8):
            await session.send_audio(bytes(960))
        await session.wait_closed()

    def leave(client: Blocking) -> None:
        client.socket.sendall(frame(BINARY, bytes(960)))
        time.sleep(0.2)
        client.socket.sendall(frame(CLOSE, close_payload(4000, "bye")))
        # Closing with this option resets the connection.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
        time.sleep(0.1)
        left.set()

    store = MemoryStore()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": speaks_too_late}, store=store)) as url:
            grant = await mint(url)
            path = "/v1/realtime/" + grant.session_id
            client = await anyio.to_thread.run_sync(Blocking, url, path, grant.ws_token)
            await anyio.to_thread.run_sync(leave, client)
        history = await store.get(grant.session_id)
    assert history is not None
    life = history.life
    assert (life.close_code, life.close_reason, life.closed_by) == (4000, "bye", "client")


# Other WebSockets of the application


async def says_hello(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close(4000)


class Blocks:
    """Middleware of an operator: lets no WebSocket in."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self.app(scope, receive, send)


async def test_routes_of_an_operators_own_are_served() -> None:
    gateway = make_gateway()
    gateway.app.router.routes.insert(0, WebSocketRoute("/hello", says_hello))
    with anyio.fail_after(20):
        async with running_gateway(gateway) as url:
            client = await anyio.to_thread.run_sync(Blocking, url, "/hello", "x")
            heard = await anyio.to_thread.run_sync(client.hear_close)
            assert heard.startswith(b"HTTP/1.1 101 ")
            assert b"hello" in heard
            assert close_in(heard) == 4000
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as session:
                await session.hear()


async def test_middleware_of_an_operators_own_sees_every_session() -> None:
    gateway = make_gateway()
    gateway.app.add_middleware(Blocks)
    with anyio.fail_after(20):
        async with running_gateway(gateway) as url, blocking(url) as client:
            assert client.heard.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("path", ["/", "/v1/realtime", "/v1/realtime/a/b", "/%"])
async def test_elsewhere_there_is_no_session(path: str) -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": echo})) as url:
            client = await anyio.to_thread.run_sync(Blocking, url, path, "x")
            assert (await anyio.to_thread.run_sync(client.hear_all)).startswith(b"HTTP/1.1 404 ")
            client = await anyio.to_thread.run_sync(Blocking, url, path, "x", "Origin: https://page.example")
            assert close_in(await anyio.to_thread.run_sync(client.hear_all)) == 4404
