"""The log of the gateway's sessions, on the logger ``speko_anyio.gateway.session``.

At INFO it has a line for the start of each session and one for its end, at DEBUG one for each message.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Literal

from speko_anyio._observe.redaction import describe, quote, redact
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol._commands import Command, UpgradeRequest
from speko_anyio.protocol._connection import ServerConnection
from speko_anyio.protocol._dialect import NEED_DATA, NeedData
from speko_anyio.protocol._framing import unmasked_payload
from speko_anyio.protocol._outbox import CloseMessage, Message, WireBytes
from speko_anyio.protocol._session import ServerProtocol
from speko_anyio.protocol._text import clean
from speko_anyio.protocol._tokens import shown
from speko_anyio.protocol.frames import Close

from .store._records import closed_by

logger: Final = logging.getLogger("speko_anyio.gateway.session")


_MAX_MODEL: Final = 80
"""The most characters of a model's name, which the client chooses."""


def log_start(session_id: str, provider: str, model: str, key_id: str) -> None:
    """Log that a session is open, and which key asked for it."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "session %s starts, provider %s, model %s, for %s",
            redact(session_id),
            clean(provider),
            shown(model, limit=_MAX_MODEL),
            clean(key_id),
        )


def log_end(session_id: str, provider: str, close: Close | None, seconds: float) -> None:
    """Log how a session ended that was open for `seconds`; `close` is None if that is unknown."""
    how = "without a close" if close is None else f"with {close.code}, by the {closed_by(close)}"
    logger.info(
        "session %s ended after %.1f s %s, provider %s", redact(session_id), seconds, how, clean(provider)
    )


def make_core(session_id: str, **options: Any) -> ServerProtocol:
    """Make a `ServerProtocol` with these options, one that logs if the level is DEBUG now."""
    if logger.isEnabledFor(logging.DEBUG):
        return LoggedProtocol(session_id, **options)
    return ServerProtocol(**options)


def make_connection(session_id: str, **options: Any) -> ServerConnection:
    """Make a `ServerConnection` with these options, one that logs if the level is DEBUG now."""
    if logger.isEnabledFor(logging.DEBUG):
        return LoggedConnection(session_id, **options)
    return ServerConnection(**options)


class LoggedProtocol(ServerProtocol):
    """Logs all messages, without audio, texts and secrets; see `speko_anyio._observe.redaction`."""

    def __init__(self, session_id: str, **options: Any) -> None:
        super().__init__(**options)
        self._session_id = redact(session_id)

    def next_event(self) -> Command | Literal[NeedData.NEED_DATA]:
        event = super().next_event()
        if event is not NEED_DATA:
            logger.debug("session %s < %s", self._session_id, describe(event))
        return event

    def next_message(self) -> Message | None:
        message = super().next_message()
        if message is not None:
            logger.debug("session %s > %s", self._session_id, _line(message))
        return message


class LoggedConnection(ServerConnection):
    """Logs the same messages of a session at byte level."""

    def __init__(self, session_id: str, **options: Any) -> None:
        super().__init__(**options)
        self._session_id = redact(session_id)

    def next_event(self) -> Command | Literal[NeedData.NEED_DATA]:
        event = super().next_event()
        if event is not NEED_DATA and not isinstance(event, UpgradeRequest):
            logger.debug("session %s < %s", self._session_id, describe(event))
        return event

    def data_to_send(self) -> bytes:
        for message in self.dialect.outbox.messages:
            if isinstance(message, WireBytes):
                continue  # the handshake and pongs, which are not messages of the session
            said = unmasked_payload(message) if isinstance(message, bytes) else message
            logger.debug("session %s > %s", self._session_id, _line(said))
        return super().data_to_send()


def _line(message: Message) -> str:
    match message:
        case bytes():
            return f"Audio: {len(message)} bytes"
        case CloseMessage(code=code, reason=reason):
            return f"close: {code} {quote(reason)}"
        case _:
            said = codec.decode_from_server(message)
            return f"end: {quote(said.reason)}" if isinstance(said, codec.End) else describe(said)
