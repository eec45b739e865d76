"""A session's transport over ASGI, and how a WebSocket is refused there.

The quirks of ASGI servers are absorbed here (observed with uvicorn 0.54): a lost connection is reported
with code 1005 and no reason, where a close without a code has a reason field; and writing to a connection
that is gone raises an OSError, or a RuntimeError when the server closed it itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from speko_anyio.protocol import close_codes
from speko_anyio.protocol._outbox import CloseMessage
from speko_anyio.protocol.frames import ErrorFrame

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ._http_errors import RequestError

_REFUSAL: Final = "websocket.http.response"


class ASGITransport:
    """A `MessageTransport` over the ``receive`` and ``send`` of an accepted ASGI WebSocket."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def receive(self) -> str | bytes | CloseMessage | None:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return _disconnected(message)
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


def _disconnected(message: object) -> CloseMessage | None:
    if not isinstance(message, dict):
        return None
    code = message.get("code", close_codes.ABNORMAL)
    if code == close_codes.ABNORMAL or (code == close_codes.NO_STATUS and "reason" not in message):
        return None
    return CloseMessage(code, message.get("reason") or "")


def first_subprotocol(scope: Scope) -> str | None:
    """Return the first subprotocol that the client offers, which is the token; None if it offers none."""
    # uvicorn before 0.54 does not always take the header's list apart.
    offered: list[str] = scope.get("subprotocols") or []
    return (offered[0].partition(",")[0].strip() or None) if offered else None


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: RequestError) -> None:
    """Refuse a WebSocket that was not accepted, in the way its client can see.

    A page sees nothing of an HTTP refusal, not even its status, and browsers always send an ``Origin``:
    a client with one gets the WebSocket, an `ErrorFrame` and the refusal's close code. Every other client
    gets the HTTP response.
    """
    connect = await receive()
    if connect["type"] != "websocket.connect":
        return
    close = {
        "type": "websocket.close",
        "code": refusal.close_code,
        "reason": close_codes.cut_reason(str(refusal)),
    }
    try:
        if b"origin" in dict(scope["headers"]):
            # A browser gives up when none of the subprotocols that it offered comes back.
            offered = first_subprotocol(scope)
            await send({"type": "websocket.accept", "subprotocol": offered, "headers": []})
            error = msgspec.json.encode(ErrorFrame(refusal.code, str(refusal))).decode()
            await send({"type": "websocket.send", "text": error})
            await send(close)
        elif _REFUSAL in (scope.get("extensions") or {}):
            body = refusal.body
            fields = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
            await send({"type": f"{_REFUSAL}.start", "status": refusal.status, "headers": fields})
            await send({"type": f"{_REFUSAL}.body", "body": body})
        else:
            await send(close)
    except OSError:
        return  # it left before it was told
