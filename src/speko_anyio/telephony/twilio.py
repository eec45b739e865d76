"""Twilio: Media Streams in both directions.

Sources:

- messages: https://www.twilio.com/docs/voice/media-streams/websocket-messages
- the answer to the webhook: https://www.twilio.com/docs/voice/twiml/stream
- signatures: https://www.twilio.com/docs/usage/webhooks/webhooks-security
- no query in the URL: https://www.twilio.com/docs/api/errors/31920
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final, Literal
from urllib.parse import SplitResult, urlunsplit

import msgspec

from ..protocol._text import clean
from ..protocol.errors import LocalProtocolError
from . import g711
from ._carrier import ConnectAnswer
from ._events import CallStarted, CarrierEvent
from ._fields import Fields, malformed
from ._media import CamelMediaMessage, JSONStream, Mark, Payload
from ._signatures import SignedRequest, is_same, key_of, missing, wrong
from ._xml import check_parameters, check_url, stream_answer

_HEADER: Final = "X-Twilio-Signature"

_MAX_PARAMETER: Final = 500
"""Characters in the name and the value of a ``<Parameter>`` together."""

_PORTS: Final = {"https": 443, "wss": 443, "http": 80, "ws": 80}

_ENCODER: Final = msgspec.json.Encoder()


class _Message(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    event: Literal["media", "mark", "clear"]
    stream_sid: str
    media: Payload | None = None
    mark: Mark | None = None


class TwilioStream(JSONStream):
    """A bidirectional media stream of Twilio (``<Connect><Stream>``): µ-law at 8 kHz as base64 in JSON.

    Twilio takes messages of any length. It answers a mark when the audio before it was played, and all open
    marks upon `clear`. It tells no phone numbers: pass the webhook's ``From`` and ``To`` as the parameters
    ``from`` and ``to``.
    """

    name: ClassVar[str] = "twilio"
    signed_with: ClassVar[str] = "auth token"
    environment_variable: ClassVar[str] = "TWILIO_AUTH_TOKEN"
    webhook_setting: ClassVar[str] = "the webhook of your number for incoming calls"
    _decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(CamelMediaMessage, strict=False)

    def __init__(self) -> None:
        super().__init__()
        self._stream_sid = ""

    def _open(self, fields: Fields) -> list[CarrierEvent]:
        start = fields.inner("start")
        stream_sid = start.text("streamSid") or fields.text("streamSid")
        if not stream_sid:
            raise malformed("twilio sent a start without a streamSid, so that it can't be answered")
        encoding = start.inner("mediaFormat").text("encoding")
        if encoding not in ("", "audio/x-mulaw"):
            raise malformed(f"twilio announced {clean(encoding, limit=40)} audio instead of audio/x-mulaw")
        self._stream_sid = stream_sid
        parameters = start.inner("customParameters").parameters()
        return self._begin(
            CallStarted(
                carrier=self.name,
                call_id=start.text("callSid"),
                stream_id=stream_sid,
                parameters=parameters,
                caller=parameters.get("from", ""),
                called=parameters.get("to", ""),
            )
        )

    def _media(self, pcm: bytes) -> str:
        return self._encode("media", media=Payload(g711.pcm_to_ulaw(pcm)))

    def _mark(self, name: str) -> str:
        return self._encode("mark", mark=Mark(name))

    def _clear(self) -> str:
        return self._encode("clear")

    def _encode(
        self,
        event: Literal["media", "mark", "clear"],
        *,
        media: Payload | None = None,
        mark: Mark | None = None,
    ) -> str:
        return _ENCODER.encode(_Message(event, self._stream_sid, media, mark)).decode()

    @staticmethod
    def verify(request: SignedRequest, secret: str, *, now: float = 0.0) -> None:
        """Check ``X-Twilio-Signature``; `secret` is the account's auth token. The time does not matter.

        It signs the URL and the sorted fields of a form with HMAC-SHA1; with a JSON body, the SHA-256 of the
        body is in the URL. The handshake of a WebSocket is signed like a GET of its ``wss://`` URL. Like
        Twilio's own validator, accept the URL with and without the port, and for a WebSocket also as
        ``https://`` and with a slash at its end, as Twilio has signed it.
        """
        given = request.header(_HEADER)
        if not given:
            raise missing(_HEADER, "Twilio")
        digest = dict(request.query()).get("bodySHA256")
        if digest is not None:
            if not is_same(digest.lower(), hashlib.sha256(request.body).hexdigest().encode()):
                raise wrong("Twilio")
            signed = ""
        else:
            values: dict[str, set[str]] = {}
            for name, value in request.form():
                values.setdefault(name, set()).add(value)
            signed = "".join(f"{name}{value}" for name in sorted(values) for value in sorted(values[name]))
        key = key_of(secret, "Twilio")
        right = [
            base64.b64encode(hmac.digest(key, f"{url}{signed}".encode(errors="replace"), "sha1"))
            for url in _spellings(request.parts())
        ]
        if not any(is_same(given, signature) for signature in right):
            raise wrong("Twilio")

    @staticmethod
    def signs_websocket(headers: Iterable[str]) -> bool:
        """Return True: Twilio always signs it."""
        return True

    @staticmethod
    def connect_answer(url: str, parameters: Mapping[str, str] | None = None) -> ConnectAnswer:
        """Return TwiML: ``<Connect><Stream>``. The URL takes no query; a parameter, 500 characters."""
        parameters = check_parameters(parameters)
        for name, value in parameters.items():
            if len(name) + len(value) > _MAX_PARAMETER:
                raise LocalProtocolError(
                    f"the parameter {clean(name, limit=40)!r} is too long; name and value may have "
                    f"{_MAX_PARAMETER} characters together"
                )
        return stream_answer(check_url(url, query=False), "", parameters)


def _spellings(parts: SplitResult) -> Iterator[str]:
    """Yield the URLs that Twilio may have signed for this one."""
    bare = re.sub(r":\d*$", "", parts.netloc)
    socket = parts.scheme in ("wss", "ws")
    for scheme in (parts.scheme, "https") if socket else (parts.scheme,):
        for netloc in dict.fromkeys((parts.netloc, bare, f"{bare}:{_PORTS.get(scheme, 443)}")):
            spelled = urlunsplit((scheme, netloc, parts.path, parts.query, ""))
            yield spelled
            if socket and not parts.query:
                yield spelled.removesuffix("/") if parts.path.endswith("/") else f"{spelled}/"
