"""What a carrier's media stream says: the same events for every carrier."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from ..protocol.frames import Digit as Digit


class CallStarted(msgspec.Struct, frozen=True):
    """The stream has begun; it comes first, and once."""

    carrier: str
    """The name of the carrier, such as ``twilio``."""
    call_id: str
    """The carrier's id of the call, which its REST API takes; empty if the carrier does not tell."""
    stream_id: str
    """The carrier's id of the media stream; empty if the carrier has none."""
    parameters: dict[str, str] = {}
    """The custom parameters that `CarrierStream.connect_answer` was given."""
    caller: str = ""
    """The number that calls: what the carrier tells, otherwise the parameter ``from``."""
    called: str = ""
    """The number that was called: what the carrier tells, otherwise the parameter ``to``."""
    sample_rate: int = 8000
    """Samples a second, of `CallAudio` and of the audio that is sent."""

    def __repr__(self) -> str:
        # Numbers are personal data, and a parameter may be a token.
        return f"CallStarted({self.carrier}, call_id={self.call_id!r}, sample_rate={self.sample_rate})"


class CallAudio(msgspec.Struct, frozen=True, gc=False):
    """A piece of the caller's speech."""

    pcm: bytes
    """PCM16, little-endian, mono, at `CallStarted.sample_rate`: whole samples."""

    def __repr__(self) -> str:
        return f"CallAudio(pcm=<{len(self.pcm)} bytes>)"


class Marked(msgspec.Struct, frozen=True, gc=False):
    """The audio that was sent before this mark was played.

    Twilio and Telnyx also answer the marks whose audio a clear has dropped.
    """

    name: str


class CallEnded(msgspec.Struct, frozen=True, gc=False):
    """The carrier ended the stream. Its WebSocket closes afterwards, or without this event."""

    reason: str = ""


CarrierEvent: TypeAlias = CallStarted | CallAudio | Marked | Digit | CallEnded
