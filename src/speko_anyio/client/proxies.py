"""Reaching a WebSocket's host through a proxy: which one, and the tunnel that it gives.

A proxy is asked for a tunnel to the host, by HTTP CONNECT (RFC 9110 section 9.3.6) or SOCKS 5 (RFC 1928 and
1929), and then is no more than a byte stream. The host's name is looked up by the proxy. h11, which wsproto
is built on, speaks HTTP; socksio, the extra `socks`, speaks SOCKS.
"""

from __future__ import annotations

import base64
import logging
import os
import ssl
import sys
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import anyio
import h11
import msgspec
from anyio.abc import ByteStream

from ..protocol.url import WebSocketURL
from .errors import APIConnectionError, ConfigurationError, ProxyError
from .transport import failing_as
from .user_agent import USER_AGENT

logger: Final = logging.getLogger("speko_anyio.client")

ProxyOption = str | Literal[True] | None
"""What users say: the URL of a proxy, True for the one that the environment names, None for none."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

_ONLY_ENVIRONMENT: Final = sys.platform not in ("darwin", "win32")
"""Whether nothing else names proxies; macOS and Windows have settings."""

_MAX_RESPONSE: Final = 64 * 1024
"""Bytes of an HTTP proxy's response head; what proxies say at length is in the body, which nobody reads."""

_MAX_SOCKS_FIELD: Final = 255
"""Bytes of a name or a password: SOCKS counts them in one byte."""


class Proxy(msgspec.Struct, frozen=True):
    """Where a proxy is, and who we are to it."""

    scheme: str
    host: str
    port: int
    username: str
    password: str

    def __str__(self) -> str:
        return _authority(self.host, self.port)

    def __repr__(self) -> str:
        return f"<Proxy {self.scheme} {self}>"


def find_proxy(where: WebSocketURL, option: ProxyOption) -> Proxy | None:
    """The proxy to go through to `where`; None to go straight. `ConfigurationError` for a URL of none.

    The environment is read as Python's `urllib.request` does: ``HTTPS_PROXY`` for ``wss``, ``HTTP_PROXY`` for
    ``ws``, else ``ALL_PROXY``, in either case; and ``NO_PROXY`` lists the hosts without. ``WSS_PROXY`` and
    ``WS_PROXY`` go before them.
    """
    if option is None:
        return None
    if option is not True:
        return _parse_proxy(option, "the option proxy")
    # What Python has for it reads the whole environment, twice, at every connect, and loads its HTTP client.
    if _ONLY_ENVIRONMENT and not any(name[-6:].lower() == "_proxy" for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    for scheme in ("wss", "https", "all") if where.secure else ("ws", "http", "all"):
        if scheme in proxies:
            break
    else:
        return None
    # An IPv6 address may be listed with its brackets or without.
    if proxy_bypass(_authority(where.host, where.port)) or proxy_bypass(where.host):
        return None
    return _parse_proxy(proxies[scheme], f"the environment variable {scheme.upper()}_PROXY")


def _parse_proxy(url: str, source: str) -> Proxy:
    try:
        parts = urlsplit(url.strip() if "://" in url else f"http://{url.strip()}")
        default_port = _DEFAULT_PORTS[parts.scheme]
        if not parts.hostname or parts.port == 0:
            raise ValueError
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        sizes = (len(username.encode()), len(password.encode()))
        if parts.scheme.startswith("socks") and max(sizes) > _MAX_SOCKS_FIELD:
            raise ValueError
    except (KeyError, ValueError):
        # Not shown: it may hold a password.
        raise ConfigurationError(
            f"{source} is no URL of a proxy; use http://, https:// or socks5:// with a host, a port and, if "
            "the proxy asks for it, user:password@"
        ) from None
    return Proxy(parts.scheme, host, parts.port or default_port, username, password)


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
            f"the proxy {proxy} gave no connection to {target} within {connect_timeout:g} s; check the proxy "
            "and the network"
        ) from error


async def _connect_through(
    proxy: Proxy, where: WebSocketURL, target: str, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    open_tunnel = _socks if proxy.scheme.startswith("socks") else _http
    with failing_as(ProxyError, f"the proxy {proxy}"):
        stream: ByteStream = await anyio.connect_tcp(proxy.host, proxy.port)
    try:
        with failing_as(ProxyError, f"the proxy {proxy}"):
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

    return await TLSStream.wrap(stream, hostname=host, ssl_context=ssl_context, standard_compatible=False)


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
            # Whatever is no final response yet: nothing, or one with a status of 1xx.
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive())
    except h11.RemoteProtocolError as error:
        raise ProxyError(
            f"what answers at {proxy} is no HTTP proxy; check the proxy's address and scheme"
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
            f"what answers at {proxy} is no SOCKS 5 proxy; check the proxy's address and scheme"
        ) from error
    if code is not socks5.SOCKS5ReplyCode.SUCCEEDED:
        raise _refusal(proxy, target, code.name.replace("_", " ").lower(), needs_login=False)


async def _receive_reply(stream: ByteStream) -> bytes:
    """The reply to a SOCKS command: four bytes, an address whose size depends on its type, and a port."""
    head = await _receive_exactly(stream, 5)
    address = {1: 4, 3: 1 + head[4], 4: 16}.get(head[3], 1)
    return head + await _receive_exactly(stream, address - 1 + 2)


async def _receive_exactly(stream: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


def _refusal(proxy: Proxy, target: str, why: str, *, needs_login: bool) -> ProxyError:
    advice = "give the proxy's URL the right user:password@" if needs_login else "ask whoever runs the proxy"
    return ProxyError(f"the proxy {proxy} refused to connect to {target} ({why}); {advice}")


def needs_socks() -> ConfigurationError:
    """What to say when a SOCKS proxy is to be used without the library for it."""
    return ConfigurationError(
        "a SOCKS proxy needs the extra socks: pip install 'speko-anyio[socks]'; or use another proxy"
    )


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
