"""Functions as tools: their schemas, the validation of arguments, and that every call is answered once."""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    Close,
    Ready,
    RealtimeSession,
    Tool,
    ToolCall,
    ToolError,
    ToolResult,
    ToolSpec,
    Transcript,
    tool,
)
from speko_anyio.client import tool_calls as tool_calls_module
from speko_anyio.client.block import block
from speko_anyio.client.tools import MAX_OUTPUT, AnyTool, Toolbox
from tests.support.server import FakeServer, connected


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Place(msgspec.Struct):
    city: str
    country: str = "NO"


@tool
async def get_weather(
    city: str, days: Annotated[int, msgspec.Meta(ge=1, le=14)] = 1, *, unit: Unit = Unit.CELSIUS
) -> str:
    """Weather for a city,
    as a forecast.

    It never rains.

    Args:
        city: The city's name,
            in its own language.
        days (int): How far ahead.

    Returns:
        city: not a parameter.
    """
    await checkpoint()
    return f"{city} {days} {unit.value}"


def add(a: int, b: int = 2) -> int:
    return a + b


# Schemas


def test_the_schema_comes_from_the_signature_and_the_docstring() -> None:
    assert get_weather.spec == ToolSpec(
        name="get_weather",
        description="Weather for a city,\nas a forecast.\n\nIt never rains.",
        parameters={
            "type": "object",
            "properties": {
                "city": {
                    "type": "string",
                    "description": "The city's name, in its own language.",
                },
                "days": {"type": "integer", "minimum": 1, "maximum": 14, "description": "How far ahead."},
                "unit": {"$ref": "#/$defs/Unit"},
            },
            "required": ["city"],
            "$defs": {"Unit": {"title": "Unit", "enum": ["celsius", "fahrenheit"]}},
        },
    )


def test_a_function_without_docstring_or_parameters() -> None:
    def now() -> str:
        return "12:00"

    assert Tool(now).spec == ToolSpec(
        name="now", parameters={"type": "object", "properties": {}, "required": []}
    )


def test_name_and_description_may_be_given() -> None:
    @tool(name="sum", description="Adds.")
    def plus(a: int) -> int:
        return a

    assert (plus.spec.name, plus.spec.description) == ("sum", "Adds.")
    assert plus(3) == 3
    assert repr(plus) == "Tool('sum')"


def test_methods_and_callable_objects_are_functions_too() -> None:
    class Home:
        def light(self, on: bool) -> str:
            """Switch the light."""
            return str(on)

        def __call__(self, room: str) -> str:
            return room

    home = Home()
    assert list(Tool(home.light).spec.parameters["properties"]) == ["on"]
    assert Tool(home).spec.name == "Home"
    assert list(Tool(home).spec.parameters["properties"]) == ["room"]


def test_signatures_without_a_schema_are_refused_at_once() -> None:
    def untyped(a):  # type: ignore[no-untyped-def]
        return a

    def variadic(*args: int) -> None: ...

    def positional(a: int, /) -> None: ...

    def unknown(a: threading.Thread) -> None: ...

    functions: list[Callable[..., Any]] = [untyped, variadic, positional, unknown]
    for function in functions:
        with pytest.raises(TypeError):
            Tool(function)


def test_a_type_that_only_a_function_knows_is_explained() -> None:
    class Local(msgspec.Struct):
        city: str

    def visit(place: Local) -> None: ...

    with pytest.raises(TypeError, match="'Local' can't be found"):
        Tool(visit)


def test_a_toolbox_takes_functions_specs_and_dicts() -> None:
    spec = ToolSpec(name="declared")
    box = Toolbox([add, get_weather, spec, {"name": "d", "description": "", "parameters": {}}])
    assert [item.name for item in box.specs] == ["add", "get_weather", "declared", "d"]
    with pytest.raises(ValueError, match="two tools are called 'add'"):
        Toolbox([add, ToolSpec(name="add")])
    with pytest.raises(TypeError, match="not a tool"):
        Toolbox([42])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="`name`"):
        Toolbox([{"description": "no name"}])


# Calls


async def answer(tools: list[AnyTool], name: str, arguments: str) -> str:
    box = Toolbox(tools)
    call = ToolCall("c1", name, arguments)
    assert box.answers(call)
    return await box.run(call)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("get_weather", '{"city": "Oslo"}', "Oslo 1 celsius"),
        ("get_weather", '{"city": "Oslo", "days": 3, "unit": "fahrenheit"}', "Oslo 3 fahrenheit"),
        ("add", '{"a": 1}', "3"),
        ("add", '{"a": 1, "b": 5}', "6"),
    ],
)
async def test_arguments_reach_the_function(name: str, arguments: str, expected: str) -> None:
    assert await answer([get_weather, add], name, arguments) == expected


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city": 3}', "Expected `str`, got `int` - at `$.city`"),
        ("{}", "missing required field `city`"),
        ("", "missing required field `city`"),
        ('{"city": "Oslo", "days": 99}', "<= 14"),
        ('{"city": "Oslo", "color": "red"}', "unknown field `color`"),
        ('{"city": "Os', "truncated"),
        ("[]", "Expected `object`"),
        ('{"city": "\\ud800"}', "truncated"),
        ('{"city": "\ud800"}', "not JSON"),
    ],
)
async def test_arguments_that_do_not_fit_are_explained_to_the_model(arguments: str, expected: str) -> None:
    text = await answer([get_weather], "get_weather", arguments)
    assert expected in text
    assert text.startswith("The arguments of get_weather ")


@pytest.mark.anyio
async def test_arguments_nested_without_end_are_refused() -> None:
    def take(anything: Any) -> None: ...

    assert "not JSON" in await answer([take], "take", '{"anything": ' + "[" * 100_000)


@pytest.mark.anyio
async def test_an_error_of_msgspec_in_the_function_is_the_functions(caplog: pytest.LogCaptureFixture) -> None:
    def decode() -> None:
        msgspec.json.decode("{", type=Place)

    assert await answer([decode], "decode", "") == "The tool decode failed (DecodeError)."
    assert len(caplog.records) == 1


@pytest.mark.anyio
async def test_sync_functions_run_in_worker_threads() -> None:
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await answer([where], "where", "") == "false"


@pytest.mark.anyio
async def test_results_are_text_or_json() -> None:
    def results() -> dict[str, Any]:
        return {"place": Place("Oslo"), "unit": Unit.CELSIUS, "none": None}

    def nothing() -> None: ...

    def surrogate() -> str:
        return "half \ud800 pair"

    assert (
        await answer([results], "results", "")
        == '{"place":{"city":"Oslo","country":"NO"},"unit":"celsius","none":null}'
    )
    assert await answer([nothing], "nothing", "") == "null"
    assert await answer([surrogate], "surrogate", "") == "half ? pair"


@pytest.mark.anyio
async def test_structured_parameters_are_built() -> None:
    def visit(place: Place, mode: Literal["car", "train"], tags: list[str] | None = None) -> str:
        return f"{place.city} {place.country} {mode} {tags}"

    text = await answer([visit], "visit", '{"place": {"city": "Oslo"}, "mode": "car", "tags": ["a"]}')
    assert text == "Oslo NO car ['a']"


@pytest.mark.anyio
async def test_a_failing_tool_tells_the_model_no_more_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    def secret() -> None:
        raise ValueError("password is hunter2")

    def polite() -> None:
        raise ToolError("No such city; try another spelling.")

    def unserializable() -> object:
        return object()

    assert await answer([secret], "secret", "") == "The tool secret failed (ValueError)."
    assert await answer([unserializable], "unserializable", "") == (
        "The tool unserializable failed (TypeError)."
    )
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError, TypeError]
    assert await answer([polite], "polite", "") == "No such city; try another spelling."


@pytest.mark.anyio
async def test_a_result_too_long_for_a_message_is_not_sent() -> None:
    def long() -> str:
        return "x" * (MAX_OUTPUT + 1)

    assert "too long" in await answer([long], "long", "")


@pytest.mark.anyio
async def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    assert await answer([add, get_weather], "nope", "{}") == (
        "There is no tool called 'nope'. The tools are: add, get_weather."
    )


def test_declared_tools_are_left_to_the_application() -> None:
    declared = ToolSpec(name="declared")
    assert not Toolbox([declared]).answers(ToolCall("c", "declared", ""))
    assert not Toolbox([declared]).answers(ToolCall("c", "other", ""))
    assert not Toolbox([declared, add]).answers(ToolCall("c", "declared", ""))
    assert not Toolbox().answers(ToolCall("c", "anything", ""))


def test_a_name_that_a_parameters_type_has_too() -> None:
    def visit(place: Place) -> str:
        return place.city

    parameters = tool(name="Place")(visit).spec.parameters
    assert list(parameters["properties"]) == ["place"]
    reference = parameters["properties"]["place"]["$ref"]
    (key,) = parameters["$defs"]
    assert reference == f"#/$defs/{key}"
    assert list(parameters["$defs"][key]["properties"]) == ["city", "country"]


@pytest.mark.parametrize("name", ["get weather", "a.b", "é", "x" * 65, "a\n"])
def test_a_name_that_no_provider_takes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name of a tool"):
        tool(name=name)(add)
    assert tool(name="get-weather_2")(add).spec.name == "get-weather_2"


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="tool add: the timeout is"):
        Tool(add, timeout=timeout)


def test_a_policy_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no policy 'stop'; on_interrupt is one of finish, cancel"):
        tool(on_interrupt="stop")(add)  # type: ignore[call-overload]  # what a type checker would say


@pytest.mark.anyio
async def test_a_tool_that_takes_too_long_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    stopped: list[str] = []

    @tool(timeout=0.001)
    async def forever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append("forever")

    with anyio.fail_after(5):
        assert await answer([forever], "forever", "") == "The tool forever took too long and was stopped."
    assert stopped == ["forever"]
    assert [record.getMessage() for record in caplog.records] == ["tool forever took longer than its 0.001 s"]


@pytest.mark.anyio
async def test_a_timeout_of_the_functions_own_is_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    @tool(timeout=100)
    async def impatient() -> None:
        with anyio.fail_after(0):
            await anyio.sleep_forever()

    assert await answer([impatient], "impatient", "") == "The tool impatient failed (TimeoutError)."
    assert len(caplog.records) == 1


@pytest.mark.anyio
async def test_a_thread_that_takes_too_long_is_left_alone() -> None:
    go = threading.Event()

    @tool(timeout=0.001)
    def hang() -> None:
        go.wait(10)

    try:
        with anyio.fail_after(5):
            assert "took too long" in await answer([hang], "hang", "")
    finally:
        go.set()


@pytest.mark.anyio
async def test_whoever_asks_is_told_of_failures_instead_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[tuple[str, Exception]] = []
    error = ValueError("broken")

    def fail() -> None:
        raise error

    def polite() -> None:
        raise ToolError("No such city.")

    def report(name: str, error: Exception) -> None:
        failures.append((name, error))

    toolbox = Toolbox([fail, polite])
    await toolbox.run(ToolCall("c1", "fail", ""), report)
    await toolbox.run(ToolCall("c2", "polite", ""), report)
    await toolbox.run(ToolCall("c3", "fail", "?"), report)
    assert failures == [("fail", error)]
    assert caplog.records == []


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Span(TypedDict):
    start: Point
    unit: NotRequired[Unit]


@pytest.mark.anyio
async def test_dataclasses_typed_dicts_and_enums_are_parameters_and_results() -> None:
    def measure(span: Span, mode: Literal["fast", "exact"] = "fast") -> Span:
        start = span["start"]
        return {"start": Point(start.x, start.y), "unit": span.get("unit", Unit.FAHRENHEIT)}

    schema = Tool(measure).spec.parameters
    assert sorted(schema["$defs"]) == ["Point", "Span", "Unit"]
    assert schema["$defs"]["Span"]["required"] == ["start"]
    assert schema["properties"]["mode"]["enum"] == ["exact", "fast"]
    text = await answer([measure], "measure", '{"span": {"start": {"x": 1}, "unit": "celsius"}}')
    assert text == '{"start":{"x":1.0,"y":0.0},"unit":"celsius"}'
    assert "`$.span.start`" in await answer([measure], "measure", '{"span": {"start": {}}}')
    assert "Invalid enum value" in await answer(
        [measure], "measure", '{"span": {"start": {"x": 1}}, "mode": "slow"}'
    )


# In a session


@block
async def calling(
    *tools: AnyTool,
) -> AsyncGenerator[tuple[RealtimeSession, FakeServer, Callable[[str, str], None]], None]:
    async with connected(tools=tools) as (session, server):

        def call(call_id: str, name: str) -> None:
            server.core.send_tool_call(call_id, name, "{}")
            server.flush()

        assert isinstance(await session.receive(), Ready)
        yield session, server, call


@pytest.mark.anyio
async def test_calls_run_side_by_side_and_are_answered_as_they_finish() -> None:
    go = {"first": anyio.Event(), "second": anyio.Event()}

    async def first() -> str:
        await go["first"].wait()
        return "one"

    async def second() -> str:
        await go["second"].wait()
        return "two"

    async with calling(first, second) as (session, server, call):
        call("c1", "first")
        call("c2", "second")
        call("c3", "third")
        assert [await session.receive() for _ in range(3)] == [
            ToolCall("c1", "first", "{}"),
            ToolCall("c2", "second", "{}"),
            ToolCall("c3", "third", "{}"),
        ]
        for event in (go["second"], go["first"]):
            event.set()
            await anyio.wait_all_tasks_blocked()
        answered = [command.call_id for command in server.commands if isinstance(command, ToolResult)]
        assert answered == ["c3", "c2", "c1"]


@pytest.mark.anyio
async def test_what_the_application_answered_is_not_answered_again() -> None:
    go = anyio.Event()

    async def slow() -> str:
        await go.wait()
        return "late"

    async with calling(slow) as (session, server, call):
        call("c1", "slow")
        await session.receive()
        await session.send_tool_result("c1", "quick")
        go.set()
        await anyio.wait_all_tasks_blocked()
        assert server.commands == [ToolResult("c1", "quick")]


@pytest.mark.anyio
async def test_an_interrupted_call_is_still_answered() -> None:
    go = anyio.Event()

    async def slow() -> str:
        await go.wait()
        return "late"

    async with calling(slow) as (session, server, call):
        call("c1", "slow")
        await session.receive()
        server.core.send_interruption()
        server.flush()
        await session.receive()
        go.set()
        await anyio.wait_all_tasks_blocked()
        assert server.commands == [ToolResult("c1", "late")]


@pytest.mark.anyio
async def test_leaving_cancels_what_runs() -> None:
    cancelled = anyio.Event()

    async def forever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with calling(forever) as (session, _server, call):
        call("c1", "forever")
        await session.receive()
        await anyio.wait_all_tasks_blocked()
    assert cancelled.is_set()


@pytest.mark.anyio
async def test_a_thread_that_hangs_does_not_keep_the_session() -> None:
    go, started = threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        go.wait(10)

    try:
        async with calling(hang) as (session, _server, call):
            call("c1", "hang")
            await session.receive()
            while not started.is_set():
                await checkpoint()
        assert not go.is_set()
    finally:
        go.set()


@pytest.mark.anyio
async def test_a_flood_of_calls_is_answered_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls_module, "MAX_RUNNING_TOOLS", 2)
    running = 0

    async def forever() -> None:
        nonlocal running
        running += 1
        await anyio.sleep_forever()

    async with calling(forever) as (_session, server, call):
        for number in range(5):
            call(f"c{number}", "forever")
        await anyio.wait_all_tasks_blocked()
        assert running == 2
        refused = [command for command in server.commands if isinstance(command, ToolResult)]
        assert [result.call_id for result in refused] == ["c2", "c3", "c4"]
        assert all("Too many" in result.output for result in refused)


@pytest.mark.anyio
async def test_a_call_in_one_read_with_the_handshake_is_answered() -> None:
    server = FakeServer()

    def greet() -> None:
        server.accept()
        server.core.send_tool_call("c1", "add", '{"a": 1}')

    server.greet = greet
    async with connected(server, tools=[add]) as (session, _):
        assert isinstance(await session.receive(), Ready)
        assert isinstance(await session.receive(), ToolCall)
        while not server.commands:
            await checkpoint()
        assert server.commands == [ToolResult("c1", "3")]


@pytest.mark.anyio
async def test_a_flood_of_calls_behind_a_goodbye_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls_module, "MAX_RUNNING_TOOLS", 0)

    async def unused() -> None:
        raise AssertionError("it ran")

    async with calling(unused) as (session, server, call):
        server.answers = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.close)
            await anyio.wait_all_tasks_blocked()
            call("c1", "unused")
            server.core.send_transcript("user", "late", final=True)
            server.core.close(1000, "done")
            server.flush()
            assert [type(frame) async for frame in session] == [ToolCall, Transcript, Close]
