"""The WebSocket of a phone call: check who opens it, wait for the start and its token, run the session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from starlette.requests import HTTPConnection

from speko_anyio.audio._barge_in import BargeInDetector
from speko_anyio.audio.resample import Resampler
from speko_anyio.protocol import close_codes
from speko_anyio.protocol._session import ClientProtocol
from speko_anyio.protocol.errors import RemoteProtocolError
from speko_anyio.telephony import PhoneBridge

from ._asgi import ASGIOpening
from ._http_errors import RequestError, log_refusal
from ._message_link import MessageLink
from ._opening import refuse
from ._phone_transport import PhoneTransport
from ._phone_webhook import TOKEN, check_signature, read_token
from ._session_log import make_core

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from speko_anyio.telephony import CarrierStream

    from ._message_link import MessageTransport
    from ._node import Node
    from ._public_url import PublicURL
    from ._served_phone import ServedPhone
    from ._session import CoreOptions
    from ._stream import Stream
    from .store import SessionRecord


START_TIMEOUT: Final = 5.0
"""Seconds from the opening in which the carrier must say which call it is. Carriers do so at once."""

MAX_EARLY: Final = 64
"""Messages that may come before that. Carriers send one at most."""

MAX_WAITING: Final = 100
"""WebSockets of one carrier that may wait for their start; beyond that the longest wait is cut."""


class PhoneStream:
    """The endpoint of one carrier, an ASGI application."""

    def __init__(self, phone: ServedPhone, node: Node, stream: Stream, public_url: PublicURL) -> None:
        self._phone = phone
        self._node = node
        self._stream = stream
        self._public_url = public_url
        self._waiting: dict[anyio.CancelScope, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        opening = ASGIOpening(scope, receive, send)
        try:
            self._check(HTTPConnection(scope))
        except RequestError as refusal:
            self._refused(refusal)
            await refuse(opening, refusal)
            return
        transport = await opening.connect()
        if transport is None:
            return
        call = CarrierCall(self._phone, transport)
        try:
            claimed = [await self._claim(call)]
        except RequestError as refusal:
            self._refused(refusal)
            await call.refuse(refusal)
            return
        self._node.instrumentation.connected(self._phone.carrier, 101)
        # Taken from a list: this frame must not keep the configuration as long as the session lasts.
        await self._stream.run(claimed.pop(), call)

    def _check(self, connection: HTTPConnection) -> None:
        self._node.availability.check_accepting()
        if self._phone.settings.unsigned or self._phone.codec.signs_websocket(connection.headers):
            base = self._public_url.ws_base(connection)
            check_signature(self._phone, connection, base, now=self._node.now())

    async def _claim(self, call: CarrierCall) -> SessionRecord:
        """Wait for the start of the call, and claim its session; `RequestError` if it has none."""
        token = ""
        with anyio.move_on_after(START_TIMEOUT) as scope:
            self._waiting[scope] = None
            if len(self._waiting) > MAX_WAITING:
                next(iter(self._waiting)).cancel()
            try:
                token = await call.wait_for_token()
            finally:
                self._waiting.pop(scope, None)
        if scope.cancelled_caught:
            raise RequestError(
                408, "REQUEST_TIMEOUT", f"the call did not start within {START_TIMEOUT:g} seconds"
            )
        return await self._stream.claim(token, session_id=None)

    def _refused(self, refusal: RequestError) -> None:
        log_refusal(f"a call of {self._phone.carrier}", refusal)
        self._node.instrumentation.connected(self._phone.carrier, refusal.status)


class CarrierCall:
    """One call, whose WebSocket is open; `Admitted` once its token was claimed."""

    def __init__(self, phone: ServedPhone, carrier: MessageTransport) -> None:
        self._phone = phone
        self._carrier = carrier
        self._codec: CarrierStream = phone.codec()
        self._transport: PhoneTransport | None = None

    async def wait_for_token(self) -> str:
        """Wait until the carrier says which call this is; return the call's token.

        Raises `RequestError` if the call has none, or the carrier is not who it should be.
        """
        for _ in range(MAX_EARLY):
            message = await self._carrier.receive()
            if not isinstance(message, str | bytes):
                raise _refusal("the WebSocket was closed before the call started")
            try:
                self._codec.receive_message(message)
            except RemoteProtocolError as error:
                raise _refusal(str(error)) from None
            if self._codec.started is not None:
                token = self._codec.started.parameters.get(TOKEN)
                if not token:
                    raise RequestError(
                        401,
                        "UNAUTHORIZED",
                        f"the call has no parameter {TOKEN}; let the carrier ask {self._phone.path} what to "
                        "do, or pass the wsToken of a mint",
                        close_code=close_codes.UNAUTHORIZED,
                    )
                return read_token(token)
        raise _refusal(f"the call did not start within {MAX_EARLY} messages")

    async def refuse(self, refusal: RequestError) -> None:
        """Close the WebSocket."""
        try:
            await self._carrier.close(refusal.close_code, str(refusal))
        except anyio.BrokenResourceError:
            return  # the carrier has left

    async def accept(self, session_id: str, options: CoreOptions) -> MessageLink:
        server = make_core(session_id, **options)
        able, settings = options["capabilities"], self._phone.settings
        rate_in, rate_out = server.input_sample_rate, server.output_sample_rate
        self._transport = PhoneTransport(
            self._carrier,
            PhoneBridge(
                self._codec,
                input_sample_rate=rate_in,
                output_sample_rate=rate_out,
                make_resampler=Resampler,
                digits="text" if able is not None and able.text else "event",
                barge_in=BargeInDetector(self._codec.sample_rate) if settings.barge_in else None,
            ),
            client=ClientProtocol(input_sample_rate=rate_in, output_sample_rate=rate_out),
            server=server,
            session_id=session_id,
            close_timeout=options["close_timeout"],
            greeting=settings.greeting,
        )
        return MessageLink(server, self._transport)

    async def wait_gone(self) -> None:
        assert self._transport is not None, "accepted first"
        await self._transport.leave()


def _refusal(message: str) -> RequestError:
    return RequestError(400, "VALIDATION_ERROR", message)
