"""Where the model is in its answers. Gemini names no response: when one begins and ends must be inferred.

It begins with its first output. It ends with `turnComplete`, except that models which report an
`interactionStatus` may go on after that until they call it idle. When it is cut off, what still comes of it
is dropped: the model hears of an interruption later than it happens, and a local one it may never hear of.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """Where the model is."""

    IDLE = "idle"
    ACTIVE = "active"
    """It answers; more may come."""
    MUTED = "muted"
    """It was cut off; what still comes is dropped."""


class Progress:
    """The model's answer, as far as we know it."""

    __slots__ = ("_reports", "awaited", "begun", "cut", "dropped", "generated", "phase")

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.awaited = False
        """We ended the user's turn, and nothing has come of it yet."""
        self.begun = False
        """Something has come since the last turn of the model."""
        self.generated = False
        """All of the turn has come: audio that follows is of another."""
        self.cut = False
        """The provider said that the user cut in, and the turn is not over yet."""
        self.dropped = False
        """Something was dropped since the model was muted."""
        self._reports = False

    @property
    def stoppable(self) -> bool:
        """Whether something comes, or will, that an interruption would stop."""
        return self.phase is Phase.ACTIVE or self.awaited

    def output(self) -> bool:
        """Output comes that counts. Returns whether it is the first of its turn."""
        self.phase = Phase.ACTIVE
        return self.tool_call()

    def tool_call(self) -> bool:
        """As `output`; but tool calls count whether or not the model is muted, which they do not end."""
        if self.phase is Phase.IDLE:
            self.phase = Phase.ACTIVE
        self.awaited = False
        first = not self.begun
        if first:
            self.begun = True
            self.generated = self.cut = False
        return first

    def mute(self) -> None:
        """What is still to come of this answer does not count."""
        self.phase = Phase.MUTED
        self.dropped = False

    def over(self, *, turn: bool, status: str | None, waits: bool) -> bool:
        """News of an end: of the `turn`, by the interaction's `status`, or since the model `waits` for input.
        Returns whether the model is idle now."""
        self._reports = self._reports or status in ("IDLE", "IN_PROGRESS", "REQUIRES_ACTION")
        idle = waits or status == "IDLE" or (turn and status is None and not self._reports)
        if (turn or idle) and not self.begun:
            # Nothing came of what was asked for; else this is the end of an earlier turn.
            self.awaited = False
        if turn:
            self.begun = self.generated = self.cut = False
        if idle:
            self.rest()
        return idle

    def rest(self) -> None:
        """The model is idle."""
        self.phase = Phase.IDLE
        self.begun = self.generated = self.cut = self.dropped = False
