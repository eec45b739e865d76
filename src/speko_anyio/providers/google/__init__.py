"""Gemini Live: its dialect, its options, and where to connect."""

from ..options import ServerTool
from .assistant import GoogleStats
from .config import GoogleOptions, GoogleVad
from .dialect import GoogleDialect
from .endpoint import GoogleAuthStyle, google_endpoint

__all__ = [
    "GoogleAuthStyle",
    "GoogleDialect",
    "GoogleOptions",
    "GoogleStats",
    "GoogleVad",
    "ServerTool",
    "google_endpoint",
]
