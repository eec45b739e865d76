"""Telnyx: Media Streaming over WebSockets, with bidirectional RTP.

Sources:

- messages: https://developers.telnyx.com/api-reference/websockets/stream-call-media-over-websocket
- the answer to the webhook: https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/stream
- signatures: https://developers.telnyx.com/api-reference/callbacks/texml-stream
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import msgspec

from ..protocol._pcm import is_sample_rate
from ..protocol._text import clean
from ..protocol.errors import LocalProtocolError
from ._carrier import FRAME, ConnectAnswer, Frames
from ._events import CallStarted, CarrierEvent
from ._fields import Fields, malformed
from ._media import L16, PCMA, PCMU, Codec, JSONStream, Mark, MediaMessage, Payload
from ._signatures import SignedRequest, check_age, missing, wrong
from ._xml import check_parameters, check_url, stream_answer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_SIGNATURE: Final = "telnyx-signature-ed25519"
_TIMESTAMP: Final = "telnyx-timestamp"

_CODECS: Final[Mapping[str, Codec]] = {"PCMU": PCMU, "PCMA": PCMA, "L16": L16}

_LONGEST: Final = 1.0
"""Seconds in one message; Telnyx takes 20 ms to 30 s."""

_MAX_ERROR: Final = 200

_ENCODER: Final = msgspec.json.Encoder()


class _Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    event: Literal["media", "mark", "clear"]
    media: Payload | None = None
    mark: Mark | None = None


class TelnyxStream(JSONStream):
    """A media stream of Telnyx: PCMU or PCMA at 8 kHz, or L16, as base64 in JSON.

    The caller's audio has the codec of the call, which is PCMA in much of the world; the start names it. The
    assistant's has the one that the stream was started with (``bidirectionalCodec``): pass that as `codec`.
    Without, it is L16 if the caller's audio is L16, and PCMU otherwise, as `connect_answer` asks. L16 is in
    network byte order, as in RTP.

    Telnyx takes 20 ms to 30 s of audio in a message. It does not promise the order of its media messages;
    they are taken as they come. It answers a mark when the audio before it was played, and all open marks
    upon `clear`. `last_error` is its latest ``error`` message.
    """

    name: ClassVar[str] = "telnyx"
    signed_with: ClassVar[str] = "public key"
    environment_variable: ClassVar[str] = "TELNYX_PUBLIC_KEY"
    webhook_setting: ClassVar[str] = "the webhook URL of your TeXML application"
    _decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(MediaMessage, strict=False)
    _number: ClassVar[str] = "sequence_number"

    def __init__(self, *, codec: Literal["PCMU", "PCMA", "L16"] | None = None) -> None:
        super().__init__()
        if codec is not None and codec not in _CODECS:
            raise LocalProtocolError(f"{codec!r} is not a codec for Telnyx; choose PCMU, PCMA or L16")
        self._chosen = None if codec is None else _CODECS[codec]
        self._outgoing = PCMU

    def _read_other(self, event: str, fields: Fields, number: int) -> list[CarrierEvent]:
        if event != "error":
            return super()._read_other(event, fields, number)
        problem = fields.inner("payload")
        told = problem.text("detail") or problem.text("title") or problem.text("code")
        self.last_error: str = clean(told, limit=_MAX_ERROR)
        return []

    def _open(self, fields: Fields) -> list[CarrierEvent]:
        start = fields.inner("start")
        if not start.text("call_control_id") and not fields.text("stream_id"):
            raise malformed("telnyx sent a start without a stream_id; check that the call is one of Telnyx")
        media_format = start.inner("media_format")
        encoding = media_format.text("encoding") or "PCMU"
        rate = media_format.whole("sample_rate") or 8000
        incoming = _CODECS.get(encoding.upper())
        if incoming is None:
            raise malformed(
                f"telnyx announced {clean(encoding, limit=40)} audio, which can't be decoded; start the "
                "stream with the codec PCMU, PCMA or L16"
            )
        if incoming is not L16:
            rate = 8000
        if not is_sample_rate(rate):
            raise malformed(f"telnyx announced the sample rate {rate}, which no session can have")
        self._codec = incoming
        self._outgoing = self._chosen or (L16 if incoming is L16 else PCMU)
        self._frames = Frames(ceil(rate * FRAME) * 2, round(rate * _LONGEST) * 2)
        parameters = start.inner("custom_parameters").parameters()
        return self._begin(
            CallStarted(
                carrier=self.name,
                call_id=start.text("call_control_id"),
                stream_id=fields.text("stream_id"),
                parameters=parameters,
                caller=start.text("from") or parameters.get("from", ""),
                called=start.text("to") or parameters.get("to", ""),
                sample_rate=rate,
            )
        )

    def _media(self, pcm: bytes) -> str:
        return _ENCODER.encode(_Message("media", media=Payload(self._outgoing.encode(pcm)))).decode()

    def _mark(self, name: str) -> str:
        return _ENCODER.encode(_Message("mark", mark=Mark(name))).decode()

    def _clear(self) -> str:
        return _ENCODER.encode(_Message("clear")).decode()

    @staticmethod
    def verify(request: SignedRequest, secret: str, *, now: float) -> None:
        """Check a webhook's Ed25519 signature; `secret` is the account's public key, as the portal shows it.

        It signs the time and the body. The check needs the package ``cryptography``; without it, raise
        `LocalProtocolError`. Telnyx does not sign the handshake of a WebSocket: put a token into the
        parameters of `connect_answer`.
        """
        given, made = request.header(_SIGNATURE), request.header(_TIMESTAMP)
        if not given or not made:
            raise missing(_TIMESTAMP if given else _SIGNATURE, "Telnyx")
        key, invalid_signature = _read_key(secret)
        try:
            key.verify(base64.b64decode(given, validate=True), made.encode() + b"|" + request.body)
            at = float(made)
        except (invalid_signature, ValueError):
            raise wrong("Telnyx") from None
        check_age(at, now, "Telnyx")

    @staticmethod
    def check_secret(secret: str) -> None:
        """Raise `LocalProtocolError` if this is not a public key, or ``cryptography`` is not installed."""
        _read_key(secret)

    @staticmethod
    def connect_answer(url: str, parameters: Mapping[str, str] | None = None) -> ConnectAnswer:
        """Return TeXML: ``<Connect><Stream>`` with bidirectional RTP and PCMU in both directions."""
        attributes = ' track="inbound_track" codec="PCMU" bidirectionalMode="rtp" bidirectionalCodec="PCMU"'
        return stream_answer(check_url(url), attributes, check_parameters(parameters))


def _read_key(secret: str) -> tuple[Ed25519PublicKey, type[Exception]]:
    """Return the public key, and the error that its `verify` raises."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise LocalProtocolError(
            "a signature of Telnyx can't be checked without the package cryptography; install it"
        ) from None
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(secret, validate=True)), InvalidSignature
    except (TypeError, ValueError):
        raise LocalProtocolError(
            "the public key of Telnyx is not an Ed25519 key in base64; copy it from the portal"
        ) from None
