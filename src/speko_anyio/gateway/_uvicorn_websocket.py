"""A WebSocket protocol for uvicorn: runs sessions on the library's own WebSocket, over uvicorn's transport.

`WebSocketUpgrade` takes the place of uvicorn's own protocols (``uvicorn.Config(ws=...)``). It looks at the
request and gives the transport to another protocol: to an `AsyncioDriver` for sessions, with no ASGI message,
queue or task in between, and to uvicorn's own protocol for any other WebSocket of the application.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import unquote

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match, WebSocketRoute

from speko_anyio._net.asyncio_driver import AsyncioDriver
from speko_anyio.protocol import close_codes
from speko_anyio.protocol._commands import UpgradeRequest
from speko_anyio.protocol._connection import ServerConnection
from speko_anyio.protocol._timeouts import DEFAULT_TIMEOUTS
from speko_anyio.protocol.errors import SpekoError

from ._byte_link import ByteLink
from ._session_log import make_connection
from ._stream import STOP_REASON

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import uvicorn
    from starlette.applications import Starlette
    from starlette.types import Scope
    from uvicorn.server import ServerState

    from ._http_errors import RequestError
    from ._opening import Opening
    from ._session import CoreOptions

logger: Final = logging.getLogger("speko_anyio.gateway")

_PAUSED_ABOVE: Final = 1
"""Bytes that wait for the client: beyond them the transport pauses an `AsyncioDriver`."""


class Endpoint(Protocol):
    """An endpoint of the application that serves WebSockets over ASGI and directly over a transport."""

    async def serve(self, opening: Opening) -> None:
        """Serve one WebSocket to its end."""


class WebSocketUpgrade(asyncio.Protocol):
    """The protocol of a connection that asks for a WebSocket, until another protocol takes over.

    - `app`: the gateway's application, whose routes decide.
    - `others`: makes uvicorn's own protocol, which serves the routes of other endpoints.

    The remaining arguments come from uvicorn.
    """

    def __init__(
        self,
        app: Starlette,
        others: Callable[..., asyncio.Protocol],
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        self._app = app
        self._others = others
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._next: asyncio.BaseProtocol | None = None
        self._early = b""
        self._opening: ByteOpening | None = None

    # Callbacks of asyncio, and of uvicorn's HTTP protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take the request's head; keep later data until the next protocol is in place."""
        if self._next is not None:
            self._early += data
            return
        self._next = self._choose(data)
        # Later, since uvicorn sets this protocol only after this call.
        self._loop.call_soon(self._hand_over)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._next is not None:
            self._next.pause_writing()

    def resume_writing(self) -> None:
        if self._next is not None:
            self._next.resume_writing()

    def shutdown(self) -> None:
        """End the session, since uvicorn stops; its close tells the client to connect again."""
        if self._opening is not None:
            self._opening.stop()

    def cut(self) -> None:
        """End the connection at once, whatever it waits for."""
        self._transport.abort()

    # Choosing the next protocol

    def _choose(self, head: bytes) -> asyncio.BaseProtocol:
        probe = ServerConnection()
        probe.receive_data(head)
        try:
            request = probe.next_event()
        except SpekoError:
            driver = self._make_driver()
            self._serve(_write_last(driver, probe), driver)
            return driver
        assert isinstance(request, UpgradeRequest)
        scope = _scope(request, self._config.root_path)
        endpoint = _find_endpoint(self._app, scope)
        if endpoint is None:
            return self._serve_by_uvicorn(head)
        driver = self._make_driver()
        self._opening = opening = ByteOpening(driver, head, scope, request)
        self._serve(endpoint.serve(opening), driver)
        return driver

    def _make_driver(self) -> AsyncioDriver:
        driver = AsyncioDriver(self._loop)
        driver.connection_made(self._transport)
        if self._transport.get_write_buffer_size() > _PAUSED_ABOVE:
            # By an earlier answer on this connection. The transport told it, if anybody, to the protocol of
            # that one, and tells each change once.
            driver.pause_writing()
        return driver

    def _serve_by_uvicorn(self, head: bytes) -> asyncio.BaseProtocol:
        protocol = self._others(
            config=self._config, server_state=self._server_state, app_state=self._app_state
        )
        protocol.connection_made(self._transport)
        protocol.data_received(head)
        return protocol

    def _hand_over(self) -> None:
        protocol, transport = self._next, self._transport
        assert protocol is not None
        if transport.is_closing():
            return  # `connection_lost` of this protocol tells the next one
        transport.set_protocol(protocol)
        early, self._early = self._early, b""
        if not early:
            return
        if isinstance(protocol, asyncio.BufferedProtocol):
            while early:
                buffer = memoryview(protocol.get_buffer(len(early)))
                size = min(len(buffer), len(early))
                buffer[:size] = early[:size]
                protocol.buffer_updated(size)
                early = early[size:]
        else:
            cast(asyncio.Protocol, protocol).data_received(early)

    # Serving a session

    def _serve(self, serving: Coroutine[Any, Any, None], driver: AsyncioDriver) -> None:
        state = self._server_state
        # When uvicorn stops, it waits for both. `WaitingRoom` limits the number of connections.
        cast(set[Any], state.connections).add(self)
        task = self._loop.create_task(self._run(serving, driver))
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)

    async def _run(self, serving: Coroutine[Any, Any, None], driver: AsyncioDriver) -> None:
        try:
            await serving
        except Exception:
            # Nobody awaits this task: an error would reach the log when the task is collected, if ever.
            logger.exception("a WebSocket ended by an error")
        finally:
            driver.give_up()
            cast(set[Any], self._server_state.connections).discard(self)


class ByteOpening:
    """An `Opening` directly over a transport, which `driver` drives."""

    def __init__(self, driver: AsyncioDriver, head: bytes, scope: Scope, request: UpgradeRequest) -> None:
        self._driver = driver
        self._head = head
        self._link: ByteLink | None = None
        self.scope: Scope = scope
        self.token: str | None = next(iter(request.subprotocols), None) or None

    async def accept(self, session_id: str, options: CoreOptions) -> ByteLink | None:
        if self._driver.lost:
            return None
        connection = make_connection(session_id, **options)
        self._receive_head(connection)
        connection.accept()
        # The request is not needed any more, and the session may last long.
        self.scope = {}
        self._link = ByteLink(connection, self._driver, close_timeout=options["close_timeout"])
        return self._link

    async def refuse(self, refusal: RequestError) -> None:
        connection = self._receive_head(ServerConnection())
        headers = tuple((refusal.headers or {}).items())
        connection.refuse(refusal.status, refusal.body.decode(), headers=headers)
        await _write_last(self._driver, connection)

    async def refuse_by_frame(self, refusal: RequestError) -> None:
        connection = self._receive_head(ServerConnection())
        connection.refuse_by_frame(refusal.frame, refusal.close_code)
        await _write_last(self._driver, connection)

    async def wait_gone(self) -> None:
        await self._driver.wait_closed()

    def stop(self) -> None:
        """Tell the client to connect again; if it is not accepted yet, only close the connection."""
        if self._link is None:
            self._driver.give_up()
        else:
            self._link.core.close(close_codes.SERVICE_RESTART, STOP_REASON)
            self._driver.core_changed()

    def _receive_head(self, connection: ServerConnection) -> ServerConnection:
        connection.receive_data(self._head)
        connection.next_event()  # the request, which is in `scope` already
        self._head = b""
        return connection


async def _write_last(driver: AsyncioDriver, answered: ServerConnection) -> None:
    """Send the answer to a request that becomes no session, and wait until the connection is closed."""
    ByteLink(answered, driver, close_timeout=DEFAULT_TIMEOUTS.close)
    driver.start(None)
    await driver.wait_closed()


def _scope(request: UpgradeRequest, root_path: str) -> Scope:
    """Describe the request as uvicorn's ASGI scope does, with the keys that our endpoints use."""
    raw_path, _, query = request.target.partition("?")
    headers = [("host", request.host), *request.headers]
    return {
        "type": "websocket",
        "root_path": root_path,
        "path": root_path + unquote(raw_path),
        "query_string": query.encode("ascii"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "subprotocols": list(request.subprotocols),
    }


def _find_endpoint(app: Starlette, scope: Scope) -> Endpoint | None:
    """Return our endpoint for the request, or None if uvicorn's own protocol must serve it.

    Adds the parameters of the path to `scope`.
    """
    # The operator's own middleware must see every WebSocket. CORSMiddleware ignores WebSockets.
    others: list[Any] = [middleware.cls for middleware in app.user_middleware]
    if any(other is not CORSMiddleware for other in others):
        return None
    for route in app.routes:
        match, found = route.matches(scope)
        if match is Match.FULL:
            if isinstance(route, WebSocketRoute) and hasattr(route.endpoint, "serve"):
                scope.update(found)
                return cast(Endpoint, route.endpoint)
            return None
    return None
