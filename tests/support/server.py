"""Moved to `speko_anyio.testing.server`; import it from there."""

from speko_anyio.testing.server import TOKEN, FakeServer, connected, grant

__all__ = ["TOKEN", "FakeServer", "connected", "grant"]
