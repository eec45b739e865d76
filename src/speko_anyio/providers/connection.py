"""A provider's dialect over the bytes of a WebSocket: to be driven as `ClientConnection` is.

The same contract: write `data_to_send`, give what is read to `receive_data`, take `next_event`. The opening
request is queued at once; the session's configuration follows the handshake by itself, and everything may be
sent from then on, also before `Ready`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypedDict, Unpack, cast

from ..protocol.client_websocket import ClientWebSocket
from ..protocol.headers import Headers
from ..protocol.masking import Entropy
from ..protocol.state import State
from ..protocol.timeouts import DEFAULT_TIMEOUTS
from .endpoint import Endpoint
from .provider import DialectOptions, ProviderDialect

PING_TIMEOUT: Final = 60.0
"""Seconds to wait for a sign of life after a ping: Gemini's pongs have been seen to take 30."""


class TransportOptions(TypedDict, total=False):
    """How to hold the WebSocket; every time is in seconds."""

    headers: Headers
    """Further HTTP fields of the opening request, such as User-Agent."""
    handshake_timeout: float
    """For the provider's answer to the WebSocket request; default 10."""
    ping_interval: float | None
    """Silence after which a ping is sent; None for no keepalive; default 20."""
    ping_timeout: float
    """For any sign of life after a ping; default `PING_TIMEOUT`."""
    clock: Callable[[], float] | None
    """Seconds of a clock that never goes back: makes the truncation of interrupted audio exact. None: audio
    counts as heard when it comes; see `HeardEstimate`."""
    entropy: Entropy
    """Where masking keys and the handshake's nonce come from; default `os.urandom`."""


class ConnectionOptions(TransportOptions, DialectOptions, total=False):
    """What `Provider.connection` takes for any provider."""


def split_options(**options: Unpack[ConnectionOptions]) -> tuple[TransportOptions, DialectOptions]:
    """Return what of `options` is for the connection, and the rest, which is for its dialect.

    The rest also has the state in which a dialect in a connection begins.
    """
    transport: dict[str, object] = {}
    dialect: dict[str, object] = {"state": State.CONNECTING}
    for name, value in options.items():
        if name in TransportOptions.__annotations__:
            transport[name] = value
        elif name != "state":
            dialect[name] = value
    return cast("TransportOptions", transport), cast("DialectOptions", dialect)


class ProviderConnection(ClientWebSocket[ProviderDialect]):
    """A client of a provider over a byte stream.

    - `endpoint`: where and how to connect, such as from `openai_endpoint`.
    - `dialect`: the provider's, fresh, in the state CONNECTING.

    See `TransportOptions` for the others.
    """

    def __init__(
        self, endpoint: Endpoint, dialect: ProviderDialect, **transport: Unpack[TransportOptions]
    ) -> None:
        super().__init__(
            dialect,
            endpoint.url,
            subprotocols=endpoint.subprotocols,
            headers=[*transport.get("headers", ()), *endpoint.headers],
            secrets=endpoint.secrets,
            advice="check the API key and the model, and that the account may use it",
            handshake_timeout=transport.get("handshake_timeout", DEFAULT_TIMEOUTS.handshake),
            ping_interval=transport.get("ping_interval", DEFAULT_TIMEOUTS.ping_interval),
            ping_timeout=transport.get("ping_timeout", PING_TIMEOUT),
            entropy=transport.get("entropy", os.urandom),
        )
        clock = transport.get("clock")
        if clock is not None:
            dialect.playback.follow(clock)
