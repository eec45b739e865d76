"""The core on a blocking socket, for tests: every wait has its end, and reads are cut as small as asked."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from speko_anyio.protocol import NEED_DATA, Close, Expiring, SpekoError, WebSocketCore
from tests.support.patience import PATIENCE

EventT = TypeVar("EventT")

READ_SIZE = 262_144


class Wire(Generic[EventT]):
    """One session over one connected socket.

    `cut`: hand the core at most so many bytes at a time, and ask it for events after each.
    """

    def __init__(
        self, sock: socket.socket, connection: WebSocketCore[EventT, Any], *, cut: int | None = None
    ) -> None:
        self.sock = sock
        self.connection = connection
        self._cut = cut
        self._unread = b""
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def flush(self) -> None:
        """Write what the core has queued; `send_failed` when that is not possible."""
        data = self.connection.data_to_send()
        if not data:
            return
        try:
            self.sock.settimeout(PATIENCE)
            self.sock.sendall(data)
        except OSError:
            self.connection.send_failed()

    def next_event(self) -> EventT | Close | Expiring:
        """The next event, with the core's replies already written; what the core raises."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                event = self.connection.next_event()
            finally:
                self.flush()
            if event is not NEED_DATA:
                return event
            if time.monotonic() > give_up:
                raise TimeoutError("the peer has nothing more to say")
            self._read(give_up)

    def until(self, last: object) -> list[EventT | Close | Expiring]:
        """All events up to and with `last`."""
        events = [self.next_event()]
        while events[-1] != last:
            assert not isinstance(events[-1], Close), events[-1]
            events.append(self.next_event())
        return events

    def until_close(self) -> list[EventT | Close | Expiring]:
        """All events that are left, `Close` being the last."""
        events = [self.next_event()]
        while not isinstance(events[-1], Close):
            events.append(self.next_event())
        return events

    def finish(self) -> None:
        """Say that nothing follows, and wait for the peer to hang up: the polite end of a TCP connection."""
        self.flush()
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.shutdown(socket.SHUT_WR)
            while self.sock.recv(65_536):
                pass
        except ConnectionError:
            pass  # it was quicker
        self.sock.close()

    def error(self) -> SpekoError:
        """What every call gives after the end."""
        try:
            self.connection.next_event()
        except SpekoError as error:
            return error
        raise AssertionError("the session is not over")

    def _read(self, give_up: float) -> None:
        if self._position == len(self._unread):
            self._read_socket(give_up)
        start = self._position
        self._position = min(len(self._unread), start + (self._cut or READ_SIZE))
        if start < self._position:
            self.connection.receive_data(self._unread[start : self._position])

    def _read_socket(self, give_up: float) -> None:
        """Refill `_unread`; or say that it is late, or over."""
        now = time.monotonic()
        deadline = self.connection.next_deadline()
        if deadline is not None and deadline <= now:
            self.connection.handle_timeout(now)
            return
        self.sock.settimeout(max(0.001, min(give_up, give_up if deadline is None else deadline) - now))
        self._unread, self._position = b"", 0
        try:
            self._unread = self.sock.recv(READ_SIZE)
        except TimeoutError:
            return
        except OSError:
            pass  # reset: an end as good as any
        if not self._unread:
            self.connection.receive_eof()
