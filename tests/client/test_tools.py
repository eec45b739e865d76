"""Functions as tools: their schemas, the validation of arguments, and that every call is answered once."""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import functools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Required, TypedDict

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
from speko_anyio.client.tools import MAX_LEFT_OVER, MAX_OUTPUT, AnyTool, Toolbox


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
                "days": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 14,
                    "description": "How far ahead.",
                    "default": 1,
                },
                "unit": {"$ref": "#/$defs/Unit", "default": "celsius"},
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


def test_a_partial_of_an_argument_that_is_not_there() -> None:
    with pytest.raises(TypeError, match="the partial sets an argument that the function does not take"):
        tool(functools.partial(add, zz=1))  # type: ignore[call-arg]


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
    ],
)
async def test_arguments_that_do_not_fit_are_explained_to_the_model(arguments: str, expected: str) -> None:
    text = await answer([get_weather], "get_weather", arguments)
    assert expected in text
    assert text.startswith("The arguments of get_weather ")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("written", "city"),
    [
        ("Oslo \\ud83d", "Oslo \ufffd"),
        ("\\uDE00 Oslo", "\ufffd Oslo"),
        ("\\ud83d\\ude00", "\U0001f600"),
        ("\ud83d", "\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a\\\\ud83d", "a\\ud83d"),
    ],
)
async def test_half_of_a_surrogate_pair_in_arguments_is_mended(written: str, city: str) -> None:
    arguments = f'{{"city": "{written}", "days": "2"}}'
    for text in (arguments, json.dumps(arguments, ensure_ascii=False), json.dumps(arguments)):
        assert await answer([get_weather], "get_weather", text) == f"{city} 2 celsius"


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
        return "half \ud800 pair, \ud83d\ude00"

    def surrogates() -> dict[Any, Any]:
        return {"k\ud800": [Place("\ud83d"), ("\ud83d\ude00", 1.5)], 3: Unit.CELSIUS}

    def refused() -> None:
        raise ToolError("half \ud800")

    assert (
        await answer([results], "results", "")
        == '{"place":{"city":"Oslo","country":"NO"},"unit":"celsius","none":null}'
    )
    assert await answer([nothing], "nothing", "") == "null"
    assert await answer([surrogate], "surrogate", "") == "half \ufffd pair, \U0001f600"
    assert await answer([surrogates], "surrogates", "") == (
        '{"k\ufffd":[{"city":"\ufffd","country":"NO"},["\U0001f600",1.5]],"3":"celsius"}'
    )
    assert await answer([refused], "refused", "") == "half \ufffd"


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


# What models write as arguments


@tool
async def wait(seconds: int = 1, label: str | int = "", share: float = 0.5, loud: bool = False) -> str:
    await checkpoint()
    return f"{seconds!r} {label!r} {share!r} {loud!r}"


@pytest.mark.anyio
@pytest.mark.parametrize("arguments", ["", " ", "\n\t", "null", " null ", "{}", '"{}"', '""'])
async def test_no_arguments_are_written_in_many_ways(arguments: str) -> None:
    assert await answer([wait], "wait", arguments) == "1 '' 0.5 False"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"seconds": 3.0}', "3 '' 0.5 False"),
        ('{"seconds": 1e3}', "1000 '' 0.5 False"),
        ('{"seconds": "3"}', "3 '' 0.5 False"),
        ('{"seconds": "3", "label": "4"}', "3 '4' 0.5 False"),
        ('{"seconds": 3.0, "label": "true"}', "3 'true' 0.5 False"),
        ('{"label": 4.0}', "1 4 0.5 False"),
        ('{"share": "0.25", "loud": "true"}', "1 '' 0.25 True"),
        ('{"seconds": null, "label": null}', "1 '' 0.5 False"),
        ('"{\\"seconds\\": 3}"', "3 '' 0.5 False"),
    ],
)
async def test_other_notations_of_the_same_value_fit(arguments: str, expected: str) -> None:
    assert await answer([wait], "wait", arguments) == expected


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"seconds": 3.5}', "Expected `int`, got `float` - at `$.seconds`"),
        ('{"seconds": "three"}', "Expected `int`, got `str` - at `$.seconds`"),
        ('{"seconds": ""}', "Expected `int`, got `str` - at `$.seconds`"),
        ('{"seconds": 1e20}', "Expected `int`, got `float` - at `$.seconds`"),
        ('{"seconds": true}', "Expected `int`, got `bool` - at `$.seconds`"),
        ('{"share": "nan"}', "Expected `float`, got `str` - at `$.share`"),
        ('{"share": "-Infinity"}', "Expected `float`, got `str` - at `$.share`"),
        ('{"share": "1e999"}', "Expected `float`, got `str` - at `$.share`"),
        ('{"loud": "loudly"}', "Expected `bool`, got `str` - at `$.loud`"),
        ('{"seconds": "3", "loud": []}', "Expected `bool`, got `array` - at `$.loud`"),
        ('"hello"', "Expected `object`, got `str`"),
        ('"\\"{}\\""', "Expected `object`, got `str`"),
        ("[null]", "Expected `object`, got `array`"),
    ],
)
async def test_values_with_two_readings_are_explained_to_the_model(arguments: str, expected: str) -> None:
    assert (
        await answer([wait], "wait", arguments) == f"The arguments of wait do not fit its schema: {expected}"
    )


class Floor(enum.IntEnum):
    GROUND = 0
    TOP = 9


@pytest.mark.anyio
@pytest.mark.parametrize("number", ["9", "9.0", '"9"', "0.9e1"])
async def test_a_whole_number_is_a_member_of_an_enumeration_in_any_notation(number: str) -> None:
    def lift(floor: Floor, door: Literal[0, 9], through: list[Floor] | None = None) -> str:
        return f"{floor!r} {door!r} {through}"

    arguments = f'{{"floor": {number}, "door": {number}, "through": [{number}]}}'
    assert await answer([lift], "lift", arguments) == "<Floor.TOP: 9> 9 [<Floor.TOP: 9>]"


@pytest.mark.anyio
async def test_null_is_a_value_where_the_type_has_it_and_where_nothing_else_stands() -> None:
    def remind(when: str | None, note: str | None = "none") -> str:
        return f"{when} {note}"

    def greet(name: str) -> str:
        return name

    assert await answer([remind], "remind", '{"when": null, "note": null}') == "None None"
    assert "Expected `str`, got `null`" in await answer([greet], "greet", '{"name": null}')


@dataclasses.dataclass
class Stop:
    city: str
    nights: int = 1
    note: str | None = "none"
    next: Stop | None = None


class Fare(TypedDict, total=False):
    amount: Required[int]
    currency: str


class Bus(msgspec.Struct, tag="bus"):
    seats: int = 40


class Train(msgspec.Struct, tag="train", rename="camel"):
    seat_class: int = 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ('"stop": {"city": "Oslo", "nights": null}', "Stop(city='Oslo', nights=1, note='none', next=None)"),
        ('"stop": {"city": "Oslo", "note": null}', "Stop(city='Oslo', nights=1, note=None, next=None)"),
        (
            '"stop": {"city": "Oslo", "next": {"city": "Ås", "nights": null, "next": null}}',
            f"Stop(city='Oslo', nights=1, note='none', next={Stop('Ås')})",
        ),
        ('"fare": {"amount": 3, "currency": null}', "{'amount': 3}"),
        (
            '"stops": [{"city": "Oslo", "nights": null}]',
            "[Stop(city='Oslo', nights=1, note='none', next=None)]",
        ),
        ('"by_day": {"mon": {"amount": 1, "currency": null}}', "{'mon': {'amount': 1}}"),
        ('"both": [{"amount": 1, "currency": null}, 7]', "({'amount': 1}, 7)"),
        ('"by": {"type": "train", "seatClass": null}', "Train(seat_class=2)"),
        ('"by": {"type": "bus", "seats": null}', "Bus(seats=40)"),
        ('"stop": {"city": null}', "Expected `str`, got `null` - at `$.stop.city`"),
        ('"fare": {"amount": null}', "Expected `int`, got `null` - at `$.fare.amount`"),
        ('"stops": [null]', "Expected `object`, got `null` - at `$.stops[0]`"),
    ],
)
async def test_null_for_an_optional_field_inside_an_argument_is_its_absence(
    argument: str, expected: str
) -> None:
    def travel(
        stop: Stop | None = None,
        fare: Fare | None = None,
        stops: list[Stop] | None = None,
        by_day: dict[str, Fare] | None = None,
        both: tuple[Fare, int] | None = None,
        by: Bus | Train | None = None,
    ) -> str:
        return str(stop or fare or stops or by_day or both or by)

    said = await answer([travel], "travel", f"{{{argument}}}")
    assert said == expected or said.endswith(f": {expected}")


@pytest.mark.anyio
async def test_numbers_as_text_fit_inside_of_structures_too() -> None:
    def mark(points: list[Point], counts: dict[int, int]) -> str:
        return f"{points} {counts}"

    text = await answer([mark], "mark", '{"points": [{"x": "1.5", "y": 2}], "counts": {"7": 1.0}}')
    assert text == "[Point(x=1.5, y=2.0)] {7: 1}"


# Which callables are tools


async def weather(unit: str, city: str, days: int = 1) -> str:
    """The weather.

    Args:
        city: Where.
    """
    await checkpoint()
    return f"{city} {days} {unit}"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "partial",
    [
        functools.partial(weather, "C"),
        functools.partial(weather, unit="C"),
        functools.partial(functools.partial(weather, days=1), "C"),
        functools.partial(tool(weather), "C"),
    ],
)
async def test_of_a_partial_the_rest_is_a_tool(partial: Callable[..., Any]) -> None:
    made = Tool(partial)
    assert (made.spec.name, made.spec.description) == ("weather", "The weather.")
    assert made.__name__ == "weather"  # type: ignore[attr-defined]
    assert made.spec.parameters["properties"]["city"] == {"type": "string", "description": "Where."}
    assert "unit" not in made.spec.parameters["properties"]
    assert await answer([partial], "weather", '{"city": "Rome"}') == "Rome 1 C"
    assert "unknown field `unit`" in await answer([partial], "weather", '{"city": "Rome", "unit": "F"}')


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Passing:
    """A decorator written as a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class Lamp:
    """A lamp."""

    @passed_on
    def switch(self, on: bool) -> str:
        """Switch it."""
        return f"on={on}"

    async def dim(self, on: bool) -> str:
        """Switch it."""
        await checkpoint()
        return f"on={on}"

    def turn(self, level: int, on: bool) -> str:
        """Switch it."""
        return f"on={on}"

    off = functools.partialmethod(turn, 0)


class Ask:
    """Somebody to ask, with attributes that a `Tool` has too."""

    def __init__(self) -> None:
        self.run = self.parse = self.spec = self.timeout = None

    async def __call__(self, on: bool) -> str:
        """Switch it."""
        await checkpoint()
        return f"on={on}"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Lamp().switch, "switch"),
        (passed_on(Lamp().switch), "switch"),
        (Passing(Lamp().switch), "switch"),
        (Lamp().dim, "dim"),
        (passed_on(Lamp().dim), "dim"),
        (Passing(functools.partial(Lamp().dim)), "Passing"),
        (Lamp().off, "turn"),
        (functools.partial(Lamp().turn, 3), "turn"),
        (Ask(), "Ask"),
        (functools.partial(Ask()), "Ask"),
    ],
)
async def test_what_a_callable_stands_for_is_what_the_model_is_told(
    function: Callable[..., Any], name: str
) -> None:
    made = Tool(function)
    assert made.spec.name == name
    assert list(made.spec.parameters["properties"]) == ["on"]
    if name != "Passing":
        assert made.spec.description == "Switch it."
    assert await answer([function], name, '{"on": "true"}') == "on=True"


@dataclasses.dataclass
class Recall:
    times: int = 1

    def __call__(self, word: str) -> str:
        return word * self.times


class Repeat(NamedTuple):
    times: int = 1

    def __call__(self, word: str) -> str:
        return word * self.times


class Say:
    def __call__(self, word: str) -> str:
        return word


class Describe(Say):
    """Describes a word."""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Say(), ""),
        (Recall(), ""),
        (Repeat(), ""),
        (Describe(), "Describes a word."),
        (functools.partial(Say()), ""),
    ],
)
def test_a_docstring_that_nobody_wrote_describes_nothing(function: Any, expected: str) -> None:
    assert Tool(function).spec.description == expected


def test_an_object_may_have_a_name_and_a_docstring_of_its_own() -> None:
    ask = Ask()
    ask.__name__, ask.__doc__ = "ask", "Ask away."  # type: ignore[attr-defined]
    assert (Tool(ask).spec.name, Tool(ask).spec.description) == ("ask", "Ask away.")


@pytest.mark.anyio
async def test_a_plain_function_may_return_a_coroutine() -> None:
    def later(on: bool) -> Any:
        return Lamp().dim(on)

    assert await answer([later], "later", '{"on": true}') == "on=True"


async def pages() -> AsyncIterator[str]:
    yield "one"


def lines() -> Iterator[str]:
    yield "one"


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


def wrapped_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any) -> Any:
        return function(*args)

    return call


@pytest.mark.anyio
@pytest.mark.parametrize("function", [wrapped(lines), wrapped_async(lines), wrapped_async(pages)])
async def test_a_generator_that_a_wrapper_returns_is_called_one(
    function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    name = function.__name__
    assert await answer([function], name, "{}") == f"The tool {name} failed (TypeError)."
    assert f"tool {name} returned a generator, but a call has one result; return a list" in caplog.text


@pytest.mark.anyio
async def test_a_wrapper_may_collect_what_a_generator_yields() -> None:
    @functools.wraps(pages)
    async def all_pages() -> list[str]:
        return [page async for page in pages()]

    @functools.wraps(lines)
    def all_lines() -> list[str]:
        return list(lines())

    assert await answer([all_pages], "pages", "{}") == '["one"]'
    assert await answer([all_lines], "lines", "{}") == '["one"]'


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: 1, "a lambda has no name; write a def"),
        (pages, "tool pages is a generator function, but a call has one result; pass a function"),
        (lines, "tool lines is a generator function"),
        (functools.partial(lines), "tool lines is a generator function"),
        (wrapped(pages), "tool pages wraps an async generator function, but a call has one result; pass"),
        (Lamp, "tool Lamp is a class; pass a function"),
        (
            Lamp.turn,
            r"tool turn is a method without its object; pass the bound method, as in tool\(lamp.turn\)",
        ),
        (max, "tool max has no signature; wrap it in a def with types"),
        (tool(weather), "weather is a tool already; pass it as is, or make another from its .function"),
    ],
)
def test_callables_without_one_result_or_without_types_are_refused(
    function: Callable[..., Any], why: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=why):
        tool(function)


def test_a_lambda_needs_a_def_for_its_types() -> None:
    assert tool(name="one")(lambda: 1).spec.name == "one"
    with pytest.raises(TypeError, match="give the parameter 'a' a type; a lambda has none, write a def"):
        tool(name="one")(lambda a: a)


def test_an_annotation_that_cannot_be_read_is_explained() -> None:
    def broken(a: int) -> None: ...

    def absent(a: int) -> None: ...

    broken.__annotations__["a"], absent.__annotations__["a"] = "int |", "threading.Nothing"

    def custom(a: list[threading.Thread]) -> None: ...

    for function in (broken, absent):
        with pytest.raises(TypeError, match=f"tool {function.__name__}: a type can't be read"):
            Tool(function)
    with pytest.raises(TypeError, match=r"the parameter 'a' has no JSON Schema \(type .*Thread"):
        Tool(custom)


# What the schema says


def test_defaults_are_in_the_schema_unless_json_cannot_say_them() -> None:
    def plan(
        city: str = "Oslo",
        unit: Unit = Unit.FAHRENHEIT,
        place: Place = Place("Bergen"),  # noqa: B008
        tags: tuple[str, ...] = ("a",),
        note: str | None = None,
        limit: float = float("inf"),
        anything: Any = threading.Lock(),  # noqa: B008
    ) -> None: ...

    properties = Tool(plan).spec.parameters["properties"]
    assert {name: given["default"] for name, given in properties.items() if "default" in given} == {
        "city": "Oslo",
        "unit": "fahrenheit",
        "place": {"city": "Bergen", "country": "NO"},
        "tags": ["a"],
    }


def test_annotated_texts_describe_parameters() -> None:
    def plan(
        city: Annotated[str, "Its name."], days: Annotated[int, msgspec.Meta(ge=1), "How many."] = 1
    ) -> None:
        """Plan.

        Args:
            days: How far ahead.
        """

    assert Tool(plan).spec.parameters["properties"] == {
        "city": {"type": "string", "description": "Its name."},
        "days": {"type": "integer", "minimum": 1, "description": "How far ahead.", "default": 1},
    }


@pytest.mark.parametrize("name", ["", "get weather", "tag_größe", "x" * 129, "a/b", "a\n", "\u0430dd"])
def test_a_declared_name_that_no_provider_takes_is_refused(name: str) -> None:
    declarations: list[AnyTool] = [ToolSpec(name=name), {"name": name, "parameters": {}}]
    for declared in declarations:
        with pytest.raises(ValueError, match=r"is not a valid tool name; use 1 to 64"):
            Toolbox([declared])
    assert Toolbox([ToolSpec(name="calendar.read")]).specs[0].name == "calendar.read"


# Results


@pytest.mark.anyio
async def test_bytes_are_text_or_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    def text() -> bytes:
        return "größer".encode()

    def picture() -> bytes:
        return b"\x89PNG"

    assert await answer([text], "text", "") == "größer"
    assert await answer([picture], "picture", "") == "The tool picture failed (UnicodeDecodeError)."
    assert len(caplog.records) == 1


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.anyio
async def test_a_tool_sees_the_context_of_who_runs_it() -> None:
    async def later() -> str:
        await checkpoint()
        return VARIABLE.get()

    def in_thread() -> str:
        return VARIABLE.get()

    VARIABLE.set("set")
    assert await answer([later], "later", "") == "set"
    assert await answer([in_thread], "in_thread", "") == "set"


@pytest.mark.anyio
async def test_threads_that_hang_are_bounded_and_take_no_thread_from_others() -> None:
    go, ended = threading.Event(), threading.Semaphore(0)

    @tool(timeout=0.01)
    def hang() -> str:
        go.wait(20)
        ended.release()
        return "late"

    def quick() -> str:
        return "done"

    box = Toolbox([hang, quick])

    async def call(name: str) -> str:
        return await box.run(ToolCall("c", name, "{}"))

    before = threading.active_count()
    with anyio.fail_after(20):
        started = 0
        while "can't run now" not in (said := await call("hang")):
            assert "took too long" in said
            started += 1
            assert (
                started <= 10 * MAX_LEFT_OVER
            )  # a call that was given up before its thread ran does not count
        assert threading.active_count() - before <= MAX_LEFT_OVER + 2
        assert await call("quick") == "done", "another tool runs"
        assert await anyio.to_thread.run_sync(lambda: "free") == "free"
        go.set()
        for _ in range(MAX_LEFT_OVER):
            await anyio.to_thread.run_sync(ended.acquire)
        while "can't run now" in await call("hang"):
            await checkpoint()
