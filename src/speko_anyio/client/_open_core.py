"""Open a session: any core that speaks WebSocket as a client, over a transport, in the user's hands."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeAlias, TypedDict, Unpack

import anyio

from .._net.contexts import SessionBlock
from .._net.dialing import dial
from .._net.driver import Driver
from .._net.stream_driver import StreamDriver
from .._observe.observers import Observers, make_observers
from ..protocol._client_core import ClientCore
from ..protocol._limits import DEFAULT_LIMITS, Limits
from ..protocol._timeouts import DEFAULT_TIMEOUTS
from ..protocol.url import parse_url
from ._delivery import DEFAULT_MAX_BUFFER
from ._parameters import SessionOptions, check_options, tool_list
from ._session import RealtimeSession
from .tools import AnyTool, Toolbox


class CoreOptions(TypedDict):
    """The part of `SessionOptions` that the core uses.

    Every byte-level client core takes these keywords; see `ClientConnection`.
    """

    limits: Limits
    handshake_timeout: float
    ping_interval: float | None
    ping_timeout: float
    close_timeout: float
    warn_before: float


MakeCore: TypeAlias = Callable[[CoreOptions], ClientCore | Awaitable[ClientCore]]
"""Makes the core of a session; async if that takes long."""


def open_core(
    make_core: MakeCore,
    url: str,
    *,
    session_id: str,
    expires_at: str = "",
    tools: Iterable[AnyTool] = (),
    secrets: Iterable[str] = (),
    **options: Unpack[SessionOptions],
) -> AbstractAsyncContextManager[RealtimeSession, None]:
    """Open a session with the host of `url` that speaks through the core that `make_core` returns.

    `make_core` is called with the options that the core uses, may be async, and may raise. Any byte-level
    dialect becomes a session this way::

        def make_core(options: CoreOptions) -> ClientCore:
            return account.connection(config, **options)

        async with open_core(make_core, endpoint.url, session_id="openai") as session: ...

    - `session_id`: the value of `RealtimeSession.session_id`, also shown in the log; not a secret.
    - `secrets`: keys and tokens that the log must never show.
    - `tools`, `options` and what it raises: see `open_session`.

    The `stream` of the options is closed in any case.
    """

    async def open_watched() -> RealtimeSession:
        try:
            observers = make_observers(session_id, url, options.get("observer"), secrets=secrets)
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
                observers=observers,
                options=options,
            )
        except BaseException as error:
            if observers is not None:
                observers.ended(error)
            raise

    history, greeting = options.get("history", ()), options.get("greeting")

    async def begin(session: RealtimeSession) -> None:
        await session._begin(tuple(history), greeting)

    return _OpenedBlock(open_watched, begin if history or greeting is not None else None)


class _OpenedBlock(SessionBlock):
    """The ``async with`` around the session that `open_session` opens.

    It is not a generator and drops what opening needed, since it lives as long as the session.
    """

    __slots__ = ("_begin", "_open", "_session")

    def __init__(
        self,
        open_session: Callable[[], Awaitable[RealtimeSession]],
        begin: Callable[[RealtimeSession], Awaitable[None]] | None,
    ) -> None:
        self._open: Callable[[], Awaitable[RealtimeSession]] | None = open_session
        self._begin = begin
        """Sends the history and the greeting, before the body runs."""

    async def __aenter__(self) -> RealtimeSession:
        open_session, self._open = self._open, None
        if open_session is None:
            raise RuntimeError(
                "a session is entered once; call `connect` or `open_session` again for another one"
            )
        self._session = session = await open_session()
        await session._enter()
        begin, self._begin = self._begin, None
        if begin is not None:
            try:
                await begin(session)
            except BaseException as error:
                await session._exit(error)
                raise
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
            # Propagate it unchanged, without a traceback entry for this frame.
            raised.__traceback__ = traceback


async def _open_core(
    make_core: MakeCore,
    url: str,
    *,
    session_id: str,
    expires_at: str,
    tools: Iterable[AnyTool],
    observers: Observers | None,
    options: SessionOptions,
) -> RealtimeSession:
    stream = options.get("stream")
    driver: Driver | None = None if stream is None else StreamDriver(stream)
    try:
        check_options(options)
        toolbox = Toolbox(tool_list(tools))
        close_timeout = options.get("close_timeout", DEFAULT_TIMEOUTS.close)
        made = make_core(
            {
                "limits": options.get("limits", DEFAULT_LIMITS),
                "handshake_timeout": options.get("handshake_timeout", DEFAULT_TIMEOUTS.handshake),
                "ping_interval": options.get("ping_interval", DEFAULT_TIMEOUTS.ping_interval),
                "ping_timeout": options.get("ping_timeout", DEFAULT_TIMEOUTS.ping_timeout),
                "close_timeout": close_timeout,
                "warn_before": options.get("warn_before", DEFAULT_TIMEOUTS.warn_before),
            }
        )
        core = await made if inspect.isawaitable(made) else made
        if observers is not None:
            from .._observe.observed_core import ObservedCore  # here: most sessions have no observer

            core = ObservedCore(core, observers)
        if driver is None:
            driver = await dial(
                parse_url(url),
                connect_timeout=options.get("connect_timeout", DEFAULT_TIMEOUTS.connect),
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
            handshake_timeout=options.get("handshake_timeout", DEFAULT_TIMEOUTS.handshake),
            max_buffer=options.get("max_buffer", DEFAULT_MAX_BUFFER),
            tool_errors=options.get("tool_errors", "log"),
            observers=observers,
        )
        await driver.handshake()
        session._pump.check_opened()
    except BaseException:
        if driver is not None:
            await driver.aclose_forcefully()
        raise
    return session
