"""What a close of Gemini Live means: it has no error messages, so every failure is a close with a reason."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..protocol import close_codes
from . import codes


class Ending(NamedTuple):
    """Why the provider closed."""

    code: str
    """One of `codes`."""
    resumable: bool
    """Whether the same session may go on over another connection."""


_QUOTA: Final = re.compile(r"quota|resource.?(has been )?exhausted|billing", re.IGNORECASE)
_UNAUTHORIZED: Final = re.compile(
    r"api.?key|unregistered caller|unauthenticated|unauthorized|authentication|credential|permission"
    r"|(access|auth|ephemeral).?token",
    re.IGNORECASE,
)
_MODEL: Final = re.compile(
    r"not found for api version|not supported for bidi|models/\S+ (is|was) not found", re.IGNORECASE
)
_EXPIRED: Final = re.compile(r"deadline|expired|aborted|session duration|go.?away", re.IGNORECASE)
_OPERATION: Final = re.compile(r"operation is not (implemented|supported)", re.IGNORECASE)
_ENTITY: Final = re.compile(r"entity was not found", re.IGNORECASE)
_TRANSIENT: Final = frozenset({close_codes.SERVICE_RESTART, 1013, 1014})
"""The server restarts, is overloaded, or a gateway before it failed (IANA registry)."""


def judge_close(code: int, reason: str, *, ready: bool, going_away: bool) -> Ending | None:
    """What the provider's close says; None: an ordinary end.

    `ready`: whether the configuration was accepted before; `going_away`: whether a `goAway` announced it.
    """
    if code == close_codes.NORMAL and not going_away:
        return None if ready else Ending(codes.CONFIGURATION_REFUSED, False)
    if _QUOTA.search(reason):
        return Ending(codes.QUOTA_EXCEEDED, False)
    if code in (close_codes.INVALID_DATA, close_codes.POLICY):
        return _judge_refusal(reason, ready=ready)
    if code == close_codes.GOING_AWAY or going_away or _EXPIRED.search(reason):
        return Ending(codes.EXPIRED, True)
    if code == close_codes.INTERNAL_ERROR:
        return Ending(codes.INTERNAL_ERROR, True)
    if code in _TRANSIENT:
        return Ending(codes.UNAVAILABLE, True)
    return Ending(codes.UNNAMED, code in (close_codes.NO_STATUS, close_codes.ABNORMAL))


def _judge_refusal(reason: str, *, ready: bool) -> Ending:
    if _OPERATION.search(reason):
        return Ending(codes.OPERATION_REFUSED, ready)
    if _ENTITY.search(reason):
        return Ending(codes.UNKNOWN_ENTITY, ready)
    if ready:
        return Ending(codes.INVALID_REQUEST, False)
    # Only what is wrong from the start can be the key, the model or a setting.
    if _UNAUTHORIZED.search(reason):
        return Ending(codes.UNAUTHORIZED, False)
    if _MODEL.search(reason):
        return Ending(codes.MODEL_NOT_FOUND, False)
    return Ending(codes.CONFIGURATION_REFUSED, False)
