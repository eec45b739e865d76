"""The OpenAI Realtime protocol as a dialect; other providers' differences from it are data (`Flavor`).

The frames are those of a Speko session: `Ready` once the provider accepted the configuration, audio at the
*provider's* rates (`input_sample_rate`, `output_sample_rate`; resample for others), transcripts, tool calls,
interruptions, usage, errors, and one `Close`.

The dialect decodes events, hands them to the parts that own the state (`user`, `assistant`, `calls`,
`settings` and `gate`), sends the messages and queues the frames that result. The parts know neither the
dialect nor each other.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Unpack, assert_never

import msgspec
from msgspec import UNSET, UnsetType

from ...protocol import close_codes
from ...protocol._codec import MalformedMessage
from ...protocol._commands import (
    ExtensionCommand,
    ImageIn,
    Respond,
    Say,
    TextIn,
    Update,
)
from ...protocol._outbox import payload_size
from ...protocol._pcm import Buffer, is_sample_rate
from ...protocol._state import Signal, State
from ...protocol.capabilities import Capabilities
from ...protocol.errors import LONE_SURROGATE, LocalProtocolError, SpekoError
from ...protocol.frames import (
    DIGITS,
    Audio,
    Close,
    Digit,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    Role,
    ToolCall,
    Transcript,
    Unknown,
)
from .. import codes
from .._closes import Service
from .._held_input import Held, TurnEnd
from .._lenient import fit, text_of
from .._options import limited
from .._provider import SAY_EXACTLY, DialectOptions, ProviderDialect, ProviderSession
from . import _errors as errors
from . import _events as wire
from ._assistant import Assistant, end_of
from ._call_line import CallLine, no_audio
from ._calls import Call, ServerTools, ToolCalls, asks_for_approval, is_server_tool
from ._errors import ErrorKind
from ._gate import IN_FLIGHT, Phase, Reason, ResponseGate, Wanted
from ._settings import Configuration, Settings
from ._transcripts import part_of
from ._user import Put, User, UserWords

_IMAGES: Final = ("image/png", "image/jpeg")
"""The types of images that OpenAI documents."""


class RealtimeStats(msgspec.Struct):
    """Counts of events that produced no frame of their own."""

    unknown_events: int = 0
    """Events of a type this version does not know; each also gave an `Unknown`."""
    odd_fields: int = 0
    """Fields with another type than documented, which were mended or left out; see `lenient`."""
    benign_errors: int = 0
    """Errors that are the harmless end of a race."""
    late_events: int = 0
    """Events of a response that was over or cut off."""
    repeated_events: int = 0
    """Beginnings, ends and calls that were reported before."""
    skipped_commits: int = 0
    """Turns that ended with less audio than can be committed."""


class Flavor(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider speaks this protocol."""

    service: Service
    """The service whose closes are judged."""
    words: type[UserWords] = UserWords
    """Makes the keeper of the user's transcripts."""
    metadata_key: str | None
    """Key of the event id in a request's metadata; None: requests have no metadata. See `ResponseGate`."""
    names_things: bool
    """Whether our messages carry an ``event_id``, which errors then name, and cancel a response by its id."""
    early_commits: bool
    """Whether a commit is understood where the provider detects turns."""
    complete_arguments: bool
    """Whether complete arguments mean a complete call. OpenAI sends them for interrupted calls, too."""
    endings: Mapping[str, str]
    """The errors that announce a close, by code or type, and its reason."""


class RealtimeDialect(ProviderDialect):
    """A session over WebSocket messages; `OpenAIDialect` and `XAIDialect` make one.

    - `flavor`: the provider's peculiarities.
    - `configuration`: the session's parameters and options, converted.
    - `resumable`: whether another session can resume the conversation.

    The remaining parameters are those of `ProviderDialect`. Raises `LocalProtocolError` if the configuration
    can't be sent.
    """

    def __init__(
        self,
        *,
        flavor: Flavor,
        configuration: Configuration,
        input_sample_rate: int,
        output_sample_rate: int,
        ttl: float | None,
        resumable: bool = False,
        **options: Unpack[DialectOptions],
    ) -> None:
        try:
            settings = Settings(configuration)
            wire.encode(wire.UpdateSession(session=settings.peek()))
        except (UnicodeEncodeError, TypeError) as error:
            raise LocalProtocolError(
                f"the configuration can't be written as JSON: {error}; pass text and plain data"
            ) from None
        super().__init__(
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            notes=configuration.notes,
            ttl=ttl,
            **options,
        )
        timers = self._start_timer, self.timers.stop
        reported = configuration.line_rules
        self._line = None if reported is None else CallLine(self.playback, reported)
        self.stats: RealtimeStats = RealtimeStats()
        self._flavor = flavor
        self._service = flavor.service
        self._resumable = resumable
        self._settings = settings
        self.who: str = configuration.who
        self._binary_audio = configuration.binary_audio
        self._approval_tool = configuration.approval_tool
        self._ids = wire.EventIds(on_wire=flavor.names_things)
        self._gate = ResponseGate(*timers, auto=settings.rules.auto, metadata_key=flavor.metadata_key)
        self._user = User(
            settings.rules,
            flavor.words(),
            self._ids,
            *timers,
            sample_rate=input_sample_rate,
            early_commits=flavor.early_commits,
            on_line=self._line is not None,
        )
        self._assistant = Assistant(self.playback, output_sample_rate)
        self._calls = ToolCalls(self.limits.max_open_calls)
        self._server_tools = ServerTools()
        self._unconfirmed_texts = 0  # texts and images that the provider has not confirmed yet
        if self.state is State.OPEN:
            self._join_line()

    # State

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self._calls.open

    @property
    def capabilities(self) -> Capabilities:
        return self._settings.capabilities

    def takes_result(self, call_id: str) -> bool:
        return call_id in self._calls

    @property
    def responding(self) -> bool:
        return self._gate.phase in IN_FLIGHT

    @property
    def odd_fields(self) -> int:
        return self.stats.odd_fields

    @property
    def at_rest(self) -> bool:
        return self._may_request and self._gate.deferred is None and not self._calls.open

    @property
    def resumption(self) -> str | None:
        # A session that ended because nobody spoke has nothing to resume.
        over = not self._may_resume or self._ending.peer_reason == codes.IDLE_TIMEOUT
        return self.provider_session.conversation_id if self._resumable and not over else None

    def _take_open_texts(self) -> list[Transcript]:
        return [*self._user.words.finish_all(), *self._assistant.words.finish_all()]

    def _open_response_end(self, wanted: bool) -> ResponseEnd | None:
        if not self._gate.in_flight or not self._assistant.seen:
            return None
        self._assistant.seen = False
        return ResponseEnd("interrupted" if wanted or self._gate.phase is Phase.CANCELLING else "failed")

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        self.events.extend(self._assistant.take_unreported())
        super()._finish(signal, close, error)

    # Verbs

    def send_audio(self, pcm: Buffer) -> None:
        """Queue audio as `ClientDialect` says, at `input_sample_rate`.

        Before `Ready` it is held, at most 10 seconds of it: the oldest is dropped and counted in
        `held_audio_dropped`. `LocalProtocolError` in a session that joins a phone call.
        """
        pcm = self._checked_audio(pcm)
        if self._line is not None:
            raise no_audio()
        if not pcm:
            return
        if self._accepted:
            self._user.append(pcm, self._queue)
        else:
            self._held.add(pcm)

    def commit(self) -> None:
        """End the user's turn, which requests an answer. Raises as `send_audio`.

        In manual mode, a turn of less than 100 ms of audio is ignored, and counted in
        `stats.skipped_commits`.
        """
        self._end_turn("commit")

    def end_turn(self) -> None:
        """Act like `commit` in manual mode; otherwise let the provider's turn detection find the end."""
        self._end_turn("end_turn")

    def clear(self) -> None:
        self._check_open()
        if self._accepted:
            self._user.clear(self._queue)
        else:
            self._held.clear()

    def interrupt(self, *, played_ms: int | None = None) -> None:
        """Stop the response in flight (barge-in), and tell the provider how much of it was heard.

        `played_ms`: milliseconds that were heard of the item being played, if the caller knows better than
        the estimate of `playback`. Raises as `send_audio`. Does nothing when there is nothing to stop.
        """
        self._check_open()
        if not self._accepted:
            return
        if self._can_stop:
            self._queue(self._stopping(played_ms))
            self._stopped("assistant")
        self._gate.drop_all_but_tools()

    @property
    def _can_stop(self) -> bool:
        """Whether a response is requested, in flight or unplayed."""
        gate = self._gate
        requested = gate.phase is Phase.REQUESTED and not gate.unwanted
        return requested or gate.phase is Phase.ACTIVE or self._plays

    @property
    def _plays(self) -> bool:
        """Whether audio of the assistant is still being played."""
        return self.playback.unplayed_ms > 0 if self._line is None else self._line.playing

    def _stopping(self, played_ms: int | None = None) -> list[wire.ClientEvent]:
        """Make the messages that stop the response."""
        cancel = [self._cancel()] if self._gate.phase is Phase.ACTIVE else []
        if self._line is not None:
            return [*cancel, *self._line.stop(self._ids)]
        return [*cancel, *self._corrections(played_ms)]

    def _stopped(self, at: Role) -> None:
        """Note that those messages were queued."""
        self._gate.unwanted = self._gate.unwanted or self._gate.phase is Phase.REQUESTED
        self._interrupted(at)

    def send_tool_result(self, call_id: str, output: str) -> None:
        self._check_result(call_id, output)
        provider_id = self._calls.provider_id(call_id)
        item: wire.FunctionCallOutput | wire.ApprovalResponse = wire.FunctionCallOutput(provider_id, output)
        if self._calls.asks_for_approval(call_id):
            item = self._decision(provider_id, output)
        result = self._ids.make(wire.CreateItem, item=item)
        if self._calls.completes(call_id):
            self._queue_and_request([result], Reason.TOOLS, self._queue, lambda: self._calls.answer(call_id))
        else:
            self._queue([result])
            self._calls.answer(call_id)

    def _queue_extension(self, command: ExtensionCommand) -> None:
        """Act on a text, an image, `respond`, `say` or an update, or hold it in its place until `Ready`.

        `ResponseGate` says what waits for what. If the provider refuses an update that was possible, there is
        an `ErrorFrame` with `codes.REFUSED["update"]`. Nothing happens if this raises.
        """
        if isinstance(command, ImageIn) and command.mime_type not in _IMAGES:
            raise LocalProtocolError(f"{self.who} takes PNG and JPEG images only; convert this one")
        if not self._accepted:
            if isinstance(command, Update):
                self._settings.convert(command, has_spoken=False)
            self._hold(command)
            return
        if isinstance(command, Say | Respond):
            self._gate.check_prompts()
        self._act(command, self._queue)

    def _act(self, command: ExtensionCommand, put: Put) -> None:
        match command:
            case TextIn(text=text, role=role, respond=respond):
                content = wire.OutputText(text) if role == "assistant" else wire.InputText(text)
                self._add_message(role, content, put, respond=respond)
            case ImageIn(mime_type=mime_type, data=data, respond=respond):
                url = f"data:{mime_type};base64,{base64.b64encode(data).decode()}"
                self._add_message("user", wire.InputImage(url), put, respond=respond)
            case Respond(instructions=""):
                self._queue_and_request([], Reason.TURN, put, _nothing)
            case Respond(instructions=instructions):
                self._prompt(Wanted(Reason.RESPOND, instructions), put)
            case Say(text=text):
                self._prompt(Wanted(Reason.SAY, text), put)
            case Update():
                self._change(command, put)
            case _:
                assert_never(command)

    def _add_message(
        self,
        role: str,
        content: wire.Content,
        put: Put,
        *,
        respond: bool,
    ) -> None:
        """Add an item to the conversation; `respond`: it is answered, and the user's own cuts in for that."""
        counts = role != "assistant"  # confirmations tell only of those
        event_id = self._ids.next(wire.Message if counts else wire.CreateItem)
        item = wire.CreateItem(event_id=self._ids.on_wire(event_id), item=wire.Message(role, (content,)))
        cuts_in = respond and role == "user" and self._can_stop
        messages = [*(self._stopping() if cuts_in else ()), item]

        def queued() -> None:
            self._unconfirmed_texts += counts
            if cuts_in:
                self._stopped("user")

        if respond:
            self._queue_and_request(messages, Reason.TEXT, put, queued)
        else:
            put(messages)
            queued()

    def _text_settled(self) -> None:
        self._unconfirmed_texts = max(0, self._unconfirmed_texts - 1)

    def _prompt(self, wanted: Wanted, put: Put) -> None:
        """Request a response of its own, now if that is allowed, else later."""
        gate = self._gate
        event_id, request = self._create_response(wanted)
        if self._may_request and not gate.waiting and not gate.must_wait_for_answer(wanted.reason):
            put([request])
            self._requested(event_id, wanted)
        else:
            gate.defer_prompt(wanted)
            self._request_deferred()

    def _change(self, update: Update, put: Put) -> None:
        settings = self._settings
        change = settings.convert(update, has_spoken=self._assistant.has_spoken)
        event_id = self._ids.next(wire.UpdateSession)
        put([wire.UpdateSession(event_id=self._ids.on_wire(event_id), session=change.session)])
        settings.changed(event_id, update, change)
        self.notes: tuple[str, ...] = limited(tuple(dict.fromkeys((*self.notes, *change.notes))))
        self._follow_rules()

    def _follow_rules(self) -> None:
        """Act by the rules of turns that hold now."""
        rules = self._settings.rules
        self._user.follow(rules)
        self._gate.auto = rules.auto
        # What waited for the end of the user's speech waits no more if nobody will report that.
        self._request_deferred()

    def _end_turn(self, verb: TurnEnd) -> None:
        self._check_open()
        if self._accepted:
            self._turn_over(verb, self._queue)
        else:
            self._held.end_turn(verb)

    def _turn_over(self, verb: TurnEnd, put: Put) -> None:
        user = self._user
        if user.rules.auto:
            user.end_turn(verb, put)
        elif user.may_commit:
            commit = self._ids.make(wire.CommitAudio)
            self._queue_and_request([commit], Reason.TURN, put, user.all_committed)
        else:
            self.stats.skipped_commits += 1

    # Requests for responses

    @property
    def _may_request(self) -> bool:
        """Whether a response may be requested now: none is in flight, and the user is not speaking."""
        return self._gate.idle and not self._user.speaking

    def _create_response(self, wanted: Wanted) -> tuple[str, wire.ClientEvent]:
        """Make a request for a response; return its event id, which it need not carry, and the request."""
        instructions: str | UnsetType = UNSET
        tool_choice: Literal["none"] | UnsetType = UNSET
        match wanted:
            case Wanted(Reason.SAY, text) if self.capabilities.say == "verbatim":
                event_id = self._ids.next(wire.CreateItem)
                item = wire.ForcedMessage((wire.OutputText(text),))
                return event_id, wire.CreateItem(event_id=self._ids.on_wire(event_id), item=item)
            case Wanted(Reason.SAY, text):
                instructions, tool_choice = SAY_EXACTLY + text, "none"
            case Wanted(Reason.RESPOND, text):
                instructions = self._settings.prompt(text)
        event_id = self._ids.next(wire.CreateResponse)
        # The response repeats the metadata, which tells ours from those of the turn detection.
        key = self._flavor.metadata_key
        metadata = UNSET if key is None else {key: event_id}
        params = wire.ResponseParams(metadata, instructions, tool_choice)
        return event_id, wire.CreateResponse(
            event_id=self._ids.on_wire(event_id), response=UNSET if params == _NO_PARAMS else params
        )

    def _queue_and_request(
        self, events: Sequence[wire.ClientEvent], reason: Reason, put: Put, queued: Callable[[], None]
    ) -> None:
        """Queue messages, and request the response to them, now if that is allowed, else later.

        `queued` is called once the messages are queued. Nothing happens if `put` raises.
        """
        if self._may_request:
            wanted = Wanted(reason)
            event_id, request = self._create_response(wanted)
            put([*events, request])
            queued()
            self._requested(event_id, wanted)
        else:
            put(events)
            queued()
            self._gate.defer(reason)
            self._request_deferred()

    def _requested(self, event_id: str, wanted: Wanted) -> None:
        self._gate.requested(event_id, *wanted)
        self._calls.forget_acknowledgements()

    def _request_deferred(self) -> None:
        """Request the deferred response, if there is one and it may be requested."""
        gate = self._gate
        if not gate.waiting or self.state is not State.OPEN or not gate.idle:
            return
        if self._user.speaking:
            self._user.wait_for_speech_end()
            return
        wanted = gate.waiting[0]
        if gate.must_wait_for_answer(wanted.reason):
            return
        event_id, request = self._create_response(wanted)
        self._send([request])
        self._requested(event_id, wanted)

    def _cancel(self) -> wire.ClientEvent:
        """Make the message that cancels the active response."""
        response_id = self._gate.response_id
        if response_id is None or not self._flavor.names_things:
            return self._ids.make(wire.CancelResponse)
        return self._ids.make(wire.CancelResponse, response_id=response_id)

    # Events in

    def _receive_binary(self, data: bytes) -> Frame | None:
        if self._binary_audio and self._accepted:
            self._receive_audio(data)
        # Some servers send JSON in binary messages.
        elif len(data) > self.limits.max_text_size:
            self.too_big("binary", self.limits.max_text_size)
        else:
            self._receive_text(text_of(data), kind="binary")
        return None

    def _receive_audio(self, pcm: bytes) -> None:
        """Receive audio that does not say to what it belongs: the response in flight, and its latest item."""
        if self._gate.phase is not Phase.ACTIVE:
            self.stats.late_events += 1
        elif self._is_live(None):
            delta = wire.AudioDelta(item_id=self._assistant.item_id, delta=pcm)
            self._emit(self._assistant.audio(delta))

    def _receive_text(self, text: str, *, kind: str = "text") -> None:
        try:
            event: wire.AnyServerEvent | None = wire.decode(text)
        except wire.NOT_STRICT:
            event = self._decode_leniently(text, kind)
        if event is None:
            return
        if not self._accepted:
            self._receive_early(event)
            return
        match event:
            case wire.AudioDelta():
                if (
                    self._is_live(event.response_id)
                    and self._line is None
                    and (audio := self._assistant.audio(event)) is not None
                ):
                    self.events.append(audio)
            case wire.TextDelta():
                if self._is_live(event.response_id):
                    self._emit_all(self._assistant.words.add(part_of(event), event.delta or ""))
            case wire.TextDone():
                if self._is_live(event.response_id):
                    self._emit_all(self._assistant.words.finish(part_of(event), event.text))
            case wire.TranscriptDone():
                if self._is_live(event.response_id):
                    self._emit_all(self._assistant.words.finish(part_of(event), event.transcript))
            case wire.UserDelta() | wire.UserUpdated() | wire.UserCompleted() | wire.UserFailed():
                if isinstance(event, wire.UserCompleted):
                    self._assistant.count_seconds(event.usage)
                self._emit_all(self._user.words.receive(event))
            case wire.SpeechStarted(item_id=item_id):
                self._speech_started(item_id)
            case wire.SpeechStopped():
                self.turns_heard += not self.responding
                self._speech_over()
            case wire.AudioCommitted(item_id=item_id):
                self._audio_committed(item_id)
            case wire.AudioCleared():
                self._user.speaking = False
                self._request_deferred()
            case wire.KeyPressed(event=key):
                key = (key or "").upper()
                self._emit(
                    Digit(key) if key in DIGITS else Unknown("input_audio_buffer.dtmf_event_received", text)
                )
            case wire.LineStarted() | wire.LineStopped() | wire.LineCleared():
                if self._line is not None:
                    self._line_reports(self._line, event)
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
                self._emit_all(self._server_tools.update(item_id, None, "started"))
            case wire.McpCompleted(item_id=item_id):
                self._emit_all(self._server_tools.update(item_id, None, "completed"))
            case wire.McpFailed(item_id=item_id):
                self._emit_all(self._server_tools.update(item_id, None, "failed"))
            case wire.ItemAdded():
                if wire.is_text(event.item):
                    self._text_settled()
                elif event.item.type == "function_call_output" and event.item.call_id is not None:
                    self._calls.acknowledged(event.item.call_id)
                elif asks_for_approval(event.item):
                    self._approval_begins(event.item)
            case wire.ErrorEvent():
                self._receive_error(event.info)
            case wire.ConversationCreated(conversation=conversation):
                self._note_conversation(conversation)
            case wire.SessionCreated(session=session) | wire.SessionUpdated(session=session):
                self._settings.accepted()
                self._note_session(session)
            case _:
                assert_never(event)

    def _decode_leniently(self, text: str, kind: str) -> wire.AnyServerEvent | None:
        """Decode a message that strict decoding rejects; return None if the event can be ignored."""
        try:
            event, odd = wire.decode_leniently(text)
        except MalformedMessage as error:
            self.violated(
                close_codes.INVALID_DATA,
                f"the provider sent a {kind} message that is not of its protocol: {error}",
            )
            return None
        self.stats.odd_fields += len(odd)
        if isinstance(event, Unknown):
            self.stats.unknown_events += 1
            self.events.append(event)
            return None
        return event

    # The configuration

    def _receive_early(self, event: wire.AnyServerEvent) -> None:
        """Receive an event from before the configuration is accepted.

        Conversation events are ignored then: xAI replays an earlier conversation, and the provider may have
        acted on its defaults.
        """
        match event:
            case wire.SessionCreated(session=session):
                self._note_session(session)
                self._configure()
            case wire.SessionUpdated(session=session):
                # Too late after a failure, which may have been reported already.
                if self._settings.sent and self.failure is None:
                    self._accept(session)
            case wire.ConversationCreated(conversation=conversation):
                # Older deployments of xAI begin with this event alone.
                self._note_conversation(conversation)
                self._configure()
            case wire.ErrorEvent():
                self._receive_early_error(event.info)

    def _configure(self) -> None:
        """Send the configuration, once the provider has sent its first event."""
        session = self._settings.take()
        if session is not None:
            self._send([self._ids.make(wire.UpdateSession, session=session)])

    def _receive_early_error(self, error: wire.ErrorInfo) -> None:
        if (reason := errors.ending(error, self._flavor.endings)) is not None:
            self._end_received(reason)
        elif errors.judge(error, None) is ErrorKind.FATAL:
            self._fail(errors.failure(error))
        else:
            frame = errors.as_frame(error)
            code = codes.UNAVAILABLE if errors.passes(error) else codes.CONFIGURATION_REFUSED
            if self._settings.sent:
                frame = ErrorFrame(code, f"{frame.code}: {frame.message}")
            self._fail(frame, code)

    def _note_session(self, session: wire.Session) -> None:
        self.provider_session: ProviderSession = ProviderSession(
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
        if self._line is not None:
            self._settings.adopt(session.instructions, self._line.reported_rules(session.audio))
            self._user.rules = self._settings.rules
            self._gate.auto = self._user.rules.auto
        self.input_sample_rate: int = _rate(session.audio, "input") or self.input_sample_rate
        self._user.sample_rate = self.input_sample_rate
        output_rate = _rate(session.audio, "output") or self.output_sample_rate
        if output_rate != self.output_sample_rate:
            self.output_sample_rate = self._assistant.sample_rate = output_rate
            self.playback.set_rate(output_rate)
        self._accepted = True
        self.timers.stop("ready")
        self.events.append(Ready(self.input_sample_rate, self.output_sample_rate))
        if self.state is not State.OPEN:
            return
        for held in self._held.take():
            self._act_on_held(held)

    def _act_on_held(self, held: Held) -> None:
        match held:
            case bytes():
                self._user.append(held, self._send)
            case str():
                self._turn_over(held, self._send)
            case TextIn() | ImageIn() | Respond() | Say() | Update():
                self._act(held, self._send)

    # A phone line

    def _join_line(self) -> None:
        """Configure a session that joins a call, where the provider need not speak first."""
        if self._line is not None:
            self._configure()

    def opened(self) -> None:
        super().opened()
        self._join_line()

    def _line_reports(
        self, line: CallLine, event: wire.LineStarted | wire.LineStopped | wire.LineCleared
    ) -> None:
        match event:
            case wire.LineStarted():
                line.started(self._assistant.item_id)
            case wire.LineStopped():
                line.stopped()
            case wire.LineCleared():
                if line.playing:
                    self._interrupted("user")
            case _:
                assert_never(event)

    # The user

    def _speech_started(self, item_id: str | None) -> None:
        user, gate = self._user, self._gate
        self._emit_all(user.words.speech_started(item_id))
        user.speech_started()
        self.timers.stop("deferred")
        self._request_deferred()
        if not (self._settings.detects_turns and user.rules.interrupts):
            return
        gate.user_speaks()
        if gate.phase is Phase.REQUESTED:
            gate.unwanted = True
        if gate.phase is Phase.ACTIVE or self._plays:
            self._send(self._corrections())
            self._interrupted("user")

    def _speech_over(self) -> None:
        self._user.speech_stopped()
        if not self._user.rules.creates:
            self._request_deferred()
        else:
            self._gate.expect_answer()

    def _audio_committed(self, item_id: str | None) -> None:
        self._emit_all(self._user.words.committed(item_id))
        if self._user.committed():
            self._gate.defer(Reason.TURN)
            self._user.speech_stopped()
            self._request_deferred()
        else:
            self._speech_over()

    def _speech_waited_for(self) -> None:
        """Act when a response has waited for some time for the end of the user's speech."""
        if self._user.speaking:
            if not self._user.still_speaks(self._send):
                self._speech_over()
            self._request_deferred()

    # The assistant

    def _is_live(self, response_id: str | None) -> bool:
        """Whether output of that response counts. The first event of a response is its beginning."""
        gate = self._gate
        if response_id and response_id != gate.response_id:
            if gate.has_ended(response_id):
                self.stats.late_events += 1
                return False
            if gate.in_flight and gate.response_id is None:
                self._name_response(response_id)
            else:
                self._begin_response(response_id, None)
        self._assistant.seen = True
        if gate.phase is Phase.CANCELLING:
            self.stats.late_events += 1
            return False
        self._assistant.spoke = True
        words = self._user.words
        if words.awaits_assistant:
            self._emit_all(words.assistant_speaks(user_speaking=self._user.speaking))
        return True

    def _response_created(self, response: wire.Response) -> None:
        name = response.id or ""
        gate, assistant = self._gate, self._assistant
        same = bool(name) and name == gate.response_id
        # A response that begins again after it was cut off, had output or ended is a new one with the same
        # id, unless it answers a request of ours that was answered before.
        anew = assistant.announced and (gate.phase is Phase.CANCELLING or assistant.spoke)
        known = same or gate.has_ended(name)
        if (same and not anew) or (known and gate.repeats_request(response.metadata)):
            self.stats.repeated_events += 1
        else:
            self._begin_response(name, response.metadata)
        assistant.seen = assistant.announced = True

    def _begin_response(self, response_id: str, metadata: Any, *, over: bool = False) -> None:
        """Begin a response at the first event of it; `over`: the first event seen was its end."""
        gate = self._gate
        if gate.phase is Phase.ACTIVE and gate.response_id is None and response_id:
            self._name_response(response_id)
            return
        if gate.in_flight:
            # Only one runs at a time, so the previous one has ended, silently (xAI) or unseen.
            self._end_response()
        requested, unwanted = gate.begin(response_id, metadata, user_speaking=self._user.speaking)
        if not requested:
            # The provider answers by itself; what it knows by now needs no answer of its own.
            gate.drop_answers(
                knows_texts=not self._unconfirmed_texts, knows_tools=self._calls.all_acknowledged
            )
        self._calls.response_begins(response_id)
        self._server_tools.response_begins(response_id)
        self._assistant.begin()
        self._user.drop_request()
        if unwanted and not over:
            self._send([self._cancel()])
            gate.cut()

    def _name_response(self, response_id: str) -> None:
        self._gate.name(response_id)
        self._assistant.seen = True

    def _response_done(self, event: wire.ResponseDone) -> None:
        gate, response = self._gate, event.response
        name = response.id or ""
        unseen = not name and gate.idle and not self._assistant.spoke
        if gate.has_ended(name) or unseen:
            if gate.is_first_end_event(name):
                # Reported with the next one: usage must not come between the frames of a later response.
                self._assistant.count_usage(event)
            self.stats.repeated_events += 1
            return
        running = gate.phase is Phase.ACTIVE and gate.response_id in (None, name or gate.response_id)
        if gate.in_flight and gate.response_id is None:
            self._name_response(name)
        elif not gate.in_flight or (name and name != gate.response_id):
            self._begin_response(name, response.metadata, over=True)
        self._emit_all(self._assistant.words.finish_all())
        end = end_of(response)
        if end.status == "done":
            self._issue_calls_of(response)
        elif end.reason == "turn_detected" and running:
            # The provider heard the user, and reports it only now.
            self._send(self._corrections())
            self._interrupted("user")
        if self._assistant.count_usage(event):
            self._emit(self._assistant.take_usage())
        if end.status == "failed":
            self._response_failed(errors.response_failure(response.status_details))
        self._end_response(end)
        self._request_deferred()

    def _response_failed(self, error: wire.ErrorInfo) -> None:
        if errors.judge(error, None) is ErrorKind.FATAL:
            self._fail(errors.failure(error))
        else:
            code = str(error.code or error.type or codes.RESPONSE_FAILED)
            self._emit(ErrorFrame(code, error.message or "the provider could not complete a response"))

    def _end_response(self, reported: ResponseEnd | None = None) -> None:
        """End the response in flight; `reported`: its end as the provider reported it, if it did."""
        gate = self._gate
        cut = gate.phase is Phase.CANCELLING
        if not cut and not self._user.speaking:
            self._emit_all(self._user.words.response_over())
        self._emit_all(self._assistant.words.finish_all())
        response_id = gate.response_id or ""
        gate.ended(reported=reported is not None)
        if self._calls.response_over(response_id):
            gate.defer(Reason.TOOLS)
        self._emit_all(self._assistant.end(reported, cut=cut))

    def _corrections(self, played_ms: int | None = None) -> list[wire.ClientEvent]:
        growing = self._gate.phase is Phase.ACTIVE
        return self._assistant.corrections(self._ids, played_ms=played_ms, growing=growing)

    def _interrupted(self, at: Role) -> None:
        """Record that the assistant was cut off. Make the corrections first: they need the unplayed audio."""
        kept = []
        for frame in self.events:
            if isinstance(frame, ToolCall):
                # Its result is no longer needed, so it need not be run.
                self._calls.withdraw(frame.call_id)
            elif type(frame) is not Audio:
                kept.append(frame)
        self._replace_events(kept)
        self._assistant.flush()
        if self._line is not None:
            self._line.stopped()
        self._calls.abandon_open()
        self._emit(Interruption(at))
        if self._gate.phase is Phase.ACTIVE:
            self._gate.cut()

    # Tools

    def _output_item_added(self, response_id: str | None, item: wire.Item) -> None:
        self._calls.note_function(item)
        if not self._is_live(response_id):
            return
        if item.type == "message":
            self._assistant.item_id = item.id
        elif is_server_tool(item):
            self._emit_all(self._server_tools.update(item.id, item.name, "started"))
        elif asks_for_approval(item):
            self._approval_begins(item, response_id)

    def _output_item_done(self, response_id: str | None, item: wire.Item) -> None:
        live = self._is_live(response_id)
        if item.type == "function_call":
            # A call that is complete is in the history, even when its response was cut off afterwards.
            if item.status in ("completed", None):
                self._issue_call(response_id, self._calls.of_item(item))
            elif live and item.status != "incomplete":
                self._keep_unconfirmed(self._calls.of_item(item))
        elif live and is_server_tool(item) and item.status != "in_progress":
            failed = item.status in ("failed", "incomplete")
            self._emit_all(self._server_tools.update(item.id, item.name, "failed" if failed else "completed"))
        elif live and asks_for_approval(item):
            self._judge_approval(item, response_id)

    def _arguments_done(self, event: wire.ArgumentsDone) -> None:
        if not self._is_live(event.response_id):
            return
        call = self._calls.of_arguments(event)
        if self._flavor.complete_arguments:
            self._issue_call(event.response_id, call)
        else:
            # Whether the call is complete shows at the end of its item or, on servers without that event, of
            # its response.
            self._keep_unconfirmed(call)

    def _keep_unconfirmed(self, call: Call) -> None:
        if len(self._calls.unconfirmed) >= self.limits.max_open_calls:
            self._too_many_calls()
        else:
            self._calls.unconfirmed.append(call)

    def _issue_calls_of(self, response: wire.Response) -> None:
        """Issue the calls of a completed response that no event of their own has reported."""
        for item in response.output or ():
            if item.type == "function_call" and item.status != "incomplete":
                self._issue_call(response.id, self._calls.of_item(item), repeats=False)
            elif asks_for_approval(item):
                self._judge_approval(item, response.id)
        for call in self._calls.unconfirmed:
            self._issue_call(response.id, call, repeats=False)

    def _issue_call(self, response_id: str | None, call: Call, *, repeats: bool = True) -> None:
        """Hand a call to the caller; `repeats`: count a call that was seen before."""
        calls, gate = self._calls, self._gate
        group = response_id or gate.response_id or ""
        if not call.call_id:
            self._emit(ErrorFrame(codes.UNNAMED, "the provider made a tool call without an id"))
        elif calls.was_issued(group, call):
            self.stats.repeated_events += repeats
        elif calls.full:
            self._too_many_calls()
        else:
            name = calls.issue(group, call, over=not gate.in_flight or gate.has_ended(group))
            self._emit(ToolCall(name, call.name, call.arguments))

    def _approval_begins(self, item: wire.Item, response_id: str | None = None) -> None:
        """Act on a request for approval that may not be complete: only a denial needs no more of it."""
        if self._approval_tool is None:
            self._judge_approval(item, response_id)

    def _ask_for_approval(self, tool: str, item: wire.Item, response_id: str | None) -> None:
        """Let a tool of the caller decide on the provider's request to run an MCP tool."""
        calls, gate = self._calls, self._gate
        if calls.full:
            self._too_many_calls()
            return
        request = {"server_label": item.server_label, "name": item.name, "arguments": item.arguments}
        arguments = msgspec.json.encode(request).decode()
        group = response_id or gate.response_id or ""
        call = Call(item.id or "", item.id or "", tool, arguments)
        over = not gate.in_flight or gate.has_ended(group)
        name = calls.issue(group, call, over=over, asks_for_approval=True)
        self._emit(ToolCall(name, tool, arguments))

    def _decision(self, request_id: str, output: str) -> wire.ApprovalResponse:
        """Return the decision of the caller's tool as the provider gets it."""
        approve = output.strip() == "true"
        reason = UNSET if approve else output
        return wire.ApprovalResponse(f"approval_{self._ids.count}", request_id, approve, reason)

    def _judge_approval(self, item: wire.Item, response_id: str | None = None) -> None:
        """Deny the provider's request to run an MCP tool, unless a tool of the caller decides on it.

        Without an answer the model would wait forever.
        """
        if not self._server_tools.is_new_approval(item, response_id, self._gate.response_id):
            return
        if self._approval_tool is not None:
            self._ask_for_approval(self._approval_tool, item, response_id)
            return
        self._emit_all(self._server_tools.update(item.id, item.name, "started"))
        self._emit_all(self._server_tools.update(item.id, item.name, "failed"))
        self._emit(
            ErrorFrame(
                codes.APPROVAL_DENIED,
                f"the provider asked for approval to run {item.name or 'a tool'!r}, which was denied; "
                'set "require_approval" of that server tool to "never", or name an approval_tool',
            )
        )
        answer = wire.ApprovalResponse(f"approval_{self._ids.count}", item.id or "")
        self._send([self._ids.make(wire.CreateItem, item=answer)])
        # The model continues only when asked to, as it does after the results of functions.
        self._gate.defer(Reason.TOOLS)
        if not self._gate.in_flight:
            self._request_deferred()

    # Errors

    def _receive_error(self, error: wire.ErrorInfo) -> None:
        if (reason := errors.ending(error, self._flavor.endings)) is not None:
            self._end_received(reason)
            return
        answers = self._ids.kind_of(error.event_id)
        match errors.judge(error, answers, self._assistant.corrected):
            case ErrorKind.FATAL:
                self._fail(errors.failure(error))
            case ErrorKind.ALREADY_ACTIVE:
                self.stats.benign_errors += 1
                if self._gate.refused(error.event_id, errors.active_response(error)):
                    self._request_deferred()
            case ErrorKind.BENIGN:
                self.stats.benign_errors += 1
                if errors.is_empty_commit(error):
                    self._user.drop_request()
            case ErrorKind.REAL if self._settings.refused(error.event_id, named=self._flavor.names_things):
                self._emit(ErrorFrame(codes.REFUSED["update"], errors.as_frame(error).message))
                self._follow_rules()
            case ErrorKind.REAL:
                self._emit(errors.as_frame(error))
                if answers is wire.Message:
                    self._text_settled()  # refused, so nothing confirms it
                if error.event_id is not None and error.event_id == self._gate.open_request:
                    self._request_failed()
            case verdict:
                assert_never(verdict)

    def _request_failed(self) -> None:
        if self._gate.request_failed():
            self._request_deferred()

    # Time

    def run_timer(self, name: str, late: float) -> None:
        match name:
            case "response":
                self._response_overdue()
            case "cancel":
                self._end_response()
                self._request_deferred()
            case "silence":
                self._user.silence_expired(self._send)
            case "deferred":
                self._gate.answer_due = False
                self._request_deferred()
            case "speech":
                self._speech_waited_for()
            case _:
                super().run_timer(name, late)

    def _response_overdue(self) -> None:
        """Give up waiting for a response to begin, or for another response to end."""
        if self._gate.phase is Phase.ACTIVE:
            # The response that blocks ours has no known id, so its end may have passed unseen.
            self._end_response()
            self._request_deferred()
        else:
            if not self._gate.unwanted:
                message = "the provider did not begin the response that was asked for; say it again"
                self._emit(ErrorFrame(codes.NO_RESPONSE, message))
            self._request_failed()

    # Messages out

    def _queue(self, events: Sequence[wire.ClientEvent]) -> None:
        """Queue all messages of a verb, or none: raises as `send_audio`."""
        try:
            if self._binary_audio:
                self._queue_binary(events)
            else:
                self.outbox.put_all([wire.encode(event).decode() for event in events])
        except UnicodeEncodeError:
            raise LocalProtocolError(LONE_SURROGATE) from None

    def _queue_binary(self, events: Sequence[wire.ClientEvent]) -> None:
        """Act as `_queue`, with audio as binary messages."""
        messages = [_as_message(event) for event in events]
        self.outbox.check_room(sum(map(_size, messages)))
        for message in messages:
            self.outbox.put(message)

    def _send(self, events: Sequence[wire.ClientEvent]) -> None:
        """Queue messages of the dialect's own, unless the session is no longer open."""
        for event in events:
            if self.state is not State.OPEN:
                return
            message = _as_message(event) if self._binary_audio else wire.encode(event).decode()
            if self.outbox.size + _size(message) > self.outbox.limit:
                self._break(close_codes.POLICY, "the provider does not read what it makes us send")
                return
            self.outbox.put(message)


def _size(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) else payload_size(message)


def _as_message(event: wire.ClientEvent) -> str | bytes:
    """Return the message of an event where audio is binary."""
    return event.audio if isinstance(event, wire.AppendAudio) else wire.encode(event).decode()


_NO_PARAMS: Final = wire.ResponseParams()


def _nothing() -> None:
    """Do nothing."""


def _rate(audio: Any, direction: str) -> int | None:
    """Return the sample rate that the provider reports for `direction`, if it is one of speech."""
    audio_format = wire.dig(audio, dict, direction, "format")
    rate = None if audio_format is None else fit(audio_format, wire.AudioFormat).value.rate
    return rate if rate is not None and is_sample_rate(rate) else None
