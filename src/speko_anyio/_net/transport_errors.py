"""The errors of transports, and what to say about them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from ..errors import APIConnectionError
from .trust import tls_advice

TRANSPORT_ERRORS: Final = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.BusyResourceError,
    OSError,
)
"""What a byte stream raises when it can't go on, besides `anyio.EndOfStream`."""

CONNECTION_ERRORS: Final = (OSError, anyio.EndOfStream, anyio.BrokenResourceError)
"""The errors that connecting, TLS and proxies raise."""


def broken_by(cause: Exception | None) -> anyio.BrokenResourceError:
    """Return what a byte stream raises for the operating system's own error `cause`."""
    broken = anyio.BrokenResourceError()
    broken.__cause__ = cause
    return broken


def root(error: Exception) -> BaseException:
    """Return the operating system's own error beneath anyio's, if there is one; the first of several."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        return cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


def describe(error: Exception) -> str:
    """Say what a transport's exception says, or its name if it says nothing."""
    told = root(error)
    return str(told) or type(told).__name__


@contextmanager
def failing_as(
    kind: type[APIConnectionError], name: str, advice: str = "check the network and the address"
) -> Iterator[None]:
    """Turn what connecting raises into an error of ours about `name`.

    Except TimeoutError: the code that set the limit can name it.
    """
    try:
        yield
    except TimeoutError:
        raise
    except CONNECTION_ERRORS as error:
        raise connection_error(kind, name, error, advice) from root(error)


def connection_error(
    kind: type[APIConnectionError],
    name: str,
    error: Exception,
    advice: str = "check the network and the address",
) -> APIConnectionError:
    """Return our error for `error`, one of `CONNECTION_ERRORS`, raised while connecting to `name`."""
    if isinstance(error, ssl.SSLError):
        return kind(
            f"TLS with {name} failed ({error.reason or describe(error)}); "
            + tls_advice(error, "an ssl_context that trusts it")
        )
    return kind(f"{name} can't be reached ({describe(error)}); {advice}")
