"""What a close of Gemini Live means: it has no error messages, so every failure is a close with a reason."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..protocol import close_codes
from .realtime_errors import CONFIGURATION_REFUSED, EXPIRED, UNNAMED

UNAUTHORIZED: Final = "provider_unauthorized"
"""The key is missing, wrong or may not do this."""
MODEL_NOT_FOUND: Final = "provider_model_not_found"
"""There is no such model, or it has no live sessions."""
QUOTA_EXCEEDED: Final = "provider_quota_exceeded"
"""The account has used up what it may."""
INVALID_REQUEST: Final = "provider_invalid_request"
"""The provider did not understand us, or the conversation has grown too long."""
OPERATION_REFUSED: Final = "provider_operation_refused"
"""What we said came at a moment that the model can't handle: a race, not a mistake."""
UNKNOWN_ENTITY: Final = "provider_entity_not_found"
"""We named something that the provider does not have (any more), such as a tool call or a handle."""
INTERNAL_ERROR: Final = "provider_internal_error"
"""The provider failed."""
UNAVAILABLE: Final = "provider_unavailable"
"""The provider restarts, or has too much to do."""


class Ending(NamedTuple):
    """Why the provider closed."""

    code: str
    """One of the names above, or of `realtime_errors`."""
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
    if code == close_codes.NORMAL:
        return None if ready else Ending(CONFIGURATION_REFUSED, False)
    if _QUOTA.search(reason):
        return Ending(QUOTA_EXCEEDED, False)
    if code in (close_codes.INVALID_DATA, close_codes.POLICY):
        return _judge_refusal(reason, ready=ready)
    if code == close_codes.GOING_AWAY or going_away or _EXPIRED.search(reason):
        return Ending(EXPIRED, True)
    if code == close_codes.INTERNAL_ERROR:
        return Ending(INTERNAL_ERROR, True)
    if code in _TRANSIENT:
        return Ending(UNAVAILABLE, True)
    return Ending(UNNAMED, code in (close_codes.NO_STATUS, close_codes.ABNORMAL))


def _judge_refusal(reason: str, *, ready: bool) -> Ending:
    if _OPERATION.search(reason):
        return Ending(OPERATION_REFUSED, ready)
    if _ENTITY.search(reason):
        return Ending(UNKNOWN_ENTITY, ready)
    if ready:
        return Ending(INVALID_REQUEST, False)
    # Only what is wrong from the start can be the key, the model or a setting.
    if _UNAUTHORIZED.search(reason):
        return Ending(UNAUTHORIZED, False)
    if _MODEL.search(reason):
        return Ending(MODEL_NOT_FOUND, False)
    return Ending(CONFIGURATION_REFUSED, False)
