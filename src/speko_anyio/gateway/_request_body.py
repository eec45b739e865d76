"""Reads the body of a request, within a size and a time."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import anyio
from starlette.requests import Request

from ._http_errors import RequestError

MAX_BODY: Final = 64 * 1024
"""Bytes of a body: room for a long prompt and dozens of tools. Decoded it may be 22 times as large."""

BODY_TIMEOUT: Final = 10.0
"""Seconds in which a body must arrive."""


async def read_body(request: Request) -> bytes:
    """Return the body of `request`; raise `RequestError` if it is too large or comes too slowly."""
    try:
        with anyio.fail_after(BODY_TIMEOUT):
            return await _collect_body(request)
    except TimeoutError:
        raise RequestError(
            408,
            "REQUEST_TIMEOUT",
            f"the request's body did not come within {BODY_TIMEOUT:g} seconds; send it at once",
            # Close the connection: the rest of the body must not be read as another request.
            headers={"Connection": "close"},
        ) from None


async def _collect_body(request: Request) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                raise RequestError(
                    413, "PAYLOAD_TOO_LARGE", f"the request's body has more than {MAX_BODY} bytes; shorten it"
                )
    return bytes(body)
