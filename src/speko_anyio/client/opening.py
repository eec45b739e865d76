"""Opening a session: any core that speaks WebSocket as a client, over a transport, in the user's hands."""

from __future__ import annotations

import difflib
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, TypedDict, Unpack

import anyio
from anyio.abc import ByteStream

from ..net.contexts import SessionBlock
from ..net.dialing import dial
from ..net.driver import Driver
from ..net.proxies import ProxyOption
from ..net.stream_driver import StreamDriver
from ..observe.observer import Observers
from ..observe.watching import Audience, audience_of
from ..protocol.limits import DEFAULT_LIMITS, Limits
from ..protocol.url import parse_url
from .arguments import check_number, tool_list
from .delivery import DEFAULT_MAX_BUFFER
from .pump import ClientCore
from .session import RealtimeSession
from .tools import AnyTool, Toolbox, ToolErrors


class SessionOptions(TypedDict, total=False):
    """How to hold a session, beside what it is; every time is in seconds."""

    stream: ByteStream | None
    """A byte stream to the server to use instead of connecting; the session owns it and closes it."""
    ssl_context: ssl.SSLContext | None
    """For ``wss`` and ``https://`` proxies; by default one that trusts what the system trusts."""
    proxy: ProxyOption
    """The proxy to connect through: ``http://``, ``https://`` or ``socks5://`` with ``user:password@`` where
    it asks for that, or None to connect directly. By default, True, the environment names it: ``HTTPS_PROXY``
    for ``wss``, ``HTTP_PROXY`` for ``ws``, else ``ALL_PROXY``, but for hosts in ``NO_PROXY``."""
    connect_timeout: float
    """For looking up the host, connecting and TLS, all of it also through a proxy; default 10."""
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
    tool_errors: ToolErrors
    """Where the exception of a tool's function goes, beside the text that the model gets: ``log`` (default),
    or ``raise``: it ends the session and comes out of its ``async with``."""
    observer: Observers
    """Makes a `SessionObserver` that is told of everything in the session, such as
    `speko_anyio.otel.OpenTelemetry`; or a list of several."""


class CoreOptions(TypedDict):
    """The part of `SessionOptions` that is the core's business: keywords that every byte-level client core
    takes. See `ClientConnection`."""

    limits: Limits
    handshake_timeout: float
    ping_interval: float | None
    ping_timeout: float
    close_timeout: float
    warn_before: float


_NUMBERS: Final = (
    "connect_timeout",
    "handshake_timeout",
    "close_timeout",
    "ping_interval",
    "ping_timeout",
    "warn_before",
    "max_buffer",
)

_MINTED: Final = (
    "provider",
    "model",
    "voice",
    "system_prompt",
    "temperature",
    "input_sample_rate",
    "output_sample_rate",
    "tools",
    "metadata",
    "ttl_seconds",
    "agent_id",
    "webhook_tags",
)
"""Parameters of `Realtime.connect`, which are settled when a session is minted."""

_HABITS: Final = {
    "instructions": "system_prompt",
    "system": "system_prompt",
    "system_instruction": "system_prompt",
    "prompt": "system_prompt",
    "speaker": "voice",
    "voice_id": "voice",
    "functions": "tools",
    "sample_rate": "input_sample_rate",
    "rate": "input_sample_rate",
    "input_rate": "input_sample_rate",
    "output_rate": "output_sample_rate",
    "timeout": "connect_timeout",
    "open_timeout": "connect_timeout",
    "ttl": "ttl_seconds",
    "max_duration": "ttl_seconds",
    "max_queue": "max_buffer",
    "buffer_size": "max_buffer",
    "ssl": "ssl_context",
    "verify": "ssl_context",
    "proxies": "proxy",
    "observers": "observer",
    "tags": "webhook_tags",
}
"""What other libraries call our parameters."""


def check_options(options: SessionOptions) -> None:
    """TypeError or ValueError, in words that name it, for an option that is unknown or can't be used."""
    for name in options:
        if name not in SessionOptions.__annotations__:
            raise TypeError(f"unknown session option {name!r}; {_hint(name)}")
    for name in _NUMBERS:
        check_number(name, options.get(name))
    proxy = options.get("proxy")
    if not (proxy is None or proxy is True or isinstance(proxy, str)):
        raise TypeError(
            f"proxy must be the URL of a proxy, True for the environment's or None for none, not {proxy!r}"
        )
    context = options.get("ssl_context")
    if not (context is None or isinstance(context, ssl.SSLContext)):
        raise TypeError(f"ssl_context must be an ssl.SSLContext, not {type(context).__name__}")
    if not isinstance(options.get("limits", DEFAULT_LIMITS), Limits):
        raise TypeError("limits must be a Limits, such as Limits(max_message_size=65536)")


def _hint(name: str) -> str:
    if name in _MINTED:
        return f"{name} is settled at the mint: pass it to speko.realtime.connect or create_session"
    known = (*_MINTED, *SessionOptions.__annotations__)
    lower = name.lower()
    close = [_HABITS[lower]] if lower in _HABITS else difflib.get_close_matches(lower, known, n=1)
    return f"did you mean {close[0]}?" if close else f"the options are {', '.join(known)}"


def open_core(
    make_core: Callable[[CoreOptions], ClientCore],
    url: str,
    *,
    session_id: str,
    expires_at: str = "",
    tools: Iterable[AnyTool] = (),
    secrets: Iterable[str] = (),
    **options: Unpack[SessionOptions],
) -> AbstractAsyncContextManager[RealtimeSession, None]:
    """Hold open the session in which the core that `make_core` makes speaks to the host of `url`.

    `make_core` is given the options that are the core's, and may raise. So a provider's dialect at byte level
    becomes a session like any other::

        def make_core(options: CoreOptions) -> ClientCore:
            return OpenAIConnection(endpoint, config, **options)

        async with open_core(make_core, endpoint.url, session_id="openai") as session: ...

    - `session_id`: what `RealtimeSession.session_id` and the log call it; no secret.
    - `secrets`: keys and tokens that the log must not show, whoever says them.
    - `tools`, `options` and what it raises: see `open_session`.

    The `stream` of the options is closed whatever comes of it.
    """

    async def open_watched() -> RealtimeSession:
        try:
            audience = audience_of(session_id, url, options.get("observer"), secrets=secrets)
        except BaseException:
            if (stream := options.get("stream")) is not None:
                await anyio.aclose_forcefully(stream)
            raise
        try:
            return await _open_core(
                make_core,
                url,
                session_id=session_id,
                expires_at=expires_at,
                tools=tools,
                audience=audience,
                options=options,
            )
        except BaseException as error:
            if audience is not None:
                audience.ended(error)
            raise

    return _OpenedBlock(open_watched)


class _OpenedBlock(SessionBlock):
    """The ``async with`` around the session that `open_session` opens. No generator, and nothing that the
    opening needed stays: what is held here is held as long as the session lives."""

    __slots__ = ("_open", "_session")

    def __init__(self, open_session: Callable[[], Awaitable[RealtimeSession]]) -> None:
        self._open: Callable[[], Awaitable[RealtimeSession]] | None = open_session

    async def __aenter__(self) -> RealtimeSession:
        open_session, self._open = self._open, None
        if open_session is None:
            raise RuntimeError("a session is opened once: ask for another one")
        self._session = session = await open_session()
        await session._enter()
        return session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._session._exit(error)
        except BaseException as raised:
            if raised is not error:
                raise
            # It goes on as it came, and does not look as if it were raised here too.
            raised.__traceback__ = traceback


async def _open_core(
    make_core: Callable[[CoreOptions], ClientCore],
    url: str,
    *,
    session_id: str,
    expires_at: str,
    tools: Iterable[AnyTool],
    audience: Audience | None,
    options: SessionOptions,
) -> RealtimeSession:
    stream = options.get("stream")
    driver: Driver | None = None if stream is None else StreamDriver(stream)
    try:
        check_options(options)
        toolbox = Toolbox(tool_list(tools))
        close_timeout = options.get("close_timeout", 5.0)
        core = make_core(
            {
                "limits": options.get("limits", DEFAULT_LIMITS),
                "handshake_timeout": options.get("handshake_timeout", 10.0),
                "ping_interval": options.get("ping_interval", 20.0),
                "ping_timeout": options.get("ping_timeout", 20.0),
                "close_timeout": close_timeout,
                "warn_before": options.get("warn_before", 60.0),
            }
        )
        if audience is not None:
            core = audience.watch(core)
        if driver is None:
            driver = await dial(
                parse_url(url),
                connect_timeout=options.get("connect_timeout", 10.0),
                ssl_context=options.get("ssl_context"),
                proxy=options.get("proxy", True),
            )
        session = RealtimeSession(
            core,
            driver,
            session_id=session_id,
            expires_at=expires_at,
            toolbox=toolbox,
            close_timeout=close_timeout,
            max_buffer=options.get("max_buffer", DEFAULT_MAX_BUFFER),
            tool_errors=options.get("tool_errors", "log"),
            audience=audience,
        )
        await driver.handshake()
    except BaseException:
        if driver is not None:
            await driver.aclose_forcefully()
        raise
    return session
