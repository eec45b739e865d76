"""Mint sessions over HTTP: the request, and the grants that its responses are."""

from __future__ import annotations

import re
import uuid
from ipaddress import ip_address
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

from ..errors import APIResponseError, UnsupportedTransportError
from ..protocol._pcm import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, is_sample_rate
from ..protocol.mint import DEFAULT_SAMPLE_RATE, MintRequest, ProviderGrant, SessionGrant
from ._requests import ErrorText, HTTPClient, Requests, Service

_PATH: Final = "/v1/sessions"

_OWN_PATH: Final = re.compile(r"/v1(/sessions)?/*\Z")
"""Matches a base URL that already ends with the API's path."""

_NAME: Final = "a Speko API"
_NO_API: Final = f"this is not {_NAME}; check the base URL"

_NOT_FOUND: Final = frozenset({400, 403, 404, 405, 406, 410, 415, 501})
"""Statuses that, without the documented body, show that the host is not a Speko API."""

ADAPTERS: Final = ("openai.realtime.v1", "xai.realtime.v1", "google.live.v1")
"""The protocols of providers that this client speaks, as the API names them."""

AnyGrant: TypeAlias = SessionGrant | ProviderGrant


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


def _read_error(body: bytes) -> ErrorText | None:
    try:
        said = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return ErrorText(said.error, said.code)


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
        self._url = base_url + _PATH
        self._api_key = api_key
        self._requests = Requests(
            client,
            Service(_NAME, _read_error, self._advice),
            url=base_url,
            secrets=(api_key,),
            timeout=timeout,
            retries=retries,
        )

    async def create(self, request: MintRequest) -> AnyGrant:
        """Mint a session; raises the `APIError` family."""
        headers = {
            "Authorization": f"Bearer {self._api_key}",
            "Content-Type": "application/json",
            # The same for every attempt: if an attempt succeeded and its answer was lost, the service returns
            # that session again.
            "Idempotency-Key": str(uuid.uuid4()),
        }
        body = msgspec.json.encode(request)
        answer = await self._requests.post(self._url, body, headers, purpose="a mint", repeatable=True)
        return self._grant(request, answer)

    def _advice(self, status: int, understood: bool) -> str | None:
        if understood:
            return self._path_advice() if status == 404 else None
        return self._path_advice() or _NO_API if status in _NOT_FOUND else None

    def _path_advice(self) -> str | None:
        """Advice for a base URL that ends with a part of the API's own path, as other clients expect it."""
        path = _OWN_PATH.search(self._url.removesuffix(_PATH))
        return f"leave out {path[0].rstrip('/')} at the end of the base URL" if path else None

    def _grant(self, request: MintRequest, body: bytes) -> AnyGrant:
        grant: AnyGrant
        try:
            shape = msgspec.json.decode(body, type=_Shape)
            if shape.is_served_here:
                grant = msgspec.json.decode(body, type=ProviderGrant)
            elif shape.transport is not None and shape.ws_url is None:
                details = self._requests.quote(
                    ", ".join(filter(None, (shape.adapter, shape.provider_transport)))
                )
                raise UnsupportedTransportError(shape.transport, f" ({details})" if details else "")
            else:
                grant = msgspec.json.decode(body, type=SessionGrant)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            # msgspec names the invalid field and not its value, so this shows no token.
            is_json = isinstance(error, msgspec.ValidationError)
            advice = f"check that the base URL is that of {_NAME}" if is_json else _NO_API
            raise APIResponseError(
                f"{self._requests.host} answered with something that is not a session ({error}); "
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
                f"{self._requests.host} was asked over https and answered with a URL without encryption, "
                "which would show the token and the speech to the network; have its operator set its public "
                "URL to https://"
            )
        if not (is_sample_rate(grant.input_sample_rate) and is_sample_rate(grant.output_sample_rate)):
            raise APIResponseError(
                f"{self._requests.host} answered with a sample rate that is not from {MIN_SAMPLE_RATE} to "
                f"{MAX_SAMPLE_RATE} Hz; check that the base URL is that of {_NAME}"
            )


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
