"""Who asks: the API key of a request, and what it may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from .http_errors import RequestError
from .key_lookup import KeyLookup
from .keys import APIKeys, bearer
from .store import KeyLimits, Scope
from .store.records import NO_LIMITS

if TYPE_CHECKING:
    from starlette.requests import Request

    from .store import SessionStore

_CONFIGURED: Final[tuple[Scope, ...]] = ("mint", "read")
"""What the keys of the configuration may do; they have no limits of their own."""


class Caller(msgspec.Struct, frozen=True):
    """A known key."""

    key_id: str
    scopes: tuple[Scope, ...]
    limits: KeyLimits


class Access:
    """Knows the keys of the configuration and those of the store."""

    def __init__(self, configured: APIKeys, store: SessionStore) -> None:
        self._configured = configured
        self._stored = KeyLookup(store)

    async def caller(self, request: Request, *scopes: Scope) -> Caller:
        """Whose key the request has; `RequestError` when it is not known, or may do none of `scopes`, or when
        too many keys are being looked up."""
        authorization = request.headers.get("authorization")
        caller = self._configured_caller(authorization) or await self._stored_caller(authorization)
        if caller is None:
            raise RequestError(
                401,
                "UNAUTHORIZED",
                "the API key is missing or not valid; send it as Authorization: Bearer <api key>",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not any(scope in caller.scopes for scope in scopes):
            raise RequestError(
                403,
                "FORBIDDEN",
                f"this API key has not the scope {' or '.join(scopes)}; use one that has",
            )
        return caller

    def _configured_caller(self, authorization: str | None) -> Caller | None:
        key_id = self._configured.identify(authorization)
        return None if key_id is None else Caller(key_id, _CONFIGURED, NO_LIMITS)

    async def _stored_caller(self, authorization: str | None) -> Caller | None:
        stored = await self._stored.find(bearer(authorization))
        return None if stored is None else Caller(stored.key_id, stored.scopes, stored.limits)
