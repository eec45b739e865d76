"""Gemini Live: its dialect, its options, and where to connect."""

from .dialect import (
    GoogleAuthStyle,
    GoogleDialect,
    GoogleOptions,
    GoogleStats,
    GoogleVad,
    ServerTool,
    google_endpoint,
)

__all__ = [
    "GoogleAuthStyle",
    "GoogleDialect",
    "GoogleOptions",
    "GoogleStats",
    "GoogleVad",
    "ServerTool",
    "google_endpoint",
]
