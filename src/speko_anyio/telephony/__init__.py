"""Phone lines, without I/O: the media streams of carriers and G.711.

When the phone rings, the carrier calls a webhook. The answer connects the call to a WebSocket, over which the
carrier sends the caller's speech and takes the assistant's. A `CarrierStream` turns the messages of that
WebSocket into `CallStarted`, `CallAudio`, `Marked`, `Digit` and `CallEnded`, and speech into messages.
`CARRIERS` has one for each carrier. A `PhoneBridge` joins it to a session.
"""

from collections.abc import Mapping
from typing import Final

from ._barge_in import SpeechDetector
from ._bridge import Digits, PhoneBridge, PhoneEvent, PhoneStats, SessionVerbs, deliver
from ._carrier import CarrierStream, ConnectAnswer
from ._events import CallAudio, CallEnded, CallStarted, CarrierEvent, Digit, Marked
from ._signatures import SignatureError, SignedRequest
from .plivo import PlivoStream
from .telnyx import TelnyxStream
from .twilio import TwilioStream
from .vonage import VonageStream

_STREAMS: Final[tuple[type[CarrierStream], ...]] = (TwilioStream, TelnyxStream, PlivoStream, VonageStream)

CARRIERS: Final[Mapping[str, type[CarrierStream]]] = {stream.name: stream for stream in _STREAMS}
"""The carriers by name."""

__all__ = [
    "CARRIERS",
    "CallAudio",
    "CallEnded",
    "CallStarted",
    "CarrierEvent",
    "CarrierStream",
    "ConnectAnswer",
    "Digit",
    "Digits",
    "Marked",
    "PhoneBridge",
    "PhoneEvent",
    "PhoneStats",
    "PlivoStream",
    "SessionVerbs",
    "SignatureError",
    "SignedRequest",
    "SpeechDetector",
    "TelnyxStream",
    "TwilioStream",
    "VonageStream",
    "deliver",
]
