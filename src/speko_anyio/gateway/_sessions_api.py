"""``GET /v1/sessions`` and ``GET /v1/sessions/{id}``: the records, for keys that may read them."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import anyio
import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from ._authentication import Caller
from ._http_errors import RequestError, invalid, respond, shorten, too_many
from ._node import Node
from ._rate_limiter import RateLimiter
from .store import SessionHistory, SessionQuery, Status, TranscriptLine
from .store._records import iso_time

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
"""Sessions on a page; large metadata ends it earlier."""

REFUSAL_DELAY: Final = 0.25
"""Seconds, or up to twice as many, by which a refusal for too many requests is delayed. Otherwise a client
that repeats its request at once would cost as much as one that gets answers."""

MAX_RESTING: Final = 1000
"""Refusals that are delayed at the same time; further ones are sent at once."""

_UNAVAILABLE: Final = "UNAVAILABLE"
_PARAMETERS: Final = frozenset(
    {"limit", "cursor", "status", "provider", "keyId", "createdFrom", "createdUntil"}
)
_CURSOR: Final = msgspec.json.Decoder(tuple[float, str])
_LINE_CURSOR: Final = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)])

T = TypeVar("T")


class SessionsAPI:
    """Both endpoints."""

    def __init__(self, node: Node, *, limiter: RateLimiter) -> None:
        self._node = node
        self._limiter = limiter
        self._resting = 0

    async def list(self, request: Request) -> Response:
        """Answer with a page of sessions, newest first; never raises."""
        return await _answer(self._page(request))

    async def get(self, request: Request) -> Response:
        """Answer with one session, and a page of its transcript; never raises."""
        return await _answer(self._one(request))

    async def _caller(self, request: Request) -> Caller:
        self._node.availability.check_started(_UNAVAILABLE)  # while draining, records can still be read
        caller = await self._node.authenticator.caller(request, "read", "admin")
        wait = self._limiter.take(caller.key_id, anyio.current_time())
        if wait:
            await self._rest()
            raise too_many("this API key reads too fast; wait as long as Retry-After says", math.ceil(wait))
        return caller

    async def _rest(self) -> None:
        if self._resting < MAX_RESTING:
            self._resting += 1
            try:
                # Different delays, so that clients that came together do not return together.
                await anyio.sleep(REFUSAL_DELAY * (1 + self._resting % 8 / 8))
            finally:
                self._resting -= 1

    async def _page(self, request: Request) -> dict[str, Any]:
        caller = await self._caller(request)
        query = _query(request.query_params, caller)
        now = self._node.now()
        page = await self._node.store.sessions(query, now=now)
        answer: dict[str, Any] = {"sessions": [_summary(history, now) for history in page.sessions]}
        if page.more:
            last = page.sessions[-1].record
            answer["nextCursor"] = _cursor((last.created_at, last.session_id))
        return answer

    async def _one(self, request: Request) -> dict[str, Any]:
        caller = await self._caller(request)
        after = _line_number(request.query_params)
        session_id = request.path_params["session_id"]
        history = await self._node.store.get(session_id, key_id=_only(caller))
        if history is None:
            raise RequestError(
                404, "NOT_FOUND", f"there is no session {shorten(session_id)} that this API key may read"
            )
        answer = _summary(history, self._node.now())
        answer["s2s"] = history.record.config
        page = await self._node.store.transcript(session_id, after=after)
        if page.lines:
            answer["transcript"] = [_line(line) for line in page.lines]
        if page.next is not None:
            answer["nextCursor"] = _cursor(page.next)
        return answer


async def _answer(work: Awaitable[dict[str, Any]]) -> Response:
    return await respond(
        work,
        200,
        what="reading the sessions",
        unavailable_code=_UNAVAILABLE,
        failure=RequestError(500, "INTERNAL", "the gateway failed to read its records; try again later"),
    )


def _only(caller: Caller) -> str | None:
    """Return the key whose sessions the caller may see; None for those of all keys."""
    return None if "admin" in caller.scopes else caller.key_id


def _query(parameters: QueryParams, caller: Caller) -> SessionQuery:
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        raise invalid(
            f"unknown parameter {shorten(unknown[0])}; choose from {', '.join(sorted(_PARAMETERS))}"
        )
    limit = parameters.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 3 and 1 <= int(limit) <= MAX_LIMIT):
        raise invalid(f"limit must be a whole number from 1 to {MAX_LIMIT}")
    status = parameters.get("status")
    if status is not None and status not in {known.value for known in Status}:
        raise invalid(f"status must be one of {', '.join(known.value for known in Status)}")
    key_id = parameters.get("keyId")
    mine = _only(caller)
    if key_id is not None and mine not in {None, key_id}:
        raise RequestError(
            403, "FORBIDDEN", "keyId is another key's; only a key of scope admin may ask for it"
        )
    cursor = parameters.get("cursor")
    return SessionQuery(
        limit=int(limit),
        key_id=key_id if mine is None else mine,
        status=None if status is None else Status(status),
        provider=parameters.get("provider"),
        created_from=_time(parameters, "createdFrom"),
        created_until=_time(parameters, "createdUntil"),
        after=None if cursor is None else _position(cursor, _CURSOR),
    )


def _line_number(parameters: QueryParams) -> int:
    """Return the position in a transcript that the request continues at."""
    cursor = parameters.get("cursor")
    return 0 if cursor is None else _position(cursor, _LINE_CURSOR)


def _time(parameters: QueryParams, name: str) -> float | None:
    text = parameters.get(name)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        # Without a zone it would mean another moment on every machine.
        if time.tzinfo is not None:
            return time.timestamp()
    except (ValueError, OverflowError):
        pass
    raise invalid(f"{name} must be a time in ISO 8601 with its zone, like 2030-01-31T12:00:00Z")


def _cursor(position: tuple[float, str] | int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _position(cursor: str, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, UnicodeError, ValueError, msgspec.DecodeError, RecursionError):
        raise invalid("invalid cursor; pass nextCursor unchanged") from None


def _summary(history: SessionHistory, now: float) -> dict[str, Any]:
    record, life = history.record, history.life
    used: dict[str, Any] = msgspec.to_builtins(life.outcome)
    del used["transcript"]  # comes in pages
    used["close"] = None
    if life.close_code is not None:
        used["close"] = {"code": life.close_code, "reason": life.close_reason, "by": life.closed_by}
    known = {
        "sessionId": record.session_id,
        "status": history.status(now).value,
        "keyId": record.key_id,
        "provider": record.provider,
        "model": record.model,
        "metadata": record.metadata,
        "ttlSeconds": record.ttl_seconds,
        "createdAt": iso_time(record.created_at),
        "startedAt": _iso(life.started_at),
        "endedAt": _iso(life.ended_at),
        **used,
    }
    return {name: value for name, value in known.items() if value is not None}


def _line(line: TranscriptLine) -> dict[str, Any]:
    return {"role": line.role, "text": line.text, "at": iso_time(line.at)}


def _iso(time: float | None) -> str | None:
    return None if time is None else iso_time(time)
