"""Speech-to-speech sessions: a sans-IO protocol core and an anyio client for asyncio and trio.

Importing this package is cheap: each public name loads its module when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazy_exports
from ._version import __version__

if TYPE_CHECKING:
    from .accounts import XAI, Google, OpenAI, Provider
    from .audio.playback import Flushed, Playback
    from .client.api import Speko
    from .client.frame_stream import FrameStream
    from .client.parameters import SessionOptions
    from .client.realtime import Realtime, open_session
    from .client.session import RealtimeSession
    from .client.stats import SessionStats
    from .client.tools import Tool, ToolError, tool
    from .errors import (
        APIConnectionError,
        APIError,
        APIResponseError,
        APIStatusError,
        AuthenticationError,
        BadRequestError,
        ConfigurationError,
        InternalError,
        MissingAPIKeyError,
        ProxyError,
        RateLimitError,
        ServerError,
        UnsupportedTransportError,
    )
    from .observe.observer import SessionInfo, SessionObserver
    from .protocol import (
        DEFAULT_LIMITS,
        NEED_DATA,
        Audio,
        AudioIn,
        ByteLevel,
        Clear,
        ClientConnection,
        ClientDialect,
        ClientProtocol,
        Close,
        CloseMessage,
        Command,
        Commit,
        ConnectionClosed,
        Dialect,
        EndTurn,
        ErrorFrame,
        Expiring,
        Frame,
        HandshakeError,
        Initiator,
        Interrupt,
        Interruption,
        Limits,
        LocalProtocolError,
        Message,
        NeedData,
        ProtocolError,
        Ready,
        RemoteProtocolError,
        ResponseEnd,
        ResponseStatus,
        Role,
        ServerConnection,
        ServerProtocol,
        ServerToolCall,
        SessionExpired,
        SpekoError,
        State,
        ToolCall,
        ToolResult,
        ToolStatus,
        Transcript,
        Unknown,
        UpgradeRequest,
        Usage,
        WebSocketURL,
        is_sendable,
        parse_url,
    )
    from .protocol.mint import ProviderGrant, SessionConfig, SessionGrant, ToolSpec
    from .providers.google import GoogleOptions, GoogleVad
    from .providers.openai import OpenAIOptions, SemanticVad, ServerVad
    from .providers.options import ServerTool
    from .providers.xai import XAIOptions, XAIVad

__all__ = [
    "DEFAULT_LIMITS",
    "NEED_DATA",
    "XAI",
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "Audio",
    "AudioIn",
    "AuthenticationError",
    "BadRequestError",
    "ByteLevel",
    "Clear",
    "ClientConnection",
    "ClientDialect",
    "ClientProtocol",
    "Close",
    "CloseMessage",
    "Command",
    "Commit",
    "ConfigurationError",
    "ConnectionClosed",
    "Dialect",
    "EndTurn",
    "ErrorFrame",
    "Expiring",
    "Flushed",
    "Frame",
    "FrameStream",
    "Google",
    "GoogleOptions",
    "GoogleVad",
    "HandshakeError",
    "Initiator",
    "InternalError",
    "Interrupt",
    "Interruption",
    "Limits",
    "LocalProtocolError",
    "Message",
    "MissingAPIKeyError",
    "NeedData",
    "OpenAI",
    "OpenAIOptions",
    "Playback",
    "ProtocolError",
    "Provider",
    "ProviderGrant",
    "ProxyError",
    "RateLimitError",
    "Ready",
    "Realtime",
    "RealtimeSession",
    "RemoteProtocolError",
    "ResponseEnd",
    "ResponseStatus",
    "Role",
    "SemanticVad",
    "ServerConnection",
    "ServerError",
    "ServerProtocol",
    "ServerTool",
    "ServerToolCall",
    "ServerVad",
    "SessionConfig",
    "SessionExpired",
    "SessionGrant",
    "SessionInfo",
    "SessionObserver",
    "SessionOptions",
    "SessionStats",
    "Speko",
    "SpekoError",
    "State",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "ToolSpec",
    "ToolStatus",
    "Transcript",
    "Unknown",
    "UnsupportedTransportError",
    "UpgradeRequest",
    "Usage",
    "WebSocketURL",
    "XAIOptions",
    "XAIVad",
    "__version__",
    "is_sendable",
    "open_session",
    "parse_url",
    "tool",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "accounts": "Google OpenAI Provider XAI",
        "audio.playback": "Flushed Playback",
        "client.api": "Speko",
        "client.frame_stream": "FrameStream",
        "client.parameters": "SessionOptions",
        "client.realtime": "Realtime open_session",
        "client.session": "RealtimeSession",
        "client.stats": "SessionStats",
        "client.tools": "Tool ToolError tool",
        "errors": (
            "APIConnectionError APIError APIResponseError APIStatusError AuthenticationError "
            "BadRequestError ConfigurationError InternalError MissingAPIKeyError ProxyError "
            "RateLimitError ServerError UnsupportedTransportError"
        ),
        "observe.observer": "SessionInfo SessionObserver",
        "protocol": (
            "Audio AudioIn ByteLevel Clear ClientConnection ClientDialect ClientProtocol Close "
            "CloseMessage Command Commit ConnectionClosed DEFAULT_LIMITS Dialect EndTurn ErrorFrame "
            "Expiring Frame HandshakeError Initiator Interrupt Interruption Limits LocalProtocolError "
            "Message NEED_DATA NeedData ProtocolError Ready RemoteProtocolError ResponseEnd "
            "ResponseStatus Role ServerConnection ServerProtocol ServerToolCall SessionExpired "
            "SpekoError State ToolCall ToolResult ToolStatus Transcript Unknown UpgradeRequest Usage "
            "WebSocketURL is_sendable parse_url"
        ),
        "protocol.mint": "ProviderGrant SessionConfig SessionGrant ToolSpec",
        "providers.google": "GoogleOptions GoogleVad",
        "providers.openai": "OpenAIOptions SemanticVad ServerVad",
        "providers.options": "ServerTool",
        "providers.xai": "XAIOptions XAIVad",
    },
)
