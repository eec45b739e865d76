"""The base of all providers' dialects: the state that a bridge or a log reads, and common helpers."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypedDict

from ..protocol import close_codes
from ..protocol._calls import no_open_call
from ..protocol._commands import ExtensionCommand, Update, extension_of
from ..protocol._limits import Limits
from ..protocol._pcm import Buffer, half_a_sample, pcm_bytes
from ..protocol._session import ClientDialect, require_text
from ..protocol._state import Signal, State
from ..protocol._timeouts import DEFAULT_TIMEOUTS
from ..protocol.capabilities import Capabilities, refusal, unchangeable
from ..protocol.errors import LONE_SURROGATE, LocalProtocolError, SpekoError
from ..protocol.frames import Close, ErrorFrame, Frame, ResponseEnd, Transcript
from . import _closes as closes
from . import codes
from ._heard import HeardEstimate
from ._held_input import HeldInput, held_size
from ._lenient import text_of

PROVIDER_LIMITS: Final = Limits(max_message_size=16 * 1024 * 1024, max_text_size=16 * 1024 * 1024)
"""The default limits of these dialects. Audio travels as JSON here, so a provider's messages exceed 1 MiB;
16 MiB is OpenAI's own limit for the other direction, rounded up."""

SAY_EXACTLY: Final = "Say exactly the following, word for word, and nothing else:\n\n"
"""The instruction that precedes a text for a model to say."""

_HELD_SECONDS: Final = 10
"""Seconds of audio that are held before `Ready`."""


class ProviderSession(NamedTuple):
    """What the provider reports about the session."""

    id: str | None = None
    model: str | None = None
    """The model that answers: aliases are resolved, and xAI replaces a missing name silently."""
    expires_at: float | None = None
    """The provider's time limit, in seconds since 1970: the session ends then unless it is resumed."""
    conversation_id: str | None = None
    """With this id, xAI resumes the conversation in another session."""


class DialectOptions(TypedDict, total=False):
    """The parameters of all providers' dialects; every time is in seconds."""

    limits: Limits
    """Bounds on what the provider may send, and on what may wait to be sent; default `PROVIDER_LIMITS`."""
    close_timeout: float
    """For the provider's answer to our close; default 5."""
    ready_timeout: float
    """From the opening until the provider must have accepted the configuration; default 10."""
    warn_before: float
    """Before the end that `ttl` tells, at which `Expiring` is delivered; default 60."""
    state: State
    """OPEN, the default, where the WebSocket is the caller's; CONNECTING beneath a byte level."""


class ProviderDialect(ClientDialect, abc.ABC):
    """The client's side of a session with a provider.

    - `input_sample_rate`, `output_sample_rate`: samples a second that the provider was asked for.
    - `notes`: the parts of the configuration that the provider can't honour.
    - `ready_timeout`: seconds from the opening until the provider must have accepted the configuration.

    The remaining parameters are those of `Dialect`. If the provider closes because of a failure, there is an
    `ErrorFrame` with one of `codes`, and the `Close` that follows has the same code as its reason; see
    `closes`. To make the truncation of interrupted audio exact, see `HeardEstimate`.
    """

    _service: closes.Service
    """The service whose closes are judged."""

    def __init__(
        self,
        *,
        input_sample_rate: int,
        output_sample_rate: int,
        notes: tuple[str, ...],
        ttl: float | None,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = DEFAULT_TIMEOUTS.close,
        ready_timeout: float = DEFAULT_TIMEOUTS.ready,
        warn_before: float = DEFAULT_TIMEOUTS.warn_before,
        state: State = State.OPEN,
    ) -> None:
        self._ready_timeout = ready_timeout  # first: the next call may start the timers
        super().__init__(
            limits=limits, close_timeout=close_timeout, ttl=ttl, warn_before=warn_before, state=state
        )
        self.input_sample_rate = input_sample_rate
        """Samples a second of the audio that `send_audio` takes: the provider's, see `Ready`."""
        self.output_sample_rate = output_sample_rate
        """Samples a second of the audio that arrives: the provider's, see `Ready` and `Audio.sample_rate`."""
        self.notes = notes
        """Parts of the configuration that the provider can't honour, and what became of them; for a log."""
        self.playback: HeardEstimate = HeardEstimate(output_sample_rate)
        self.provider_session: ProviderSession = ProviderSession()
        self.failure: ErrorFrame | None = None
        """The error that ended the session; None while it is open or if no error ended it. It is also
        delivered, like any `ErrorFrame`."""
        self.turns_heard = 0
        """Number of the user's turns whose end the provider detected while it was not answering. Gemini does
        not report them."""
        self.resuming = False
        """Whether this connection resumes an earlier one, with the handle that `resumption` returned."""
        self.verdict: closes.Verdict | None = None
        """What the provider's close meant; None until then, or if something else ended the session."""
        self.cut_short: bool = False
        """Whether the session ended in the middle of somebody's speech."""
        self._accepted = False
        self._leaving = False
        self._held = HeldInput(min(_HELD_SECONDS * input_sample_rate * 2, limits.max_outbox // 2))

    @property
    def capabilities(self) -> Capabilities:
        """What the provider's model can do; known before `Ready`."""
        return Capabilities()

    def update(self, update: Update) -> None:
        """Queue an update as `ClientDialect` says; all of its fields must be in `capabilities`."""
        fixed = tuple(name for name in update.fields if name not in self.capabilities.update)
        if fixed and self.capabilities.update:
            raise unchangeable(fixed, self.who)
        super().update(update)

    def _queue_extension(self, command: ExtensionCommand) -> None:
        raise refusal(extension_of(command), self.who)

    def _report_played(self, seconds: float) -> bool:
        # No provider takes such reports itself. They tell where an interrupted answer is truncated.
        self.playback.played(seconds * 1000)
        return self.capabilities.truncate

    def send_provider_event(self, event: str) -> None:
        require_text(event=event)
        if not self._accepted:
            self._check_open()
            raise LocalProtocolError("the provider is not ready yet; wait for `Ready`, then send events")
        try:
            event.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError(LONE_SURROGATE) from None
        self._queue_text(event)

    def watch_provider(self, tell: Callable[[str], None]) -> None:
        receive = self.receive_message

        def tell_and_receive(message: str | bytes) -> None:
            tell(message if isinstance(message, str) else text_of(message))
            receive(message)

        # Replaced in this object only, so that a session that nobody watches pays nothing for it.
        vars(self)["receive_message"] = tell_and_receive

    @abc.abstractmethod
    def takes_result(self, call_id: str) -> bool:
        """Whether `send_tool_result` accepts a result for this call, even if the call was abandoned."""

    @property
    @abc.abstractmethod
    def responding(self) -> bool:
        """Whether a response is in flight."""

    @property
    @abc.abstractmethod
    def at_rest(self) -> bool:
        """Whether the session could be resumed elsewhere without losing anything.

        Nobody speaks, and no response and no tool's result is under way.
        """

    @property
    def resumption(self) -> str | None:
        """The handle with which another dialect continues this session.

        None if there is none, or if the session ended for a reason that would recur.
        """
        return None

    @property
    def dialect(self) -> ProviderDialect:
        """The dialect itself, so that a dialect and a connection that has one can be used alike."""
        return self

    @property
    def moment(self) -> closes.Moment:
        """The stage of the session, by which a close is judged."""
        if not self._accepted:
            return closes.Moment.RESUMING if self.resuming else closes.Moment.SETUP
        if self._leaving:
            return closes.Moment.LEAVING
        return closes.Moment.ANSWERING if self.responding or self.open_calls else closes.Moment.IDLE

    @property
    def _may_resume(self) -> bool:
        """Whether the session can still be resumed, if it has ended."""
        return self.failure is None if self.verdict is None else self.verdict.retry

    @property
    def held_audio_dropped(self) -> int:
        """Bytes of audio sent before `Ready` that exceeded the limit: the oldest were dropped."""
        return self._held.dropped

    @abc.abstractmethod
    def _take_open_texts(self) -> list[Transcript]:
        """Return the incomplete texts of both sides as final: nothing more comes of them."""

    def _peer_closed(self, code: int, reason: str) -> None:
        if self.state is State.OPEN:
            self.verdict = verdict = closes.judge(self._service, code, reason, self.moment)
            if verdict.code is not None:
                self.failure = ErrorFrame(verdict.code, closes.explain(verdict, code, reason))
                self.events.append(self.failure)
                reason = verdict.code
        super()._peer_closed(code, reason)

    def _not_ready(self) -> None:
        message = f"the provider did not accept the session within {self._ready_timeout:g} s; try again"
        self._fail(ErrorFrame(codes.NOT_READY, message))

    def _fail(self, error: ErrorFrame, reason: str | None = None) -> None:
        """End the session with `error`; the reason of the close is its code, if no other is given."""
        self.failure = error
        self._emit(error)
        self.close(close_codes.NORMAL, error.code if reason is None else reason)

    def _break(self, close_code: int, message: str) -> None:
        """End the session because the provider broke its protocol, unless it has ended already."""
        if self.state is not State.CLOSED:
            self.violated(close_code, message)

    def _too_many_calls(self) -> None:
        self._break(
            close_codes.POLICY,
            f"the provider has {self.limits.max_open_calls} tool calls open and issued another",
        )

    def _emit(self, frame: Frame | None) -> None:
        """Queue a frame for the caller, unless it is None or the session has ended."""
        if frame is None or self.state is State.CLOSED:
            return
        if type(frame) is Transcript and len(frame.text) > self.limits.max_text_size:
            self.violated(
                close_codes.TOO_BIG,
                f"the provider sent a transcript of more than {self.limits.max_text_size} characters",
            )
        else:
            self.events.append(frame)

    def _emit_all(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._emit(frame)

    def _start_session_timers(self) -> None:
        super()._start_session_timers()
        self.timers.start("ready", self._ready_timeout)

    def _start_timer(self, name: str, seconds: float) -> None:
        """Start a timer, unless the session is ending: then only its end matters."""
        if self.state is State.OPEN:
            self.timers.start(name, seconds)

    def run_timer(self, name: str, late: float) -> None:
        if name == "ready":
            self._not_ready()
            return
        # A close after the warning is the expected one, even if it has no reason.
        self._leaving = self._leaving or name == "expiry warning"
        super().run_timer(name, late)

    def _open_response_end(self, wanted: bool) -> ResponseEnd | None:
        """Return the end of the response that the session's end cuts off, if one is under way.

        `wanted`: we ended the session.
        """
        return None

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        # Nothing else completes the texts and the response. Texts beyond the limit were never delivered.
        texts = [text for text in self._take_open_texts() if len(text.text) <= self.limits.max_text_size]
        self.cut_short = bool(texts)
        self.events.extend(texts)
        end = self._open_response_end(close.initiated_by == "local" and error is None)
        if end is not None:
            self.events.append(end)
        super()._finish(signal, close, error)

    def _hold(self, command: ExtensionCommand) -> None:
        """Hold a command in its place among the held input; `LocalProtocolError` when too much is held."""
        size = held_size(command)
        if self._held.commands_size + size > self.limits.max_outbox // 2:
            raise LocalProtocolError(
                "the provider is not ready yet, and no more can be held for it; wait for `Ready`, then send"
            )
        self._held.add_command(command, size)

    def _checked_audio(self, pcm: Buffer) -> bytes:
        """Return the bytes of `pcm`; raise as `send_audio`."""
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        self._check_open()
        if len(pcm) & 1:
            raise half_a_sample(len(pcm))
        return pcm

    def _check_result(self, call_id: str, output: str) -> None:
        """Raise as `send_tool_result`."""
        require_text(call_id=call_id, output=output)
        self._check_open()
        if not self.takes_result(call_id):
            raise no_open_call(call_id)
