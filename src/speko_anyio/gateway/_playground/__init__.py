"""The playground: a page to talk to the gateway with, for development.

Static files only. The page mints like any other client, with an API key that its user gives it, by hand or
in the URL's fragment, which browsers never send: no way into the gateway is added by serving it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from importlib.resources import files
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from speko_anyio._version import __version__

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

_HEADERS: Final = {
    # Nothing but the page's own files runs, and it talks to the gateway only. A WebSocket may have another
    # name for the same gateway, its public URL.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def playground_routes(providers: Collection[str]) -> list[Route]:
    """Return the routes of the page at ``/`` and of its files under ``/playground/``."""
    about = msgspec.json.encode({"version": __version__, "providers": sorted(providers)})
    routes = [Route("/playground/about.json", _answer(about, "application/json"), methods=["GET"])]
    for file in files(__name__).iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            path = "/" if file.name == "index.html" else f"/playground/{file.name}"
            routes.append(Route(path, _answer(file.read_bytes(), _TYPES[suffix]), methods=["GET"]))
    return routes


def _answer(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=media_type)

    return answer
