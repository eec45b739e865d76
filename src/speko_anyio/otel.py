"""OpenTelemetry for sessions (extra `otel`): spans of sessions, turns and tool calls, and the metrics.

::

    from speko_anyio.otel import OpenTelemetry

    async with speko.realtime.connect(provider=..., model=..., observer=OpenTelemetry()) as session: ...

Names follow OpenTelemetry's conventions for generative AI where those have one, and begin with ``speko.``
where they don't. No audio, no text and no exception's message is recorded: `docs/observability.md` lists
everything that is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from ._extras import install_extra

try:
    from opentelemetry import metrics, trace
except ImportError as _error:
    raise ImportError(f"speko_anyio.otel needs OpenTelemetry; {install_extra('otel')}") from _error
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from ._observe.observer import SessionInfo, SessionObserver
from ._version import __version__
from .protocol import close_codes
from .protocol._commands import (
    AudioIn,
    Command,
    Commit,
    EndTurn,
    ImageIn,
    Respond,
    Say,
    TextIn,
    ToolResult,
)
from .protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    ResponseEnd,
    ResponseStatus,
    ToolCall,
    Transcript,
    Usage,
)

_SCOPE: Final = "speko_anyio"

_PROVIDERS: Final = {"openai": "openai", "google": "gcp.gemini", "xai": "x_ai"}
"""The conventions' names of the providers; any other provider keeps the service's name."""

_GOOD_ENDS: Final = (close_codes.NORMAL, close_codes.GOING_AWAY, close_codes.NO_STATUS)

_FLUSH_AFTER: Final = 100
"""Frames to count here before the counters are updated, since an update costs far more than a frame."""

_LATENCIES: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Seconds. Finest around 0.3, where users begin to notice a delay."""

_DURATIONS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds, as the conventions recommend for durations."""

_SESSION_DURATIONS: Final = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0)
"""Seconds, up to the longest that a session may last."""

_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
"""Bounds that the conventions recommend."""

_UNTIMED: Final = frozenset({"server", "respond", "say"})
"""Triggers that are not the end of a turn of the user: the time to first audio is not measured for them."""

_Attributes = dict[str, AttributeValue]


class OpenTelemetry:
    """An observer for any number of sessions: pass it as ``observer``.

    - `tracer_provider`, `meter_provider`: by default the global ones.
    - `clock`: nanoseconds from any start; durations are measured on it.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        self._instruments = _Instruments(metrics.get_meter(_SCOPE, __version__, meter_provider))
        self._clock = clock

    def __call__(self, info: SessionInfo) -> SessionObserver:
        return _SessionTelemetry(info, self._tracer, self._instruments, self._clock)


class _Instruments:
    def __init__(self, meter: metrics.Meter) -> None:
        self.active = meter.create_up_down_counter(
            "speko.client.active_sessions", "{session}", "Sessions that are open or about to be."
        )
        self.session_duration = meter.create_histogram(
            "speko.client.session.duration",
            "s",
            "How long sessions lasted, connecting included.",
            explicit_bucket_boundaries_advisory=_SESSION_DURATIONS,
        )
        self.first_audio = meter.create_histogram(
            "speko.client.time_to_first_audio",
            "s",
            "From the end of the user's turn to the first audio of the answer.",
            explicit_bucket_boundaries_advisory=_LATENCIES,
        )
        self.tool_duration = meter.create_histogram(
            "gen_ai.execute_tool.duration",
            "s",
            "From a tool call to its result.",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of audio, text and images, as each report of usage counts them.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self.usage = meter.create_counter(
            "speko.client.tokens", "{token}", "Tokens by kind, as the reports of usage count them."
        )
        self.reported = meter.create_counter(
            "speko.client.reported_time", "s", "Seconds that the reports of usage count."
        )
        self.frames = meter.create_counter("speko.client.frames", "{frame}", "Frames sent and received.")
        self.io = meter.create_counter("speko.client.io", "By", "Bytes written to and read from transports.")
        self.errors = meter.create_counter(
            "speko.client.errors", "{error}", "Errors that the service reported, and sessions that failed."
        )


class _Turn:
    """A turn, from the end of the user's speech to the end of the answer."""

    def __init__(self, span: Span, began: int, *, timed: bool) -> None:
        self.span = span
        self.began = began
        self.last = began
        """When the last part of the answer came."""
        self.timed = timed
        """Whether the time to first audio has yet to be measured."""
        self.answered = False
        """Whether the answer is complete: further output belongs to another turn."""
        self.usage: Usage | None = None
        """The sum of what was reported."""


class _SessionTelemetry(SessionObserver):
    """The telemetry of one session: its span, and within it the spans of turns and tool calls."""

    def __init__(
        self,
        info: SessionInfo,
        tracer: trace.Tracer,
        instruments: _Instruments,
        clock: Callable[[], int],
    ) -> None:
        self._tracer = tracer
        self._instruments = instruments
        # Spans need the time of day. Read it once: if the clock were set meanwhile, a duration could be
        # negative.
        self._clock = clock
        self._offset = time.time_ns() - clock()
        self._model = info.model or ""
        self._about: _Attributes = {"server.address": info.host, "server.port": info.port}
        if info.provider is not None:
            self._about["gen_ai.provider.name"] = _PROVIDERS.get(info.provider, info.provider)
        if info.model is not None:
            self._about["gen_ai.request.model"] = info.model
        self._conversation: _Attributes = {"gen_ai.conversation.id": info.session_id}
        self._began = self._now()
        self._session = self._span("realtime", self._model, SpanKind.CLIENT, {"gen_ai.output.type": "speech"})
        self._turn: _Turn | None = None
        self._tools: dict[str, tuple[Span, str, int]] = {}
        self._close: Close | None = None
        self._frames: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._unflushed = 0
        instruments.active.add(1, self._about)

    # Observing

    def sent(self, command: Command) -> None:
        self._count("sent", command)
        match command:
            case AudioIn():
                pass
            case Commit():
                self._begin_turn("commit")
            case EndTurn():
                self._begin_turn("end_turn")
            case TextIn(respond=True):
                self._begin_turn("text")
            case ImageIn(respond=True):
                self._begin_turn("image")
            case Respond():
                self._begin_turn("respond")
            case Say():
                self._begin_turn("say")
            case ToolResult(call_id=call_id):
                if call_id in self._tools:
                    self._end_tool(call_id)
                    if self._turn is not None:
                        self._turn.answered = False
            case _:
                pass

    def received(self, frame: Frame) -> None:
        self._count("received", frame)
        match frame:
            case Audio():
                self._response(audio=True)
            case Transcript(role="assistant"):
                self._response()
            case ToolCall(call_id=call_id, name=name):
                self._response()
                self._begin_tool(call_id, name)
            case Usage():
                self._used(frame)
            case ResponseEnd(status=status):
                self._response_ended(status)
            case Interruption():
                self._end_tools("interrupted")
                if self._turn is not None:
                    self._turn.span.set_attribute("speko.turn.interrupted", True)
                    self._turn.last = self._now()
                    self._end_turn()
            case ErrorFrame(code=code):
                self._instruments.errors.add(1, {**self._about, "error.type": code})
                self._session.add_event("speko.error", {"error.type": code}, self._now())
            case Close():
                self._close = frame
            case _:
                pass

    def bytes_read(self, size: int) -> None:
        self._bytes["receive"] += size

    def bytes_taken(self, size: int) -> None:
        self._bytes["transmit"] += size

    def ended(self, error: BaseException | None) -> None:
        self._end_tools("unanswered")
        self._end_turn()
        self._flush()
        failure = self._failure(error)
        about = self._about
        if self._close is not None:
            self._session.set_attribute("speko.close.code", self._close.code)
            self._session.set_attribute("speko.close.initiated_by", self._close.initiated_by)
        if failure is not None:
            about = {**about, "error.type": failure}
            _fail(self._session, failure)
            self._instruments.errors.add(1, about)
        now = self._now()
        self._session.end(now)
        self._instruments.session_duration.record(_seconds(now - self._began), about)
        self._instruments.active.add(-1, self._about)

    def _failure(self, error: BaseException | None) -> str | None:
        if isinstance(error, Exception):
            return type(error).__qualname__
        # A cancelled session has not failed, and neither has one that ended as agreed.
        if self._close is None or self._close.code in _GOOD_ENDS or error is not None:
            return None
        return str(self._close.code)

    # Turns

    def _begin_turn(self, trigger: str) -> None:
        """Begin a turn: the user has spoken, or the model speaks unprompted."""
        self._end_turn()
        span = self._span(
            "chat", self._model, SpanKind.CLIENT, {"speko.turn.trigger": trigger}, self._session
        )
        self._turn = _Turn(span, self._now(), timed=trigger not in _UNTIMED)

    def _response(self, *, audio: bool = False) -> None:
        if self._turn is None or self._turn.answered:
            # The server detected the end of the user's speech and does not say when that was.
            self._begin_turn("server")
        turn = self._turn
        assert turn is not None
        turn.last = self._now()
        if audio and turn.timed:
            turn.timed = False
            seconds = _seconds(turn.last - turn.began)
            turn.span.set_attribute("speko.turn.time_to_first_audio", seconds)
            self._instruments.first_audio.record(seconds, self._about)

    def _used(self, usage: Usage) -> None:
        for kind, count in _totals(usage).items():
            about = {**self._about, "gen_ai.operation.name": "chat", "gen_ai.token.type": kind}
            self._instruments.tokens.record(count, about)
        for kind, count in _by_kind(usage).items():
            self._instruments.usage.add(count, {**self._about, "speko.token.kind": kind})
        if usage.seconds:
            self._instruments.reported.add(usage.seconds, self._about)
        turn = self._turn
        if turn is not None:
            turn.last = self._now()
            turn.usage = usage if turn.usage is None else turn.usage + usage

    def _response_ended(self, status: ResponseStatus) -> None:
        turn = self._turn
        if turn is not None:
            turn.last = self._now()
            if status != "done":
                turn.span.set_attribute("speko.turn.status", status)
            # What follows is another turn, unless it answers a tool's result.
            turn.answered = not self._tools

    def _end_turn(self) -> None:
        turn = self._turn
        if turn is not None:
            self._turn = None
            if turn.usage is not None:
                for kind, count in _totals(turn.usage).items():
                    turn.span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
                for kind, count in _by_kind(turn.usage).items():
                    turn.span.set_attribute(f"speko.usage.{kind}_tokens", count)
            turn.span.end(turn.last)
            self._flush()

    # Tools

    def _begin_tool(self, call_id: str, name: str) -> None:
        assert self._turn is not None, "a call is part of a response"
        about: _Attributes = {
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call_id,
            "gen_ai.tool.type": "function",
        }
        span = self._span("execute_tool", name, SpanKind.INTERNAL, about, self._turn.span)
        self._tools[call_id] = span, name, self._now()

    def _end_tool(self, call_id: str, failure: str | None = None) -> None:
        span, name, began = self._tools.pop(call_id)
        about: _Attributes = {**self._about, "gen_ai.tool.name": name}
        if failure is not None:
            about["error.type"] = failure
            _fail(span, failure)
        now = self._now()
        span.end(now)
        self._instruments.tool_duration.record(_seconds(now - began), about)

    def _end_tools(self, failure: str) -> None:
        for call_id in tuple(self._tools):
            self._end_tool(call_id, failure)

    # Spans and counters

    def _now(self) -> int:
        return self._clock() + self._offset

    def _span(
        self, operation: str, of: str, kind: SpanKind, attributes: _Attributes, parent: Span | None = None
    ) -> Span:
        return self._tracer.start_span(
            f"{operation} {of}".strip(),
            None if parent is None else trace.set_span_in_context(parent),
            kind,
            {**self._about, **self._conversation, "gen_ai.operation.name": operation, **attributes},
            start_time=self._now(),
        )

    def _count(self, direction: str, said: Frame | Command) -> None:
        self._frames[direction, type(said).__name__] += 1
        self._unflushed += 1
        if self._unflushed >= _FLUSH_AFTER:
            self._flush()

    def _flush(self) -> None:
        for (direction, kind), count in self._frames.items():
            about = {**self._about, "speko.frame.type": kind, "speko.frame.direction": direction}
            self._instruments.frames.add(count, about)
        for direction, size in self._bytes.items():
            self._instruments.io.add(size, {**self._about, "network.io.direction": direction})
        self._frames.clear()
        self._bytes.clear()
        self._unflushed = 0


def _totals(usage: Usage) -> dict[str, int]:
    """Return the tokens in each direction, of all kinds; those that were cached are among them."""
    return {
        "input": usage.input_audio_tokens + usage.input_text_tokens + usage.input_image_tokens,
        "output": usage.output_audio_tokens + usage.output_text_tokens,
    }


def _by_kind(usage: Usage) -> dict[str, int]:
    """Return the tokens of each kind that has any: ``input_audio``, ``cached_text`` and so on."""
    return {
        name.removesuffix("_tokens"): getattr(usage, name)
        for name in usage.__struct_fields__
        if name != "seconds" and getattr(usage, name)
    }


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _seconds(nanoseconds: int) -> float:
    return nanoseconds / 1e9
