"""`speko-anyio bench`: many real-time sessions at once against any gateway, and what they met."""

from ._command import bench

__all__ = ["bench"]
