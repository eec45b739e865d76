"""`Speko`: the way in."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

import httpx

from .._net.contexts import AsyncOnly
from .._net.http import OwnHTTPClient
from ..errors import ConfigurationError, MissingAPIKeyError
from ..protocol._tokens import find_key_fault, strip_invisible
from ._mint import MintClient
from ._parameters import check_number, check_text
from ._realtime import Realtime
from ._requests import HTTPClient

DEFAULT_BASE_URL: Final = "https://api.speko.dev"


class Speko(AsyncOnly):
    """A client of one Speko API, the hosted one or a gateway of your own. Use it with ``async with``.

    - `api_key`: defaults to the environment variable ``SPEKO_API_KEY``. Raises `MissingAPIKeyError` when
      neither is set, `ConfigurationError` for a key that no HTTP header can carry.
    - `base_url`: defaults to ``SPEKO_BASE_URL``, or else the hosted service. Raises `ConfigurationError`,
      which is a ValueError, when it is not an HTTP URL, or has a user name, a query or a fragment.
    - `timeout`: seconds for each step of an HTTP request: connecting, sending, waiting for the answer. A
      live session has its own limits, see `Realtime.open`.
    - `max_retries`: further attempts at minting a session, where a retry is safe.
    - `http_client`: anything with the ``request`` of `httpx.AsyncClient`, for proxies, certificates or
      tests; yours to close.
    """

    _what = "Speko is opened"
    _example = "async with Speko() as speko:"

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = 30.0,
        max_retries: int = 2,
        http_client: HTTPClient | None = None,
    ) -> None:
        check_text("api_key", api_key)
        check_text("base_url", base_url)
        check_number("timeout", timeout)
        check_number("max_retries", max_retries)
        key = strip_invisible(api_key or os.environ.get("SPEKO_API_KEY") or "")
        if not key:
            raise MissingAPIKeyError
        if not (key.isascii() and key.isprintable()):
            raise ConfigurationError(
                "the API key has characters that no HTTP header can carry; check "
                + _source("api_key", api_key, "SPEKO_API_KEY")
            )
        fault = find_key_fault(key)
        if fault is not None:
            raise ConfigurationError(
                f"the API key {fault}; check " + _source("api_key", api_key, "SPEKO_API_KEY")
            )
        self._base_url = _check_url(
            base_url or os.environ.get("SPEKO_BASE_URL") or DEFAULT_BASE_URL,
            _source("base_url", base_url, "SPEKO_BASE_URL"),
        )
        self._client = OwnHTTPClient(self._base_url) if http_client is None else http_client
        self.realtime: Realtime = Realtime(
            MintClient(
                self._client, base_url=self._base_url, api_key=key, timeout=timeout, retries=max_retries
            )
        )
        """Speech-to-speech sessions."""

    def __repr__(self) -> str:
        return f"Speko(base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        if isinstance(self._client, OwnHTTPClient):
            self._client.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(self._client, OwnHTTPClient):
            await self._client.aclose()


def _source(argument: str, value: str | None, variable: str) -> str:
    """Return the origin of a setting, for error messages."""
    return f"the argument {argument} (it overrides {variable})" if value else f"the variable {variable}"


def _check_url(url: str, source: str) -> str:
    url = strip_invisible(url)
    problem = "be http:// or https:// with a host, and neither user name nor query"
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc:
            problem = "have a port from 1 to 65535, or none" if not _has_valid_port(parts) else problem
        # httpx and the resolver would only fail at the first request, with errors of their own.
        httpx.URL(url).raw_host.decode("ascii").encode("idna")
        usable = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and not (parts.query or parts.fragment or "@" in parts.netloc)
        )
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        # Don't show the URL: it may hold a secret.
        raise ConfigurationError(f"the base URL must {problem}; check {source}")
    return url.rstrip("/")


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False
