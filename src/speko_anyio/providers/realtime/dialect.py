"""What the dialects of the OpenAI Realtime protocol and of its xAI relative share.

The frames are those of a Speko session: `Ready` once the provider accepted the configuration, audio at the
*provider's* rates (`input_sample_rate`, `output_sample_rate`: whoever wants others resamples), transcripts,
tool calls, interruptions, usage, errors, and one `Close`. What differs between the two is in `openai.py` and
`xai.py`; the state has its own modules: `gate.py`, `turns.py`, `calls.py`, `transcripts.py`, and `heard.py`
above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...protocol import close_codes
from ...protocol.codec import MalformedMessage
from ...protocol.frames import ErrorFrame, Frame, Ready, Unknown
from ...protocol.session import MAX_SAMPLE_RATE
from ...protocol.state import State
from .. import codes
from ..lenient import fit, text_of
from ..provider import ProviderSession
from . import errors
from . import events as wire
from .assistant import AssistantSide
from .base import RESPONSE_TIMEOUT, RealtimeStats
from .errors import Verdict
from .gate import Phase, Reason
from .tools import asks_for_approval
from .user import part_of

__all__ = ["RealtimeDialect", "RealtimeStats"]


class RealtimeDialect(AssistantSide):
    """What comes in, errors, and time; the rest is inherited."""

    def _receive_binary(self, data: bytes) -> Frame | None:
        # Some servers send JSON in binary messages.
        if len(data) > self.limits.max_text_size:
            self._too_big("binary", self.limits.max_text_size)
        else:
            self._receive_json("binary", text_of(data))
        return None

    def _receive_text(self, text: str) -> None:
        self._receive_json("text", text)

    def _receive_json(self, kind: str, text: str) -> None:
        try:
            event, odd = wire.decode(text)
        except MalformedMessage as error:
            self._violated(
                close_codes.INVALID_DATA,
                f"the provider sent a {kind} message that is not of its protocol: {error}",
            )
            return
        self.stats.odd_fields += len(odd)
        if isinstance(event, Unknown):
            self.stats.unknown_events += 1
            self._events.append(event)
        elif event is not None:
            if self._accepted:
                self._receive(event)
            else:
                self._receive_early(event)

    def _receive_early(self, event: wire.AnyServerEvent) -> None:
        """Before the configuration is accepted: what else comes is of an earlier session (xAI replays it) or
        was made under the provider's defaults, and not meant."""
        match event:
            case wire.SessionCreated(session=session):
                self._note_session(session)
                self._configure()
            case wire.SessionUpdated(session=session):
                # After a failure it is too late: the failure may have been reported already.
                if self._configured and self.failure is None:
                    self._accept(session)
            case wire.ConversationCreated(conversation=conversation):
                self._note_conversation(conversation)
                self._configure()
            case wire.ErrorEvent():
                self._receive_early_error(event.info)

    def _configure(self) -> None:
        """Send the configuration, once the provider has sent its first event. Older deployments of xAI send
        only ``conversation.created``."""
        if not self._configured:
            self._configured = True
            self._say([self._update(self._wire_id(self._event_id(wire.ClientEvent)))])

    def _receive_early_error(self, error: wire.ErrorInfo) -> None:
        if (reason := errors.ending(error, self._endings)) is not None:
            self._end_received(reason)
        elif errors.judge(error, None) is Verdict.FATAL:
            self._fail(errors.failure(error))
        else:
            frame = errors.as_frame(error)
            code = codes.UNAVAILABLE if errors.passes(error) else codes.CONFIGURATION_REFUSED
            if self._configured:
                frame = ErrorFrame(code, f"{frame.code}: {frame.message}")
            self._fail(frame, code)

    def _note_session(self, session: wire.Session) -> None:
        self.provider_session = ProviderSession(
            session.id or self.provider_session.id,
            session.model or self.provider_session.model,
            session.expires_at or self.provider_session.expires_at,
            self.provider_session.conversation_id,
        )

    def _note_conversation(self, conversation: wire.Conversation) -> None:
        if conversation.id:
            self.provider_session = self.provider_session._replace(conversation_id=conversation.id)

    def _accept(self, session: wire.Session) -> None:
        self._note_session(session)
        self.input_sample_rate = _rate(session.audio, "input") or self.input_sample_rate
        output_rate = _rate(session.audio, "output") or self.output_sample_rate
        if output_rate != self.output_sample_rate:
            self.output_sample_rate = output_rate
            self.playback.set_rate(output_rate)
        self._accepted = True
        self._timers.stop("ready")
        self._events.append(Ready(self.input_sample_rate, self.output_sample_rate))
        if self._state is not State.OPEN:
            return
        before, verb, after = self._held.take()
        self._append_held(before)
        if verb is not None:
            self._turn_over(verb, self._say)
        self._append_held(after)

    def _receive(self, event: wire.AnyServerEvent) -> None:
        match event:
            case wire.AudioDelta():
                self._receive_audio(event)
            case wire.TextDelta(response_id=response_id, delta=delta):
                if self._is_live(response_id):
                    self._tell(self._assistant.add(part_of(event), delta or ""))
            case wire.TextDone(response_id=response_id, text=text):
                if self._is_live(response_id):
                    self._tell(self._assistant.finish(part_of(event), text))
            case wire.TranscriptDone(response_id=response_id, transcript=text):
                if self._is_live(response_id):
                    self._tell(self._assistant.finish(part_of(event), text))
            case wire.UserDelta() | wire.UserUpdated() | wire.UserCompleted() | wire.UserFailed():
                self._receive_user_text(event)
            case wire.SpeechStarted(item_id=item_id):
                self._speech_started(item_id)
            case wire.SpeechStopped():
                self.turns_heard += not self.responding
                self._speech_over()
            case wire.AudioCommitted(item_id=item_id):
                self._audio_committed(item_id)
            case wire.AudioCleared():
                self._turn.speaking = False
                self._pay()
            case wire.ItemAdded(item=item):
                if item.type == "function_call_output" and item.call_id is not None:
                    self._calls.acknowledged(item.call_id)
                elif asks_for_approval(item):
                    self._approval_asked(item)
            case wire.ErrorEvent():
                self._receive_error(event.info)
            case wire.ConversationCreated(conversation=conversation):
                self._note_conversation(conversation)
            case wire.SessionCreated(session=session) | wire.SessionUpdated(session=session):
                self._note_session(session)
            case _:
                self._receive_of_response(event)

    def _receive_of_response(self, event: wire.AnyServerEvent) -> None:
        match event:
            case wire.ResponseCreated(response=response):
                self._response_created(response)
            case wire.ResponseDone():
                self._response_done(event)
            case wire.OutputItemAdded(response_id=response_id, item=item):
                self._output_item_added(response_id, item)
            case wire.OutputItemDone(response_id=response_id, item=item):
                self._output_item_done(response_id, item)
            case wire.ArgumentsDone():
                self._arguments_done(event)
            case wire.McpInProgress(item_id=item_id):
                self._server_tool(item_id, None, "started")
            case wire.McpCompleted(item_id=item_id):
                self._server_tool(item_id, None, "completed")
            case wire.McpFailed(item_id=item_id):
                self._server_tool(item_id, None, "failed")

    def _receive_error(self, error: wire.ErrorInfo) -> None:
        answers = self._requests.get(error.event_id or "")
        if (reason := errors.ending(error, self._endings)) is not None:
            self._end_received(reason)
            return
        verdict = errors.judge(error, answers, self._corrected)
        if verdict is Verdict.FATAL:
            self._fail(errors.failure(error))
        elif verdict is Verdict.ALREADY_ACTIVE:
            self.stats.benign_errors += 1
            self._request_refused(error)
        elif verdict is Verdict.BENIGN:
            self.stats.benign_errors += 1
            if errors.is_empty_commit(error):
                self._turn.awaiting_commit = False
        else:
            self._tell(errors.as_frame(error))
            if error.event_id is not None and error.event_id == self._gate.asked:
                self._request_came_to_nothing()

    def _request_refused(self, error: wire.ErrorInfo) -> None:
        reason = self._gate.refused(error.event_id, errors.active_response(error))
        if reason is None:
            return
        if reason is Reason.TOOLS or not self._rules.auto:
            self._gate.owe(reason)
        # Of a turn in auto mode nothing is owed: the active response is the provider's own answer to it.
        if self._gate.phase is Phase.ACTIVE and self._gate.response_id is None:
            self._start_timer("response", RESPONSE_TIMEOUT)
        else:
            self._timers.stop("response")
        self._pay()

    def _request_came_to_nothing(self) -> None:
        self._gate.granted()
        if self._gate.phase is Phase.REQUESTED:
            self._gate.unanswered()
            self._timers.stop("response")
            self._pay()

    def _start_session_timers(self) -> None:
        super()._start_session_timers()
        self._start_timer("ready", self._ready_timeout)

    def _timer_expired(self, name: str, late: float) -> None:
        handlers: dict[str, Callable[[], None]] = {
            "ready": self._not_ready,
            "response": self._response_overdue,
            "cancel": self._end_overdue,
            "silence": self._silence_was_not_enough,
            "owed": self._pay,
            "speech": self._speech_waited_for,
        }
        handler = handlers.get(name)
        if handler is None:
            super()._timer_expired(name, late)
        else:
            handler()

    def _end_overdue(self) -> None:
        self._end_response()
        self._pay()

    def _response_overdue(self) -> None:
        if self._gate.phase is Phase.ACTIVE:
            # The one that was in our way never gave its name, so its end may have passed unseen.
            self._end_response()
        else:
            if not self._gate.moot:
                message = "the provider did not begin the response that was asked for; say it again"
                self._tell(ErrorFrame(codes.NO_RESPONSE, message))
            self._gate.unanswered()
        self._pay()


def _rate(audio: Any, direction: str) -> int | None:
    """The sample rate that the provider reports for `direction`, if it is valid."""
    audio_format = wire.dig(audio, dict, direction, "format")
    rate = None if audio_format is None else fit(audio_format, wire.AudioFormat).value.rate
    return rate if rate is not None and 1 < rate <= MAX_SAMPLE_RATE else None
