"""Speech-to-speech sessions: a sans-IO protocol core and an anyio client for asyncio and trio.

Importing this package is cheap: each public name loads its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .client.api import Speko
    from .client.direct import XAI, Google, OpenAI, Provider
    from .client.errors import (
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
    from .client.frame_stream import FrameStream
    from .client.opening import SessionOptions
    from .client.playback import Flushed, Playback
    from .client.realtime import Realtime, open_session
    from .client.session import RealtimeSession
    from .client.stats import SessionStats
    from .client.tools import Tool, ToolError, tool
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
        Error,
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
    "Error",
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

# Where each name lives; what is not here is the core's.
_HOMES = {
    "Speko": "client.api",
    **dict.fromkeys(
        (
            "APIConnectionError",
            "APIError",
            "APIResponseError",
            "APIStatusError",
            "AuthenticationError",
            "BadRequestError",
            "ConfigurationError",
            "InternalError",
            "MissingAPIKeyError",
            "ProxyError",
            "RateLimitError",
            "ServerError",
            "UnsupportedTransportError",
        ),
        "client.errors",
    ),
    **dict.fromkeys(("Flushed", "Playback"), "client.playback"),
    "FrameStream": "client.frame_stream",
    "SessionOptions": "client.opening",
    **dict.fromkeys(("Realtime", "open_session"), "client.realtime"),
    "RealtimeSession": "client.session",
    "SessionStats": "client.stats",
    **dict.fromkeys(("SessionInfo", "SessionObserver"), "observe.observer"),
    **dict.fromkeys(("Tool", "ToolError", "tool"), "client.tools"),
    **dict.fromkeys(("ProviderGrant", "SessionConfig", "SessionGrant", "ToolSpec"), "protocol.mint"),
    **dict.fromkeys(("Google", "OpenAI", "Provider", "XAI"), "client.direct"),
    **dict.fromkeys(("GoogleOptions", "GoogleVad"), "providers.google"),
    **dict.fromkeys(("OpenAIOptions", "SemanticVad", "ServerVad"), "providers.openai"),
    "ServerTool": "providers.options",
    **dict.fromkeys(("XAIOptions", "XAIVad"), "providers.xai"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOMES.get(name, 'protocol')}", __name__)
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
