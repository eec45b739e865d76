"""``POST /v1/sessions``: authenticates and checks a mint, records the session, answers with the grant."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import Response

from speko_anyio._accounts import PROVIDERS
from speko_anyio.protocol.errors import LocalProtocolError
from speko_anyio.protocol.mint import (
    DEFAULT_SAMPLE_RATE,
    MAX_TTL_SECONDS,
    InvalidRequestError,
    MintRequest,
    SessionConfig,
    SessionGrant,
    decode_request,
)
from speko_anyio.protocol.url import parse_url

from ._authentication import Caller
from ._capabilities import capabilities_of
from ._http_errors import (
    CREATE_FAILED,
    RequestError,
    invalid,
    log_refusal,
    respond,
    shorten,
    too_many,
    unavailable,
)
from ._node import Node
from ._provider_handler import ProviderHandler
from ._rate_limiter import RateLimiter
from ._session import Handler
from ._session_tokens import Claims
from ._stream import FULL
from .store import Idempotency, IdempotencyError, LimitError, SessionRecord, StoreFullError
from .store._records import iso_time

logger: logging.Logger = logging.getLogger("speko_anyio.gateway")

_KEY_VARIABLES: Final = {kind.name: kind.key_variable for kind in PROVIDERS}

MAX_BODY: Final = 64 * 1024
"""Bytes of a mint's body: room for a long prompt and dozens of tools. Decoded it may be 22 times as large."""

BODY_TIMEOUT: Final = 10.0
"""Seconds in which a mint's body must arrive."""

MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of an Idempotency-Key; Stripe's limit, which clients know."""

_WS_SCHEMES: Final = {"http": "ws", "https": "wss"}


class MintEndpoint:
    """The endpoint; `handlers` are those of the gateway, by the provider's name that clients mint with."""

    def __init__(
        self,
        node: Node,
        *,
        handlers: Mapping[str, Handler],
        limiter: RateLimiter,
        token_lifetime: int,
        public_url: str | None,
        full: Callable[[], bool],
    ) -> None:
        self._node = node
        self._handlers = handlers
        self._limiter = limiter
        self._token_lifetime = token_lifetime
        self._public_base = None if public_url is None else _ws_base(public_url)
        self._full = full

    async def post(self, request: Request) -> Response:
        """Answer one mint; never raises."""
        response = await respond(
            self._logged(request),
            201,
            logger=logger,
            what="minting a session",
            unavailable_code=CREATE_FAILED,
            failure=RequestError(500, CREATE_FAILED, "the gateway failed to create the session"),
        )
        self._node.instrumentation.minted(response.status_code)
        return response

    async def _logged(self, request: Request) -> SessionGrant:
        try:
            return await self._mint(request)
        except RequestError as refusal:
            log_refusal(logger, "a mint", refusal)
            raise

    async def _mint(self, request: Request) -> SessionGrant:
        availability = self._node.availability
        availability.check_started(
            CREATE_FAILED
        )  # before authentication: the key store is not running either
        caller = await self._authenticate(request)
        availability.check_accepting()
        if self._full():
            raise unavailable(CREATE_FAILED, FULL)
        idempotency_key = request.headers.get("idempotency-key")
        if idempotency_key is not None and not 0 < len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
            raise invalid(f"the Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters")
        ws_base = self._public_base or _own_ws_base(request)
        body = await _read_body(request)
        asked = self._parse(body)
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(caller.key_id, idempotency_key, hashlib.sha256(body).digest())
        now = self._node.now()
        record = SessionRecord(
            session_id=f"sess_{secrets.token_urlsafe(16)}",
            key_id=caller.key_id,
            token_id=secrets.token_urlsafe(16),
            config=asked.s2s,
            metadata=asked.metadata,
            ttl_seconds=min(asked.ttl_seconds or MAX_TTL_SECONDS, MAX_TTL_SECONDS),
            created_at=now,
            token_expires_at=math.ceil(now) + self._token_lifetime,
        )
        try:
            record = await self._node.store.create(
                record, idempotency=idempotency, limits=caller.limits, now=now
            )
        except IdempotencyError as error:
            raise RequestError(409, "IDEMPOTENCY_KEY_REUSED", str(error)) from None
        except LimitError as error:
            raise too_many(str(error), math.ceil(error.retry_after)) from None
        except StoreFullError as error:
            raise unavailable(CREATE_FAILED, str(error)) from None
        return self._grant(record, ws_base)

    async def _authenticate(self, request: Request) -> Caller:
        caller = await self._node.authenticator.caller(request, "mint")
        wait = self._limiter.take(caller.key_id, anyio.current_time())
        if wait:
            raise too_many("this API key mints too fast; wait as long as Retry-After says", math.ceil(wait))
        return caller

    def _parse(self, body: bytes) -> MintRequest:
        try:
            asked = decode_request(body)
        except InvalidRequestError as error:
            raise invalid(shorten(str(error))) from None
        handler = self._handlers.get(asked.s2s.provider)
        if handler is None:
            raise invalid(
                f"the request is not valid: unknown provider at `$.s2s.provider`; "
                f"this gateway serves {', '.join(sorted(self._handlers))}{_how_to_serve(asked.s2s.provider)}"
            )
        if isinstance(handler, ProviderHandler):
            refusal = handler.why_not(asked.s2s, asked.metadata)
            if refusal is not None:
                raise invalid(f"the request is not valid: {shorten(refusal)}")
        if asked.s2s.output == "text" and not _can_write(handler, asked.s2s):
            raise invalid(
                f"the request is not valid: {asked.s2s.provider} can't answer in text only; "
                "leave out `$.s2s.output`"
            )
        return asked

    def _grant(self, record: SessionRecord, ws_base: str) -> SessionGrant:
        token = self._node.signer.sign(Claims(record.session_id, record.token_id, record.token_expires_at))
        return SessionGrant(
            session_id=record.session_id,
            ws_url=f"{ws_base}/v1/realtime/{record.session_id}",
            ws_token=token,
            expires_at=iso_time(record.token_expires_at, "seconds"),
            input_sample_rate=record.config.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=record.config.output_sample_rate or DEFAULT_SAMPLE_RATE,
        )


def _ws_base(url: str) -> str:
    """Return the WebSocket URL of the HTTP base URL `url`, without a slash at its end.

    Raises ValueError if `url` is not a URL that a path can be added to.
    """
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
    """Return the WebSocket base URL under which the client reached us."""
    try:
        return _ws_base(f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}")
    except ValueError:
        raise invalid(
            "the gateway can't tell its URL from this request; send its host name as Host"
        ) from None


async def _read_body(request: Request) -> bytes:
    try:
        with anyio.fail_after(BODY_TIMEOUT):
            return await _collect_body(request)
    except TimeoutError:
        raise RequestError(
            408,
            "REQUEST_TIMEOUT",
            f"the request's body did not come within {BODY_TIMEOUT:g} seconds; send it at once",
            # Close the connection: the rest of the body must not be read as another request.
            headers={"Connection": "close"},
        ) from None


async def _collect_body(request: Request) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                raise RequestError(
                    413, "PAYLOAD_TOO_LARGE", f"the request's body has more than {MAX_BODY} bytes; shorten it"
                )
    return bytes(body)


def _can_write(handler: Handler, config: SessionConfig) -> bool:
    able = capabilities_of(handler, config)
    return able is not None and able.text_output


def _how_to_serve(provider: str) -> str:
    variable = _KEY_VARIABLES.get(provider)
    return "" if variable is None else f"; `speko-anyio serve` adds {provider} where {variable} is set"
