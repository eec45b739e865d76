"""The messages between the gateway and a recogniser process, over the process's pipes.

Each message is msgpack behind its length, four bytes, big-endian. The process sends `Warm` once, then one
`Recognised` for each `Hear`, in order; or it sends `Refused` and ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from ._grammar import Grammar

SAMPLE_RATE: Final = 16_000
"""Samples a second of the PCM16 in `Hear`: what the acoustic model was made for."""

HEADER: Final = struct.Struct(">I")

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of one message: two minutes of audio; a turn is cut at 15 s."""


class Hear(msgspec.Struct, frozen=True, tag=True):
    """Asks what is said in some audio."""

    pcm: bytes
    """PCM16 mono at `SAMPLE_RATE`."""
    grammar: Grammar


class Recognised(msgspec.Struct, frozen=True, tag=True):
    """The answer to one `Hear`."""

    text: str
    """Empty when no word was heard."""
    known: bool
    """Whether it is a phrase of the grammar, rather than free dictation."""


class Warm(msgspec.Struct, frozen=True, tag=True):
    """The models are loaded."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The models can't be loaded."""

    reason: str
    """The rest of a sentence about the process, which says what to do."""


Reply: TypeAlias = Recognised | Warm | Refused

_encoder = msgspec.msgpack.Encoder()
decode_request: Callable[[bytes], Hear] = msgspec.msgpack.Decoder(Hear).decode
decode_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Hear | Reply) -> bytes:
    """Return the message, ready to write."""
    body = _encoder.encode(message)
    return HEADER.pack(len(body)) + body
