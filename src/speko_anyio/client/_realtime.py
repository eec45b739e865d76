"""Mints sessions, opens them, or both at once."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Unpack

from .._net.contexts import DeferredContext
from .._net.event_loop import preload
from .._net.user_agent import USER_AGENT
from .._observe.observer import with_provider
from ..errors import UnsupportedTransportError
from ..protocol._connection import ClientConnection
from ..protocol.mint import DEFAULT_SAMPLE_RATE, MAX_TTL_SECONDS, ProviderGrant, SessionGrant
from ._open_core import CoreOptions, open_core
from ._parameters import (
    ConnectParameters,
    MintParameters,
    OutputKind,
    SessionOptions,
    check_minted,
    check_number,
    check_options,
    mint_request,
    options_beside,
    tool_list,
)
from ._session import RealtimeSession
from .tools import AnyTool

if TYPE_CHECKING:
    # Imported for type checking only: it loads httpx, which a session that was minted elsewhere does not
    # need.
    from ._mint import AnyGrant, MintClient


def open_session(
    grant: AnyGrant,
    *,
    tools: Iterable[AnyTool] = (),
    ttl_seconds: float | None = None,
    output: OutputKind = "audio",
    **options: Unpack[SessionOptions],
) -> AbstractAsyncContextManager[RealtimeSession, None]:
    """Open the session of a grant that was minted here or elsewhere; no API key is needed.

    A `ProviderGrant` opens a session straight with the provider, on the service's account. Its credential is
    sent there, and the length of the session is reported to the service.

    - `tools`: functions that answer the model's calls. They must have been declared when the session was
      minted.
    - `ttl_seconds`: how long the session may last, if known: an `Expiring` frame precedes its end.
    - `output`: how the assistant answers, for a `ProviderGrant` only; for others the mint has fixed it.
    - `options`: see `SessionOptions`.

    Raises `APIConnectionError` when the host can't be reached, `HandshakeError` when it refuses the session
    or does not answer in time, `RemoteProtocolError` when what answers is not a WebSocket server,
    `LocalProtocolError` when the grant's URL or token can't be used or the service takes no `history` or
    `greeting`, TypeError for an unknown option or an object that is not a tool, `UnsupportedTransportError`
    for a session that is not over a WebSocket. A `stream` is closed then too. Exceptions of the body
    propagate unchanged. Cancelling the block ends the session at once, with a goodbye (1001,
    ``client_cancelled``) only if the transport takes it without waiting; leaving the block says goodbye
    first.
    """
    if isinstance(grant, ProviderGrant):

        async def find() -> AbstractAsyncContextManager[RealtimeSession, None]:
            check_number("ttl_seconds", ttl_seconds)
            # Only here, since it loads the dialects.
            await preload(f"{__package__}._direct")
            from ._direct import open_provider_grant

            return open_provider_grant(grant, tools=tools, ttl_seconds=ttl_seconds, output=output, **options)

        return DeferredContext(find)

    def make_core(core_options: CoreOptions) -> ClientConnection:
        check_number("ttl_seconds", ttl_seconds)
        if output != "audio":
            raise TypeError("output is fixed when a session is minted: pass it to connect or create_session")
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

    def __init__(self, mint: MintClient) -> None:
        self._mint = mint

    async def create_session(
        self, *, provider: str, model: str, **parameters: Unpack[MintParameters]
    ) -> SessionGrant:
        """Mint a session without opening it: hand the grant to a browser, or to `open` within its time.

        - `provider`: ``openai``, ``google``, ``xai``, or another the service knows; `model` and `voice` are
          the provider's own names.
        - `input_sample_rate`, `output_sample_rate`: 16000 or 24000 samples a second.
        - `tools`: what the model may call; functions are declared here and answered by `open`.
        - `output`: ``text`` for written answers.
        - `metadata`: free form, stored with the session.
        - `ttl_seconds`: how long the session may last; the server caps it at 1800.

        Raises the `APIError` family, which has `UnsupportedTransportError` for a session straight with the
        provider (such a grant is not to be handed out: use `connect`), `ConfigurationError` when
        `temperature` is not finite, and TypeError for an unknown parameter. Connection failures and 429, 502,
        503 and 504 are retried, with one ``Idempotency-Key``, up to ``max_retries`` times.
        """
        check_minted(parameters)
        grant = await self._mint.create(mint_request(provider, model, parameters))
        if isinstance(grant, ProviderGrant):
            details = f" ({grant.adapter}, {grant.provider_transport})"
            raise UnsupportedTransportError(grant.transport, details, "only `connect` can open")
        return grant

    def open(
        self,
        grant: AnyGrant,
        *,
        tools: Iterable[AnyTool] = (),
        ttl_seconds: float | None = None,
        output: OutputKind = "audio",
        **options: Unpack[SessionOptions],
    ) -> AbstractAsyncContextManager[RealtimeSession, None]:
        """Open the session of a grant: the same as `open_session`."""
        return open_session(grant, tools=tools, ttl_seconds=ttl_seconds, output=output, **options)

    def connect(
        self, *, provider: str, model: str, **parameters: Unpack[ConnectParameters]
    ) -> AbstractAsyncContextManager[RealtimeSession, None]:
        """Mint a session and hold it open for the block: `create_session` and `open` in one.

        It also opens sessions that the API grants straight with a provider. The parameters are those of
        `create_session` and `SessionOptions`; it raises what `create_session` and `open` raise.
        """

        async def mint() -> AbstractAsyncContextManager[RealtimeSession, None]:
            options = options_beside(MintParameters, parameters)
            check_options(options)
            options["observer"] = with_provider(options.get("observer"), provider=provider, model=model)
            # Once: an iterator would be empty the second time.
            parameters["tools"] = tools = tool_list(parameters.get("tools", ()))
            grant = await self._mint.create(mint_request(provider, model, parameters))
            ttl = parameters.get("ttl_seconds")
            if ttl is not None:
                ttl = min(ttl, MAX_TTL_SECONDS)
            # Any other grant has it from the request.
            output = parameters.get("output", "audio") if isinstance(grant, ProviderGrant) else "audio"
            return self.open(grant, tools=tools, ttl_seconds=ttl, output=output, **options)

        return DeferredContext(mint)
