"""Creates the records of sessions and their tokens: for the mint, and for phone calls."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Any

import anyio

from speko_anyio.protocol.mint import MAX_TTL_SECONDS, SessionConfig

from ._http_errors import CREATE_FAILED, RequestError, too_many, unavailable
from ._node import Node
from ._rate_limiter import RateLimiter
from ._session_tokens import Claims
from ._stream import FULL
from .store import Idempotency, IdempotencyError, KeyLimits, LimitError, SessionRecord, StoreFullError


class Minter:
    """Creates records as long as the node has room, and none faster than `limiter` allows for a key.

    - `token_lifetime`: seconds in which a session must be opened.
    - `full`: whether the node has as many sessions as it can serve.
    """

    def __init__(
        self, node: Node, *, limiter: RateLimiter, token_lifetime: int, full: Callable[[], bool]
    ) -> None:
        self._node = node
        self._limiter = limiter
        self._token_lifetime = token_lifetime
        self._full = full

    def check_room(self) -> None:
        """Raise `RequestError` if the node takes no sessions now."""
        self._node.availability.check_accepting()
        if self._full():
            raise unavailable(CREATE_FAILED, FULL)

    def check_rate(self, key_id: str, who: str) -> None:
        """Count one mint of this key; raise `RequestError` if that is too fast. `who` is named in it."""
        wait = self._limiter.take(key_id, anyio.current_time())
        if wait:
            raise too_many(f"{who} mints too fast; wait as long as Retry-After says", math.ceil(wait))

    async def create(
        self,
        key_id: str,
        config: SessionConfig,
        metadata: dict[str, Any] | None,
        *,
        ttl_seconds: int | None,
        idempotency: Idempotency | None,
        limits: KeyLimits,
    ) -> SessionRecord:
        """Return the record of a new session, or the one of the same request before.

        Raises `RequestError`, and what the store raises besides its limits.
        """
        now = self._node.now()
        record = SessionRecord(
            session_id=f"sess_{secrets.token_urlsafe(16)}",
            key_id=key_id,
            token_id=secrets.token_urlsafe(16),
            config=config,
            metadata=metadata,
            ttl_seconds=min(ttl_seconds or MAX_TTL_SECONDS, MAX_TTL_SECONDS),
            created_at=now,
            token_expires_at=math.ceil(now) + self._token_lifetime,
        )
        try:
            return await self._node.store.create(record, idempotency=idempotency, limits=limits, now=now)
        except IdempotencyError as error:
            raise RequestError(409, "IDEMPOTENCY_KEY_REUSED", str(error)) from None
        except LimitError as error:
            raise too_many(str(error), math.ceil(error.retry_after)) from None
        except StoreFullError as error:
            raise unavailable(CREATE_FAILED, str(error)) from None

    def token(self, record: SessionRecord) -> str:
        """Return the token that opens the session of `record`, once."""
        return self._node.signer.sign(Claims(record.session_id, record.token_id, record.token_expires_at))
