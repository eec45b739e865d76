"""Connects to a WebSocket's host."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator

import anyio
from anyio.abc import ByteStream, SocketAttribute

from ..errors import APIConnectionError
from ..protocol.url import WebSocketURL
from .contexts import never_swallows
from .driver import Driver
from .event_loop import on_asyncio
from .proxies import ProxyOption, connect_through, find_proxy
from .sockets import limit_silence
from .stream_driver import StreamDriver
from .transport_errors import failing_as
from .trust import default_ssl_context


async def dial(
    where: WebSocketURL,
    *,
    connect_timeout: float,
    ssl_context: ssl.SSLContext | None,
    proxy: ProxyOption = None,
) -> Driver:
    """Connect to the host by the driver that suits the event loop. See `open_stream` for the rest."""
    asyncio = on_asyncio()
    if find_proxy(where, proxy) is not None or (where.secure and not asyncio):
        return StreamDriver(
            await open_stream(where, connect_timeout=connect_timeout, ssl_context=ssl_context, proxy=proxy)
        )
    async with _in_time(where, connect_timeout):
        if asyncio:
            from .asyncio_driver import connect

            return await connect(where, ssl_context=ssl_context)
        from .trio_driver import connect_plain

        return await connect_plain(where)


async def open_stream(
    where: WebSocketURL,
    *,
    connect_timeout: float,
    ssl_context: ssl.SSLContext | None,
    proxy: ProxyOption = None,
) -> ByteStream:
    """Open a byte stream to the host, with TLS for ``wss``; every address is tried (RFC 8305).

    `connect_timeout` in seconds covers looking up the name, connecting and TLS. Raises
    `APIConnectionError`. Cancelled, it leaves nothing open. `proxy` is for `find_proxy`; for the errors of
    proxies see `connect_through`.
    """
    through = find_proxy(where, proxy)
    if through is not None:
        stream = await connect_through(
            through, where, connect_timeout=connect_timeout, ssl_context=ssl_context
        )
    else:
        async with _in_time(where, connect_timeout):
            stream = await _connect(where, ssl_context)
    limit_silence(stream.extra(SocketAttribute.raw_socket))  # noqa: S610 - this is not Django
    return stream


async def _connect(where: WebSocketURL, ssl_context: ssl.SSLContext | None) -> ByteStream:
    if not where.secure:
        return await anyio.connect_tcp(where.host, where.port)
    return await anyio.connect_tcp(
        where.host,
        where.port,
        tls=True,
        ssl_context=ssl_context or default_ssl_context(),
        # A WebSocket says goodbye itself: waiting for TLS to do it again only costs time.
        tls_standard_compatible=False,
    )


@never_swallows
async def _in_time(where: WebSocketURL, seconds: float) -> AsyncGenerator[None, None]:
    """Limit the connecting in the block to `seconds`, and say in one error what stopped it."""
    host = f"{where.host}:{where.port}"
    try:
        with failing_as(APIConnectionError, host), anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise APIConnectionError(
            f"{host} did not answer within {seconds:g} s; check the network and the address"
        ) from error
