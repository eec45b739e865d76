"""What an `error` event of these protocols means: most are the harmless end of a race."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from ...protocol.frames import ErrorFrame
from .. import closes, codes
from ..lenient import fit
from .events import CancelResponse, ClientEvent, DeleteItem, ErrorInfo, TruncateItem, dig


class Verdict(enum.Enum):
    """What to do about an error."""

    BENIGN = "count it"
    ALREADY_ACTIVE = "the response we asked for met another"
    REAL = "tell it, go on"
    FATAL = "tell it, end the session"


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
"""Types that don't say what happened."""
_PASSING: Final = frozenset(
    {"server_error", "internal_error", "rate_limit_exceeded", "rate_limit_error", "overloaded", "timeout"}
)
_FAULTS: Final = frozenset({"invalid_request_error", "invalid_event", "invalid_value", "unknown_parameter"})
_HARMLESS: Final = (CancelResponse, TruncateItem, DeleteItem)
"""Requests that come too late at worst: whatever is wrong with them, nobody need know."""

_HARMLESS_WORDS: Final = re.compile(
    r"truncat|already shorter|no active response|cancellation failed|response[._]cancel|"
    r"item[._]delet|delet\w+ (the )?item"
)
"""How errors describe those requests when they don't name one."""

_NO_SUCH_ITEM: Final = re.compile(
    r"\bitem\b.*\b(not found|not exist|doesn't exist|no such|unknown|invalid)\b|"
    r"\b(no such|unknown|invalid)\b.*\bitem\b"
)
_WORD: Final = re.compile(r"[\w-]+")


def judge(error: ErrorInfo, answers: type[ClientEvent] | None, corrected: Collection[str] = ()) -> Verdict:
    """What `error` means. `answers` is the kind of our request that it names, if any; `corrected` holds the
    ids of items that we truncated or deleted recently."""
    names = {str(error.code), error.type}
    message = (error.message or "").lower()
    if "conversation_already_has_active_response" in names or "already has an active response" in message:
        return Verdict.ALREADY_ACTIVE
    if _fatal(error) is not None:
        return Verdict.FATAL
    if (
        names & _BENIGN
        or answers in _HARMLESS
        or (answers is None and _is_of_housekeeping(error, message, corrected))
        or is_empty_commit(error)
    ):
        return Verdict.BENIGN
    return Verdict.REAL


def _is_of_housekeeping(error: ErrorInfo, message: str, corrected: Collection[str]) -> bool:
    if _HARMLESS_WORDS.search(f"{error.code} {message}".lower()):
        return True
    if not corrected or "item" not in message:
        return False
    return bool(_NO_SUCH_ITEM.search(message)) or not set(_WORD.findall(message)).isdisjoint(
        item_id.lower() for item_id in corrected
    )


def ending(error: ErrorInfo, endings: Mapping[str, str]) -> str | None:
    """The reason of the close that `error` announces, if it does. `endings` maps codes and types to reasons;
    without either, the error's text decides."""
    known = endings.get(str(error.code)) or endings.get(str(error.type))
    if known is not None or error.code or (error.type and error.type not in _UNSPECIFIC):
        return known
    return closes.announced(error.message or "")


def passes(error: ErrorInfo) -> bool:
    """Whether an error about the configuration is a temporary failure: another attempt may succeed."""
    names = {str(error.code), str(error.type)}
    return bool(names & _PASSING) or (not names & _FAULTS and closes.passes(error.message or ""))


def failure(error: ErrorInfo) -> ErrorFrame:
    """A `FATAL` error for the caller: its code is the reason of the session's end too."""
    return ErrorFrame(_fatal(error) or codes.UNNAMED, as_frame(error).message)


def _fatal(error: ErrorInfo) -> str | None:
    """The code of an error that ends the session; None for any other."""
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
    """The id of the active response that an `ALREADY_ACTIVE` error names, if it names one."""
    found = _ACTIVE_ID.search(error.message or "")
    return found[1] if found else None


def is_empty_commit(error: ErrorInfo) -> bool:
    """Whether there was too little audio for a commit."""
    message = (error.message or "").lower()
    return error.code == "input_audio_buffer_commit_empty" or (
        "commit" in message and ("empty" in message or "too small" in message)
    )


def as_frame(error: ErrorInfo) -> ErrorFrame:
    """`error` for the caller: the provider's code, else its type."""
    return ErrorFrame(
        str(error.code or error.type or codes.UNNAMED), error.message or "the provider gave no reason"
    )


def response_failure(details: Any) -> ErrorInfo:
    """Why a response failed, out of its ``status_details``, which may be anything."""
    error = dig(details, dict, "error")
    if error is None:
        return ErrorInfo(message=dig(details, str, "error"))
    return fit(error, ErrorInfo).value
