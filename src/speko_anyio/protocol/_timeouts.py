"""The timeouts of a session, in seconds."""

from __future__ import annotations

from typing import Final

import msgspec


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Seconds to wait in one session; the defaults suit speech over the public internet."""

    connect: float = 10.0
    """For looking up the host, connecting and TLS, all of it also through a proxy."""

    handshake: float = 10.0
    """For the peer's part of the WebSocket handshake."""

    ready: float = 10.0
    """From the opening until a provider must have accepted the session's configuration."""

    ping_interval: float | None = 20.0
    """Of silence after which a ping is sent; None for no keepalive. 20 is the default of `websockets`, and
    less than the 60 after which proxies usually drop an idle connection."""

    ping_timeout: float = 20.0
    """After a ping for any sign of life; then the connection is lost."""

    close: float = 5.0
    """For the peer's answer to our close."""

    warn_before: float = 60.0
    """Before the session's known end, at which `Expiring` is delivered."""


DEFAULT_TIMEOUTS: Final = Timeouts()
