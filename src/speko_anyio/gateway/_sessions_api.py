"""``GET /v1/sessions`` and ``GET /v1/sessions/{id}``: the records, for keys that may read them."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Final

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from ._authentication import Caller
from ._http_errors import RequestError, invalid, respond, shorten
from ._node import Node
from .store import SessionHistory, SessionQuery, Status, TranscriptLine
from .store._records import iso_time

logger: logging.Logger = logging.getLogger("speko_anyio.gateway")

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
"""Sessions on a page; each may hold its metadata, 64 KiB."""

_UNAVAILABLE: Final = "UNAVAILABLE"
_PARAMETERS: Final = frozenset(
    {"limit", "cursor", "status", "provider", "keyId", "createdFrom", "createdUntil"}
)
_CURSOR: Final = msgspec.json.Decoder(tuple[float, str])


class SessionsAPI:
    """Both endpoints."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def list(self, request: Request) -> Response:
        """Answer with a page of sessions, newest first; never raises."""
        return await _answer(self._page(request))

    async def get(self, request: Request) -> Response:
        """Answer with one session and everything known of it; never raises."""
        return await _answer(self._one(request))

    async def _caller(self, request: Request) -> Caller:
        self._node.availability.check_started(_UNAVAILABLE)  # while draining, records can still be read
        return await self._node.authenticator.caller(request, "read", "admin")

    async def _page(self, request: Request) -> dict[str, Any]:
        caller = await self._caller(request)
        query = _query(request.query_params, caller)
        now = self._node.now()
        # One more than asked for shows whether there is another page.
        one_more = msgspec.structs.replace(query, limit=query.limit + 1)
        found = await self._node.store.sessions(one_more, now=now)
        page = found[: query.limit]
        answer: dict[str, Any] = {"sessions": [_summary(history, now) for history in page]}
        if len(found) > len(page):
            last = page[-1].record
            answer["nextCursor"] = _cursor(last.created_at, last.session_id)
        return answer

    async def _one(self, request: Request) -> dict[str, Any]:
        caller = await self._caller(request)
        session_id = request.path_params["session_id"]
        history = await self._node.store.get(session_id, key_id=_only(caller))
        if history is None:
            raise RequestError(
                404, "NOT_FOUND", f"there is no session {shorten(session_id)} that this API key may read"
            )
        answer = _summary(history, self._node.now())
        answer["s2s"] = history.record.config
        lines = await self._node.store.transcript(session_id)
        if lines:
            answer["transcript"] = [_line(line) for line in lines]
        return answer


async def _answer(work: Awaitable[dict[str, Any]]) -> Response:
    return await respond(
        work,
        200,
        logger=logger,
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
        after=None if cursor is None else _position(cursor),
    )


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


def _cursor(created_at: float, session_id: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((created_at, session_id))).decode().rstrip("=")


def _position(cursor: str) -> tuple[float, str]:
    try:
        return _CURSOR.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, UnicodeError, ValueError, msgspec.DecodeError, RecursionError):
        raise invalid("invalid cursor; pass nextCursor unchanged") from None


def _summary(history: SessionHistory, now: float) -> dict[str, Any]:
    record, life = history.record, history.life
    outcome = life.outcome
    known: dict[str, Any] = {
        "sessionId": record.session_id,
        "status": history.status(now).value,
        "keyId": record.key_id,
        "provider": record.config.provider,
        "model": record.config.model,
        "metadata": record.metadata,
        "ttlSeconds": record.ttl_seconds,
        "createdAt": iso_time(record.created_at),
        "startedAt": _iso(life.started_at),
        "endedAt": _iso(life.ended_at),
        "close": None,
        "inputAudioSeconds": outcome.input_audio_seconds,
        "outputAudioSeconds": outcome.output_audio_seconds,
        "inputAudioTokens": outcome.input_audio_tokens,
        "outputAudioTokens": outcome.output_audio_tokens,
        "timeToFirstAudioSeconds": outcome.time_to_first_audio,
        "toolCalls": outcome.tool_calls,
    }
    if life.close_code is not None:
        known["close"] = {"code": life.close_code, "reason": life.close_reason, "by": life.closed_by}
    return {name: value for name, value in known.items() if value is not None}


def _line(line: TranscriptLine) -> dict[str, Any]:
    return {"role": line.role, "text": line.text, "at": iso_time(line.at)}


def _iso(time: float | None) -> str | None:
    return None if time is None else iso_time(time)
