"""HTTP over httpx, with the proxies and certificates that sessions use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .proxies import Proxy, find_http_proxy, needs_socks
from .trust import default_ssl_context

if TYPE_CHECKING:
    import httpx


def make_http_client(proxy: Proxy | None) -> httpx.AsyncClient:
    """Make an httpx client that connects through `proxy` and trusts what sessions trust.

    On its own, httpx reads the environment by different rules, rejects all of it for one bad entry in
    NO_PROXY, and trusts another list of certificates.
    """
    # Not at the top: a gateway imports this module, but makes no requests, and httpx takes long to import.
    import httpx

    context = default_ssl_context()
    if proxy is None:
        return httpx.AsyncClient(verify=context, trust_env=False)
    through = httpx.Proxy(
        f"{proxy.scheme}://{proxy}",
        auth=(proxy.username, proxy.password) if proxy.username or proxy.password else None,
        ssl_context=context if proxy.scheme == "https" else None,
    )
    try:
        return httpx.AsyncClient(verify=context, trust_env=False, proxy=through)
    except ImportError:
        raise needs_socks() from None


class OwnHTTPClient:
    """The HTTP client of a `Speko` that was given none, for the host of `url`.

    The first request creates it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._open = False
        self._client: httpx.AsyncClient | None = None
        self.proxy: Proxy | None = None
        """The proxy that requests go through; set by the first request."""

    def start(self) -> None:
        self._open = True

    async def aclose(self) -> None:
        self._open = False
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
    ) -> httpx.Response:
        if not self._open:
            raise RuntimeError("Speko is not open: use `async with Speko() as speko:`")
        if self._client is None:
            self.proxy = find_http_proxy(self._url)
            self._client = make_http_client(self.proxy)
        return await self._client.request(
            method,
            url,
            content=content,
            headers=headers,
            timeout=timeout,
            follow_redirects=follow_redirects,
        )
