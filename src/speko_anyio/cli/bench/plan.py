"""What to do: how many sessions, for how long, saying what."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

MESSAGE_SECONDS: Final = 0.02
"""Of speech in one message: what telephony and browsers send."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The load. Times are in seconds."""

    kind: Literal["echo", "turns"]
    """``echo``: audio without a pause, which must come back as it was sent. ``turns``: a question again and
    again, as soon as the last answer is over."""
    provider: str
    model: str
    sessions: int
    seconds: float
    """That each session lasts; a turn that was begun is finished."""
    ramp: float
    """In which the sessions are opened, one after the other at even distances."""
    rate: Literal[16000, 24000]

    @property
    def message_size(self) -> int:
        """Bytes of PCM16 in a message."""
        return round(self.rate * MESSAGE_SECONDS) * 2

    def starts_at(self, index: int) -> float:
        """When session `index` is opened, from the beginning."""
        return self.ramp * index / self.sessions

    def speaks_at(self, index: int, now: float) -> float:
        """When session `index` sends its first message: at `now` or up to a message's time later.

        Callers do not speak in step. The sessions' moments are spread evenly over the time of a message;
        all at the same one, each message would wait for those of all the others, which measures a queue.
        """
        return now + (MESSAGE_SECONDS * index / self.sessions - now) % MESSAGE_SECONDS
