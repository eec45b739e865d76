"""Error codes of the dialects and the bridge, which are also the reasons of their closes.

A dialect delivers an `ErrorFrame` with one of these or with the provider's own code. A bridge uses only
these, in capitals (``PROVIDER_UNAVAILABLE``). The reason of a `Close` that follows is the code in lower case.
"""

from __future__ import annotations

from typing import Final

from ..protocol._extensions import COMMANDS
from ..protocol.frames import PROVIDER_SESSION_EXPIRED

# The session goes on.

NO_RESPONSE: Final = "provider_no_response"
"""The provider did not begin a response that was asked for."""
RESPONSE_FAILED: Final = "provider_response_failed"
"""A response failed."""
RESPONSE_LOST: Final = "provider_response_lost"
"""The connection to the provider broke in the middle of a response or a turn, which is lost; the session was
resumed over another connection."""
CONVERSATION_LOST: Final = "provider_conversation_lost"
"""The provider did not resume the conversation; the session goes on with a new, empty one."""
TRANSCRIPTION_FAILED: Final = "transcription_failed"
"""The user's words could not be transcribed."""
RATE_LIMITED: Final = "provider_rate_limited"
"""The provider's rate limit."""
APPROVAL_DENIED: Final = "provider_approval_denied"
"""The provider asked for approval to run a tool, and no `OpenAIOptions.approval_tool` decides on it."""
REFUSED: Final = {name: f"{name}_refused" for name in COMMANDS}
"""The provider does not take a text, an image, or another command of an extension: by the extension's name.
Of an update, only the fields that the message names were refused."""
GOING_AWAY: Final = "provider_going_away"
"""The provider will end the session soon."""

# The session ends, or never began.

NOT_READY: Final = "provider_not_ready"
"""The provider did not accept the configuration in time."""
CONFIGURATION_REFUSED: Final = "provider_configuration_refused"
"""The provider did not accept the configuration."""
UNAUTHORIZED: Final = "provider_unauthorized"
"""The key is missing or invalid, or lacks a permission."""
MODEL_NOT_FOUND: Final = "provider_model_not_found"
"""The model is unknown or has no live sessions."""
QUOTA_EXCEEDED: Final = "provider_quota_exceeded"
"""The account has used up its quota or credit."""
EXPIRED: Final = PROVIDER_SESSION_EXPIRED
"""The provider's time limit."""
IDLE_TIMEOUT: Final = "provider_idle_timeout"
"""The session was silent for too long."""
UNAVAILABLE: Final = "provider_unavailable"
"""The provider is unreachable, restarting or overloaded, or the connection was lost."""
PROTOCOL_ERROR: Final = "provider_protocol_error"
"""The provider broke its own protocol."""

# Either.

UNNAMED: Final = "provider_error"
"""Anything else."""
INVALID_REQUEST: Final = "provider_invalid_request"
"""The provider rejected what we sent, or the conversation has grown too long."""
OPERATION_REFUSED: Final = "provider_operation_refused"
"""What we sent came at a moment when the model can't handle it: a race, not a mistake."""
UNKNOWN_ENTITY: Final = "provider_entity_not_found"
"""We referred to something unknown to the provider, such as a tool call or an invalid handle."""
INTERNAL_ERROR: Final = "provider_internal_error"
"""The provider had an internal error."""

ALL: Final = frozenset(
    {
        # Every constant of this module that is a text: no code can be forgotten here.
        *(code for name, code in globals().items() if name.isupper() and isinstance(code, str)),
        *REFUSED.values(),
    }
)
"""All codes."""
