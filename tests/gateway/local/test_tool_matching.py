from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from speko_anyio.gateway.local._grammar import Grammar
from speko_anyio.gateway.local._tool_matching import (
    MAX_ASKS,
    MAX_CALLS,
    MAX_SLOT_VALUES,
    MAX_SLOTS,
    MAX_VALUED_ASKS,
    MAX_VALUES,
    PLACES,
    PlannedCall,
    ToolMatcher,
    words,
)
from speko_anyio.protocol.mint import ToolSpec
from tests.gateway.local.fake_session import make_tool


def tool(name: str, description: str = "", required: tuple[str, ...] = (), **properties: Any) -> ToolSpec:
    return make_tool(name, description, {"properties": properties, "required": list(required)})


def plan_calls(heard: str, offered: Sequence[ToolSpec]) -> list[PlannedCall]:
    return ToolMatcher(offered).plan_calls(heard)


def tool_grammar(offered: Sequence[ToolSpec]) -> Grammar:
    return ToolMatcher(offered).grammar()


def arguments(heard: str, offered: ToolSpec) -> dict[str, Any]:
    (call,) = plan_calls(heard, [offered])
    return call.arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getWeather_now", ["get", "weather", "now"]),
        ("What's the time?", ["what's", "the", "time"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_tool_is_asked_for_by_its_name() -> None:
    offered = [tool("get_weather"), tool("turn_on_light")]
    assert [call.name for call in plan_calls("how is the weather", offered)] == ["get_weather"]
    assert [call.name for call in plan_calls("turn the light on", offered)] == ["turn_on_light"]
    assert plan_calls("how are you", offered) == []


def test_a_tool_is_asked_for_by_two_words_of_its_description() -> None:
    offered = [tool("f17", "Reports the air temperature outside.")]
    assert [call.name for call in plan_calls("is the temperature outside low", offered)] == ["f17"]
    assert plan_calls("what a temperature", offered) == []


def test_the_longer_name_wins() -> None:
    offered = [tool("get_weather"), tool("get_weather_forecast")]
    assert [call.name for call in plan_calls("the weather forecast", offered)] == ["get_weather_forecast"]


def test_several_tools_at_once_but_not_too_many() -> None:
    offered = [tool(f"get_{word}") for word in ("weather", "news", "mail", "traffic", "music")]
    calls = plan_calls("weather news mail traffic and music", offered)
    assert [call.name for call in calls] == ["get_weather", "get_news", "get_mail", "get_traffic"]
    assert len(calls) == MAX_CALLS


@pytest.mark.parametrize(
    ("heard", "schema", "value"),
    [
        ("what is the weather in new york", {"type": "string"}, "new york"),
        ("weather paris please", {"type": "string"}, "paris"),
        ("weather in celsius", {"enum": ["fahrenheit", "celsius"]}, "celsius"),
        ("weather for twelve days", {"type": "integer"}, 12),
        ("weather for 3 days", {"type": "number"}, 3),
        ("weather not now", {"type": "boolean"}, False),
        ("weather now", {"type": "boolean"}, True),
    ],
)
def test_arguments_come_from_the_sentence(heard: str, schema: dict[str, Any], value: object) -> None:
    assert arguments(heard, tool("get_weather", x=schema)) == {"x": value}


def test_what_is_not_heard_is_left_out_or_missing() -> None:
    offered = tool("get_weather", "", ("city",), city={"type": "string"}, days={"type": "integer"})
    assert plan_calls("what is the weather", [offered]) == [PlannedCall("get_weather", {}, ("city",))]


def test_types_that_speech_cannot_give_are_missing_when_required() -> None:
    offered = tool("get_weather", "", ("where",), where={"type": "object"}, odd={"type": ["null"]})
    assert plan_calls("weather in rome", [offered]) == [PlannedCall("get_weather", {}, ("where",))]


@pytest.mark.parametrize("parameters", [{}, {"properties": 1}, {"properties": {"a": 1}, "required": None}])
def test_odd_schemas_do_no_harm(parameters: dict[str, Any]) -> None:
    assert plan_calls("weather", [make_tool("get_weather", "", parameters)]) == [
        PlannedCall("get_weather", {}, ())
    ]
    assert tool_grammar([make_tool("get_weather", "", parameters)]).templates == ("<ask>",)


def test_the_grammar_expects_places_and_enum_values() -> None:
    offered = tool("get_weather", city={"type": "string"}, unit={"enum": ["degrees celsius", 3]})
    pattern = tool_grammar([offered]).pattern()
    for phrase in ("what is the weather in paris", "weather for degrees celsius", "get weather"):
        assert pattern.fullmatch(phrase), phrase
    assert not pattern.fullmatch("weather in atlantis")


def test_a_tool_of_verbs_only_adds_no_phrase() -> None:
    assert tool_grammar([tool("get")]).templates == ()


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["string", "null"], "enum": ["paris", None]}, "paris"),
        ({"type": ["null", "string"]}, "paris"),
        ({"enum": 5}, "paris"),
        ({"enum": None}, "paris"),
        ({"enum": ["", "%", [], {}, "paris"]}, "paris"),
    ],
)
def test_sloppy_properties_are_understood(schema: dict[str, Any], value: str) -> None:
    offered = tool("get_weather", x=schema)
    assert arguments("what is the weather in paris", offered) == {"x": value}
    assert tool_grammar([offered]).pattern().fullmatch("what is the weather")


@pytest.mark.parametrize("required", [None, 5, "x", {"x": 1}])
def test_a_required_that_is_no_list_requires_nothing(required: object) -> None:
    offered = make_tool("get_weather", "", {"properties": {"x": {"type": "integer"}}, "required": required})
    assert plan_calls("weather", [offered]) == [PlannedCall("get_weather", {}, ())]


def test_values_without_a_word_are_not_listened_for() -> None:
    grammar = tool_grammar([tool("get_weather", unit={"enum": ["", "%"]})])
    assert grammar.templates == ("<ask>",)


def test_the_grammar_is_bounded_and_shared_fairly() -> None:
    subjects = [a + b for a in "abcd" for b in "vwxyz"]
    many: dict[str, Any] = {
        f"p{i}": {"enum": [f"{a} {b} {chr(97 + i)}" for a in subjects for b in subjects]} for i in range(14)
    }
    grammar = tool_grammar([tool(f"get_{subject}", **many) for subject in subjects])
    values = [phrases for name, phrases in grammar.slots.items() if name.startswith("value")]
    valued = [phrases for name, phrases in grammar.slots.items() if name.startswith("ask") and name != "ask"]
    assert len(grammar.slots["ask"]) == MAX_ASKS
    assert set(subjects) <= set(grammar.slots["ask"])
    assert len(values) == len(valued) == MAX_SLOTS
    assert max(map(len, values)) <= MAX_SLOT_VALUES
    assert sum(map(len, values)) <= MAX_VALUES
    assert sum(map(len, valued)) <= MAX_VALUED_ASKS


def test_places_are_one_slot() -> None:
    cities: dict[str, Any] = {key: {"type": "string"} for key in ("city", "destination", "location")}
    grammar = tool_grammar([tool("get_weather", **cities), tool("get_hotel", **cities)])
    assert list(grammar.slots.values()).count(PLACES) == 1
    assert grammar.pattern().fullmatch("what is the hotel in new york")


def test_long_names_and_values_are_left_to_dictation() -> None:
    assert tool_grammar([tool("get_" + "very_" * 9 + "name")]) == Grammar(())
    assert tool_grammar([tool("get_weather", x={"enum": ["very " * 9]})]).templates == ("<ask>",)
