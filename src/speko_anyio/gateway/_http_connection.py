"""uvicorn's HTTP connection, with a deadline for everything that a client can leave open.

uvicorn waits without limit for a request's head, for the rest of a body that nobody reads, and for a client
that does not read its answer. Each of these occupies a descriptor, and a process has only a limited number.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection
from enum import Enum
from typing import Any, Final, cast

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from speko_anyio._net.sockets import drop_unsent

from ._descriptors import descriptor_limit

logger: Final = logging.getLogger("speko_anyio.gateway")


class Wait(Enum):
    """What a connection waits for."""

    HEAD = "the head of a request"
    NEXT = "another request"
    ANSWER = "the gateway's answer"
    REST = "the end of a body that is answered already"
    READER = "a client that does not read its answer"
    CLOSE = "the last bytes before the close"


SECONDS: Final[dict[Wait, float]] = {
    # From its first byte on; for the first request, from the connection on.
    Wait.HEAD: 10.0,
    # Longer than the 60 s for which nginx keeps an idle connection. If we closed first, nginx might just have
    # sent a request, which it would answer with 502.
    Wait.NEXT: 75.0,
    # The application has its own limits; this only checks regularly whether the connection is closing.
    Wait.ANSWER: 5.0,
    # Closing at once would reset a connection whose client still sends, and the client would lose the answer.
    Wait.REST: 2.0,
    Wait.READER: 30.0,
    Wait.CLOSE: 5.0,
}
"""Seconds that a connection may wait for each."""

MAX_REST: Final = 1 << 20
"""Bytes to read and discard after the answer; then reading stops."""

MAX_WAITING: Final = 4096
"""Connections that may wait for their clients; beyond that the one that has waited longest is cut."""

_WARN_EVERY: Final = 60.0

_END: Final = b"connection: close\r\ncontent-length: 0\r\n\r\n"
_TIMED_OUT: Final = b"HTTP/1.1 408 Request Timeout\r\n" + _END
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n" + _END


class WaitingRoom:
    """The connections of one server that wait for their clients, the longest wait first.

    Half of the descriptors may be client connections; the others are for connections to providers, and for
    files. Three quarters of that half may be WebSockets, so that a gateway full of sessions can still answer
    other requests.
    """

    def __init__(self) -> None:
        self._most = descriptor_limit() / 2
        self._most_websockets = 0.75 * self._most
        self._waiting: dict[HTTPConnection, None] = {}
        self._warned_at = -math.inf

    def admit(self, connections: int, *, now: float) -> bool:
        """Return whether a new connection, one of `connections`, may stay; cut another if needed."""
        if connections <= self._most:
            return True
        message = "%g connections are open, and more would need most of the descriptors; raise `ulimit -n`"
        self._warn(now, message, self._most)
        return self._cut_longest()

    def admits_websocket(self, connections: Collection[object]) -> bool:
        """Return whether one more of the connections may become a WebSocket."""
        if len(connections) <= self._most_websockets:
            return True
        websockets = sum(not isinstance(connection, HTTPConnection) for connection in connections)
        return websockets + 1 <= self._most_websockets

    def add(self, connection: HTTPConnection, *, now: float) -> None:
        """Add a connection that begins to wait; if there are too many, cut the longest wait."""
        self._waiting[connection] = None
        if len(self._waiting) > MAX_WAITING:
            self._warn(now, "%d connections wait for their clients; the longest waits are cut", MAX_WAITING)
            self._cut_longest()

    def discard(self, connection: HTTPConnection) -> None:
        self._waiting.pop(connection, None)

    def _cut_longest(self) -> bool:
        for connection in self._waiting:
            connection.cut()
            return True
        return False

    def _warn(self, now: float, message: str, value: float) -> None:
        # Any client can cause it, as often as it likes.
        if now - self._warned_at >= _WARN_EVERY:
            self._warned_at = now
            logger.warning(message, value)


class HTTPConnection(H11Protocol):
    """One connection, from its start to its end or to its upgrade to a WebSocket."""

    def __init__(
        self,
        room: WaitingRoom,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._room = room
        self._wait: Wait | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rest = 0

    # Called by the transport

    # Narrower than asyncio's, as uvicorn declares it.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._room.admit(len(self.connections), now=self.loop.time()):
            self._watch()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._wait is Wait.REST:
            self._rest += len(data)
            if self._rest > MAX_REST:
                self.flow.pause_reading()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._leave()

    # Called by uvicorn

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn's own timer covers neither a head that has begun nor a close that waits for the client.
        self._unset_keepalive_if_required()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()  # the answer has been sent, or has begun
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None:
            # The application must not answer the request as well.
            cycle.disconnected = True
            cycle.message_event.set()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if event.http_version == b"1.0":
            self.send_400_response("a WebSocket needs HTTP/1.1; check whether a proxy uses HTTP/1.0")
        elif _has_body(self.headers):
            self.send_400_response("a request for a WebSocket must not have a body; send it without one")
        elif not self._room.admits_websocket(self.connections):
            self.transport.write(_FULL)
            self.transport.close()
        else:
            super().handle_websocket_upgrade(event)
            # Not before: until then the transport tells this protocol whether an earlier answer is read.
            self._leave()
            # uvicorn drops data that came together with the head.
            if early := self.conn.trailing_data[0]:
                cast(asyncio.Protocol, self.transport.get_protocol()).data_received(early)

    # Waiting

    def _watch(self) -> None:
        """Set the deadline of what the connection waits for now."""
        if self.transport.get_protocol() is not self:
            return  # it is a WebSocket now
        wait = self._waits_for()
        if wait is self._wait:
            return
        self._leave()
        self._wait = wait
        self._timer = self.loop.call_later(SECONDS[wait], self._expired)
        if wait is not Wait.ANSWER:
            self._room.add(self, now=self.loop.time())

    def _waits_for(self) -> Wait:
        if self.flow.write_paused:
            return Wait.READER
        if self.transport.is_closing():
            return Wait.CLOSE
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation leaves out the None
        if cycle is not None and not cycle.response_complete:
            return Wait.ANSWER
        if self.conn.their_state is h11.SEND_BODY:
            return Wait.REST
        if cycle is None or self.conn.trailing_data[0]:
            return Wait.HEAD
        return Wait.NEXT

    def _expired(self) -> None:
        wait, self._wait = self._wait, None  # so that the same wait may begin again
        if wait is Wait.HEAD:
            if self.conn.trailing_data[0]:
                self.transport.write(_TIMED_OUT)
            self.transport.close()
        elif wait is Wait.NEXT:
            self.transport.close()
        elif wait is not Wait.ANSWER:
            self.cut()
        self._watch()

    def cut(self) -> None:
        """End the connection, whatever it waits for."""
        if self.flow.write_paused:
            drop_unsent(self.transport.get_extra_info("socket"))
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wait = None
        self._room.discard(self)


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    )
