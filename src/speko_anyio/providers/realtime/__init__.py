"""What the dialects of the OpenAI Realtime protocol and of its xAI relative share."""

from .dialect import RealtimeDialect, RealtimeStats

__all__ = ["RealtimeDialect", "RealtimeStats"]
