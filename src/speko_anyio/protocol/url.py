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
_HOST: Final = re.compile(r"[0-9A-Za-z._:-]+\Z")


class WebSocketURL(msgspec.Struct, frozen=True, gc=False):
    """Where a WebSocket is, taken apart."""

    secure: bool
    """Whether to speak TLS (``wss``)."""
    host: str
    """Name, in ASCII (IDNA), or address, an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query, for the request line."""

    @property
    def host_header(self) -> str:
        """The value of the Host header: the port only when it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_url(url: str) -> WebSocketURL:
    """Take a ``ws://`` or ``wss://`` URL apart; `LocalProtocolError` when it is none."""
    try:
        if not _URL.match(url):
            # urlsplit drops some of what is no part of a URL instead of refusing it.
            raise ValueError
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        secure = {"ws": False, "wss": True}[parts.scheme]
        if not host or parts.fragment or parts.username is not None:
            raise ValueError
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        in_brackets = "[" in parts.netloc
        host = str(IPv6Address(host)) if in_brackets else host.encode("idna").decode()
        if port == 0 or not _TARGET.match(target) or not _HOST.match(host):
            raise ValueError
    except (KeyError, ValueError):
        # The URL itself is not shown: somebody may have put a secret into it.
        raise LocalProtocolError(
            "not a WebSocket URL: it must be ws:// or wss:// with a host, an ASCII path, and neither "
            "user name nor fragment; pass the mint's wsUrl unchanged"
        ) from None
    return WebSocketURL(secure, host, port if port is not None else (443 if secure else 80), target)
