"""Getting a byte stream to a WebSocket's host, and what can go wrong with one."""

from __future__ import annotations

import ssl
from typing import Final

import anyio
from anyio.abc import ByteStream

from ..protocol.url import WebSocketURL
from .errors import APIConnectionError

TRANSPORT_ERRORS: Final = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.BusyResourceError,
    OSError,
)
"""What a byte stream raises when it can't go on, beside `anyio.EndOfStream`."""

READ_SIZE: Final = 65_536
"""Bytes asked of the stream at a time: what anyio's own streams give at most."""


def root(error: Exception) -> BaseException:
    """The operating system's own error beneath anyio's, when there is one; the first of several."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        return cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


def describe(error: Exception) -> str:
    """What a transport's exception says; many say nothing but their name."""
    told = root(error)
    return str(told) or type(told).__name__


async def dial(
    where: WebSocketURL, *, connect_timeout: float, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    """Connect to the host, with TLS for ``wss``; every address is tried (RFC 8305, "Happy Eyeballs").

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
