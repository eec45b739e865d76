"""Speech-to-speech sessions: a sans-IO protocol core and an anyio client for asyncio and trio.

Importing this package is cheap: each public name loads its module when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazy_exports
from ._version import __version__

if TYPE_CHECKING:
    from ._accounts import XAI, Google, OpenAI, Provider
    from ._observe.observer import SessionInfo, SessionObserver
    from .audio._playback import Playback
    from .client._api import Speko
    from .client._frame_stream import FrameStream
    from .client._history import HistoryItem
    from .client._parameters import SessionOptions
    from .client._phone import PhoneCall, answer_call
    from .client._realtime import Realtime, open_session
    from .client._session import RealtimeSession
    from .client._stats import SessionStats
    from .client.tools import Tool, ToolError, tool
    from .errors import (
        APIConnectionError,
        APIError,
        APIStatusError,
        AuthenticationError,
        BadRequestError,
        ConfigurationError,
        MissingAPIKeyError,
        ProxyError,
        RateLimitError,
        ServerError,
        UnsupportedTransportError,
    )
    from .protocol import (
        Audio,
        Close,
        ConnectionClosed,
        Digit,
        ErrorFrame,
        Expiring,
        Frame,
        HandshakeError,
        Interruption,
        LocalProtocolError,
        ProtocolError,
        Ready,
        RemoteProtocolError,
        ResponseEnd,
        ServerToolCall,
        SessionExpired,
        SpekoError,
        ToolCall,
        Transcript,
        Unknown,
        Usage,
    )
    from .protocol.mint import SessionGrant, ToolSpec
    from .providers._options import ServerTool
    from .providers.google import GoogleOptions, GoogleVad
    from .providers.openai import OpenAIOptions, SemanticVad, ServerVad
    from .providers.xai import XAIOptions, XAIVad

__all__ = [
    "XAI",
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "Audio",
    "AuthenticationError",
    "BadRequestError",
    "Close",
    "ConfigurationError",
    "ConnectionClosed",
    "Digit",
    "ErrorFrame",
    "Expiring",
    "Frame",
    "FrameStream",
    "Google",
    "GoogleOptions",
    "GoogleVad",
    "HandshakeError",
    "HistoryItem",
    "Interruption",
    "LocalProtocolError",
    "MissingAPIKeyError",
    "OpenAI",
    "OpenAIOptions",
    "PhoneCall",
    "Playback",
    "ProtocolError",
    "Provider",
    "ProxyError",
    "RateLimitError",
    "Ready",
    "Realtime",
    "RealtimeSession",
    "RemoteProtocolError",
    "ResponseEnd",
    "SemanticVad",
    "ServerError",
    "ServerTool",
    "ServerToolCall",
    "ServerVad",
    "SessionExpired",
    "SessionGrant",
    "SessionInfo",
    "SessionObserver",
    "SessionOptions",
    "SessionStats",
    "Speko",
    "SpekoError",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolSpec",
    "Transcript",
    "Unknown",
    "UnsupportedTransportError",
    "Usage",
    "XAIOptions",
    "XAIVad",
    "__version__",
    "answer_call",
    "open_session",
    "tool",
]

lazy_exports(
    __name__,
    {
        "_accounts": "Google OpenAI Provider XAI",
        "audio._playback": "Playback",
        "client._api": "Speko",
        "client._frame_stream": "FrameStream",
        "client._history": "HistoryItem",
        "client._parameters": "SessionOptions",
        "client._phone": "PhoneCall answer_call",
        "client._realtime": "Realtime open_session",
        "client._session": "RealtimeSession",
        "client._stats": "SessionStats",
        "client.tools": "Tool ToolError tool",
        "errors": (
            "APIConnectionError APIError APIStatusError AuthenticationError BadRequestError "
            "ConfigurationError MissingAPIKeyError ProxyError RateLimitError ServerError "
            "UnsupportedTransportError"
        ),
        "_observe.observer": "SessionInfo SessionObserver",
        "protocol": (
            "Audio Close ConnectionClosed Digit ErrorFrame Expiring Frame HandshakeError Interruption "
            "LocalProtocolError ProtocolError Ready RemoteProtocolError ResponseEnd ServerToolCall "
            "SessionExpired SpekoError ToolCall Transcript Unknown Usage"
        ),
        "protocol.mint": "SessionGrant ToolSpec",
        "providers.google": "GoogleOptions GoogleVad",
        "providers.openai": "OpenAIOptions SemanticVad ServerVad",
        "providers._options": "ServerTool",
        "providers.xai": "XAIOptions XAIVad",
    },
)
