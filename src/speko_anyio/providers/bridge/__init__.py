"""The bridge: a Speko session's client on one side, a provider's dialect on the other."""

from ._bridge import OPENING_TIMEOUT, Bridge, BridgeLimits, BridgeStats, ClientFrame, Connect

__all__ = ["OPENING_TIMEOUT", "Bridge", "BridgeLimits", "BridgeStats", "ClientFrame", "Connect"]
