"""WebSocket frames out: messages to bytes (RFC 6455 section 5.2), in one piece each, never fragmented."""

from __future__ import annotations

import struct
from typing import Final

from . import close_codes

TEXT: Final = 0x81
"""First byte of a whole text message: FIN and opcode 1."""
BINARY: Final = 0x82
CLOSE: Final = 0x88
PING: Final = 0x89
PONG: Final = 0x8A

MASKED: Final = 0x80
"""Set in the second byte of every frame from a client."""

_HEADER_2: Final = struct.Struct(">BB").pack
_HEADER_4: Final = struct.Struct(">BBH").pack
_HEADER_10: Final = struct.Struct(">BBQ").pack


def header(first: int, size: int, mask_bit: int) -> bytes:
    """The frame header for `size` bytes of payload, without the masking key; `mask_bit` 0 or `MASKED`."""
    if size < 126:
        return _HEADER_2(first, mask_bit | size)
    if size < 65_536:
        return _HEADER_4(first, mask_bit | 126, size)
    return _HEADER_10(first, mask_bit | 127, size)


def payload_size(frame: bytes) -> int:
    """How many bytes of payload a whole unmasked frame of ours carries."""
    return len(frame) - {126: 4, 127: 10}.get(frame[1], 2)


def close_payload(code: int, reason: str) -> bytes:
    """The payload of a close frame; empty for 1005, which stands for no code."""
    if code == close_codes.NO_STATUS:
        return b""
    return code.to_bytes(2, "big") + close_codes.cut_reason(reason).encode(errors="replace")
