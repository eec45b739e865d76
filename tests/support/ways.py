"""The ways in which a gateway's sessions come in."""

from __future__ import annotations

from typing import Any, Final

import pytest

from speko_anyio.gateway import _uvicorn_server

BYTES: Final = "bytes"
"""Our own core over the transport."""

WAYS: Final = (BYTES, "websockets-sansio", "wsproto")
"""The others are uvicorn's WebSockets, with ASGI in between."""


def come_in_by(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `running_gateway` and `serve` take sessions in that way from here on."""
    wrapped: Any = _uvicorn_server.running_gateway
    monkeypatch.setitem(wrapped.__wrapped__.__kwdefaults__, "over_asgi", way != BYTES)
    if way != BYTES:
        monkeypatch.setattr(_uvicorn_server, "WEBSOCKETS", way)
