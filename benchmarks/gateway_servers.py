"""The servers of ``gateway.py``, each in its own process: our gateway, and servers that only echo.

    python benchmarks/gateway_servers.py SERVER LOOP    # prints its URL, serves until it is terminated

The servers without sessions send `ready` and echo what they receive.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import application_heap
from client_server import READY

GATEWAY: Final = "gateway"
GATEWAY_ASGI: Final = "gateway, ASGI"
CORE: Final = "(core)"
GATEWAY_IN_TURNS: Final = "gateway, ASGI in turns"
ASGI: Final = "raw ASGI"
WEBSOCKETS: Final = "websockets"
PICOWS: Final = "picows"

LISTENER: Final = "listener"
"""The provider of `gateway_listener.listen`."""

_GIVE_BACK: Final = signal.SIGUSR1
"""Makes a server collect its garbage and return free memory to the system."""

_MANY: Final = "100000"
"""Mints a second, so that none of them waits."""


class Endpoint(NamedTuple):
    """A server that runs."""

    name: str
    url: str
    key: str | None
    """API key of a gateway; None for a server whose WebSocket needs no mint."""
    pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU time that all threads of the process have taken."""
        # A clock id as made by clock_getcpuclockid(3): nanoseconds, where /proc/PID/stat has 10 ms.
        return time.clock_gettime((~self.pid << 3) | 2)

    def resident_bytes(self) -> int:
        """Return the resident memory of the process, without the files of programs that it maps.

        The process first gives back what it has freed. How much of a file counts (PSS) depends on the other
        processes that map it.
        """
        os.kill(self.pid, _GIVE_BACK)
        time.sleep(0.1)
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        match = re.search(r"^Pss_Anon:\s+(\d+) kB$", rollup, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024


@contextmanager
def serving(name: str, *, loop: str, core: int | None = None, bare: bool = False) -> Iterator[Endpoint]:
    """Run a server during the block, bound to processor `core` unless that is None.

    Its process has an application's heap unless `bare`.
    """
    key = (
        f"sk_bench_{secrets.token_urlsafe(32)}" if name in (GATEWAY, GATEWAY_ASGI, GATEWAY_IN_TURNS) else None
    )
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-u", __file__, name, loop, *(["bare"] if bare else [])],
            env=_environment(key, Path(folder) / "gateway.db", bare=bare),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            yield Endpoint(name, _url(process.stdout, name), key, process.pid)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.stdout.close()


def _environment(key: str | None, database: Path, *, bare: bool) -> dict[str, str]:
    kept = application_heap.environment(bare=bare)
    environment = {name: value for name, value in kept.items() if not name.startswith("SPEKO_")}
    if key is not None:
        environment |= {
            "SPEKO_GATEWAY_KEYS": key,
            "SPEKO_GATEWAY_DATABASE": os.environ.get("BENCH_DATABASE", str(database)),
            "SPEKO_GATEWAY_MINTS_PER_SECOND": _MANY,
            "SPEKO_GATEWAY_MINTS_AT_ONCE": _MANY,
            "SPEKO_GATEWAY_LOG_LEVEL": "warning",
        }
    return environment


def _url(lines: Any, name: str) -> str:
    for line in lines:
        if match := re.search(r"^gateway\s+(http://\S+)", line):
            return match[1]
    raise SystemExit(f"the server {name!r} did not start")


# The servers themselves; each imports what it needs only in its own process.


def _serve_gateway(loop: str) -> None:
    """Run `speko-anyio serve`."""
    from speko_anyio.cli import main

    main(["serve", "--port", "0", "--backend", loop, "--handler", f"{LISTENER}=gateway_listener:listen"])


def _serve_gateway_by_asgi(loop: str, *, ws: Any = "websockets-sansio") -> None:
    """Run the gateway as an ASGI application under a uvicorn that knows nothing of it."""
    from gateway_listener import listen

    from speko_anyio.gateway import Gateway, SQLStore, echo

    gateway = Gateway(
        handlers={"echo": echo, LISTENER: listen},
        api_keys=[os.environ["SPEKO_GATEWAY_KEYS"]],
        store=SQLStore(os.environ["SPEKO_GATEWAY_DATABASE"]),
        mint_rate=float(_MANY),
        mint_burst=int(_MANY),
    )
    _run_uvicorn(gateway, loop, lifespan="on", ws=ws)


def _serve_gateway_in_turns(loop: str) -> None:
    """Run it so, but with our addition to that server's own protocol."""
    from speko_anyio.gateway import websocket_in_turns

    _serve_gateway_by_asgi(loop, ws=websocket_in_turns)


async def _echo_by_asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0], "headers": []})
    await send({"type": "websocket.send", "text": READY.decode()})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


def _run_uvicorn(app: Any, loop: str, *, lifespan: Any = "off", ws: Any = "websockets-sansio") -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        ws=ws,
        ws_per_message_deflate=False,
        loop=loop,
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _announce(listener.getsockname()[1])
    config.load()
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve([listener]))


async def _serve_websockets() -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(websocket: ServerConnection) -> None:
        await websocket.send(READY.decode())
        async for message in websocket:
            await websocket.send(message)

    async with serve(
        echo,
        "127.0.0.1",
        0,
        compression=None,
        select_subprotocol=lambda _, offered: offered[0],
    ) as server:
        _announce(next(iter(server.sockets)).getsockname()[1])
        await server.serve_forever()


async def _serve_picows() -> None:
    from client_server import start_streams

    server = await start_streams()
    _announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _serve_core() -> None:
    """Serve our protocol core by callbacks of the event loop alone: no handler, no tasks, no limits of time.

    No gateway with this core can take less.
    """
    from speko_anyio.protocol import NEED_DATA, AudioIn, ServerConnection, UpgradeRequest

    buffer = memoryview(bytearray(65_536))

    class Echo(asyncio.BufferedProtocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport
            self._core = ServerConnection(ping_interval=None)

        def get_buffer(self, sizehint: int) -> memoryview:
            return buffer

        def buffer_updated(self, nbytes: int) -> None:
            core = self._core
            core.receive_data(bytes(buffer[:nbytes]))
            while (event := core.next_event()) is not NEED_DATA:
                if type(event) is AudioIn:
                    core.send_audio(event.pcm)
                elif type(event) is UpgradeRequest:
                    core.accept()
                    core.send_ready()
            if data := core.data_to_send():
                self._transport.write(data)

    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    _announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _announce(port: int) -> None:
    print(f"gateway    http://127.0.0.1:{port}", flush=True)


def _run(serve: Callable[[], Awaitable[None]], loop: str) -> None:
    import uvloop

    async def run() -> None:
        await serve()

    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner,
    ):
        runner.run(run())


SERVERS: Final[dict[str, Callable[[str], None]]] = {
    GATEWAY: _serve_gateway,
    GATEWAY_ASGI: _serve_gateway_by_asgi,
    GATEWAY_IN_TURNS: _serve_gateway_in_turns,
    ASGI: lambda loop: _run_uvicorn(_echo_by_asgi, loop),
    WEBSOCKETS: lambda loop: _run(_serve_websockets, loop),
    PICOWS: lambda loop: _run(_serve_picows, loop),
    CORE: lambda loop: _run(_serve_core, loop),
}


def _give_back(*_: object) -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    name, loop, *bare = sys.argv[1:]
    signal.signal(_GIVE_BACK, _give_back)
    if not bare:
        application_heap.fill_heap()
    SERVERS[name](loop)


if __name__ == "__main__":
    main()
