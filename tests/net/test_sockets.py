"""What the system is told of every socket: when to give up a silent peer, and what a hard close does."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from speko_anyio._net.dialing import dial
from speko_anyio._net.happy_eyeballs import connect_socket
from speko_anyio._net.sockets import PEER_TIMEOUT, drop_unsent, limit_silence
from speko_anyio.gateway import _uvicorn_server
from speko_anyio.protocol.url import parse_url
from tests.support.drivers import raw_socket
from tests.support.proxy import HTTPProxy, running_proxy

NAMES = ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


def told(sock: Any) -> dict[str, int]:
    """What the system was told of the socket, as far as it has such options."""
    there = {name: getattr(socket, name) for name in NAMES if hasattr(socket, name)}
    found = {name: sock.getsockopt(socket.IPPROTO_TCP, option) for name, option in there.items()}
    return {"SO_KEEPALIVE": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), **found}


def limited() -> dict[str, int]:
    with socket.socket() as sock:
        limit_silence(sock)
        return told(sock)


def test_a_dead_peer_is_given_up_in_time() -> None:
    options = limited()
    assert options["SO_KEEPALIVE"] == 1
    idle = options.get("TCP_KEEPIDLE") or options["TCP_KEEPALIVE"]
    assert idle + options["TCP_KEEPINTVL"] * options["TCP_KEEPCNT"] == PEER_TIMEOUT
    if "TCP_USER_TIMEOUT" in options:
        assert options["TCP_USER_TIMEOUT"] == PEER_TIMEOUT * 1000


def test_what_the_gateway_accepts_is_limited() -> None:
    with _uvicorn_server._listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert told(accepted) == limited()


@pytest.mark.anyio
@pytest.mark.parametrize("through_proxy", [False, True])
async def test_what_the_client_opens_is_limited(through_proxy: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with running_proxy(HTTPProxy({"localhost": port})) as proxy:
            where = parse_url(f"ws://localhost:{port}/")
            through = proxy.url() if through_proxy else None
            driver = await dial(where, connect_timeout=5, ssl_context=None, proxy=through)
            assert told(raw_socket(driver)) == limited()
            await driver.aclose_forcefully()


@pytest.mark.anyio
async def test_what_the_driver_of_asyncio_opens_is_limited() -> None:
    async def connect(candidate: socket.socket, where: object) -> None:
        await checkpoint()

    with await connect_socket("127.0.0.1", 80, connect=connect) as opened:
        assert told(opened) == limited()


def test_a_kind_of_socket_without_these_options_is_left_as_it_is() -> None:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no Unix sockets here")
    one, other = socket.socketpair()
    with one, other:
        limit_silence(one)
        one.sendall(b"x")
        assert other.recv(1) == b"x"


def test_what_is_dropped_is_not_delivered_after_the_close() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.setblocking(False)
                drop_unsent(accepted)
                accepted.send(bytes(1 << 20))
            with pytest.raises(ConnectionResetError), client.makefile("rb") as file:
                file.read()
