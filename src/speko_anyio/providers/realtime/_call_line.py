"""The phone line of a call that the provider holds itself: it hears the user there, and plays its answers.

Such a session only joins the call: no audio passes it. What is left of playback is to know whether the line
plays, and to stop that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...protocol.errors import LocalProtocolError
from .._heard import HeardEstimate
from . import _events as wire
from ._user import TurnRules


def no_audio() -> LocalProtocolError:
    """Return the error for audio that is sent to such a session."""
    return LocalProtocolError(
        "the audio of this call runs between the phone line and the provider, not through this session; use "
        "say or send_text instead of send_audio"
    )


class CallLine:
    """What the line plays, as the provider reports it.

    - `playback`: has the clock, without which an answer that is cut off can't be truncated.
    - `reported_rules`: reads how turns end from the ``audio`` of the session that the provider reports.
    """

    __slots__ = ("_began", "_item_id", "_playback", "playing", "reported_rules")

    def __init__(self, playback: HeardEstimate, reported_rules: Callable[[Any], TurnRules]) -> None:
        self._playback = playback
        self.reported_rules = reported_rules
        self._began: float | None = None
        self._item_id: str | None = None
        self.playing = False

    def started(self, item_id: str | None) -> None:
        """Note that the line begins to play an answer, whose latest item is `item_id`."""
        self.playing = True
        self._item_id = item_id
        self._began = self._playback.read()

    def stopped(self) -> None:
        """Note that the line plays nothing any more."""
        self.playing = False

    def stop(self, ids: wire.EventIds) -> list[wire.ClientEvent]:
        """Return the messages that cut the answer off, to follow the one that cancels it.

        When the user cuts in, the provider does all of this itself.
        """
        events: list[wire.ClientEvent] = []
        now = self._playback.read()
        if self.playing and self._item_id and now is not None and self._began is not None:
            played = max(0, int((now - self._began) * 1000))
            events.append(
                ids.make(wire.TruncateItem, item_id=self._item_id, content_index=0, audio_end_ms=played)
            )
        return [*events, ids.make(wire.ClearLine)]
