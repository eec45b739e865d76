"""Sessions from the user's side: mint one, open one, or both at once."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, TypedDict, Unpack

import anyio
from anyio.abc import ByteStream

from ..protocol.connection import ClientConnection
from ..protocol.limits import DEFAULT_LIMITS, Limits
from ..protocol.mint import (
    DEFAULT_SAMPLE_RATE,
    MAX_TTL_SECONDS,
    MintRequest,
    SampleRate,
    SessionConfig,
    SessionGrant,
)
from ..protocol.url import parse_url
from .block import block
from .delivery import DEFAULT_MAX_BUFFER
from .errors import ConfigurationError
from .mint import USER_AGENT, Mint
from .session import RealtimeSession
from .tools import AnyTool, Toolbox
from .transport import dial


class SessionOptions(TypedDict, total=False):
    """How to hold a session, beside what it is; every time is in seconds."""

    stream: ByteStream | None
    """A byte stream to the server to use instead of connecting; the session owns it and closes it."""
    ssl_context: ssl.SSLContext | None
    """For ``wss``; by default one that trusts what the system trusts."""
    connect_timeout: float
    """For looking up the host, connecting and TLS; default 10."""
    handshake_timeout: float
    """For the server's answer to the WebSocket request; default 10."""
    close_timeout: float
    """For the peer's answer to the goodbye, and for handlers to take what is left; default 5."""
    ping_interval: float | None
    """Silence after which a ping is sent; None for no keepalive; default 20."""
    ping_timeout: float
    """For any sign of life after a ping; then the session is lost; default 20."""
    warn_before: float
    """How long before its end by `ttl_seconds` a session gives `Expiring`; default 60."""
    max_buffer: int
    """Bytes of undelivered frames at which the socket is no longer read; default 3 MiB, which is about a
    minute of 24 kHz audio. A consumer slower than that holds up the server, and its interruptions wait in
    the socket."""
    limits: Limits
    """Bounds on what the peer may send."""


def _check_names(options: Mapping[str, object]) -> None:
    known = SessionOptions.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"there is no session option {name!r}; the options are {', '.join(known)}")


@block
async def open_session(
    grant: SessionGrant,
    *,
    tools: Iterable[AnyTool] = (),
    ttl_seconds: float | None = None,
    **options: Unpack[SessionOptions],
) -> AsyncGenerator[RealtimeSession, None]:
    """Open the session of a grant that was minted here or elsewhere; no API key is needed.

    - `tools`: functions whose calls are to be answered here. What the model knows of them was declared when
      the session was minted.
    - `ttl_seconds`: how long the session may last, when known: gives an `Expiring` frame ahead of its end.
    - `options`: see `SessionOptions`.

    Raises `APIConnectionError` when the host is not reached, `HandshakeError` when it refuses the session
    or does not answer in time, `RemoteProtocolError` when what answers is no WebSocket server,
    `LocalProtocolError` when the grant's URL or token can't be used, TypeError for an option that there is
    not or what is no tool. A `stream` is closed then too. An exception of the body comes out as
    it is. Cancelling the block ends the session at once; leaving it says goodbye first.
    """
    stream = options.get("stream")
    try:
        _check_names(options)
        toolbox = Toolbox(tools)
        close_timeout = options.get("close_timeout", 5.0)
        core = ClientConnection(
            grant.ws_url,
            grant.ws_token,
            headers=[("User-Agent", USER_AGENT)],
            input_sample_rate=grant.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=grant.output_sample_rate or DEFAULT_SAMPLE_RATE,
            limits=options.get("limits", DEFAULT_LIMITS),
            handshake_timeout=options.get("handshake_timeout", 10.0),
            ping_interval=options.get("ping_interval", 20.0),
            ping_timeout=options.get("ping_timeout", 20.0),
            close_timeout=close_timeout,
            ttl=ttl_seconds,
            warn_before=options.get("warn_before", 60.0),
        )
        if stream is None:
            stream = await dial(
                parse_url(grant.ws_url),
                connect_timeout=options.get("connect_timeout", 10.0),
                ssl_context=options.get("ssl_context"),
            )
        session = RealtimeSession(
            core,
            stream,
            session_id=grant.session_id,
            expires_at=grant.expires_at,
            toolbox=toolbox,
            close_timeout=close_timeout,
            max_buffer=options.get("max_buffer", DEFAULT_MAX_BUFFER),
        )
        await session._shake_hands()
    except BaseException:
        if stream is not None:
            await anyio.aclose_forcefully(stream)
        raise
    async with session._run():
        yield session


class Realtime:
    """Sessions of one API: `Speko.realtime`."""

    def __init__(self, mint: Mint) -> None:
        self._mint = mint

    async def create_session(
        self,
        *,
        provider: str,
        model: str,
        voice: str | None = None,
        system_prompt: str | None = None,
        temperature: float | None = None,
        input_sample_rate: SampleRate | None = None,
        output_sample_rate: SampleRate | None = None,
        tools: Iterable[AnyTool] = (),
        metadata: Mapping[str, Any] | None = None,
        ttl_seconds: int | None = None,
        agent_id: str | None = None,
        webhook_tags: Mapping[str, str] | None = None,
    ) -> SessionGrant:
        """Mint a session without opening it: hand the grant to a browser, or to `open` within its time.

        - `provider`: ``openai``, ``google``, ``xai``, or another the service knows; `model` and `voice` are
          the provider's own names.
        - `input_sample_rate`, `output_sample_rate`: 16000 or 24000 samples a second.
        - `tools`: what the model may call; functions are declared here and answered by `open`.
        - `metadata`: free form, stored with the session.
        - `ttl_seconds`: how long the session may last; the server caps it at 1800.

        Raises the `APIError` family, and `ConfigurationError` when `temperature` is not finite. Connection
        failures and 429, 502, 503 and 504 are tried again, with one
        ``Idempotency-Key``, up to ``max_retries`` times.
        """
        if temperature is not None and not math.isfinite(temperature):
            raise ConfigurationError(f"the temperature is {temperature}; pass a finite number, or None")
        config = SessionConfig(
            provider=provider,
            model=model,
            voice=voice,
            system_prompt=system_prompt,
            temperature=temperature,
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            tools=Toolbox(tools).specs,
        )
        return await self._mint.create(
            MintRequest(
                mode="s2s",
                s2s=config,
                metadata=None if metadata is None else dict(metadata),
                ttl_seconds=ttl_seconds,
                agent_id=agent_id,
                webhook_tags=None if webhook_tags is None else dict(webhook_tags),
            )
        )

    open = staticmethod(open_session)

    @block
    async def connect(
        self,
        *,
        provider: str,
        model: str,
        voice: str | None = None,
        system_prompt: str | None = None,
        temperature: float | None = None,
        input_sample_rate: SampleRate | None = None,
        output_sample_rate: SampleRate | None = None,
        tools: Iterable[AnyTool] = (),
        metadata: Mapping[str, Any] | None = None,
        ttl_seconds: int | None = None,
        agent_id: str | None = None,
        webhook_tags: Mapping[str, str] | None = None,
        **options: Unpack[SessionOptions],
    ) -> AsyncGenerator[RealtimeSession, None]:
        """Mint a session and hold it open for the block: `create_session` and `open` in one.

        See those two for the parameters and what they raise.
        """
        _check_names(options)
        tools = tuple(tools)
        grant = await self.create_session(
            provider=provider,
            model=model,
            voice=voice,
            system_prompt=system_prompt,
            temperature=temperature,
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            tools=tools,
            metadata=metadata,
            ttl_seconds=ttl_seconds,
            agent_id=agent_id,
            webhook_tags=webhook_tags,
        )
        ttl = None if ttl_seconds is None else min(ttl_seconds, MAX_TTL_SECONDS)
        async with self.open(grant, tools=tools, ttl_seconds=ttl, **options) as session:
            yield session
