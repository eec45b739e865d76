"""The model's output as frames. Gemini sends no ids and no beginnings, and not every answer has an end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from ...protocol._pcm import is_sample_rate, whole_samples
from ...protocol.frames import (
    Audio,
    ErrorFrame,
    Frame,
    Interruption,
    ResponseEnd,
    ResponseStatus,
    Role,
    Transcript,
)
from .. import codes
from .._heard import HeardEstimate
from . import _events as wire
from ._calls import ServerTools
from ._families import OUTPUT_SAMPLE_RATE
from ._response import Phase, Progress
from ._resumption import Resumption
from ._words import LATE_WORDS_TIMEOUT, Speech, UserWords

MUTE_TIMEOUT: Final = 3.0
"""Seconds without output after which a muted response counts as over, for when its end is never signalled: a
stale mute would silence the session. While a response is generated, its pieces are closer together."""

CUT_TIMEOUT: Final = 0.5
"""Seconds after the provider's `interrupted` during which output counts as the rest of the interrupted
answer, if the `turnComplete` that should follow is missing. The next answer can't come sooner: the user must
finish first."""

STALLED_TIMEOUT: Final = 20.0
"""Seconds without output, with nothing left to play, after which an answer counts as over even though its end
was not signalled, and a requested answer counts as not coming."""

GOING_ON_TIMEOUT: Final = 60.0
"""Like `STALLED_TIMEOUT`, between the turns of a model that announced more: it may be thinking."""

_BENIGN_REASONS: Final = frozenset(
    {"", "TURN_COMPLETE_REASON_UNSPECIFIED", "FINISH_REASON_UNSPECIFIED", "NEED_MORE_INPUT", "STOP"}
)
_CUT_SHORT: Final = re.compile(
    r"MAX_TOKENS|SAFETY|RECITATION|LANGUAGE|BLOCKLIST|SPII|GENERATED_|OUTPUT_|MAX_REGENERATION"
    r"|(IMAGE_|\A)PROHIBITED_CONTENT|IMAGE_OTHER|MODEL_ARMOR"
)
"""Reasons that mean that a limit or a filter cut an answer short. All others, except the benign, are
failures."""

_MAX_MIME_TYPE: Final = 100
"""Characters of a media type that are searched for its rate."""

_RATE: Final = re.compile(r";\s*rate=(\d{1,6})\b")


class GoogleStats(msgspec.Struct):
    """Counts of events that produced no frame of their own."""

    unknown_fields: int = 0
    """Fields that this version does not know; one at the top of a message also gave an `Unknown`."""
    odd_fields: int = 0
    """Fields with a value of the wrong type, which was converted if its meaning was clear, or ignored."""
    early_messages: int = 0
    """Messages with content before the configuration was accepted."""
    late_events: int = 0
    """Output of responses that were cut off, and words of responses that had ended."""
    repeated_events: int = 0
    """Repeated acceptances, interruptions and calls."""
    skipped_commits: int = 0
    """Turns that ended without content."""
    unwanted_results: int = 0
    """Results of tool calls that the provider had cancelled."""
    skipped_blobs: int = 0
    """Output that is neither audio nor text."""


class Assistant:
    """The model's answers.

    `emit` takes the frames. `start_timer` and `stop_timer` have names of timers: when ``mute`` expires, call
    `unmute`; when ``late`` expires, `end_late_words`; when ``stalled`` expires, `check_stalled`.

    An answer completes the `user`'s words, outdates the `handle`, and is played to an estimate, `playback`.
    `transcribed`: whether its words come as transcription; text in the model's output is something else then.
    """

    def __init__(
        self,
        emit: Callable[[Frame | None], None],
        start_timer: Callable[[str, float], None],
        stop_timer: Callable[[str], None],
        *,
        user: UserWords,
        handle: Resumption,
        playback: HeardEstimate,
        stats: GoogleStats,
        transcribed: bool,
    ) -> None:
        self._emit = emit
        self._start_timer = start_timer
        self._stop_timer = stop_timer
        self._user = user
        self._handle = handle
        self._playback = playback
        self._stats = stats
        self._transcribed = transcribed
        self._speech = Speech("assistant")
        self._odd = b""
        self._unheard = False
        """Whether audio has come that the listener may not have heard."""
        self._answering = False
        """Whether an answer has begun and its end was not reported yet."""
        self.answers: int = 0
        """How many answers have begun."""
        self.progress: Progress = Progress()
        self._mime_type = ""
        self._rate = OUTPUT_SAMPLE_RATE
        self.reason: str = ""
        """Why the turn ends early; empty if it doesn't."""
        self.server_tools: ServerTools = ServerTools()

    # State

    @property
    def speaking(self) -> bool:
        """Whether there are words that are not complete."""
        return self._speech.speaking

    @property
    def responding(self) -> bool:
        """Whether more may come of the answer."""
        return self.progress.phase is Phase.ACTIVE and not self.progress.generated

    # Output of the model

    def receive_audio(self, blob: wire.Blob) -> Audio | None:
        """Take a blob that should be audio; return its samples if the user is to hear them.

        The caller emits them, since this is the hot path.
        """
        mime_type, pcm = blob.mime_type, blob.data
        if mime_type and not mime_type.startswith("audio/pcm"):
            self._stats.skipped_blobs += 1
            return None
        if not pcm:
            return None
        progress = self.progress
        if progress.generated:
            # This audio belongs to the next answer; the end of the previous one was never signalled.
            if progress.muted:
                self.unmute()
            elif progress.prompted:
                self._end_unsignalled()
        # Nearly all audio continues an answer, which changes no state.
        continues = progress.begun and progress.confirmed and progress.phase is Phase.ACTIVE
        if (not continues or progress.awaited or progress.cut) and not self._counts(words=False):
            return None
        if mime_type != self._mime_type:
            self._note_rate(mime_type[:_MAX_MIME_TYPE])
        if self._odd or len(pcm) & 1:
            pcm, self._odd = whole_samples(self._odd, pcm)
        if not pcm:
            return None
        self._unheard = True
        self._playback.add("", 0, len(pcm))
        return Audio(pcm, self._rate)

    def _note_rate(self, mime_type: str) -> None:
        """Note the rate that `mime_type` names, or the usual one if it names none that is possible."""
        self._mime_type = mime_type
        found = _RATE.search(mime_type)
        rate = int(found[1]) if found else 0
        if not is_sample_rate(rate):
            rate = OUTPUT_SAMPLE_RATE
        if rate != self._rate:
            self._rate = rate
            self._playback.set_rate(rate)

    def receive_text(self, text: str) -> None:
        """Take text of the model's output, which is its words if there is no transcription."""
        # White space begins no answer.
        if not self._transcribed and (self.progress.begun or text.strip()) and self._counts(words=False):
            self._emit(self._speech.add(text))

    def receive_words(self, words: wire.Transcription) -> None:
        """Take words of an answer, or late ones of the answer before."""
        progress = self.progress
        if not words.text.strip() and not (progress.begun and progress.phase is Phase.ACTIVE):
            # It begins no answer, but may be a space between late words, or mark them as complete.
            if self._speech.speaking:
                self._add_words(words)
            return
        late = not (progress.begun or progress.prompted or progress.muted)
        if late:
            self._stats.late_events += 1
        elif not self._counts(words=True):
            return
        self._add_words(words)
        if late or not progress.confirmed:
            self._start_timer("late", LATE_WORDS_TIMEOUT)

    def _add_words(self, words: wire.Transcription) -> None:
        self._emit(self._speech.add(words.text))
        if words.finished:
            self._finish_words()

    def _finish_words(self) -> None:
        self._emit(self._speech.finish())

    def receive_server_tool(self, name: str) -> None:
        """Take the results of a tool that Google ran; its start is not signalled."""
        progress = self.progress
        if progress.muted:
            self._stats.late_events += 1
        else:
            self._emit(self.server_tools.completed(name, new_answer=progress.begun or progress.prompted))

    def receive_call(self) -> None:
        """Record that the answer calls a tool."""
        if self.progress.tool_call():
            self._begin()
        self._handle.call_tool()

    def _counts(self, *, words: bool) -> bool:
        """Whether output that comes now belongs to an answer; the first such output begins one."""
        if self.progress.muted and self._is_dropped():
            return False
        if self.progress.output(words=words):
            self._begin()
        return True

    def _is_dropped(self) -> bool:
        """Whether output while muted still belongs to the answer that was cut off."""
        progress = self.progress
        if progress.resumed:
            self.unmute()
            return False
        progress.dropped = True
        self._stats.late_events += 1
        if not progress.muted_by_provider:
            self._start_mute_timer()
        return True

    def _begin(self) -> None:
        self.answers += 1
        self._odd = b""
        self.reason = ""
        self._handle.begin_answer()
        self._answering = True
        self._stop_timer("late")
        self._start_stalled_timer(STALLED_TIMEOUT)
        self._finish_words()
        self._user.finish()

    # Ends

    def receive_reason(self, reason: str) -> None:
        """Record why the turn ends early, if it does."""
        if reason not in _BENIGN_REASONS:
            self.reason = reason
            if _CUT_SHORT.search(reason) is None:
                message = f"the provider ended its turn early: {reason}"
                self._emit(ErrorFrame(codes.RESPONSE_FAILED, message))

    def receive_generated(self) -> None:
        """Record that the model has generated all of the answer."""
        progress = self.progress
        if progress.begun or progress.muted:
            progress.generated = progress.confirmed = True

    def receive_end(self, *, turn: bool, status: str, waits: bool) -> bool:
        """Take news of an end, as `Progress.end` does; return whether there is one, which `end` reports."""
        progress = self.progress
        cut = progress.cut or progress.muted
        # A turn without output still answers a request, and words alone are an answer if a turn ends with
        # them.
        self._answering = self._answering or (turn and not cut and (progress.asked or self._speech.speaking))
        idle = progress.end(turn=turn, status=status, waits=waits)
        if idle:
            self._stop_timer("mute")
            if progress.awaited:
                self._start_stalled_timer(STALLED_TIMEOUT)
            else:
                self._stop_timer("stalled")
        elif turn:
            self._start_stalled_timer(GOING_ON_TIMEOUT)
        if not (turn or idle):
            return False
        progress.asked = progress.asked and cut
        self.server_tools.end_answer()
        self._finish_words()
        self._start_timer("late", CUT_TIMEOUT if cut else LATE_WORDS_TIMEOUT)
        if not cut and self._user.speaking:
            # The user's words that came meanwhile belong to the turn that was answered; after an interruption
            # they begin the next one.
            self._user.finish()
        return True

    def end(self, *, cut: bool = False) -> None:
        """Report that the answer is over, if there was one; `cut`: because the user spoke."""
        reason, self.reason = self.reason, ""
        if cut:
            self._end_answer("interrupted")
        elif not reason:
            self._end_answer("done")
        else:
            self._end_answer("failed" if _CUT_SHORT.search(reason) is None else "incomplete", reason)

    def _end_unsignalled(self) -> None:
        """End an answer whose end follows from later events, or from silence."""
        self._finish_words()
        self.server_tools.end_answer()
        self.progress.rest()
        self._stop_timer("stalled")
        self.end()

    def _end_answer(self, status: ResponseStatus, reason: str = "") -> None:
        if self._answering:
            self._answering = False
            self._emit(ResponseEnd(status, reason))

    def take_open(self, *, wanted: bool) -> ResponseEnd | None:
        """Take the end of the answer that is cut off with the session; `wanted`: we ended the session."""
        if not self._answering:
            return None
        self._answering = False
        return ResponseEnd("interrupted") if wanted else ResponseEnd("failed", self.reason)

    def take_words(self) -> Transcript | None:
        """Take the words that are not complete: the session has ended."""
        return self._speech.finish()

    # What the user does

    def ask(self, *, certain: bool) -> None:
        """Record that an answer was asked for: `certain` if the provider does not decide whether it answers.

        It does where it detects the end of the user's turn.
        """
        progress = self.progress
        if certain:
            if progress.muted and not (progress.begun or progress.dropped):
                # The interrupted response is over: output from now on belongs to the next one.
                self.unmute()
            progress.awaited = True
            self._start_stalled_timer(STALLED_TIMEOUT)
        progress.asked = True
        progress.prompt()

    def hear_user(self) -> None:
        """Record that the user spoke, so any further words of the assistant belong to a new answer."""
        self.retract_late_words()
        if not self.progress.begun:
            self._finish_words()
        self.progress.prompt()

    def cut_in(self) -> bool:
        """Record that the provider heard the user interrupt; return whether that interrupts anything."""
        progress = self.progress
        progress.cut = True
        self._user.cut_in()
        if progress.muted:
            # Our own interruption, or one that was reported.
            self._stats.repeated_events += 1
            self._mute(by_provider=True)
        elif progress.phase is Phase.ACTIVE or self._unheard:
            if progress.phase is Phase.ACTIVE:
                self._mute(by_provider=True)
            return True
        else:
            self._stats.repeated_events += 1
            self._finish_words()
        return False

    def give_up(self) -> None:
        """Drop the rest of the answer that is under way or expected."""
        progress = self.progress
        self._answering = self._answering or progress.awaited
        progress.awaited = False
        self._mute(by_provider=False)

    def interrupt(self, at: Role) -> None:
        """Report that the assistant was cut off: its unplayed audio must not be heard."""
        self._odd = b""
        self.reason = ""
        self._unheard = False
        self._playback.flush()
        self._emit(Interruption(at))
        self._finish_words()
        self._end_answer("interrupted")

    # Time

    def _mute(self, *, by_provider: bool) -> None:
        self.progress.mute(by_provider=by_provider)
        self._stop_timer("late")
        self._stop_timer("stalled")
        self._start_mute_timer()

    def _start_mute_timer(self) -> None:
        self._start_timer("mute", CUT_TIMEOUT if self.progress.muted_by_provider else MUTE_TIMEOUT)

    def unmute(self) -> None:
        """Treat output from now on as another answer."""
        self.progress.rest(cut=self.progress.muted_by_provider)
        self.progress.prompted = True
        self._stop_timer("mute")

    def _start_stalled_timer(self, seconds: float) -> None:
        self.progress.heard_from = False
        self._start_timer("stalled", seconds)

    def check_stalled(self, *, calls_open: bool) -> None:
        """End an answer that has stalled, unless something shows that it continues."""
        progress = self.progress
        if progress.muted:
            if progress.awaited:
                self._start_stalled_timer(STALLED_TIMEOUT)
            return
        if progress.heard_from or calls_open or self._playback.unplayed_ms > 0:
            self._start_stalled_timer(STALLED_TIMEOUT)
        elif progress.awaited:
            progress.awaited = False
            message = f"the provider did not answer within {STALLED_TIMEOUT:g} s; say it again"
            self._emit(ErrorFrame(codes.NO_RESPONSE, message))
        elif progress.phase is Phase.ACTIVE:
            self._end_unsignalled()
            progress.prompt_by_time()

    def end_late_words(self) -> None:
        """Stop treating words as late ones. If another answer has begun with words only, it ends here."""
        progress = self.progress
        if progress.phase is Phase.ACTIVE and progress.begun:
            if progress.confirmed:
                return
            self._retract()
        self._finish_words()
        progress.prompt_by_time()

    def retract_late_words(self) -> None:
        """Take back an answer that only time prompted, unless more than words has come."""
        if self.progress.maybe_late:
            self._retract()

    def _retract(self) -> None:
        """Take back the answer: its words were late ones, or all there is."""
        self.progress.retract()
        self._handle.retract_answer()
        self._stop_timer("stalled")
        self._answering = False
        self._finish_words()
