"""The URLs under which clients and carriers reach the gateway."""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection

from speko_anyio.protocol.errors import LocalProtocolError
from speko_anyio.protocol.url import parse_url

from ._http_errors import invalid

_WS_SCHEMES: Final = {"http": "ws", "https": "wss"}
_HTTP_SCHEMES: Final = {ws: http for http, ws in _WS_SCHEMES.items()}


class PublicURL:
    """The base URL of the gateway: `url` as its operator sets it, or else as each request came.

    Raises ValueError if `url` is not a URL that a path can be added to.
    """

    def __init__(self, url: str | None) -> None:
        self._ws_base = None if url is None else _ws_base(url)

    @property
    def is_set(self) -> bool:
        """Whether the operator has set it."""
        return self._ws_base is not None

    def ws_base(self, connection: HTTPConnection) -> str:
        """Return the base URL of WebSockets, without a slash at its end."""
        return self._ws_base or _own_ws_base(connection)

    def http_base(self, connection: HTTPConnection) -> str:
        """Return the base URL of HTTP, without a slash at its end."""
        scheme, _, rest = self.ws_base(connection).partition("://")
        return f"{_HTTP_SCHEMES[scheme]}://{rest}"


def _ws_base(url: str) -> str:
    """Return the WebSocket URL of the HTTP base URL `url`, without a slash at its end.

    Raises ValueError if `url` is not a URL that a path can be added to.
    """
    scheme, _, rest = url.partition("://")
    base = f"{_WS_SCHEMES.get(scheme, '')}://{rest.rstrip('/')}"
    try:
        parse_url(base)
        if "?" in base or "#" in base:
            raise LocalProtocolError("a path can't be added to a query or a fragment")
    except LocalProtocolError:
        raise ValueError(
            "public_url is not a URL of http:// or https:// with a host, and no query or fragment; pass the "
            "one that clients connect to"
        ) from None
    return base


def _own_ws_base(connection: HTTPConnection) -> str:
    """Return the WebSocket base URL under which the client reached us."""
    url = connection.url
    scheme = _HTTP_SCHEMES.get(url.scheme, url.scheme)
    try:
        return _ws_base(f"{scheme}://{url.netloc}{connection.scope.get('root_path', '')}")
    except ValueError:
        raise invalid(
            "the gateway can't tell its URL from this request; send its host name as Host"
        ) from None
