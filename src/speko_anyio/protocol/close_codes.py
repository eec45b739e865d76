"""The WebSocket close codes this library sends or reports (RFC 6455 section 7.4, IANA registry)."""

from __future__ import annotations

from typing import Final

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
"""The peer's frames break RFC 6455."""
NO_STATUS: Final = 1005
"""Reported, never sent: the peer closed without a code."""
ABNORMAL: Final = 1006
"""Reported, never sent: the transport died without a closing handshake."""
INVALID_DATA: Final = 1007
"""A text message is not UTF-8, not JSON, or not a message of this protocol."""
POLICY: Final = 1008
"""A limit on behaviour was passed: floods, too many fragments or open calls."""
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013
BAD_GATEWAY: Final = 1014
UNAUTHORIZED: Final = 4401
"""The token was missing, wrong, expired or used before; for browsers, which can't see an HTTP 401."""


MAX_REASON: Final = 123
"""Bytes of UTF-8 that the reason in a close frame may have: a control frame holds 125, two are the code."""


def cut_reason(reason: str) -> str:
    """Return as much of `reason` as a close frame can carry, in whole characters."""
    encoded = reason.encode(errors="replace")
    return reason if len(encoded) <= MAX_REASON else encoded[:MAX_REASON].decode(errors="ignore")


def is_for_applications(code: object) -> bool:
    """Whether an application may end a session with `code`.

    Those are the codes that a browser's ``close()`` accepts. The others are reserved for the protocol.
    """
    return code == NORMAL or (isinstance(code, int) and 3000 <= code <= 4999)


def is_sendable(code: object) -> bool:
    """Whether `code` may stand in a close frame (RFC 6455 sections 7.4.1 and 7.4.2, IANA to 1013).

    IANA also has 1014, bad gateway, but wsproto and others still treat it as a violation.
    """
    return isinstance(code, int) and (1000 <= code <= 1003 or 1007 <= code <= 1013 or 3000 <= code <= 4999)
