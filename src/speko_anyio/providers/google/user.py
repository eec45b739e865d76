"""The user's side of a Gemini session, and what all of it knows: what is said to the provider, and when.

The provider's side, which is what comes in, is in `dialect.py`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ...protocol.errors import LocalProtocolError
from ...protocol.frames import Role, Transcript
from ...protocol.limits import Limits
from ...protocol.mint import SessionConfig
from ...protocol.pcm import Buffer
from ...protocol.state import State
from ..closes import Service
from ..held_input import TurnEnd
from ..provider import PROVIDER_LIMITS, ProviderDialect
from . import events as wire
from .calls import NamedCalls
from .config import OUTPUT_SAMPLE_RATE, GoogleOptions, configure
from .response import Phase, Progress
from .speech import Speech

_DEFAULT_OPTIONS: Final = GoogleOptions()
STALLED_TIMEOUT: Final = 20.0
"""Seconds without output, with nothing left to play, after which an answer counts as over even though its end
was not signalled, and a requested answer counts as not coming."""

_MESSAGE_MS: Final = 100
"""Audio in one message we send; the longest that Google recommends."""


class GoogleStats(msgspec.Struct):
    """What happened and gave no frame, counted."""

    unknown_fields: int = 0
    """Fields that this version does not know; one at the top of a message also gave an `Unknown`."""
    odd_fields: int = 0
    """Fields with a value of the wrong type, which was read as what it must mean, or ignored."""
    early_messages: int = 0
    """Messages with content before the configuration was accepted."""
    late_events: int = 0
    """Output of a response that was cut off, and words of one that had ended."""
    repeated_events: int = 0
    """Acceptances, interruptions and calls that were told before."""
    skipped_commits: int = 0
    """Turns that ended with nothing in them."""
    unwanted_results: int = 0
    """Results of tool calls that the provider had cancelled."""
    skipped_blobs: int = 0
    """Output that is neither audio nor text."""


class _Turn:
    """The user's turn, as far as we told the provider."""

    __slots__ = ("messages", "open")

    def __init__(self) -> None:
        self.open = False
        """In manual mode: it has begun."""
        self.messages = 0
        """Messages of audio in it."""


class UserSide(ProviderDialect, abc.ABC):
    """See the top. The parameters are those of `GoogleDialect`."""

    _service = Service.GOOGLE

    def __init__(
        self,
        config: SessionConfig,
        *,
        options: GoogleOptions = _DEFAULT_OPTIONS,
        resumption_handle: str | None = None,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = 5.0,
        ready_timeout: float = 10.0,
        ttl: float | None = None,
        warn_before: float = 60.0,
        state: State = State.OPEN,
    ) -> None:
        setup, rules, input_rate, notes = configure(config, options, resumption_handle)
        size = len(setup.encode())
        if size > limits.max_outbox:
            raise LocalProtocolError(
                f"the configuration has {size} bytes, more than the outbox's limit of {limits.max_outbox}; "
                "shorten the system prompt or the tools"
            )
        # First: with the opening, which follows, the setup is sent.
        self._setup = setup
        super().__init__(
            input_sample_rate=input_rate,
            output_sample_rate=OUTPUT_SAMPLE_RATE,
            notes=notes,
            ready_timeout=ready_timeout,
            limits=limits,
            close_timeout=close_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=state,
        )
        self.stats = GoogleStats()
        self._rules = rules
        self._mime_type = f"audio/pcm;rate={input_rate}"
        self._message_size = _MESSAGE_MS * input_rate // 1000 * 2
        self._held_lost = 0
        self._turn = _Turn()
        self._progress = Progress()
        self._unheard = False
        self._calls = NamedCalls(limits.max_open_calls)
        self._user = Speech("user")
        self._words_due = False
        """Whether the model answered the user, and what that had said was not written down yet."""
        self._assistant = Speech("assistant")
        self._usage: wire.UsageMetadata | None = None
        self._usage_due = False
        self._user_settled = False
        """Whether the user's words, though incomplete, no longer hold anything up."""
        self._answering = False
        """Whether an answer has begun whose end was not reported yet."""
        self._reason = ""
        """Why the turn ends early; empty if it doesn't."""
        self._server_tools: set[str] = set()
        self._server_tools_over = False
        self._server_tools_told = 0
        self._handle = resumption_handle or None
        self._handle_is_fresh = False
        self._handle_was_fresh = False
        """Whether the handle was fresh when the answer began, and nothing has outdated it since."""
        self.resuming = self._handle is not None
        self._going_away: float | None = None

    def _take_open_texts(self) -> list[Transcript]:
        texts = self._user.finish(), self._assistant.finish()
        return [text for text in texts if text is not None]

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self._calls.open

    @property
    def held_audio_dropped(self) -> int:
        """Bytes of audio that had to wait and were too many to keep: the oldest go first."""
        return self._held.dropped + self._held_lost

    def takes_result(self, call_id: str) -> bool:
        return call_id in self._calls

    @property
    def responding(self) -> bool:
        return self._progress.phase is Phase.ACTIVE and not self._progress.generated

    @property
    def idle(self) -> bool:
        """Whether the model neither answers nor waits for a tool."""
        return not self._progress.stoppable and not self._calls.open

    @property
    def odd_fields(self) -> int:
        return self.stats.odd_fields

    @property
    def at_rest(self) -> bool:
        # What the user said is not in the handle before the model has taken it up; a turn that was told to
        # have begun would begin again.
        turn_is_open = self._turn.open and not self._rules.auto
        return self.idle and self._handle_is_fresh and not self._speaking and not turn_is_open

    @property
    def _speaking(self) -> bool:
        """Whether words are incomplete that the end of the connection would cut off."""
        return self._assistant.speaking or (self._user.speaking and not self._user_settled)

    @property
    def resumption(self) -> str | None:
        return self._handle if self._may_resume else None

    @property
    def resumption_handle(self) -> str | None:
        """With what a new dialect goes on where this one is, for 2 hours; None when there is nothing."""
        return self._handle

    @property
    def handle_is_fresh(self) -> bool:
        """Whether `resumption_handle` holds all that was said: it does not while the model answers or waits
        for a tool."""
        return self._handle_is_fresh

    @property
    def going_away(self) -> float | None:
        """Seconds that the connection still had when the provider announced its end; None: it did not."""
        return self._going_away

    # Verbs

    def send_audio(self, pcm: Buffer) -> None:
        """As in `ClientDialect`, at `input_sample_rate`.

        Before `Ready`, and while a tool call is open where `GoogleOptions.gate_input` says so, it is held, at
        most 10 seconds of it: the oldest is dropped and counted in `held_audio_dropped`. In manual mode the
        first audio of a turn stops the model.
        """
        pcm = self._checked_audio(pcm)
        if not pcm:
            return
        if self._must_hold:
            self._held.add(pcm)
        else:
            self._send(pcm)

    def commit(self) -> None:
        """End the user's turn: what was sent is to be answered now. Raises as `send_audio`.

        In manual mode a turn without audio is no turn: nothing happens, and `stats.skipped_commits` counts
        it. In auto mode silence is sent, by which the provider finds the end itself.
        """
        self._end_turn("commit")

    def end_turn(self) -> None:
        """As `commit`."""
        self._end_turn("end_turn")

    def clear(self) -> None:
        """Forget what audio of the turn was not taken to be sent. Gemini can't forget what it has: of that
        nothing can be cleared. Raises as `send_audio`."""
        self._check_open()
        self._held.clear()
        kept: list[Any] = []
        position = len(self._outbox)
        while position and self._outbox[position - 1] not in wire.TURN_ENDS:
            position -= 1
            message = self._outbox[position]
            if wire.is_audio(message):
                self._queued -= len(message)  # type: ignore[arg-type] # audio is text here
                self._turn.messages -= 1
            else:
                kept.append(message)
        self._outbox[position:] = reversed(kept)

    def interrupt(self, *, played_ms: int | None = None) -> None:
        """Stop the response in flight (barge-in). Raises as `send_audio`. Does nothing when there is nothing
        to stop.

        In auto mode the model goes on, unless `GoogleOptions.stop_generating` is on, and nobody hears it:
        what it still says of this response is dropped. In manual mode it is told that the user speaks, and
        that turn stays open until the next `commit`. `played_ms` is for other providers: Gemini's history
        keeps what it made, heard or not.
        """
        self._check_open()
        progress = self._progress
        self._retract_late_words()
        if not self._accepted or not (progress.stoppable or self.playback.unplayed_ms > 0):
            return
        if progress.stoppable:
            if not self._must_hold:
                self._tell_model_to_stop()
            self._answering = self._answering or progress.awaited
            progress.awaited = False
            self._mute()
        self._interrupted("assistant")
        self._release_held()

    def send_tool_result(self, call_id: str, output: str) -> None:
        """As in `ClientDialect`. The result of a call that the provider cancelled is only counted."""
        self._check_result(call_id, output)
        answer = self._calls.answer_to(call_id)
        if answer is None:
            self.stats.unwanted_results += 1
        else:
            try:
                message = wire.tool_response(answer.wire_id, answer.name, wire.response_of(output))
            except UnicodeEncodeError:
                raise LocalProtocolError(
                    "the text holds half of a surrogate pair, which UTF-8 can't carry; send whole characters"
                ) from None
            self._queue([message])
            self._retract_late_words()
            self._handle_is_fresh = self._handle_was_fresh = False
            self._progress.prompt()
        self._calls.answer(call_id)
        self._release_held()

    @property
    def _must_hold(self) -> bool:
        """Whether the user's input has to wait."""
        return not self._accepted or (self._rules.gates and bool(self._calls.open))

    def _send(self, pcm: bytes) -> None:
        size = self._message_size
        messages = [
            wire.audio(pcm[start : start + size], self._mime_type) for start in range(0, len(pcm), size)
        ]
        opens = not self._rules.auto and not self._turn.open
        self._queue([wire.ACTIVITY_START, *messages] if opens else messages)
        self._turn.open = True
        self._turn.messages += len(messages)

    def _end_turn(self, verb: TurnEnd) -> None:
        self._check_open()
        if self._must_hold:
            self._held.end_turn(verb)
        else:
            self._send_turn_end()

    def _send_turn_end(self) -> None:
        progress = self._progress
        if self._rules.auto:
            # Silence makes the provider's detection end the turn; some models want to be told, others ignore
            # that.
            size = self._message_size
            silence = bytes(self._rules.silence_ms * self.input_sample_rate // 1000 * 2)
            messages = [
                wire.audio(silence[start : start + size], self._mime_type)
                for start in range(0, len(silence), size)
            ]
            self._queue([*messages, wire.STREAM_END])
            self._retract_late_words()
        elif not self._turn.messages:
            # The model would answer an empty turn; one that an interruption opened stays open.
            self.stats.skipped_commits += 1
            return
        else:
            self._queue([wire.ACTIVITY_END])
            self._retract_late_words()
            if progress.phase is Phase.MUTED and (not (progress.begun or progress.dropped)):
                # The interrupted response gives nothing more: output from now on is the next one.
                self._unmute()
            progress.awaited = True
            self._start_stalled_timer(STALLED_TIMEOUT)
        progress.asked = True
        progress.prompt()
        self._turn.open = False
        self._turn.messages = 0

    def _tell_model_to_stop(self) -> None:
        if self._rules.auto:
            if self._rules.stops:
                self._queue([wire.STOP_GENERATING])
        elif not self._turn.open:
            self._queue([wire.ACTIVITY_START])
            self._turn.open = True

    def _release_held(self) -> None:
        """Send what had to wait, if it need not wait any more."""
        if self._must_hold or self._state is not State.OPEN:
            return
        before, verb, after = self._held.take()
        self._send_what_fits(before)
        if verb is not None:
            try:
                self._send_turn_end()
            except LocalProtocolError:
                # The audio that follows must not become part of the unfinished turn.
                self._held_lost += len(after)
                return
        self._send_what_fits(after)

    def _send_what_fits(self, pcm: bytes) -> None:
        """Send held audio. No caller is waiting who could be told of a full outbox."""
        for start in range(0, len(pcm), self._message_size):
            try:
                self._send(pcm[start : start + self._message_size])
            except LocalProtocolError:
                self._held_lost += len(pcm) - start
                return

    def _queue(self, messages: Sequence[str]) -> None:
        """Queue all or none: raises as `send_audio`."""
        queued = self._queued + sum(len(text) if text.isascii() else len(text.encode()) for text in messages)
        if queued > self._max_outbox:
            raise self._outbox_full()
        self._queued = queued
        for message in messages:
            self._put(message)

    @abc.abstractmethod
    def _interrupted(self, at: Role) -> None:
        """The assistant was cut off: what is queued of its audio is not to be heard."""

    @abc.abstractmethod
    def _mute(self) -> None:
        """What still comes of the response is to be dropped."""

    @abc.abstractmethod
    def _retract_late_words(self) -> None:
        """Take back an answer that only time prompted, unless more than words of it has come."""

    @abc.abstractmethod
    def _unmute(self) -> None:
        """What comes now is of another response."""

    @abc.abstractmethod
    def _start_stalled_timer(self, seconds: float) -> None:
        """After that long without output, none will come."""
