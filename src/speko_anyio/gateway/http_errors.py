"""The HTTP API's errors: as exceptions on their way, and as responses."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from .asgi import error_body

BUSY_RETRY: Final = 5
"""Seconds after which a client may try again when the gateway can't serve it now."""

_MAX_ECHO: Final = 200
"""Characters of a message that may show what the client sent."""


class RequestError(Exception):
    """A request that is refused: the documented error, as an exception on its way to the response."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers

    @property
    def response(self) -> Response:
        """What the client gets."""
        return error_response(self.status, self.code, str(self), self.headers)


def error_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of the HTTP API: ``{"error", "code"}``."""
    return Response(error_body(code, message), status, headers, "application/json")


def invalid(message: str) -> RequestError:
    """The request makes no sense."""
    return RequestError(400, "VALIDATION_ERROR", message)


def too_many(message: str, retry_after: int) -> RequestError:
    """The key has had its share; `retry_after` in seconds."""
    return RequestError(429, "RATE_LIMITED", message, headers={"Retry-After": str(retry_after)})


def unavailable(code: str, message: str) -> RequestError:
    """The gateway can't do it now, but soon."""
    return RequestError(503, code, message, headers={"Retry-After": str(BUSY_RETRY)})


def shorten(message: str) -> str:
    """A message of at most 200 characters, cut in its middle: msgspec's end with the field they are about."""
    half = _MAX_ECHO // 2
    return message if len(message) <= _MAX_ECHO else f"{message[:half]}…{message[1 - half :]}"
