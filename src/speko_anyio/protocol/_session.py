"""The Speko session at message level: WebSocket messages to frames and commands, in both roles.

For transports that already speak WebSocket (Starlette, aiohttp, a browser bridge): they carry whole messages,
and this module gives them meaning. Over a bare byte stream use `connection.py`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, assert_never, get_args

from msgspec import UNSET

from . import _codec as codec
from . import _extensions as extensions
from . import close_codes
from ._budget import Budget
from ._calls import Calls, no_open_call
from ._commands import (
    MAX_PLAYED,
    AudioIn,
    Clear,
    Command,
    Commit,
    EndTurn,
    ExtensionCommand,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextIn,
    TextRole,
    ToolResult,
    TurnMode,
    Update,
    extension_of,
    find_problem,
    text_in,
)
from ._dialect import Dialect, EventT
from ._limits import DEFAULT_LIMITS, Limits
from ._outbox import NO_AUDIO, payload_size
from ._pcm import (
    MAX_AUDIO_MESSAGE,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    Buffer,
    half_a_sample,
    is_sample_rate,
    pcm_bytes,
    whole_samples,
)
from ._state import Signal, State
from ._timeouts import DEFAULT_TIMEOUTS
from .capabilities import Capabilities, extensions_of, refusal
from .errors import LONE_SURROGATE, LocalProtocolError
from .frames import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ResponseStatus,
    Role,
    ServerToolCall,
    ToolCall,
    ToolStatus,
    Transcript,
    Unknown,
    Usage,
)
from .mint import DEFAULT_SAMPLE_RATE

MAX_HELD_ENDS: Final = 16
"""The most ends of answers that a server holds until the client accepts the extension, which takes one round
trip. A client that never accepts it never gets them."""

ServerFrame: TypeAlias = (
    Audio | Transcript | ToolCall | ServerToolCall | Interruption | Usage | ResponseEnd | ErrorFrame | Close
)
"""Any frame that a server sends after `Ready`."""

_OPEN: Final = State.OPEN

_TOOL_CALL: Final = codec.encode(ToolCall()).partition(",")[0]
"""How the text of a tool call begins."""


class ClientDialect(Dialect[Frame], abc.ABC):
    """The verbs of a client, the same in every dialect."""

    input_sample_rate: int
    """Samples a second of the client's audio."""
    output_sample_rate: int
    """Samples a second of the server's audio."""

    @property
    @abc.abstractmethod
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""

    @property
    @abc.abstractmethod
    def odd_fields(self) -> int:
        """How many fields of the peer's messages had an odd value and were read as another."""

    @abc.abstractmethod
    def send_audio(self, pcm: Buffer) -> None:
        """Queue PCM16 little-endian mono audio at the session's input rate.

        Any even number of bytes, or an array of int16. It is split into messages of at most 32 KiB.

        Raises `LocalProtocolError` for an odd number of bytes or a full outbox, TypeError for an array of
        other samples, and `ConnectionClosed` after the end or a goodbye; nothing is queued then.
        """

    @abc.abstractmethod
    def commit(self) -> None:
        """End the user's turn, which requests an answer. Raises as `send_audio`."""

    @abc.abstractmethod
    def clear(self) -> None:
        """Forget the audio sent since the last commit. Raises as `send_audio`."""

    @abc.abstractmethod
    def end_turn(self) -> None:
        """End the user's turn where the server detects turns (VAD). Raises as `send_audio`."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Stop the response in flight (barge-in). Raises as `send_audio`."""

    @abc.abstractmethod
    def send_tool_result(self, call_id: str, output: str) -> None:
        """Answer the `ToolCall` with this id, once, with text (a structured result as JSON text).

        Raises `LocalProtocolError` for an id that is not open, else as `send_audio`.
        """

    # The extensions

    who = "this service"
    """The service behind the session, as errors name it."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> Capabilities:
        """What the session can do. Raises `LocalProtocolError` while that is unknown, before `Ready`."""

    def send_text(self, text: str, *, role: TextRole = "user", respond: bool | None = None) -> None:
        """Queue an item of the conversation in writing.

        With `respond` it is answered, as a turn of the user is; otherwise it is context. By default a text of
        the user is answered, and others are context.

        Raises `LocalProtocolError` when the service does not take this, or that is not known yet, and for a
        text that is empty or too long; else as `send_audio`. The other verbs of the extensions do likewise.
        """
        require_text(text=text)
        _require_one_of("role", role, get_args(TextRole))
        if respond is not None:
            _require_bool(respond=respond)
        self._send_extension(text_in(text, role, respond))

    def send_image(self, data: bytes, *, mime_type: str, respond: bool = False) -> None:
        """Queue a picture as context: the content of its file, of a type such as ``image/jpeg``.

        With `respond` it is answered. Raises as `send_text`; an image may have ``limits.max_image_size``
        bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be the bytes of an image's file, not {type(data).__name__}")
        require_text(mime_type=mime_type)
        _require_bool(respond=respond)
        self._send_extension(ImageIn(mime_type, bytes(data), respond))

    def respond(self, instructions: str = "") -> None:
        """Ask the assistant to speak now, with `instructions` for this response. Raises as `send_text`.

        While a response is under way, it waits for its end.
        """
        require_text(instructions=instructions)
        self._send_extension(Respond(instructions))

    def say(self, text: str) -> None:
        """Let the assistant say `text`; see `Capabilities.say` for how exactly. Raises as `send_text`."""
        require_text(text=text)
        self._send_extension(Say(text))

    def update(self, update: Update) -> None:
        """Change the session's settings from the next response on. Raises as `send_text`."""
        if not isinstance(update, Update):
            raise TypeError(f"update must be an Update, not {type(update).__name__}")
        for name in ("system_prompt", "voice"):
            if (value := getattr(update, name)) is not UNSET:
                require_text(**{name: value})
        if update.turns is not UNSET:
            _require_one_of("turns", update.turns, get_args(TurnMode))
        self._send_extension(update)

    def report_played(self, seconds: float) -> bool:
        """Say how much of the assistant's audio was heard; return whether the service takes such reports.

        - `seconds`: of the audio that was received since the last `Interruption`, or since the session began,
          so many seconds were played by now.

        The service then knows where an interrupted answer ends for its model. Where it takes no reports, and
        before `Ready`, this does nothing. Raises `LocalProtocolError` for a number below 0 or above
        `MAX_PLAYED` milliseconds, else as `send_audio`.
        """
        if not 0 <= seconds <= MAX_PLAYED / 1000:
            raise LocalProtocolError(f"the seconds that were played must be from 0 to {MAX_PLAYED // 1000}")
        self._check_open()
        return self._report_played(seconds)

    @abc.abstractmethod
    def _report_played(self, seconds: float) -> bool:
        """Pass on a valid report in an open session, if possible; return whether it was."""

    # A provider's own protocol

    def send_provider_event(self, event: str) -> None:
        """Queue an event in the provider's own protocol, as JSON text, unchanged.

        This is unsupported: nothing checks the event, and the library does not know what it changes. Raises
        `LocalProtocolError` before `Ready`, and where no provider is at the other end.
        """
        raise LocalProtocolError(
            f"{self.who} takes no events of a provider's protocol; send them in a session straight with one"
        )

    def watch_provider(self, tell: Callable[[str], None]) -> None:
        """Call `tell` with each event of the provider's own protocol before it is handled, from now on.

        Does nothing where no provider is at the other end.
        """

    def _send_extension(self, command: ExtensionCommand) -> None:
        self._check_open()
        extension = extension_of(command)
        if not self.capabilities.takes(extension):
            raise refusal(extension, self.who)
        if not isinstance(command, ImageIn):
            command = self._checked(command)
        problem = find_problem(command, max_image_size=self.limits.max_image_size)
        if problem is not None:
            raise LocalProtocolError(problem)
        self._queue_extension(command)

    def _checked(self, command: TextIn | Respond | Say | Update) -> ExtensionCommand:
        """Return the command as a server reads it: the rules are the same for every dialect."""
        text = encode(command)
        if payload_size(text) > self.limits.max_text_size:
            raise LocalProtocolError(_too_long(extension_of(command), self.limits))
        read = codec.decode_from_client(text)
        if isinstance(read, codec.InvalidCommand):
            raise LocalProtocolError(read.problem)
        assert isinstance(read, ExtensionCommand)
        return read

    @abc.abstractmethod
    def _queue_extension(self, command: ExtensionCommand) -> None:
        """Queue a command that the service takes, with valid content, in an open session."""


class _Answer:
    """The state of the current answer, from which its end is derived if the service sends none."""

    __slots__ = ("begun", "cut", "derived")

    def __init__(self) -> None:
        self.begun = False
        """Whether audio came since the last derived end."""
        self.cut = False
        """Whether that end was derived from an interruption: a `Usage` for the same answer may still
        follow."""
        self.derived = True
        """Whether the ends are derived: not once the extension ``usage`` was accepted."""


class _Offer:
    """The extensions that a server offers, and those that the client accepted."""

    __slots__ = ("capabilities", "held", "names", "taken")

    def __init__(self, names: Iterable[str], capabilities: Capabilities | None) -> None:
        if capabilities is not None:
            names = (*names, *extensions_of(capabilities))
        self.names = tuple(dict.fromkeys(names))
        self.capabilities = None if capabilities is None else capabilities.offered(self.names)
        self.taken: frozenset[str] = frozenset()
        self.held: list[str] = []
        """Ends of answers, encoded, that wait for the client to accept ``usage``; oldest first."""
        for name in self.names:
            if name not in extensions.KNOWN:
                raise LocalProtocolError(
                    f"{name!r} is not an extension of the protocol; choose from {', '.join(extensions.KNOWN)}"
                )


class _SpekoSession(Dialect[EventT]):
    """What the two roles share: PCM16 in both directions, open calls, malformed text."""

    def __init__(
        self,
        *,
        input_sample_rate: int = DEFAULT_SAMPLE_RATE,
        output_sample_rate: int = DEFAULT_SAMPLE_RATE,
        limits: Limits = DEFAULT_LIMITS,
        close_timeout: float = DEFAULT_TIMEOUTS.close,
        ttl: float | None = None,
        warn_before: float = DEFAULT_TIMEOUTS.warn_before,
        state: State = State.OPEN,
    ) -> None:
        super().__init__(
            limits=limits, close_timeout=close_timeout, ttl=ttl, warn_before=warn_before, state=state
        )
        if not (is_sample_rate(input_sample_rate) and is_sample_rate(output_sample_rate)):
            raise LocalProtocolError(
                f"a session has sample rates from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz; pass others"
            )
        self.input_sample_rate = input_sample_rate
        """Samples a second of the client's audio."""
        self.output_sample_rate = output_sample_rate
        """Samples a second of the server's audio."""
        self._calls = Calls(limits.max_open_calls)
        self._odd_fields = 0
        self._set_up()

    @abc.abstractmethod
    def _set_up(self) -> None:
        """Add what only this role has."""

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self._calls.open

    @property
    def odd_fields(self) -> int:
        """How many fields of the peer's messages had an odd value and were read as another.

        See `codec.py`.
        """
        return self._odd_fields

    def _receive_text(self, text: str) -> None:
        odd: list[str] = []
        try:
            codec.check_depth(text, self.limits.max_json_depth)
            self._receive_json(text, odd)
        except codec.MalformedMessage as error:
            self.violated(
                close_codes.INVALID_DATA,
                f"the peer sent a text message that is not of this protocol: {error}",
            )
        else:
            self._odd_fields += len(odd)

    @abc.abstractmethod
    def _receive_json(self, text: str, odd: list[str]) -> None:
        """Decode and apply one text message; `MalformedMessage` if it is invalid.

        Appends the names of its odd fields to `odd`.
        """

    def _receive_binary(self, data: bytes) -> EventT | None:
        fast_path = self.fast_path
        if fast_path.odd or len(data) & 1:
            data, odd = whole_samples(fast_path.odd, data)
            fast_path.keep_half(odd)
        # An empty message, or one that only begins a sample, carries no audio.
        return self._audio(data) if data else None

    @abc.abstractmethod
    def _audio(self, pcm: bytes) -> EventT:
        """Make the event for whole samples."""

    def send_audio(self, pcm: Buffer) -> None:
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        size = len(pcm)
        outbox = self.outbox
        if size & 1 or outbox.size + size > outbox.audio_limit:
            raise self._why_no_audio(size)
        for start in range(0, size, MAX_AUDIO_MESSAGE):
            outbox.put(pcm[start : start + MAX_AUDIO_MESSAGE])

    def _why_no_audio(self, size: int) -> Exception:
        if self.state is not _OPEN:
            return self._not_open()
        if self.outbox.audio_limit == NO_AUDIO:
            return _not_ready()
        if size & 1:
            return half_a_sample(size)
        return self.outbox.full()

    def _take_audio(self) -> None:
        """Accept audio in the outbox from now on, as long as the session is open."""
        self.outbox.audio_limit = self.outbox.limit

    def _move(self, signal: Signal) -> None:
        super()._move(signal)
        if self.state is not _OPEN:
            self.outbox.audio_limit = NO_AUDIO

    def _queue_message(self, message: codec.ServerMessage | codec.PlainUsage | codec.ClientCommand) -> None:
        self._queue_text(encode(message))

    def _queue_short(self, text: str) -> None:
        """Queue a text that may be sent now.

        It is exempt from the outbox's limit since it is short and must not be lost.
        """
        self.outbox.put(text)


class ClientProtocol(_SpekoSession[Frame], ClientDialect):
    """The client's side of a session over a transport that carries WebSocket messages.

    `input_sample_rate` and `output_sample_rate` are those of the mint's answer; a `Ready` with other rates
    takes precedence. If `ttl` (seconds) is known, an `Expiring` event comes `warn_before` seconds before the
    end.

    If `Ready` offers the extension ``usage``, it is accepted at once: a message that says so is queued (see
    `_extensions.py`). Without that offer, nothing is queued.
    """

    _answer: _Answer
    _capabilities: Capabilities | None

    def _set_up(self) -> None:
        self._answer = _Answer()
        self._capabilities = None
        self.fast_path.make_audio = Audio
        self.fast_path.sample_rate = self.output_sample_rate
        # Send the first audio of each answer here: the ends of answers are derived from it.
        self.fast_path.want_next()
        if self.state is _OPEN:
            self._take_audio()

    def _move(self, signal: Signal) -> None:
        super()._move(signal)
        if self.state is _OPEN:
            self._take_audio()

    def _audio(self, pcm: bytes) -> Frame:
        if not self._answer.begun:
            self._answer.begun = True
            self.fast_path.skip_next()
        return Audio(pcm, self.fast_path.sample_rate)

    def commit(self) -> None:
        self._queue_message(Commit())

    def clear(self) -> None:
        self._queue_message(Clear())

    def end_turn(self) -> None:
        self._queue_message(EndTurn())

    def interrupt(self) -> None:
        self._queue_message(Interrupt())

    def send_tool_result(self, call_id: str, output: str) -> None:
        require_text(call_id=call_id, output=output)
        self._check_open()
        if call_id not in self._calls:
            raise no_open_call(call_id)
        self._queue_message(ToolResult(call_id, output))
        self._calls.answer(call_id)

    @property
    def capabilities(self) -> Capabilities:
        """What the session can do, as the server's `Ready` says: by its record, or by its extensions alone.

        Raises `LocalProtocolError` before `Ready`.
        """
        if self._capabilities is None:
            raise LocalProtocolError(
                "the service has not said yet what it takes; wait for the Ready frame, then send"
            )
        return self._capabilities

    def _queue_extension(self, command: ExtensionCommand) -> None:
        self._queue_message(command)

    def _report_played(self, seconds: float) -> bool:
        taken = self._capabilities is not None and self._capabilities.takes(extensions.PLAYED)
        if taken:
            self._queue_message(Played(round(seconds * 1000)))
        return taken

    def _receive_json(self, text: str, odd: list[str]) -> None:
        match codec.decode_from_server(text, odd):
            case codec.End(reason=reason):
                self._end_received(reason)
            case Ready() as ready:
                self._ready_received(ready)
            case ToolCall() as call:
                self._call_received(call, text)
            case Interruption() as interruption:
                self._calls.abandon_open()
                # What follows is another response: half a sample of the one that was cut off must not shift
                # it.
                self.fast_path.odd = b""
                self.events.append(interruption)
                if self._answer.derived and self._answer.begun:
                    self._answer_ended("interrupted")
            case Usage() as usage:
                self.events.append(usage)
                if self._answer.derived:
                    self._usage_received()
            case ResponseEnd() if self._answer.derived:
                # Sent without being accepted, while the core derives the ends: don't report two for one
                # answer.
                self.events.append(Unknown("response", text))
            case frame:
                self.events.append(frame)

    def _usage_received(self) -> None:
        if self._answer.cut and not self._answer.begun:
            self._answer.cut = False  # belongs to the answer that was cut off, whose end was reported already
        else:
            self._answer_ended("done")

    def _answer_ended(self, status: ResponseStatus) -> None:
        self._answer.begun = False
        self.fast_path.want_next()
        self._answer.cut = status == "interrupted"
        self.events.append(ResponseEnd(status))

    def _ready_received(self, ready: Ready) -> None:
        input_rate = ready.input_sample_rate or self.input_sample_rate
        output_rate = ready.output_sample_rate or self.output_sample_rate
        if not (is_sample_rate(input_rate) and is_sample_rate(output_rate)):
            # Don't show the rates: a peer can write thousands of digits.
            raise codec.MalformedMessage(
                f"its sample rates are not between {MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE}"
            )
        self.input_sample_rate = input_rate
        self.output_sample_rate = self.fast_path.sample_rate = output_rate
        self.events.append(Ready(input_rate, output_rate, ready.extensions, ready.capabilities))
        record = ready.capabilities
        self._capabilities = (
            Capabilities.from_extensions(ready.extensions)
            if record is None
            else record.offered(ready.extensions)
        )
        if self._answer.derived and extensions.USAGE in ready.extensions and self.state is _OPEN:
            self._answer.derived = False
            self._queue_short(codec.encode(codec.UseExtensions((extensions.USAGE,))))

    def _call_received(self, call: ToolCall, text: str) -> None:
        if self._calls.is_open(call.call_id):
            # A repeat of a call that is being answered: report it, but don't let it be answered twice.
            self.events.append(Unknown("tool_call", text))
        elif self._calls.full:
            self.violated(
                close_codes.POLICY,
                f"the peer has {self.limits.max_open_calls} tool calls open and issued another",
            )
        else:
            self._calls.issue(call.call_id)
            self.events.append(call)
            self._answer.cut = False  # another answer is under way


class ServerProtocol(_SpekoSession[Command]):
    """The server's side of a session over a transport that carries WebSocket messages.

    Call `send_ready` before any other verb except `send_error`. `ttl` in seconds, when given, ends the
    session with code 1000 and reason ``session_expired``, after an `Expiring` event `warn_before` seconds
    ahead.

    - `capabilities`: what the session can do: `Ready` says so, and offers the extensions that follow from it
      (`extensions_of`).
    - `extensions`: the names of further extensions to offer. Raises `LocalProtocolError` for an unknown one.

    A command of an extension that was not offered is `Unknown`. One that was offered but is empty, too long
    or invalid is answered by an `ErrorFrame` such as ``TEXT_REFUSED``, and is `Unknown`, too.
    """

    _ends_at_ttl = True

    def __init__(
        self,
        *,
        input_sample_rate: int = DEFAULT_SAMPLE_RATE,
        output_sample_rate: int = DEFAULT_SAMPLE_RATE,
        limits: Limits = DEFAULT_LIMITS,
        close_timeout: float = DEFAULT_TIMEOUTS.close,
        ttl: float | None = None,
        warn_before: float = DEFAULT_TIMEOUTS.warn_before,
        state: State = State.OPEN,
        extensions: Iterable[str] = (),
        capabilities: Capabilities | None = None,
    ) -> None:
        self._offer = _Offer(extensions, capabilities)
        super().__init__(
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            limits=limits,
            close_timeout=close_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=state,
        )

    def _set_up(self) -> None:
        self.budget: Budget = Budget(self.limits.max_messages_per_second, self.limits.max_messages_at_once)
        self._ready_sent = False
        self.fast_path.make_audio = AudioIn
        self.fast_path.sample_rate = self.input_sample_rate

    def _audio(self, pcm: bytes) -> Command:
        return AudioIn(pcm, self.fast_path.sample_rate)

    def send(self, frame: ServerFrame) -> None:
        """Queue any frame by the verb for it, and raise as that does.

        `Audio` must be at `output_sample_rate`; a `Close` is `close` with its code and reason.
        """
        match frame:
            case Audio(pcm=pcm):
                self.send_audio(pcm)
            case Transcript(role=role, text=text, final=final):
                self.send_transcript(role, text, final=final)
            case ToolCall(call_id=call_id, name=name, arguments=arguments):
                self.send_tool_call(call_id, name, arguments)
            case ServerToolCall(id=id, name=name, status=tool_status):
                self.send_server_tool_call(id, name, tool_status)
            case Interruption(at=at):
                self.send_interruption(at)
            case Usage():
                self._queue_usage(frame)
            case ResponseEnd(status=status, reason=reason):
                self.send_response_end(status, reason)
            case ErrorFrame(code=code, message=message):
                self.send_error(code, message)
            case Close(code=close_code, reason=reason):
                self.close(close_code, reason)
            case _:
                assert_never(frame)

    def send_ready(self) -> None:
        """Queue the session's rates: the client may talk. `LocalProtocolError` when already sent."""
        self._check_open()
        if self._ready_sent:
            raise LocalProtocolError("ready was sent already; a session has one")
        offer = self._offer
        self._queue_message(
            Ready(self.input_sample_rate, self.output_sample_rate, offer.names, offer.capabilities)
        )
        self._ready_sent = True
        self._take_audio()

    def send_transcript(self, role: Role, text: str, *, final: bool) -> None:
        """Queue what `role` said; a partial text is replaced by the next one of the same role."""
        _require_one_of("role", role, ("user", "assistant"))
        require_text(text=text)
        _require_bool(final=final)
        self._queue_frame(Transcript(role, text, final))

    def send_tool_call(self, call_id: str, name: str, arguments: str) -> None:
        """Queue a request to run `name` with `arguments`, JSON text.

        `LocalProtocolError` also when a call with this id has no result yet or too many calls are open.
        """
        require_text(call_id=call_id, name=name, arguments=arguments)
        self._check_ready()
        if call_id in self._calls:
            # Also if an interruption abandoned it: its result may be under way, and would answer this one.
            raise LocalProtocolError(f"tool call {call_id!r} has no result yet; give each call its own id")
        if self._calls.full:
            raise LocalProtocolError(
                f"{self.limits.max_open_calls} tool calls are open; wait for a result before the next one"
            )
        self._queue_frame(ToolCall(call_id, name, arguments))
        self._calls.issue(call_id)

    def send_server_tool_call(self, id: str, name: str, status: ToolStatus) -> None:
        """Queue news of a tool that runs on the server's side."""
        require_text(id=id, name=name)
        _require_one_of("status", status, ("started", "completed", "failed"))
        self._queue_frame(ServerToolCall(id, name, status))

    def send_interruption(self, at: Role = "user") -> None:
        """Queue news that the assistant was cut off, ahead of the audio still queued, which is dropped.

        The same news that waits already, with nothing but audio behind it, is not queued twice.
        """
        _require_one_of("at", at, ("user", "assistant"))
        self._check_ready()
        self.outbox.drop_audio()
        text = codec.encode(Interruption(at))
        # These are exempt from the limit, so those for a client that interrupts on and on, and reads nothing,
        # must not pile up.
        if self.outbox.messages[-1:] != [text]:
            self._queue_short(text)
        self._calls.abandon_open()

    def withdraw_calls(self) -> None:
        """Take back the tool calls that were not sent yet, before an interruption."""
        self.outbox.drop_texts(_is_tool_call)

    def send_usage(self, input_audio_tokens: int, output_audio_tokens: int) -> None:
        """Queue the tokens of audio spent since the last report; neither below zero.

        For other counts, `send` a `Usage`: a client that accepted the extension ``usage`` gets all of it, any
        other client gets these two counts.
        """
        self._queue_usage(Usage(input_audio_tokens, output_audio_tokens))

    def _queue_usage(self, usage: Usage) -> None:
        for name in usage.__struct_fields__:
            _require_amount(name, getattr(usage, name))
        if extensions.USAGE in self._offer.taken:
            self._queue_frame(usage)
        else:
            self._queue_frame(codec.PlainUsage(usage.input_audio_tokens, usage.output_audio_tokens))

    def send_response_end(self, status: ResponseStatus, reason: str = "") -> None:
        """Queue the end of an answer, exactly once, after all of its audio.

        `reason` says why the answer is not complete, if that is known. The message is sent only to clients
        that accept the extension ``usage``, and held until they do.
        """
        _require_one_of("status", status, get_args(ResponseStatus))
        require_text(reason=reason)
        self._check_ready()
        text = encode(ResponseEnd(status, reason))
        if extensions.USAGE in self._offer.taken:
            self._queue_text(text)
        elif extensions.USAGE in self._offer.names and len(self._offer.held) < MAX_HELD_ENDS:
            self._offer.held.append(text)

    def send_error(self, code: str, message: str) -> None:
        """Queue a failure that the session survives, or the reason for the close that follows.

        The only verb that may precede `send_ready`, since the failure may come before the session is ready.
        """
        require_text(code=code, message=message)
        self._queue_message(ErrorFrame(code, message))

    def _queue_frame(self, frame: codec.ServerMessage | codec.PlainUsage) -> None:
        self._check_ready()
        self._queue_message(frame)

    def _check_ready(self) -> None:
        self._check_open()
        if not self._ready_sent:
            raise _not_ready()

    def _queue_goodbye(self, code: int, reason: str) -> None:
        # `end` carries the whole reason, which a close frame must cut at 123 bytes.
        self.outbox.put(codec.encode(codec.End(reason)))
        super()._queue_goodbye(code, reason)

    def _receive_json(self, text: str, odd: list[str]) -> None:
        match codec.decode_from_client(text, odd):
            case ToolResult(call_id=call_id) as result:
                if call_id in self._calls:
                    self._calls.answer(call_id)
                    self.events.append(result)
                else:
                    # Late, repeated or made up: it answers no open call, so report it as unknown.
                    self.events.append(Unknown("tool_result", text))
            case Commit() | Clear() | EndTurn() as boundary:
                # The next turn starts on a whole sample even if this one ended in the middle of one.
                self.fast_path.odd = b""
                self.events.append(boundary)
            case codec.UseExtensions(use=use):
                if self._offer.names:
                    self._accept_extensions(extensions.read_names(use))
                else:
                    self.events.append(Unknown("extensions", text))
            case codec.InvalidCommand(t=extension, problem=problem) if self._takes(extension):
                self._refuse(extension, text, problem)
            case codec.InvalidCommand(t=extension):
                self.events.append(Unknown(extension, text))
            case TextIn() | ImageIn() | Respond() | Say() | Update() | Played() as command:
                self._extension_received(command, text)
            case command:
                self.events.append(command)

    @property
    def text_limit(self) -> int:
        offered = self._offer.names
        limits = self.limits
        if not any(name in offered for name in extensions.COMMANDS):
            return limits.max_text_size
        limit = max(limits.max_text_size, limits.max_message_size)
        if extensions.IMAGE in offered:
            limit = max(limit, limits.max_text_size + (limits.max_image_size + 2) // 3 * 4)
        return limit

    def _receive_long_text(self, text: str) -> None:
        # Only commands of extensions may be that long: an image, or another one, which is refused unread.
        extension = codec.tag_of(text) if payload_size(text) <= self.text_limit else None
        if extension is None or not self._takes(extension):
            super()._receive_long_text(text)
        elif extension != extensions.IMAGE:
            self._refuse(extension, text, _too_long(extension, self.limits))
        elif codec.is_laborious(text):
            self._refuse(
                extension, text, "this image message has more in it than an image; leave the rest out"
            )
        else:
            self._receive_text(text)

    def _takes(self, extension: str) -> bool:
        return self._ready_sent and extension in extensions.COMMANDS and extension in self._offer.names

    def _extension_received(self, command: ExtensionCommand | Played, text: str) -> None:
        extension = extension_of(command)
        if not self._takes(extension):
            self.events.append(Unknown(extension, text))
        elif (problem := find_problem(command, max_image_size=self.limits.max_image_size)) is not None:
            self._refuse(extension, text, problem)
        else:
            self.events.append(command)

    def _refuse(self, extension: str, text: str, problem: str) -> None:
        """Answer a command that can't be carried out, the message `text`."""
        self.events.append(Unknown(extension, text))
        if self.state is not _OPEN:
            return
        error = codec.encode(ErrorFrame(f"{extension.upper()}_REFUSED", problem))
        if self.outbox.size + len(error) > self.outbox.limit:
            self.violated(
                close_codes.POLICY, "the peer sends invalid messages and does not read what we send"
            )
        else:
            self._queue_short(error)

    def _accept_extensions(self, names: tuple[str, ...]) -> None:
        offer = self._offer
        offer.taken |= frozenset(names).intersection(offer.names)
        if extensions.USAGE in offer.taken:
            held, offer.held = offer.held, []
            if self.state is _OPEN:
                for text in held:
                    self._queue_short(text)


def encode(message: codec.ServerMessage | codec.PlainUsage | codec.ClientCommand) -> str:
    """Return a message of our own as JSON text; `LocalProtocolError` for one that can't be."""
    try:
        return codec.encode(message)
    except UnicodeEncodeError:
        raise LocalProtocolError(LONE_SURROGATE) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # Only the parameters of a tool can hold such values.
        raise LocalProtocolError(f"the parameters of a tool can't be written as JSON: {error}") from None


def _too_long(extension: str, limits: Limits) -> str:
    return f"this {extension} message has more than {limits.max_text_size} bytes; send a shorter one"


def _is_tool_call(text: str) -> bool:
    return text.startswith(_TOOL_CALL)


def _not_ready() -> LocalProtocolError:
    return LocalProtocolError("ready was not sent yet; call send_ready() first")


def require_text(**values: object) -> None:
    """Raise TypeError for a value that is not text."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(
                f"{name} must be a str, not {type(value).__name__}; pass structured data as JSON text"
            )


def _require_bool(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, not {type(value).__name__}")


def _require_amount(name: str, value: object) -> None:
    if name == "seconds":
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise LocalProtocolError(f"{name} must be a finite number, 0 or more, not {value!r}")
    elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise LocalProtocolError(f"{name} must be a whole number, 0 or more, not {value!r}")


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise LocalProtocolError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
