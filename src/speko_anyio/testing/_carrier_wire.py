"""How each carrier's media stream looks on the wire, from the carrier's side.

Written from the carriers' public documentation, as of November 2026, and on purpose without
`speko_anyio.telephony`: the two can disagree, and a test then says so.

- Twilio: https://www.twilio.com/docs/voice/media-streams/websocket-messages
- Telnyx: https://developers.telnyx.com/api-reference/websockets/stream-call-media-over-websocket
- Plivo: https://www.plivo.com/docs/voice-agents/audio-streaming/concepts/audio-streaming-reference
- Vonage: https://developer.vonage.com/en/voice/voice-api/concepts/websockets
"""

from __future__ import annotations

import abc
import base64
import binascii
import json
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias

from ..audio._pcm import SAMPLE_BYTES, samples, to_bytes

CarrierName: TypeAlias = Literal["twilio", "telnyx", "plivo", "vonage"]
"""The carriers that are simulated."""

Encoding: TypeAlias = Literal["ulaw", "alaw", "l16"]
"""How audio is coded: G.711 µ-law or A-law at 8 kHz, or PCM16."""

WireMessage: TypeAlias = str | bytes

FRAME_SECONDS: Final = 0.02
"""Seconds of audio in one message from the carrier."""


class CallFacts(NamedTuple):
    """What the carrier's start message tells."""

    parameters: dict[str, str]
    caller: str
    called: str


class Play(NamedTuple):
    """The application sent audio, decoded to PCM16."""

    pcm: bytes


class Mark(NamedTuple):
    """The application set a mark."""

    name: str


class Clear(NamedTuple):
    """The application cleared the audio that waits."""


Request: TypeAlias = Play | Mark | Clear


class Wire(abc.ABC):
    """One carrier's messages of one stream. `refusal` names the carrier."""

    encodings: ClassVar[dict[Encoding, tuple[int, ...]]]
    """The encodings and the sample rates of each; the first is the default."""
    clear_answers_marks = True
    """Whether the marks that a clear drops are answered at once."""
    max_buffered: float | None = None
    """Seconds of audio that the carrier keeps; None if it does not say."""

    def __init__(self, name: str, encoding: Encoding | None, sample_rate: int | None) -> None:
        self.name = name
        self.encoding: Encoding = next(iter(self.encodings)) if encoding is None else encoding
        if self.encoding not in self.encodings:
            raise ValueError(f"{name} has no {self.encoding}; choose from {', '.join(self.encodings)}")
        rates = self.encodings[self.encoding]
        self.sample_rate = rates[0] if sample_rate is None else sample_rate
        if self.sample_rate not in rates:
            known = ", ".join(map(str, rates))
            raise ValueError(f"{name} has no {self.encoding} at {self.sample_rate} Hz; choose from {known}")
        self._sequence = 0
        self._chunk = 0

    def _count(self) -> int:
        self._sequence += 1
        return self._sequence

    # To the application

    @abc.abstractmethod
    def opening(self, facts: CallFacts) -> list[WireMessage]:
        """Return what the carrier sends first."""

    @abc.abstractmethod
    def media(self, pcm: bytes, timestamp: int) -> WireMessage:
        """Return a frame of the caller's speech; `timestamp` in milliseconds since the start."""

    @abc.abstractmethod
    def digit(self, digit: str, timestamp: int) -> WireMessage:
        """Return the news that the caller pressed a key."""

    @abc.abstractmethod
    def marked(self, name: str) -> WireMessage:
        """Return the answer to a mark."""

    def cleared(self) -> WireMessage | None:
        """Return the answer to a clear, where there is one."""
        return None

    def stop(self) -> WireMessage | None:
        """Return the news that the call is over, where there is one."""
        return None

    # From the application

    @abc.abstractmethod
    def read(self, message: WireMessage) -> Request:
        """Take a message of the application; AssertionError if the carrier would not understand it."""

    def refusal(self, why: str) -> AssertionError:
        """Return the error for a message that the carrier would not take."""
        return AssertionError(f"{self.name} would not take this message of the application: {why}")

    def _object(self, message: WireMessage) -> dict[str, Any]:
        if isinstance(message, bytes):
            raise self.refusal("it is binary")
        try:
            value = json.loads(message)
        except ValueError:
            raise self.refusal(f"it is not JSON: {message[:80]!r}") from None
        if not isinstance(value, dict):
            raise self.refusal("it is not a JSON object")
        return value

    def _text(self, value: object, field: str) -> str:
        if not isinstance(value, str) or not value:
            raise self.refusal(f"its {field} is {value!r}, not a text")
        return value

    def _fields(self, value: object, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.refusal(f"its {field} is {value!r}, not an object")
        return value

    def _payload(self, value: object) -> bytes:
        try:
            coded = base64.b64decode(self._text(value, "payload"), validate=True)
        except binascii.Error:
            raise self.refusal("its payload is not base64") from None
        return self._decode(coded)

    def _decode(self, coded: bytes) -> bytes:
        if not coded:
            raise self.refusal("it has no audio")
        if self.encoding == "l16" and len(coded) % SAMPLE_BYTES:
            raise self.refusal("its audio ends in the middle of a sample")
        return decode(coded, self.encoding)

    def _encode(self, pcm: bytes) -> str:
        return base64.b64encode(encode(pcm, self.encoding)).decode()


class _Twilio(Wire):
    encodings: ClassVar[dict[Encoding, tuple[int, ...]]] = {"ulaw": (8000,)}
    _account = "AC00000000000000000000000000000000"
    _call = "CA00000000000000000000000000000000"
    _stream = "MZ00000000000000000000000000000000"

    def opening(self, facts: CallFacts) -> list[WireMessage]:
        start = {
            "accountSid": self._account,
            "streamSid": self._stream,
            "callSid": self._call,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": facts.parameters,
        }
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        return [json.dumps(connected), self._event("start", start)]

    def media(self, pcm: bytes, timestamp: int) -> WireMessage:
        self._chunk += 1
        chunk = {"track": "inbound", "chunk": str(self._chunk), "timestamp": str(timestamp)}
        return self._event("media", {**chunk, "payload": self._encode(pcm)})

    def digit(self, digit: str, timestamp: int) -> WireMessage:
        return self._event("dtmf", {"track": "inbound_track", "digit": digit})

    def marked(self, name: str) -> WireMessage:
        return self._event("mark", {"name": name})

    def stop(self) -> WireMessage | None:
        return self._event("stop", {"accountSid": self._account, "callSid": self._call})

    def _event(self, event: str, content: dict[str, Any]) -> str:
        return json.dumps(
            {
                "event": event,
                "sequenceNumber": str(self._count()),
                event: content,
                "streamSid": self._stream,
            }
        )

    def read(self, message: WireMessage) -> Request:
        said = self._object(message)
        if said.get("streamSid") != self._stream:
            raise self.refusal(f"its streamSid is {said.get('streamSid')!r}, not that of the stream")
        match said.get("event"):
            case "media":
                return Play(self._payload(self._fields(said.get("media"), "media").get("payload")))
            case "mark":
                return Mark(self._text(self._fields(said.get("mark"), "mark").get("name"), "mark's name"))
            case "clear":
                return Clear()
            case event:
                raise self.refusal(f"its event is {event!r}")


class _Telnyx(Wire):
    encodings: ClassVar[dict[Encoding, tuple[int, ...]]] = {
        "ulaw": (8000,),
        "alaw": (8000,),
        "l16": (16_000,),
    }
    _names: ClassVar[dict[Encoding, str]] = {"ulaw": "PCMU", "alaw": "PCMA", "l16": "L16"}
    _user = "00000000-0000-4000-8000-000000000001"
    _call = "v3:fake-call-control-id"
    _stream = "00000000-0000-4000-8000-000000000002"
    _chunk_seconds = (FRAME_SECONDS, 30.0)
    """The audio that one message to Telnyx may hold."""

    def opening(self, facts: CallFacts) -> list[WireMessage]:
        start = {
            "user_id": self._user,
            "call_control_id": self._call,
            "call_session_id": "00000000-0000-4000-8000-000000000003",
            "from": facts.caller,
            "to": facts.called,
            "tags": [],
            "client_state": "",
            "custom_parameters": facts.parameters,
            "media_format": {
                "encoding": self._names[self.encoding],
                "sample_rate": self.sample_rate,
                "channels": 1,
            },
        }
        return [json.dumps({"event": "connected", "version": "1.0.0"}), self._event("start", start)]

    def media(self, pcm: bytes, timestamp: int) -> WireMessage:
        self._chunk += 1
        chunk = {"track": "inbound", "chunk": str(self._chunk), "timestamp": str(timestamp)}
        return self._event("media", {**chunk, "payload": self._encode(pcm)})

    def digit(self, digit: str, timestamp: int) -> WireMessage:
        return self._event("dtmf", {"digit": digit}, occurred_at="2026-11-30T12:00:00.000000Z")

    def marked(self, name: str) -> WireMessage:
        return self._event("mark", {"name": name})

    def stop(self) -> WireMessage | None:
        return self._event("stop", {"user_id": self._user, "call_control_id": self._call})

    def _event(self, event: str, content: dict[str, Any], **more: str) -> str:
        return json.dumps(
            {
                "event": event,
                "sequence_number": str(self._count()),
                event: content,
                "stream_id": self._stream,
                **more,
            }
        )

    def read(self, message: WireMessage) -> Request:
        said = self._object(message)
        if said.get("stream_id", self._stream) != self._stream:
            raise self.refusal(f"its stream_id is {said['stream_id']!r}, not that of the stream")
        match said.get("event"):
            case "media":
                pcm = self._payload(self._fields(said.get("media"), "media").get("payload"))
                shortest, longest = self._chunk_seconds
                if not shortest <= len(pcm) / SAMPLE_BYTES / self.sample_rate <= longest:
                    raise self.refusal(
                        f"it has {len(pcm)} bytes of PCM16; {shortest} to {longest} seconds are allowed"
                    )
                return Play(pcm)
            case "mark":
                return Mark(self._text(self._fields(said.get("mark"), "mark").get("name"), "mark's name"))
            case "clear":
                return Clear()
            case event:
                raise self.refusal(f"its event is {event!r}")


class _Plivo(Wire):
    encodings: ClassVar[dict[Encoding, tuple[int, ...]]] = {"ulaw": (8000,), "l16": (8000, 16_000)}
    clear_answers_marks = False
    _names: ClassVar[dict[Encoding, str]] = {"ulaw": "audio/x-mulaw", "l16": "audio/x-l16"}
    _call = "00000000-0000-4000-8000-000000000004"
    _stream = "00000000-0000-4000-8000-000000000005"
    _headers = ""

    def opening(self, facts: CallFacts) -> list[WireMessage]:
        self._headers = ";".join(f"{name}={value}" for name, value in facts.parameters.items())
        start = {
            "callId": self._call,
            "streamId": self._stream,
            "accountId": "MA000000000000000000",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": self._names[self.encoding], "sampleRate": self.sample_rate},
        }
        return [self._message("start", start=start, extra_headers=self._headers)]

    def media(self, pcm: bytes, timestamp: int) -> WireMessage:
        self._chunk += 1
        media = {
            "track": "inbound",
            "timestamp": str(timestamp),
            "chunk": self._chunk,
            "payload": self._encode(pcm),
        }
        return self._stream_message("media", media=media, extra_headers=self._headers)

    def digit(self, digit: str, timestamp: int) -> WireMessage:
        dtmf = {"track": "inbound", "digit": digit, "timestamp": str(timestamp)}
        return self._stream_message("dtmf", dtmf=dtmf, extra_headers=self._headers)

    def marked(self, name: str) -> WireMessage:
        return self._stream_message("playedStream", name=name)

    def cleared(self) -> WireMessage | None:
        return self._stream_message("clearedAudio")

    def _stream_message(self, event: str, **fields: Any) -> str:
        return self._message(event, streamId=self._stream, **fields)

    def _message(self, event: str, **fields: Any) -> str:
        return json.dumps({"sequenceNumber": self._count(), "event": event, **fields})

    def read(self, message: WireMessage) -> Request:
        said = self._object(message)
        event = said.get("event")
        if event in ("checkpoint", "clearAudio") and said.get("streamId") != self._stream:
            raise self.refusal(f"its streamId is {said.get('streamId')!r}, not that of the stream")
        match event:
            case "playAudio":
                media = self._fields(said.get("media"), "media")
                form = (media.get("contentType"), media.get("sampleRate"))
                if form != (self._names[self.encoding], self.sample_rate):
                    raise self.refusal(f"its audio is {form[0]!r} at {form[1]!r}, not as the stream's")
                return Play(self._payload(media.get("payload")))
            case "checkpoint":
                return Mark(self._text(said.get("name"), "name"))
            case "clearAudio":
                return Clear()
            case _:
                raise self.refusal(f"its event is {event!r}")


class _Vonage(Wire):
    encodings: ClassVar[dict[Encoding, tuple[int, ...]]] = {"l16": (16_000, 8000, 24_000)}
    clear_answers_marks = False
    max_buffered = 3072 * FRAME_SECONDS

    def opening(self, facts: CallFacts) -> list[WireMessage]:
        connected = {"event": "websocket:connected", "content-type": f"audio/l16;rate={self.sample_rate}"}
        return [json.dumps({**facts.parameters, **connected})]

    def media(self, pcm: bytes, timestamp: int) -> WireMessage:
        return pcm

    def digit(self, digit: str, timestamp: int) -> WireMessage:
        return json.dumps({"event": "websocket:dtmf", "digit": digit, "duration": 260})

    def marked(self, name: str) -> WireMessage:
        # The name is the application's payload, whatever that is.
        return json.dumps({"event": "websocket:notify", "payload": json.loads(name)})

    def cleared(self) -> WireMessage | None:
        return json.dumps({"event": "websocket:cleared"})

    def read(self, message: WireMessage) -> Request:
        if isinstance(message, bytes):
            size = round(FRAME_SECONDS * self.sample_rate) * SAMPLE_BYTES
            if len(message) != size:
                raise self.refusal(f"it has {len(message)} bytes; a frame has {size}")
            return Play(self._decode(message))
        said = self._object(message)
        match said.get("action"):
            case "notify":
                return Mark(json.dumps(self._fields(said.get("payload"), "payload")))
            case "clear":
                return Clear()
            case action:
                raise self.refusal(f"its action is {action!r}")


_WIRES: Final[dict[CarrierName, type[Wire]]] = {
    "twilio": _Twilio,
    "telnyx": _Telnyx,
    "plivo": _Plivo,
    "vonage": _Vonage,
}


def make_wire(name: CarrierName, encoding: Encoding | None, sample_rate: int | None) -> Wire:
    """Return the wire of a carrier; ValueError for an unknown one, or one without such audio."""
    wire = _WIRES.get(name)
    if wire is None:
        raise ValueError(f"{name!r} is not a carrier; choose from {', '.join(_WIRES)}")
    return wire(name, encoding, sample_rate)


# G.711, as ITU-T G.191 computes it: slow, and independent of the tables in `speko_anyio.telephony`.


def encode(pcm: bytes, encoding: Encoding) -> bytes:
    """Return PCM16 as the line carries it."""
    if encoding == "l16":
        return pcm
    return bytes(map((_ULAW if encoding == "ulaw" else _ALAW).__getitem__, samples(pcm)))


def decode(coded: bytes, encoding: Encoding) -> bytes:
    """Return what the line carries as PCM16."""
    if encoding == "l16":
        return coded
    one = _from_ulaw if encoding == "ulaw" else _from_alaw
    values = samples(b"")
    values.extend(map(one, coded))
    return to_bytes(values)


class _Ulaw(dict[int, int]):
    def __missing__(self, sample: int) -> int:
        magnitude = min(abs(sample), 32_635) + 132
        exponent = magnitude.bit_length() - 8
        mantissa = magnitude >> (exponent + 3) & 15
        self[sample] = code = ~((sample < 0) << 7 | exponent << 4 | mantissa) & 0xFF
        return code


class _Alaw(dict[int, int]):
    def __missing__(self, sample: int) -> int:
        value = (sample if sample >= 0 else ~sample) >> 4
        exponent = max(value.bit_length() - 4, 0)
        if exponent:
            value = (value >> (exponent - 1)) - 16 + (exponent << 4)
        self[sample] = code = (value | (sample >= 0) << 7) ^ 0x55
        return code


_ULAW: Final = _Ulaw()
_ALAW: Final = _Alaw()


def _from_ulaw(code: int) -> int:
    code = ~code & 0xFF
    magnitude = ((code & 15) << 3) + 132 << (code >> 4 & 7)
    return 132 - magnitude if code & 0x80 else magnitude - 132


def _from_alaw(code: int) -> int:
    code ^= 0x55
    exponent = code >> 4 & 7
    magnitude = ((code & 15) << 4) + 8
    if exponent:
        magnitude = magnitude + 256 << (exponent - 1)
    return magnitude if code & 0x80 else -magnitude
