"""What a client attached to a session takes little more memory than it took on the wire."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import anyio
import msgspec
import pytest

from speko_anyio.gateway import serve_session
from speko_anyio.protocol.mint import SessionConfig, ToolSpec

pytestmark = pytest.mark.anyio

MANY: dict[str, Any] = msgspec.json.decode(b"{" + b",".join(b'"%d":{}' % n for n in range(7000)) + b"}")
"""64 KB on the wire."""
CONFIG = SessionConfig(provider="local", model="m", tools=(ToolSpec(name="f", parameters=MANY),))


class Silence:
    """A client that says nothing."""

    async def receive(self) -> None:
        await anyio.sleep_forever()

    async def send(self, message: str | bytes) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        pass


async def test_large_metadata_and_tools_are_kept_encoded() -> None:
    config = msgspec.json.encode(CONFIG)
    metadata = msgspec.json.encode(MANY)
    tracemalloc.start()
    try:
        async with serve_session(
            Silence(),
            session_id="s",
            config=msgspec.json.decode(config, type=SessionConfig),
            metadata=msgspec.json.decode(metadata),
            close_timeout=0.001,
        ) as session:
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
            assert held < 3 * (len(config) + len(metadata))
            assert session.config == CONFIG
            assert session.metadata == MANY
    finally:
        tracemalloc.stop()
