"""Sessions over real sockets, with a client that keeps to no rule: what sessions over bytes do about it, and
that WebSockets are the same both ways.
"""

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

from speko_anyio.gateway import Gateway, MemoryStore, ServerSession, echo, running_gateway
from speko_anyio.protocol import Close, Commit, Ready
from speko_anyio.protocol._framing import BINARY, CLOSE, MASKED, PING, TEXT, close_payload, header

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


@pytest.mark.parametrize("behind", [0, 500], ids=["in step", "behind"])
async def test_a_goodbye_that_had_arrived_is_known_although_our_write_failed(behind: int) -> None:
    """It is unread when the connection is reset, and the write that fails would end the session first.

    A session that is `behind` still has so many messages to deliver then, in later turns of the event loop.
    """
    left, ended = threading.Event(), threading.Event()

    async def speaks_too_late(session: ServerSession) -> None:
        await session.receive()
        assert left.wait(10)  # blocks the event loop: nothing is read meanwhile
        for _ in range(8):
            await session.send_audio(bytes(960))
        await session.wait_closed()
        ended.set()

    def leave(client: Blocking) -> None:
        client.socket.sendall(frame(BINARY, bytes(960)) + frame(TEXT, COMMIT) * behind)
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
            assert await anyio.to_thread.run_sync(ended.wait, 10)
        history = await store.get(grant.session_id)
    assert history is not None
    life = history.life
    assert (life.close_code, life.close_reason, life.closed_by) == (4000, "bye", "client")


# The WebSocket itself (RFC 6455), both ways; after the cases of the Autobahn test suite

COMMIT = b'{"t":"control","action":"commit"}'

CASES: dict[str, tuple[bytes, int]] = {
    "a ping within a message": (
        frame(TEXT & 0x0F, COMMIT[:5]) + frame(PING, b"!") + frame(0x80, COMMIT[5:]) + frame(CLOSE, b""),
        1005,
    ),
    "a message in empty pieces": (frame(2, b"") + frame(0, b"") + frame(0x80, b"") + frame(CLOSE, b""), 1005),
    "a pong that nobody asked for": (frame(0x8A, b"?") + frame(CLOSE, close_payload(4000, "bye")), 4000),
    "a bit that is reserved": (frame(BINARY | 0x40, b"ab"), 1002),
    "a kind that is reserved": (frame(0x83, b"ab"), 1002),
    "a control kind that is reserved": (frame(0x8B, b"ab"), 1002),
    "a ping in pieces": (frame(PING & 0x0F, b"ab"), 1002),
    "a ping that is too long": (frame(PING, bytes(126)), 1002),
    "a piece of nothing": (frame(0x80, b"ab"), 1002),
    "a message within a message": (frame(TEXT & 0x0F, b"a") + frame(TEXT, b"b"), 1002),
    "text that is not UTF-8": (
        frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"),
        1007,
    ),
    "a close of one byte": (frame(CLOSE, b"a"), 1002),
    "a code that may not be sent": (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
    "a code that does not exist": (frame(CLOSE, (999).to_bytes(2, "big")), 1002),
    "a frame without a mask": (header(BINARY, 2, 0) + b"ab", 1002),
}


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("case", CASES)
async def test_the_websocket_ends_as_the_standard_says(case: str) -> None:
    said, code = CASES[case]

    def talk(client: Blocking) -> bytes:
        client.socket.sendall(said)
        return client.hear_all()

    recorder = Recorder()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": recorder})) as url, blocking(url) as client:
            heard = await anyio.to_thread.run_sync(talk, client)
            await recorder.wait_done()
    if code == 1005:
        assert heard.endswith(b"\x88\0")
    else:
        assert close_in(heard) == code
    close = recorder.commands[-1]
    assert isinstance(close, Close)
    assert close.code == code
    assert recorder.commands[:-1] == ([Commit()] if "ping within" in case else [])


@pytest.mark.usefixtures("both_ways")
async def test_a_request_that_is_no_handshake_is_answered() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            grant = await mint(url)
            path = "/v1/realtime/" + grant.session_id

            def ask(*fields: str) -> bytes:
                host, _, port = url.removeprefix("http://").partition(":")
                with socket.create_connection((host, int(port)), timeout=10) as raw:
                    head = [
                        f"GET {path} HTTP/1.1",
                        f"Host: {host}",
                        "Upgrade: websocket",
                        "Connection: Upgrade",
                    ]
                    raw.sendall("\r\n".join([*head, *fields, "", ""]).encode())
                    return raw.recv(1000)

            for fields in (
                (),
                ("Sec-WebSocket-Version: 13",),
                ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",),
            ):
                answer = await anyio.to_thread.run_sync(ask, *fields)
                assert answer.startswith(b"HTTP/1.1 4")
            # The token is not used up.
            async with raw_client(grant.ws_url, grant.ws_token) as session:
                assert isinstance(await session.hear(), Ready)


async def test_a_server_that_stops_without_a_drain_tells_its_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def do_nothing(self: Gateway, *, patience: float = 0.0) -> None: ...

    monkeypatch.setattr(Gateway, "drain", do_nothing)
    recorder = Recorder()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": recorder})) as url:
            grant = await mint(url)
            stream = raw_client(grant.ws_url, grant.ws_token)
            client = await stream.__aenter__()
            assert isinstance(await client.hear(), Ready)
        close = await client.hear_close()
        await stream.__aexit__(None, None, None)
    assert (close.code, close.initiated_by) == (1012, "remote")
    assert isinstance(recorder.commands[-1], Close)


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
