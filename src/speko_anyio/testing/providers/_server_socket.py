"""A WebSocket server without I/O, directly over wsproto.

It shares no code with the connections that the doubles test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import Request as UpgradeRequest
from wsproto.utilities import RemoteProtocolError

from ...protocol._outbox import CloseMessage
from ._double_session import Request

_NO_CODE: Final = 1005


class ServerSocket:
    """Converts between bytes and messages, both ways.

    - `closed`: the client's close code and reason, once received.
    - `over`: whether the client's request was not a WebSocket handshake.
    """

    def __init__(self) -> None:
        self.closed: tuple[int, str] | None = None
        self.over: bool = False
        self._ws = WSConnection(ConnectionType.SERVER)
        self._pieces: list[str] | list[bytes] = []
        self._replies: list[bytes] = []
        self._we_closed = False

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""
        try:
            self._ws.receive_data(data)
        except RemoteProtocolError:
            self.over = True

    def request(self) -> Request | None:
        """Return the opening request, once it is complete."""
        for event in self._ws.events():
            if isinstance(event, UpgradeRequest):
                # wsproto leaves out the headers of the upgrade itself.
                headers = tuple((name.decode(), value.decode()) for name, value in event.extra_headers)
                return Request(event.target, headers, tuple(event.subprotocols))
        return None

    def accept(self, subprotocol: str | None) -> bytes:
        """Return the response that opens the WebSocket."""
        return self._ws.send(AcceptConnection(subprotocol=subprotocol))

    def refuse(self, status: int, body: str) -> bytes:
        """Return the response that refuses the WebSocket."""
        content = body.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        rejection = RejectConnection(status_code=status, headers=headers, has_body=True)
        return self._ws.send(rejection) + self._ws.send(RejectData(data=content, body_finished=True))

    def messages(self) -> Iterator[str | bytes]:
        """Return the complete messages that were received; for pings see `replies`."""
        for event in self._ws.events():
            if isinstance(event, Message):
                self._pieces.append(event.data)
                if event.message_finished:
                    pieces, self._pieces = self._pieces, []
                    yield ("" if isinstance(event, TextMessage) else b"").join(pieces)  # type: ignore[arg-type]  # a message has one type
            elif isinstance(event, Ping):
                self._replies.append(self._ws.send(event.response()))
            elif isinstance(event, CloseConnection):
                if not self._we_closed:
                    self._replies.append(self._ws.send(event.response()))
                self.closed = (int(event.code or _NO_CODE), event.reason or "")

    @property
    def has_replies(self) -> bool:
        """Whether `replies` has any."""
        return bool(self._replies)

    def replies(self) -> bytes:
        """Return the protocol's own answers: pongs, and the close that answers a close."""
        replies, self._replies = b"".join(self._replies), []
        return replies

    def frame(self, output: str | bytes | CloseMessage) -> bytes:
        """Return a message, or the close, as bytes; nothing once the client has closed."""
        if self.closed is not None:
            return b""
        if isinstance(output, CloseMessage):
            self._we_closed = True
            return self._ws.send(CloseConnection(code=output.code, reason=output.reason))
        if isinstance(output, str):
            return self._ws.send(TextMessage(data=output))
        return self._ws.send(BytesMessage(data=output))
