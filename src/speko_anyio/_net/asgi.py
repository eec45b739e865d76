"""How ASGI servers report the end of a WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..protocol import close_codes
from ..protocol._outbox import CloseMessage


def close_of(message: Mapping[str, Any]) -> CloseMessage | None:
    """Return how the peer closed, of a ``websocket.disconnect``; None if the connection was lost.

    uvicorn 0.54 reports a lost connection with code 1005 and no reason, where a close without a code has a
    reason field.
    """
    code = message.get("code", close_codes.ABNORMAL)
    if code == close_codes.ABNORMAL or (code == close_codes.NO_STATUS and "reason" not in message):
        return None
    return CloseMessage(code, message.get("reason") or "")
