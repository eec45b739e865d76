"""Infers the progress of the model's answers, since Gemini does not identify responses.

An answer begins with its first output. It ends with `turnComplete`, except that models which report an
`interactionStatus` may go on after that until they call it idle. When it is cut off, the rest of it is
dropped: the model learns of an interruption late, and of a local one perhaps never.

Transcription has no fixed order, so words alone are weak evidence. After the end of an answer:

- audio, or a tool call, always begins another answer;
- words begin one if something has prompted it since (`Progress.prompted`): the user spoke, we ended the
  user's turn, a tool's result was sent, the model reported that it is working, or so much time has passed
  that the words can't be late. Otherwise they are late words of the answer that is over.

An answer that consists of words only is provisional: audio, a tool call or an end must confirm it within a
short time. If only time prompted it, its words may still be late ones (`Progress.maybe_late`): they are
treated as such if the user speaks, ends their turn or interrupts before anything confirms it. Empty output
begins nothing.
"""

from __future__ import annotations

import enum
from typing import Final


class Phase(enum.Enum):
    """The phase of the model."""

    IDLE = "idle"
    ACTIVE = "active"
    """The model is answering; more may come."""
    MUTED = "muted"
    """The model was cut off; further output is dropped."""


_IDLE: Final = frozenset({"IDLE", "REQUIRES_ACTION"})
"""Statuses that mean that nothing more comes unprompted; the second is the older name of the first."""


class Progress:
    """The progress of the model's answer, as far as we know it."""

    def __init__(self) -> None:
        self.phase: Phase = Phase.IDLE
        self.awaited: bool = False
        """In manual mode: we ended the user's turn, and no output has come yet."""
        self.asked: bool = False
        """We ended the user's turn, in either mode, and no answer has begun since."""
        self.prompted: bool = True
        """Words that come now begin an answer, since something has prompted one."""
        self.prompted_by_time: bool = False
        """Only time prompted it: the words would be unusually late, which is not impossible."""
        self.began_by_time: bool = False
        """Only time had prompted the answer when its first output came."""
        self.begun: bool = False
        """Something has come since the last turn of the model."""
        self.confirmed: bool = False
        """More of the answer than words has come."""
        self.generated: bool = False
        """The turn is complete: any further audio belongs to another one."""
        self.cut: bool = False
        """The provider said that the user cut in, or gave up its calls, and the turn is not over yet."""
        self.muted_by_provider: bool = False
        """The model is muted because the provider reported that the user cut in."""
        self.resumed: bool = False
        """The user spoke after that: the model's next output answers them."""
        self.dropped: bool = False
        """Something was dropped since the model was muted."""
        self.heard_from: bool = False
        """Output of the answer has come since this was last checked."""
        self._reports = False
        """The model reports an interaction status, which then alone says when it is idle."""

    @property
    def muted(self) -> bool:
        """Whether the model was cut off, so that further output is dropped."""
        return self.phase is Phase.MUTED

    @property
    def stoppable(self) -> bool:
        """Whether there is, or will be, output that an interruption would stop."""
        return self.phase is Phase.ACTIVE or self.awaited

    @property
    def maybe_late(self) -> bool:
        """Whether the answer may consist only of late words of the previous one."""
        return self.phase is Phase.ACTIVE and self.begun and self.began_by_time and not self.confirmed

    def output(self, *, words: bool = False) -> bool:
        """Take output that counts; return whether it is the first of its turn."""
        self.phase = Phase.ACTIVE
        self.cut = self.awaited = False
        self.heard_from = True
        if self.begun:
            self.confirmed = self.confirmed or not words
            return False
        self._begin(confirmed=not words)
        return True

    def tool_call(self) -> bool:
        """Like `output`, for a tool call: it counts while the model is muted, and does not unmute it."""
        if self.phase is Phase.IDLE:
            self.phase = Phase.ACTIVE
        # Audio that follows is made from the results, within the same turn.
        self.generated = self.awaited = False
        self.heard_from = True
        if self.begun:
            self.confirmed = True
            return False
        self._begin(confirmed=True)
        return True

    def _begin(self, *, confirmed: bool) -> None:
        self.begun = True
        self.confirmed = confirmed
        self.began_by_time, self.prompted_by_time = self.prompted_by_time, False
        self.cut = self.asked = self.prompted = False

    def prompt(self) -> None:
        """Record that something prompts an answer, or shows that words can't be late."""
        if self.generated or not self.begun:
            self.prompted = True
            self.prompted_by_time = False
        if self.phase is Phase.MUTED and self.muted_by_provider:
            self.resumed = True

    def prompt_by_time(self) -> None:
        """Record that so much time has passed that words can hardly be late."""
        if not self.prompted:
            self.prompted = self.prompted_by_time = True

    def retract(self) -> None:
        """Take back the output so far, which was no answer. Its prompt may still bring one."""
        self.rest()
        self.prompted = True
        self.prompted_by_time = self.began_by_time

    def mute(self, *, by_provider: bool) -> None:
        """Drop the rest of this answer; `by_provider`: the provider reported that the user cut in."""
        self.phase = Phase.MUTED
        self.muted_by_provider = by_provider
        self.dropped = self.resumed = False

    def await_rest(self) -> None:
        """Record that the provider heard the user: what follows at once is the rest of the old answer."""
        self.prompt()
        self.resumed = False

    def end(self, *, turn: bool, status: str, waits: bool) -> bool:
        """Apply an end; return whether the model is idle now.

        An end is that of the `turn`, or the interaction's `status` says so, or the model `waits` for input.
        """
        known = status in _IDLE or status == "IN_PROGRESS"
        self._reports = self._reports or known
        idle = waits or status in _IDLE or (turn and not known and not self._reports)
        if (turn or idle) and not self.begun:
            # Nothing came of what was asked for; else this is the end of an earlier turn.
            self.awaited = False
        if turn or idle:
            self.prompted = self.prompted_by_time = False
        if turn:
            self.begun = self.generated = self.cut = False
        if idle:
            self.rest()
        elif status == "IN_PROGRESS":
            self.prompted = True
            self.prompted_by_time = False
        return idle

    def rest(self, *, cut: bool = False) -> None:
        """Become idle; `cut`: the end of an answer that was cut off may still come."""
        self.phase = Phase.IDLE
        self.cut = cut
        self.begun = self.generated = self.dropped = self.muted_by_provider = self.resumed = False
