"""The sans-IO core: the Speko protocol as pure functions of bytes and time, in both roles.

No I/O, no clock, no async; the standard library, msgspec and wsproto only. Two levels:

- `ClientConnection`, `ServerConnection`: bytes of a WebSocket in, frames or commands out;
- `ClientProtocol`, `ServerProtocol`: the same for transports that carry whole WebSocket messages.

See ``docs/integrating.md`` for what the core does, what it does not, and what is left to you.
"""

from ._commands import (
    AudioIn,
    Clear,
    Command,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextIn,
    TextRole,
    ToolResult,
    TurnMode,
    Update,
    UpgradeRequest,
)
from ._connection import ClientConnection, ServerConnection
from ._dialect import NEED_DATA, Dialect, NeedData
from ._limits import DEFAULT_LIMITS, Limits
from ._outbox import CloseMessage, Message, Outbox
from ._session import ClientDialect, ClientProtocol, ServerFrame, ServerProtocol
from ._state import State
from ._timeouts import DEFAULT_TIMEOUTS, Timeouts
from ._websocket import WebSocketCore
from .capabilities import Capabilities
from .close_codes import is_sendable
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
    Digit,
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
from .url import WebSocketURL, parse_url

__all__ = [
    "DEFAULT_LIMITS",
    "DEFAULT_TIMEOUTS",
    "NEED_DATA",
    "Audio",
    "AudioIn",
    "Capabilities",
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
    "Digit",
    "EndTurn",
    "ErrorFrame",
    "Expiring",
    "Frame",
    "HandshakeError",
    "ImageIn",
    "Initiator",
    "Interrupt",
    "Interruption",
    "Limits",
    "LocalProtocolError",
    "Message",
    "NeedData",
    "Outbox",
    "Played",
    "ProtocolError",
    "Ready",
    "RemoteProtocolError",
    "Respond",
    "ResponseEnd",
    "ResponseStatus",
    "Role",
    "Say",
    "ServerConnection",
    "ServerFrame",
    "ServerProtocol",
    "ServerToolCall",
    "SessionExpired",
    "SpekoError",
    "State",
    "TextIn",
    "TextRole",
    "Timeouts",
    "ToolCall",
    "ToolResult",
    "ToolStatus",
    "Transcript",
    "TurnMode",
    "Unknown",
    "Update",
    "UpgradeRequest",
    "Usage",
    "WebSocketCore",
    "WebSocketURL",
    "is_sendable",
    "parse_url",
]
