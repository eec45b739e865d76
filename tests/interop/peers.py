"""Foreign peers, each of its own make, run beside the test: in a thread, or Node in a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias

import aiohttp
import msgspec
import websockets
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import serve
from websockets.typing import Subprotocol

from tests.support.patience import PATIENCE
from tests.support.processes import environment, running

from .script import TOKEN, Report, Role, Step, beginning_of_a_frame, perform


class Peer(Protocol):
    """A peer that is under way while it is entered.

    - `port`: where a server listens.
    - `report`: what became of it, at its end; raises its own failure, if there was one.
    """

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def port(self) -> int: ...
    def report(self) -> Report: ...


Announce: TypeAlias = Callable[[int], None]
Program: TypeAlias = Callable[[tuple[Step, ...], str, Announce], Awaitable[Report]]


class ThreadPeer:
    """A coroutine in a loop of its own, in a thread of its own. `url` is where a client goes."""

    def __init__(self, program: Program, steps: tuple[Step, ...], url: str) -> None:
        self._program = program
        self._steps = steps
        self._url = url
        self._port = Future[int]()
        self._report = Future[Report]()
        self._thread = threading.Thread(target=self._run, name="peer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()

    @property
    def port(self) -> int:
        return self._port.result(PATIENCE)

    def report(self) -> Report:
        return self._report.result(PATIENCE)

    def _run(self) -> None:
        try:
            self._report.set_result(asyncio.run(self._main()))
        except BaseException as failure:  # noqa: BLE001 - raised again by whoever asks for the report
            self._report.set_exception(failure)

    async def _main(self) -> Report:
        async with asyncio.timeout(PATIENCE):
            return await self._program(self._steps, self._url, self._port.set_result)


def _cut(transport_socket: socket.socket, role: Role) -> None:
    os.write(transport_socket.fileno(), beginning_of_a_frame(role))
    transport_socket.shutdown(socket.SHUT_RDWR)


# websockets


class _Websockets:
    def __init__(self, connection: Connection, role: Role) -> None:
        self._connection = connection
        self._role: Role = role
        self.subprotocol = connection.subprotocol
        self.extensions = ", ".join(extension.name for extension in connection.protocol.extensions)

    async def send(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def send_fragments(self, pieces: list[str] | list[bytes]) -> int:
        pongs = 0

        async def message() -> AsyncIterator[str | bytes]:
            nonlocal pongs
            yield pieces[0]
            for piece in pieces[1:]:
                await (await self._connection.ping())
                pongs += 1
                yield piece

        await self._connection.send(message())
        return pongs

    async def ping(self, data: bytes) -> None:
        await (await self._connection.ping(data))

    async def receive(self) -> str | bytes:
        return await self._connection.recv()

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    async def closed(self) -> tuple[int, str]:
        await self._connection.wait_closed()
        return self._connection.close_code or 0, self._connection.close_reason or ""

    def die(self) -> None:
        _cut(self._connection.transport.get_extra_info("socket"), self._role)


async def websockets_server(steps: tuple[Step, ...], _: str, announce: Announce) -> Report:
    report: asyncio.Future[Report] = asyncio.get_running_loop().create_future()

    async def handle(connection: Connection) -> None:
        report.set_result(await perform(_Websockets(connection, "server"), steps))

    async with serve(
        handle, "127.0.0.1", 0, subprotocols=[Subprotocol(TOKEN)], compression="deflate", ping_interval=None
    ) as server:
        announce(next(iter(server.sockets)).getsockname()[1])
        return await report


async def websockets_client(steps: tuple[Step, ...], url: str, _: Announce) -> Report:
    try:
        async with connect(
            url, subprotocols=[Subprotocol(TOKEN)], compression="deflate", ping_interval=None, proxy=None
        ) as connection:
            return await perform(_Websockets(connection, "client"), steps)
    except websockets.InvalidStatus as refusal:
        return Report(refused=refusal.response.status_code)


# aiohttp


class _Aiohttp:
    """aiohttp sends no fragments, and leaves pongs to its user when asked to."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse | web.WebSocketResponse, role: Role) -> None:
        self._ws = ws
        self._role: Role = role
        self._reason = ""
        self.subprotocol = ws.ws_protocol if isinstance(ws, web.WebSocketResponse) else ws.protocol
        self.extensions = "permessage-deflate" if ws.compress else ""

    async def send(self, message: str | bytes) -> None:
        await (self._ws.send_str(message) if isinstance(message, str) else self._ws.send_bytes(message))

    async def send_fragments(self, pieces: list[str] | list[bytes]) -> int:
        raise NotImplementedError

    async def ping(self, data: bytes) -> None:
        await self._ws.ping(data)
        pong = await self._ws.receive()
        assert pong.type is aiohttp.WSMsgType.PONG
        assert pong.data == data

    async def receive(self) -> str | bytes:
        message = await self._ws.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
        return message.data  # type: ignore[no-any-return]

    async def close(self, code: int, reason: str) -> None:
        await self._ws.close(code=code, message=reason.encode())

    async def closed(self) -> tuple[int, str]:
        while not self._ws.closed:
            message = await self._ws.receive()
            if message.type is aiohttp.WSMsgType.PING:
                await self._ws.pong(message.data)
            elif message.type is aiohttp.WSMsgType.CLOSE:
                self._reason = message.extra or ""
        return self._ws.close_code or 1006, self._reason

    def die(self) -> None:
        _cut(self._ws.get_extra_info("socket"), self._role)


async def aiohttp_server(steps: tuple[Step, ...], _: str, announce: Announce) -> Report:
    report: asyncio.Future[Report] = asyncio.get_running_loop().create_future()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=[TOKEN], autoping=False, compress=True)
        await ws.prepare(request)
        report.set_result(await perform(_Aiohttp(ws, "server"), steps))
        return ws

    app = web.Application()
    app.router.add_get("/stream", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        announce(runner.addresses[0][1])
        return await report
    finally:
        await runner.cleanup()


async def aiohttp_client(steps: tuple[Step, ...], url: str, _: Announce) -> Report:
    async with aiohttp.ClientSession() as http:
        try:
            async with http.ws_connect(url, protocols=[TOKEN], autoping=False, compress=15) as ws:
                return await perform(_Aiohttp(ws, "client"), steps)
        except aiohttp.WSServerHandshakeError as refusal:
            return Report(refused=refusal.status)


# Node's ws


class NodePeer:
    """``peer.mjs`` in a process; `modules` is the directory in which npm installed ws."""

    def __init__(self, modules: Path, role: Role, steps: tuple[Step, ...], url: str) -> None:
        self._modules = modules
        self._order = {
            "role": role,
            "url": url,
            "token": TOKEN,
            "steps": msgspec.to_builtins(steps),
            "beginningOfAFrame": beginning_of_a_frame(role).hex(),
        }
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        node = shutil.which("node")
        assert node is not None
        command: list[str | Path] = [node, Path(__file__).with_name("peer.mjs")]
        env = environment(WS_MODULE=str(self._modules / "node_modules" / "ws"))
        with ExitStack() as stack:
            self._process = stack.enter_context(running(command, env=env, stdin=subprocess.PIPE, stderr=None))
            self._reader = threading.Thread(target=self._read, name="node's output")
            self._reader.start()
            stack.callback(self._reader.join, PATIENCE)
            stack.callback(self._process.kill)  # so that the reader comes to an end
            assert self._process.stdin is not None
            with self._process.stdin:
                json.dump(self._order, self._process.stdin)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack, contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE if value is None else 0)

    @property
    def port(self) -> int:
        return int(self._line())

    def report(self) -> Report:
        return msgspec.json.decode(self._line(), type=Report)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _line(self) -> str:
        line = self._lines.get(timeout=PATIENCE)
        assert line, "node has ended without a word; see its stderr"
        return line


PROGRAMS: Final[dict[tuple[str, Role], Program]] = {
    ("websockets", "server"): websockets_server,
    ("websockets", "client"): websockets_client,
    ("aiohttp", "server"): aiohttp_server,
    ("aiohttp", "client"): aiohttp_client,
}
