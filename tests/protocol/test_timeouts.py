"""The default timeouts: one place, which every constructor takes them from."""

from __future__ import annotations

import inspect

import pytest

from speko_anyio.protocol import (
    DEFAULT_TIMEOUTS,
    ClientConnection,
    ClientProtocol,
    ServerConnection,
    ServerProtocol,
    Timeouts,
    WebSocketCore,
)


def test_the_documented_defaults() -> None:
    assert (
        Timeouts(
            connect=10.0,
            handshake=10.0,
            ready=10.0,
            ping_interval=20.0,
            ping_timeout=20.0,
            close=5.0,
            warn_before=60.0,
        )
        == DEFAULT_TIMEOUTS
    )


@pytest.mark.parametrize(
    "kind", [ClientConnection, ServerConnection, ClientProtocol, ServerProtocol, WebSocketCore]
)
def test_constructors_have_them(kind: type) -> None:
    names = {
        "handshake_timeout": DEFAULT_TIMEOUTS.handshake,
        "ping_interval": DEFAULT_TIMEOUTS.ping_interval,
        "ping_timeout": DEFAULT_TIMEOUTS.ping_timeout,
        "close_timeout": DEFAULT_TIMEOUTS.close,
        "warn_before": DEFAULT_TIMEOUTS.warn_before,
    }
    parameters = inspect.signature(kind).parameters
    found = {name: parameters[name].default for name in names if name in parameters}
    assert found
    assert found == {name: names[name] for name in found}


def test_they_do_not_change() -> None:
    with pytest.raises(AttributeError):
        DEFAULT_TIMEOUTS.close = 1.0  # type: ignore[misc]
