"""Gives every session its turn under uvicorn's own WebSocket protocols, which know nothing of turns.

They parse all of a read at once: up to 256 KiB, which is 40,000 pings, each of which is also answered by a
system call. And after their close they go on for ten seconds.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any, Final, cast

from uvicorn.config import WS_PROTOCOLS
from uvicorn.importer import import_from_string

WEBSOCKETS: Final = "websockets-sansio" if find_spec("websockets") else "wsproto"
"""uvicorn's WebSocket implementation. A 960-byte echo through a gateway on uvloop costs the server 68 us with
websockets and 95 us with wsproto; and it answers a peer's broken frame, where wsproto's only hangs up."""

_PIECE: Final = 1024
"""Bytes of a read that are parsed at once: a message of 20 ms of speech, or 170 pings."""

_SMALL_PIECE: Final = 256
"""Bytes that are parsed in each further turn of the event loop."""

_AFTER_CLOSE: Final = 1024 * 1024
"""Bytes that are still taken after the close was sent: more than is on its way when a client learns of it."""


class TurnTaking(asyncio.Protocol):
    """Passes what it reads on to `protocol`, one of uvicorn's, in pieces, and lets others run in between."""

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

    # For the gate

    def read(self, wanted: bool) -> None:
        """Take note whether the protocol wants to read."""
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
    """The transport as the protocol sees it: whether it is read is not the protocol's decision alone."""

    def __init__(self, transport: asyncio.Transport, turns: TurnTaking) -> None:
        self._transport = transport
        self._turns = turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        self._turns.read(False)

    def resume_reading(self) -> None:
        self._turns.read(True)


def websocket_in_turns(*, name: str = WEBSOCKETS, **options: Any) -> TurnTaking:
    """Make uvicorn's own WebSocket protocol take turns with all that its event loop serves.

    For a gateway under a uvicorn of your own, which calls it with `options`: ``uvicorn.run(app,
    ws=websocket_in_turns)``, or ``--ws speko_anyio.gateway:websocket_in_turns`` on its command line. `serve`
    and `running_gateway` need nothing. `name` is uvicorn's name for the implementation.
    """
    return TurnTaking(import_from_string(WS_PROTOCOLS[cast(Any, name)] or "")(**options))
