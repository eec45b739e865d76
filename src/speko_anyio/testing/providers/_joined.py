"""A dialect and a double in one conversation, without I/O and in virtual time."""

from __future__ import annotations

import json
from typing import Generic, NamedTuple, TypeVar

from ...protocol._dialect import NEED_DATA
from ...protocol._outbox import CloseMessage
from ...protocol.errors import SpekoError
from ...protocol.frames import Close, Expiring, Frame
from ...providers._provider import ProviderDialect
from ._double_session import DEATH, DoubleSession, Json

SessionT = TypeVar("SessionT", bound=DoubleSession)


class Emitted(NamedTuple):
    """A frame that the dialect emitted."""

    frame: Frame | Close | Expiring
    cause: Json | CloseMessage | None
    """The provider's message that caused it; None if a verb, a timer or a lost connection did."""


class Joined(Generic[SessionT]):
    """A conversation between a client's `dialect` and a new `session` of a provider's double.

    - `now`: the time in seconds; only `run` advances it.
    - `emitted`: all frames of the dialect so far.
    """

    def __init__(self, dialect: ProviderDialect, session: SessionT) -> None:
        self.dialect = dialect
        self.session = session
        self.now: float = 0.0
        self.emitted: list[Emitted] = []
        self.run(0.0)

    def run(self, seconds: float) -> list[Frame | Close | Expiring]:
        """Exchange messages for that time; return the frames that the dialect emits."""
        before = len(self.emitted)
        until = self.now + seconds
        self._exchange()
        while (due := self._next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.dialect.handle_timeout(self.now)
            self.session.advance(self.now)
            self._exchange()
        self.now = until
        return [emitted.frame for emitted in self.emitted[before:]]

    def _next_deadline(self) -> float | None:
        deadlines = [self.dialect.next_deadline(), self.session.next_deadline()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _exchange(self) -> None:
        """Carry messages both ways until neither side has any."""
        self.dialect.playback.clock(self.now)
        self._collect(None)
        moved = True
        while moved:
            moved = False
            for message in self.dialect.messages_to_send():
                moved = True
                if isinstance(message, CloseMessage):
                    self.session.receive_close(message.code, message.reason)
                    self.dialect.receive_close(message.code, message.reason)
                    self._collect(message)
                else:
                    self.session.receive(message, self.now)
            for output in self.session.take():
                moved = True
                if output == DEATH:
                    self.dialect.receive_lost()
                    self._collect(None)
                elif isinstance(output, CloseMessage):
                    self.dialect.receive_close(output.code, output.reason)
                    self._collect(output)
                else:
                    self.dialect.receive_message(output)
                    self._collect(_cause(output))

    def _collect(self, cause: Json | CloseMessage | None) -> None:
        try:
            while (frame := self.dialect.next_event()) is not NEED_DATA:
                self.emitted.append(Emitted(frame, cause))
        except SpekoError:
            pass  # the session is over; its `Close` was emitted


def _cause(message: str | bytes) -> Json:
    try:
        cause: Json = json.loads(message)
    except ValueError:
        cause = {"type": "audio in a binary message"}
    return cause
