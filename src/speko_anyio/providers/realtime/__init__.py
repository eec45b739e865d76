"""What the dialects of the OpenAI Realtime protocol and of its xAI relative share."""

from .dialect import Flavor, RealtimeDialect, RealtimeStats

__all__ = ["Flavor", "RealtimeDialect", "RealtimeStats"]
