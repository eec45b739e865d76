"""What a session token may look like: it travels as a WebSocket subprotocol, so it is an HTTP token."""

from __future__ import annotations

import re
from typing import Final

from .errors import LocalProtocolError

_TCHAR: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2

MAX_TOKEN: Final = 4096
"""Characters that every known client and server passes (speko-protocol, section 2)."""


def is_token(token: str) -> bool:
    """Whether a WebSocket can carry `token` as its subprotocol."""
    return len(token) <= MAX_TOKEN and _TCHAR.match(token) is not None


def check_token(token: str) -> str:
    """`token` itself; `LocalProtocolError`, which does not show it, when no WebSocket can carry it."""
    if not is_token(token):
        raise LocalProtocolError(
            "the session token can't be a WebSocket subprotocol: it must have 1 to "
            f"{MAX_TOKEN} characters of RFC 9110's token set; pass the mint's wsToken unchanged"
        )
    return token
