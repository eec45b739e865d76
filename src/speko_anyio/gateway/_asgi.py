"""Sessions over ASGI: the opening and the transport of a WebSocket.

The quirks of ASGI servers are absorbed here and in `close_of`: writing to a connection that is gone raises an
OSError, or a RuntimeError when the server closed it itself (observed with uvicorn 0.54).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from speko_anyio._net.asgi import close_of
from speko_anyio.protocol import close_codes
from speko_anyio.protocol._outbox import CloseMessage

from ._message_link import MessageLink
from ._session_log import make_core

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ._http_errors import RequestError
    from ._session import CoreOptions

_REFUSAL: Final = "websocket.http.response"


class ASGITransport:
    """A `MessageTransport` over the ``receive`` and ``send`` of an accepted ASGI WebSocket."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def receive(self) -> str | bytes | CloseMessage | None:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return close_of(message)
        data: bytes | None = message.get("bytes")
        if data is not None:
            return data
        text: str = message["text"]
        return text

    async def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        await self._write({"type": "websocket.send", kind: message})

    async def close(self, code: int, reason: str) -> None:
        await self._write({"type": "websocket.close", "code": code, "reason": close_codes.cut_reason(reason)})

    async def _write(self, message: dict[str, object]) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            raise anyio.BrokenResourceError from error


def first_subprotocol(scope: Scope) -> str | None:
    """Return the first subprotocol that the client offers, which is the token; None if it offers none."""
    # uvicorn before 0.54 does not always take the header's list apart.
    offered: list[str] = scope.get("subprotocols") or []
    return (offered[0].partition(",")[0].strip() or None) if offered else None


class ASGIOpening:
    """An `Opening` over ASGI."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.token = first_subprotocol(scope)
        self._receive = receive
        self._send = send

    async def accept(self, session_id: str, options: CoreOptions) -> MessageLink | None:
        transport = await self.connect()
        return None if transport is None else MessageLink(make_core(session_id, **options), transport)

    async def connect(self) -> ASGITransport | None:
        """Accept it; return the transport of its messages, or None if the client has left."""
        if not await self._connected():
            return None
        try:
            await self._send({"type": "websocket.accept", "subprotocol": self.token, "headers": []})
        except OSError:
            return None
        return ASGITransport(self._receive, self._send)

    async def refuse(self, refusal: RequestError) -> None:
        body = refusal.body
        fields = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **(refusal.headers or {}),
        }
        start = {
            "type": f"{_REFUSAL}.start",
            "status": refusal.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        }
        if _REFUSAL in (self.scope.get("extensions") or {}):
            await self._answer(start, {"type": f"{_REFUSAL}.body", "body": body})
        else:
            await self._answer(_close(refusal))

    async def refuse_by_frame(self, refusal: RequestError) -> None:
        error = msgspec.json.encode(refusal.frame).decode()
        await self._answer(
            # A browser fails the connection unless it gets one of the subprotocols that it offered.
            {"type": "websocket.accept", "subprotocol": self.token, "headers": []},
            {"type": "websocket.send", "text": error},
            _close(refusal),
        )

    async def wait_gone(self) -> None:
        """Return at once: the server closes the connection."""

    async def _connected(self) -> bool:
        connected: bool = (await self._receive())["type"] == "websocket.connect"
        return connected

    async def _answer(self, *messages: dict[str, object]) -> None:
        if not await self._connected():
            return
        try:
            for message in messages:
                await self._send(message)
        except OSError:
            return  # the client left before it was answered


def _close(refusal: RequestError) -> dict[str, object]:
    reason = close_codes.cut_reason(str(refusal))
    return {"type": "websocket.close", "code": refusal.close_code, "reason": reason}
