"""WebSocket frames out: messages to bytes (RFC 6455 section 5.2), in one piece each, never fragmented."""

from __future__ import annotations

import functools
import struct
from typing import Final

from . import close_codes
from ._masking import Entropy, MaskingKeys, mask, mask_in_python, ones
from ._pcm import MAX_AUDIO_MESSAGE

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
    """Make the header for `size` bytes of payload, without the masking key; `mask_bit` is 0 or `MASKED`."""
    if size < 126:
        return _HEADER_2(first, mask_bit | size)
    if size < 65_536:
        return _HEADER_4(first, mask_bit | 126, size)
    return _HEADER_10(first, mask_bit | 127, size)


def header_size(frame: bytes) -> int:
    """Return how many bytes precede the payload of a frame that has no mask."""
    return {126: 4, 127: 10}.get(frame[1], 2)


def unmasked_payload(frame: bytes) -> bytes:
    """Return the payload of a whole frame that has no mask."""
    return frame[header_size(frame) :]


def close_payload(code: int, reason: str) -> bytes:
    """Make the payload of a close frame; empty for 1005, which stands for no code."""
    if code == close_codes.NO_STATUS:
        return b""
    return code.to_bytes(2, "big") + close_codes.cut_reason(reason).encode(errors="replace")


class AudioShape:
    """What all frames with audio of one size have in common."""

    __slots__ = ("head", "length", "ones", "size", "start")

    def __init__(self, size: int, mask_bit: int, *, wide: bool = False) -> None:
        self.size: int = size
        self.head: bytes = header(BINARY, size, mask_bit)
        """The header, without the masking key."""
        # Without a C masker, a frame is masked as one wide integer: see `ClientWebSocket.send_audio`.
        self.start: bytes = self.head + bytes(4)
        """The header, with zeros where the key will be."""
        self.length: int = len(self.start) + size
        """Bytes of the whole masked frame."""
        self.ones: int = ones(1 + size // 4) << 8 * len(self.head) if wide else 0
        """Multiplied by the key it repeats the key over the payload; 0 if a C masker is installed."""


_NO_SHAPE: Final = AudioShape(0, 0)
_NO_SHAPE.size = -1  # matches no audio, not even empty audio

_kept: Final = functools.lru_cache(maxsize=32)
"""Shapes are shared by all sessions. One cached function per kind: lru_cache is fastest with one argument."""


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
        self.keys: MaskingKeys = MaskingKeys(entropy)
        self.shape: AudioShape = _NO_SHAPE
        """That of the last audio; the next likely has the same."""

    def reshape(self, size: int) -> bool:
        """Set `shape` for audio of this size; return False if there is none for it."""
        if size % self._unit or not 0 < size <= MAX_AUDIO_MESSAGE:
            return False
        self.shape = self._shape_of(size)
        return True

    def frame(self, first: int, payload: bytes) -> bytes:
        """Make a frame; its first byte, `first`, sets its kind."""
        size = len(payload)
        head = header(first, size, self._mask_bit)
        if not self._mask_bit:
            return head + payload
        (key,) = self.keys.take()
        return head + key + mask(payload, key)

    def frame_audio(self, pcm: bytes) -> bytes:
        """Make a binary frame."""
        return self.frame(BINARY, pcm)
