"""A client's request for a WebSocket before it is answered, over ASGI or directly over the transport."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import HTTPConnection
from starlette.types import Scope

from ._http_errors import RequestError
from ._link import Link
from ._session import CoreOptions


class Admitted(Protocol):
    """A client whose session was claimed."""

    async def accept(self, session_id: str, options: CoreOptions) -> Link | None:
        """Accept it; return the link of the session, or None if the client has left."""
        ...

    async def wait_gone(self) -> None:
        """Wait until the connection is closed, if that is known: a bounded time after the session's end."""


class Opening(Admitted, Protocol):
    """A client's request for a WebSocket. Answer it once."""

    scope: Scope
    """The request, as ASGI describes it."""
    token: str | None
    """The first subprotocol that the client offers, which is the session's token; None if it offers none."""

    async def refuse(self, refusal: RequestError) -> None:
        """Answer with the refusal's HTTP response."""

    async def refuse_by_frame(self, refusal: RequestError) -> None:
        """Accept it, send the refusal's `ErrorFrame`, and close it with the refusal's code."""


async def refuse(opening: Opening, refusal: RequestError) -> None:
    """Refuse a WebSocket in the way that its client can see.

    Browsers, which always send an ``Origin``, hide the HTTP response from the page, even its status. So a
    client with an ``Origin`` gets the WebSocket, an `ErrorFrame` and the refusal's close code, and every
    other client gets the HTTP response.
    """
    if "origin" in HTTPConnection(opening.scope).headers:
        await opening.refuse_by_frame(refusal)
    else:
        await opening.refuse(refusal)
