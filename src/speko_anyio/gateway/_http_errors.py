"""The errors of the HTTP API: as exceptions, and as the responses that clients get."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from speko_anyio.protocol import close_codes
from speko_anyio.protocol._text import clean
from speko_anyio.protocol._tokens import REDACTED, redact
from speko_anyio.protocol.frames import ErrorFrame
from speko_anyio.protocol.mint import APIErrorBody

from .store import StoreError
from .store._key_limits import BUSY_RETRY

logger: Final = logging.getLogger("speko_anyio.gateway")

CREATE_FAILED: Final = "SESSION_CREATE_FAILED"
"""The code of every refusal to make or to open a session that is not the client's fault."""

_MAX_ECHO: Final = 200
"""Characters of a message that may show what the client sent."""


_QUOTED: Final = re.compile(r"(?<!\w)'.*'(?!\w)", re.DOTALL)


class RequestError(Exception):
    """A request that is refused, with the documented error.

    - `status`, `code`, `headers`: of the HTTP response.
    - `close_code`: closes a WebSocket whose client can't see the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        close_code: int = close_codes.POLICY,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers
        self.close_code = close_code

    @property
    def body(self) -> bytes:
        """The JSON of every error of the HTTP API (speko-protocol, section 1)."""
        return msgspec.json.encode(APIErrorBody(error=str(self), code=self.code))

    @property
    def frame(self) -> ErrorFrame:
        """The message that a web page gets instead, over a WebSocket that is then closed."""
        return ErrorFrame(self.code, str(self))

    @property
    def response(self) -> Response:
        """What the client gets."""
        return Response(self.body, self.status, self.headers, "application/json")


async def respond(
    work: Awaitable[Any],
    status: int,
    *,
    what: str,
    asked: str | None = None,
    unavailable_code: str,
    failure: RequestError,
) -> Response:
    """Return the result of `work`, as JSON unless it is a response; or the documented error.

    `what` names the work in the log, and `asked` what is refused there, None for refusals that are not
    logged. The client gets `failure` for an unexpected error.
    """
    try:
        result = await work
        if isinstance(result, Response):
            return result
        return Response(msgspec.json.encode(result), status, media_type="application/json")
    except RequestError as refusal:
        if asked is not None:
            log_refusal(asked, refusal)
        return refusal.response
    except ClientDisconnect:
        return Response(status_code=400)  # the client has gone: it is never read
    except StoreError as error:
        logger.error("%s failed: %s", what, error)
        message = "the gateway can't reach its records now; try again"
        return unavailable(unavailable_code, message).response
    except Exception:
        # A bug, or a store of the operator's own: the caller gets the documented JSON, not a bare 500.
        logger.exception("%s failed", what)
        return failure.response


def log_refusal(what: str, refusal: RequestError) -> None:
    """Log that `what` is refused, at INFO.

    Text in quotes is left out: it may be anything that the client sent.
    """
    message = shorten(_QUOTED.sub(f"'{REDACTED}'", str(refusal)))
    logger.info("%s is refused with %d %s: %s", what, refusal.status, refusal.code, message)


def invalid(message: str) -> RequestError:
    """Return the error for a request that makes no sense."""
    return RequestError(400, "VALIDATION_ERROR", message)


def too_many(message: str, retry_after: int) -> RequestError:
    """Return the error for a key that has used its share; `retry_after` in seconds."""
    return RequestError(429, "RATE_LIMITED", message, headers={"Retry-After": str(retry_after)})


def unavailable(code: str, message: str, *, close_code: int = close_codes.TRY_AGAIN_LATER) -> RequestError:
    """Return the error for a request that the gateway can't serve now, but soon."""
    headers = {"Retry-After": str(BUSY_RETRY)}
    return RequestError(503, code, message, headers=headers, close_code=close_code)


def shorten(message: str) -> str:
    """Clean a message that may quote the client, and cut it to 200 characters, in its middle.

    Messages of msgspec name the field at their end, so both ends are kept.
    """
    message = clean(redact(message))
    half = _MAX_ECHO // 2
    return message if len(message) <= _MAX_ECHO else f"{message[:half]}…{message[1 - half :]}"
