"""The user's side of a realtime session: their audio, the ends of their turns, and their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, assert_never

import msgspec

from ...protocol._pcm import MAX_AUDIO_MESSAGE
from ...protocol.frames import ErrorFrame, Frame, Transcript
from .. import codes
from .._held_input import TurnEnd
from . import _events as wire
from ._transcripts import Transcripts, first_part, part_of

SILENCE_TIMEOUT: Final = 1.0
"""Seconds to wait for silence to end the turn before something else is tried."""

SPEECH_TIMEOUT: Final = 3.0
"""Seconds without audio after which a speaking user counts as muted, while a response waits for the end of
their speech. The provider measures silence in the audio that it gets, so it would never report that end."""

SILENCE_MARGIN_MS: Final = 300
"""Silence beyond what the turn detection asks for, so that it surely notices."""

MIN_COMMIT_MS: Final = 100
"""The shortest audio that can be committed."""

Put: TypeAlias = Callable[[Sequence[wire.ClientEvent]], None]
"""Queues all of these messages for the provider; if it raises, it has queued none."""

UserText: TypeAlias = wire.UserDelta | wire.UserUpdated | wire.UserCompleted | wire.UserFailed


class TurnRules(msgspec.Struct, frozen=True, kw_only=True):
    """How turns end in a session, by its configuration."""

    auto: bool
    """Whether the provider detects turns."""
    silence_ms: int = 0
    """Digital silence that surely ends a turn, when the provider detects turns by silence."""
    semantic: bool = False
    """Whether the provider detects turns by meaning, so that silence may take seconds to end one."""
    interrupts: bool = True
    """Whether the provider stops its response when the user speaks."""
    creates: bool = True
    """Whether the provider answers a detected turn by itself."""


class UserWords:
    """The user's transcripts, each final once."""

    def __init__(self) -> None:
        self.awaits_assistant = False
        """Whether `assistant_speaks` has an effect: a cheap test for each piece of audio."""
        self._texts = Transcripts("user")
        self._spoken: str | None = None
        """The part of the current speech, until it becomes an item."""

    def speech_started(self, item_id: str | None) -> list[Transcript]:
        """Note that the user speaks: the words will be those of that item. Return what is final now."""
        self._spoken = first_part(item_id)
        self._texts.begin_again(self._spoken)
        return []

    def committed(self, item_id: str | None) -> list[Transcript]:
        """Note that what the user said became that item. Return what is final now."""
        if self._spoken != first_part(item_id):
            self._texts.begin_again(first_part(item_id))
        self._spoken = None
        return []

    def receive(self, event: UserText) -> Sequence[Frame]:
        """Return the transcripts that result from an event about the user's words."""
        part = part_of(event)
        match event:
            case wire.UserDelta(delta=delta):
                return self._texts.add(part, delta or "")
            case wire.UserUpdated(transcript=text):
                return self._texts.replace(part, text or "")
            case wire.UserCompleted(transcript=text):
                return self._texts.finish(part, text)
            case wire.UserFailed(error=error):
                why = error.message if error is not None else None
                message = why or "the provider could not write down what the user said"
                return [*self._texts.give_up(part), ErrorFrame(codes.TRANSCRIPTION_FAILED, message)]
            case _:
                assert_never(event)

    def assistant_speaks(self, *, user_speaking: bool) -> list[Transcript]:
        """Note output of a response. Return what is final now."""
        return []

    def response_over(self) -> list[Transcript]:
        """Note that a response ended while the user was silent. Return what is final now."""
        return []

    def finish_all(self) -> list[Transcript]:
        """Return the incomplete transcripts as final: the session is over."""
        return self._texts.finish_all()


class User:
    """The user's turn, as far as we know it.

    - `early_commits`: whether a commit is understood where the provider detects turns.
    - `on_line`: whether the provider hears the user on a phone line, so that no audio passes here.
    - `start_timer`, `stop_timer`: run "silence" (then call `silence_expired`) and "speech" (then ask
      `still_speaks`).
    """

    def __init__(
        self,
        rules: TurnRules,
        words: UserWords,
        ids: wire.EventIds,
        start_timer: Callable[[str, float], None],
        stop_timer: Callable[[str], None],
        *,
        sample_rate: int,
        early_commits: bool,
        on_line: bool = False,
    ) -> None:
        self.rules = rules
        self.words = words
        self.sample_rate = sample_rate
        """Samples a second of the user's audio, PCM16 mono."""
        self._ids = ids
        self._start_timer = start_timer
        self._stop_timer = stop_timer
        self._early_commits = early_commits
        self._on_line = on_line
        self.speaking: bool = False
        """Whether the provider hears speech that is not yet an item."""
        self._uncommitted = 0
        """Bytes of audio that were sent and are not yet an item."""
        self._awaits_commit = False
        """Whether we have to request a response when the audio has become an item."""
        self._silence_repeated = False
        """Whether the silence that ends a turn was sent a second time."""
        self._heard_before_wait = 0
        """The value of `_uncommitted` when a response began to wait for the end of the user's speech."""
        self._sent_silence = False
        """Whether we sent silence for a user who is speaking but sends no audio."""

    # Audio and the ends of turns

    @property
    def may_commit(self) -> bool:
        """Whether enough audio was sent for a commit: providers refuse less than 100 ms."""
        return self._on_line or self._uncommitted >= MIN_COMMIT_MS * self.sample_rate * 2 // 1000

    def append(self, pcm: bytes, put: Put) -> None:
        """Send audio, in messages of a bounded size."""
        put(
            [
                wire.AppendAudio(audio=pcm[start : start + MAX_AUDIO_MESSAGE])
                for start in range(0, len(pcm), MAX_AUDIO_MESSAGE)
            ]
        )
        self._uncommitted += len(pcm)

    def clear(self, put: Put) -> None:
        """Make the provider forget the audio that is not yet an item."""
        put([self._ids.make(wire.ClearAudio)])
        self._uncommitted = 0
        self._awaits_commit = False
        self._stop_timer("silence")

    def all_committed(self) -> None:
        """Note that a commit went out in manual mode."""
        self._uncommitted = 0

    def end_turn(self, verb: TurnEnd, put: Put) -> None:
        """Make the provider notice the end of the turn, in auto mode."""
        if self._may_commit_early and (verb == "commit" or self.rules.semantic):
            self._commit(put)
        else:
            # If no speech is open, the provider may not have noticed it yet, and it answers a commit of plain
            # silence with noise. So send silence, from which it detects the end of a turn, if there was one.
            self._append_silence(put)
            self._silence_repeated = False
            self._awaits_commit = not self.rules.creates

    @property
    def _may_commit_early(self) -> bool:
        """Whether, in auto mode, a commit makes the turn's end known sooner than silence."""
        return self._early_commits and self.speaking and self.may_commit

    def _commit(self, put: Put) -> None:
        """End the turn in the fastest way.

        The response is requested when the provider confirms the commit, unless its own detection is faster.
        """
        put([self._ids.make(wire.CommitAudio)])
        self._awaits_commit = True
        self._stop_timer("silence")

    def _append_silence(self, put: Put) -> None:
        if self._on_line:
            return  # a line is never mute, so the provider hears the silence itself
        self.append(bytes(self.rules.silence_ms * self.sample_rate // 1000 * 2), put)
        self._start_timer("silence", SILENCE_TIMEOUT)

    def silence_expired(self, put: Put) -> None:
        """Try something else, since the silence has not ended the turn."""
        if not self.speaking:
            return
        if self._may_commit_early:
            self._commit(put)
        elif not self._silence_repeated:
            self._silence_repeated = True
            self._append_silence(put)

    def follow(self, rules: TurnRules) -> None:
        """Note that turns end by these rules from now on."""
        if not rules.auto:
            # The provider no longer reports the end of this speech.
            self.speech_stopped()
            self._awaits_commit = False
        self.rules = rules

    # Speech, as the provider hears it

    def speech_started(self) -> None:
        """Note that the provider hears the user speak."""
        self.speaking = self.rules.auto
        self._awaits_commit = False
        self._sent_silence = False

    def speech_stopped(self) -> None:
        """Note that the user's speech is over."""
        self.speaking = False
        self._stop_timer("silence")

    def committed(self) -> bool:
        """Note that the audio became an item; return whether we have to request the response to it."""
        if self.rules.auto:
            self._uncommitted = 0
        request, self._awaits_commit = self._awaits_commit, False
        return request

    def drop_request(self) -> None:
        """Forget that we would have to request a response when the audio becomes an item."""
        self._awaits_commit = False

    def wait_for_speech_end(self) -> None:
        """Start to watch the user's speech: a response waits for its end."""
        self._heard_before_wait = self._uncommitted
        self._start_timer("speech", SPEECH_TIMEOUT)

    def still_speaks(self, put: Put) -> bool:
        """Return whether the user may still be speaking, after a response has waited for the end of it.

        If no audio came, the microphone is muted; the provider then needs silence to hear the end. When even
        that does not end the speech, it is taken to be over.
        """
        if self._on_line or self._uncommitted != self._heard_before_wait:
            return True
        if self._sent_silence:
            return False
        self._sent_silence = True
        self._append_silence(put)
        return True
