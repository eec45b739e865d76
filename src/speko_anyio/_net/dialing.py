"""Connects to a WebSocket's host."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio.abc import SocketAttribute

from ..errors import APIConnectionError
from ..protocol.url import WebSocketURL
from .driver import Driver
from .event_loop import on_asyncio
from .proxies import ProxyOption, connect_through, find_proxy
from .sockets import limit_silence
from .stream_driver import StreamDriver
from .transport_errors import CONNECTION_ERRORS, connection_error, root

T = TypeVar("T")


async def dial(
    where: WebSocketURL,
    *,
    connect_timeout: float,
    ssl_context: ssl.SSLContext | None,
    proxy: ProxyOption = None,
) -> Driver:
    """Connect to the host, with TLS for ``wss``, by the driver that suits the event loop.

    Every address is tried (RFC 8305). `connect_timeout` in seconds covers looking up the name, connecting and
    TLS. Raises `APIConnectionError`. Cancelled, it leaves nothing open. `proxy` is for `find_proxy`; for the
    errors of proxies see `connect_through`.
    """
    through = find_proxy(where, proxy)
    if through is not None:
        stream = await connect_through(
            through, where, connect_timeout=connect_timeout, ssl_context=ssl_context
        )
        limit_silence(stream.extra(SocketAttribute.raw_socket))  # noqa: S610 - this is not Django
        return StreamDriver(stream)
    connect: Callable[..., Awaitable[Driver]]
    if on_asyncio():
        from .asyncio_driver import connect
    else:
        from .trio_driver import connect

    return await _in_time(where, connect_timeout, lambda: connect(where, ssl_context=ssl_context))


async def _in_time(where: WebSocketURL, seconds: float, connect: Callable[[], Awaitable[T]]) -> T:
    """Return what `connect` returns within `seconds`; raise one error that says what stopped it."""
    host = f"{where.host}:{where.port}"
    late: TimeoutError | None = None
    try:
        with anyio.move_on_after(seconds):
            return await connect()
    except TimeoutError as error:  # the system's
        late = error
    except CONNECTION_ERRORS as error:
        raise connection_error(APIConnectionError, host, error) from root(error)
    raise APIConnectionError(
        f"{host} did not answer within {seconds:g} s; check the network and the address"
    ) from late
