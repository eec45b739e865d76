"""Moved to `speko_anyio.testing.clock`; import it from there."""

from speko_anyio.testing.clock import VIRTUAL_BACKENDS, VirtualTimeLoop, virtual_backend

__all__ = ["VIRTUAL_BACKENDS", "VirtualTimeLoop", "virtual_backend"]
