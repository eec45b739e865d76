"""HTTP requests to a service's API: their retries, and the errors that its responses mean."""

from __future__ import annotations

import datetime as dt
import email.utils
import logging
import math
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import anyio

from .._net.http import OwnHTTPClient, UnreadableAnswer, request_bounded
from .._net.trust import tls_advice
from .._net.user_agent import USER_AGENT
from ..errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    ProxyError,
    status_error,
)
from ..protocol._tokens import shown

logger: Final = logging.getLogger("speko_anyio.client")

_RETRIED: Final = frozenset({429, 502, 503, 504})
"""Statuses after which a request may be repeated that does the same if it is done twice."""

_NOT_DONE: Final = frozenset({429, 503})
"""Statuses that say that nothing was done."""

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 8.0
"""Seconds. If a service asks for a longer wait, don't retry: the caller can decide better."""

_MAX_MESSAGE: Final = 300
"""Characters of an error body that go into an exception."""

_HTML: Final = re.compile(r"\s*<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)

_MAX_CAUSES: Final = 10
"""How far the chain of causes is searched."""

_jitter: Final = random.SystemRandom().uniform


class HTTPResponse(Protocol):
    """The part of an HTTP response that is read; httpx's Response has it."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> bytes: ...


class HTTPClient(Protocol):
    """The part of an HTTP client that is used; httpx's AsyncClient has it."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: dict[str, str],
        timeout: float,  # noqa: ASYNC109 - httpx's own parameter
        follow_redirects: bool,
    ) -> HTTPResponse:
        """Send one request and read its whole answer."""
        ...


class ErrorText(NamedTuple):
    """What a service says in the body of an error."""

    message: str
    code: str = "UNKNOWN"


class Service(NamedTuple):
    """An HTTP API, as errors describe it."""

    name: str
    """Such as "a Speko API"."""
    read_error: Callable[[bytes], ErrorText | None]
    """Reads the body of an error; None if it has another form than the API's."""
    advice: Callable[[int, bool], str | None]
    """Returns what to do about a status; the bool is whether the body had the API's form. None: the usual."""


class Requests:
    """Requests to one API, at the host of `url`. `retries` counts the attempts after the first."""

    def __init__(
        self,
        client: HTTPClient,
        service: Service,
        *,
        url: str,
        secrets: tuple[str, ...],
        timeout: float,
        retries: int,
    ) -> None:
        self._client = client
        self._service = service
        self.host = urlsplit(url).netloc
        self._secrets = secrets
        self._timeout = timeout
        self._retries = retries

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, purpose: str, repeatable: bool
    ) -> bytes:
        """POST `body`; return the body of a response with a 2xx status.

        - `purpose`: of the request, for the log, such as "a mint".
        - `repeatable`: whether doing it twice is as good as once. If not, it is repeated only after failures
          that show that it was not done.

        Raises the `APIError` family.
        """
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT, **headers}
        attempt = 0
        while True:
            try:
                return await self._attempt(url, body, headers, purpose)
            except APIError as error:
                wait = _wait_before_retry(error, attempt, repeatable=repeatable)
                if wait is None or attempt >= self._retries:
                    raise
                logger.debug("%s failed; retrying in %.1f s: %s", purpose, wait, error)
            attempt += 1
            await anyio.sleep(wait)

    async def _attempt(self, url: str, body: bytes, headers: dict[str, str], purpose: str) -> bytes:
        try:
            response = await request_bounded(
                self._client,
                "POST",
                url,
                content=body,
                headers=headers,
                timeout=self._timeout,
                # A redirect would send the key, or the session's configuration, to another host.
                follow_redirects=False,
            )
        except UnreadableAnswer as error:
            raise APIResponseError(
                f"{self.host} answered with {error}; check that the base URL is that of {self._service.name}"
            ) from None
        except Exception as error:
            explained = self._explain(error)
            if explained is None:
                raise
            raise explained from error
        logger.debug("%s answered HTTP %d to %s", self.host, response.status_code, purpose)
        if 200 <= response.status_code < 300:
            return response.content
        raise self._refusal(response)

    def _explain(self, error: Exception) -> APIError | None:
        """Explain why the HTTP client got no response; return None if `error` is not one of the client's."""
        proxy = self._client.proxy if isinstance(self._client, OwnHTTPClient) else None
        through = "" if proxy is None else f" through the proxy {proxy}{proxy.origin}"
        suspect = "the base URL" if proxy is None else proxy.variable or "the proxy"
        said = self.quote(str(error)) or type(error).__name__
        if _is_any(error, "TimeoutException", "TimeoutError"):
            return APIConnectionError(
                f"{self.host} did not answer within {self._timeout:g} s{through}; check the network and "
                f"{suspect}"
            )
        if _is_any(error, "DecodingError"):
            return APIResponseError(
                f"{self.host} answered with a body that can't be decoded; check that the base URL is that "
                f"of {self._service.name}"
            )
        if _is_any(error, "ProxyError"):
            where = "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY" if proxy is None else proxy.variable or "its URL"
            return ProxyError(
                f"the proxy on the way to {self.host} refused to connect ({said}); check {where} and the "
                "user:password@ there, or ask its operator"
            )
        if not _is_any(error, "RequestError", "OSError"):
            return None
        if (tls := _tls_error_beneath(error)) is not None:
            return APIConnectionError(
                f"TLS with {self.host} failed{through} ({self.quote(str(tls))}); "
                + tls_advice(tls, "an http_client that trusts it")
            )
        # Behind a proxy the host's own failures are the proxy's responses.
        kind = APIConnectionError if proxy is None else ProxyError
        advice = f"check the network and {suspect}" if proxy is None else proxy.advice
        return kind(f"{self.host} can't be reached{through} ({said}); {advice}")

    def _refusal(self, response: HTTPResponse) -> APIStatusError:
        status = response.status_code
        said = self._service.read_error(response.content)
        advice = self._service.advice(status, said is not None)
        if said is None:
            message, code = response.content.decode(errors="replace").strip(), "UNKNOWN"
            if _HTML.match(message):
                message = "an HTML page"
        else:
            message, code = said
        if 300 <= status < 400:
            target = _host_of(response.headers.get("location", ""))
            message = f"a redirect to {target or 'elsewhere'}, not followed since it would carry the API key"
            advice = "check the base URL"
        return status_error(
            host=self.host,
            status=status,
            code=self.quote(code) or "UNKNOWN",
            message=self.quote(message) or "no message",
            advice=advice,
            retry_after=_retry_after(response.headers.get("retry-after")),
        )

    def quote(self, text: str) -> str:
        """Return the service's message on one line, cut and without secrets: it may quote what it refused."""
        return shown(text, self._secrets, limit=_MAX_MESSAGE, replacement="<api key>")


def _is_any(error: BaseException | None, *names: str) -> bool:
    """Return whether `error` is an exception of Python, httpx or httpx2 with one of these names.

    By name, since the caller's client may be either library's and the other need not be installed.
    """
    return any(
        kind.__name__ in names and kind.__module__ in ("builtins", "httpx", "httpx2")
        for kind in type(error).__mro__
    )


def _tls_error_beneath(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error among the causes of `error`, if any.

    On trio, an HTTP client's own error has no message.
    """
    for _ in range(_MAX_CAUSES):
        if error is None or isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _wait_before_retry(error: APIError, attempt: int, *, repeatable: bool) -> float | None:
    """Return the seconds to wait before another attempt; None for no further attempt."""
    backoff = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt) * _jitter(0.5, 1.0)
    if isinstance(error, ProxyError):
        return None
    if isinstance(error, APIConnectionError):
        if not repeatable:
            return backoff if _is_any(error.__cause__, "ConnectError", "ConnectTimeout") else None
        # After a timeout the service may still be at work, and another attempt would take as long again.
        final = ("ReadTimeout", "WriteTimeout", "PoolTimeout", "TimeoutError", "UnsupportedProtocol")
        return None if _is_any(error.__cause__, *final) else backoff
    if not isinstance(error, APIStatusError) or error.status not in (_RETRIED if repeatable else _NOT_DONE):
        return None
    if error.retry_after is None:
        return backoff
    return max(backoff, error.retry_after) if error.retry_after <= _LONGEST_WAIT else None


def _retry_after(value: str | None) -> float | None:
    """Return the seconds from now that a Retry-After header gives (RFC 9110 section 10.2.3).

    It is a number, or a date in any of the three forms of section 5.6.7; None for anything else.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    try:
        instant = email.utils.parsedate_to_datetime(value)
        if instant.tzinfo is None:
            # The asctime form has no time zone: all HTTP dates are GMT.
            instant = instant.replace(tzinfo=dt.UTC)
        return float(max(0.0, instant.timestamp() - time.time()))
    except (ValueError, OverflowError):
        return None
