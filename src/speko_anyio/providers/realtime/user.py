"""The user's side of a realtime dialect: audio, the ends of turns, and what was said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ...protocol.frames import ErrorFrame
from ...protocol.pcm import MAX_AUDIO_MESSAGE, Buffer
from .. import codes
from ..held_input import TurnEnd
from . import events as wire
from .base import RESPONSE_TIMEOUT, RealtimeBase
from .gate import Reason

SILENCE_TIMEOUT: Final = 1.0
"""Seconds to wait for silence to end the turn before something else is tried."""

MIN_COMMIT_MS: Final = 100
"""Less audio than this can't be committed."""


class UserSide(RealtimeBase):
    """See the top."""

    @property
    def held_audio_dropped(self) -> int:
        """Bytes of audio that were sent before `Ready` and were too many to keep: the oldest go first."""
        return self._held.dropped

    def send_audio(self, pcm: Buffer) -> None:
        """As in `ClientDialect`, at `input_sample_rate`. Before `Ready` it is held, at most 10 seconds of
        it: the oldest is dropped and counted in `held_audio_dropped`."""
        pcm = self._checked_audio(pcm)
        if not pcm:
            return
        if self._accepted:
            self._queue(_appends(pcm))
            self._turn.uncommitted += len(pcm)
        else:
            self._held.add(pcm)

    def commit(self) -> None:
        """End the user's turn: what was sent is to be answered now. Raises as `send_audio`.

        In manual mode, less than 100 ms of audio since the last turn is no turn: nothing happens, and
        `stats.skipped_commits` counts it.
        """
        self._end_turn("commit")

    def end_turn(self) -> None:
        """As `commit` in manual mode; else let the provider's own turn detection find the end."""
        self._end_turn("end_turn")

    def clear(self) -> None:
        self._check_open()
        if not self._accepted:
            self._held.clear()
            return
        self._queue([self._make(wire.ClearAudio)])
        self._turn.uncommitted = 0
        self._turn.awaiting_commit = False
        self._timers.stop("silence")

    def _end_turn(self, verb: TurnEnd) -> None:
        self._check_open()
        if self._accepted:
            self._turn_over(verb, self._queue)
        else:
            self._held.end_turn(verb)

    def _turn_over(self, verb: TurnEnd, put: Callable[[Sequence[wire.ClientEvent]], None]) -> None:
        if not self._rules.auto:
            self._commit_manually(put)
        elif self._may_commit and (verb == "commit" or self._rules.semantic):
            self._commit_open_speech(put)
        else:
            # Where speech is not open, the provider may not have noticed it yet; committing plain silence
            # makes the model answer noise. What it detects by, silence, ends the turn if there is one.
            self._append_silence(put)
            self._turn.silence_repeated = False
            self._turn.awaiting_commit = not self._rules.creates

    def _commit_manually(self, put: Callable[[Sequence[wire.ClientEvent]], None]) -> None:
        if not self._enough_to_commit:
            self.stats.skipped_commits += 1
            return
        commit = self._make(wire.CommitAudio)
        if self._may_request:
            event_id, request = self._create_response()
            put([commit, request])
            self._requested(event_id, Reason.TURN)
        else:
            put([commit])
            self._gate.owe(Reason.TURN)
        self._turn.uncommitted = 0

    def _commit_open_speech(self, put: Callable[[Sequence[wire.ClientEvent]], None]) -> None:
        """The fastest end of a turn; the request follows when the provider has confirmed it, unless its own
        detection was faster."""
        put([self._make(wire.CommitAudio)])
        self._turn.awaiting_commit = True
        self._timers.stop("silence")

    def _append_silence(self, put: Callable[[Sequence[wire.ClientEvent]], None]) -> None:
        size = self._rules.silence_ms * self.input_sample_rate // 1000 * 2
        put(_appends(bytes(size)))
        self._turn.uncommitted += size
        self._start_timer("silence", SILENCE_TIMEOUT)

    @property
    def _enough_to_commit(self) -> bool:
        return self._turn.uncommitted >= MIN_COMMIT_MS * self.input_sample_rate * 2 // 1000

    @property
    def _may_commit(self) -> bool:
        """Whether, in auto mode, a commit makes the turn's end known sooner than silence."""
        return self._commits_in_auto and self._turn.speaking and self._enough_to_commit

    def _append_held(self, pcm: bytes) -> None:
        self._say(_appends(pcm))
        self._turn.uncommitted += len(pcm)

    def _speech_started(self, item_id: str | None) -> None:
        """The provider hears the user speak; the words will be those of that item."""
        self._turn.speaking = True
        self._turn.item = first_part(item_id)
        self._user.begin_again(self._turn.item)
        self._turn.awaiting_commit = False
        self._turn.muted = False
        self._timers.stop("owed")
        self._pay()

    def _speech_over(self) -> None:
        self._turn.speaking = False
        self._timers.stop("silence")
        if not self._rules.creates:
            self._pay()
        elif self._gate.owed is not None and self._gate.idle:
            # The provider now answers by itself; if it does not, we ask.
            self._start_timer("owed", RESPONSE_TIMEOUT)

    def _audio_committed(self, item_id: str | None) -> None:
        """What the user said is that item now."""
        if self._turn.item != first_part(item_id):
            self._user.begin_again(first_part(item_id))
        self._turn.item = None
        if self._rules.auto:
            self._turn.uncommitted = 0
        if self._turn.awaiting_commit:
            self._turn.awaiting_commit = False
            self._gate.owe(Reason.TURN)
            self._turn.speaking = False
            self._timers.stop("silence")
            self._pay()
        else:
            self._speech_over()

    def _silence_was_not_enough(self) -> None:
        if not self._turn.speaking:
            return
        if self._may_commit:
            self._commit_open_speech(self._say)
        elif not self._turn.silence_repeated:
            self._turn.silence_repeated = True
            self._append_silence(self._say)

    def _speech_waited_for(self) -> None:
        """An answer has waited for the end of the user's speech for a while."""
        turn = self._turn
        if not turn.speaking:
            return
        if turn.uncommitted != turn.watched:
            self._pay()  # they are speaking, or the silence is on its way: wait on
        elif not turn.muted:
            turn.muted = True
            self._append_silence(self._say)
            self._pay()
        else:
            self._speech_over()
            self._pay()

    def _receive_user_text(
        self, event: wire.UserDelta | wire.UserUpdated | wire.UserCompleted | wire.UserFailed
    ) -> None:
        part = part_of(event)
        match event:
            case wire.UserDelta(delta=delta):
                self._tell(self._user.add(part, delta or ""))
            case wire.UserUpdated(transcript=text):
                self._tell(self._user.replace(part, text or ""))
            case wire.UserCompleted(transcript=text):
                self._tell(self._user.finish(part, text))
            case wire.UserFailed(error=error):
                why = error.message if error is not None else None
                message = why or "the provider could not write down what the user said"
                self._tell(self._user.give_up(part))
                self._tell(ErrorFrame(codes.TRANSCRIPTION_FAILED, message))


def _appends(pcm: bytes) -> list[wire.ClientEvent]:
    return [
        wire.AppendAudio(audio=pcm[start : start + MAX_AUDIO_MESSAGE])
        for start in range(0, len(pcm), MAX_AUDIO_MESSAGE)
    ]


def part_of(
    event: wire.TextDelta
    | wire.TextDone
    | wire.TranscriptDone
    | wire.UserDelta
    | wire.UserUpdated
    | wire.UserCompleted
    | wire.UserFailed,
) -> str:
    """What names a text: its item and its place in it."""
    return f"{event.item_id or ''} {event.content_index or 0}"


def first_part(item_id: str | None) -> str:
    """The name of an item's first text: a user's item has no other."""
    return f"{item_id or ''} 0"
