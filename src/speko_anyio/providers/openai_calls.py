"""Phone calls that reach OpenAI over SIP, without I/O.

OpenAI announces a call to your web server by a webhook (`read_webhook`). You accept, reject, transfer or end
it by HTTP requests (`accept_call` and so on make them), and join it by a WebSocket (`call_endpoint`,
`OpenAICallDialect`). The audio runs between the phone line and OpenAI: none of it passes here.
"""

from __future__ import annotations

import base64
import functools
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Unpack
from urllib.parse import quote

import msgspec

from ..protocol.errors import LONE_SURROGATE, LocalProtocolError, SignatureError
from ..protocol.mint import SessionConfig, ToolSpec
from ._endpoint import Endpoint, provider_endpoint
from ._options import checked, merge_extra
from ._provider import DialectOptions
from .openai import (
    FLAVOR,
    SAMPLE_RATE,
    SESSION_SECONDS,
    WHO,
    OpenAIOptions,
    SemanticVad,
    ServerVad,
    configure,
    convert_callable,
    convert_update,
    openai_capabilities,
    turn_rules,
)
from .realtime import RealtimeDialect
from .realtime._events import dig
from .realtime._settings import Configuration
from .realtime._user import TurnRules

__all__ = [
    "CallRequest",
    "IncomingCall",
    "OpenAICallDialect",
    "SipHeader",
    "accept_call",
    "call_endpoint",
    "hang_up_call",
    "read_webhook",
    "refer_call",
    "reject_call",
]

MAX_AGE: Final = 300.0
"""Seconds that a webhook's time may differ from ours, as in OpenAI's own clients."""

_INCOMING: Final = "realtime.call.incoming"

_MAX_SIGNATURES: Final = 16
"""Signatures in one header. There is one for each secret, and a replaced secret lives for a day."""

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - no secret itself

_MAX_CALL_ID: Final = 512
"""Characters of a call's id."""

_DEFAULT_OPTIONS: Final = OpenAIOptions()


# The webhook


class SipHeader(msgspec.Struct, frozen=True):
    """One header of the SIP INVITE that began a call."""

    name: str
    value: str


class IncomingCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that waits to be accepted or rejected. Everything but `call_id` comes from the caller's side."""

    call_id: str
    """OpenAI's id of the call."""
    webhook_id: str = ""
    """The same for each delivery of this event: OpenAI delivers it again if the answer is late or not 2xx."""
    created_at: int = 0
    """When the call came in, in seconds since 1970."""
    sip_headers: tuple[SipHeader, ...] = ()
    """The headers of the SIP INVITE, in order. Anybody can write anything in there."""
    media_security: str | None = None
    """``srtp``, or ``rtp`` for audio without encryption; None if OpenAI does not say."""

    def header(self, name: str) -> str:
        """Return the first SIP header of this name, in any case, or an empty string."""
        wanted = name.lower()
        return next((header.value for header in self.sip_headers if header.name.lower() == wanted), "")

    @property
    def caller(self) -> str:
        """The number or name that the header ``From`` claims; empty if there is none."""
        return _user_of(self.header("from"))

    @property
    def called(self) -> str:
        """The number or name in the header ``To``; empty if there is none."""
        return _user_of(self.header("to"))

    def __repr__(self) -> str:
        # Numbers are personal data.
        return f"IncomingCall(call_id={self.call_id!r}, <{len(self.sip_headers)} SIP headers>)"


_MAX_ADDRESS: Final = 2048
"""Characters of a SIP address that are looked at: the caller may write any number."""

_USER: Final = re.compile(r"sips?:([^@;>\s]{0,256})(?:;[^@>\s]{0,256})?@|tel:([^;>\s]{0,256})", re.IGNORECASE)


def _user_of(address: str) -> str:
    """Return the user part of a SIP address, or the number of a ``tel:`` one (RFC 3261 section 20.20)."""
    found = _USER.search(address, 0, _MAX_ADDRESS)
    return "" if found is None else found[1] or found[2] or ""


class _Data(msgspec.Struct):
    call_id: str
    sip_headers: tuple[SipHeader, ...] = ()
    sip_media_security: str | None = None


class _Event(msgspec.Struct):
    type: str
    created_at: float = 0
    data: msgspec.Raw = msgspec.Raw()


def read_webhook(
    body: bytes, headers: Mapping[str, str], secret: str, *, now: float, max_age: float = MAX_AGE
) -> IncomingCall | None:
    """Check that OpenAI sent a webhook; return the call that it announces, None for any other event.

    - `body`: of the HTTP request, unchanged.
    - `headers`: of the HTTP request; upper and lower case don't matter in their names.
    - `secret`: of the webhook's endpoint, as OpenAI showed it; begins with ``whsec_``.
    - `now`: the time in seconds since 1970, and `max_age` how far the signature's time may be from it.

    Raises `SignatureError` if the request is not signed with this secret (answer it with 401),
    `LocalProtocolError` for an unusable secret. The signature is that of the Standard Webhooks specification.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    webhook_id = fields.get("webhook-id", "")
    timestamp = fields.get("webhook-timestamp", "")
    signatures = fields.get("webhook-signature", "")
    if not (webhook_id and timestamp and signatures):
        raise SignatureError(
            "the webhook lacks webhook-id, webhook-timestamp or webhook-signature, which OpenAI sends; it is "
            "not from OpenAI"
        )
    _check_age(timestamp, now, max_age)
    signed = b".".join((webhook_id.encode(errors="replace"), timestamp.encode(), body))
    right = b"v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256"))
    given = signatures.split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]
    if not any(hmac.compare_digest(one.encode(errors="replace"), right) for one in given):
        raise SignatureError(
            "the webhook's signature does not match; check that the secret is that of this webhook, and pass "
            "the body of the request unchanged"
        )
    return _incoming_call(body, webhook_id)


def _check_age(timestamp: str, now: float, max_age: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        raise SignatureError("webhook-timestamp is not a number of seconds; the webhook is not from OpenAI")
    age = now - int(timestamp)
    if not abs(age) <= max_age:
        raise SignatureError(
            f"the webhook was signed {age:.0f} s ago, and {max_age:.0f} s are allowed; check this machine's "
            "clock"
        )


def _key(secret: str) -> bytes:
    """Return the key that `secret` stands for."""
    if secret in ("", _SECRET_PREFIX):  # with an empty key anybody could sign
        raise LocalProtocolError("OpenAI's webhooks can't be checked without their secret; pass it")
    try:
        if secret.startswith(_SECRET_PREFIX):
            return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        return secret.encode()
    except ValueError:  # also for characters that are not ASCII
        raise LocalProtocolError(
            f"the secret of OpenAI's webhooks is invalid: what follows {_SECRET_PREFIX} must be base64; copy "
            "it again"
        ) from None


def _incoming_call(body: bytes, webhook_id: str) -> IncomingCall | None:
    try:
        event = msgspec.json.decode(body, type=_Event)
        if event.type != _INCOMING:
            return None
        data = msgspec.json.decode(event.data, type=_Data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # Signed by OpenAI, so this version does not know its form. msgspec quotes no values.
        raise SignatureError(
            f"OpenAI's webhook has an unknown form ({error}); upgrade speko-anyio, or read it yourself"
        ) from None
    return IncomingCall(
        call_id=data.call_id,
        webhook_id=webhook_id,
        created_at=int(event.created_at),
        sip_headers=data.sip_headers,
        media_security=data.sip_media_security,
    )


# Requests


class CallRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP POST that acts on a call. A 2xx status means success; its repr shows no secrets."""

    url: str
    headers: tuple[tuple[str, str], ...]
    """All that are needed, including the key."""
    body: bytes = b""
    """JSON; empty for none."""
    secrets: tuple[str, ...] = ()
    """The parts that no error may show, even if OpenAI quotes them."""
    notes: tuple[str, ...] = ()
    """Parameters that OpenAI can't honour, and what became of them; for a log."""

    def __repr__(self) -> str:
        return f"CallRequest(<{self.url.rpartition('/')[2].partition('?')[0]}>, <{len(self.body)} bytes>)"


def accept_call(endpoint: Endpoint, config: SessionConfig, options: OpenAIOptions) -> CallRequest:
    """Return the request that accepts a call and configures the session that answers it.

    `endpoint` is that of `call_endpoint` with ``action="accept"``. `LocalProtocolError` if the configuration
    can't be used. The sample rates of `config` don't apply: OpenAI negotiates the format with the phone line.
    """
    converted = configure(config, options, on_line=True)
    try:
        session = {"model": config.model, **msgspec.to_builtins(converted.session)}
    except TypeError as error:
        raise LocalProtocolError(
            f"the configuration can't be written as JSON: {error}; pass text and plain data"
        ) from None
    return _request(endpoint, merge_extra(session, converted.extra), converted.notes)


def reject_call(endpoint: Endpoint, status_code: int = 603) -> CallRequest:
    """Return the request that rejects a call with a SIP status, by default 603 (Decline)."""
    if type(status_code) is not int or not 300 <= status_code <= 699:
        raise LocalProtocolError(
            f"a call is rejected with a SIP status from 300 to 699, not {status_code!r}; pass for example 486"
        )
    return _request(endpoint, {"status_code": status_code})


def refer_call(endpoint: Endpoint, target_uri: str) -> CallRequest:
    """Return the request that transfers a call to ``tel:+15550100`` or ``sip:agent@example.com``."""
    if not re.match(r"(tel|sips?):[^\s\x00-\x1f]+\Z", target_uri, re.IGNORECASE):
        raise LocalProtocolError(
            "a call is transferred to a tel: or sip: URI without spaces; pass for example tel:+15550100 or "
            "sip:agent@example.com"
        )
    return _request(endpoint, {"target_uri": target_uri})


def hang_up_call(endpoint: Endpoint) -> CallRequest:
    """Return the request that ends a call."""
    return _request(endpoint)


def _request(endpoint: Endpoint, body: Any = None, notes: Sequence[str] = ()) -> CallRequest:
    try:
        content = b"" if body is None else msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise LocalProtocolError(LONE_SURROGATE) from None
    return CallRequest(
        url="http" + endpoint.url.removeprefix("ws"),
        headers=(*endpoint.headers, *((("Content-Type", "application/json"),) if content else ())),
        body=content,
        secrets=endpoint.secrets,
        notes=tuple(notes),
    )


def call_endpoint(
    api_key: str,
    call_id: str,
    action: str | None = None,
    *,
    base_url: str = "wss://api.openai.com/v1",
    path: str = "/realtime",
) -> Endpoint:
    """Return where to join a call by a WebSocket, or where to POST an `action` on it: ``accept`` and so on.

    `base_url` and `path`: see `openai_endpoint`. `LocalProtocolError` for unusable parameters.
    """
    if not call_id or call_id in (".", "..") or len(call_id) > _MAX_CALL_ID:
        raise LocalProtocolError(
            f"a call's id has 1 to {_MAX_CALL_ID} characters; pass the call_id of OpenAI's webhook unchanged"
        )
    try:
        place = quote(call_id, safe="")
    except UnicodeEncodeError:
        raise LocalProtocolError(LONE_SURROGATE) from None
    endpoint = provider_endpoint(
        api_key,
        base_url=base_url,
        path=path if action is None else f"{path}/calls/{place}/{action}",
        query=(("call_id", call_id),) if action is None else (),
        auth="header",
        subprotocols=(),
    )
    advice = "check that the call was accepted and is not over, and that the API key is of its project"
    return msgspec.structs.replace(endpoint, advice=advice)


# The session


def OpenAICallDialect(  # noqa: N802 - to its callers it is a class
    tools: Iterable[ToolSpec] = (),
    *,
    model: str,
    options: OpenAIOptions = _DEFAULT_OPTIONS,
    ttl: float | None = SESSION_SECONDS,
    **session: Unpack[DialectOptions],
) -> RealtimeDialect:
    """Make a session that joins an accepted call over WebSocket messages.

    - `tools`: replace those that the call was accepted with; none leaves them as they are.
    - `model`: the one that answers the call, for `capabilities`.
    - `options`: those of `accept_call`; what OpenAI reports of turns and instructions takes precedence.
    - `ttl`, `session`: see `OpenAIDialect`.

    It works as any session, except that the audio stays between OpenAI and the phone line: no `Audio` comes,
    and `send_audio` raises `LocalProtocolError`. Keys that the user presses are `Digit` frames.
    """
    return RealtimeDialect(
        flavor=FLAVOR,
        configuration=_join(tuple(tools), model, options),
        input_sample_rate=SAMPLE_RATE,
        output_sample_rate=SAMPLE_RATE,
        ttl=ttl,
        **session,
    )


def _join(tools: tuple[ToolSpec, ...], model: str, options: OpenAIOptions) -> Configuration:
    options = checked(options, OpenAIOptions, "OpenAI")
    session: dict[str, Any] = {"type": "realtime"}
    notes: tuple[str, ...] = ()
    if tools:
        session["tools"], notes = convert_callable(tools, options)
    capabilities = openai_capabilities(model)
    return Configuration(
        who=WHO,
        capabilities=msgspec.structs.replace(capabilities, input_rates=(), output_rates=()),
        session=session,
        extra={},
        rules=turn_rules(options),
        instructions="",
        change=lambda update: convert_update(update, options),
        locks_voice=True,
        approval_tool=options.approval_tool,
        line_rules=functools.partial(_reported_rules, options),
        notes=notes,
    )


def _reported_rules(options: OpenAIOptions, audio: Any) -> TurnRules:
    """Return how turns end in the session that OpenAI reports; by `options` where it does not tell."""
    heard = dig(audio, dict, "input")
    if heard is None or "turn_detection" not in heard:
        return turn_rules(options)
    if heard["turn_detection"] is None:
        return turn_rules(msgspec.structs.replace(options, turns="manual"))
    told = {
        name: value for name, value in (dig(heard, dict, "turn_detection") or {}).items() if value is not None
    }
    try:
        detection = msgspec.convert(told, ServerVad | SemanticVad, strict=False)
    except msgspec.ValidationError:
        return turn_rules(msgspec.structs.replace(options, turns="auto"))
    return turn_rules(msgspec.structs.replace(options, turns="auto", turn_detection=detection))
