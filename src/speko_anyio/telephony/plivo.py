"""Plivo: Audio Streaming in both directions.

Sources:

- messages: https://www.plivo.com/docs/voice-agents/audio-streaming/concepts/audio-streaming-reference
- checkpoints: https://plivo.com/docs/voice/xml/the-stream-element/checkpoint-event
- the answer to the webhook: https://docs.plivo.com/docs/voice/xml/audiostream
- signatures: https://docs.plivo.com/docs/voice/xml/request/validation and, for what exactly is signed,
  https://github.com/plivo/plivo-python/blob/master/plivo/utils/signature_v3.py
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Literal

import msgspec

from ..protocol._codec import mended
from ..protocol._text import clean
from ..protocol.errors import LocalProtocolError
from ._carrier import ConnectAnswer
from ._events import CallStarted, CarrierEvent
from ._fields import MAX_PARAMETER, MAX_PARAMETERS, Fields, malformed
from ._media import PCM16, PCMU, CamelMediaMessage, Codec, JSONStream
from ._signatures import SignedRequest, is_same, key_of, missing, wrong
from ._xml import check_parameters, check_url, document, escape

_HEADERS: Final = ("X-Plivo-Signature-V3", "X-Plivo-Signature-Ma-V3")
"""By the account or subaccount of the call, and by the main account."""
_NONCE: Final = "X-Plivo-Signature-V3-Nonce"
_ANY_SIGNATURE: Final = "x-plivo-signature"
"""How the names of all these fields begin, in any version."""

_CODECS: Final[Mapping[tuple[str, int], Codec]] = {
    ("audio/x-mulaw", 8000): PCMU,
    ("audio/x-l16", 8000): PCM16,
    ("audio/x-l16", 16000): PCM16,
}

_MAX_HEADERS: Final = 512
"""Bytes in ``extraHeaders``."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9]+")
"""What names and values in ``extraHeaders`` may consist of."""

_ENCODER: Final = msgspec.json.Encoder()


class _Played(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    content_type: str
    sample_rate: int
    payload: bytes


class _Message(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    event: Literal["playAudio", "checkpoint", "clearAudio"]
    stream_id: str
    media: _Played | None = None
    name: str | None = None


class PlivoStream(JSONStream):
    """A bidirectional audio stream of Plivo: µ-law at 8 kHz, or L16 at 8 or 16 kHz, as base64 in JSON.

    The assistant's audio has the format of the caller's. The documentation does not tell the byte order of
    L16; it is taken to be little-endian. A mark is a checkpoint, which Plivo answers only when the audio
    before it was played: after a `clear` the answer never comes. Plivo documents no last message, so the call
    ends with the WebSocket. The start has no phone numbers: pass the webhook's ``From`` and ``To`` as the
    parameters ``from`` and ``to``, without a plus sign.
    """

    name: ClassVar[str] = "plivo"
    signed_with: ClassVar[str] = "auth token"
    environment_variable: ClassVar[str] = "PLIVO_AUTH_TOKEN"
    webhook_setting: ClassVar[str] = "the answer URL of your application"
    call_id_field: ClassVar[str] = "CallUUID"
    _decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(CamelMediaMessage, strict=False)

    def __init__(self) -> None:
        super().__init__()
        self._stream_id = ""
        self._content_type = "audio/x-mulaw"

    def _read_other(self, event: str, fields: Fields, number: int) -> list[CarrierEvent]:
        match event:
            case "playedStream":
                return self._follow(number, fields.mark("name"))
            case "clearedAudio":
                return self._follow(number, None)
        return self._unknown()

    def _open(self, fields: Fields) -> list[CarrierEvent]:
        start = fields.inner("start")
        stream_id = start.text("streamId") or fields.text("streamId")
        if not stream_id:
            raise malformed("plivo sent a start without a streamId, so that it can't be answered")
        media_format = start.inner("mediaFormat")
        encoding = media_format.text("encoding").partition(";")[0] or "audio/x-mulaw"
        rate = media_format.whole("sampleRate") or 8000
        codec = _CODECS.get((encoding, rate))
        if codec is None:
            raise malformed(
                f"plivo announced {clean(encoding, limit=40)} audio at {rate} Hz, which can't be decoded; "
                "use audio/x-mulaw;rate=8000 or audio/x-l16 at 8000 or 16000 Hz in the Stream element"
            )
        self._stream_id, self._content_type, self._codec = stream_id, encoding, codec
        parameters = _parameters(fields)
        return self._begin(
            CallStarted(
                carrier=self.name,
                call_id=start.text("callId"),
                stream_id=stream_id,
                parameters=parameters,
                caller=parameters.get("from", ""),
                called=parameters.get("to", ""),
                sample_rate=rate,
            )
        )

    def _media(self, pcm: bytes) -> str:
        played = _Played(self._content_type, self.sample_rate, self._codec.encode(pcm))
        return _ENCODER.encode(_Message("playAudio", self._stream_id, media=played)).decode()

    def _mark(self, name: str) -> str:
        return _ENCODER.encode(_Message("checkpoint", self._stream_id, name=name)).decode()

    def _clear(self) -> str:
        return _ENCODER.encode(_Message("clearAudio", self._stream_id)).decode()

    @staticmethod
    def verify(request: SignedRequest, secret: str, *, now: float = 0.0) -> None:
        """Check a signature of version 3; `secret` is the account's auth token. The time does not matter.

        HMAC-SHA256 signs the URL with its sorted query, the sorted fields of a form, and a nonce. The
        handshake of a WebSocket is signed like a GET, by its ``wss://`` or ``https://`` URL. The header may
        hold several signatures.
        """
        nonce = request.header(_NONCE)
        given = [one.strip() for name in _HEADERS for one in request.header(name).split(",") if one.strip()]
        if not nonce or not given:
            raise missing(_NONCE if given else _HEADERS[0], "Plivo")
        key = key_of(secret, "Plivo")
        right = [
            base64.b64encode(hmac.digest(key, f"{signed}.{nonce}".encode(errors="replace"), "sha256"))
            for signed in _signed(request)
        ]
        if not any(is_same(one, other) for one in given for other in right):
            raise wrong("Plivo")

    @staticmethod
    def signs_websocket(headers: Iterable[str]) -> bool:
        """Return whether a signature is among the fields: Plivo sends one if the account is set up so."""
        return any(name.lower().startswith(_ANY_SIGNATURE) for name in headers)

    @staticmethod
    def connect_answer(url: str, parameters: Mapping[str, str] | None = None) -> ConnectAnswer:
        """Return XML with a bidirectional ``<Stream>`` of µ-law.

        Parameters are ``extraHeaders``: names and values of letters and digits, 512 bytes in all. Put a token
        into the query of the URL.
        """
        pairs = check_parameters(parameters).items()
        for name, value in pairs:
            if not _PLAIN.fullmatch(name) or not _PLAIN.fullmatch(value):
                raise LocalProtocolError(
                    "Plivo takes parameters whose names and values are of letters and digits only, unlike "
                    f"{clean(name, limit=40)!r}; leave out the rest, or put it into the query of the URL"
                )
        headers = ",".join(f"{name}={value}" for name, value in pairs)
        if len(headers) > _MAX_HEADERS:
            raise LocalProtocolError(
                f"the parameters have {len(headers)} bytes, and Plivo takes {_MAX_HEADERS}; put them into "
                "the query of the URL"
            )
        extra = f' extraHeaders="{escape("parameters", headers)}"' if headers else ""
        return document(
            '<Stream bidirectional="true" keepCallAlive="true" audioTrack="inbound" '
            f'contentType="audio/x-mulaw;rate=8000"{extra}>{check_url(url)}</Stream>'
        )


def _parameters(fields: Fields) -> dict[str, str]:
    """Read ``extra_headers``: text like ``a=1;b=2`` or ``{X-PH-a: 1, X-PH-b: 2}``, or an object."""
    text = fields.raw("extra_headers")
    if not isinstance(text, str):
        return fields.inner("extra_headers").parameters()
    pairs = (
        [part.strip(" \"'") for part in re.split("[=:]", pair, maxsplit=1)]
        for pair in re.split("[;,]", text.strip("{} \t\r\n"), maxsplit=MAX_PARAMETERS)[:MAX_PARAMETERS]
    )
    return {
        mended(pair[0].removeprefix("X-PH-")): mended(pair[1])
        for pair in pairs
        if len(pair) == 2 and max(map(len, pair)) <= MAX_PARAMETER
    }


def _signed(request: SignedRequest) -> Iterable[str]:
    """Return what Plivo may have signed, without the nonce."""
    parts = request.parts()
    query = "&".join(f"{name}={value}" for name, value in sorted(request.query()))
    form = "".join(f"{name}{value}" for name, value in sorted(request.form()))
    end = f"?{query}" if query or form else ""
    if form:
        end += f".{form}" if query else form
    schemes = (parts.scheme, "https") if parts.scheme in ("wss", "ws") else (parts.scheme,)
    return [f"{scheme}://{parts.netloc}{parts.path}{end}" for scheme in schemes]
