"""HTTP POST requests beside the WebSockets of a double, directly over h11."""

from __future__ import annotations

import h11

from ..._net.http import Answer
from ._double_session import Request


class PostSocket:
    """One POST request, as bytes."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self.over = False
        """Whether the client sent no whole request."""

    def receive(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._http.receive_data(data)

    def request(self) -> tuple[Request, bytes] | None:
        """Return the request and its body, once they are complete."""
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                headers = tuple((name.decode(), value.decode()) for name, value in self._head.headers)
                return Request(self._head.target.decode(), headers), bytes(self._body)
            else:
                self.over = True
                return None
        return None

    def answer(self, answer: Answer) -> bytes:
        """Return the response as bytes."""
        headers = [
            *answer.headers.items(),
            ("content-length", str(len(answer.content))),
            ("connection", "close"),
        ]
        events = (
            h11.Response(status_code=answer.status_code, headers=headers),
            h11.Data(data=answer.content),
            h11.EndOfMessage(),
        )
        return b"".join(self._http.send(event) or b"" for event in events)
