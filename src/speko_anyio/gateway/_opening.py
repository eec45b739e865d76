"""A client's request for a WebSocket, before it is answered, whichever way it came in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from starlette.types import Scope

    from ._http_errors import RequestError
    from ._link import Link
    from ._session import CoreOptions


class Opening(Protocol):
    """A WebSocket that a client asks for. Answer it once."""

    scope: Scope
    """The request, as ASGI describes it."""
    token: str | None
    """The first subprotocol that the client offers, which is the session's token; None if it offers none."""

    async def accept(self, session_id: str, options: CoreOptions) -> Link | None:
        """Accept it; return what moves the session's messages, or None if the client has left."""
        ...

    async def refuse(self, refusal: RequestError) -> None:
        """Answer with the refusal's HTTP response."""

    async def refuse_by_frame(self, refusal: RequestError) -> None:
        """Accept it, send the refusal's `ErrorFrame`, and close it with the refusal's code."""

    async def wait_gone(self) -> None:
        """Wait until the connection is closed, if that is known. It takes bounded time after the session."""


async def refuse(opening: Opening, refusal: RequestError) -> None:
    """Refuse a WebSocket in the way that its client can see.

    A page sees nothing of an HTTP refusal, not even its status, and browsers always send an ``Origin``:
    a client with one gets the WebSocket, an `ErrorFrame` and the refusal's close code. Every other client
    gets the HTTP response.
    """
    if "origin" in HTTPConnection(opening.scope).headers:
        await opening.refuse_by_frame(refusal)
    else:
        await opening.refuse(refusal)
