"""What OpenTelemetry is told, read back from its own SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from speko_anyio import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    RealtimeSession,
    ResponseEnd,
    SessionInfo,
    Speko,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.gateway import Gateway, ServerSession, running_gateway
from speko_anyio.otel import OpenTelemetry
from speko_anyio.protocol import AudioIn, Commit, EndTurn, ImageIn, Respond, Say, TextIn, ToolResult
from speko_anyio.testing.server import FakeServer, connected

PCM = b"the-voice-of-a-person-" * 40
WORDS = ["the-voice", "what-was-said", "what-was-asked", "what-was-answered"]


class Telemetry:
    """OpenTelemetry in memory, on a clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.nanoseconds = 0
        self.observer = OpenTelemetry(
            tracer_provider=self.tracers, meter_provider=self.meters, clock=lambda: self.nanoseconds
        )

    def wait(self, seconds: float) -> None:
        self.nanoseconds += round(seconds * 1e9)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Finished spans, in the order of their ends."""
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def sums(self, name: str, *by: str) -> dict[tuple[Any, ...], float]:
        """The sum of each point, by these attributes."""
        found = {}
        for point in self.points(name):
            assert isinstance(point, HistogramDataPoint | NumberDataPoint)
            key = tuple((point.attributes or {}).get(name) for name in by)
            found[key] = point.sum if isinstance(point, HistogramDataPoint) else point.value
        return found


Said = Commit | EndTurn | AudioIn | ToolResult | TextIn | ImageIn | Respond | Say


class Script:
    """A session told to an observer, frame by frame, without any I/O."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.observer = self.telemetry.observer(
            SessionInfo(session_id="s1", host="speko.test", port=443, provider="google", model="gemini-live")
        )

    def play(self, *steps: Frame | Said | float) -> Telemetry:
        """Numbers are seconds that pass."""
        for step in steps:
            match step:
                case float():
                    self.telemetry.wait(step)
                case int():
                    raise AssertionError("seconds are floats")
                case (
                    Commit() | EndTurn() | AudioIn() | ToolResult() | TextIn() | ImageIn() | Respond() | Say()
                ):
                    self.observer.sent(step)
                case _:
                    self.observer.received(step)
        return self.telemetry

    def end(self, error: BaseException | None = None) -> Telemetry:
        self.observer.ended(error)
        return self.telemetry


SPOKEN = Audio(b"\x01\x02", 24_000)


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_the_span_of_a_session() -> None:
    script = Script()
    script.play(3.0, Close(1000, "", "remote"))
    (span,) = script.end().spans
    assert (span.name, span.kind) == ("realtime gemini-live", SpanKind.CLIENT)
    assert attributes(span) == {
        "gen_ai.operation.name": "realtime",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-live",
        "gen_ai.conversation.id": "s1",
        "gen_ai.output.type": "speech",
        "server.address": "speko.test",
        "server.port": 443,
        "speko.close.code": 1000,
        "speko.close.initiated_by": "remote",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert seconds(span) == 3.0
    assert script.telemetry.sums("speko.client.session.duration", "error.type") == {(None,): 3.0}


@pytest.mark.parametrize(
    ("provider", "expected"), [("openai", "openai"), ("xai", "x_ai"), ("local", "local"), (None, None)]
)
def test_the_provider_by_the_name_of_the_conventions(provider: str | None, expected: str | None) -> None:
    telemetry = Telemetry()
    telemetry.observer(SessionInfo(session_id="s", host="h", port=1, provider=provider)).ended(None)
    (span,) = telemetry.spans
    assert span.name == "realtime"
    assert attributes(span).get("gen_ai.provider.name") == expected
    assert "gen_ai.request.model" not in attributes(span)


@pytest.mark.parametrize(
    ("close", "error", "expected"),
    [
        (None, RuntimeError("what-was-said"), "RuntimeError"),
        (Close(1006, "lost", "transport"), None, "1006"),
        (Close(4401, "no", "remote"), None, "4401"),
        (Close(1000, "", "local"), None, None),
        (Close(1001, "", "remote"), None, None),
        (Close(1005, "", "remote"), None, None),
        (Close(1006, "cancelled", "local"), GeneratorExit(), None),
        (None, None, None),
    ],
)
def test_what_counts_as_a_failure(close: Close | None, error: Any, expected: str | None) -> None:
    script = Script()
    if close is not None:
        script.play(close)
    telemetry = script.end(error)
    (span,) = telemetry.spans
    assert attributes(span).get("error.type") == expected
    assert span.status.status_code is (StatusCode.ERROR if expected else StatusCode.UNSET)
    assert span.status.description is None
    assert telemetry.sums("speko.client.errors", "error.type") == ({(expected,): 1} if expected else {})
    assert not span.events


@pytest.mark.parametrize(("said", "trigger"), [(Commit(), "commit"), (EndTurn(), "end_turn")])
def test_a_turn_and_its_time_to_first_audio(said: Said, trigger: str) -> None:
    script = Script()
    script.play(1.0, AudioIn(b"\x01\x02", 24_000), said, 0.2, Transcript("assistant", "hi"), 0.1)
    script.play(SPOKEN, 0.5, SPOKEN, 0.25, Usage(10, 20), ResponseEnd("done"), 9.0, Close(1000, "", "local"))
    telemetry = script.end()
    turn, session = telemetry.spans
    assert (turn.name, turn.kind) == ("chat gemini-live", SpanKind.CLIENT)
    assert turn.parent is not None
    assert turn.parent.span_id == id_of(session)
    assert attributes(turn)["gen_ai.operation.name"] == "chat"
    assert attributes(turn)["gen_ai.conversation.id"] == "s1"
    assert attributes(turn)["speko.turn.trigger"] == trigger
    assert attributes(turn)["speko.turn.time_to_first_audio"] == pytest.approx(0.3)
    assert attributes(turn)["gen_ai.usage.input_tokens"] == 10
    assert attributes(turn)["gen_ai.usage.output_tokens"] == 20
    # To the last that was heard of it, not to when we could know.
    assert seconds(turn) == pytest.approx(1.05)
    assert telemetry.sums("speko.client.time_to_first_audio") == {(): pytest.approx(0.3)}
    assert telemetry.sums("gen_ai.client.token.usage", "gen_ai.token.type") == {
        ("input",): 10,
        ("output",): 20,
    }


def test_tokens_of_every_kind_are_told_apart() -> None:
    script = Script()
    usage = Usage(10, 20, 30, 40, 50, 6, 7, 8, 1.5)
    script.play(Commit(), SPOKEN, usage, Usage(1, 1), ResponseEnd("done"))
    telemetry = script.end()
    turn = attributes(telemetry.span("chat gemini-live"))
    # Of audio, text and images; what was cached is among them.
    assert turn["gen_ai.usage.input_tokens"] == 10 + 30 + 50 + 1
    assert turn["gen_ai.usage.output_tokens"] == 20 + 40 + 1
    kinds = {
        "input_audio": 11,
        "output_audio": 21,
        "input_text": 30,
        "output_text": 40,
        "input_image": 50,
        "cached_audio": 6,
        "cached_text": 7,
        "output_reasoning": 8,
    }
    told = {name: count for name, count in turn.items() if name.startswith("speko.usage.")}
    assert told == {f"speko.usage.{kind}_tokens": count for kind, count in kinds.items()}
    assert telemetry.sums("speko.client.tokens", "speko.token.kind") == {
        (kind,): count for kind, count in kinds.items()
    }
    assert telemetry.sums("speko.client.reported_time") == {(): 1.5}
    assert telemetry.sums("gen_ai.client.token.usage", "gen_ai.token.type") == {
        ("input",): 91,
        ("output",): 61,
    }


@pytest.mark.parametrize(
    ("said", "trigger", "timed"),
    [
        (TextIn("hi", respond=True), "text", True),
        (ImageIn("image/png", b"png", respond=True), "image", True),
        (Respond(), "respond", False),
        (Say("hi"), "say", False),
    ],
)
def test_a_turn_without_speech(said: Said, trigger: str, timed: bool) -> None:
    script = Script()
    script.play(TextIn("context"), 1.0, said, 0.2, SPOKEN, ResponseEnd("done"))
    telemetry = script.end()
    turn = telemetry.span("chat gemini-live")
    assert attributes(turn)["speko.turn.trigger"] == trigger
    assert seconds(turn) == pytest.approx(0.2)
    # Only the user's turns have one.
    assert ("speko.turn.time_to_first_audio" in attributes(turn)) is timed


def test_a_turn_that_the_server_found_has_no_time_to_first_audio() -> None:
    script = Script()
    script.play(AudioIn(b"\x01\x02", 24_000), 1.0, SPOKEN, 0.5, SPOKEN, Usage(1, 1), ResponseEnd("done"))
    script.play(2.0, Transcript("assistant", "hi"), SPOKEN)
    telemetry = script.end()
    turns = [span for span in telemetry.spans if span.name.startswith("chat")]
    assert [attributes(span)["speko.turn.trigger"] for span in turns] == ["server", "server"]
    assert [seconds(span) for span in turns] == [0.5, 0.0]
    assert telemetry.points("speko.client.time_to_first_audio") == []


def test_an_interruption_ends_the_turn_and_its_calls() -> None:
    script = Script()
    script.play(Commit(), 0.1, SPOKEN, ToolCall("c1", "look_up", ""), 0.2, Interruption())
    assert script.telemetry.sums("gen_ai.execute_tool.duration", "error.type") == {
        ("interrupted",): pytest.approx(0.2)
    }
    # The result comes all the same, and is nobody's.
    script.play(1.0, ToolResult("c1", "rain"))
    telemetry = script.end()
    turn = telemetry.span("chat gemini-live")
    assert attributes(turn)["speko.turn.interrupted"] is True
    assert seconds(turn) == pytest.approx(0.3)
    assert attributes(telemetry.span("execute_tool look_up"))["error.type"] == "interrupted"


def test_tool_calls_are_within_the_turn_that_goes_on_after_them() -> None:
    script = Script()
    script.play(Commit(), 0.1, ToolCall("c1", "look_up", "what-was-asked"), 0.1)
    script.play(ToolCall("c2", "add", ""), Usage(1, 2), ResponseEnd("done"), 0.3)
    script.play(ToolResult("c1", "what-was-answered"), 0.1)
    script.play(ToolResult("c2", "2"), 0.4, SPOKEN, Usage(3, 4), ResponseEnd("done"))
    telemetry = script.end()
    turn = telemetry.span("chat gemini-live")
    assert attributes(turn)["speko.turn.time_to_first_audio"] == pytest.approx(1.0)
    assert attributes(turn)["gen_ai.usage.input_tokens"] == 4
    call = telemetry.span("execute_tool look_up")
    assert call.kind is SpanKind.INTERNAL
    assert call.parent is not None
    assert call.parent.span_id == id_of(turn)
    assert attributes(call)["gen_ai.tool.name"] == "look_up"
    assert attributes(call)["gen_ai.tool.call.id"] == "c1"
    assert attributes(call)["gen_ai.tool.type"] == "function"
    assert telemetry.sums("gen_ai.execute_tool.duration", "gen_ai.tool.name") == {
        ("look_up",): pytest.approx(0.4),
        ("add",): pytest.approx(0.4),
    }


def test_a_call_without_a_result_is_unanswered() -> None:
    script = Script()
    script.play(ToolCall("c1", "look_up", ""), 0.2)
    call, turn, session = script.end().spans
    assert attributes(call)["error.type"] == "unanswered"
    assert call.status.status_code is StatusCode.ERROR
    assert (turn.name, session.name) == ("chat gemini-live", "realtime gemini-live")


def test_errors_of_the_service_are_counted_without_their_words() -> None:
    script = Script()
    script.play(ErrorFrame("BUSY", "what-was-said"), Close(1000, "", "remote"))
    telemetry = script.end()
    assert telemetry.sums("speko.client.errors", "error.type") == {("BUSY",): 1}
    (span,) = telemetry.spans
    (event,) = span.events
    assert (event.name, event.attributes) == ("speko.error", {"error.type": "BUSY"})
    assert span.status.status_code is StatusCode.UNSET


def test_frames_and_bytes_are_counted_and_told_in_portions() -> None:
    script = Script()
    by = ("speko.frame.direction", "speko.frame.type")
    for _ in range(99):
        script.play(SPOKEN)
    assert script.telemetry.sums("speko.client.frames", *by) == {}
    script.observer.bytes_read(5)
    script.observer.bytes_taken(7)
    script.play(AudioIn(b"\x01\x02", 24_000))
    assert script.telemetry.sums("speko.client.frames", *by) == {
        ("received", "Audio"): 99,
        ("sent", "AudioIn"): 1,
    }
    script.play(SPOKEN)
    telemetry = script.end()
    assert telemetry.sums("speko.client.frames", *by)["received", "Audio"] == 100
    assert telemetry.sums("speko.client.io", "network.io.direction") == {("receive",): 5, ("transmit",): 7}


def test_sessions_are_counted_while_they_live() -> None:
    script = Script()
    assert script.telemetry.sums("speko.client.active_sessions") == {(): 1}
    assert script.end().sums("speko.client.active_sessions") == {(): 0}


# For real


@pytest.mark.anyio
async def test_a_whole_session_within_the_span_of_its_caller() -> None:
    async def answer(session: ServerSession) -> None:
        async for command in session:
            match command:
                case Commit():
                    await session.send_tool_call("c1", "look_up", '{"query": "what-was-asked"}')
                case ToolResult():
                    await session.send_transcript("assistant", "what-was-said", final=True)
                    await session.send_audio(PCM)
                    await session.send_usage(1, 2)
                    await session.send_response_end()
                    return
                case _:
                    pass

    def look_up(query: str) -> str:
        """Look it up."""
        return "what-was-answered"

    telemetry = Telemetry()
    gateway = Gateway(handlers={"openai": answer}, api_keys=["sk_otel"])
    with anyio.fail_after(30):
        async with running_gateway(gateway) as url, Speko("sk_otel", url) as speko:
            with telemetry.tracers.get_tracer("app").start_as_current_span("call") as call:
                async with speko.realtime.connect(
                    provider="openai", model="gpt", tools=[look_up], observer=telemetry.observer
                ) as session:
                    await session.send_audio(PCM)
                    await session.commit()
                    assert [type(frame) async for frame in session][-1] is Close
    assert [span.name for span in telemetry.spans] == [
        "execute_tool look_up",
        "chat gpt",
        "realtime gpt",
        "call",
    ]
    realtime = telemetry.span("realtime gpt")
    assert realtime.parent is not None
    assert realtime.parent.span_id == call.get_span_context().span_id
    assert attributes(realtime)["gen_ai.provider.name"] == "openai"
    assert f"http://{attributes(realtime)['server.address']}:{attributes(realtime)['server.port']}" == url
    exported = "".join(span.to_json() for span in telemetry.spans) + str(telemetry.reader.get_metrics_data())
    for words in [*WORDS, "sk_otel"]:
        assert words not in exported


@pytest.mark.anyio
async def test_a_session_whose_body_fails() -> None:
    telemetry = Telemetry()

    async def fail(session: RealtimeSession) -> None:
        await session.commit()
        raise RuntimeError("what-was-said")

    with pytest.raises(RuntimeError):
        async with connected(FakeServer(), observer=telemetry.observer) as (session, _):
            await fail(session)
    assert attributes(telemetry.span("realtime"))["error.type"] == "RuntimeError"
    assert "what-was-said" not in "".join(span.to_json() for span in telemetry.spans)


def test_by_default_it_is_the_global_opentelemetry() -> None:
    observer = OpenTelemetry()(SessionInfo(session_id="s", host="h", port=1))
    observer.sent(Commit())
    observer.received(SPOKEN)
    observer.ended(None)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_an_answer_without_usage_ends_its_turn_all_the_same() -> None:
    script = Script()
    script.play(Commit(), 0.1, SPOKEN, ResponseEnd("incomplete", "max_tokens"), 1.0, SPOKEN)
    telemetry = script.end()
    turns = [span for span in telemetry.spans if span.name.startswith("chat")]
    assert [attributes(span)["speko.turn.trigger"] for span in turns] == ["commit", "server"]
    assert [attributes(span).get("speko.turn.status") for span in turns] == ["incomplete", None]
