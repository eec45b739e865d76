"""What a client learns of a provider's failures: a stable code, and no secret of the operator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ...protocol import close_codes
from ...protocol._tokens import shown
from ...protocol.errors import HandshakeError, RemoteProtocolError, SpekoError
from ...protocol.frames import Close, ErrorFrame
from .. import codes
from .._closes import Moment, judge_failure, spent
from .._provider import ProviderDialect

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
"""The stable code for each of the providers' own."""

_OPERATORS: Final = {
    codes.UNAUTHORIZED: "the provider does not accept this server's key; tell the server's operator",
    codes.QUOTA_EXCEEDED: "the provider's quota for this server is used up; tell the server's operator",
}
"""Messages for failures that only the operator can fix: the provider's own may show part of the key."""


def _stable(code: str) -> str:
    return code if code in codes.ALL else _NATIVE.get(code, codes.UNNAMED)


def for_client(error: ErrorFrame, secrets: Iterable[str]) -> ErrorFrame:
    """Return a dialect's `error` with a stable code and without the `secrets`."""
    code = _stable(error.code)
    message = _OPERATORS.get(code)
    if message is None:
        message = error.message if code == error.code else f"{error.code}: {error.message}"
    return ErrorFrame(code.upper(), as_told(message, secrets))


def as_told(message: str, secrets: Iterable[str]) -> str:
    """Return the provider's `message` on one line, shortened, without `secrets`, accounts and hosts."""
    return shown(message, secrets, limit=_MAX_MESSAGE, hosts=True)


class Ending(NamedTuple):
    """How a connection to the provider ended."""

    error: ErrorFrame | None
    """With one of `codes`; None when the provider ended the session in the ordinary way."""
    retry: bool = False
    """Whether another attempt may succeed where this one did not."""
    stale: bool = False
    """Whether the handle was rejected: an attempt without it may succeed."""


def judge_opening(error: SpekoError, moment: Moment) -> Ending:
    """Judge a connection that never opened. The text of the HTTP response is not passed on."""
    if isinstance(error, RemoteProtocolError):
        return Ending(ErrorFrame(codes.PROTOCOL_ERROR, str(error)))
    if not isinstance(error, HandshakeError):
        return Ending(None)  # we closed it
    match error.status:
        case None:
            return Ending(
                ErrorFrame(codes.UNAVAILABLE, "the provider can't be reached; try again"), retry=True
            )
        case 402:
            return Ending(ErrorFrame(codes.QUOTA_EXCEEDED, ""))
        case status if 400 <= status < 500 and spent(str(error)):
            return Ending(ErrorFrame(codes.QUOTA_EXCEEDED, ""))
        case 401 | 403:
            return Ending(ErrorFrame(codes.UNAUTHORIZED, ""))
        case 429:
            message = "the provider accepts no more sessions for now; try again later"
            return Ending(ErrorFrame(codes.RATE_LIMITED, message), retry=True)
        case status if status >= 500 or status in (408, 425):
            message = f"the provider is not available (HTTP {status}); try again later"
            return Ending(ErrorFrame(codes.UNAVAILABLE, message), retry=True)
        case 404:
            message = (
                "the provider has no such model, or no realtime sessions at this address; "
                "check the model's name, or tell the server's operator"
            )
            return Ending(ErrorFrame(codes.MODEL_NOT_FOUND, message), stale=moment is Moment.RESUMING)
        case status:
            message = f"the provider refused the connection (HTTP {status}); tell the server's operator"
            return Ending(ErrorFrame(codes.UNNAMED, message), stale=moment is Moment.RESUMING)


def judge_end(provider: ProviderDialect, close: Close) -> Ending:
    """Judge the connection of `provider`, which ended with `close`."""
    if provider.verdict is not None:
        return Ending(provider.failure, provider.verdict.retry, provider.verdict.stale)
    failure = provider.failure
    if failure is None and close.reason in codes.ALL:
        failure = ErrorFrame(close.reason, "the provider ended the session; open another")
    if failure is not None:
        verdict = judge_failure(_stable(failure.code), provider.moment)
        return Ending(failure, verdict.retry, verdict.stale)
    if isinstance(provider.error, RemoteProtocolError):
        return Ending(ErrorFrame(codes.PROTOCOL_ERROR, str(provider.error)))
    if close.code == close_codes.NORMAL:
        return Ending(None)  # we closed it
    message = f"the connection to the provider was lost (close code {close.code}); try again"
    return Ending(ErrorFrame(codes.UNAVAILABLE, message), retry=True)
