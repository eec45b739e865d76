"""``POST /v1/sessions``: authenticates and checks a mint, records the session, answers with the grant."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from speko_anyio._accounts import PROVIDERS
from speko_anyio._extras import install_extra
from speko_anyio.protocol.mint import (
    DEFAULT_SAMPLE_RATE,
    InvalidRequestError,
    MintRequest,
    SessionConfig,
    SessionGrant,
    decode_request,
)

from ._authentication import Caller
from ._capabilities import capabilities_of
from ._http_errors import CREATE_FAILED, RequestError, invalid, respond, shorten
from ._minting import Minter
from ._node import Node
from ._provider_handler import ProviderHandler
from ._public_url import PublicURL
from ._request_body import read_body
from ._session import Handler
from ._session_handlers import offline_voice_is_installed
from .store import Idempotency, SessionRecord
from .store._records import iso_time

_KEY_VARIABLES: Final = {kind.name: kind.key_variable for kind in PROVIDERS}

MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of an Idempotency-Key; Stripe's limit, which clients know."""


class MintEndpoint:
    """The endpoint; `handlers` are those of the gateway, by the provider's name that clients mint with."""

    def __init__(
        self,
        node: Node,
        *,
        handlers: Mapping[str, Handler],
        minter: Minter,
        public_url: PublicURL,
    ) -> None:
        self._node = node
        self._handlers = handlers
        self._minter = minter
        self._public_url = public_url

    async def post(self, request: Request) -> Response:
        """Answer one mint; never raises."""
        response = await respond(
            self._mint(request),
            201,
            what="minting a session",
            asked="a mint",
            unavailable_code=CREATE_FAILED,
            failure=RequestError(500, CREATE_FAILED, "the gateway failed to create the session"),
        )
        self._node.instrumentation.minted(response.status_code)
        return response

    async def _mint(self, request: Request) -> SessionGrant:
        availability = self._node.availability
        availability.check_started(
            CREATE_FAILED
        )  # before authentication: the key store is not running either
        caller = await self._authenticate(request)
        self._minter.check_room()
        idempotency_key = request.headers.get("idempotency-key")
        if idempotency_key is not None and not 0 < len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
            raise invalid(f"the Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters")
        ws_base = self._public_url.ws_base(request)
        body = await read_body(request)
        asked = self._parse(body)
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(caller.key_id, idempotency_key, hashlib.sha256(body).digest())
        record = await self._minter.create(
            caller.key_id,
            asked.s2s,
            asked.metadata,
            ttl_seconds=asked.ttl_seconds,
            idempotency=idempotency,
            limits=caller.limits,
        )
        return self._grant(record, ws_base)

    async def _authenticate(self, request: Request) -> Caller:
        caller = await self._node.authenticator.caller(request, "mint")
        self._minter.check_rate(caller.key_id, "this API key")
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
        return SessionGrant(
            session_id=record.session_id,
            ws_url=f"{ws_base}/v1/realtime/{record.session_id}",
            ws_token=self._minter.token(record),
            expires_at=iso_time(record.token_expires_at, "seconds"),
            input_sample_rate=record.config.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=record.config.output_sample_rate or DEFAULT_SAMPLE_RATE,
        )


def _can_write(handler: Handler, config: SessionConfig) -> bool:
    able = capabilities_of(handler, config)
    return able is not None and able.text_output


def _how_to_serve(provider: str) -> str:
    if provider == "local" and not offline_voice_is_installed():
        return f". For the offline voice {install_extra('local')}"
    variable = _KEY_VARIABLES.get(provider)
    return "" if variable is None else f"; `speko-anyio serve` adds {provider} where {variable} is set"
