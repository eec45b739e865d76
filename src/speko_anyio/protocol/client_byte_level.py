"""The client's side of the WebSocket beneath any dialect: the opening request, and what its answer means."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import ClassVar

from . import codec
from .byte_level import ByteLevel
from .dialect import EventT
from .engine import Accepted, Broken, HandshakeEvent, Refused
from .errors import HandshakeError
from .headers import Headers
from .masking import Entropy
from .state import Signal, State
from .url import parse_url


class ClientByteLevel(ByteLevel[EventT], abc.ABC):
    """Adds a client's bytes to a dialect. Put it before the dialect in the bases, and call `_start_client`
    last."""

    _refusal_advice: ClassVar[str]
    """What to do when the server refuses the session, for the error's text."""

    def _start_client(
        self,
        url: str,
        *,
        subprotocols: Sequence[str],
        headers: Headers,
        secrets: Iterable[str],
        entropy: Entropy,
        handshake_timeout: float,
        ping_interval: float | None,
        ping_timeout: float,
    ) -> None:
        """Queue the opening request. `secrets` are the texts in it that no error may show.

        `LocalProtocolError` when the URL or a header can't be used.
        """
        self._start_bytes(
            client=True,
            entropy=entropy,
            handshake_timeout=handshake_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        where = parse_url(url)
        request = self._engine.request(
            host=where.host_header,
            target=where.target,
            subprotocols=subprotocols,
            headers=headers,
            secrets=secrets,
            entropy=entropy,
        )
        self._outbox.append(request)

    def _receive_handshake(self, event: HandshakeEvent) -> None:
        match event:
            case Accepted():
                self._opened()
            case Refused(status=status, body=body):
                self._refused(status, body)
            case _:
                assert isinstance(event, Broken)
                reason = f"the server's answer is no WebSocket handshake: {event.reason}"
                self._violated(event.close_code, reason)

    def _refused(self, status: int, body: str) -> None:
        # A server may echo what it refused; no secret must come out in an error.
        said = codec.error_text(self._engine.redact(body))
        because = f" ({said})" if said else ""
        error = HandshakeError(
            f"the server refused the session with HTTP {status}{because}; {self._refusal_advice}",
            status=status,
        )
        self._fail_handshake(Signal.REFUSED, error)

    def _apply_eof(self) -> None:
        if self._state is State.CONNECTING and (refusal := self._engine.handshake_eof()) is not None:
            self._refused(refusal.status, refusal.body)
        else:
            super()._apply_eof()

    def _handshake_timed_out(self) -> None:
        error = HandshakeError("no session: the server did not answer the handshake in time; try again")
        self._fail_handshake(Signal.LOST, error)
