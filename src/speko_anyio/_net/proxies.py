"""Finds the proxy that the environment names for a host, and opens a tunnel through it.

The tunnel is requested by HTTP CONNECT (RFC 9110 section 9.3.6) or SOCKS 5 (RFC 1928 and 1929), and then is
an ordinary byte stream. The host's name is looked up by the proxy. h11, which wsproto
is built on, speaks HTTP; socksio, the extra `socks`, speaks SOCKS.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import ssl
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import anyio
import h11
import msgspec
from anyio.abc import ByteStream

from .._extras import install_extra
from ..errors import APIConnectionError, ConfigurationError, ProxyError
from ..protocol.url import WebSocketURL
from .transport_errors import failing_as
from .trust import default_ssl_context
from .user_agent import USER_AGENT

logger: Final = logging.getLogger("speko_anyio.client")

ProxyOption = str | Literal[True] | None
"""The option `proxy`: the URL of a proxy, True for the one that the environment names, None for none."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

_ONLY_ENVIRONMENT: Final = sys.platform not in ("darwin", "win32")
"""Whether only the environment names proxies: macOS and Windows also have system settings."""

_MAX_RESPONSE: Final = 64 * 1024
"""Bytes of an HTTP proxy's response head; long explanations are in the body, which is not read."""

_NAME: Final = re.compile(r"[0-9a-z_*-]+(\.[0-9a-z_*-]+)*")
"""A host name, or a pattern with ``*``."""

_MAX_SOCKS_FIELD: Final = 255
"""Bytes of a name or a password: SOCKS counts them in one byte."""


class Proxy(msgspec.Struct, frozen=True):
    """The address of a proxy, and our credentials there."""

    scheme: str
    host: str
    port: int
    username: str
    password: str
    variable: str = ""
    """The environment variable that named it; empty if it came from elsewhere."""

    def __str__(self) -> str:
        return _authority(self.host, self.port)

    def __repr__(self) -> str:
        return f"<Proxy {self.scheme} {self}>"

    @property
    def origin(self) -> str:
        """A phrase to append to "the proxy" in errors: the environment variable that named it."""
        return f" in {self.variable}" if self.variable else ""

    @property
    def advice(self) -> str:
        """Advice for errors: what to do when the proxy can't be reached."""
        return f"check {self.variable or 'the URL of the proxy'} and that the proxy runs there"


def find_proxy(where: WebSocketURL, option: ProxyOption) -> Proxy | None:
    """Return the proxy to connect through to `where`, or None to connect directly.

    With the option True, it comes from the environment: ``WSS_PROXY``, else ``HTTPS_PROXY`` for ``wss``,
    ``WS_PROXY``, else ``HTTP_PROXY`` for ``ws``, else ``ALL_PROXY``, unless ``NO_PROXY`` lists the host.
    `ConfigurationError` for an invalid proxy URL.
    """
    if option is None:
        return None
    if option is not True:
        return _parse_proxy(option, "the option proxy")
    return _find_in_environment(("wss", "https") if where.secure else ("ws", "http"), where.host, where.port)


def find_http_proxy(url: str) -> Proxy | None:
    """Do the same for the HTTP URL `url`, ignoring the variables for WebSockets only."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return _find_in_environment((parts.scheme,), _ascii_host(parts.hostname or ""), port)


def _find_in_environment(schemes: tuple[str, ...], host: str, port: int) -> Proxy | None:
    for scheme in (*schemes, "all"):
        variable, url = _read_variable(f"{scheme}_proxy")
        if url:
            break
    else:
        return None if _ONLY_ENVIRONMENT else _find_in_system(schemes, host, port)
    if _is_exempt(host, port):
        return None
    return _parse_proxy(url, f"the environment variable {variable}", variable)


def _read_variable(name: str) -> tuple[str, str]:
    """Return the variable that is set, and its value, which is empty if none is set.

    Lower case takes precedence, even when its value is empty, as in curl and `urllib.request`.
    """
    for variable in (name, name.upper()):
        # In a CGI program, HTTP_PROXY holds a header from the client (CVE-2016-1000110, "httpoxy").
        if variable in os.environ and not (variable == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ):
            return variable, os.environ[variable].strip()
    return name.upper(), ""


def _find_in_system(schemes: tuple[str, ...], host: str, port: int) -> Proxy | None:
    from urllib.request import getproxies, proxy_bypass  # here, since it loads Python's HTTP client

    proxies = getproxies()
    url = next((proxies[scheme] for scheme in schemes if scheme in proxies), None)
    if url is None or _is_exempt(host, port) or proxy_bypass(host):
        return None
    return _parse_proxy(url, "the proxy in the system's settings")


# NO_PROXY


class _Exemption(msgspec.Struct, frozen=True):
    """An entry of NO_PROXY: hosts in this network, or with this name, that are reached directly."""

    network: IPv4Network | IPv6Network | None
    name: str
    """A name, which includes its subdomains, or a pattern with ``*``."""
    port: int | None
    """None for any."""

    def covers(self, host: str, addresses: Sequence[IPv4Address | IPv6Address], port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        network = self.network
        if network is not None:
            return any(address in network for address in addresses)
        if "*" in self.name:
            return fnmatchcase(host, self.name)
        return host == self.name or host.endswith(f".{self.name}")


def _is_exempt(host: str, port: int) -> bool:
    host = host.lower().rstrip(".")
    addresses: list[IPv4Address | IPv6Address] = []
    try:
        address = ip_address(host)
        addresses.append(address)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            addresses.append(address.ipv4_mapped)
    except ValueError:
        pass  # a name
    variable, text = _read_variable("no_proxy")
    return any(exemption.covers(host, addresses, port) for exemption in _parse_exemptions(variable, text))


@lru_cache(maxsize=8)
def _parse_exemptions(variable: str, text: str) -> tuple[_Exemption, ...]:
    found: list[_Exemption] = []
    for entry in re.split(r"[\s,;|]+", text):
        try:
            if entry:
                found.append(_parse_exemption(entry))
        except ValueError:
            # Logged once per value, since the result is cached. The part before @ may hold a password.
            shown = entry.rpartition("@")[2]
            logger.warning("%s: the entry %r is ignored; it is not a host or a network", variable, shown)
    return tuple(found)


def _parse_exemption(entry: str) -> _Exemption:
    """Parse ``host``, ``.domain``, ``*.domain``, an address or a network; ValueError for anything else.

    ``:port`` and the brackets of IPv6 are optional. A scheme is ignored.
    """
    host, rest = entry.rpartition("://")[2].rstrip("/").lower(), ""
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        if not bracket or rest[:1] not in ("", "/", ":"):
            raise ValueError
    elif "/" in host or host.count(":") == 1:
        end = host.index("/" if "/" in host else ":")
        host, rest = host[:end], host[end:]
    length, colon, port = rest.partition(":")
    host += length
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError
    network: IPv4Network | IPv6Network | None
    try:
        network = _unmapped(ip_network(host, strict=False))
    except ValueError:
        network = None
        host = host.strip(".")
        host = _ascii_host(host)
        if not _NAME.fullmatch(host):
            raise
    return _Exemption(network, host, int(port) if colon else None)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Turn a network of IPv4-mapped addresses (RFC 4291 section 2.5.5.2) into the IPv4 network."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return IPv4Network((mapped, network.prefixlen - 96))


def _parse_proxy(url: str, source: str, variable: str = "") -> Proxy:
    try:
        parts = urlsplit(url.strip() if "://" in url else f"http://{url.strip()}")
        default_port = _DEFAULT_PORTS[parts.scheme]
        if not parts.hostname or parts.port == 0:
            raise ValueError
        host = _ascii_host(parts.hostname)
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        sizes = (len(username.encode()), len(password.encode()))
        if parts.scheme.startswith("socks") and max(sizes) > _MAX_SOCKS_FIELD:
            raise ValueError
    except (KeyError, ValueError):
        # Not shown: it may hold a password.
        raise ConfigurationError(
            f"{source} is not the URL of a proxy; use http://, https:// or socks5:// with a host, a port "
            "and, if the proxy asks for it, user:password@"
        ) from None
    return Proxy(parts.scheme, host, parts.port or default_port, username, password, variable)


async def connect_through(
    proxy: Proxy, where: WebSocketURL, *, connect_timeout: float, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    """Connect to `where` through `proxy`, with TLS for ``wss``.

    `connect_timeout` in seconds covers it all. `ssl_context` is for TLS with the host, and with a proxy of
    ``https://``. Raises `ProxyError`, `APIConnectionError` when it is the host that fails behind the proxy,
    and `ConfigurationError` when the extra `socks` is needed. Cancelled, it leaves nothing open.
    """
    target = _authority(where.host, where.port)
    logger.debug("connecting to %s through the proxy %s", target, proxy)
    try:
        with anyio.fail_after(connect_timeout):
            return await _connect_through(proxy, where, target, ssl_context)
    except TimeoutError as error:
        raise ProxyError(
            f"the proxy {proxy}{proxy.origin} did not connect to {target} within {connect_timeout:g} s; "
            f"check the network and {proxy.variable or 'the proxy'}"
        ) from error


async def _connect_through(
    proxy: Proxy, where: WebSocketURL, target: str, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    open_tunnel = _socks if proxy.scheme.startswith("socks") else _http
    with failing_as(ProxyError, f"the proxy {proxy}{proxy.origin}", proxy.advice):
        stream: ByteStream = await anyio.connect_tcp(proxy.host, proxy.port)
    try:
        with failing_as(ProxyError, f"the proxy {proxy}{proxy.origin}", proxy.advice):
            if proxy.scheme == "https":
                stream = await _start_tls(stream, proxy.host, ssl_context)
            await open_tunnel(stream, proxy, where, target)
        if where.secure:
            with failing_as(APIConnectionError, f"{target} behind the proxy {proxy}"):
                stream = await _start_tls(stream, where.host, ssl_context)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return stream


async def _start_tls(stream: ByteStream, host: str, ssl_context: ssl.SSLContext | None) -> ByteStream:
    from anyio.streams.tls import TLSStream  # anyio itself loads it when there is TLS

    return await TLSStream.wrap(
        stream,
        hostname=host,
        ssl_context=ssl_context or await default_ssl_context(),
        standard_compatible=False,
    )


async def _http(stream: ByteStream, proxy: Proxy, where: WebSocketURL, target: str) -> None:
    headers = [("Host", target), ("User-Agent", USER_AGENT)]
    if proxy.username or proxy.password:
        credentials = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {credentials}"))
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_RESPONSE)
    request = http.send(h11.Request(method="CONNECT", target=target, headers=headers))
    assert request is not None, "a request has bytes"
    await stream.send(request)
    try:
        while not isinstance(event := http.next_event(), h11.Response):
            # Not the final response yet: nothing, or one with a status of 1xx.
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive())
    except h11.RemoteProtocolError as error:
        raise ProxyError(
            f"{proxy} is not an HTTP proxy; check the proxy's address and scheme{proxy.origin}"
        ) from error
    if not 200 <= event.status_code < 300:
        raise _refusal(proxy, target, f"HTTP {event.status_code}", needs_login=event.status_code == 407)
    if http.trailing_data[0]:
        raise ProxyError(f"the proxy {proxy} sent data of its own into the tunnel; check the proxy")


async def _socks(stream: ByteStream, proxy: Proxy, where: WebSocketURL, target: str) -> None:
    try:
        from socksio import ProtocolError, socks5
    except ImportError:
        raise needs_socks() from None
    if len(where.host) > _MAX_SOCKS_FIELD:
        raise _refusal(proxy, "the host", "its name is too long for SOCKS", needs_login=False)
    methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.username or proxy.password:
        methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
    try:
        await stream.send(socks5.SOCKS5AuthMethodsRequest(methods).dumps())
        # socksio takes whole replies only: their sizes are ours to know.
        chosen = socks5.SOCKS5AuthReply.loads(await _receive_exactly(stream, 2)).method
        if chosen not in methods:
            raise _refusal(proxy, target, "no login that we have", needs_login=True)
        if chosen is socks5.SOCKS5AuthMethod.USERNAME_PASSWORD:
            login = socks5.SOCKS5UsernamePasswordRequest(proxy.username.encode(), proxy.password.encode())
            await stream.send(login.dumps())
            if not socks5.SOCKS5UsernamePasswordReply.loads(await _receive_exactly(stream, 2)).success:
                raise _refusal(proxy, target, "user or password is wrong", needs_login=True)
        connect = socks5.SOCKS5CommandRequest.from_address(
            socks5.SOCKS5Command.CONNECT, (where.host, where.port)
        )
        await stream.send(connect.dumps())
        code = socks5.SOCKS5Reply.loads(await _receive_reply(stream)).reply_code
    except ProtocolError as error:
        raise ProxyError(
            f"{proxy} is not a SOCKS 5 proxy; check the proxy's address and scheme{proxy.origin}"
        ) from error
    if code is not socks5.SOCKS5ReplyCode.SUCCEEDED:
        raise _refusal(proxy, target, code.name.replace("_", " ").lower(), needs_login=False)


async def _receive_reply(stream: ByteStream) -> bytes:
    """Receive the reply to a command: four bytes, an address whose size depends on its type, and a port."""
    head = await _receive_exactly(stream, 5)
    address = {1: 4, 3: 1 + head[4], 4: 16}.get(head[3], 1)
    return head + await _receive_exactly(stream, address - 1 + 2)


async def _receive_exactly(stream: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


def _refusal(proxy: Proxy, target: str, why: str, *, needs_login: bool) -> ProxyError:
    login = f"give the proxy's URL{proxy.origin} the right user:password@"
    advice = login if needs_login else "ask its operator"
    return ProxyError(f"the proxy {proxy} refused to connect to {target} ({why}); {advice}")


def needs_socks() -> ConfigurationError:
    """Make the error for a SOCKS proxy without the library for it."""
    return ConfigurationError(
        f"a SOCKS proxy needs socksio, which is not installed; {install_extra('socks')}, or use another proxy"
    )


def _ascii_host(host: str) -> str:
    return host if host.isascii() and ":" in host else host.encode("idna").decode()


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
