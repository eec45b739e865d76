"""Mint sessions over HTTP: the request, its retries, and the errors that its responses mean."""

from __future__ import annotations

import datetime as dt
import email.utils
import logging
import math
import random
import re
import ssl
import time
import uuid
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import anyio
import msgspec

from .._net.http import OwnHTTPClient, UnreadableAnswer, request_bounded
from .._net.trust import tls_advice
from .._net.user_agent import USER_AGENT
from ..errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    ProxyError,
    UnsupportedTransportError,
    status_error,
)
from ..protocol._pcm import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, is_sample_rate
from ..protocol._tokens import shown
from ..protocol.mint import DEFAULT_SAMPLE_RATE, MintRequest, ProviderGrant, SessionGrant

logger: Final = logging.getLogger("speko_anyio.client")

_RETRIED: Final = frozenset({429, 502, 503, 504})
"""Statuses that say nothing was minted, or that it is safe to ask again with the same key."""

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 8.0
"""Seconds. If a service asks for a longer wait, don't retry: the caller can decide better."""

_MAX_MESSAGE: Final = 300
"""Characters of an error body that go into an exception."""

_PATH: Final = "/v1/sessions"

_OWN_PATH: Final = re.compile(r"/v1(/sessions)?/*\Z")
"""Matches a base URL that already ends with the API's path."""

_NO_API: Final = "this is not a Speko API; check the base URL"

_NOT_FOUND: Final = frozenset({400, 403, 404, 405, 406, 410, 415, 501})
"""Statuses that, without the documented body, show that the host is not a Speko API."""

_HTML: Final = re.compile(r"\s*<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)

_MAX_CAUSES: Final = 10
"""How far the chain of causes is searched."""

_jitter: Final = random.SystemRandom().uniform


ADAPTERS: Final = ("openai.realtime.v1", "xai.realtime.v1", "google.live.v1")
"""The protocols of providers that this client speaks, as the API names them."""

AnyGrant: TypeAlias = SessionGrant | ProviderGrant


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


class _Shape(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that tell the kinds of answers apart."""

    ws_url: str | None = None
    transport: str | None = None
    adapter: str | None = None
    provider_transport: str | None = None

    @property
    def is_served_here(self) -> bool:
        """Whether it is a session with a provider that this client can hold."""
        return (
            self.transport == "provider_direct"
            and self.provider_transport == "websocket"
            and self.adapter in ADAPTERS
        )


class _ErrorBody(msgspec.Struct, frozen=True):
    error: str
    code: str = "UNKNOWN"


class MintClient:
    """Mints sessions at one API. `retries` counts the attempts after the first."""

    def __init__(
        self,
        client: HTTPClient,
        *,
        base_url: str,
        api_key: str,
        timeout: float,
        retries: int,
    ) -> None:
        self._client = client
        self._url = base_url + _PATH
        self._host = urlsplit(base_url).netloc
        self._api_key = api_key
        self._timeout = timeout
        self._retries = retries

    async def create(self, request: MintRequest) -> AnyGrant:
        """Mint a session; raises the `APIError` family."""
        body = msgspec.json.encode(request)
        headers = {
            "Authorization": f"Bearer {self._api_key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
            # The same for every attempt: if an attempt succeeded and its answer was lost, the service returns
            # that session again.
            "Idempotency-Key": str(uuid.uuid4()),
        }
        attempt = 0
        while True:
            try:
                return self._grant(request, await self._attempt(body, headers))
            except APIError as error:
                wait = _wait_before_retry(error, attempt)
                if wait is None or attempt >= self._retries:
                    raise
                logger.debug("minting a session failed; retrying in %.1f s: %s", wait, error)
            attempt += 1
            await anyio.sleep(wait)

    async def _attempt(self, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            response = await request_bounded(
                self._client,
                "POST",
                self._url,
                content=body,
                headers=headers,
                timeout=self._timeout,
                # A redirect would send the key, or the session's configuration, to another host.
                follow_redirects=False,
            )
        except UnreadableAnswer as error:
            raise APIResponseError(
                f"{self._host} answered with {error}; check that the base URL is that of a Speko API"
            ) from None
        except Exception as error:
            explained = self._explain(error)
            if explained is None:
                raise
            raise explained from error
        logger.debug("%s answered HTTP %d to a mint", self._host, response.status_code)
        if 200 <= response.status_code < 300:
            return response.content
        raise self._refusal(response)

    def _explain(self, error: Exception) -> APIError | None:
        """Explain why the HTTP client got no response; return None if `error` is not one of the client's."""
        proxy = self._client.proxy if isinstance(self._client, OwnHTTPClient) else None
        through = "" if proxy is None else f" through the proxy {proxy}{proxy.origin}"
        suspect = "the base URL" if proxy is None else proxy.variable or "the proxy"
        said = self._quote(str(error)) or type(error).__name__
        if _is_any(error, "TimeoutException", "TimeoutError"):
            return APIConnectionError(
                f"{self._host} did not answer within {self._timeout:g} s{through}; check the network and "
                f"{suspect}"
            )
        if _is_any(error, "DecodingError"):
            return APIResponseError(
                f"{self._host} answered with a body that can't be decoded; check that the base URL is that "
                "of a Speko API"
            )
        if _is_any(error, "ProxyError"):
            where = "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY" if proxy is None else proxy.variable or "its URL"
            return ProxyError(
                f"the proxy on the way to {self._host} refused to connect ({said}); check {where} and the "
                "user:password@ there, or ask its operator"
            )
        if not _is_any(error, "RequestError", "OSError"):
            return None
        if (tls := _tls_error_beneath(error)) is not None:
            return APIConnectionError(
                f"TLS with {self._host} failed{through} ({self._quote(str(tls))}); "
                + tls_advice(tls, "an http_client that trusts it")
            )
        # Behind a proxy the host's own failures are the proxy's responses.
        kind = APIConnectionError if proxy is None else ProxyError
        advice = f"check the network and {suspect}" if proxy is None else proxy.advice
        return kind(f"{self._host} can't be reached{through} ({said}); {advice}")

    def _refusal(self, response: HTTPResponse) -> APIStatusError:
        status, advice = response.status_code, None
        try:
            said = msgspec.json.decode(response.content, type=_ErrorBody)
            message, code = said.error, said.code
            if status == 404:
                advice = self._path_advice()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            message, code = response.content.decode(errors="replace").strip(), "UNKNOWN"
            if _HTML.match(message):
                message = "an HTML page"
            if status in _NOT_FOUND:
                advice = self._path_advice() or _NO_API
        if 300 <= status < 400:
            target = _host_of(response.headers.get("location", ""))
            message = f"a redirect to {target or 'elsewhere'}, not followed since it would carry the API key"
            advice = "check the base URL"
        return status_error(
            host=self._host,
            status=status,
            code=self._quote(code) or "UNKNOWN",
            message=self._quote(message) or "no message",
            advice=advice,
            retry_after=_retry_after(response.headers.get("retry-after")),
        )

    def _path_advice(self) -> str | None:
        """Advice for a base URL that ends with a part of the API's own path, as other clients expect it."""
        path = _OWN_PATH.search(self._url.removesuffix(_PATH))
        return f"leave out {path[0].rstrip('/')} at the end of the base URL" if path else None

    def _quote(self, text: str) -> str:
        """Return the service's message on one line, cut and without the key: it may quote what it refused."""
        return shown(text, (self._api_key,), limit=_MAX_MESSAGE, replacement="<api key>")

    def _grant(self, request: MintRequest, body: bytes) -> AnyGrant:
        grant: AnyGrant
        try:
            shape = msgspec.json.decode(body, type=_Shape)
            if shape.is_served_here:
                grant = msgspec.json.decode(body, type=ProviderGrant)
            elif shape.transport is not None and shape.ws_url is None:
                details = self._quote(", ".join(filter(None, (shape.adapter, shape.provider_transport))))
                raise UnsupportedTransportError(shape.transport, f" ({details})" if details else "")
            else:
                grant = msgspec.json.decode(body, type=SessionGrant)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            # msgspec names the invalid field and not its value, so this shows no token.
            is_json = isinstance(error, msgspec.ValidationError)
            advice = "check that the base URL is that of a Speko API" if is_json else _NO_API
            raise APIResponseError(
                f"{self._host} answered with something that is not a session ({error}); "
                + (self._path_advice() or advice)
            ) from None
        asked = request.s2s
        grant = msgspec.structs.replace(
            grant,
            input_sample_rate=grant.input_sample_rate or asked.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=grant.output_sample_rate or asked.output_sample_rate or DEFAULT_SAMPLE_RATE,
        )
        self._check(grant)
        return grant

    def _check(self, grant: AnyGrant) -> None:
        """Raise `APIResponseError` for a session that would be in the clear, or has impossible rates."""
        if isinstance(grant, SessionGrant):
            urls = [grant.ws_url]
        else:
            urls = [grant.endpoint, *([] if grant.telemetry is None else [grant.telemetry.endpoint])]
        if self._url.lower().startswith("https:") and any(map(_is_in_the_clear, urls)):
            raise APIResponseError(
                f"{self._host} was asked over https and answered with a URL without encryption, which would "
                "show the token and the speech to the network; have its operator set its public URL to https://"
            )
        if not (is_sample_rate(grant.input_sample_rate) and is_sample_rate(grant.output_sample_rate)):
            raise APIResponseError(
                f"{self._host} answered with a sample rate that is not from {MIN_SAMPLE_RATE} to "
                f"{MAX_SAMPLE_RATE} Hz; check that the base URL is that of a Speko API"
            )


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


def _is_in_the_clear(url: str) -> bool:
    """Whether `url` lacks encryption and leads to another machine."""
    scheme, _, rest = url.partition(":")
    if scheme.strip().lower() not in ("ws", "http"):
        return False
    try:
        host = urlsplit(f"x:{rest}").hostname or ""
    except ValueError:
        return True
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def _wait_before_retry(error: APIError, attempt: int) -> float | None:
    """Return the seconds to wait before another attempt; None for no further attempt."""
    backoff = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt) * _jitter(0.5, 1.0)
    if isinstance(error, ProxyError):
        return None
    if isinstance(error, APIConnectionError):
        # After a timeout the service may still be at work, and another attempt would take as long again.
        final = ("ReadTimeout", "WriteTimeout", "PoolTimeout", "TimeoutError", "UnsupportedProtocol")
        return None if _is_any(error.__cause__, *final) else backoff
    if not isinstance(error, APIStatusError) or error.status not in _RETRIED:
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
