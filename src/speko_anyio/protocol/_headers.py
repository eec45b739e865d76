"""HTTP header fields that a caller adds to the handshake: checked before they can break it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from .errors import LocalProtocolError

Headers: TypeAlias = Sequence[tuple[str, str]]

# RFC 9110 sections 5.1 and 5.5; reject line ends, or a value could inject another header.
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE: Final = re.compile(r"[\t -~]*\Z")


_OURS: Final = re.compile(
    r"(?i)host|upgrade|connection|content-length|content-type|transfer-encoding|sec-websocket-.*\Z"
)
"""Headers that the handshake itself sends; a second one would break or contradict it."""


def encode_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return `headers` as bytes; `LocalProtocolError`, which shows no value, if they can't be sent."""
    for name, value in headers:
        if _OURS.fullmatch(name):
            raise LocalProtocolError(f"the header {name!r} belongs to the handshake itself; leave it out")
        if not _NAME.match(name) or not _VALUE.match(value):
            raise LocalProtocolError(
                f"the header {name!r} can't be sent: a name must be an RFC 9110 token and a value visible "
                "ASCII on one line"
            )
    return [(name.encode(), value.strip().encode()) for name, value in headers]
