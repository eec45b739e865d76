"""Interprets ``error`` events, most of which are the harmless result of a race."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from ...protocol.frames import ErrorFrame
from .. import _closes as closes
from .. import codes
from .._lenient import fit
from ._events import CancelResponse, ClientEvent, DeleteItem, ErrorInfo, Message, TruncateItem, dig


class ErrorKind(enum.Enum):
    """How the dialect treats an ``error`` event."""

    BENIGN = "count it"
    ALREADY_ACTIVE = "our request for a response met an active one"
    REAL = "deliver it, continue"
    FATAL = "deliver it, end the session"


_BENIGN: Final = frozenset({"response_cancel_not_active", "input_audio_buffer_commit_empty"})
_FATAL: Final = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "invalid_api_key",
        "account_deactivated",
    }
)
_UNSPECIFIC: Final = frozenset({"error", "invalid_request_error"})
"""Error types that say nothing about the cause."""
_PASSING: Final = frozenset(
    {"server_error", "internal_error", "rate_limit_exceeded", "rate_limit_error", "overloaded", "timeout"}
)
_FAULTS: Final = frozenset({"invalid_request_error", "invalid_event", "invalid_value", "unknown_parameter"})
_HARMLESS: Final = (CancelResponse, TruncateItem, DeleteItem)
"""Requests that fail only if they come too late, so that their errors don't matter."""

_HARMLESS_WORDS: Final = re.compile(
    r"truncat|already shorter|no active response|cancellation failed|response[._]cancel|"
    r"item[._]delet|delet\w+ (the )?item"
)
"""The wording of errors about such requests that don't name one."""

_NO_SUCH_ITEM: Final = re.compile(
    r"\bitem\b.*\b(not found|not exist|doesn't exist|no such|unknown|invalid)\b|"
    r"\b(no such|unknown|invalid)\b.*\bitem\b"
)
_WORD: Final = re.compile(r"[\w-]+")


def judge(
    error: ErrorInfo, answers: type[ClientEvent | Message] | None, corrected: Collection[str] = ()
) -> ErrorKind:
    """Judge `error`.

    - `answers`: the kind of our request that it names, if any.
    - `corrected`: ids of the items that we truncated or deleted recently.
    """
    names = {str(error.code), error.type}
    message = (error.message or "")[: closes.JUDGED].lower()
    if "conversation_already_has_active_response" in names or "already has an active response" in message:
        return ErrorKind.ALREADY_ACTIVE
    if _fatal(error) is not None:
        return ErrorKind.FATAL
    if (
        names & _BENIGN
        or answers in _HARMLESS
        or (answers is None and _is_of_housekeeping(error, message, corrected))
        or is_empty_commit(error)
    ):
        return ErrorKind.BENIGN
    return ErrorKind.REAL


def _is_of_housekeeping(error: ErrorInfo, message: str, corrected: Collection[str]) -> bool:
    if _HARMLESS_WORDS.search(f"{error.code}"[: closes.JUDGED].lower() + f" {message}"):
        return True
    if not corrected or "item" not in message:
        return False
    return bool(_NO_SUCH_ITEM.search(message)) or not set(_WORD.findall(message)).isdisjoint(
        item_id.lower() for item_id in corrected
    )


def ending(error: ErrorInfo, endings: Mapping[str, str]) -> str | None:
    """Return the reason of the close that `error` announces, if any.

    `endings` maps codes and types to reasons; for an error without either, its text decides.
    """
    known = endings.get(str(error.code)) or endings.get(str(error.type))
    if known is not None or error.code or (error.type and error.type not in _UNSPECIFIC):
        return known
    return closes.announced(error.message or "")


def passes(error: ErrorInfo) -> bool:
    """Whether an error about the configuration is a temporary failure: another attempt may succeed."""
    names = {str(error.code), str(error.type)}
    return bool(names & _PASSING) or (not names & _FAULTS and closes.passes(error.message or ""))


def failure(error: ErrorInfo) -> ErrorFrame:
    """Return the frame of a `FATAL` error; its code is also the reason of the session's end."""
    return ErrorFrame(_fatal(error) or codes.UNNAMED, as_frame(error).message)


def _fatal(error: ErrorInfo) -> str | None:
    """Return the code of an error that ends the session; None for any other."""
    names = (str(error.code), str(error.type))
    for name in names:
        if name in _FATAL:
            return name
    # Not every service has a code for an account without money.
    if _PASSING.isdisjoint(names) and closes.spent(error.message or ""):
        return codes.QUOTA_EXCEEDED
    return None


_ACTIVE_ID: Final = re.compile(r"in progress: ([^\s.]+)")


def active_response(error: ErrorInfo) -> str | None:
    """Return the id of the active response that an `ALREADY_ACTIVE` error names, if it names one."""
    found = _ACTIVE_ID.search(error.message or "")
    return found[1] if found else None


def is_empty_commit(error: ErrorInfo) -> bool:
    """Whether there was too little audio for a commit."""
    message = (error.message or "").lower()
    return error.code == "input_audio_buffer_commit_empty" or (
        "commit" in message and ("empty" in message or "too small" in message)
    )


def as_frame(error: ErrorInfo) -> ErrorFrame:
    """Return the frame of an error, with the provider's code, or else its type."""
    return ErrorFrame(
        str(error.code or error.type or codes.UNNAMED), error.message or "the provider gave no reason"
    )


def response_failure(details: Any) -> ErrorInfo:
    """Return the reason of a failure from a response's ``status_details``, which may be anything."""
    error = dig(details, dict, "error")
    if error is None:
        return ErrorInfo(message=dig(details, str, "error"))
    return fit(error, ErrorInfo).value
