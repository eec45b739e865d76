"""Functions as tools: their schemas, the validation of arguments, and that every call is answered once."""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    Tool,
    ToolCall,
    ToolError,
    ToolSpec,
    tool,
)
from speko_anyio.client.tools import MAX_OUTPUT, AnyTool, Toolbox


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
