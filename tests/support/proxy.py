"""Proxies on the loopback, for a client to go through: HTTP CONNECT and SOCKS 5."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncGenerator, Mapping

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from speko_anyio._net.contexts import never_swallows


class FakeProxy:
    """What the proxies have in common. It resolves the names in `hosts`, and no others.

    - `login`: what the client has to say; None when everybody is welcome.
    - `targets`: what it was asked for, in order; `logins`: what the clients said they were.
    - `in_pieces`: whether its answer comes bit by bit, which not every client bears (httpcore's SOCKS).
    - `answer`: sent instead of the protocol's own answer to the request, when given.
    """

    scheme = ""

    def __init__(
        self,
        hosts: Mapping[str, int] | None = None,
        *,
        login: tuple[str, str] | None = None,
        answer: bytes | None = None,
        in_pieces: bool = False,
    ) -> None:
        self.hosts = dict(hosts or {})
        self.login = login
        self.answer = answer
        self.in_pieces = in_pieces
        self.targets: list[tuple[str, int]] = []
        self.logins: list[tuple[str, str]] = []
        self.port = 0

    def url(self, login: str = "") -> str:
        return f"{self.scheme}://{login}localhost:{self.port}"

    async def serve(self, client: ByteStream) -> None:
        async with client:
            try:
                if await self.greet(client):
                    await self._tunnel(client)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # the client has left

    async def greet(self, client: ByteStream) -> bool:
        """Do what precedes the tunnel; False when there is to be none."""
        raise NotImplementedError

    async def _tunnel(self, client: ByteStream) -> None:
        port = self.hosts[self.targets[-1][0]]
        # On uvloop, anyio 4.10 leaves open what a connect that was cancelled has opened.
        with anyio.fail_after(5, shield=True):
            server = await anyio.connect_tcp("127.0.0.1", port)
        async with server, anyio.create_task_group() as tasks:

            async def copy(source: ByteStream, sink: ByteStream) -> None:
                try:
                    async for data in source:
                        await sink.send(data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # one end has left, the other one follows
                tasks.cancel_scope.cancel()

            tasks.start_soon(copy, client, server)
            await copy(server, client)


class HTTPProxy(FakeProxy):
    scheme = "http"

    async def greet(self, client: ByteStream) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await client.receive(1)
        request, *lines = head.decode().split("\r\n")
        method, target, _ = request.split(" ")
        assert method == "CONNECT"
        headers = dict(line.split(": ", 1) for line in lines if line)
        host, _, port = target.rpartition(":")
        assert headers["Host"] == target
        self.targets.append((host.strip("[]"), int(port)))
        if said := headers.get("Proxy-Authorization"):
            user, _, password = base64.b64decode(said.removeprefix("Basic ")).decode().partition(":")
            self.logins.append((user, password))
        if self.answer is not None:
            await client.send(self.answer)
            await client.receive()
            return False
        if self.login is not None and self.login not in self.logins[-1:]:
            await client.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return False
        if self.targets[-1][0] not in self.hosts:
            await client.send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return False
        # What is no answer yet, and the answer.
        answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n"
        for part in (answer[:50], answer[50:]) if self.in_pieces else (answer,):
            await client.send(part)
        return True


class SOCKSProxy(FakeProxy):
    scheme = "socks5"

    async def greet(self, client: ByteStream) -> bool:
        if self.answer is not None:
            await client.send(self.answer)
            await client.receive()
            return False
        version, count = await _exactly(client, 2)
        assert version == 5
        method = 0 if self.login is None else 2
        if method not in await _exactly(client, count):
            await client.send(b"\x05\xff")
            return False
        await client.send(bytes([5, method]))
        if self.login is not None:
            assert await _exactly(client, 1) == b"\x01"
            user, password = [(await _exactly(client, (await _exactly(client, 1))[0])).decode() for _ in "up"]
            self.logins.append((user, password))
            await client.send(b"\x01" + bytes([(user, password) != self.login]))
            if (user, password) != self.login:
                return False
        assert await _exactly(client, 3) == b"\x05\x01\x00"
        (kind,) = await _exactly(client, 1)
        if kind == 3:
            host = (await _exactly(client, (await _exactly(client, 1))[0])).decode()
        else:
            raw = await _exactly(client, {1: 4, 4: 16}[kind])
            host = (
                ".".join(map(str, raw)) if kind == 1 else "::1" if raw == bytes(15) + b"\x01" else raw.hex()
            )
        self.targets.append((host, int.from_bytes(await _exactly(client, 2))))
        if host not in self.hosts:
            await client.send(b"\x05\x04\x00\x01" + bytes(6))
            return False
        # The address in the reply is of the kind that was asked with; nobody needs it.
        bound = {1: bytes(4), 3: b"\x05proxy", 4: bytes(16)}[kind]
        reply = b"\x05\x00\x00" + bytes([kind]) + bound + b"\x00\x00"
        for part in (reply[:3], reply[3:6], reply[6:]) if self.in_pieces else (reply,):
            await client.send(part)
        return True


async def _exactly(client: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await client.receive(size - len(data))
    return data


@never_swallows
async def running_proxy(
    proxy: FakeProxy, context: ssl.SSLContext | None = None
) -> AsyncGenerator[FakeProxy, None]:
    """The proxy on a port of the loopback, behind TLS when there is a `context`."""
    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    proxy.port = tcp.extra(SocketAttribute.local_port)
    listener = tcp if context is None else TLSListener(tcp, context, standard_compatible=False)
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, proxy.serve)
            yield proxy
            tasks.cancel_scope.cancel()
