"""``POST /telephony/<carrier>``: a carrier asks what to do with a call; the answer connects it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

from speko_anyio.telephony import SignatureError, SignedRequest
from speko_anyio.telephony._signatures import MAX_FIELDS

from ._http_errors import CREATE_FAILED, RequestError, invalid, respond
from ._request_body import read_body
from .store import Idempotency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import HTTPConnection, Request

    from speko_anyio.telephony import CarrierStream

    from ._minting import Minter
    from ._node import Node
    from ._public_url import PublicURL
    from ._served_phone import ServedPhone


TOKEN: Final = "token"  # noqa: S105 - the name of a parameter
"""The parameter of a call with the token of its session."""

MAX_PARAMETERS: Final = 32
"""Parameters of a call that its record keeps."""

MAX_VALUE: Final = 256
"""Characters of each name and value that the record keeps."""


class PhoneWebhook:
    """The endpoint of one carrier. It creates the record of the call's session."""

    def __init__(self, phone: ServedPhone, node: Node, minter: Minter, public_url: PublicURL) -> None:
        self._phone = phone
        self._node = node
        self._minter = minter
        self._public_url = public_url

    async def answer(self, request: Request) -> Response:
        """Answer one webhook; never raises."""
        response = await respond(
            self._answer(request),
            200,
            what=f"answering a call of {self._phone.carrier}",
            asked=f"a call of {self._phone.carrier}",
            unavailable_code=CREATE_FAILED,
            failure=RequestError(500, CREATE_FAILED, "the gateway failed to answer the call"),
        )
        self._node.instrumentation.called(self._phone.carrier, response.status_code)
        return response

    async def _answer(self, request: Request) -> Response:
        phone = self._phone
        self._node.availability.check_accepting()
        body = await read_body(request)
        check_signature(phone, request, self._public_url.http_base(request), body, now=self._node.now())
        self._minter.check_rate(phone.key_id, f"the phone {phone.carrier}")
        self._minter.check_room()
        fields = _fields_of(request, body)
        # A carrier repeats a webhook that it considers lost. A replayed one gets no second session.
        same = hashlib.sha256(request.url.query.encode() + b"\n" + body)
        record = await self._minter.create(
            phone.key_id,
            phone.config,
            {**phone.settings.metadata, "phone": _describe(phone.codec, fields, request)},
            ttl_seconds=phone.settings.ttl_seconds,
            idempotency=Idempotency(phone.key_id, same.hexdigest(), same.digest()),
            limits=phone.limits,
        )
        url = f"{self._public_url.ws_base(request)}{phone.path}"
        answer = phone.codec.connect_answer(url, {TOKEN: _spell(self._minter.token(record))})
        return Response(answer.body, media_type=answer.content_type)


def _spell(token: str) -> str:
    """Return a token in letters and digits: Plivo takes no other parameters."""
    return base64.b32encode(token.encode()).decode().rstrip("=")


def read_token(parameter: str) -> str:
    """Return the token in a parameter of a call: that of a webhook's answer, or of a mint as it is."""
    if "." in parameter:
        return parameter
    try:
        return base64.b32decode(parameter + "=" * (-len(parameter) % 8)).decode()
    except (binascii.Error, ValueError):
        return parameter  # not a token, which the signer will say


def check_signature(
    phone: ServedPhone, connection: HTTPConnection, base: str, body: bytes = b"", *, now: float
) -> None:
    """Raise `RequestError` unless the request comes from the carrier; `base` is the gateway's public URL."""
    if phone.settings.unsigned:
        if not _is_from_here(connection):
            raise RequestError(
                403,
                "FORBIDDEN",
                f"the phone {phone.carrier} takes calls from this machine only; it is unsigned",
            )
        return
    query = connection.url.query
    request = SignedRequest(
        method=connection.scope.get("method", "GET"),
        url=f"{base}{phone.path}" + (f"?{query}" if query else ""),
        headers=connection.headers,
        body=body,
    )
    try:
        phone.codec.verify(request, phone.secret, now=now)
    except SignatureError as error:
        raise RequestError(403, "FORBIDDEN", str(error)) from None


def _is_from_here(connection: HTTPConnection) -> bool:
    """Return whether a request comes from a program on this machine, and through no proxy or tunnel."""
    forwarded = any(name.startswith("x-forwarded") or name == "forwarded" for name in connection.headers)
    client = connection.client
    return (
        not forwarded
        and client is not None
        and _is_loopback(client.host)
        and _is_loopback(connection.url.hostname)
    )


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _fields_of(request: Request, body: bytes) -> dict[str, str]:
    """Return the fields of the webhook: of its query if it is a GET, otherwise of its form or JSON."""
    if request.method == "GET":
        return dict(request.query_params)
    try:
        text = body.decode()
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            found = msgspec.json.decode(text, type=dict[str, Any])
            return {name: value for name, value in found.items() if isinstance(value, str)}
        return dict(parse_qsl(text, max_num_fields=MAX_FIELDS))
    except (ValueError, RecursionError):
        raise invalid("the webhook's body is neither a form nor JSON") from None


def _describe(codec: type[CarrierStream], fields: Mapping[str, str], request: Request) -> dict[str, Any]:
    """Describe the call, for the handler and for the record."""
    named = {"call_id": codec.call_id_field, "caller": codec.caller_field, "called": codec.called_field}
    found = {name: fields[field][:MAX_VALUE] for name, field in named.items() if fields.get(field)}
    described: dict[str, Any] = {"carrier": codec.name, **found}
    if request.method == "POST" and request.query_params:
        parameters = list(request.query_params.items())[:MAX_PARAMETERS]
        described["parameters"] = {name[:MAX_VALUE]: value[:MAX_VALUE] for name, value in parameters}
    return described
