"""The providers' dialects over the bytes of a WebSocket: to be driven as `ClientConnection` is.

The same contract: write `data_to_send`, give what is read to `receive_data`, take `next_event`. The opening
request is queued at once; the session's configuration follows the handshake by itself, and everything may be
sent from then on, also before `Ready`.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable
from typing import Final, TypedDict, Unpack, cast

from ..protocol import framing
from ..protocol.client_byte_level import ClientByteLevel
from ..protocol.dialect import Message
from ..protocol.frames import Frame
from ..protocol.headers import Headers
from ..protocol.limits import Limits
from ..protocol.masking import Entropy
from ..protocol.mint import SessionConfig
from ..protocol.state import State
from .endpoint import Endpoint
from .google import GoogleDialect, GoogleOptions
from .openai import SESSION_SECONDS, OpenAIDialect, OpenAIOptions
from .provider import PROVIDER_LIMITS, ProviderDialect
from .xai import XAIDialect, XAIOptions

_OPENAI_DEFAULTS: Final = OpenAIOptions()
_XAI_DEFAULTS: Final = XAIOptions()
_GOOGLE_DEFAULTS: Final = GoogleOptions()


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


class ConnectionOptions(TransportOptions, total=False):
    """What the connections of all providers take."""

    limits: Limits
    close_timeout: float
    ready_timeout: float
    warn_before: float


class ProviderConnection(ClientByteLevel[Frame], ProviderDialect, abc.ABC):
    """Adds bytes to a provider's dialect. Put it before the dialect in the bases; call `_connect` last."""

    _refusal_advice = "check the API key and the model, and that the account may use it"

    def _connect(self, endpoint: Endpoint, options: TransportOptions) -> None:
        self._start_client(
            endpoint.url,
            subprotocols=endpoint.subprotocols,
            headers=[*options.get("headers", ()), *endpoint.headers],
            secrets=endpoint.secrets,
            entropy=options.get("entropy", os.urandom),
            handshake_timeout=options.get("handshake_timeout", 10.0),
            ping_interval=options.get("ping_interval", 20.0),
            ping_timeout=options.get("ping_timeout", PING_TIMEOUT),
        )
        clock = options.get("clock")
        if clock is not None:
            self.playback.follow(clock)

    # Text is framed when it is taken, not when it is queued: a dialect may take back what nobody took, and
    # has to recognise it.

    def _put(self, message: Message) -> None:
        if isinstance(message, str):
            self._outbox.append(message)
        else:
            super()._put(message)

    def data_to_send(self) -> bytes:
        queued = cast("list[str | bytes]", self._outbox[:])
        self._outbox.clear()
        for item in queued:
            if isinstance(item, str):
                self._put_frame(framing.TEXT, item.encode())
            else:
                self._outbox.append(item)
        return super().data_to_send()


class OpenAIConnection(ProviderConnection, OpenAIDialect):
    """A client of OpenAI, or of a server that speaks its protocol, over a byte stream.

    `endpoint` is of `openai_endpoint`; see `TransportOptions` for `transport`. The remaining parameters are
    those of `OpenAIDialect`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        config: SessionConfig,
        *,
        options: OpenAIOptions = _OPENAI_DEFAULTS,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = 5.0,
        ready_timeout: float = 10.0,
        ttl: float | None = SESSION_SECONDS,
        warn_before: float = 60.0,
        **transport: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            config,
            options=options,
            limits=limits,
            close_timeout=close_timeout,
            ready_timeout=ready_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=State.CONNECTING,
        )
        self._connect(endpoint, transport)


class XAIConnection(ProviderConnection, XAIDialect):
    """A client of xAI over a byte stream.

    `endpoint` is of `xai_endpoint`; see `TransportOptions` for `transport`. The remaining parameters are
    those of `XAIDialect`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        config: SessionConfig,
        *,
        options: XAIOptions = _XAI_DEFAULTS,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = 5.0,
        ready_timeout: float = 10.0,
        ttl: float | None = None,
        warn_before: float = 60.0,
        **transport: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            config,
            options=options,
            limits=limits,
            close_timeout=close_timeout,
            ready_timeout=ready_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=State.CONNECTING,
        )
        self._connect(endpoint, transport)


class GoogleConnection(ProviderConnection, GoogleDialect):
    """A client of Gemini Live over a byte stream.

    `endpoint` is of `google_endpoint`; see `TransportOptions` for `transport`. The remaining parameters are
    those of `GoogleDialect`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        config: SessionConfig,
        *,
        options: GoogleOptions = _GOOGLE_DEFAULTS,
        resumption_handle: str | None = None,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = 5.0,
        ready_timeout: float = 10.0,
        ttl: float | None = None,
        warn_before: float = 60.0,
        **transport: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            config,
            options=options,
            resumption_handle=resumption_handle,
            limits=limits,
            close_timeout=close_timeout,
            ready_timeout=ready_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=State.CONNECTING,
        )
        self._connect(endpoint, transport)
