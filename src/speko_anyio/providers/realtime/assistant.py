"""The assistant's side of a realtime dialect: responses from beginning to end, and how they are cut off."""

from __future__ import annotations

import abc
from typing import Any, Final

from ...protocol.frames import (
    Audio,
    ErrorFrame,
    Interruption,
    ResponseEnd,
    ResponseStatus,
    Role,
    ToolCall,
    Usage,
)
from ...protocol.pcm import whole_samples
from .. import codes
from . import errors
from . import events as wire
from .base import LIVE, RESPONSE_TIMEOUT
from .errors import Verdict
from .gate import Phase, Reason
from .tools import ToolSide, asks_for_approval, is_server_tool


class AssistantSide(ToolSide, abc.ABC):
    """See the top."""

    @abc.abstractmethod
    def _is_own(self, metadata: Any) -> bool:
        """Whether a response with this metadata is surely one that we asked for."""

    def _answers_old_request(self, metadata: Any) -> bool:
        """Whether a response with this metadata certainly answers a request that was answered before."""
        return False

    @abc.abstractmethod
    def _arguments_done(self, event: wire.ArgumentsDone) -> None:
        """A function call has its arguments, complete or not."""

    def interrupt(self, *, played_ms: int | None = None) -> None:
        """Stop the response in flight (barge-in), and tell the provider what of it was heard.

        `played_ms`: milliseconds that were heard of the item being played, by whoever knows better than
        the estimate of `playback`. Raises as `send_audio`. Does nothing when there is nothing to stop.
        """
        self._check_open()
        if not self._accepted:
            return
        gate = self._gate
        coming = gate.phase is Phase.REQUESTED and not gate.moot
        if coming or gate.phase is Phase.ACTIVE or self.playback.unplayed_ms > 0:
            cancel = [self._cancel()] if gate.phase is Phase.ACTIVE else []
            self._queue([*cancel, *self._corrections(played_ms)])
            gate.moot = gate.moot or coming
            self._interrupted("assistant")
        gate.forget_turn()

    def _speech_started(self, item_id: str | None) -> None:
        super()._speech_started(item_id)
        if not (self._rules.auto and self._rules.interrupts):
            return
        self._gate.forget_turn()
        if self._gate.phase is Phase.REQUESTED:
            self._gate.moot = True
        if self._gate.phase is Phase.ACTIVE or self.playback.unplayed_ms > 0:
            self._say(self._corrections(None))
            self._interrupted("user")

    def _interrupted(self, at: Role) -> None:
        """The assistant was cut off. The corrections were made before: they need the playback as it was."""
        kept = []
        for frame in self._events:
            if isinstance(frame, ToolCall):
                # Its result is no longer needed, so nobody need run it.
                self._calls.take_back(frame.call_id)
            elif type(frame) is not Audio:
                kept.append(frame)
        self._events[:] = kept
        self._odd = b""
        self.playback.flush()
        self._calls.make_moot()
        self._tell(Interruption(at))
        if self._gate.phase is Phase.ACTIVE:
            self._cut_response()

    def _corrections(self, played_ms: int | None) -> list[wire.ClientEvent]:
        """What makes the provider's history what the listener heard of it."""
        events = []
        heard = self.playback.heard()
        for position, item in enumerate(heard):
            played = item.heard
            if position == 0 and played_ms is not None:
                played = max(0, min(played_ms, item.sent))
            if any(other.item_id == item.item_id for other in heard[position + 1 :]):
                continue  # an earlier item with the same id: the provider can only mean the last one
            # More of the last item may have been made than was sent.
            growing = self._gate.phase is Phase.ACTIVE and position == len(heard) - 1
            if not item.item_id or (played >= item.sent and not growing):
                continue
            self._corrected.append(item.item_id)
            if played > 0:
                events.append(
                    self._make(
                        wire.TruncateItem,
                        item_id=item.item_id,
                        content_index=item.content_index,
                        audio_end_ms=played,
                    )
                )
            else:
                # Nothing of it was heard, and truncation to nothing is refused.
                events.append(self._make(wire.DeleteItem, item_id=item.item_id))
        return events

    def _receive_audio(self, event: wire.AudioDelta) -> None:
        if not self._is_live(event.response_id):
            return
        if event.item_id != self._audio_item:
            # Another item is another piece of speech: half a sample of the last must not shift it.
            self._audio_item = event.item_id
            self._odd = b""
        pcm = event.delta
        if self._odd or len(pcm) & 1:
            pcm, self._odd = whole_samples(self._odd, pcm)
        if pcm:
            self.playback.add(event.item_id or "", event.content_index or 0, len(pcm))
            self._events.append(Audio(pcm, self.output_sample_rate))

    def _is_live(self, response_id: str | None) -> bool:
        """Whether what comes of that response counts. The first that is heard of one is its beginning."""
        gate = self._gate
        if response_id and response_id != gate.response_id:
            if gate.has_ended(response_id):
                self.stats.late_events += 1
                return False
            if gate.phase in LIVE and gate.response_id is None:
                self._name_response(response_id)
            else:
                self._begin_response(response_id, None)
        self._seen = True
        if gate.phase is Phase.CANCELLING:
            self.stats.late_events += 1
            return False
        self._spoke = True
        return True

    def _response_created(self, response: wire.Response) -> None:
        name = response.id or ""
        gate = self._gate
        same = bool(name) and name == gate.response_id
        # A response that begins again after it was cut off, had output or ended is a new one with the same
        # id, unless it answers a request of ours that was answered before.
        anew = self._announced and (gate.phase is Phase.CANCELLING or self._spoke)
        known = same or gate.has_ended(name)
        if (same and not anew) or (known and self._answers_old_request(response.metadata)):
            self.stats.repeated_events += 1
        else:
            self._begin_response(name, response.metadata)
        self._seen = self._announced = True

    def _begin_response(self, response_id: str, metadata: Any, *, over: bool = False) -> None:
        """A response was seen for the first time; `over`: it is its end that was seen."""
        gate = self._gate
        if gate.phase is Phase.ACTIVE and gate.response_id is None and response_id:
            self._name_response(response_id)
            return
        if gate.phase in LIVE:
            # At most one runs at a time: the one before ended, silently (xAI) or unseen.
            self._end_response()
        own = self._was_asked_for(metadata)
        surely = own and (not self._rules.auto or self._is_own(metadata))
        # In doubt it is the provider's answer to what the user has just said: that is wanted.
        moot = gate.moot and (surely or self._turn.speaking)
        gate.created(response_id)
        self._seen, self._spoke, self._announced = True, False, False
        self._calls.response_begins(response_id)
        self._forget_finished_tools(response_id)
        self._assistant.begin_all_again()
        self._audio_item, self._odd = None, b""
        self.playback.begin()
        self._turn.awaiting_commit = False
        self._timers.stop("response")
        if own:
            gate.granted()
        else:
            gate.forget_turn()
            if self._calls.all_acknowledged:
                # The provider answers by itself, and knows the results of the tools: nothing is owed.
                gate.owed = None
        gate.moot = False
        if moot and not over:
            self._say([self._cancel()])
            self._cut_response()

    def _name_response(self, response_id: str) -> None:
        """The response in flight, whose id was not known, is this one."""
        self._gate.response_id = response_id or None
        self._seen = True
        self._timers.stop("response")

    def _was_asked_for(self, metadata: Any) -> bool:
        """Whether the response that begins is the one we asked for, and not one that the provider's turn
        detection made; by its metadata, where the provider is known to give it back."""
        if self._gate.asked is None:
            return False
        if self._is_own(metadata):
            self._echoes_metadata = True
            return True
        return not self._rules.auto or not self._echoes_metadata

    def _response_done(self, event: wire.ResponseDone) -> None:
        gate = self._gate
        response = event.response
        name = response.id or ""
        unseen = not name and gate.phase is Phase.IDLE and not self._spoke
        if gate.has_ended(name) or unseen:
            if gate.took_its_time(name):
                # Told with the next one: usage must not stand between the frames of a later response.
                self._count_usage(event)
            self.stats.repeated_events += 1
            return
        running = gate.phase is Phase.ACTIVE and gate.response_id in (None, name or gate.response_id)
        if gate.phase in LIVE and gate.response_id is None:
            self._name_response(name)
        elif gate.phase not in LIVE or (name and name != gate.response_id):
            self._begin_response(name, response.metadata, over=True)
        self._end_texts()
        end = _end_of(response)
        if end.status == "done":
            self._issue_calls_of(response)
        elif end.reason == "turn_detected" and running:
            # The provider heard the user and told us only now.
            self._say(self._corrections(None))
            self._interrupted("user")
        self._tell_usage(event)
        if end.status == "failed":
            self._response_failed(errors.response_failure(response.status_details))
        self._end_response(end)
        self._pay()

    def _issue_calls_of(self, response: wire.Response) -> None:
        """Issue the calls of a completed response that no event of their own has reported."""
        for item in response.output or ():
            if item.type == "function_call" and item.status != "incomplete":
                self._issue_call(response.id, self._item_call(item), repeats=False)
            elif asks_for_approval(item):
                self._approval_asked(item, response.id)
        for call in self._unconfirmed:
            self._issue_call(response.id, call, repeats=False)

    def _output_item_added(self, response_id: str | None, item: wire.Item) -> None:
        self._note_function(item)
        if not self._is_live(response_id):
            return
        if is_server_tool(item):
            self._server_tool(item.id, item.name, "started")
        elif asks_for_approval(item):
            self._approval_asked(item, response_id)

    def _output_item_done(self, response_id: str | None, item: wire.Item) -> None:
        live = self._is_live(response_id)
        if item.type == "function_call":
            # A call that is complete is in the history, even when its response was cut off afterwards.
            if item.status in ("completed", None):
                self._issue_call(response_id, self._item_call(item))
            elif live and item.status != "incomplete":
                self._unconfirmed.append(self._item_call(item))
        elif live and is_server_tool(item) and item.status != "in_progress":
            failed = item.status in ("failed", "incomplete")
            self._server_tool(item.id, item.name, "failed" if failed else "completed")
        elif live and asks_for_approval(item):
            self._approval_asked(item, response_id)

    def _count_usage(self, event: wire.ResponseDone) -> bool:
        """Add up what the response cost; False when the event does not say."""
        for usage in (event.response.usage, event.usage):
            if usage is None:
                continue
            spent_in, spent_out = usage.input_token_details, usage.output_token_details
            if spent_in is not None or spent_out is not None:
                before_in, before_out = self._spent
                self._spent = before_in + _audio_tokens(spent_in), before_out + _audio_tokens(spent_out)
                return True
        return False

    def _tell_usage(self, event: wire.ResponseDone) -> None:
        if self._count_usage(event):
            self._tell(Usage(*self._spent))
            self._spent = 0, 0

    def _response_failed(self, error: wire.ErrorInfo) -> None:
        if errors.judge(error, None) is Verdict.FATAL:
            self._fail(errors.failure(error))
        else:
            code = str(error.code or error.type or codes.RESPONSE_FAILED)
            self._tell(ErrorFrame(code, error.message or "the provider could not complete a response"))

    def _end_response(self, end: ResponseEnd | None = None) -> None:
        """The response in flight is over; `end` is the provider's report of that, if there was one."""
        self._end_texts()
        cut = self._gate.phase is Phase.CANCELLING
        response_id = self._gate.response_id or ""
        self._gate.ended(told=end is not None)
        self._timers.stop("cancel")
        if self._gate.phase is Phase.REQUESTED:
            self._start_timer("response", RESPONSE_TIMEOUT)
        else:
            self._timers.stop("response")
        if self._calls.response_over(response_id):
            self._gate.owe(Reason.TOOLS)
        if self._seen:
            self._seen = False
            if end is None:
                # xAI sends neither output nor an end for a response that the user talked over.
                end = ResponseEnd("done" if self._spoke else "interrupted")
            self._tell(ResponseEnd("interrupted", end.reason) if cut else end)
        self._spoke = self._announced = False
        self._unconfirmed.clear()

    def _end_texts(self) -> None:
        for transcript in self._assistant.finish_all():
            self._tell(transcript)

    def _cut_response(self) -> None:
        self._gate.cancel()
        self._timers.stop("response")
        self._start_timer("cancel", RESPONSE_TIMEOUT)


def _audio_tokens(details: wire.TokenDetails | None) -> int:
    return max(0, details.audio_tokens or 0) if details is not None else 0


_STATUSES: Final[dict[str | None, ResponseStatus]] = {
    "cancelled": "interrupted",
    "canceled": "interrupted",
    "incomplete": "incomplete",
    "failed": "failed",
}
"""What a response's status says about its end. Any other status, or none, means that it is complete."""

_CUT_OFF: Final = frozenset({"turn_detected", "client_cancelled"})
"""Reasons of interrupted responses, which some servers call incomplete."""


def _end_of(response: wire.Response) -> ResponseEnd:
    status = _STATUSES.get(response.status, "done")
    if status == "done":
        return ResponseEnd(status)
    details = response.status_details
    if status == "failed":
        error = errors.response_failure(details)
        return ResponseEnd(status, str(error.code or error.type or ""))
    reason = details if isinstance(details, str) else wire.dig(details, str, "reason") or ""
    return ResponseEnd("interrupted" if reason in _CUT_OFF else status, reason)
