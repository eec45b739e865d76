"""The OpenAI Realtime protocol, as OpenAI, xAI and compatible servers speak it."""

from ._dialect import Flavor, RealtimeDialect, RealtimeStats

__all__ = ["Flavor", "RealtimeDialect", "RealtimeStats"]
