"""What a client is told of a provider's failures: a stable code, and no secret of the operator's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ..protocol import close_codes
from ..protocol.errors import HandshakeError, RemoteProtocolError, SpekoError
from ..protocol.frames import Close, Error
from . import codes

_MAX_MESSAGE: Final = 500
"""Characters of a provider's message that are passed on."""

_NATIVE: Final = {
    "account_deactivated": codes.UNAUTHORIZED,
    "billing_hard_limit_reached": codes.QUOTA_EXCEEDED,
    "credit_balance_exhausted": codes.QUOTA_EXCEEDED,
    "insufficient_quota": codes.QUOTA_EXCEEDED,
    "internal_error": codes.INTERNAL_ERROR,
    "invalid_api_key": codes.UNAUTHORIZED,
    "invalid_event": codes.INVALID_REQUEST,
    "invalid_request_error": codes.INVALID_REQUEST,
    "model_not_found": codes.MODEL_NOT_FOUND,
    "rate_limit_exceeded": codes.RATE_LIMITED,
    "server_error": codes.INTERNAL_ERROR,
    "session_expired": codes.EXPIRED,
}
"""What the providers' own codes come to."""

_OPERATORS: Final = {
    codes.UNAUTHORIZED: "the provider does not accept this server's key; tell who runs the server",
    codes.QUOTA_EXCEEDED: "the provider's quota for this server is used up; tell who runs the server",
}
"""What is the operator's business alone: the provider's own words may show a part of the key."""


def for_client(error: Error, secrets: Iterable[str]) -> Error:
    """`error`, of a dialect, with a stable code and without `secrets`."""
    code = error.code if error.code in codes.ALL else _NATIVE.get(error.code, codes.UNNAMED)
    message = _OPERATORS.get(code)
    if message is None:
        message = error.message if code == error.code else f"{error.code}: {error.message}"
        for secret in secrets:
            message = message.replace(secret, "***")
    return Error(code.upper(), message[:_MAX_MESSAGE])


class Ending(NamedTuple):
    """How a connection to the provider ended."""

    error: Error | None
    """With one of `codes`; None when the provider ended the session in the ordinary way."""
    transient: bool
    """Whether another attempt may succeed where this one did not."""


def judge_opening(error: SpekoError) -> Ending:
    """The connection never opened. What an HTTP server says about it is not passed on."""
    if isinstance(error, RemoteProtocolError):
        return Ending(Error(codes.PROTOCOL_ERROR, str(error)), False)
    if not isinstance(error, HandshakeError):
        return Ending(None, False)  # it was given up on our side
    match error.status:
        case None:
            return Ending(Error(codes.UNAVAILABLE, "the provider can't be reached; try again"), True)
        case 401 | 403:
            return Ending(Error(codes.UNAUTHORIZED, ""), False)
        case 404:
            message = "the provider has no such model, or no realtime sessions at this address"
            return Ending(Error(codes.MODEL_NOT_FOUND, message), False)
        case 429:
            message = "the provider takes no more sessions for now; try again later"
            return Ending(Error(codes.RATE_LIMITED, message), True)
        case status if status >= 500:
            message = f"the provider is not available (HTTP {status}); try again later"
            return Ending(Error(codes.UNAVAILABLE, message), True)
        case status:
            message = f"the provider refused the connection (HTTP {status})"
            return Ending(Error(codes.UNNAMED, message), False)


_CLOSES: Final = {
    close_codes.GOING_AWAY: codes.UNAVAILABLE,
    close_codes.NO_STATUS: codes.UNAVAILABLE,
    close_codes.ABNORMAL: codes.UNAVAILABLE,
    close_codes.POLICY: codes.INVALID_REQUEST,
    close_codes.INTERNAL_ERROR: codes.INTERNAL_ERROR,
    close_codes.SERVICE_RESTART: codes.UNAVAILABLE,
    1013: codes.UNAVAILABLE,
    1014: codes.UNAVAILABLE,
}


def judge_close(close: Close, error: SpekoError | None, failure: Error | None) -> Ending:
    """The connection closed: `error` and `failure` are the dialect's."""
    if failure is not None:
        return Ending(failure, failure.code in (codes.NOT_READY, codes.UNAVAILABLE))
    if isinstance(error, RemoteProtocolError):
        return Ending(Error(codes.PROTOCOL_ERROR, str(error)), False)
    if close.reason in codes.ALL:
        return Ending(Error(close.reason, "the provider ended the session"), False)
    if close.code == close_codes.NORMAL:
        return Ending(None, False)
    code = _CLOSES.get(close.code, codes.UNNAMED)
    message = f"the connection to the provider was lost (close code {close.code})"
    return Ending(Error(code, message), code == codes.UNAVAILABLE)
