"""Runs the gateway on uvicorn inside a program: on asyncio in its event loop, on trio in a thread.

uvicorn needs asyncio. On trio it gets an event loop in a thread, and the handlers run there, not on trio.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.to_thread
import uvicorn
from anyio.from_thread import start_blocking_portal

from speko_anyio._net.sockets import limit_silence
from speko_anyio._net.tasks import TaskGroup
from speko_anyio.protocol._limits import DEFAULT_LIMITS

from ._http_connection import HTTPConnection, WaitingRoom
from ._uvicorn_turns import WEBSOCKETS, websocket_in_turns
from ._uvicorn_websocket import WebSocketUpgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from anyio.abc import TaskStatus

    from ._app import Gateway

logger: Final = logging.getLogger("speko_anyio.gateway")

MAX_MESSAGE: Final = 64 * 1024 + max(
    DEFAULT_LIMITS.max_message_size, DEFAULT_LIMITS.max_text_size + DEFAULT_LIMITS.max_image_size * 4 // 3
)
"""Bytes at which uvicorn stops collecting a message. Above the protocol's own limit, which ends the session
with a better reason; this one bounds what is held until then."""

SHUTDOWN_TIMEOUT: Final = 5
"""Seconds to wait for HTTP requests under way when it stops."""


_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.1
"""Seconds between two checks for requests that are still under way when the server stops."""

BACKLOG: Final = 2048
"""Connections that may wait to be accepted; uvicorn's own default."""

ACCEPTS_PER_TURN: Final = 16
"""Connections that asyncio accepts in one turn of its loop. Each takes a descriptor some turns before it can
be refused, and if none is free, asyncio logs an error for each connection that it tries to accept."""


@asynccontextmanager
async def running_gateway(
    gateway: Gateway,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    patience: float = 0.0,
    over_asgi: bool = False,
) -> AsyncIterator[str]:
    """Serve `gateway` while the block runs; yields its base URL, such as ``http://127.0.0.1:54321``.

    `port` 0 takes a free one. It is ready when the block begins. When the block ends, also by cancellation,
    no new session is taken; the open ones get `patience` seconds to finish and are then closed with 1012.
    With the gateway's close timeout and handlers' grace, and `SHUTDOWN_TIMEOUT` for HTTP, that is bounded.
    No signal handler is installed. While it serves, the loggers ``uvicorn.error`` and ``uvicorn.asgi`` drop
    what is below INFO, as it would show tokens.

    Everything that a client can leave open has a deadline: the head of a request, an idle connection, a body
    that is no longer read, and an answer that the client does not read.

    Sessions run on the library's own WebSocket, directly over the connection. With `over_asgi` they use ASGI,
    as under any other ASGI server, for comparisons. That takes more than twice the CPU time, and both behave
    alike.

    Raises OSError when the address can't be used, and any error of entering a handler. If the server fails,
    the block is cancelled and its error raised; on trio only raised, when the block ends.
    """
    listener = _listen(host, port)
    try:
        url = _url(host, listener)
        if _on_trio():
            serving = _serving_in_thread(gateway, listener, patience, over_asgi)
        else:
            serving = _serving(gateway, listener, patience, over_asgi)
        async with serving:
            yield url
    finally:
        listener.close()


async def serve(
    gateway: Gateway,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    patience: float = 0.0,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `gateway` until cancelled; `running_gateway` as a task, which starts with the base URL."""
    async with running_gateway(gateway, host=host, port=port, patience=patience) as url:
        task_status.started(url)
        await anyio.sleep_forever()


def _on_trio() -> bool:
    # A program that runs on trio has imported it; we must not import it.
    trio: Any = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _listen(host: str, port: int) -> socket.socket:
    # Bound here and not by uvicorn, which ends the process when it can't.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # The accepted sockets inherit it. asyncio sets it on none of them, as it only does for sockets made with
    # the protocol's number, and then a message that follows another waits 40 ms for the peer's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limit_silence(listener)
    return listener


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


class _Server(uvicorn.Server):
    """A uvicorn server without signal handlers, whose `ready` is set once it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()
        self._polling = anyio.CancelScope()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            # asyncio has one number for this and for `ACCEPTS_PER_TURN`, so this sets the other one.
            listening.listen(BACKLOG)
        self.ready.set()

    async def main_loop(self) -> None:
        # uvicorn checks only ten times a second whether to stop.
        with self._polling:
            await super().main_loop()

    def stop(self) -> None:
        self.should_exit = True
        self._polling.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in order, as uvicorn's own method does, but without its pauses of a tenth of a second."""
        state = self.server_state
        self.stop_listening()
        for listening in sockets or ():
            listening.close()
        for connection in list(state.connections):
            connection.shutdown()
        with anyio.move_on_after(SHUTDOWN_TIMEOUT):
            pause = _FIRST_PAUSE
            while state.connections or state.tasks:
                await anyio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            for server in self.servers:
                await server.wait_closed()
        cancelled = list(state.tasks)
        if cancelled:
            logger.error("stopping: %d requests are cancelled after %d s", len(cancelled), SHUTDOWN_TIMEOUT)
        for task in cancelled:
            task.cancel()
        for connection in list(state.connections):
            # uvloop does not close its loop while a connection waits for its client to disconnect.
            if isinstance(connection, HTTPConnection | WebSocketUpgrade):
                connection.cut()
        if cancelled:
            await asyncio.wait(cancelled, timeout=SHUTDOWN_TIMEOUT)

    def stop_listening(self) -> None:
        """Close the listeners, for a server that failed before `shutdown` could.

        uvloop hangs on a listener whose socket is closed by others.
        """
        for listening in getattr(self, "servers", ()):
            listening.close()


def _config(gateway: Gateway, over_asgi: bool = False) -> uvicorn.Config:
    # uvicorn's types ask for a class, but it only calls it.
    in_turns: Any = partial(websocket_in_turns, name=WEBSOCKETS)
    upgrade: Any = partial(WebSocketUpgrade, gateway.app, in_turns)
    return uvicorn.Config(
        gateway.app,
        http=cast("type[HTTPConnection]", partial(HTTPConnection, WaitingRoom())),
        backlog=ACCEPTS_PER_TURN,
        ws=in_turns if over_asgi else upgrade,
        ws_max_size=MAX_MESSAGE,
        # Speech does not get smaller by it, and every session would hold two compressors.
        ws_per_message_deflate=False,
        # The gateway's own lifespan runs around the server, so that its errors are raised, not logged.
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
        # Otherwise uvicorn reads WEB_CONCURRENCY, which platforms set for other programs, and fails on
        # "auto".
        workers=1,
    )


_FALSE_ALARMS: Final = frozenset(
    {
        # uvicorn 0.54 with websockets says this of every WebSocket that was refused by HTTP, as it should be.
        "ASGI callable returned without completing handshake.",
        # With a traceback, of what any client can send; the session ends with 1007 and its handler knows.
        "Invalid UTF-8 sequence received from client.",
        # Any client can cause these. The third follows the second, and wrongly blames a missing library.
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
        (
            "No supported WebSocket library detected. Please use \"pip install 'uvicorn[standard]'\", "
            "or install 'websockets' or 'wsproto' manually."
        ),
    }
)


_WEBSOCKET: Final = '%s - "WebSocket '
"""How uvicorn's messages about a WebSocket's opening begin."""


class _Discretion(logging.Filter):
    """Drops uvicorn's false alarms, and records that may show tokens.

    Its debug messages show headers, and those about WebSockets the URL: a client may have put its token
    there. The gateway has lines of its own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return (
            record.levelno >= logging.INFO
            and record.msg not in _FALSE_ALARMS
            and not str(record.msg).startswith(_WEBSOCKET)
            and not _is_cancellation(record)
        )


def _is_cancellation(record: logging.LogRecord) -> bool:
    # The traceback of a request that was cancelled at the server's stop, of which `shutdown` logs the number.
    return record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)


@contextmanager
def _discreet_logs() -> Iterator[None]:
    # Not shared between servers: a server that ends must not remove another one's filter.
    discretion = _Discretion()
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "uvicorn.asgi")]
    for logger in loggers:
        logger.addFilter(discretion)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(discretion)


@asynccontextmanager
async def _serving(
    gateway: Gateway, listener: socket.socket, patience: float, over_asgi: bool
) -> AsyncIterator[None]:
    """Serve on the running asyncio event loop."""
    server = _Server(_config(gateway, over_asgi))
    # Shielded: when the block is cancelled, the server must still stop in order. After `stop` it has a
    # deadline; until then it ends by itself only when it fails.
    shield = anyio.CancelScope(shield=True)

    async def run_server() -> None:
        try:
            with shield, _discreet_logs():
                await server.serve([listener])
        finally:
            server.stop_listening()
            tasks.cancel_scope.cancel()

    async with gateway.running(), TaskGroup("the gateway's server") as tasks:
        tasks.start_soon(run_server)
        try:
            await server.ready.wait()
            yield
        finally:
            with anyio.move_on_after(patience + gateway.stop_timeout, shield=True):
                await gateway.drain(patience=patience)
            server.stop()
            shield.deadline = anyio.current_time() + 2 * SHUTDOWN_TIMEOUT


@asynccontextmanager
async def _serving_in_thread(
    gateway: Gateway, listener: socket.socket, patience: float, over_asgi: bool
) -> AsyncIterator[None]:
    """Serve on an asyncio event loop in a thread."""
    options = {"use_uvloop": find_spec("uvloop") is not None}
    portal_manager = start_blocking_portal("asyncio", options)
    portal = await anyio.to_thread.run_sync(portal_manager.__enter__)
    try:
        manager = portal.wrap_async_context_manager(_serving(gateway, listener, patience, over_asgi))
        await anyio.to_thread.run_sync(manager.__enter__)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(manager.__exit__, None, None, None)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(portal_manager.__exit__, None, None, None)
