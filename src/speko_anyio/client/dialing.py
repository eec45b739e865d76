"""Getting to a WebSocket's host."""

from __future__ import annotations

import ssl

import anyio
from anyio.abc import ByteStream

from ..protocol.url import WebSocketURL
from .driver import Driver
from .errors import APIConnectionError
from .proxies import ProxyOption, connect_through, find_proxy
from .stream_driver import StreamDriver
from .transport import describe, root


async def dial(
    where: WebSocketURL,
    *,
    connect_timeout: float,
    ssl_context: ssl.SSLContext | None,
    proxy: ProxyOption = None,
) -> Driver:
    """Connect to the host, in the way that suits the event loop. Parameters and errors as of `connect`.

    What `find_proxy` finds for `proxy` is gone through; see `connect_through` for what it raises.
    """
    return StreamDriver(
        await open_stream(where, connect_timeout=connect_timeout, ssl_context=ssl_context, proxy=proxy)
    )


async def open_stream(
    where: WebSocketURL,
    *,
    connect_timeout: float,
    ssl_context: ssl.SSLContext | None,
    proxy: ProxyOption = None,
) -> ByteStream:
    """As `dial`, for who has a driver of their own."""
    through = find_proxy(where, proxy)
    if through is not None:
        return await connect_through(through, where, connect_timeout=connect_timeout, ssl_context=ssl_context)
    return await connect(where, connect_timeout=connect_timeout, ssl_context=ssl_context)


async def connect(
    where: WebSocketURL, *, connect_timeout: float, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    """Open a byte stream to the host, with TLS for ``wss``; every address is tried (RFC 8305).

    `connect_timeout` in seconds covers looking up the name, connecting and TLS. Raises
    `APIConnectionError`. Cancelled, it leaves nothing open.
    """
    host = f"{where.host}:{where.port}"
    try:
        with anyio.fail_after(connect_timeout):
            if not where.secure:
                return await anyio.connect_tcp(where.host, where.port)
            return await anyio.connect_tcp(
                where.host,
                where.port,
                tls=True,
                ssl_context=ssl_context,
                # A WebSocket says goodbye itself: waiting for TLS to do it again only costs time.
                tls_standard_compatible=False,
            )
    except TimeoutError as error:
        raise APIConnectionError(
            f"{host} did not answer within {connect_timeout:g} s; check the network and the address"
        ) from error
    except ssl.SSLError as error:
        raise APIConnectionError(
            f"TLS with {host} failed ({error.reason or describe(error)}); check its certificate, or pass an "
            "ssl_context that trusts it"
        ) from error
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise APIConnectionError(
            f"{host} can't be reached ({describe(error)}); check the network and the address"
        ) from root(error)
