"""The codes of the errors that dialects and the bridge report, which are also the reasons of their closes.

A dialect delivers an `ErrorFrame` with one of these, or with the provider's own code; a bridge with one of
these only, in capitals (``PROVIDER_UNAVAILABLE``), and a `Close` that follows has it as its reason, as it is
here.
"""

from __future__ import annotations

from typing import Final

from ..protocol.frames import PROVIDER_SESSION_EXPIRED

# The session goes on.

NO_RESPONSE: Final = "provider_no_response"
"""The provider did not begin a response that was asked for."""
RESPONSE_FAILED: Final = "provider_response_failed"
"""A response failed."""
RESPONSE_LOST: Final = "provider_response_lost"
"""The connection to the provider broke while something was under way, which is lost; the session was resumed
over another connection."""
CONVERSATION_LOST: Final = "provider_conversation_lost"
"""The provider did not resume the conversation; the session goes on with a new, empty one."""
TRANSCRIPTION_FAILED: Final = "transcription_failed"
"""The user's words could not be had."""
RATE_LIMITED: Final = "provider_rate_limited"
"""Too much was asked of the provider for now."""
APPROVAL_DENIED: Final = "provider_approval_denied"
"""The provider asked for approval to run a tool, and nobody could give it."""
GOING_AWAY: Final = "provider_going_away"
"""The provider will end the session soon."""

# The session ends, or never began.

NOT_READY: Final = "provider_not_ready"
"""The provider did not accept the configuration in time."""
CONFIGURATION_REFUSED: Final = "provider_configuration_refused"
"""The provider did not accept the configuration."""
UNAUTHORIZED: Final = "provider_unauthorized"
"""The key is missing, wrong or may not do this."""
MODEL_NOT_FOUND: Final = "provider_model_not_found"
"""There is no such model, or it has no live sessions."""
QUOTA_EXCEEDED: Final = "provider_quota_exceeded"
"""The account has used up what it may."""
EXPIRED: Final = PROVIDER_SESSION_EXPIRED
"""The provider's time limit."""
IDLE_TIMEOUT: Final = "provider_idle_timeout"
"""Nothing was said for too long."""
UNAVAILABLE: Final = "provider_unavailable"
"""The provider can't be reached, was lost, restarts, or has too much to do."""
PROTOCOL_ERROR: Final = "provider_protocol_error"
"""The provider sent what is not of its protocol."""

# Either.

UNNAMED: Final = "provider_error"
"""Anything else."""
INVALID_REQUEST: Final = "provider_invalid_request"
"""The provider did not understand us, or the conversation has grown too long."""
OPERATION_REFUSED: Final = "provider_operation_refused"
"""What we said came at a moment that the model can't handle: a race, not a mistake."""
UNKNOWN_ENTITY: Final = "provider_entity_not_found"
"""We named something that the provider does not have (any more), such as a tool call or a handle."""
INTERNAL_ERROR: Final = "provider_internal_error"
"""The provider failed."""

ALL: Final = frozenset(
    {
        NO_RESPONSE,
        RESPONSE_FAILED,
        RESPONSE_LOST,
        CONVERSATION_LOST,
        TRANSCRIPTION_FAILED,
        RATE_LIMITED,
        APPROVAL_DENIED,
        GOING_AWAY,
        NOT_READY,
        CONFIGURATION_REFUSED,
        UNAUTHORIZED,
        MODEL_NOT_FOUND,
        QUOTA_EXCEEDED,
        EXPIRED,
        IDLE_TIMEOUT,
        UNAVAILABLE,
        PROTOCOL_ERROR,
        UNNAMED,
        INVALID_REQUEST,
        OPERATION_REFUSED,
        UNKNOWN_ENTITY,
        INTERNAL_ERROR,
    }
)
"""Every one of them."""
