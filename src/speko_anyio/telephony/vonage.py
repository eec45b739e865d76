"""Vonage: WebSockets of the Voice API.

Sources:

- messages and the answer to the webhook: https://developer.vonage.com/en/voice/voice-api/concepts/websockets
- signatures: https://developer.vonage.com/en/getting-started/concepts/webhooks#decoding-signed-webhooks and
  https://api.support.vonage.com/hc/en-us/articles/19033783342876
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from ..protocol._text import clean
from ._carrier import FRAME, CarrierStream, ConnectAnswer, Frames
from ._events import CallAudio, CallStarted, CarrierEvent
from ._fields import Fields, malformed, read
from ._media import Mark
from ._signatures import SignatureError, SignedRequest, check_age, is_same, key_of, missing, wrong
from ._xml import check_parameters, check_url

_RATES: Final = (8000, 16_000, 24_000)
_RATE: Final = 16_000
"""What `connect_answer` asks for."""

_MAX_TOKEN: Final = 8192
"""Characters in a signature's token; those of Vonage have about 500."""

_NO_PARAMETERS: Final = frozenset(("event", "content-type"))


class _Claims(msgspec.Struct, frozen=True, gc=False):
    iat: float
    exp: float | None = None
    payload_hash: str | None = None


class _Header(msgspec.Struct, frozen=True, gc=False):
    alg: str


class VonageStream(CarrierStream):
    """A WebSocket of Vonage's Voice API: PCM16 at 8, 16 or 24 kHz in binary messages, JSON for the rest.

    Vonage wants exactly 20 ms in a message and stops for any other length
    (https://github.com/vocodedev/vocode-core/issues/727). A mark is a ``notify``. Vonage documents no last
    message, so the call ends with the WebSocket. The first message has the parameters and nothing else about
    the call: pass the webhook's ``uuid``, ``from`` and ``to``, which become `CallStarted.call_id`, `caller`
    and `called`.
    """

    name: ClassVar[str] = "vonage"
    signed_with: ClassVar[str] = "signature secret"
    environment_variable: ClassVar[str] = "VONAGE_SIGNATURE_SECRET"
    webhook_setting: ClassVar[str] = "the answer URL of your application"
    call_id_field: ClassVar[str] = "uuid"
    caller_field: ClassVar[str] = "from"
    called_field: ClassVar[str] = "to"

    def _receive(self, message: str | bytes) -> list[CarrierEvent]:
        if isinstance(message, bytes):
            pcm = self._whole_samples(message)
            return self._follow(0, CallAudio(pcm) if pcm else None)
        fields = read(message, self.name, self._odd)
        match fields.text("event"):
            case "websocket:connected":
                return self._open(fields)
            case "websocket:notify":
                return self._follow(0, fields.inner("payload").mark("name"))
            case "websocket:dtmf":
                return self._follow(0, fields.digit("digit"))
            case "websocket:cleared":
                return self._follow(0, None)
        return self._unknown()

    def _open(self, fields: Fields) -> list[CarrierEvent]:
        if self._is_second_start():
            return []
        content_type = fields.text("content-type")
        kind, _, rate = content_type.lower().replace(" ", "").partition(";rate=")
        rates = {str(known): known for known in _RATES}
        if kind not in ("", "audio/l16") or (rate and rate not in rates):
            raise malformed(
                f"vonage announced {clean(content_type, limit=40)}, which can't be decoded; use audio/l16 "
                "with a rate of 8000, 16000 or 24000 in the NCCO"
            )
        sample_rate = rates.get(rate, _RATE)
        frame = round(sample_rate * FRAME) * 2
        self._frames = Frames(frame, frame)
        parameters = fields.parameters(without=_NO_PARAMETERS)
        return self._begin(
            CallStarted(
                carrier=self.name,
                call_id=parameters.get("uuid", ""),
                stream_id="",
                parameters=parameters,
                caller=parameters.get("from", ""),
                called=parameters.get("to", ""),
                sample_rate=sample_rate,
            )
        )

    def _media(self, pcm: bytes) -> bytes:
        return pcm

    def _mark(self, name: str) -> str:
        return msgspec.json.encode({"action": "notify", "payload": Mark(name)}).decode()

    def _clear(self) -> str:
        return '{"action":"clear"}'

    @staticmethod
    def verify(request: SignedRequest, secret: str, *, now: float) -> None:
        """Check a signed webhook; `secret` is the account's signature secret.

        The header ``Authorization`` holds a JWT, HS256 only, which must be at most 5 minutes old. Its
        ``payload_hash`` is the SHA-256 of the body, or of the query as JSON. Vonage does not sign the
        handshake of a WebSocket: put a token into the parameters of `connect_answer`.
        """
        scheme, _, token = request.header("Authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise missing("Authorization with a token", "Vonage")
        claims = _verify_token(token.strip(), secret)
        check_age(claims.iat, now, "Vonage")
        if claims.exp is not None and not claims.exp > now:
            raise SignatureError("the signature of Vonage has expired; check this machine's clock")
        if claims.payload_hash is None:
            if request.body:
                raise SignatureError("Vonage signed the request without its body; it is not from Vonage")
            return
        contents = [request.body]
        if not request.body:
            contents.append(
                json.dumps(dict(request.query()), ensure_ascii=False, separators=(",", ":")).encode()
            )
        hashes = [hashlib.sha256(content).hexdigest().encode() for content in contents]
        if not any(is_same(claims.payload_hash.lower(), right) for right in hashes):
            raise wrong("Vonage")

    @staticmethod
    def connect_answer(url: str, parameters: Mapping[str, str] | None = None) -> ConnectAnswer:
        """Return an NCCO that connects to a WebSocket at 16 kHz. The parameters are its ``headers``."""
        check_url(url)
        endpoint = {
            "type": "websocket",
            "uri": url,
            "content-type": f"audio/l16;rate={_RATE}",
            "headers": dict(check_parameters(parameters)),
        }
        return ConnectAnswer("application/json", json.dumps([{"action": "connect", "endpoint": [endpoint]}]))


def _verify_token(token: str, secret: str) -> _Claims:
    """Check the signature of a JWT, and return what it claims (RFC 7519, RFC 7515)."""
    signed, _, signature = token.rpartition(".")
    if len(token) > _MAX_TOKEN:
        raise wrong("Vonage")
    right = base64.urlsafe_b64encode(
        hmac.digest(key_of(secret, "Vonage"), signed.encode(errors="replace"), "sha256")
    )
    if not is_same(signature, right.rstrip(b"=")):
        raise wrong("Vonage")
    header, _, claims = signed.partition(".")
    try:
        if msgspec.json.decode(_decoded(header), type=_Header).alg != "HS256":
            raise SignatureError("the signature of Vonage is not HS256, which its webhooks have")
        return msgspec.json.decode(_decoded(claims), type=_Claims)
    except (msgspec.DecodeError, ValueError):
        raise wrong("Vonage") from None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
