"""Makes uvicorn's own WebSocket protocols take turns, so that one client can't hold up all others.

They parse a whole read at once: up to 256 KiB, which may be 40,000 pings, each answered by a system call. And
after they have sent a close, they go on parsing for ten seconds.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any, Final, cast

from uvicorn.config import WS_PROTOCOLS
from uvicorn.importer import import_from_string

WEBSOCKETS: Final = "websockets-sansio" if find_spec("websockets") else "wsproto"
"""uvicorn's WebSocket implementation. A 960-byte echo through a gateway on uvloop costs the server 68 us with
websockets and 95 us with wsproto; and websockets answers a broken frame, where wsproto only disconnects."""

_PIECE: Final = 1024
"""Bytes that are parsed at once when they arrive: a message of 20 ms of speech, or 170 pings."""

_SMALL_PIECE: Final = 256
"""Bytes that are parsed in each further turn of the event loop."""

_AFTER_CLOSE: Final = 1024 * 1024
"""Bytes that are parsed after the close was sent: more than a client sends before it receives the close."""


class TurnTaking(asyncio.Protocol):
    """Passes received data to `protocol`, one of uvicorn's, in pieces; other tasks run in between."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._waiting = bytearray()
        self._scheduled = False
        self._wanted = True
        self._left = _AFTER_CLOSE
        self._lost: tuple[Exception | None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.connection_made(_Gate(self._transport, self))

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        if not self._scheduled:
            self._pass_on(_PIECE)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = (exc,)
        if not self._scheduled:
            self._pass_on()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # Called by `_Gate`

    def want(self, wanted: bool) -> None:
        """Take note whether the protocol wants more data: it has resumed or paused reading."""
        self._wanted = wanted
        self._set_reading()
        if wanted and self._waiting and not self._scheduled:
            self._schedule()

    # Turns

    def _pass_on(self, size: int = _SMALL_PIECE) -> None:
        self._scheduled = False
        waiting = self._waiting
        if waiting and (self._wanted or self._lost):
            piece = bytes(waiting[:size])
            del waiting[:size]
            if self._protocol.close_sent:
                self._left -= len(piece)
                if self._left < 0:
                    waiting.clear()
                    self._transport.abort()
                    return
            self._protocol.data_received(piece)
        if waiting and (self._wanted or self._lost):
            self._schedule()
        elif self._lost is not None:
            self._protocol.connection_lost(*self._lost)
        self._set_reading()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._pass_on)

    def _set_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self._wanted and not self._waiting:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


class _Gate:
    """The transport as the protocol sees it: it writes only while it is open, and `TurnTaking` pauses it."""

    def __init__(self, transport: asyncio.Transport, turns: TurnTaking) -> None:
        self._transport = transport
        self._turns = turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        # The protocol may still be reading what came before the connection was lost, and answer that.
        if not self._transport.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        self._turns.want(False)

    def resume_reading(self) -> None:
        self._turns.want(True)


def websocket_in_turns(*, name: str = WEBSOCKETS, **options: Any) -> TurnTaking:
    """Return uvicorn's own WebSocket protocol, made to take turns with everything else in its event loop.

    Use it if you start uvicorn yourself: ``uvicorn.run(app, ws=websocket_in_turns)``, or
    ``--ws speko_anyio.gateway:websocket_in_turns`` on its command line. `serve` and `running_gateway` don't
    need it. `name` is uvicorn's name for the implementation; `options` come from uvicorn.
    """
    return TurnTaking(import_from_string(WS_PROTOCOLS[cast(Any, name)] or "")(**options))
