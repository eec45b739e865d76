"""``POST /v1/sessions``: who asks, whether the request makes sense, a record, and the grant."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Collection
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import anyio
import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from speko_anyio.protocol.errors import LocalProtocolError
from speko_anyio.protocol.mint import DEFAULT_SAMPLE_RATE, MAX_TTL_SECONDS, MintRequest, SessionGrant
from speko_anyio.protocol.url import parse_url

from .asgi import error_body
from .keys import APIKeys, RateLimiter
from .store import Idempotency, IdempotencyError, SessionRecord, SessionStore, StoreFullError
from .tokens import Claims, TokenSigner

logger = logging.getLogger(__name__)

MAX_BODY: Final = 64 * 1024
"""Bytes of a mint's body: room for a long prompt and dozens of tools. Decoded it may be 22 times as large."""

BODY_TIMEOUT: Final = 10.0
"""Seconds in which a mint's body must have come."""

_MAX_ECHO: Final = 200
"""Characters of a message that may show what the client sent."""

MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of an Idempotency-Key; Stripe's limit, which clients know."""

BUSY_RETRY: Final = 5
"""Seconds after which a client may try again when the gateway can't serve it now."""

_WS_SCHEMES: Final = {"http": "ws", "https": "wss"}
_DECODER: Final = msgspec.json.Decoder(MintRequest)


class MintError(Exception):
    """A mint that is refused: the documented error, as an exception on its way to the response."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def shorten(message: str) -> str:
    """A message of at most 200 characters, cut in its middle: msgspec's end with the field they are about."""
    half = _MAX_ECHO // 2
    return message if len(message) <= _MAX_ECHO else f"{message[:half]}…{message[1 - half :]}"


def error_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of the HTTP API: ``{"error", "code"}``."""
    return Response(error_body(code, message), status, headers, "application/json")


class Mint:
    """The endpoint. `accepting` says whether new sessions are taken; `now` gives seconds since the epoch."""

    def __init__(
        self,
        *,
        providers: Collection[str],
        keys: APIKeys,
        limiter: RateLimiter,
        signer: TokenSigner,
        store: SessionStore,
        token_lifetime: int,
        public_url: str | None,
        accepting: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._providers = providers
        self._keys = keys
        self._limiter = limiter
        self._signer = signer
        self._store = store
        self._token_lifetime = token_lifetime
        self._public_base = None if public_url is None else _ws_base(public_url)
        self._accepting = accepting
        self._now = now

    async def post(self, request: Request) -> Response:
        """Answer one mint; never raises."""
        try:
            grant = await self._mint(request)
        except MintError as refusal:
            return error_response(refusal.status, refusal.code, str(refusal), refusal.headers)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            logger.exception("minting a session failed")
            return error_response(500, "SESSION_CREATE_FAILED", "the gateway failed to create the session")
        return Response(msgspec.json.encode(grant), 201, media_type="application/json")

    async def _mint(self, request: Request) -> SessionGrant:
        key_id = self._authenticate(request)
        if not self._accepting():
            raise _unavailable("the gateway is shutting down; connect to another one")
        idempotency_key = request.headers.get("idempotency-key")
        if idempotency_key is not None and not 0 < len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
            raise _invalid(f"the Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters")
        ws_base = self._public_base or _own_ws_base(request)
        body = await _read_body(request)
        asked = self._parse(body)
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(key_id, idempotency_key, hashlib.sha256(body).digest())
        now = self._now()
        record = SessionRecord(
            session_id=f"sess_{secrets.token_urlsafe(16)}",
            key_id=key_id,
            token_id=secrets.token_urlsafe(16),
            config=asked.s2s,
            metadata=asked.metadata,
            ttl_seconds=min(asked.ttl_seconds or MAX_TTL_SECONDS, MAX_TTL_SECONDS),
            created_at=now,
            token_expires_at=math.ceil(now) + self._token_lifetime,
        )
        try:
            record = await self._store.create(record, idempotency=idempotency, now=now)
        except IdempotencyError as error:
            raise MintError(409, "IDEMPOTENCY_KEY_REUSED", str(error)) from None
        except StoreFullError as error:
            raise _unavailable(str(error)) from None
        return self._grant(record, ws_base)

    def _authenticate(self, request: Request) -> str:
        key_id = self._keys.identify(request.headers.get("authorization"))
        if key_id is None:
            raise MintError(
                401,
                "UNAUTHORIZED",
                "the API key is missing or wrong; send it as Authorization: Bearer <api key>",
                headers={"WWW-Authenticate": "Bearer"},
            )
        wait = self._limiter.take(key_id, anyio.current_time())
        if wait:
            raise MintError(
                429,
                "RATE_LIMITED",
                "this API key mints too fast; wait as long as Retry-After says",
                headers={"Retry-After": str(math.ceil(wait))},
            )
        return key_id

    def _parse(self, body: bytes) -> MintRequest:
        try:
            asked = _DECODER.decode(body)
        except msgspec.ValidationError as error:
            # msgspec names the field and the type it has, but of the value only an enum's.
            hint = "; it must be 16000 or 24000" if "SampleRate`" in str(error) else ""
            raise _invalid(f"the request is not valid: {shorten(str(error))}{hint}") from None
        except (msgspec.DecodeError, UnicodeError):
            raise _invalid("the request's body is not JSON") from None
        except RecursionError:
            raise _invalid("the request's body is nested too deeply") from None
        if asked.s2s.provider not in self._providers:
            raise _invalid(
                f"the request is not valid: unknown provider at `$.s2s.provider`; "
                f"this gateway serves {', '.join(sorted(self._providers))}"
            )
        if not asked.s2s.model:
            raise _invalid("the request is not valid: `$.s2s.model` is empty; name a model")
        if asked.ttl_seconds is not None and asked.ttl_seconds < 1:
            raise _invalid("the request is not valid: `$.ttlSeconds` must be 1 or more")
        return asked

    def _grant(self, record: SessionRecord, ws_base: str) -> SessionGrant:
        token = self._signer.sign(Claims(record.session_id, record.token_id, record.token_expires_at))
        expires_at = datetime.fromtimestamp(record.token_expires_at, UTC)
        return SessionGrant(
            session_id=record.session_id,
            ws_url=f"{ws_base}/v1/realtime/{record.session_id}",
            ws_token=token,
            expires_at=expires_at.isoformat().replace("+00:00", "Z"),
            input_sample_rate=record.config.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=record.config.output_sample_rate or DEFAULT_SAMPLE_RATE,
        )


def _ws_base(url: str) -> str:
    """The WebSocket URL, without a path's end, of what is reached by HTTP at `url`; ValueError when that is
    no URL to which a path can be added."""
    scheme, _, rest = url.partition("://")
    base = f"{_WS_SCHEMES.get(scheme, '')}://{rest.rstrip('/')}"
    try:
        parse_url(base)
        if "?" in base or "#" in base:
            raise LocalProtocolError("a path can't be added to a query or a fragment")
    except LocalProtocolError:
        raise ValueError(
            "public_url is not a URL of http:// or https:// with a host, and no query or fragment; pass the "
            "one that clients connect to"
        ) from None
    return base


def _own_ws_base(request: Request) -> str:
    """The same as the client reached us."""
    try:
        return _ws_base(f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}")
    except ValueError:
        raise _invalid(
            "the gateway can't tell its URL from this request; send its host name as Host"
        ) from None


def _invalid(message: str) -> MintError:
    return MintError(400, "VALIDATION_ERROR", message)


def _unavailable(message: str) -> MintError:
    return MintError(503, "SESSION_CREATE_FAILED", message, headers={"Retry-After": str(BUSY_RETRY)})


async def _read_body(request: Request) -> bytes:
    try:
        with anyio.fail_after(BODY_TIMEOUT):
            return await _collect_body(request)
    except TimeoutError:
        raise MintError(
            408,
            "REQUEST_TIMEOUT",
            f"the request's body did not come within {BODY_TIMEOUT:g} seconds; send it at once",
            # What may still come of the body is nobody's next request.
            headers={"Connection": "close"},
        ) from None


async def _collect_body(request: Request) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                raise MintError(
                    413, "PAYLOAD_TOO_LARGE", f"the request's body has more than {MAX_BODY} bytes; shorten it"
                )
    return bytes(body)
