"""The web pages that may use the gateway: those of some origins, or all.

A session's token is what lets a page in, and no cookie does, so that a foreign page gains nothing by
connecting. A policy is for operators who know their pages: it makes a token that leaked into another page
useless there, and lets their own pages mint across origins (CORS).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection

_PREFLIGHT_SECONDS: Final = 600
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origins:
    """`allowed`: such as ``https://app.example.com``; None for any. ValueError for an invalid origin."""

    def __init__(self, allowed: Collection[str] | None) -> None:
        self._allowed = None if allowed is None else frozenset(map(_checked, allowed))

    @property
    def middleware(self) -> list[Middleware]:
        """The middleware that lets pages of the allowed origins read the HTTP API's answers."""
        if not self._allowed:
            return []
        return [
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(self._allowed),
                allow_methods=["GET", "POST"],
                # Any: SDKs and tracing set headers of their own, such as User-Agent, and the browser sends
                # nothing unless all are allowed. The gateway ignores those that it doesn't know.
                allow_headers=["*"],
                expose_headers=["Retry-After"],
                max_age=_PREFLIGHT_SECONDS,
            )
        ]

    def admit(self, connection: HTTPConnection) -> bool:
        """Return whether a WebSocket may be opened.

        Without an ``Origin`` it comes from no page; with the gateway's own host it comes from the playground.
        """
        origin = connection.headers.get("origin")
        if self._allowed is None or origin is None or origin.lower() in self._allowed:
            return True
        try:
            return urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower() != ""
        except ValueError:
            return False


def _checked(origin: str) -> str:
    try:
        parts = urlsplit(origin)
        usual = parts.port == _DEFAULT_PORTS.get(parts.scheme)
        usable = parts.scheme in _DEFAULT_PORTS and parts.hostname and origin.count("/") == 2
    except ValueError:
        usable = usual = False
    if not usable or "@" in origin:
        raise ValueError(
            f"{origin!r} is not an origin; give scheme and host, and the port if it is unusual, like "
            "https://app.example.com"
        )
    if usual:
        raise ValueError(f"{origin!r} names its usual port, which browsers leave out; leave it out, too")
    return origin.lower()
