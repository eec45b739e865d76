"""The servers of ``gateway.py``, each in its own process: our gateway, and a bare server for comparison.

python benchmarks/gateway_servers.py bare       # prints its URL, serves until it is terminated
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

READY = '{"t":"ready","inputSampleRate":24000,"outputSampleRate":24000}'


class Endpoint(NamedTuple):
    url: str
    key: str


@contextmanager
def gateway(*, loop: str) -> Iterator[Endpoint]:
    """Run `speko-anyio serve` during the block."""
    key = f"sk_bench_{secrets.token_urlsafe(16)}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPEKO_")}
    environment["SPEKO_GATEWAY_KEYS"] = key
    command = [sys.executable, "-u", "-m", "speko_anyio.cli", "serve", "--port", "0", "--backend", loop]
    with _serving([*command, "--database", "memory"], environment) as url:
        yield Endpoint(url, key)


@contextmanager
def bare(*, loop: str) -> Iterator[Endpoint]:
    """Run an ASGI application of thirty lines under the same server during the block.

    It mints without checks and echoes messages without parsing them: the least that a gateway on this server
    can take.
    """
    environment = {**os.environ, "BENCH_LOOP": loop}
    with _serving([sys.executable, "-u", __file__, "bare"], environment) as url:
        yield Endpoint(url, "any")


@contextmanager
def _serving(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if match := re.search(r"^gateway\s+(http://\S+)", line):
                yield match[1]
                return
        raise SystemExit(f"the server {' '.join(command)} did not start")
    finally:
        server.terminate()
        try:
            server.wait(30)
        finally:
            server.kill()
            server.stdout.close()


async def _mint(request: Request) -> JSONResponse:
    token = secrets.token_urlsafe(16)
    grant = {
        "mode": "s2s",
        "sessionId": token,
        "wsUrl": f"ws://{request.url.netloc}/stream",
        "wsToken": token,
        "inputSampleRate": 24000,
        "outputSampleRate": 24000,
        "expiresAt": "2100-01-01T00:00:00Z",
    }
    return JSONResponse(grant, 201)


async def _echo(websocket: WebSocket) -> None:
    await websocket.accept(websocket.scope["subprotocols"][0])
    await websocket.send_text(READY)
    while (message := await websocket.receive())["type"] == "websocket.receive":
        if (data := message.get("bytes")) is not None:
            await websocket.send_bytes(data)


def _serve_bare() -> None:
    app = Starlette(routes=[Route("/v1/sessions", _mint, methods=["POST"]), WebSocketRoute("/stream", _echo)])
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        loop=os.environ["BENCH_LOOP"],
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    print(f"gateway    http://127.0.0.1:{listener.getsockname()[1]}")
    config.load()
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    _serve_bare()
