"""What can go wrong with a transport, and how it is told."""

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
"""What a byte stream raises when it can't go on, beside `anyio.EndOfStream`."""


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


@contextmanager
def failing_as(
    kind: type[APIConnectionError], name: str, advice: str = "check the network and the address"
) -> Iterator[None]:
    """Turn what connecting raises into an error of ours about `name`; but for TimeoutError: whoever set the
    limit can name it."""
    try:
        yield
    except TimeoutError:
        raise
    except ssl.SSLError as error:
        raise kind(
            f"TLS with {name} failed ({error.reason or describe(error)}); "
            + tls_advice("an ssl_context that trusts it")
        ) from error
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise kind(f"{name} can't be reached ({describe(error)}); {advice}") from root(error)
