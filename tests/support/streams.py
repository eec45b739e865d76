"""Moved to `speko_anyio.testing.streams`; import it from there."""

from speko_anyio.testing.streams import MemoryStream, Pipe, stream_pair

__all__ = ["MemoryStream", "Pipe", "stream_pair"]
