from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.gateway.engines import Message, ToolRequest
from speko_anyio.gateway.local import SmallTalk
from speko_anyio.gateway.local import _dialogue as dialogue
from speko_anyio.gateway.local._dialogue import (
    ASK_DURATION,
    GREETING,
    MAX_SPOKEN_OUTPUT,
    NOT_UNDERSTOOD,
    STORY,
    no_answer,
    report,
)
from speko_anyio.gateway.local._timers import CANCEL_TIMERS, CHECK_TIMERS, SET_TIMER
from speko_anyio.gateway.local._tool_matching import ToolMatcher
from speko_anyio.protocol.mint import ToolSpec
from tests.gateway.local.fake_session import make_tool

WEATHER = make_tool(
    "get_weather",
    "Current weather for a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TOOLS = (WEATHER,)


def at(hour: int, minute: int) -> SmallTalk:
    return SmallTalk(now=lambda: datetime(2026, 3, 4, hour, minute, tzinfo=UTC))


async def answers(
    brain: SmallTalk, messages: Sequence[Message], tools: Sequence[ToolSpec] = TOOLS
) -> list[str | ToolRequest]:
    return [part async for part in brain.answer(messages, tools)]


def talk(*turns: str, tools: Sequence[ToolSpec] = TOOLS) -> list[str | ToolRequest]:
    """Say `turns` one after the other; return the answer to the last."""
    brain = at(9, 0)
    messages: list[Message] = []
    parts: list[str | ToolRequest] = []
    for turn in turns:
        messages.append(Message("user", turn))
        parts = run(answers(brain, messages, tools))
        messages.append(Message("assistant", " ".join(part for part in parts if isinstance(part, str))))
    return parts


def run(coroutine: object) -> list[str | ToolRequest]:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)  # type: ignore[attr-defined]
    except StopIteration as finished:
        value: list[str | ToolRequest] = finished.value
        return value
    raise AssertionError("the brain waited")


@pytest.mark.parametrize(
    ("hour", "minute", "said"),
    [(0, 5, "12:05 AM"), (9, 30, "9:30 AM"), (12, 0, "12:00 PM"), (23, 59, "11:59 PM")],
)
def test_it_tells_the_time(hour: int, minute: int, said: str) -> None:
    assert run(answers(at(hour, minute), [Message("user", "what time is it")])) == [f"It is {said}."]


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("what day is it today", "Today is Wednesday, March 4."),
        ("What's the date?", "Today is Wednesday, March 4."),
        ("What is two plus three?", "2 plus 3 is 5."),
        ("one divided by three", "1 divided by 3 is about 0.333."),
        ("five minus seven", "5 minus 7 is minus 2."),
        ("what is 5 / 0", "Nobody can divide by zero."),
        ("999999999999999 times 2", "That number is too large to say."),
        ("hello there", GREETING),
        ("good evening", GREETING),
        ("how are you", "I'm fine, thank you. What can I do for you?"),
        ("thank you", "You are welcome."),
        ("goodbye", "Goodbye!"),
        ("go forward ten meters", NOT_UNDERSTOOD[0]),
        ("", NOT_UNDERSTOOD[0]),
        ("set a timer", ASK_DURATION),
        ("set a timer for two days and 48 hours", "I can set a timer for up to 24 hours."),
    ],
)
def test_what_it_says(heard: str, said: str) -> None:
    assert talk(heard) == [said]


def test_what_it_does_not_understand_it_asks_about_and_does_not_repeat() -> None:
    for heard in ("my dog has eaten the homework", "Two, three,", "x " * 900):
        (first,) = talk(heard)
        (second,) = talk(heard, heard)
        assert (first, second) == NOT_UNDERSTOOD
        assert talk("foo", "what time is it", "foo") == [NOT_UNDERSTOOD[0]]


def test_it_says_what_it_can_do() -> None:
    (said,) = talk("what can you do")
    assert said == talk("help")[0]
    for ability in ("time", "date", "sums", "timer", "story", "tools"):
        assert ability in said


@pytest.mark.parametrize("messages", [[], [Message("assistant", "Hi.")]])
def test_it_speaks_first(messages: list[Message]) -> None:
    assert run(answers(at(9, 0), [*messages, Message("system", "Speak first.")])) == [GREETING]


def test_it_picks_up_what_was_not_answered() -> None:
    messages = [Message("user", "what day is it"), Message("system", "Speak first.")]
    assert run(answers(at(9, 0), messages)) == ["Today is Wednesday, March 4."]


def test_a_timer_is_set_with_what_it_says() -> None:
    request = ToolRequest(SET_TIMER, '{"seconds":10,"text":"Your timer for 10 seconds is up."}')
    assert talk("set a timer for ten seconds") == [request]
    assert talk("set a timer", "ten seconds") == [request]
    assert talk("ten seconds") == [NOT_UNDERSTOOD[0]]


@pytest.mark.parametrize(
    ("heard", "name"),
    [
        ("cancel the timer", CANCEL_TIMERS),
        ("how much time is left", CHECK_TIMERS),
        ("how long is left on the timer", CHECK_TIMERS),
    ],
)
def test_timers_are_cancelled_and_asked_for(heard: str, name: str) -> None:
    assert talk(heard) == [ToolRequest(name, "{}")]


def test_a_tool_of_the_client_comes_first() -> None:
    assert talk("what is the weather in paris") == [ToolRequest("get_weather", '{"city":"paris"}')]
    timer = make_tool("set_timer", parameters={"properties": {"minutes": {"type": "integer"}}})
    assert talk("set a timer for twenty five minutes", tools=(timer,)) == [
        ToolRequest("set_timer", '{"minutes":25}')
    ]


def test_a_missing_argument_is_asked_for_and_taken_from_the_answer() -> None:
    assert talk("what is the weather") == ["For that I need the city."]
    assert talk("what is the weather", "Paris.") == [ToolRequest("get_weather", '{"city":"paris"}')]
    assert talk("what is the weather", "what time is it") == ["It is 9:00 AM."]


def test_a_sentence_that_a_pause_cut_is_put_together() -> None:
    messages = [Message("user", "what is the weather"), Message("user", "in oslo")]
    assert run(answers(at(9, 0), messages)) == [ToolRequest("get_weather", '{"city":"oslo"}')]


def test_without_a_weather_tool_it_says_how_to_get_one() -> None:
    (said,) = talk("what is the weather", tools=())
    assert isinstance(said, str)
    assert "tool" in said


def test_the_story_goes_on_where_it_was_interrupted() -> None:
    assert talk("tell me a story") == list(STORY)
    brain = at(9, 0)
    heard = f"{' '.join(STORY[:3])} One night a small"
    messages = [
        Message("user", "tell me a story"),
        Message("assistant", heard),
        Message("user", "what time is it"),
        Message("assistant", "It is 9:00 AM."),
    ]
    for asked in ("go on", "continue the story", "Please continue.", "keep going"):
        assert run(answers(brain, [*messages, Message("user", asked)])) == list(STORY[3:])
    assert talk("go on") == [NOT_UNDERSTOOD[0]]
    assert talk("continue the story") == list(STORY)


def test_a_story_lasts_about_a_minute() -> None:
    assert 800 < len(" ".join(STORY)) < 1300
    assert all(len(sentence) <= 110 for sentence in STORY)


def test_it_repeats_itself() -> None:
    assert talk("what day is it", "say that again") == ["Today is Wednesday, March 4."]
    assert talk("say that again") == [NOT_UNDERSTOOD[0]]


def phrases(limit: int = 40) -> list[str]:
    """Sentences of the grammar, each slot filled with its first and last phrases."""
    grammar = SmallTalk().grammar()

    def fill(template: str) -> list[str]:
        parts = re.split(r"<(\w+)>", template)
        choices = [
            [part]
            if index % 2 == 0
            else [text for phrase in ends(grammar.slots[part]) for text in fill(phrase)]
            for index, part in enumerate(parts)
        ]
        return ["".join(chosen) for chosen in product(*choices)][:limit]

    def ends(choices: tuple[str, ...]) -> tuple[str, ...]:
        return (choices[0], choices[-1]) if len(choices) > 1 else choices

    return [phrase for template in grammar.templates for phrase in fill(template)]


@pytest.mark.parametrize(
    "phrase", [phrase for phrase in phrases() if not phrase.endswith(("second", "s", "hour"))]
)
def test_what_it_listens_for_it_can_answer(phrase: str) -> None:
    turns = (*(("tell me a story",) if "continue" in phrase else ()), phrase)
    if phrase.startswith(("say that", "repeat", "can you repeat", "what did you")):
        turns = ("what time is it", phrase)
    assert not set(talk(*turns)) & set(NOT_UNDERSTOOD)


def test_the_grammar_has_the_fixed_and_the_tools_phrases() -> None:
    pattern = at(9, 0).grammar(TOOLS).pattern()
    assert pattern.fullmatch("what time is it")
    assert pattern.fullmatch("what is twenty one times three")
    assert pattern.fullmatch("set a timer for ten seconds")
    assert pattern.fullmatch("what is the weather in new york")
    assert not pattern.fullmatch("what is the weather in")
    assert not pattern.fullmatch("set a timer for seconds")


def test_tools_are_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def counted(tools: Sequence[ToolSpec]) -> object:
        made.append(tools)
        return ToolMatcher(tools)

    monkeypatch.setattr(dialogue, "ToolMatcher", counted)
    brain = SmallTalk()
    made.clear()
    brain.grammar(TOOLS)
    for _ in range(3):
        run(answers(brain, [Message("user", "hello")]))
    assert made == [TOOLS]


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.text(max_size=60))))
def test_any_conversation_gets_an_answer(turns: list[tuple[str, str]]) -> None:
    parts = run(answers(at(9, 0), [Message(role, text) for role, text in turns]))  # type: ignore[arg-type]
    assert parts
    assert all(part for part in parts)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("sunny", "sunny."),
        ('"Sunny today!"', "Sunny today!"),
        ('{"temperature_c": 21, "sky": "clear"}', "temperature c 21, sky clear."),
        ("[1, true, [null]]", "1, yes, nothing."),
        ("", "Get weather is done."),
        ("null", "Get weather is done."),
        (no_answer("get_weather"), "Get weather did not answer."),
    ],
)
def test_how_a_tools_output_is_told(output: str, said: str) -> None:
    assert report([("get_weather", output)]) == said


def test_long_and_deep_outputs_are_bounded() -> None:
    assert len(report([("a", "x" * 10_000)])) < 500
    assert report([("a", "[" * 100_000 + "]" * 100_000)]).startswith("[[[")
    assert report([("a", "[" * 20 + "]" * 20)]) == "more."


def test_several_outputs_are_told_in_order() -> None:
    results = [
        Message("tool", output, ToolRequest(name, "{}")) for name, output in (("a", "one"), ("b", "two"))
    ]
    assert run(answers(at(9, 0), [Message("user", "x"), *results])) == ["one. two."]


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
