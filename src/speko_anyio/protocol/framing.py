"""WebSocket frames out: messages to bytes (RFC 6455 section 5.2), in one piece each, never fragmented."""

from __future__ import annotations

import functools
import struct
from typing import Final

from . import close_codes
from .masking import Entropy, MaskingKeys, mask, mask_in_python, ones
from .pcm import MAX_AUDIO_MESSAGE

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


class AudioShape:
    """What all frames with so many bytes of audio have in common."""

    __slots__ = ("head", "length", "ones", "size", "start")

    def __init__(self, size: int, mask_bit: int, *, wide: bool = False) -> None:
        self.size = size
        self.head = header(BINARY, size, mask_bit)
        """The header, without the masking key."""
        # Where Python masks, a frame is one wide integer: see `ClientConnection.send_audio`.
        self.start = self.head + bytes(4)
        """The header, with zeros where the key will be."""
        self.length = len(self.start) + size
        """Bytes of the whole masked frame."""
        self.ones = ones(1 + size // 4) << 8 * len(self.head) if wide else 0
        """Times the key it is the key, wherever that counts in the frame."""


_NO_SHAPE: Final = AudioShape(0, 0)
_NO_SHAPE.size = -1  # not even that of no audio

_kept: Final = functools.lru_cache(maxsize=32)
"""Shapes are shared by all sessions. By one argument, since that is looked up fastest."""


@_kept
def _plain_shape(size: int) -> AudioShape:
    return AudioShape(size, 0)


@_kept
def _masked_shape(size: int) -> AudioShape:
    return AudioShape(size, MASKED)


@_kept
def _wide_shape(size: int) -> AudioShape:
    return AudioShape(size, MASKED, wide=True)


class Framer:
    """Makes the frames of one side of a connection."""

    __slots__ = ("_mask_bit", "_shape_of", "_unit", "keys", "shape")

    def __init__(self, *, client: bool, entropy: Entropy) -> None:
        self._mask_bit = MASKED if client else 0
        self._shape_of = _masked_shape if client else _plain_shape
        self._unit = 2  # bytes: a sample
        if client and mask is mask_in_python:
            self._shape_of = _wide_shape
            self._unit = 4  # a key
        self.keys = MaskingKeys(entropy)
        self.shape = _NO_SHAPE
        """Of the last audio: the next likely has it too."""

    def reshape(self, size: int) -> bool:
        """Make `shape` that of audio of this size; False when it has none, and must go another way."""
        if size % self._unit or not 0 < size <= MAX_AUDIO_MESSAGE:
            return False
        self.shape = self._shape_of(size)
        return True

    def frame(self, first: int, payload: bytes) -> bytes:
        """A frame of any kind, which `first`, its first byte, tells."""
        size = len(payload)
        head = header(first, size, self._mask_bit)
        if not self._mask_bit:
            return head + payload
        (key,) = self.keys.take()
        return head + key + mask(payload, key)
