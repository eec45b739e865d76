"""The answers of the offline voice: a small, fixed set of rules, so that a test knows what it will say.

In this order:

1. nothing was understood: it says so;
2. one of the client's tools is asked for (`tool_matching` says when): it is called, its output is spoken;
3. the time is asked for ("what time is it"), or the day ("what day is it");
4. a greeting, thanks, a farewell, or a question for help;
5. anything else: it says what it heard ("I heard: go forward ten meters.").

There is no language model: the session's system prompt, model and temperature change nothing. A sentence in
writing is answered like one that was heard.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ._grammar import Grammar
from ._tool_matching import PlannedCall, ToolMatcher, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from speko_anyio.protocol.mint import ToolSpec

MAX_SPOKEN_OUTPUT: Final = 400
"""Characters of a tool's output that are spoken: about half a minute."""

MAX_SPOKEN_INPUT: Final = 400
"""Characters of the user's sentence that are repeated; a text may be far longer than a turn."""

MAX_SPOKEN_DEPTH: Final = 4
"""Levels of a tool's JSON output that are spoken."""

_PHRASES: Final = (
    "what time is it",
    "what time is it now",
    "what is the time",
    "what's the time",
    "tell me the time",
    "can you tell me the time",
    "what day is it",
    "what day is it today",
    "hello",
    "hello there",
    "good morning",
    "good evening",
    "thank you",
    "goodbye",
    "help",
    "can you help me",
    "what can you do",
)
_TIME: Final = frozenset({"time", "clock"})
_FIXED: Final = (
    (
        frozenset({"hello", "hi", "morning", "evening"}),
        "Hello! I am the offline voice. Ask me what time it is.",
    ),
    (frozenset({"thank", "thanks"}), "You are welcome."),
    (frozenset({"goodbye", "bye"}), "Goodbye!"),
    (frozenset({"help"}), "I can tell the time, call your tools, and repeat what I hear."),
)


GREETING: Final = _FIXED[0][1]
"""What it says when it is asked to speak first."""


class Decision(NamedTuple):
    """What to do next: make `calls` if there are any, else speak `text`."""

    text: str
    calls: tuple[PlannedCall, ...] = ()


class Dialogue:
    """Answers sentences. It remembers nothing from one to the next.

    Args:
        tools: what the client offers.
        now: the local time; a parameter for tests.
    """

    def __init__(self, tools: Sequence[ToolSpec] = (), *, now: Callable[[], datetime] | None = None) -> None:
        self._tools = ToolMatcher(tools)
        self._now = now or _local_time

    def with_tools(self, tools: Sequence[ToolSpec]) -> Dialogue:
        """Return the same dialogue for other tools."""
        return Dialogue(tools, now=self._now)

    def grammar(self) -> Grammar:
        """Return the sentences that this dialogue expects."""
        offered = self._tools.grammar()
        return Grammar((*_PHRASES, *offered.templates), offered.slots)

    def answer(self, heard: str) -> Decision:
        """Decide what to do about `heard`."""
        said = words(heard)
        if not said:
            return Decision("I did not understand that.")
        if calls := self._tools.plan_calls(heard):
            if complete := tuple(call for call in calls if not call.missing):
                return Decision("", complete)
            return Decision(f"To use {_spoken(calls[0].name)} I need the {_join(calls[0].missing)}.")
        if _TIME & set(said):
            now = self._now()
            return Decision(f"It is {now.hour % 12 or 12}:{now:%M} {'AM' if now.hour < 12 else 'PM'}.")
        if "day" in said and "what" in said:
            return Decision(f"Today is {self._now():%A}.")
        for triggers, text in _FIXED:
            if triggers & set(said):
                return Decision(text)
        if said[:4] == ["what", "can", "you", "do"]:
            return Decision(_FIXED[-1][1])
        return Decision(f"I heard: {_sentence(heard[:MAX_SPOKEN_INPUT])}")


def _sentence(text: str) -> str:
    """Return `text` with a mark at its end: typed text may have one, recognised speech has none."""
    text = text.rstrip(" \t\r\n,;:")
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def report(outputs: Sequence[tuple[str, str | None]]) -> str:
    """Return sentences that tell tools' outputs, given as (name, output); None is no answer in time."""
    return " ".join(_report_one(name, output) for name, output in outputs)


def _report_one(name: str, output: str | None) -> str:
    if output is None:
        return f"{_spoken(name).capitalize()} did not answer."
    try:
        value: Any = msgspec.json.decode(output)
    except (msgspec.DecodeError, RecursionError):  # the client's text, so of any depth
        value = output
    said = _beginning(_say_value(value)).strip()
    if not said:
        return f"{_spoken(name).capitalize()} is done."
    return said if said[-1] in ".!?" else f"{said}."


def _beginning(pieces: Iterator[str]) -> str:
    """Join as many pieces as are spoken: the client's output may hold a hundred thousand."""
    text = ""
    for piece in pieces:
        text += piece[:MAX_SPOKEN_OUTPUT]
        if len(text) >= MAX_SPOKEN_OUTPUT:
            break
    return text[:MAX_SPOKEN_OUTPUT]


def _say_value(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > MAX_SPOKEN_DEPTH:
        yield "more"
        return
    match value:
        case dict():
            for index, (key, item) in enumerate(value.items()):
                yield f"{', ' if index else ''}{_spoken(str(key)[:MAX_SPOKEN_OUTPUT])} "
                yield from _say_value(item, depth + 1)
        case list():
            for index, item in enumerate(value):
                yield ", " if index else ""
                yield from _say_value(item, depth + 1)
        case None:
            yield "nothing" if depth else ""
        case bool():
            yield "yes" if value else "no"
        case _:
            yield str(value)


def _spoken(name: str) -> str:
    return " ".join(words(name))


def _join(names: Sequence[str]) -> str:
    return " and the ".join(map(_spoken, names))


def _local_time() -> datetime:
    return datetime.now().astimezone()
