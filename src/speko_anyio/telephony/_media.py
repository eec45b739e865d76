"""The audio in carriers' JSON messages, in both directions."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import msgspec

from ..protocol.frames import Count
from . import g711
from ._fields import Fields, malformed


class _Media(msgspec.Struct, frozen=True, gc=False):
    payload: bytes  # base64 on the wire
    track: Literal["inbound"] = "inbound"


class MediaMessage(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="media"):
    """The caller's audio, as nearly every message is: the fast way to read it.

    Whatever does not fit is read again with `Fields`, which is lenient and says what is wrong.
    """

    media: _Media
    sequence_number: Count = 0


class CamelMediaMessage(
    msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="media", rename="camel"
):
    """The same with ``sequenceNumber``."""

    media: _Media
    sequence_number: Count = 0


class Payload(msgspec.Struct, frozen=True, gc=False):
    """The assistant's audio, coded for the line."""

    payload: bytes


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A mark that is sent."""

    name: str


def payload(fields: Fields, carrier: str) -> bytes:
    """Return the caller's audio in a ``media`` message, which is empty for the other track.

    `RemoteProtocolError` if it can't be read.
    """
    media = fields.inner("media")
    if media.text("track") == "outbound":  # what the caller hears: a stream of both tracks
        return b""
    encoded = media.raw("payload")
    if not isinstance(encoded, str):
        raise malformed(f"{carrier} sent a media message without a payload")
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise malformed(f"the payload of a media message of {carrier} is not base64") from None


class Codec(NamedTuple):
    """How audio is on the line."""

    decode: Callable[[bytes], bytes]
    """To PCM16, little-endian."""
    encode: Callable[[bytes], bytes]


def swapped(pcm: bytes) -> bytes:
    """Return PCM16 in the other byte order."""
    other = bytearray(len(pcm))
    other[::2] = pcm[1::2]
    other[1::2] = pcm[::2]
    return bytes(other)


def _unchanged(pcm: bytes) -> bytes:
    return pcm


PCMU: Final = Codec(g711.ulaw_to_pcm, g711.pcm_to_ulaw)
PCMA: Final = Codec(g711.alaw_to_pcm, g711.pcm_to_alaw)
L16: Final = Codec(swapped, swapped)
"""PCM16 in network byte order, as in RTP (RFC 3551 section 4.5.11)."""
PCM16: Final = Codec(_unchanged, _unchanged)
"""PCM16, little-endian."""
