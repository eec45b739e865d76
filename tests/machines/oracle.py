"""What a connection should do with the bytes after its handshake, by a stock wsproto connection alone.

Every byte goes to `wsproto.connection.Connection`; there is no fast lane. Around it stand the rules that
wsproto leaves to its user, written a second time: messages are put together, limits are checked when a
header is complete, pings are answered, a close is echoed. A payload is shown to wsproto when it is whole
(the core promises the same, so that cuts never change a verdict), a header as soon as it comes.
The meaning of messages is the message-level core's, which has no part in parsing.
"""

from __future__ import annotations

from typing import Any

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from speko_anyio.protocol import (
    NEED_DATA,
    ClientProtocol,
    Close,
    CloseMessage,
    Limits,
    RemoteProtocolError,
    ServerProtocol,
    SpekoError,
    State,
)
from speko_anyio.protocol._extensions import KNOWN

from .driver import Wire, shape
from .strategies import CLOSE, FIN, TEXT


class Oracle:
    """The reference for one connection, open from the start."""

    def __init__(self, *, client: bool, limits: Limits, bytewise: bool) -> None:
        self.session: ClientProtocol | ServerProtocol = (
            ClientProtocol(limits=limits) if client else ServerProtocol(limits=limits, extensions=KNOWN)
        )
        self._stock = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
        self._limits = limits
        # A server reads commands of extensions whole up to here, to refuse them.
        image = limits.max_text_size + -(-limits.max_image_size // 3) * 4
        self._max_text = limits.max_text_size if client else max(limits.max_message_size, image)
        self._bytewise = bytewise
        self._frame = bytearray()  # the frame being received
        self._shown = 0  # how much of it wsproto has seen
        self._type = 0  # opcode of the message in pieces
        self._size = self._pieces = 0
        self._parts: list[Any] = []
        self._controls = 0
        self._said_goodbye = False
        self.events: list[Any] = []
        self.replies: list[Wire] = []
        self.error: SpekoError | None = None

    @property
    def over(self) -> bool:
        """Whether anything can still happen."""
        return self.error is not None

    # Bytes in

    def receive(self, data: bytes) -> None:
        """Take bytes and do all that follows from them."""
        self._frame += data
        while not self.over:
            found = shape(self._frame)
            self._show(len(self._frame) if found is None else found.header)
            if found is None or self.over:
                return
            if (code := self._breach(found.first, found.size)) is not None:
                self._broken(code)
                return
            if len(self._frame) < found.end:
                return
            self._show(found.end)
            del self._frame[: found.end]
            self._shown = 0
            self._count(found.first, found.size)

    def receive_eof(self) -> None:
        """No more bytes."""
        if self.error is None:
            self.session.receive_lost()
            self.sync()

    def _show(self, upto: int) -> None:
        step = 1 if self._bytewise else max(1, upto - self._shown)
        while self._shown < upto:
            self._stock.receive_data(bytes(self._frame[self._shown : min(upto, self._shown + step)]))
            self._shown = min(upto, self._shown + step)
            for event in self._stock.events():
                self._apply(event)
                if self.error is not None:
                    return

    def _breach(self, first: int, size: int) -> int | None:
        opcode = first & 0x0F
        if opcode >= CLOSE:
            return None
        kind = opcode or self._type
        limit = self._max_text if kind == TEXT else self._limits.max_message_size
        if self._size + size > limit:
            return 1009
        return 1008 if self._pieces + 1 > self._limits.max_fragments else None

    def _count(self, first: int, size: int) -> None:
        opcode = first & 0x0F
        if opcode >= CLOSE:
            return
        if first & FIN:
            self._size = self._pieces = 0
        else:
            self._type = opcode or self._type
            self._size += size
            self._pieces += 1

    # Events of wsproto

    def _apply(self, event: object) -> None:
        match event:
            case TextMessage() | BytesMessage():
                self._parts.append(event.data)
                if event.message_finished:
                    parts, self._parts = self._parts, []
                    self._controls = 0
                    text = isinstance(event, TextMessage)
                    self.session.receive_message("".join(parts) if text else b"".join(parts))
            case Ping(payload=payload):
                if self._control_allowed() and self.session.state is State.OPEN:
                    self.sync()
                    self.replies.append(("pong", bytes(payload)))
            case Pong():
                self._control_allowed()
            case CloseConnection(code=code, reason=reason):
                if self._stock.state is ConnectionState.OPEN:
                    self._broken(int(code))
                    return
                self.sync()
                if not self._said_goodbye:
                    self.replies.append(("close", int(code), reason or ""))
                self.session.receive_close(int(code), reason or "")
        self.sync()

    def _control_allowed(self) -> bool:
        self._controls += 1
        if self._controls > self._limits.max_control_frames:
            self._broken(1008)
            return False
        return True

    def _broken(self, code: int) -> None:
        self.sync()
        if self.error is not None:
            return
        self.error = RemoteProtocolError("by the oracle", close_code=code)
        self.events.append(Close(code, "", "local"))
        if not self._said_goodbye:
            self.replies.append(("close", code, ""))

    # Verbs

    def close(self, code: int, reason: str) -> None:
        """As the connection's."""
        self.session.close(code, reason)
        self._said_goodbye = True
        self.sync()

    def sync(self) -> None:
        """Take what the session has to say."""
        if self.error is not None:
            return
        for message in self.session.messages_to_send():
            match message:
                case CloseMessage(code=code, reason=reason):
                    self.replies.append(("close", code, reason))
                case str():
                    self.replies.append(("text", message))
                case bytes():
                    self.replies.append(("binary", message))
        while True:
            try:
                event = self.session.next_event()
            except SpekoError as error:
                self.error = error
                return
            if event is NEED_DATA:
                return
            self.events.append(event)
