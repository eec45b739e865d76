"""Sessions from the user's side: mint one, open one, or both at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Unpack

from ..errors import UnsupportedTransportError
from ..net.contexts import DeferredContext
from ..net.user_agent import USER_AGENT
from ..observe.observer import introduced
from ..protocol.connection import ClientConnection
from ..protocol.mint import (
    DEFAULT_SAMPLE_RATE,
    MAX_TTL_SECONDS,
    MintRequest,
    ProviderGrant,
    SampleRate,
    SessionGrant,
)
from .arguments import check_json, check_number, check_text, tool_list
from .config import session_config
from .opening import CoreOptions, SessionOptions, check_options, open_core
from .session import RealtimeSession
from .tools import AnyTool

if TYPE_CHECKING:
    # Not for whoever opens sessions that were minted elsewhere: it loads httpx, and all that that has.
    from .mint import AnyGrant, Mint


def open_session(
    grant: AnyGrant,
    *,
    tools: Iterable[AnyTool] = (),
    ttl_seconds: float | None = None,
    **options: Unpack[SessionOptions],
) -> AbstractAsyncContextManager[RealtimeSession, None]:
    """Open the session of a grant that was minted here or elsewhere; no API key is needed.

    A `ProviderGrant` is opened with the provider itself, on the service's account. Its credential goes there,
    and the service is told how long the session lasts.

    - `tools`: functions whose calls are to be answered here. What the model knows of them was declared when
      the session was minted.
    - `ttl_seconds`: how long the session may last, when known: gives an `Expiring` frame ahead of its end.
    - `options`: see `SessionOptions`.

    Raises `APIConnectionError` when the host is not reached, `HandshakeError` when it refuses the session or
    does not answer in time, `RemoteProtocolError` when what answers is no WebSocket server,
    `LocalProtocolError` when the grant's URL or token can't be used, TypeError for an unknown option or an
    object that is not a tool, `UnsupportedTransportError` for a session that is not over a WebSocket. A
    `stream` is closed then too. Exceptions of the body propagate unchanged. Cancelling the block ends the
    session at once, with a goodbye (1001, ``client_cancelled``) only if the transport takes it without
    waiting; leaving the block says goodbye first.
    """
    if isinstance(grant, ProviderGrant):
        # The dialects are loaded when they are needed.
        from .direct import open_provider_grant

        async def find() -> AbstractAsyncContextManager[RealtimeSession, None]:
            check_number("ttl_seconds", ttl_seconds)
            return open_provider_grant(grant, tools=tools, ttl_seconds=ttl_seconds, **options)

        return DeferredContext(find)

    def make_core(core_options: CoreOptions) -> ClientConnection:
        check_number("ttl_seconds", ttl_seconds)
        return ClientConnection(
            grant.ws_url,
            grant.ws_token,
            headers=[("User-Agent", USER_AGENT)],
            input_sample_rate=grant.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=grant.output_sample_rate or DEFAULT_SAMPLE_RATE,
            ttl=ttl_seconds,
            **core_options,
        )

    return open_core(
        make_core,
        grant.ws_url,
        session_id=grant.session_id,
        expires_at=grant.expires_at,
        tools=tools,
        secrets=(grant.ws_token,),
        **options,
    )


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

        Raises the `APIError` family, which has `UnsupportedTransportError` for a session straight with the
        provider (such a grant is not to be handed out: use `connect`), and `ConfigurationError` when
        `temperature` is not finite. Connection failures and 429, 502, 503 and 504 are tried again, with one
        ``Idempotency-Key``, up to ``max_retries`` times.
        """
        grant = await self._mint.create(
            _mint_request(
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
        )
        if isinstance(grant, ProviderGrant):
            details = f" ({grant.adapter}, {grant.provider_transport})"
            raise UnsupportedTransportError(grant.transport, details, "only `connect` can open")
        return grant

    open = staticmethod(open_session)
    """The same as `open_session`."""

    def connect(
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
    ) -> AbstractAsyncContextManager[RealtimeSession, None]:
        """Mint a session and hold it open for the block: `create_session` and `open` in one, also for what
        the API grants straight with a provider.

        See those two for the parameters and what they raise.
        """

        async def mint() -> AbstractAsyncContextManager[RealtimeSession, None]:
            check_options(options)
            options["observer"] = introduced(options.get("observer"), provider=provider, model=model)
            declared = tool_list(tools)
            grant = await self._mint.create(
                _mint_request(
                    provider=provider,
                    model=model,
                    voice=voice,
                    system_prompt=system_prompt,
                    temperature=temperature,
                    input_sample_rate=input_sample_rate,
                    output_sample_rate=output_sample_rate,
                    tools=declared,
                    metadata=metadata,
                    ttl_seconds=ttl_seconds,
                    agent_id=agent_id,
                    webhook_tags=webhook_tags,
                )
            )
            ttl = None if ttl_seconds is None else min(ttl_seconds, MAX_TTL_SECONDS)
            return self.open(grant, tools=declared, ttl_seconds=ttl, **options)

        return DeferredContext(mint)


def _mint_request(
    *,
    provider: str,
    model: str,
    voice: str | None,
    system_prompt: str | None,
    temperature: float | None,
    input_sample_rate: SampleRate | None,
    output_sample_rate: SampleRate | None,
    tools: Iterable[AnyTool],
    metadata: Mapping[str, Any] | None,
    ttl_seconds: int | None,
    agent_id: str | None,
    webhook_tags: Mapping[str, str] | None,
) -> MintRequest:
    check_json("metadata", metadata)
    check_json("webhook_tags", webhook_tags)
    check_number("ttl_seconds", ttl_seconds)
    check_text("agent_id", agent_id)
    config = session_config(
        provider=provider,
        model=model,
        voice=voice,
        system_prompt=system_prompt,
        temperature=temperature,
        input_sample_rate=input_sample_rate,
        output_sample_rate=output_sample_rate,
        tools=tools,
    )
    return MintRequest(
        mode="s2s",
        s2s=config,
        metadata=None if metadata is None else dict(metadata),
        ttl_seconds=ttl_seconds,
        agent_id=agent_id,
        webhook_tags=None if webhook_tags is None else dict(webhook_tags),
    )
