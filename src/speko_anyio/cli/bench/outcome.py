"""What one session met, written down as it happens."""

from __future__ import annotations

from array import array
from typing import Final

from ...protocol.frames import Close

NOT_OPENED: Final = "not opened"


class Outcome:
    """Times are in seconds. Every sample is a pair in two arrays: when it was taken, from the beginning of
    the whole, and what it is."""

    def __init__(self) -> None:
        self.connect: float | None = None
        """From asking for the session to having it; None when it was not opened."""
        self.first_audio: list[float] = []
        """Time to first audio of each turn; in an echo that of the first message."""
        self.when = array("d")
        self.latency = array("d")
        """Of each message of an echo, from being sent to being back."""
        self.lateness = array("d")
        """Of each message that came: how long a player that began with the first one had to wait for it."""
        self.behind = array("d")
        """How late each message of an echo was sent: the load's own fault, and part of the lateness."""
        self.sent = 0
        """Messages of audio."""
        self.received = 0
        """Messages' worth of audio that came back whole and in order; in turns, frames of audio."""
        self.lost = 0
        """Messages of an echo that others overtook, or that never came though the session lived on."""
        self.broken = 0
        """Messages of an echo that came twice, late or with other samples than were sent."""
        self.error: str | None = None
        """What ended it before its time, in one line."""
        self.end = NOT_OPENED

    def ended(self, close: Close | None) -> None:
        """How the session ended, as its owner was told."""
        if close is not None:
            self.end = f"{close.code} {close.reason or 'without a reason'} ({close.initiated_by})"
