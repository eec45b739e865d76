"""Where the model is in its answers. Gemini names no response: when one begins and ends must be inferred.

An answer begins with its first output. It ends with `turnComplete`, except that models which report an
`interactionStatus` may go on after that until they call it idle. When it is cut off, what still comes of it
is dropped: the model hears of an interruption later than it happens, and a local one it may never hear of.

Transcription has no fixed order, so words alone are weak evidence. After the end of an answer:

- audio, or a tool call, always begins another answer;
- words begin one if something has prompted it since (`Progress.prompted`): the user spoke, we ended the
  user's turn, a tool's result was sent, the model reported that it is working, or so much time has passed
  that the words can't be late. Otherwise they are late words of the answer that is over.

An answer that consists of words only is provisional: audio, a tool call or an end must confirm it within a
short time. If only time prompted it, its words may still be late ones (`Progress.maybe_late`): they are taken
as such if the user speaks, ends their turn or interrupts before anything confirms it.

Output that is empty begins nothing.
"""

from __future__ import annotations

import enum
from typing import Final


class Phase(enum.Enum):
    """Where the model is."""

    IDLE = "idle"
    ACTIVE = "active"
    """It answers; more may come."""
    MUTED = "muted"
    """It was cut off; what still comes is dropped."""


_IDLE: Final = frozenset({"IDLE", "REQUIRES_ACTION"})
"""Statuses that mean that nothing more comes unprompted; the second is the older name of the first."""


class Progress:
    """The model's answer, as far as we know it."""

    __slots__ = (
        "_reports",
        "asked",
        "awaited",
        "began_by_time",
        "begun",
        "confirmed",
        "cut",
        "dropped",
        "generated",
        "heard_from",
        "phase",
        "prompted",
        "prompted_by_time",
        "resumed",
        "told",
    )

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.awaited = False
        """In manual mode: we ended the user's turn, and no output has come yet."""
        self.asked = False
        """We ended the user's turn, in either mode, and no answer has begun since."""
        self.prompted = True
        """Words that come now begin an answer, since something has prompted one."""
        self.prompted_by_time = False
        """Only time prompted it: the words would be unusually late, which is not impossible."""
        self.began_by_time = False
        """Only time had prompted the answer when its first output came."""
        self.begun = False
        """Something has come since the last turn of the model."""
        self.confirmed = False
        """More than words of the answer has come."""
        self.generated = False
        """All of the turn has come: audio that follows is of another."""
        self.cut = False
        """The provider said that the user cut in, or gave up its calls, and the turn is not over yet."""
        self.told = False
        """The model is muted because the provider reported that the user cut in."""
        self.resumed = False
        """The user spoke after that: the model's next output answers them."""
        self.dropped = False
        """Something was dropped since the model was muted."""
        self.heard_from = False
        """Output of the answer has come since this was last checked."""
        self._reports = False

    @property
    def stoppable(self) -> bool:
        """Whether something comes, or will, that an interruption would stop."""
        return self.phase is Phase.ACTIVE or self.awaited

    @property
    def maybe_late(self) -> bool:
        """Whether the answer may be nothing but late words of the one before."""
        return self.phase is Phase.ACTIVE and self.begun and self.began_by_time and not self.confirmed

    def output(self, *, words: bool = False) -> bool:
        """Output comes that counts. Returns whether it is the first of its turn."""
        self.phase = Phase.ACTIVE
        self.cut = False
        return self._came(confirmed=not words)

    def tool_call(self) -> bool:
        """As `output`; but tool calls count whether or not the model is muted, which they do not end."""
        if self.phase is Phase.IDLE:
            self.phase = Phase.ACTIVE
        # Audio that follows is made from the results, within the same turn.
        self.generated = False
        return self._came(confirmed=True)

    def _came(self, *, confirmed: bool) -> bool:
        self.awaited = False
        self.heard_from = True
        first = not self.begun
        if first:
            self.begun = True
            self.began_by_time, self.prompted_by_time = self.prompted_by_time, False
            self.cut = self.confirmed = self.asked = self.prompted = False
        self.confirmed = self.confirmed or confirmed
        return first

    def prompt(self) -> None:
        """Something prompts an answer, or shows that words can't be late."""
        if self.generated or not self.begun:
            self.prompted = True
            self.prompted_by_time = False
        if self.phase is Phase.MUTED and self.told:
            self.resumed = True

    def prompt_by_time(self) -> None:
        """So much time has passed that words can hardly be late."""
        if not self.prompted:
            self.prompted = self.prompted_by_time = True

    def retract(self) -> None:
        """What has come was no answer. What prompted it may still bring one."""
        self.rest()
        self.prompted = True
        self.prompted_by_time = self.began_by_time

    def mute(self, *, told: bool) -> None:
        """The rest of this answer does not count; `told`: the provider reported an interruption."""
        self.phase = Phase.MUTED
        self.told = told
        self.dropped = self.resumed = False

    def over(self, *, turn: bool, status: str, waits: bool) -> bool:
        """News of an end: of the `turn`, by the interaction's `status`, or since the model `waits` for input.
        Returns whether the model is idle now."""
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
        """The model is idle; `cut`: the end of the answer that was cut off may still come."""
        self.phase = Phase.IDLE
        self.cut = cut
        self.begun = self.generated = self.dropped = self.told = self.resumed = False
