"""HTTP over httpx, with the proxies and certificates that sessions use."""

from __future__ import annotations

import logging
import re
import ssl
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
import anyio.to_thread

from .proxies import Proxy, find_http_proxy, needs_socks
from .trust import default_ssl_context

if TYPE_CHECKING:
    import httpx


MAX_ANSWER: Final = 1024 * 1024
"""Bytes of an answer, as sent and decompressed: honest ones have a few KiB."""

_TOO_LONG: Final = f"more than {MAX_ANSWER} bytes"
_MAX_ENCODINGS: Final = 2
_LOGIN: Final = re.compile(r"auth=.*", re.DOTALL)


class Answer(NamedTuple):
    """An HTTP response."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class UnreadableAnswer(Exception):
    """The answer is longer than `MAX_ANSWER`, or in an unknown encoding; the text says which."""


async def request_bounded(
    client: Any, method: str, url: str, *, headers: dict[str, str], **options: Any
) -> Answer:
    """Send one request by `client`, httpx's or one with its ``request``, and read at most `MAX_ANSWER` bytes.

    httpx decompresses whatever comes: 1 MB may become 1 GB. So this asks for an answer that is not
    compressed, and decompresses others itself. Raises `UnreadableAnswer` and what the client raises.
    """
    headers = {**headers, "Accept-Encoding": "identity"}
    if not hasattr(client, "stream"):
        response = await client.request(method, url, headers=headers, **options)
        return Answer(response.status_code, response.headers, _bounded(response.content))
    async with client.stream(method, url, headers=headers, **options) as response:
        if response.is_stream_consumed:  # made of bytes, such as by httpx.MockTransport
            return Answer(response.status_code, response.headers, _bounded(response.content))
        raw = bytearray()
        with anyio.CancelScope() as reading:
            async for piece in response.aiter_raw():
                raw += piece
                if len(raw) > MAX_ANSWER:
                    # Not by leaving the loop: that would leave the client's own generators unfinished.
                    reading.cancel()
                    raw.clear()
        if reading.cancel_called:
            raise UnreadableAnswer(_TOO_LONG)
        content = _decoded(bytes(raw), response.headers.get("content-encoding", ""))
        return Answer(response.status_code, response.headers, content)


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_ANSWER:
        raise UnreadableAnswer(_TOO_LONG)
    return content


def _decoded(content: bytes, encodings: str) -> bytes:
    """Undo the ``Content-Encoding`` (RFC 9110 section 8.4), of which the last was applied last."""
    names = [name for part in encodings.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(names) > _MAX_ENCODINGS:
        raise UnreadableAnswer("a body that can't be decoded")
    for name in reversed(names):
        if name not in ("gzip", "x-gzip", "deflate"):
            raise UnreadableAnswer(f"a body that can't be decoded, since it is encoded as {name[:20]!r}")
        content = _inflated(content)
    return content


def _inflated(content: bytes) -> bytes:
    if not content:
        return content
    # Either header, or the bare format that some servers send as deflate.
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        inflater = zlib.decompressobj(bits)
        try:
            inflated = inflater.decompress(content, MAX_ANSWER + 1)
        except zlib.error:
            continue
        if _bounded(inflated) and inflater.eof:
            return inflated
    raise UnreadableAnswer("a body that can't be decoded")


async def make_http_client(proxy: Proxy | None) -> httpx.AsyncClient:
    """Make an httpx client that connects through `proxy` and trusts what sessions trust.

    On its own, httpx reads the environment by different rules, rejects all of it for one bad entry in
    NO_PROXY, and trusts another list of certificates.

    It is made in a thread, since httpx loads many modules for its first client.
    """
    context = await default_ssl_context()
    return await anyio.to_thread.run_sync(_make_http_client, proxy, context, abandon_on_cancel=True)


def _make_http_client(proxy: Proxy | None, context: ssl.SSLContext) -> httpx.AsyncClient:
    # Not at the top: a gateway imports this module, but makes no requests, and httpx takes long to import.
    import httpx

    if proxy is None:
        return httpx.AsyncClient(verify=context, trust_env=False)
    through = httpx.Proxy(
        f"{proxy.scheme}://{proxy}",
        auth=(proxy.username, proxy.password) if proxy.username or proxy.password else None,
        ssl_context=context if proxy.scheme == "https" else None,
    )
    # At DEBUG, httpcore logs user and password.
    logging.getLogger("httpcore.socks").addFilter(_hide_login)
    try:
        return httpx.AsyncClient(verify=context, trust_env=False, proxy=through)
    except ImportError:
        raise needs_socks() from None


def _hide_login(record: logging.LogRecord) -> bool:
    record.msg = _LOGIN.sub("auth=***", str(record.msg))
    return True


class OwnHTTPClient:
    """The HTTP client of a `Speko` that was given none, for the host of `url`.

    The first request creates it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: httpx.AsyncClient | None = None
        self._making: anyio.Lock | None = None
        """Held while the client is made; None while this is not open."""
        self.proxy: Proxy | None = None
        """The proxy that requests go through; set by the first request."""

    def start(self) -> None:
        self._making = anyio.Lock()

    async def aclose(self) -> None:
        self._making = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: dict[str, str],
        timeout: float,  # noqa: ASYNC109 - httpx's own parameter
        follow_redirects: bool,
    ) -> Answer:
        return await request_bounded(
            self._client or await self._make(),
            method,
            url,
            content=content,
            headers=headers,
            timeout=timeout,
            follow_redirects=follow_redirects,
        )

    async def _make(self) -> httpx.AsyncClient:
        making = self._making
        if making is not None:
            async with making:
                if self._client is None:
                    self.proxy = find_http_proxy(self._url)
                    client = await make_http_client(self.proxy)
                    if self._making is making:  # not closed meanwhile
                        self._client = client
                if self._client is not None:
                    return self._client
        raise RuntimeError("Speko is not open: use `async with Speko() as speko:`")
