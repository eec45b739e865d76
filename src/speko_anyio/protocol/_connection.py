"""The Speko session at byte level: bytes of a WebSocket to frames and commands, in both roles. No I/O.

The contract, for the code that owns the transport::

    connection.receive_data(data)                       # or receive_eof()
    while (event := connection.next_event()) is not NEED_DATA:
        ...
    transport.write(connection.data_to_send())          # after verbs and after events: replies wait here too
"""

from __future__ import annotations

import http
import os
from collections.abc import Iterable
from typing import Final, assert_never

from . import _codec as codec
from . import close_codes
from ._client_websocket import ClientWebSocket
from ._commands import Command, UpgradeRequest
from ._dialect import check_close_code
from ._engine import Accepted, Broken, HandshakeEvent, Refused
from ._headers import Headers, encode_headers
from ._limits import DEFAULT_LIMITS, Limits
from ._masking import Entropy
from ._outbox import CloseMessage, WireBytes
from ._pcm import Buffer
from ._session import ClientProtocol, ServerFrame, ServerProtocol
from ._state import Signal, State
from ._timeouts import DEFAULT_TIMEOUTS
from ._tokens import check_token, is_token
from ._websocket import WebSocketCore
from .capabilities import Capabilities
from .errors import HandshakeError, LocalProtocolError
from .frames import ErrorFrame, ResponseStatus, Role, ToolStatus
from .mint import DEFAULT_SAMPLE_RATE

_REFUSALS: Final = frozenset(status for status in http.HTTPStatus if 300 <= status <= 599)


class ClientConnection(ClientWebSocket[ClientProtocol]):
    """The client's side of one session over a byte stream to the server.

    `url` and `token` are the mint's ``wsUrl`` and ``wsToken``; `LocalProtocolError` when they can't be
    used. The opening request is queued at once: write `data_to_send`. The session is OPEN when the server
    accepted; then everything may be sent, also before `Ready`.

    - `headers`: further HTTP fields of the opening request, such as User-Agent.
    - `handshake_timeout`, `ping_interval` (None: no pings), `ping_timeout`: seconds; see `Timeouts`.
    - `entropy`: source of masking keys and of the handshake's nonce. A fixed source makes a session replay
      byte for byte, and must not be used on a network (RFC 6455 section 10.3).

    The remaining parameters are those of `ClientProtocol`, which is the `dialect`.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        headers: Headers = (),
        input_sample_rate: int = DEFAULT_SAMPLE_RATE,
        output_sample_rate: int = DEFAULT_SAMPLE_RATE,
        limits: Limits = DEFAULT_LIMITS,
        handshake_timeout: float = DEFAULT_TIMEOUTS.handshake,
        ping_interval: float | None = DEFAULT_TIMEOUTS.ping_interval,
        ping_timeout: float = DEFAULT_TIMEOUTS.ping_timeout,
        close_timeout: float = DEFAULT_TIMEOUTS.close,
        ttl: float | None = None,
        warn_before: float = DEFAULT_TIMEOUTS.warn_before,
        entropy: Entropy = os.urandom,
    ) -> None:
        super().__init__(
            ClientProtocol(
                input_sample_rate=input_sample_rate,
                output_sample_rate=output_sample_rate,
                limits=limits,
                close_timeout=close_timeout,
                ttl=ttl,
                warn_before=warn_before,
                state=State.CONNECTING,
            ),
            url,
            subprotocols=(check_token(token),),
            headers=headers,
            secrets=(token,),
            advice="mint a new one and open it in time",
            handshake_timeout=handshake_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            entropy=entropy,
        )


class ServerConnection(WebSocketCore[Command, ServerProtocol]):
    """The server's side of one session over a byte stream from a client.

    The first event is the client's `UpgradeRequest`: look at its token (``subprotocols[0]``) and call
    `accept` or `refuse`. The parameters are those of `ClientConnection` and of `ServerProtocol`, which is
    the `dialect`.
    """

    def __init__(
        self,
        *,
        input_sample_rate: int = DEFAULT_SAMPLE_RATE,
        output_sample_rate: int = DEFAULT_SAMPLE_RATE,
        limits: Limits = DEFAULT_LIMITS,
        handshake_timeout: float = DEFAULT_TIMEOUTS.handshake,
        ping_interval: float | None = DEFAULT_TIMEOUTS.ping_interval,
        ping_timeout: float = DEFAULT_TIMEOUTS.ping_timeout,
        close_timeout: float = DEFAULT_TIMEOUTS.close,
        ttl: float | None = None,
        warn_before: float = DEFAULT_TIMEOUTS.warn_before,
        extensions: Iterable[str] = (),
        capabilities: Capabilities | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        super().__init__(
            ServerProtocol(
                input_sample_rate=input_sample_rate,
                output_sample_rate=output_sample_rate,
                limits=limits,
                close_timeout=close_timeout,
                ttl=ttl,
                warn_before=warn_before,
                state=State.CONNECTING,
                extensions=extensions,
                capabilities=capabilities,
            ),
            client=False,
            handshake_timeout=handshake_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            entropy=entropy,
        )
        self._request: UpgradeRequest | None = None

    # Handshake

    def accept(self, *, headers: Headers = ()) -> None:
        """Accept the session: answer with the client's first subprotocol, its token, as browsers demand.

        `LocalProtocolError` when there is no request to answer, it offers no token, or `headers` can't be
        sent.
        """
        request = self._unanswered()
        if not request.subprotocols or not is_token(request.subprotocols[0]):
            raise LocalProtocolError("the client offers no usable token; refuse it with 401")
        self._outbox.put(WireBytes(self._engine.accept(request.subprotocols[0], headers)))
        self._request = None
        self._opened()

    def refuse(self, status: int, body: str, *, headers: Headers = ()) -> None:
        """Answer with an HTTP error, `status` 300 to 599, instead of a WebSocket; the connection is over.

        `LocalProtocolError` when there is no request to answer, `status` is out of range, or `headers` can't
        be sent.
        """
        self._unanswered()
        if status not in _REFUSALS:
            raise LocalProtocolError(f"{status} is not an HTTP status for a refusal; use 401 or 503")
        self._answer_http(status, body, headers)
        self._refused(HandshakeError(f"the client was refused with HTTP {status}: {body}", status=status))

    def refuse_by_frame(self, error: ErrorFrame, close_code: int) -> None:
        """Accept the WebSocket only to send `error` and close it; the connection is over.

        For browsers, which hide HTTP errors from their pages, even the status. `LocalProtocolError` when
        there is no request to answer or `close_code` may not be sent.
        """
        request = self._unanswered()
        check_close_code(close_code)
        # A browser fails the connection unless it gets one of the subprotocols that it offered.
        offered = next(iter(request.subprotocols), None) or None
        self._outbox.put(WireBytes(self._engine.accept(offered, ())))
        self._outbox.put(codec.encode(error))
        self._outbox.put(CloseMessage(close_code, close_codes.cut_reason(error.message)))
        self._refused(HandshakeError(f"the client was refused with close code {close_code}: {error.message}"))

    def _refused(self, error: HandshakeError) -> None:
        self._request = None
        self.dialect.fail_handshake(Signal.REFUSED, error)

    def _unanswered(self) -> UpgradeRequest:
        if (error := self.dialect.error) is not None:
            raise error.with_traceback(None)
        if self._request is None:
            raise LocalProtocolError(
                "there is no upgrade request to answer; wait for the UpgradeRequest event"
            )
        return self._request

    def _answer_http(self, status: int, body: str, headers: Headers = ()) -> None:
        # Written here, since wsproto can't answer a request that it could not parse.
        content = body.encode(errors="replace")
        kind = "application/json" if body.startswith("{") else "text/plain; charset=utf-8"
        lines = [
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode(),
            *(name + b": " + value for name, value in encode_headers(headers)),
            f"content-type: {kind}".encode(),
            f"content-length: {len(content)}".encode(),
            b"connection: close",
        ]
        self._outbox.put(WireBytes(b"\r\n".join([*lines, b"", content])))

    def _handshake_waits(self) -> bool:
        return self._request is not None

    def _receive_handshake(self, event: HandshakeEvent) -> None:
        assert not isinstance(event, Accepted | Refused), "only a client receives an answer"
        match event:
            case UpgradeRequest():
                self._request = event
                self._events.append(event)
            case Broken(close_code=close_code, reason=reason):
                message = f"the client's request is not a WebSocket handshake: {reason}"
                self._answer_http(400, message)
                self.dialect.violated(close_code, message)
            case _:
                assert_never(event)

    def _handshake_timed_out(self) -> None:
        reason = "no session: the client did not complete the handshake in time"
        self._answer_http(408, reason)
        self.dialect.fail_handshake(Signal.LOST, HandshakeError(f"{reason}; wait for another"))

    # Delegated to the dialect

    def send_audio(self, pcm: Buffer) -> None:
        """See `ServerProtocol.send_audio`."""
        # As in `ClientWebSocket`, unmasked.
        framer = self._framer
        outbox = self._outbox
        if (
            type(pcm) is bytes
            and ((size := len(pcm)) == framer.shape.size or framer.reshape(size))
            and (queued := outbox.size + size) <= outbox.audio_limit
        ):
            outbox.size = queued
            outbox.messages.append(framer.shape.head + pcm)
        else:
            self.dialect.send_audio(pcm)

    def send(self, frame: ServerFrame) -> None:
        """See `ServerProtocol.send`."""
        self.dialect.send(frame)

    def send_ready(self) -> None:
        """See `ServerProtocol.send_ready`."""
        self.dialect.send_ready()

    def send_transcript(self, role: Role, text: str, *, final: bool) -> None:
        """See `ServerProtocol.send_transcript`."""
        self.dialect.send_transcript(role, text, final=final)

    def send_tool_call(self, call_id: str, name: str, arguments: str) -> None:
        """See `ServerProtocol.send_tool_call`."""
        self.dialect.send_tool_call(call_id, name, arguments)

    def send_server_tool_call(self, id: str, name: str, status: ToolStatus) -> None:
        """See `ServerProtocol.send_server_tool_call`."""
        self.dialect.send_server_tool_call(id, name, status)

    def send_interruption(self, at: Role = "user") -> None:
        """See `ServerProtocol.send_interruption`."""
        self.dialect.send_interruption(at)

    def send_usage(self, input_audio_tokens: int, output_audio_tokens: int) -> None:
        """See `ServerProtocol.send_usage`."""
        self.dialect.send_usage(input_audio_tokens, output_audio_tokens)

    def send_response_end(self, status: ResponseStatus, reason: str = "") -> None:
        """See `ServerProtocol.send_response_end`."""
        self.dialect.send_response_end(status, reason)

    def send_error(self, code: str, message: str) -> None:
        """See `ServerProtocol.send_error`."""
        self.dialect.send_error(code, message)

    @property
    def input_sample_rate(self) -> int:
        """Samples a second of the client's audio; set it before `send_ready`, which announces it."""
        return self.dialect.input_sample_rate

    @input_sample_rate.setter
    def input_sample_rate(self, rate: int) -> None:
        self.dialect.input_sample_rate = rate

    @property
    def output_sample_rate(self) -> int:
        """Samples a second that `send_audio` takes; set it before `send_ready`, which announces it."""
        return self.dialect.output_sample_rate

    @output_sample_rate.setter
    def output_sample_rate(self, rate: int) -> None:
        self.dialect.output_sample_rate = rate

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self.dialect.open_calls

    @property
    def odd_fields(self) -> int:
        """How many fields of the client's messages had an odd value. See `ServerProtocol.odd_fields`."""
        return self.dialect.odd_fields
