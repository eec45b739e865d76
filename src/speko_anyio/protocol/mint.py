"""Minting a session: the JSON bodies of ``POST /v1/sessions`` (speko-protocol, section 1), for both ends.

Pure data: the client sends these over httpx and the gateway answers them; any other program may do either.
Absent optionals are omitted, never sent as null; unknown fields are ignored.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

import msgspec

from ._codec import MalformedMessage, check_depth, mend_escapes
from ._commands import ToolSpec as ToolSpec

SampleRate: TypeAlias = Literal[16000, 24000]
"""The PCM16 mono rates a session can have, in samples a second."""

DEFAULT_SAMPLE_RATE: SampleRate = 24000

MAX_TTL_SECONDS = 1800
"""The most seconds a session may last; a server reduces larger requests to it."""


class SessionConfig(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=False
):
    """The configuration of a session: the ``s2s`` part of the request."""

    provider: str
    """``openai``, ``google``, ``xai``; a gateway may know more, such as ``local``."""
    model: str
    voice: str | None = None
    system_prompt: str | None = None
    temperature: float | None = None
    input_sample_rate: SampleRate | None = None
    output_sample_rate: SampleRate | None = None
    tools: tuple[ToolSpec, ...] = ()
    output: Literal["audio", "text"] | None = None
    """Whether the assistant answers in speech (None means that, too) or only in text. An extension."""


T = TypeVar("T")


class Kept(Generic[T]):
    """What a mint asked for, for as long as its session lasts: as JSON if it is large.

    As objects, tools and metadata take up to 22 times as much memory, and the client chooses them.
    """

    __slots__ = ("_encoded", "_kind", "_value")

    def __init__(self, value: T, kind: type[T]) -> None:
        self._kind = kind
        self._value: T | None = value
        self._encoded = b""
        try:
            encoded = msgspec.json.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return  # not from a mint, and not JSON: keep the objects
        if len(encoded) > _LARGE:
            self._value = None
            self._encoded = encoded

    def get(self) -> T:
        """Return it; a large one is decoded each time."""
        if self._encoded:
            return msgspec.json.decode(self._encoded, type=self._kind)
        return cast("T", self._value)


_LARGE: Final = 2048
"""Bytes of JSON."""


class MintRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The body of ``POST /v1/sessions``."""

    mode: Literal["s2s"]
    s2s: SessionConfig
    metadata: dict[str, Any] | None = None
    ttl_seconds: int | None = None
    agent_id: str | None = None
    webhook_tags: dict[str, str] | None = None


MAX_REQUEST_DEPTH: Final = 128
"""Nesting of a request; schemas of tools have a dozen levels. The decoder recurses on the stack, and an
accepted request must be readable again when it is listed, deeper in the stack and inside other objects."""

_REQUEST: Final = msgspec.json.Decoder(MintRequest)


class InvalidRequestError(ValueError):
    """A body that is not a `MintRequest`; the text says what is wrong, and shows none of its values."""


def decode_request(body: bytes) -> MintRequest:
    """Decode the body of ``POST /v1/sessions`` as a server does; raises `InvalidRequestError`.

    It accepts a byte order mark, half of a surrogate pair, which becomes U+FFFD, and a whole number that is
    written 60.0 (JSON Schema 2020-12, section 4.2.3).
    """
    try:
        # Editors leave a byte order mark; clients that cut UTF-16 text leave half of a surrogate pair.
        text = mend_escapes(body.decode("utf-8-sig"))
        check_depth(text, MAX_REQUEST_DEPTH)
        request = _decode_with_floats(text)
    except msgspec.ValidationError as error:
        # msgspec names the field and the type; it shows the value of an enum only.
        hint = "; it must be 16000 or 24000" if "SampleRate`" in str(error) else ""
        raise InvalidRequestError(f"the request is not valid: {error}{hint}") from None
    except (msgspec.DecodeError, UnicodeError):
        raise InvalidRequestError("the request's body is not JSON") from None
    except MalformedMessage:
        raise InvalidRequestError(
            f"the request's body is nested too deeply; {MAX_REQUEST_DEPTH} levels are the limit"
        ) from None
    if not request.s2s.model:
        raise InvalidRequestError("the request is not valid: `$.s2s.model` is empty; name a model")
    if request.ttl_seconds is not None and request.ttl_seconds < 1:
        raise InvalidRequestError("the request is not valid: `$.ttlSeconds` must be 1 or more")
    return request


def _decode_with_floats(text: str) -> MintRequest:
    try:
        return _REQUEST.decode(text)
    except msgspec.ValidationError:
        fields = msgspec.json.decode(text)
        if not isinstance(fields, dict):
            raise
        found = [_made_whole(fields, "ttlSeconds")]
        if isinstance(config := fields.get("s2s"), dict):
            found += [_made_whole(config, "inputSampleRate"), _made_whole(config, "outputSampleRate")]
        if not any(found):
            raise
        return msgspec.convert(fields, MintRequest)


def _made_whole(fields: dict[str, Any], name: str) -> bool:
    """Convert a float that is a whole number to int; return whether it was one."""
    value = fields.get(name)
    if not isinstance(value, float) or not value.is_integer():
        return False
    fields[name] = int(value)
    return True


class SessionGrant(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer: where to connect, and with which token. Hand it to the program that opens the session."""

    session_id: str
    ws_url: str
    ws_token: str
    expires_at: str
    """ISO 8601; until then the token opens the session."""
    input_sample_rate: int = 0
    """0 in older answers: then the requested rate applies, or else 24000."""
    output_sample_rate: int = 0
    mode: Literal["s2s"] = "s2s"

    def __repr__(self) -> str:
        return f"SessionGrant(session_id={self.session_id!r}, ws_token='***', expires_at={self.expires_at!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("session_id", self.session_id), ("expires_at", self.expires_at)]


class Credential(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The credential for one session at a provider."""

    kind: Literal["bearer"]
    value: str
    expires_at: str = ""

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind!r}, value='***', expires_at={self.expires_at!r})"


class TelemetryTarget(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where to report the progress of a session with a provider."""

    endpoint: str
    token: str
    flush_interval_ms: int = 5000

    def __repr__(self) -> str:
        return f"TelemetryTarget(endpoint={self.endpoint!r}, token='***')"


class Reservation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The resources reserved for a session."""

    authorized_duration_seconds: int
    """How long it may last."""


class ProviderParameters(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The session's configuration, as the service resolved it."""

    voice: str | None = None
    instructions: str | None = None
    temperature: float | None = None
    tools: tuple[ToolSpec, ...] | None = None


class ProviderGrant(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The other answer: a session straight with the provider, on the service's account."""

    transport: Literal["provider_direct"]
    session_id: str
    provider: str
    model: str
    adapter: str
    """The protocol that the provider speaks, such as ``xai.realtime.v1``."""
    provider_transport: str
    """``websocket`` or ``webrtc``."""
    endpoint: str
    """Where the provider is: a URL with its path."""
    credential: Credential
    expires_at: str = ""
    """ISO 8601; until then the credential opens the session."""
    attempt_id: str = ""
    """The session's id in telemetry."""
    telemetry: TelemetryTarget | None = None
    reservation: Reservation | None = None
    session: ProviderParameters | None = None
    input_sample_rate: int = 0
    """0: the requested rate applies, or else 24000."""
    output_sample_rate: int = 0
    mode: Literal["s2s"] = "s2s"


class APIErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error of the HTTP API."""

    error: str
    code: str
