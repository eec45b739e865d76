from __future__ import annotations

from datetime import UTC, datetime

import pytest

from speko_anyio.gateway.local import _dialogue as dialogue
from speko_anyio.gateway.local._dialogue import MAX_SPOKEN_OUTPUT, Decision, Dialogue, report
from speko_anyio.gateway.local._tool_matching import PlannedCall
from tests.gateway.local.fake_session import make_tool

WEATHER = make_tool(
    "get_weather",
    "Current weather for a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def at(hour: int, minute: int) -> Dialogue:
    return Dialogue([WEATHER], now=lambda: datetime(2026, 3, 4, hour, minute, tzinfo=UTC))


@pytest.mark.parametrize(
    ("hour", "minute", "said"),
    [(0, 5, "12:05 AM"), (9, 30, "9:30 AM"), (12, 0, "12:00 PM"), (23, 59, "11:59 PM")],
)
def test_it_tells_the_time(hour: int, minute: int, said: str) -> None:
    assert at(hour, minute).answer("what time is it") == Decision(f"It is {said}.")


def test_it_tells_the_day() -> None:
    assert at(9, 0).answer("what day is it today") == Decision("Today is Wednesday.")


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("go forward ten meters", "I heard: go forward ten meters."),
        ("What is two plus three?", "I heard: What is two plus three?"),
        ("Two plus three. ", "I heard: Two plus three."),
        ("two, three,", "I heard: two, three."),
        ("hello there", "Hello! I am the offline voice. Ask me what time it is."),
        ("thank you", "You are welcome."),
        ("goodbye", "Goodbye!"),
        ("what can you do", "I can tell the time, call your tools, and repeat what I hear."),
        ("", "I did not understand that."),
    ],
)
def test_what_it_says(heard: str, said: str) -> None:
    assert at(9, 0).answer(heard) == Decision(said)


def test_a_tool_is_called() -> None:
    answer = at(9, 0).answer("what is the weather in paris")
    assert answer == Decision("", (PlannedCall("get_weather", {"city": "paris"}, ()),))


def test_a_tool_without_its_arguments_is_not_called() -> None:
    assert at(9, 0).answer("what is the weather") == Decision("To use get weather I need the city.")


def test_the_grammar_has_the_fixed_and_the_tools_phrases() -> None:
    pattern = at(9, 0).grammar().pattern()
    assert pattern.fullmatch("what time is it")
    assert pattern.fullmatch("what is the weather in new york")
    assert not pattern.fullmatch("what is the weather in")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("sunny", "sunny."),
        ('"Sunny today!"', "Sunny today!"),
        ('{"temperature_c": 21, "sky": "clear"}', "temperature c 21, sky clear."),
        ("[1, true, [null]]", "1, yes, nothing."),
        ("", "Get weather is done."),
        ("null", "Get weather is done."),
        (None, "Get weather did not answer."),
    ],
)
def test_how_a_tools_output_is_told(output: str | None, said: str) -> None:
    assert report([("get_weather", output)]) == said


def test_long_and_deep_outputs_are_bounded() -> None:
    assert len(report([("a", "x" * 10_000)])) < 500
    assert report([("a", "[" * 100_000 + "]" * 100_000)]).startswith("[[[")
    assert report([("a", "[" * 20 + "]" * 20)]) == "more."


def test_several_outputs_are_told_in_order() -> None:
    assert report([("a", "one"), ("b", "two")]) == "one. two."


def test_a_huge_output_is_not_formatted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def counted(name: str) -> list[str]:
        names.append(name)
        return [name]

    monkeypatch.setattr(dialogue, "words", counted)
    said = report([("get_weather", "[" + ",".join(['{"key": "value"}'] * 10_000) + "]")])
    assert said.startswith("key value, key value, ")
    assert len(said) <= MAX_SPOKEN_OUTPUT + 1
    assert len(names) < MAX_SPOKEN_OUTPUT
