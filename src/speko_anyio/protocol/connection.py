"""The Speko session at byte level: bytes of a WebSocket to frames and commands, in both roles. No I/O.

The contract, for whoever brings the transport::

    connection.receive_data(data)                       # or receive_eof()
    while (event := connection.next_event()) is not NEED_DATA:
        ...
    transport.write(connection.data_to_send())          # after verbs and after events: replies wait here too
"""

from __future__ import annotations

import http
import os
from collections.abc import Iterable
from typing import Final

from .byte_level import ByteLevel
from .client_byte_level import ClientByteLevel
from .commands import Command, UpgradeRequest
from .engine import Broken, HandshakeEvent
from .errors import HandshakeError, LocalProtocolError
from .frames import Frame, ResponseStatus
from .headers import Headers, encode_headers
from .limits import DEFAULT_LIMITS, Limits
from .masking import Entropy, mask
from .pcm import Buffer
from .session import ClientProtocol, ServerProtocol
from .state import Signal, State
from .tokens import check_token, is_token

_REFUSALS: Final = frozenset(status for status in http.HTTPStatus if 300 <= status <= 599)
_number: Final = int.from_bytes


class ClientConnection(ClientByteLevel[Frame], ClientProtocol):
    """The client's side of one session over a byte stream to the server.

    `url` and `token` are the mint's ``wsUrl`` and ``wsToken``; `LocalProtocolError` when they can't be
    used. The opening request is queued at once: write `data_to_send`. The session is OPEN when the server
    accepted; then everything may be sent, also before `Ready`.

    - `headers`: further HTTP fields of the opening request, such as User-Agent.
    - `handshake_timeout`, `ping_interval` (None: no pings), `ping_timeout`, `close_timeout`: seconds.
    - `entropy`: where masking keys and the handshake's nonce come from; a fixed source makes a session
      replay byte for byte, and must not be used on a network (RFC 6455 section 10.3).

    The remaining parameters are those of `ClientProtocol`.
    """

    _refusal_advice = "mint a new one and open it in time"

    def __init__(
        self,
        url: str,
        token: str,
        *,
        headers: Headers = (),
        input_sample_rate: int = 24_000,
        output_sample_rate: int = 24_000,
        limits: Limits = DEFAULT_LIMITS,
        handshake_timeout: float = 10.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float = 20.0,
        close_timeout: float = 5.0,
        ttl: float | None = None,
        warn_before: float = 60.0,
        entropy: Entropy = os.urandom,
    ) -> None:
        super().__init__(
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            limits=limits,
            close_timeout=close_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=State.CONNECTING,
        )
        self._start_client(
            url,
            subprotocols=(check_token(token),),
            headers=headers,
            secrets=(token,),
            entropy=entropy,
            handshake_timeout=handshake_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )

    def send_audio(self, pcm: Buffer) -> None:
        # The fast lane out, fifty times a second and session: audio of the usual form that may be sent now
        # becomes a frame here and at once. Whether other audio may be sent, or why not, is asked elsewhere.
        framer = self._framer
        if (
            type(pcm) is bytes
            and ((size := len(pcm)) == framer.shape.size or framer.reshape(size))
            and self._may_talk
            and (queued := self._queued + size) <= self._max_outbox
        ):
            self._queued = queued
            shape = framer.shape
            # The takers by way of a local name: CPython 3.11 is slower otherwise.
            if shape.ones:
                # Masked with its header and its key in place: that spares putting them before it afterwards.
                take_number = framer.keys.take_number
                frame = _number(shape.start + pcm, "little") ^ take_number() * shape.ones
                self._outbox.append(frame.to_bytes(shape.length, "little"))
            else:
                take_key = framer.keys.take
                (key,) = take_key()
                self._outbox.append(shape.head + key + mask(pcm, key))
        else:
            super().send_audio(pcm)

    # To derive the ends of answers, the core must see the first audio of each answer. So that audio bypasses
    # the fast lane, which opens after it.

    def _audio(self, pcm: bytes) -> Frame:
        if not self._notes.begun:
            self._notes.begun = True
            self._open_lane()
        return super()._audio(pcm)

    def _answer_ended(self, status: ResponseStatus) -> None:
        super()._answer_ended(status)
        self._close_lane()

    def _open_lane(self) -> None:
        if self._notes.begun:
            super()._open_lane()


class ServerConnection(ByteLevel[Command], ServerProtocol):
    """The server's side of one session over a byte stream from a client.

    The first event is the client's `UpgradeRequest`: look at its token (``subprotocols[0]``) and call
    `accept` or `refuse`. The parameters are those of `ClientConnection` and `ServerProtocol`.
    """

    def __init__(
        self,
        *,
        input_sample_rate: int = 24_000,
        output_sample_rate: int = 24_000,
        limits: Limits = DEFAULT_LIMITS,
        handshake_timeout: float = 10.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float = 20.0,
        close_timeout: float = 5.0,
        ttl: float | None = None,
        warn_before: float = 60.0,
        extensions: Iterable[str] = (),
        entropy: Entropy = os.urandom,
    ) -> None:
        super().__init__(
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            limits=limits,
            close_timeout=close_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=State.CONNECTING,
            extensions=extensions,
        )
        self._start_bytes(
            client=False,
            entropy=entropy,
            handshake_timeout=handshake_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        self._request: UpgradeRequest | None = None

    def send_audio(self, pcm: Buffer) -> None:
        # As in `ClientConnection`, unmasked.
        framer = self._framer
        if (
            type(pcm) is bytes
            and ((size := len(pcm)) == framer.shape.size or framer.reshape(size))
            and self._may_talk
            and (queued := self._queued + size) <= self._max_outbox
        ):
            self._queued = queued
            self._outbox.append(framer.shape.head + pcm)
        else:
            super().send_audio(pcm)

    def accept(self, *, headers: Headers = ()) -> None:
        """Take the session: answer with the client's first subprotocol, its token, as browsers demand.

        `LocalProtocolError` when there is no request to answer, it offers no token, or `headers` can't be
        sent.
        """
        request = self._unanswered()
        if not request.subprotocols or not is_token(request.subprotocols[0]):
            raise LocalProtocolError("the client offers no usable token; refuse it with 401")
        self._outbox.append(self._engine.accept(request.subprotocols[0], headers))
        self._request = None
        self._opened()

    def refuse(self, status: int, body: str, *, headers: Headers = ()) -> None:
        """Answer with an HTTP error, `status` 300 to 599, instead of a WebSocket; the connection is over.

        `LocalProtocolError` when there is no request to answer, `status` is no such, or `headers` can't be
        sent.
        """
        self._unanswered()
        if status not in _REFUSALS:
            raise LocalProtocolError(f"{status} is no HTTP status that refuses; use one such as 401 or 503")
        self._answer_http(status, body, headers)
        error = HandshakeError(f"the client was refused with HTTP {status}: {body}", status=status)
        self._fail_handshake(Signal.REFUSED, error)

    def _unanswered(self) -> UpgradeRequest:
        if self._ending.error is not None:
            raise self._ending.error.with_traceback(None)
        if self._request is None:
            raise LocalProtocolError(
                "there is no upgrade request to answer; wait for the UpgradeRequest event"
            )
        return self._request

    def _answer_http(self, status: int, body: str, headers: Headers = ()) -> None:
        # Written here and not by wsproto, which can't answer a request that it could not parse.
        content = body.encode(errors="replace")
        kind = "application/json" if body.startswith("{") else "text/plain; charset=utf-8"
        lines = [
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode(),
            *(name + b": " + value for name, value in encode_headers(headers)),
            f"content-type: {kind}".encode(),
            f"content-length: {len(content)}".encode(),
            b"connection: close",
        ]
        self._outbox.append(b"\r\n".join([*lines, b"", content]))

    def _handshake_waits(self) -> bool:
        return self._request is not None

    def _receive_handshake(self, event: HandshakeEvent) -> None:
        if isinstance(event, UpgradeRequest):
            self._request = event
            self._events.append(event)
        else:
            assert isinstance(event, Broken)
            message = f"the client's request is no WebSocket handshake: {event.reason}"
            self._answer_http(400, message)
            self._violated(event.close_code, message)

    def _handshake_timed_out(self) -> None:
        reason = "no session: the client did not complete the handshake in time"
        self._answer_http(408, reason)
        self._fail_handshake(Signal.LOST, HandshakeError(f"{reason}; wait for another"))
