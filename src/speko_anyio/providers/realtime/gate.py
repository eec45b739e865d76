"""Which response is in flight, and whether another may be asked for: at most one at a time.

Pure bookkeeping, keyed by response id, because the ends of responses repeat, come late and are left out.
The dialect says what happened; the gate says what that means, and sends nothing itself.
"""

from __future__ import annotations

import enum
from typing import Final

from ..recent_ids import RecentIds

_REMEMBERED: Final = 256
"""Ended responses whose late events are recognised: hours of talk, while an id comes late by seconds."""


class Phase(enum.Enum):
    """Where the one response there may be stands."""

    IDLE = "idle"
    REQUESTED = "requested"
    """We asked for one; the provider has not begun."""
    ACTIVE = "active"
    CANCELLING = "cancelling"
    """It was cut off; its end has not been heard. What still comes of it is dropped."""


class Reason(enum.Enum):
    """Why a response is wanted."""

    TURN = "turn"
    """The user's turn is over."""
    TOOLS = "tools"
    """The tool calls of a response are all answered."""


class ResponseGate:
    """See the top."""

    __slots__ = (
        "_cut_short",
        "_ended",
        "_last_request",
        "asked",
        "moot",
        "owed",
        "phase",
        "response_id",
    )

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.response_id: str | None = None
        """Of the active or cancelling response; None when there is none or its id is not known."""
        self.asked: str | None = None
        """Event id of our request that was neither granted nor refused, as far as we can tell."""
        self.owed: Reason | None = None
        """Why another response is to be requested once this one is over."""
        self.moot = False
        """What was requested is not wanted any more: cancel it when it begins."""
        self._ended = RecentIds(_REMEMBERED)
        self._cut_short: set[str] = set()
        self._last_request: tuple[str, Reason] | None = None

    @property
    def idle(self) -> bool:
        """Whether a response may be requested now."""
        return self.phase is Phase.IDLE

    def has_ended(self, response_id: str) -> bool:
        """Whether that response is over."""
        return response_id in self._ended

    def owe(self, reason: Reason) -> None:
        """A response is wanted and may not be requested now. Tools outrank turns: any answer to them counts
        as one to the turn, not the other way round."""
        if self.owed is not Reason.TOOLS:
            self.owed = reason

    def forget_turn(self) -> None:
        """The user cut in: what was wanted for an earlier turn is not; answered tools still are."""
        if self.owed is Reason.TURN:
            self.owed = None

    def requested(self, event_id: str, reason: Reason) -> None:
        """We asked for a response."""
        self.phase = Phase.REQUESTED
        self.asked = event_id
        self._last_request = event_id, reason
        self.owed = None
        self.moot = False

    def granted(self) -> None:
        """The response that begins, or ended unseen, is the one we asked for, as far as we can tell."""
        self.asked = None

    def unanswered(self) -> None:
        """Our request came to nothing."""
        self.phase = Phase.IDLE
        self.asked = None
        self.moot = False

    def refused(self, event_id: str | None, active_id: str | None) -> Reason | None:
        """A request met the response `active_id` (None: which one is not said), which was active already.

        `event_id` names the request, or is None where the provider does not say: then it is taken to be the
        last, for an answer too many is better than none. Returns why the refused request was made; None when
        it is not the last one we made, or was refused before.
        """
        if self._last_request is None or event_id not in (None, self._last_request[0]):
            return None
        _, reason = self._last_request
        self.asked = self._last_request = None
        if self.phase is Phase.REQUESTED:
            self.moot = False
            self.phase = Phase.ACTIVE
            self.response_id = active_id
            if active_id is not None and active_id in self._ended:
                self.phase = Phase.IDLE
                self.response_id = None
        return reason

    def created(self, response_id: str) -> None:
        """A response begins; the dialect has ended the previous one. It may reuse an id: some servers use a
        single id for all responses."""
        self._ended.discard(response_id)
        self._cut_short.discard(response_id)
        self.phase = Phase.ACTIVE
        self.response_id = response_id or None

    def cancel(self) -> None:
        """The active response is cut off."""
        self.phase = Phase.CANCELLING

    def took_its_time(self, response_id: str) -> bool:
        """Whether this, the end of a response that was taken to be over, is the first one told."""
        if response_id not in self._cut_short:
            return False
        self._cut_short.discard(response_id)
        return True

    def ended(self, *, told: bool) -> None:
        """The response in flight is over; `told`: the provider said so, it does not just follow from what
        else it said. A request of ours may still be under way."""
        if self.response_id is not None:
            self._ended.add(self.response_id)
            if not told:
                self._cut_short = {name for name in self._cut_short if name in self._ended}
                self._cut_short.add(self.response_id)
        self.phase = Phase.IDLE if self.asked is None else Phase.REQUESTED
        self.response_id = None
