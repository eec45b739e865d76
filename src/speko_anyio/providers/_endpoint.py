"""Where to connect for a provider, and how to authenticate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode, urlsplit, urlunsplit

import msgspec

from ..protocol._headers import encode_headers
from ..protocol.errors import LocalProtocolError
from ..protocol.url import parse_url

AuthStyle: TypeAlias = Literal["header", "subprotocol"]
"""How a key is sent: in the ``Authorization`` header, or as a subprotocol, for transports without headers
(browsers), which takes ephemeral tokens only."""

_SHORT: Final = 15
"""The most characters of a query's value that is not a secret: versions, regions."""

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class Endpoint(msgspec.Struct, frozen=True):
    """What a WebSocket client needs to connect to a provider; its repr shows no secrets."""

    url: str
    """``ws://`` or ``wss://``, with its query."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further HTTP fields of the opening request."""
    subprotocols: tuple[str, ...] = ()
    """To offer, in order of preference; empty for none."""
    secrets: tuple[str, ...] = ()
    """The parts that no error may show, even if the provider quotes them."""
    advice: str = "check the API key and the model, and that the account may use it"
    """What to do when the provider refuses the connection."""

    def extended(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Endpoint:
        """Return the endpoint with further HTTP fields and query parameters, which replace ours of that name.

        Their values count as secrets, except very short ones. `LocalProtocolError` when one can't be sent.
        """
        if not (headers or query):
            return self
        encode_headers([*headers.items()])
        url = websocket_url(self.url, "", query.items())
        replaced = {name.lower() for name in headers}
        kept = ((name, value) for name, value in self.headers if name.lower() not in replaced)
        # Also the parts of a field such as ``Bearer`` and a key: a provider quotes the key alone.
        words = (word for value in headers.values() for word in value.split())
        values = (
            *headers.values(),
            *words,
            *query.values(),
            *(quote(value, safe="") for value in query.values()),
        )
        return msgspec.structs.replace(
            self,
            url=url,
            headers=(*kept, *headers.items()),
            secrets=(*self.secrets, *(value for value in dict.fromkeys(values) if len(value) > _SHORT)),
        )

    def __repr__(self) -> str:
        # A query may be a key, and so may a subprotocol or the value of a header.
        address, mark, _ = self.url.partition("?")
        scheme, _, rest = address.partition("://")
        shown = f"{scheme}://{rest.rpartition('@')[2]}{mark and '?***'}"
        names = tuple(name for name, _ in self.headers)
        return f"Endpoint(url={shown!r}, headers={names!r}, subprotocols=<{len(self.subprotocols)}>)"


def websocket_url(base_url: str, path: str, query: Iterable[tuple[str, str]]) -> str:
    """Return `base_url` with `path` appended and `query` merged into its query, taking precedence.

    ``http`` and ``https`` mean ``ws`` and ``wss``, since providers document their base URLs in that form.
    Raises `LocalProtocolError` for any other scheme, or without a host.
    """
    try:
        parts = urlsplit(base_url)
        scheme = _SCHEMES[parts.scheme]
        if not parts.hostname or parts.fragment:
            raise ValueError
        added = dict(query)
        own = [
            part
            for part in parts.query.split("&")
            if part and unquote_plus(part.partition("=")[0]) not in added
        ]
        full_query = "&".join([*own, *([urlencode(added)] if added else [])])
        url = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + path, full_query, ""))
        parse_url(url)
    except (KeyError, ValueError, LocalProtocolError):
        # Don't show the URL: it may hold a secret.
        raise LocalProtocolError(
            "not a provider's address: the base URL must be ws://, wss://, http:// or https:// with a host, "
            "an ASCII path, and neither user name nor fragment, and the model a name; pass for example "
            "wss://api.openai.com/v1"
        ) from None
    return url


def provider_endpoint(
    api_key: str,
    *,
    base_url: str,
    path: str,
    query: Sequence[tuple[str, str]],
    auth: AuthStyle,
    subprotocols: tuple[str, ...],
) -> Endpoint:
    """Build an endpoint that carries `api_key`.

    `subprotocols` are for a key that is sent as one: the last is the prefix of the key, the others are sent
    unchanged. Raises `LocalProtocolError` for an unusable key or URL.
    """
    if not api_key:
        raise LocalProtocolError("the provider needs an API key, and it is empty; pass one")
    try:
        api_key.encode("ascii")
        usable = api_key.isprintable() and " " not in api_key
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise LocalProtocolError(
            "the API key holds characters that no header can carry; pass it without spaces or line ends"
        )
    url = websocket_url(base_url, path, query)
    # The base URL's query may hold a gateway's key, and an error that quotes a URL shows the key as it stands
    # in a query.
    keys = dict.fromkeys((api_key, quote(api_key, safe="")))
    secrets = (*keys, *(value for _, value in parse_qsl(urlsplit(base_url).query) if len(value) > _SHORT))
    if auth == "header":
        return Endpoint(url, (("Authorization", f"Bearer {api_key}"),), secrets=secrets)
    return Endpoint(url, (), (*subprotocols[:-1], subprotocols[-1] + api_key), secrets)
