"""What the dialects of all providers have beyond the verbs: what a bridge, or a log, wants to know of one."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import ClassVar, Final, NamedTuple, TypedDict

from ..protocol import close_codes
from ..protocol.errors import LocalProtocolError, SpekoError
from ..protocol.frames import Close, ErrorFrame, Frame, ResponseEnd, Transcript
from ..protocol.limits import Limits
from ..protocol.pcm import Buffer, pcm_bytes
from ..protocol.session import ClientDialect
from ..protocol.state import Signal, State
from . import closes, codes
from .heard import HeardEstimate
from .held_input import HeldInput

PROVIDER_LIMITS: Final = Limits(max_message_size=16 * 1024 * 1024, max_text_size=16 * 1024 * 1024)
"""The default limits of these dialects: audio travels as JSON here, and a provider's messages pass 1 MiB;
16 MiB is the size that OpenAI itself sets for the other direction, rounded up."""

_HELD_SECONDS: Final = 10
"""Of audio that is kept before `Ready`."""


class ProviderSession(NamedTuple):
    """The session as the provider names it."""

    id: str | None = None
    model: str | None = None
    """The model that really answers: an alias is resolved, and xAI replaces a missing one silently."""
    expires_at: float | None = None
    """The provider's time limit, in seconds since 1970; a session that is not resumed ends then."""
    conversation_id: str | None = None
    """With this, xAI resumes the conversation in another session."""


class DialectOptions(TypedDict, total=False):
    """What the dialects of all providers take; every time is in seconds."""

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
    """The client's side of a session with a provider. `HeardEstimate.clock` tells how the caller makes the
    truncation of interrupted audio exact.

    - `input_sample_rate`, `output_sample_rate`: samples a second that were asked of the provider.
    - `notes`: what of the configuration the provider can't honour.
    - `ready_timeout`: seconds from the opening until the provider must have accepted the configuration.

    The remaining parameters are those of `Dialect`. If the provider closes because of a failure, there is an
    `ErrorFrame` with one of `codes`, and the `Close` that follows has the same code as its reason; see
    `closes`.
    """

    _service: ClassVar[closes.Service]

    def __init__(
        self,
        *,
        input_sample_rate: int,
        output_sample_rate: int,
        notes: tuple[str, ...],
        ttl: float | None,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = 5.0,
        ready_timeout: float = 10.0,
        warn_before: float = 60.0,
        state: State = State.OPEN,
    ) -> None:
        self._ready_timeout = ready_timeout  # first: the timers start with what follows
        super().__init__(
            limits=limits, close_timeout=close_timeout, ttl=ttl, warn_before=warn_before, state=state
        )
        self.input_sample_rate = input_sample_rate
        """Samples a second of the audio that `send_audio` takes: the provider's, see `Ready`."""
        self.output_sample_rate = output_sample_rate
        """Samples a second of the audio that comes: the provider's, see `Ready` and `Audio.sample_rate`."""
        self.notes = notes
        """What of the configuration the provider can't honour, and what became of it; for a log."""
        self.playback = HeardEstimate(output_sample_rate)
        self.provider_session = ProviderSession()
        self.failure: ErrorFrame | None = None
        """The error that ended the session; None when something else did, or nothing yet. It was, or is
        still to be, delivered like any `ErrorFrame`."""
        self.turns_heard = 0
        """Turns of the user that the provider said were over, as it heard it, while it was not answering.
        Gemini says no such thing."""
        self.resuming = False
        """Whether this connection resumes an earlier one, with the handle that `resumption` returned."""
        self.verdict: closes.Verdict | None = None
        """What the provider's close meant; None until then, or if something else ended the session."""
        self.cut_short = False
        """Whether the end of the session was in the middle of what somebody said."""
        self._accepted = False
        self._leaving = False
        self._held = HeldInput(min(_HELD_SECONDS * input_sample_rate * 2, limits.max_outbox // 2))

    @property
    @abc.abstractmethod
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""

    @abc.abstractmethod
    def takes_result(self, call_id: str) -> bool:
        """Whether `send_tool_result` would take a result for this call, wanted or not."""

    @property
    @abc.abstractmethod
    def odd_fields(self) -> int:
        """How many fields of the provider's messages had an odd value and were read as another, or ignored;
        see `lenient`."""

    @property
    @abc.abstractmethod
    def responding(self) -> bool:
        """Whether more may come of the response in flight."""

    @property
    @abc.abstractmethod
    def at_rest(self) -> bool:
        """Whether nothing would be lost if the session went on elsewhere: nobody speaks, and no answer and
        no tool's result is under way."""

    @property
    def resumption(self) -> str | None:
        """With what another dialect goes on where this one is; None when there is no such thing, or the
        session ended for a reason that would come again."""
        return None

    @property
    def moment(self) -> closes.Moment:
        """What has happened so far, for judging a close."""
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
        """Bytes of audio that were sent before `Ready` and were too many to keep: the oldest go first."""
        return self._held.dropped

    @abc.abstractmethod
    def _take_open_texts(self) -> list[Transcript]:
        """The texts of both sides that were not final: nothing more comes of them."""

    def _peer_closed(self, code: int, reason: str) -> None:
        if self._state is State.OPEN:
            self.verdict = verdict = closes.judge(self._service, code, reason, self.moment)
            if verdict.code is not None:
                self.failure = ErrorFrame(verdict.code, closes.explain(verdict, code, reason))
                self._events.append(self.failure)
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
        if self._state is not State.CLOSED:
            self._violated(close_code, message)

    def _too_many_calls(self) -> None:
        self._break(
            close_codes.POLICY,
            f"the provider has {self.limits.max_open_calls} tool calls open and issued another",
        )

    def _emit(self, frame: Frame | None) -> None:
        """Deliver a frame to the caller, if there is one and the session has not just ended."""
        if frame is None or self._state is State.CLOSED:
            return
        if type(frame) is Transcript and len(frame.text) > self.limits.max_text_size:
            self._violated(
                close_codes.TOO_BIG,
                f"the provider sent a transcript of more than {self.limits.max_text_size} characters",
            )
        else:
            self._events.append(frame)

    def _emit_all(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._emit(frame)

    def _start_session_timers(self) -> None:
        super()._start_session_timers()
        self._timers.start("ready", self._ready_timeout)

    def _start_timer(self, name: str, seconds: float) -> None:
        """Start a timer, unless the session is ending: then only its end is waited for."""
        if self._state is State.OPEN:
            self._timers.start(name, seconds)

    def _timer_expired(self, name: str, late: float) -> None:
        if name == "ready":
            self._not_ready()
            return
        # At that time, even servers that give no reason close.
        self._leaving = self._leaving or name == "expiry warning"
        super()._timer_expired(name, late)

    def _open_response_end(self, wanted: bool) -> ResponseEnd | None:
        """The end of the answer that is cut off with the session, if there is one; `wanted`: we ended the
        session."""
        return None

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        # Whoever waits for what was said hears of no other end. What is too long to tell was not told before.
        texts = [text for text in self._take_open_texts() if len(text.text) <= self.limits.max_text_size]
        self.cut_short = bool(texts)
        self._events.extend(texts)
        end = self._open_response_end(close.initiated_by == "local" and error is None)
        if end is not None:
            self._events.append(end)
        super()._finish(signal, close, error)

    def _checked_audio(self, pcm: Buffer) -> bytes:
        """The bytes of `pcm`; raises as `send_audio`."""
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        self._check_open()
        if len(pcm) & 1:
            raise LocalProtocolError(
                f"audio is PCM16, two bytes a sample, but this has {len(pcm)} bytes; "
                "send whole samples and keep the odd byte for the next call"
            )
        return pcm

    def _check_result(self, call_id: str, output: str) -> None:
        """Raises as `send_tool_result`."""
        for name, value in (("call_id", call_id), ("output", output)):
            if not isinstance(value, str):
                raise TypeError(
                    f"{name} must be a str, not {type(value).__name__}; pass structured data as JSON text"
                )
        self._check_open()
        if not self.takes_result(call_id):
            raise LocalProtocolError(
                f"no tool call {call_id!r} is open; answer each received call once, by its own id"
            )
