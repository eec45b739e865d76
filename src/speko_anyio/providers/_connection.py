"""A provider's dialect over the bytes of a WebSocket, used like `ClientConnection`.

The contract is the same: write `data_to_send`, pass received bytes to `receive_data`, take `next_event`. The
opening request is queued at once; the session's configuration follows the handshake automatically, and from
then on every verb may be used, also before `Ready`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypedDict, Unpack, cast

from ..protocol._client_websocket import ClientWebSocket
from ..protocol._headers import Headers
from ..protocol._masking import Entropy
from ..protocol._state import State
from ..protocol._timeouts import DEFAULT_TIMEOUTS
from ._endpoint import Endpoint
from ._provider import DialectOptions, ProviderDialect

PING_TIMEOUT: Final = 60.0
"""Seconds to wait for a sign of life after a ping: Gemini's pongs have been seen to take 30."""


class TransportOptions(TypedDict, total=False):
    """Options of the WebSocket; every time is in seconds."""

    headers: Headers
    """Further HTTP fields of the opening request, such as User-Agent."""
    handshake_timeout: float
    """For the provider's answer to the WebSocket request; default 10."""
    ping_interval: float | None
    """Silence after which a ping is sent; None for no keepalive; default 20."""
    ping_timeout: float
    """For any sign of life after a ping; default `PING_TIMEOUT`."""
    clock: Callable[[], float] | None
    """Returns the seconds of a clock that never goes back, which makes the truncation of interrupted audio
    exact. Without it, audio counts as heard when it arrives; see `HeardEstimate`."""
    entropy: Entropy
    """Source of masking keys and the handshake's nonce; default `os.urandom`."""


class ConnectionOptions(TransportOptions, DialectOptions, total=False):
    """What `Provider.connection` takes for any provider."""


def split_options(**options: Unpack[ConnectionOptions]) -> tuple[TransportOptions, DialectOptions]:
    """Split `options` into those of the connection and those of its dialect.

    The dialect's also include the state in which it begins inside a connection.
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

    See `TransportOptions` for the other parameters.
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
            advice=endpoint.advice,
            handshake_timeout=transport.get("handshake_timeout", DEFAULT_TIMEOUTS.handshake),
            ping_interval=transport.get("ping_interval", DEFAULT_TIMEOUTS.ping_interval),
            ping_timeout=transport.get("ping_timeout", PING_TIMEOUT),
            entropy=transport.get("entropy", os.urandom),
        )
        clock = transport.get("clock")
        if clock is not None:
            dialect.playback.follow(clock)
