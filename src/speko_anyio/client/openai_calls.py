"""Phone calls that reach OpenAI over SIP: accept, reject, transfer and end them, by HTTP."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final, Unpack

import msgspec

from .._net.contexts import never_swallows
from .._net.http import OwnHTTPClient
from ..errors import ConfigurationError
from ..protocol.errors import LocalProtocolError
from ..providers._endpoint import Endpoint
from ..providers.openai import OpenAIOptions
from ..providers.openai_calls import (
    CallRequest,
    IncomingCall,
    accept_call,
    hang_up_call,
    read_webhook,
    refer_call,
    reject_call,
)
from ._parameters import SessionParameters, check_text, session_config
from ._requests import ErrorText, HTTPClient, Requests, Service

__all__ = ["OpenAICalls"]

logger: Final = logging.getLogger("speko_anyio.client")

SECRET_VARIABLE: Final = "OPENAI_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
"""The environment variable that holds the webhook's secret, as for OpenAI's own clients."""


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


def _read_error(body: bytes) -> ErrorText | None:
    try:
        error = msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return ErrorText(error.message, error.code or error.type or "UNKNOWN")


def _advice(status: int, understood: bool) -> str | None:
    if not understood:
        return "check the base URL, and that it serves OpenAI's calls"
    return {
        401: "check the API key (OPENAI_API_KEY) and that it belongs to the project that the call reached",
        404: "the call is over, or it never reached the project of this API key",
    }.get(status)


_SERVICE: Final = Service("OpenAI's API", _read_error, _advice)


class OpenAICalls:
    """Phone calls that reach your OpenAI project over SIP: `OpenAI.calls`.

    A call rings until it is accepted or rejected. Join an accepted one with `OpenAI.attach`.

    The methods that send a request raise the `APIError` family: `APIStatusError` with status 404 for a call
    that is over, `APIConnectionError` without an answer. Failures to connect, 429 and 503 are retried twice;
    anything after which OpenAI may have acted is not. Cancelling one leaves open whether OpenAI acted.
    """

    def __init__(
        self,
        endpoint: Callable[[str, str], Endpoint],
        options: OpenAIOptions,
        http_client: HTTPClient | None,
        *,
        timeout: float = 30.0,
        max_retries: int = 2,
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._http_client = http_client
        self._timeout = timeout
        self._max_retries = max_retries

    def incoming(
        self, body: bytes, headers: Mapping[str, str], *, secret: str | None = None
    ) -> IncomingCall | None:
        """Check a webhook that your web server received; return the call that it announces.

        - `body`, `headers`: of the HTTP request, the body unchanged.
        - `secret`: of the webhook; else ``OPENAI_WEBHOOK_SECRET``.

        None for any event but ``realtime.call.incoming``. Raises `SignatureError` if OpenAI did not sign it,
        or more than 5 minutes ago: answer it with 401. `ConfigurationError` without a usable secret. Answer a
        webhook within seconds, and accept its call in another task: OpenAI delivers it again otherwise, with
        the same `IncomingCall.webhook_id`.
        """
        check_text("secret", secret)
        secret = secret or os.environ.get(SECRET_VARIABLE, "").strip()
        if not secret:
            raise ConfigurationError(
                f"no secret for OpenAI's webhooks: set the environment variable {SECRET_VARIABLE} or pass "
                "secret="
            )
        try:
            return read_webhook(body, headers, secret, now=time.time())
        except LocalProtocolError as error:
            raise ConfigurationError(f"{error} (it comes from secret= or {SECRET_VARIABLE})") from None

    async def accept(self, call_id: str, *, model: str, **parameters: Unpack[SessionParameters]) -> None:
        """Accept a call: `model` answers it, configured by the parameters of `Provider.connect`.

        Functions among the `tools` are declared here; pass them to `OpenAI.attach`, too, which calls them.
        The audio has the format of the phone line, so that the sample rates don't apply. A parameter that
        OpenAI can't honour is logged as a warning. `LocalProtocolError` when a parameter is invalid.
        """
        for name in parameters:
            if name not in SessionParameters.__annotations__:
                raise TypeError(
                    f"{name} is not a parameter of a call; the options of an open session go to attach"
                )
        config = session_config("openai", model, parameters)
        make = functools.partial(accept_call, config=config, options=self._options)
        await self._post(call_id, "accept", make, repeatable=False)

    async def reject(self, call_id: str, *, status_code: int = 603) -> None:
        """Reject a call with a SIP status from 300 to 699, such as 486 (Busy Here); 603 is Decline."""
        make = functools.partial(reject_call, status_code=status_code)
        await self._post(call_id, "reject", make, repeatable=True)

    async def refer(self, call_id: str, *, target_uri: str) -> None:
        """Transfer an accepted call to ``tel:+15550100`` or ``sip:agent@example.com``, by SIP REFER.

        A session that has joined the call ends once the transfer succeeds.
        """
        check_text("target_uri", target_uri, required=True)
        await self._post(
            call_id, "refer", functools.partial(refer_call, target_uri=target_uri), repeatable=False
        )

    async def hang_up(self, call_id: str) -> None:
        """End an accepted call, and so every session that has joined it."""
        await self._post(call_id, "hangup", hang_up_call, repeatable=True)

    async def _post(
        self, call_id: str, action: str, make: Callable[[Endpoint], CallRequest], *, repeatable: bool
    ) -> None:
        check_text("call_id", call_id, required=True)
        request = make(self._endpoint(call_id, action))
        for note in request.notes:
            logger.warning("call %s: %s", call_id, note)
        async with _client(self._http_client, request.url) as client:
            requests = Requests(
                client,
                _SERVICE,
                url=request.url,
                secrets=request.secrets,
                timeout=self._timeout,
                retries=self._max_retries,
            )
            purpose = f"a request to {action} a call"
            headers = dict(request.headers)
            await requests.post(request.url, request.body, headers, purpose=purpose, repeatable=repeatable)


@never_swallows
async def _client(given: HTTPClient | None, url: str) -> AsyncGenerator[HTTPClient, None]:
    """Use the client that was given, or one of our own for this request: calls are too rare to keep it."""
    if given is not None:
        yield given
        return
    own = OwnHTTPClient(url)
    own.start()
    try:
        yield own
    finally:
        await own.aclose()
