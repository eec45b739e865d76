"""Sessions straight with a provider, with no service between: over an account, or a service's grant."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar, Unpack
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from .._net.contexts import never_swallows
from .._net.event_loop import clock
from .._net.user_agent import USER_AGENT
from ..errors import UnsupportedTransportError
from ..protocol._client_core import ClientCore
from ..protocol.mint import DEFAULT_SAMPLE_RATE, ProviderGrant, ProviderParameters, SampleRate, SessionConfig
from ..providers._connection import PING_TIMEOUT, ProviderConnection, split_options
from ..providers._endpoint import Endpoint
from ..providers._options import Laborious
from ..providers._provider import PROVIDER_LIMITS, ProviderDialect
from ..providers.google import GoogleDialect, GoogleOptions, google_endpoint
from ..providers.google._config import configure
from ..providers.google._resumption import Carried
from ..providers.openai import OpenAIDialect, openai_endpoint
from ..providers.xai import XAIDialect, xai_endpoint
from ._mint import ADAPTERS
from ._open_core import CoreOptions, open_core
from ._parameters import OutputKind, SessionOptions, check_beginning, tool_list
from ._resampled import ResampledCore
from ._session import RealtimeSession
from ._telemetry import Telemetry
from .tools import AnyTool, Toolbox

logger: Final = logging.getLogger("speko_anyio")


def _openai(config: SessionConfig, *, quick: bool, **options: Any) -> ProviderDialect:
    return OpenAIDialect(config, **options)


def _xai(config: SessionConfig, *, quick: bool, **options: Any) -> ProviderDialect:
    return XAIDialect(config, **options)


def _google(config: SessionConfig, *, quick: bool, **options: Any) -> ProviderDialect:
    carried = Carried(configure(config, GoogleOptions(), quick=quick))
    return GoogleDialect(config, carried=carried, **options)


_DIALECTS: Final[dict[str, Callable[..., ProviderDialect]]] = {
    "openai.realtime.v1": _openai,
    "xai.realtime.v1": _xai,
    "google.live.v1": _google,
}
"""What makes the dialect of a session, by the adapter that a grant names; `quick`: see `convert`."""

_CONVERTING_THREADS: Final = 2
"""Configurations that are converted at a time: each thread competes with the event loop."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_limiter: Final = RunVar[anyio.CapacityLimiter]("speko_anyio_converting")


class _Convert(Protocol[T_co]):
    def __call__(self, *, quick: bool) -> T_co: ...


async def convert(work: _Convert[T]) -> T:
    """Return what `work` returns: at once if it is quick, else from a worker thread.

    `work` is called with ``quick=True`` first, and raises `Laborious` if it takes long. Cancelling abandons
    the thread, which ends soon.
    """
    try:
        return work(quick=True)
    except Laborious:
        pass
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_CONVERTING_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(
        functools.partial(work, quick=False), abandon_on_cancel=True, limiter=limiter
    )


_LONGEST_SESSION: Final = 7 * 24 * 3600
"""Seconds: no provider lets a session last a week."""

HEADERS: Final = (("User-Agent", USER_AGENT),)
"""Headers of the opening request to a provider."""


def open_connection(
    make_connection: Callable[[CoreOptions], Awaitable[ProviderConnection]],
    endpoint: Endpoint,
    config: SessionConfig,
    *,
    session_id: str,
    expires_at: str = "",
    tools: Iterable[AnyTool],
    **options: Unpack[SessionOptions],
) -> AbstractAsyncContextManager[RealtimeSession, None]:
    """Open a provider's core with its limits, at the rates of `config`; see `open_core`.

    Logs what the provider can't honour. `LocalProtocolError` if it takes no history or greeting, ImportError
    if audio must be resampled and soxr is not installed.
    """

    async def make_core(core_options: CoreOptions) -> ClientCore:
        core = await make_connection(core_options)
        for note in core.dialect.notes:
            logger.warning("session %s: %s", session_id, note)
        check_beginning(core.capabilities, options.get("history", ()), options.get("greeting"))
        own = core.input_sample_rate, core.output_sample_rate
        wanted = config.input_sample_rate or own[0], config.output_sample_rate or own[1]
        if wanted == own:
            return core
        return ResampledCore(core, input_sample_rate=wanted[0], output_sample_rate=wanted[1])

    options.setdefault("limits", PROVIDER_LIMITS)
    options.setdefault("ping_timeout", PING_TIMEOUT)
    return open_core(
        make_core,
        endpoint.url,
        session_id=session_id,
        expires_at=expires_at,
        tools=tools,
        secrets=endpoint.secrets,
        **options,
    )


@never_swallows
async def open_provider_grant(
    grant: ProviderGrant,
    *,
    tools: Iterable[AnyTool] = (),
    ttl_seconds: float | None = None,
    output: OutputKind = "audio",
    **options: Unpack[SessionOptions],
) -> AsyncGenerator[RealtimeSession, None]:
    """`open_session` for a `ProviderGrant`. `UnsupportedTransportError` when it is not over a WebSocket."""
    if grant.provider_transport != "websocket" or grant.adapter not in ADAPTERS:
        raise UnsupportedTransportError(grant.transport, f" ({grant.adapter}, {grant.provider_transport})")
    tools = tool_list(tools)
    config = _config(grant, tools, output)
    endpoint = _endpoint(grant)
    ttl = ttl_seconds
    if grant.reservation is not None:
        # An integer of JSON may be too large for a clock.
        reserved = max(0, min(grant.reservation.authorized_duration_seconds, _LONGEST_SESSION))
        ttl = min(reserved, ttl_seconds or float("inf"))

    async def make_connection(core_options: CoreOptions) -> ProviderConnection:
        transport, rest = split_options(clock=clock(), headers=HEADERS, **core_options)
        dialect = await convert(functools.partial(_DIALECTS[grant.adapter], config, ttl=ttl, **rest))
        return ProviderConnection(endpoint, dialect, **transport)

    telemetry = None if grant.telemetry is None else Telemetry(grant, grant.telemetry)
    opening = open_connection(
        make_connection,
        endpoint,
        config,
        session_id=grant.session_id,
        expires_at=grant.expires_at,
        tools=tools,
        **options,
    )
    opened = False
    try:
        async with opening as session:
            opened = True
            if telemetry is not None:
                session._lifetime.spawn(telemetry.run)
            yield session
    finally:
        if telemetry is not None and opened:
            await telemetry.finish()


def _config(grant: ProviderGrant, tools: tuple[AnyTool, ...], output: OutputKind) -> SessionConfig:
    parameters = grant.session or ProviderParameters()
    declared = Toolbox(tools).specs if parameters.tools is None else parameters.tools
    return SessionConfig(
        provider=grant.provider,
        model=grant.model,
        voice=parameters.voice,
        system_prompt=parameters.instructions,
        temperature=parameters.temperature,
        input_sample_rate=_rate(grant.input_sample_rate),
        output_sample_rate=_rate(grant.output_sample_rate),
        tools=declared,
        output=None if output == "audio" else output,
    )


def _rate(rate: int) -> SampleRate:
    return 16000 if rate == 16000 else DEFAULT_SAMPLE_RATE


def _endpoint(grant: ProviderGrant) -> Endpoint:
    key = grant.credential.value
    # The endpoint's `model` is the provider's own name for it.
    model = dict(parse_qsl(grant.endpoint.partition("?")[2])).get("model", grant.model)
    if grant.adapter == "xai.realtime.v1":
        return xai_endpoint(key, model, base_url=grant.endpoint, path="", auth="subprotocol")
    if grant.adapter == "google.live.v1":
        return google_endpoint(key, base_url=grant.endpoint, path="", auth="token")
    return openai_endpoint(key, model, base_url=grant.endpoint, path="")
