"""The ASGI edge: what servers report, and how a WebSocket is refused."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from speko_anyio.gateway._asgi import ASGIOpening, ASGITransport
from speko_anyio.gateway._http_errors import RequestError
from speko_anyio.gateway._opening import refuse
from speko_anyio.protocol import CloseMessage

pytestmark = pytest.mark.anyio


class Server:
    """The server's side of ASGI: says what it is told to, records what it is asked to send."""

    def __init__(self, *says: dict[str, Any], error: Exception | None = None) -> None:
        self.says = list(says)
        self.sent: list[dict[str, Any]] = []
        self.error = error

    async def receive(self) -> Any:
        return self.says.pop(0)

    async def send(self, message: Any) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(message)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "websocket.receive", "bytes": b"ab"}, b"ab"),
        ({"type": "websocket.receive", "bytes": b""}, b""),
        ({"type": "websocket.receive", "bytes": b"ab", "text": None}, b"ab"),
        ({"type": "websocket.receive", "text": "ab"}, "ab"),
        ({"type": "websocket.receive", "text": "", "bytes": None}, ""),
        ({"type": "websocket.disconnect", "code": 1000, "reason": "bye"}, CloseMessage(1000, "bye")),
        ({"type": "websocket.disconnect", "code": 1000, "reason": None}, CloseMessage(1000, "")),
        ({"type": "websocket.disconnect", "code": 1012}, CloseMessage(1012, "")),
        ({"type": "websocket.disconnect", "code": 1005, "reason": ""}, CloseMessage(1005, "")),
        # uvicorn's report of a connection that was lost
        ({"type": "websocket.disconnect", "code": 1005}, None),
        ({"type": "websocket.disconnect", "code": 1006, "reason": "gone"}, None),
        ({"type": "websocket.disconnect"}, None),
    ],
)
async def test_what_is_received(message: dict[str, Any], expected: object) -> None:
    server = Server(message)
    assert await ASGITransport(server.receive, server.send).receive() == expected


async def test_what_is_sent() -> None:
    server = Server()
    transport = ASGITransport(server.receive, server.send)
    await transport.send("ab")
    await transport.send(b"")
    await transport.close(1000, "é" * 100)
    assert server.sent == [
        {"type": "websocket.send", "text": "ab"},
        {"type": "websocket.send", "bytes": b""},
        {"type": "websocket.close", "code": 1000, "reason": "é" * 61},
    ]


@pytest.mark.parametrize("error", [OSError(), RuntimeError()])
async def test_a_connection_that_is_gone(error: Exception) -> None:
    server = Server(error=error)
    transport = ASGITransport(server.receive, server.send)
    with pytest.raises(anyio.BrokenResourceError):
        await transport.send("ab")
    with pytest.raises(anyio.BrokenResourceError):
        await transport.close(1000, "")


async def refused(scope: dict[str, Any], server: Server) -> list[dict[str, Any]]:
    scope = {"type": "websocket", "headers": [], "subprotocols": [], **scope}
    opening = ASGIOpening(scope, server.receive, server.send)
    await refuse(opening, RequestError(401, "NO", "not you", close_code=4401))
    return server.sent


CONNECT = {"type": "websocket.connect"}
DENIAL: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}
ORIGIN = {"headers": [(b"origin", b"https://page.example")]}


async def test_a_program_is_refused_by_http() -> None:
    start, body = await refused(DENIAL, Server(CONNECT))
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 401
    assert (b"content-type", b"application/json") in start["headers"]
    assert body == {"type": "websocket.http.response.body", "body": b'{"error":"not you","code":"NO"}'}


async def test_a_server_without_that_extension_only_hangs_up() -> None:
    assert await refused({}, Server(CONNECT)) == [
        {"type": "websocket.close", "code": 4401, "reason": "not you"}
    ]


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["a", "b"], "a"), ([" a, b"], "a"), ([""], None), ([], None)]
)
async def test_a_browser_is_told_by_the_websocket(offered: list[str], chosen: str | None) -> None:
    scope = {**DENIAL, **ORIGIN, "subprotocols": offered}
    assert await refused(scope, Server(CONNECT)) == [
        {"type": "websocket.accept", "subprotocol": chosen, "headers": []},
        {"type": "websocket.send", "text": '{"t":"error","code":"NO","message":"not you"}'},
        {"type": "websocket.close", "code": 4401, "reason": "not you"},
    ]


async def test_who_left_is_not_refused() -> None:
    assert await refused(DENIAL, Server({"type": "websocket.disconnect", "code": 1006})) == []
    assert await refused(ORIGIN, Server(CONNECT, error=OSError())) == []
