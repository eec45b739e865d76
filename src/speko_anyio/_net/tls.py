"""TLS as a function of bytes: nothing here waits, and no read can be cancelled halfway."""

from __future__ import annotations

import ssl
from typing import Final

_RECORD: Final = 16_384
"""The most bytes in a record (RFC 8446 section 5.1): a read of so many leaves nothing of it behind."""


class TLS:
    """The client's side of one TLS connection, which verifies the server as `context` says.

    First call `handshake`; then `seal` makes the bytes to write, and `open` reads what came.
    """

    __slots__ = ("_error", "_incoming", "_object", "_outgoing", "over")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # Not `wrap_socket`: contexts that ask the system about certificates support only this without a wait.
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._error: ssl.SSLError | None = None
        self.over: bool = False
        """Whether the peer will say no more, although its connection may still be open."""

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is done. Write `output` in any case.

        Raises `ssl.SSLError`.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def receive(self, data: bytes) -> None:
        """Take what was read from the transport; no bytes mean its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def output(self) -> bytes:
        """Take the bytes to write."""
        return self._outgoing.read()

    def open(self, data: bytes) -> bytes:
        """Take what was read from the transport; return what the peer said, or no bytes at its end.

        Raises BlockingIOError, as a socket does, while no whole record is here, and `ssl.SSLError`.
        """
        if self._error is not None:
            raise self._error
        self.receive(data)
        parts: list[bytes] = []
        try:
            while part := self._object.read(_RECORD):
                if not (parts or self._incoming.pending):
                    return part  # one record, as in a live conversation
                parts.append(part)
                if not self._incoming.pending:
                    return b"".join(parts)
            self.over = True
        except ssl.SSLWantReadError:
            if not parts:
                raise BlockingIOError from None
        except ssl.SSLEOFError:
            self.over = True
        except ssl.SSLError as error:
            self.over = True
            if not parts:
                raise
            self._error = error  # after what came before it
        return b"".join(parts)

    def seal(self, data: bytes) -> bytes:
        """Return the bytes to write for `data`. Raises `ssl.SSLError`."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._object.write(rest) :]
        return self._outgoing.read()
