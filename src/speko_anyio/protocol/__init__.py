"""The sans-IO core: the Speko protocol as pure functions of bytes and time, in both roles.

No I/O, no clock, no async; the standard library, msgspec and wsproto only. Two levels:

- `ClientConnection`, `ServerConnection`: bytes of a WebSocket in, frames or commands out;
- `ClientProtocol`, `ServerProtocol`: the same for transports that carry whole WebSocket messages.

See ``docs/integrating.md`` for what the core does, what it does not, and what is left to you.
"""

from .byte_level import ByteLevel
from .close_codes import is_sendable
from .commands import AudioIn, Clear, Command, Commit, EndTurn, Interrupt, ToolResult, UpgradeRequest
from .connection import ClientConnection, ServerConnection
from .dialect import NEED_DATA, CloseMessage, Dialect, Message, NeedData
from .errors import (
    ConnectionClosed,
    HandshakeError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    SessionExpired,
    SpekoError,
)
from .frames import (
    Audio,
    Close,
    ErrorFrame,
    Expiring,
    Frame,
    Initiator,
    Interruption,
    Ready,
    ResponseEnd,
    ResponseStatus,
    Role,
    ServerToolCall,
    ToolCall,
    ToolStatus,
    Transcript,
    Unknown,
    Usage,
)
from .limits import DEFAULT_LIMITS, Limits
from .session import ClientDialect, ClientProtocol, ServerProtocol
from .state import State
from .url import WebSocketURL, parse_url

__all__ = [
    "DEFAULT_LIMITS",
    "NEED_DATA",
    "Audio",
    "AudioIn",
    "ByteLevel",
    "Clear",
    "ClientConnection",
    "ClientDialect",
    "ClientProtocol",
    "Close",
    "CloseMessage",
    "Command",
    "Commit",
    "ConnectionClosed",
    "Dialect",
    "EndTurn",
    "ErrorFrame",
    "Expiring",
    "Frame",
    "HandshakeError",
    "Initiator",
    "Interrupt",
    "Interruption",
    "Limits",
    "LocalProtocolError",
    "Message",
    "NeedData",
    "ProtocolError",
    "Ready",
    "RemoteProtocolError",
    "ResponseEnd",
    "ResponseStatus",
    "Role",
    "ServerConnection",
    "ServerProtocol",
    "ServerToolCall",
    "SessionExpired",
    "SpekoError",
    "State",
    "ToolCall",
    "ToolResult",
    "ToolStatus",
    "Transcript",
    "Unknown",
    "UpgradeRequest",
    "Usage",
    "WebSocketURL",
    "is_sendable",
    "parse_url",
]
