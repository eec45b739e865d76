"""A dialect and a double in one conversation, without I/O and in virtual time."""

from __future__ import annotations

import json
from typing import Generic, NamedTuple, TypeVar

from ...protocol.dialect import NEED_DATA
from ...protocol.errors import SpekoError
from ...protocol.frames import Close, Expiring, Frame
from ...protocol.outbox import CloseMessage
from ...providers.provider import ProviderDialect
from .double_session import DEATH, DoubleSession, Json

SessionT = TypeVar("SessionT", bound=DoubleSession)


class Told(NamedTuple):
    """A frame that the dialect told its caller."""

    frame: Frame | Close | Expiring
    cause: Json | CloseMessage | None
    """What the provider said to it; None: nothing, it was a verb, the time, or the loss of the connection."""


class Joined(Generic[SessionT]):
    """The conversation of a client's `dialect` with a provider's `session`, fresh out of a double.

    - `now`: the time, in seconds; only `run` lets it pass.
    - `told`: all that the dialect told so far.
    """

    def __init__(self, dialect: ProviderDialect, session: SessionT) -> None:
        self.dialect = dialect
        self.session = session
        self.now: float = 0.0
        self.told: list[Told] = []
        self.run(0.0)

    def run(self, seconds: float) -> list[Frame | Close | Expiring]:
        """Let that time pass while both sides say what they have to; the frames that come of it."""
        before = len(self.told)
        until = self.now + seconds
        self._exchange()
        while (due := self._next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.dialect.handle_timeout(self.now)
            self.session.advance(self.now)
            self._exchange()
        self.now = until
        return [told.frame for told in self.told[before:]]

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
                    self._collect(json.loads(output))

    def _collect(self, cause: Json | CloseMessage | None) -> None:
        try:
            while (frame := self.dialect.next_event()) is not NEED_DATA:
                self.told.append(Told(frame, cause))
        except SpekoError:
            pass  # the end, whose `Close` was told
