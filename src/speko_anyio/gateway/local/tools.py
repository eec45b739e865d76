"""Which of the client's tools a sentence asks for, and with which arguments. Words are matched, nothing more.

A tool is asked for when every telling word of its name is heard (``get_weather``: "weather"; verbs such
as *get* tell nothing), or else two telling words of its description. Arguments come from the sentence:

- an ``enum``: the value that is heard;
- a string: what follows the tool's words and a preposition ("weather *in* new york"), else the rest of
  the sentence without the tool's words and fillers;
- an integer or number: the first number word that is heard;
- a boolean: false if "off" or "not" is heard, else true.

Only required properties and those that are heard are filled. A call whose required arguments were
not all heard is not made: the voice asks for what is missing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .grammar import Grammar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .session import ToolDeclaration

MAX_CALLS: Final = 4
"""Tools called for one sentence."""

PLACES: Final = (
    "amsterdam", "athens", "beijing", "berlin", "boston", "brussels", "chicago", "copenhagen", "dublin",
    "geneva", "hamburg", "houston", "lisbon", "london", "madrid", "melbourne", "miami", "milan", "moscow",
    "munich", "new york", "oslo", "paris", "prague", "rome", "san francisco", "seattle", "shanghai",
    "stockholm", "sydney", "tokyo", "toronto", "vienna", "warsaw", "washington", "zurich",
)  # fmt: skip
"""Cities that the recogniser listens for where a tool wants a place; dictation may hear others."""

NUMBERS: Final = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30,
    "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip

_VERBS: Final = frozenset(
    {"get", "set", "fetch", "lookup", "look", "find", "run", "do", "make", "call", "read", "show", "tell"}
    | {"give", "check", "query", "search", "list", "use", "send"}
)
_FILLERS: Final = frozenset(
    {"a", "an", "and", "are", "at", "be", "by", "can", "could", "current", "currently", "do", "does", "for"}
    | {"from", "give", "how", "i", "in", "is", "it", "its", "like", "me", "my", "now", "of", "on", "or"}
    | {"please", "set", "tell", "that", "the", "this", "to", "up", "was", "what", "what's", "when", "which"}
    | {"will", "with", "would", "you", "your"}
)
_PREPOSITIONS: Final = frozenset(
    {"about", "at", "called", "for", "from", "in", "named", "of", "on", "to", "with"}
)
_PLACE_WORDS: Final = frozenset({"city", "country", "destination", "location", "place", "town", "where"})
_JSON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


class PlannedCall(NamedTuple):
    """A tool that the sentence asks for."""

    name: str
    arguments: dict[str, Any]
    missing: tuple[str, ...]
    """Required properties that the sentence does not give; the call must not be made if there are any."""


def words(text: str) -> list[str]:
    """The lower-case words of a sentence or an identifier (``getWeather_now``: get, weather, now)."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", spaced.lower())


def plan_calls(heard: str, tools: Sequence[ToolDeclaration]) -> list[PlannedCall]:
    """The calls that `heard` asks for: of tools matched by name if any, else the best by description."""
    said = words(heard)
    by_name = [(tool, subject) for tool in tools if (subject := _subject(tool)) and subject <= set(said)]
    # "weather forecast" asks for that, not for "weather" too
    matched = [
        (tool, subject) for tool, subject in by_name if not any(subject < other for _, other in by_name)
    ] or _by_description(said, tools)
    return [_plan(said, tool, subject) for tool, subject in matched[:MAX_CALLS]]


def tool_grammar(tools: Sequence[ToolDeclaration]) -> Grammar:
    """What people say to ask for `tools`, so that the recogniser can expect it."""
    templates: list[str] = []
    slots: dict[str, tuple[str, ...]] = {}
    for index, tool in enumerate(tools):
        name = [word for word in words(tool.name) if word.isalpha()]
        subject = " ".join(word for word in name if word not in _VERBS)
        if not subject:
            continue
        asks = [subject, f"what is the {subject}", f"what's the {subject}", f"tell me the {subject}"]
        asks += [f"what is the {subject} like", f"how is the {subject}", f"get the {subject}"]
        asks += [" ".join(name)] if " ".join(name) != subject else []
        templates += asks
        for key, schema in _properties(tool).items():
            values = _expected_values(key, schema)
            if not values:
                continue
            slot = f"s{index}_{len(slots)}"
            slots[slot] = values
            templates += [f"{ask} {preposition} <{slot}>" for ask in asks for preposition in ("in", "for")]
    return Grammar(tuple(dict.fromkeys(templates)), slots)


def _subject(tool: ToolDeclaration) -> set[str]:
    return set(words(tool.name)) - _VERBS - _FILLERS


def _by_description(
    said: list[str], tools: Sequence[ToolDeclaration]
) -> list[tuple[ToolDeclaration, set[str]]]:
    shared = [(tool, (set(words(tool.description)) - _VERBS - _FILLERS) & set(said)) for tool in tools]
    best = max(shared, key=lambda pair: len(pair[1]), default=None)
    return [best] if best is not None and len(best[1]) >= 2 else []


def _plan(said: list[str], tool: ToolDeclaration, subject: set[str]) -> PlannedCall:
    arguments: dict[str, Any] = {}
    missing: list[str] = []
    required = tool.parameters.get("required", [])
    for key, schema in _properties(tool).items():
        value = _argument(said, subject | set(words(tool.name)), schema)
        if value is not None and isinstance(value, _JSON_TYPES.get(schema.get("type", "string"), (object,))):
            arguments[key] = value
        elif key in required:
            missing.append(key)
    return PlannedCall(tool.name, arguments, tuple(missing))


def _argument(said: list[str], subject: set[str], schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        sentence = f" {' '.join(said)} "
        return next((v for v in schema["enum"] if f" {' '.join(words(str(v)))} " in sentence), None)
    match schema.get("type", "string"):
        case "integer" | "number":
            return next((n for word in said if (n := _number(word)) is not None), None)
        case "boolean":
            return not {"off", "not", "no"} & set(said)
        case "string":
            return _phrase(said, subject)
        case _:
            return None


def _number(word: str) -> int | None:
    return int(word) if word.isdecimal() else NUMBERS.get(word)


def _phrase(said: list[str], subject: set[str]) -> str | None:
    after = max((index for index, word in enumerate(said) if word in subject), default=-1) + 1
    for index in range(after, len(said)):
        if said[index] in _PREPOSITIONS and said[index + 1 :]:
            return " ".join(said[index + 1 :])
    rest = [word for word in said if word not in subject and word not in _FILLERS and word not in _VERBS]
    return " ".join(rest) or None


def _properties(tool: ToolDeclaration) -> dict[str, dict[str, Any]]:
    properties = tool.parameters.get("properties", {})
    if not isinstance(properties, dict):
        return {}
    return {key: schema for key, schema in properties.items() if isinstance(schema, dict)}


def _expected_values(key: str, schema: dict[str, Any]) -> tuple[str, ...]:
    if isinstance(values := schema.get("enum"), list):
        return tuple(" ".join(words(value)) for value in values if isinstance(value, str))
    if schema.get("type", "string") == "string" and _PLACE_WORDS & set(words(key)):
        return PLACES
    return ()
