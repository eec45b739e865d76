"""Gemini Live: its dialect, its options, and where to connect."""

from .._options import ServerTool
from ._assistant import GoogleStats
from ._config import GoogleOptions, GoogleVad
from ._dialect import GoogleDialect
from ._endpoint import GoogleAuthStyle, google_endpoint
from ._families import google_capabilities

__all__ = [
    "GoogleAuthStyle",
    "GoogleDialect",
    "GoogleOptions",
    "GoogleStats",
    "GoogleVad",
    "ServerTool",
    "google_capabilities",
    "google_endpoint",
]
