"""Media streams of JSON messages: what the carriers that have them share, and the audio in them."""

from __future__ import annotations

import abc
import binascii
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, NamedTuple

import msgspec

from ..protocol.frames import Count
from . import g711
from ._carrier import CarrierStream
from ._events import CallAudio, CarrierEvent
from ._fields import DECODE_ERRORS, Fields, malformed, read


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
    sample_bytes: int


def swapped(pcm: bytes) -> bytes:
    """Return PCM16 in the other byte order."""
    other = bytearray(len(pcm))
    other[::2] = pcm[1::2]
    other[1::2] = pcm[::2]
    return bytes(other)


def _unchanged(pcm: bytes) -> bytes:
    return pcm


PCMU: Final = Codec(g711.ulaw_to_pcm, g711.pcm_to_ulaw, 1)
PCMA: Final = Codec(g711.alaw_to_pcm, g711.pcm_to_alaw, 1)
L16: Final = Codec(swapped, swapped, 2)
"""PCM16 in network byte order, as in RTP (RFC 3551 section 4.5.11)."""
PCM16: Final = Codec(_unchanged, _unchanged, 2)
"""PCM16, little-endian."""


class JSONStream(CarrierStream):
    """A media stream whose messages are JSON objects with their kind as ``event``."""

    _decoder: ClassVar[msgspec.json.Decoder[Any]]
    """Of `MediaMessage` or `CamelMediaMessage`."""
    _number: ClassVar[str] = "sequenceNumber"
    """The field with the number of a message."""

    def __init__(self) -> None:
        super().__init__()
        self._codec = PCMU
        """Of the caller's audio."""

    def _receive(self, message: str | bytes) -> list[CarrierEvent]:
        try:
            media = self._decoder.decode(message)
        except DECODE_ERRORS:
            return self._read(read(message, self.name, self._odd))
        return self._hear(media.media.payload, media.sequence_number)

    def _read(self, fields: Fields) -> list[CarrierEvent]:
        number = fields.whole(self._number)
        match fields.text("event"):
            case "media":
                return self._hear(payload(fields, self.name), number)
            case "start":
                return [] if self._is_second_start() else self._open(fields)
            case "dtmf":
                return self._follow(number, fields.inner("dtmf").digit("digit"))
            case "stop":  # Plivo does not document it, but its guides speak of it
                return self._end(number)
            case event:
                return self._read_other(event, fields, number)

    def _hear(self, data: bytes, number: int) -> list[CarrierEvent]:
        codec = self._codec
        if codec.sample_bytes == 2:
            data = self._whole_samples(data)
        return self._follow(number, CallAudio(codec.decode(data)) if data else None)

    @abc.abstractmethod
    def _open(self, fields: Fields) -> list[CarrierEvent]:
        """Take the first start of the call."""

    def _read_other(self, event: str, fields: Fields, number: int) -> list[CarrierEvent]:
        """Take a message that not all of these carriers have."""
        match event:
            case "mark":
                return self._follow(number, fields.inner("mark").mark("name"))
            case "connected":
                return []
        return self._unknown()
