"""Gemini Live as a dialect.

Gemini's protocol resembles no other: the client first sends one setup, responses have no ids, no event marks
the start of speech, and there are no error messages, since every failure is a close.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Unpack

from msgspec import UNSET

from ...protocol import close_codes
from ...protocol._codec import MalformedMessage, mended
from ...protocol._commands import ExtensionCommand, TextIn, extension_of
from ...protocol._pcm import Buffer
from ...protocol._state import Signal, State
from ...protocol.capabilities import Capabilities
from ...protocol.errors import LONE_SURROGATE, LocalProtocolError, SpekoError
from ...protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Expiring,
    Frame,
    Ready,
    ResponseEnd,
    Role,
    ToolCall,
    Transcript,
    Unknown,
)
from ...protocol.mint import SessionConfig
from .. import codes
from .._closes import Service
from .._held_input import TurnEnd
from .._lenient import text_of
from .._provider import PROVIDER_LIMITS, DialectOptions, ProviderDialect, ProviderSession
from . import _events as wire
from ._assistant import Assistant, GoogleStats
from ._calls import NamedCalls
from ._config import GoogleOptions, configure
from ._families import OUTPUT_SAMPLE_RATE, google_capabilities
from ._gate import Gate
from ._resumption import Carried, Resumption
from ._user import UserTurn
from ._words import UserWords

_DEFAULT_OPTIONS: Final = GoogleOptions()

MAX_PARTS: Final = 1024
"""Parts of one message: honest ones have one or two. Each may become a frame, whose overhead no limit on
bytes covers. Breach: close code 1008."""

_MAX_UNKNOWN: Final = 16
"""The most unknown fields of one message that are reported one by one."""


class GoogleDialect(ProviderDialect):
    """A session with Gemini Live over WebSocket messages.

    - `config`: the session's parameters; its `provider` does not matter.
    - `options`: what only Gemini has.
    - `carried`: what `configure` made of both, where that was done before, since it may take 0.2 seconds; and
      what earlier connections of the session leave to this one.
    - `resumption_handle`: of an earlier session of the same configuration, which this one continues. Close
      its connection first.
    - `ttl`: seconds until the session ends, if known. The provider itself warns about a minute ahead, which
      gives an `Expiring` and `going_away`.

    The remaining parameters are `DialectOptions`. Raises `LocalProtocolError` when the configuration can't
    be used; `notes` lists what the provider can't honour. The session is OPEN from the start: the WebSocket
    is the caller's.

    Audio is PCM16 mono at the *provider's* rates: `input_sample_rate` is the session's own (the provider
    converts), the output 24 kHz, and every `Audio` says its rate. Resample to get others.

    When texts, pictures and requests go to the model: see `_gate.py`.
    """

    _service = Service.GOOGLE
    who = "Gemini"

    def __init__(
        self,
        config: SessionConfig,
        *,
        options: GoogleOptions = _DEFAULT_OPTIONS,
        carried: Carried | None = None,
        resumption_handle: str | None = None,
        ttl: float | None = None,
        **session: Unpack[DialectOptions],
    ) -> None:
        carried = carried or Carried(configure(config, options))
        configuration = carried.configuration
        setup, rules = configuration.setup_message(resumption_handle), configuration.rules
        limits = session.get("limits", PROVIDER_LIMITS)
        size = len(setup.encode())
        if size > limits.max_outbox:
            raise LocalProtocolError(
                f"the configuration has {size} bytes, more than the outbox's limit of {limits.max_outbox}; "
                "shorten the system prompt or the tools"
            )
        # First, since the opening, which may happen in the next call, sends the setup.
        self._setup = setup
        super().__init__(
            input_sample_rate=configuration.input_sample_rate,
            output_sample_rate=OUTPUT_SAMPLE_RATE,
            notes=configuration.notes,
            ttl=ttl,
            **session,
        )
        self.stats: GoogleStats = GoogleStats()
        self._rules = rules
        self._handle = Resumption(resumption_handle)
        self.resuming: bool = self._handle.handle is not None
        self._calls = NamedCalls(limits.max_open_calls)
        self._capabilities = google_capabilities(configuration.model, resumable=configuration.resumable)
        awaits_history = configuration.announces_history and not self.resuming
        self._turn = UserTurn(
            rules,
            configuration.input_sample_rate,
            self._queue_after_history if awaits_history else self.outbox.put_all,
        )
        timers = self._start_timer, self.timers.stop
        self._user = UserWords(self._emit, *timers)
        self._assistant = Assistant(
            self._emit,
            *timers,
            user=self._user,
            handle=self._handle,
            playback=self.playback,
            stats=self.stats,
            transcribed=rules.transcribed,
        )
        self._gate = Gate(
            configuration.family,
            rules,
            carried,
            self._turn,
            self._assistant,
            self._handle,
            awaits_history=awaits_history,
            max_waiting=limits.max_outbox // 2,
            queue=self._queue_after_history,
            queue_context=self.outbox.put_all,
            is_quiet=self._is_quiet,
            cut_in=self._cut_in,
        )
        self._usage: wire.UsageMetadata | None = None
        self._usage_due = False
        self._going_away: float | None = None

    # State

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self._calls.open

    @property
    def held_audio_dropped(self) -> int:
        """Bytes of held audio that exceeded the limit and were dropped, the oldest first."""
        return self._held.dropped + self._turn.lost

    def takes_result(self, call_id: str) -> bool:
        return call_id in self._calls

    @property
    def responding(self) -> bool:
        return self._assistant.responding

    @property
    def idle(self) -> bool:
        """Whether the model neither answers nor waits for a tool."""
        return not self._assistant.progress.stoppable and not self._calls.open

    @property
    def odd_fields(self) -> int:
        return self.stats.odd_fields

    @property
    def at_rest(self) -> bool:
        # The handle lacks the user's words until the model has processed them; an announced turn would begin
        # again.
        return (
            self.idle and self._handle.fresh and not (self._speaking or self._turn.open or self._gate.waiting)
        )

    @property
    def _speaking(self) -> bool:
        """Whether the end of the connection would cut off incomplete words."""
        return self._assistant.speaking or self._user.unsettled

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do, as far as its name tells."""
        return self._capabilities

    @property
    def resumption(self) -> str | None:
        return self._handle.handle if self._may_resume else None

    @property
    def resumption_handle(self) -> str | None:
        """Handle with which a new session can resume this one, for 2 hours; None if there is none."""
        return self._handle.handle

    @property
    def handle_is_fresh(self) -> bool:
        """Whether `resumption_handle` covers the whole conversation.

        It does not while the model answers or waits for a tool.
        """
        return self._handle.fresh

    @property
    def going_away(self) -> float | None:
        """Seconds that the connection had left when the provider announced its end; None if it did not."""
        return self._going_away

    # Verbs

    def send_audio(self, pcm: Buffer) -> None:
        """Queue audio, as in `ClientDialect`, at `input_sample_rate`.

        Before `Ready`, and while a tool call is open where `GoogleOptions.gate_input` says so, it is held, at
        most 10 seconds of it: the oldest is dropped and counted in `held_audio_dropped`. In manual mode the
        first audio of a turn stops the model.
        """
        pcm = self._checked_audio(pcm)
        if not pcm:
            return
        if self._must_hold:
            self._gate.history_open = False
            self._held.add(pcm)
        else:
            self._turn.send(pcm)

    def commit(self) -> None:
        """End the user's turn, which requests an answer. Raises as `send_audio`.

        In manual mode a turn without audio is ignored, and counted in `stats.skipped_commits`. In auto mode
        silence is sent, by which the provider finds the end itself.
        """
        self._end_turn("commit")

    def end_turn(self) -> None:
        """As `commit`."""
        self._end_turn("end_turn")

    def clear(self) -> None:
        """Forget the audio of the turn that is still queued. Raises as `send_audio`.

        Gemini can't forget what it has.
        """
        self._check_open()
        self._held.clear()
        waiting = self.outbox.take_all()
        begin = len(waiting)
        while begin and waiting[begin - 1] not in wire.TURN_ENDS:
            begin -= 1
        for position, message in enumerate(waiting):
            if position >= begin and wire.is_audio(message):
                self._turn.messages -= 1
            else:
                self.outbox.put(message)

    def interrupt(self, *, played_ms: int | None = None) -> None:
        """Stop the response in flight (barge-in). Raises as `send_audio`.

        Does nothing when there is nothing to stop. In auto mode the model goes on, unless
        `GoogleOptions.stop_generating` is on, but its output is muted: the rest of this response is dropped.
        In manual mode a user turn begins, which stays open until the next `commit`.
        `played_ms` is for other providers: Gemini's history keeps what it made, heard or not.
        """
        self._check_open()
        self._gate.silence()
        self._assistant.retract_late_words()
        stoppable = self._assistant.progress.stoppable
        if not self._accepted or not (stoppable or self.playback.unplayed_ms > 0):
            return
        if stoppable:
            if not self._must_hold:
                self._stop_model()
            self._assistant.give_up()
        self._interrupt("assistant")
        self._release_held()
        self._gate.release()

    def send_tool_result(self, call_id: str, output: str) -> None:
        """Answer a call, as in `ClientDialect`; if the provider cancelled it, the result is only counted."""
        self._check_result(call_id, output)
        answer = self._calls.answer_to(call_id)
        if answer is None:
            self.stats.unwanted_results += 1
        else:
            try:
                message = wire.tool_response(
                    answer.wire_id, answer.name, wire.response_of(output), self._rules.scheduling
                )
            except UnicodeEncodeError:
                raise LocalProtocolError(LONE_SURROGATE) from None
            self.outbox.put_all([message])
            self._assistant.retract_late_words()
            self._handle.outdate()
            self._assistant.progress.prompt()
        self._calls.forget(call_id)
        self._release_held()

    def _queue_extension(self, command: ExtensionCommand) -> None:
        self._gate.check_taken(command)
        if not self._must_hold:
            self._gate.accept(command)
            return
        if not isinstance(command, TextIn) or command.respond:
            self._gate.history_open = False
        self._hold(command)

    # Messages out

    @property
    def _must_hold(self) -> bool:
        """Whether to hold the user's input for now."""
        return not self._accepted or (self._rules.gates and bool(self._calls.open))

    def _end_turn(self, verb: TurnEnd) -> None:
        self._check_open()
        if self._must_hold:
            self._gate.history_open = False
            self._held.end_turn(verb)
        else:
            self._send_turn_end()

    def _queue_after_history(self, messages: Sequence[str]) -> None:
        """Queue anything but context, which ends the initial history of the session, if it has one."""
        if self._gate.awaits_history:
            self.outbox.put_all([wire.ASK, *messages])
            self._gate.awaits_history = self._gate.history_open = False
            self._turn.queue = self.outbox.put_all
        else:
            self.outbox.put_all(messages)

    def _is_quiet(self) -> bool:
        """Whether nothing is under way that `clientContent` would cut off."""
        progress = self._assistant.progress
        return not (progress.stoppable or progress.muted_by_provider or self._calls.open)

    def _cut_in(self) -> None:
        """Stop the answer under way, because the user said something in writing."""
        self._assistant.retract_late_words()
        stoppable = self._assistant.progress.stoppable
        if stoppable:
            self._assistant.give_up()
        if stoppable or self.playback.unplayed_ms > 0:
            self._interrupt("user")

    def _send_turn_end(self) -> None:
        if not self._rules.auto and self._rules.interrupts and self._turn.messages:
            # The turn stops the answer anyway, and what was said before must not come after.
            self._gate.send_context()
        if self._turn.end():
            self._assistant.retract_late_words()
            self._assistant.ask(certain=not self._rules.auto)
        else:
            self.stats.skipped_commits += 1

    def _stop_model(self) -> None:
        if not self._rules.auto:
            self._turn.begin()
        elif self._rules.stops:
            self.outbox.put_all([wire.STOP_GENERATING])

    def _release_held(self) -> None:
        """Send the held input, if it need not wait any more."""
        if self._must_hold or self.state is not State.OPEN:
            return
        unfinished = False
        for what in self._held.take():
            if isinstance(what, bytes):
                if unfinished:
                    self._turn.lost += len(what)
                else:
                    self._turn.send_what_fits(what)
            elif isinstance(what, str):
                try:
                    self._send_turn_end()
                except LocalProtocolError:
                    # The audio that follows must not become part of the unfinished turn.
                    unfinished = True
            elif isinstance(what, ExtensionCommand):
                try:
                    self._gate.accept(what)
                except LocalProtocolError as error:
                    # There is no caller to raise to.
                    self._emit(ErrorFrame(codes.REFUSED[extension_of(what)], str(error)))

    # Messages in

    def _receive_text(self, text: str) -> None:
        self._receive_binary(text)

    def _receive_binary(self, data: bytes | str) -> Frame | None:
        try:
            message = wire.decode(data if isinstance(data, str) else data.decode())
        except wire.NOT_AS_DOCUMENTED:
            odd = self._decode_leniently(data)
            if odd is None:
                return None
            message = odd
        # Any number of these fields may be present.
        if message.setup_complete is not UNSET:
            self._accept(message.setup_complete)
        if message.session_resumption_update is not None:
            if self._handle.receive(message.session_resumption_update):
                self._gate.handle_is_fresh()
            else:
                self._assistant.progress.prompt()
        if message.go_away is not None:
            self._receive_going_away(message.go_away)
        content, calls = message.server_content, message.tool_call
        if not self._accepted:
            self.stats.early_messages += content is not None or calls is not None
            return None
        if content is not None:
            self._receive_content(content)
        if message.voice_activity is not None or message.voice_activity_detection_signal is not None:
            self._assistant.retract_late_words()
            self._assistant.progress.prompt()
        if message.tool_call_cancellation is not None:
            self._cancel_calls(message.tool_call_cancellation.ids or ())
        if message.usage_metadata is not None:
            self._usage = message.usage_metadata
        if calls is not None:
            # For billing, a response also ends when it calls a tool.
            self._usage_due = True
            self._emit_usage()
            for call in calls.function_calls or ():
                self._issue_call(call)
        cut = self._assistant.progress.cut
        over = False
        if content is not None and (
            content.turn_complete or content.waiting_for_input or content.interaction_status
        ):
            over = self._assistant.receive_end(
                turn=content.turn_complete,
                status=content.interaction_status,
                waits=content.waiting_for_input,
            )
        if message.interaction_status:
            # Some servers send it beside the content instead of inside it.
            over |= self._assistant.receive_end(turn=False, status=message.interaction_status, waits=False)
        self._usage_due = self._usage_due or over
        if self._usage is not None and (
            over or not self._assistant.progress.begun or (self._usage_due and self._calls.open)
        ):
            self._emit_usage()
        if over:
            self._assistant.end(cut=cut)
        if self._gate.waiting and self.state is State.OPEN:
            self._gate.release()
        return None

    def _decode_leniently(self, data: bytes | str) -> wire.ServerMessage | None:
        """Decode a message that is not as documented; None if it ends the session."""
        try:
            message, odd, unknown = wire.decode_leniently(data)
        except MalformedMessage as error:
            self.violated(
                close_codes.INVALID_DATA, f"the provider sent a message that is not of its protocol: {error}"
            )
            return None
        self.stats.odd_fields += len(odd)
        self.stats.unknown_fields += len(unknown)
        if names := [name for name in unknown if "." not in name][:_MAX_UNKNOWN]:
            raw = mended(data if isinstance(data, str) else text_of(data))
            self._emit_all(Unknown(name, raw) for name in names)
        return message

    def _receive_content(self, content: wire.ServerContent) -> None:
        """Apply all of the content, except the end of the turn."""
        assistant = self._assistant
        if content.input_transcription is not None:
            self._hear_user(content.input_transcription)
            self._user.receive(content.input_transcription, in_turn=self._in_turn)
        if content.interim_input_transcription is not None:
            self._hear_user(content.interim_input_transcription)
            self._user.receive_interim(content.interim_input_transcription, in_turn=self._in_turn)
        if content.interrupted:
            self._gate.user_cut_in()
            if assistant.cut_in():
                self._interrupt("user", calls_given_up=True)
                self._release_held()
            assistant.progress.await_rest()
        if content.model_turn is not None:
            parts = content.model_turn.parts or ()
            if len(parts) > MAX_PARTS:
                self._break(close_codes.POLICY, f"the provider sent a message of more than {MAX_PARTS} parts")
                return
            for part in parts:
                assistant.progress.heard_from = True
                if part.thought:  # thoughts, not meant for the user
                    continue
                if part.inline_data is not None:
                    audio = assistant.receive_audio(part.inline_data)
                    if audio is not None and self.state is not State.CLOSED:
                        self.output_sample_rate: int = audio.sample_rate
                        self.events.append(audio)
                if part.text:
                    assistant.receive_text(part.text)
        if content.output_transcription is not None:
            assistant.receive_words(content.output_transcription)
        if content.grounding_metadata:
            assistant.receive_server_tool("google_search")
        if content.url_context_metadata:
            assistant.receive_server_tool("url_context")
        # The model generates more once the tools have answered.
        if content.generation_complete and not self._calls.open:
            assistant.receive_generated()
        if content.usage_metadata is not None:
            self._usage = content.usage_metadata
        for reason in (content.turn_complete_reason, content.finish_reason):
            if reason:
                assistant.receive_reason(reason)

    def _hear_user(self, words: wire.Transcription) -> None:
        if words.text.strip():
            self._assistant.hear_user()

    @property
    def _in_turn(self) -> bool:
        """Whether the user's words may belong to a turn that is open or unanswered (manual mode)."""
        return self._turn.open or self._assistant.progress.awaited

    def _accept(self, setup: wire.SetupComplete | None) -> None:
        self.stats.odd_fields += setup is None
        if self._accepted:
            self.stats.repeated_events += 1
            return
        if self.failure is not None:
            return  # too late: the failure may have been reported already
        self._accepted = True
        self.timers.stop("ready")
        self.provider_session: ProviderSession = ProviderSession(id=(setup and setup.session_id) or None)
        self._emit(Ready(self.input_sample_rate, self.output_sample_rate))
        if self.state is State.OPEN:
            self._gate.repeat()
        self._release_held()

    def _receive_going_away(self, go_away: wire.GoAway) -> None:
        first = self._going_away is None
        # Without a time, treat the connection as ending now.
        self._going_away = go_away.seconds_left or 0.0
        self._leaving = True
        if first:
            self._emit(Expiring(self._going_away))

    def _interrupt(self, at: Role, *, calls_given_up: bool = False) -> None:
        """Cut the assistant off: its queued audio must not be heard.

        `calls_given_up`: the provider has given up its calls. It may not know of a local interruption, and
        then still waits for their results.
        """
        self._replace_events(frame for frame in self.events if type(frame) is not Audio)
        if calls_given_up:
            self._withdraw(frame.call_id for frame in self.events if type(frame) is ToolCall)
        self._calls.abandon_open()
        self._assistant.interrupt(at)

    # Tools and usage

    def _issue_call(self, call: wire.FunctionCall) -> None:
        if self.state is State.CLOSED:
            return
        if call.id and self._calls.is_open(call.id):
            self.stats.repeated_events += 1
        elif self._calls.full:
            self._too_many_calls()
        else:
            self._assistant.receive_call()
            call_id = self._calls.issue(call.id, call.name)
            self._emit(ToolCall(call_id, call.name, call.arguments))

    def _cancel_calls(self, ids: Sequence[str]) -> None:
        cancelled = [call_id for name in ids if (call_id := self._calls.cancel(name)) is not None]
        # The user spoke while the model waited for results; there may be no other sign of it.
        self._assistant.progress.cut |= bool(cancelled)
        self._withdraw(cancelled)
        self._release_held()

    def _withdraw(self, call_ids: Iterable[str]) -> None:
        """Drop those of these calls that are still queued: their results are no longer needed."""
        unwanted = set(call_ids)
        queued = {frame.call_id for frame in self.events if type(frame) is ToolCall} & unwanted
        if queued:
            self._replace_events(
                frame for frame in self.events if type(frame) is not ToolCall or frame.call_id not in queued
            )
        for call_id in queued:
            self._calls.forget(call_id)

    def _emit_usage(self) -> None:
        usage, self._usage = self._usage, None
        if usage is None:
            return
        if self._usage_due:
            self._usage_due = False
            self._emit(usage.usage())
        else:
            self.stats.repeated_events += 1

    # Time, the end

    def _start_session_timers(self) -> None:
        super()._start_session_timers()
        # This runs at the opening, where the client has to speak first.
        self.outbox.put(self._setup)

    def run_timer(self, name: str, late: float) -> None:
        match name:
            case "mute":
                self._assistant.unmute()
            case "words":
                self._user.finish()
            case "late":
                self._assistant.end_late_words()
            case "stalled":
                self._assistant.check_stalled(calls_open=bool(self._calls.open))
            case "settled":
                self._user.settle()
            case _:
                super().run_timer(name, late)
        if self.state is State.OPEN:
            self._gate.release()

    def _take_open_texts(self) -> list[Transcript]:
        texts = self._user.take(), self._assistant.take_words()
        return [text for text in texts if text is not None]

    def _open_response_end(self, wanted: bool) -> ResponseEnd | None:
        return self._assistant.take_open(wanted=wanted)

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        """As in `ProviderDialect`; words of the user that have settled are not cut short."""
        cut_short = self._speaking
        self._assistant.reason = close.reason
        super()._finish(signal, close, error)
        self.cut_short = cut_short
