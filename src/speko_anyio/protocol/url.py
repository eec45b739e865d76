"""WebSocket URLs (RFC 6455 section 3)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

import msgspec

from .errors import LocalProtocolError

_URL: Final = re.compile(r"[^\x00-\x20\x7f]+\Z")
_TARGET: Final = re.compile(r"[!-~]+\Z")
_MAX_HOST: Final = 1024
"""Characters: four times as many as DNS has (RFC 1035 section 2.3.4); IDNA takes long for more."""

_HOST: Final = re.compile(r"[0-9A-Za-z._:-]+\Z")


class WebSocketURL(msgspec.Struct, frozen=True, gc=False):
    """The address of a WebSocket, parsed."""

    secure: bool
    """Whether to speak TLS (``wss``)."""
    host: str
    """Name, in ASCII (IDNA), or address, an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query, for the request line."""

    @property
    def host_header(self) -> str:
        """The value of the Host header, with the port if it is not the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_url(url: str) -> WebSocketURL:
    """Parse a ``ws://`` or ``wss://`` URL; `LocalProtocolError` if it is invalid."""
    try:
        if not _URL.match(url):
            # urlsplit silently drops some invalid characters.
            raise ValueError
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        secure = {"ws": False, "wss": True}[parts.scheme]
        if not host or parts.fragment or parts.username is not None:
            raise ValueError
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        in_brackets = "[" in parts.netloc
        if len(host) > _MAX_HOST:
            raise ValueError
        host = str(IPv6Address(host)) if in_brackets else host.encode("idna").decode()
        if port == 0 or not _TARGET.match(target) or not _HOST.match(host):
            raise ValueError
    except (KeyError, ValueError):
        # Don't show the URL: it may hold a secret.
        raise LocalProtocolError(
            "not a WebSocket URL: it must be ws:// or wss:// with a host, an ASCII path, and neither "
            "user name nor fragment; pass the mint's wsUrl unchanged"
        ) from None
    return WebSocketURL(secure, host, port if port is not None else (443 if secure else 80), target)
