"""Finds the tools that a sentence asks for, and their arguments, by matching words.

A tool is asked for when every telling word of its name is heard (``get_weather``: "weather"; verbs such
as *get* tell nothing), or else two telling words of its description. Arguments come from the sentence:

- an ``enum``: the value that is heard;
- a string: what follows the tool's words and a preposition ("weather *in* new york"), else the rest of
  the sentence without the tool's words and fillers;
- an integer or number: the first one that is heard, in digits or words;
- a boolean: false if "off" or "not" is heard, else true.

Only required properties and those that are heard are filled. A call whose required arguments were
not all heard is not made: the voice asks for what is missing.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cached_property
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import _numbers as numbers
from ._grammar import Grammar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from speko_anyio.protocol.mint import ToolSpec

MAX_CALLS: Final = 4
"""Tools called for one sentence."""

MAX_SUBJECTS: Final = 50
"""Different names of tools in one sentence that are compared with each other."""

# A grammar costs time for each of its words, in the worker that all sessions share.
MAX_ASKS: Final = 100
"""Ways to ask for a tool, about eight each, that are listened for over all tools."""

MAX_VALUED_ASKS: Final = 120
"""Ways to ask for a tool with a value that are listened for, over all sets of values."""

MAX_SLOTS: Final = 12
"""Distinct sets of values that are listened for. Cities are one, for whatever number of properties."""

MAX_SLOT_VALUES: Final = 200
"""Values of one set that are listened for."""

MAX_VALUES: Final = 400
"""Values that are listened for over all sets."""

MAX_ENUM: Final = 500
"""Values of one ``enum`` that are understood at all."""

MAX_PHRASE_WORDS: Final = 6
"""Words of a tool's name or of a value; what is longer is left to dictation."""

PLACES: Final = (
    "amsterdam", "athens", "beijing", "berlin", "boston", "brussels", "chicago", "copenhagen", "dublin",
    "geneva", "hamburg", "houston", "lisbon", "london", "madrid", "melbourne", "miami", "milan", "moscow",
    "munich", "new york", "oslo", "paris", "prague", "rome", "san francisco", "seattle", "shanghai",
    "stockholm", "sydney", "tokyo", "toronto", "vienna", "warsaw", "washington", "zurich",
)  # fmt: skip
"""Cities that the recogniser listens for where a tool wants a place; dictation may hear others."""

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
_ASK_STARTS: Final = ("", "what is the ", "what's the ", "how is the ", "tell me the ", "get the ")
PREPOSITIONS: Final = frozenset(
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
    """Return the lower-case words of a sentence or an identifier (``getWeather_now``: get, weather, now)."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", spaced.lower())


class ToolMatcher:
    """The tools of one session, prepared for matching; the invalid parts of a JSON Schema are ignored."""

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self._tools = tuple(map(_Tool, tools))

    def plan_calls(self, heard: str) -> list[PlannedCall]:
        """Return the calls that `heard` asks for: of tools matched by name, else the best by description."""
        said = words(heard)
        unique = frozenset(said)
        by_name = [(tool, tool.subject) for tool in self._tools if tool.subject and tool.subject <= unique]
        subjects = list(islice(dict.fromkeys(subject for _, subject in by_name), MAX_SUBJECTS))
        # "weather forecast" asks for that tool only, not for "weather" too
        widest = {subject for subject in subjects if not any(subject < other for other in subjects)}
        matched = [(tool, subject) for tool, subject in by_name if subject in widest]
        matched = matched or self._by_description(unique)
        return [tool.plan(heard, said, subject) for tool, subject in matched[:MAX_CALLS]]

    def _by_description(self, said: frozenset[str]) -> list[tuple[_Tool, frozenset[str]]]:
        shared = [(tool, tool.described & said) for tool in self._tools]
        best = max(shared, key=lambda pair: len(pair[1]), default=None)
        return [best] if best is not None and len(best[1]) >= 2 else []

    def grammar(self) -> Grammar:
        """Return what people say to ask for the tools, within the limits above.

        Tools share the room in turns. What is left out may still be heard, by dictation.
        """
        turns = zip_longest(*(tool.asks() for tool in self._tools))
        asks = list(islice((ask for turn in turns for ask in turn if ask is not None), MAX_ASKS))
        if not asks:
            return Grammar(())
        slots = {"ask": tuple(ask.text for ask in asks), "preposition": ("in", "for")}
        templates = ["<ask>"]
        left = MAX_VALUES
        # One slot for equal values: a slot is copied into the search for each template that has it.
        askable = dict.fromkeys(ask.tool for ask in asks)
        distinct = dict.fromkeys(values for tool in askable for values in tool.expected)
        expected = list(islice(distinct, MAX_SLOTS))
        for index, values in enumerate(expected):
            slots[f"value{index}"] = values[:left]
            takers = (ask.text for ask in asks if values in ask.tool.expected)
            slots[f"ask{index}"] = tuple(islice(takers, MAX_VALUED_ASKS // len(expected)))
            templates.append(f"<ask{index}> <preposition> <value{index}>")
            left = max(0, left - len(values))
        return Grammar(tuple(templates), slots)


class _Ask(NamedTuple):
    text: str
    tool: _Tool


class _Tool:
    """One tool, its schema reduced to what speech can give."""

    def __init__(self, declared: ToolSpec) -> None:
        self._name = declared.name
        self._name_words = words(declared.name)
        self.subject = frozenset(self._name_words) - _VERBS - _FILLERS
        """The words that ask for it."""
        self.described = frozenset(words(declared.description)) - _VERBS - _FILLERS
        """The telling words of its description."""
        required = declared.parameters.get("required")
        self._required = frozenset(
            key for key in (required if isinstance(required, list) else ()) if isinstance(key, str)
        )
        properties = declared.parameters.get("properties")
        self._properties = (
            {key: _Property(key, schema) for key, schema in properties.items() if isinstance(schema, dict)}
            if isinstance(properties, dict)
            else {}
        )
        self.expected = tuple(
            dict.fromkeys(values for each in self._properties.values() if (values := each.expected))
        )
        """The distinct sets of values that are listened for."""

    def asks(self) -> Iterator[_Ask]:
        """Yield what people say to ask for it, the likeliest first."""
        name = [word for word in self._name_words if word.isalpha()]
        subject = " ".join(word for word in name if word not in _VERBS)
        if not subject or len(name) > MAX_PHRASE_WORDS:
            return
        yield from (_Ask(f"{start}{subject}", self) for start in _ASK_STARTS)
        yield _Ask(f"what is the {subject} like", self)
        if " ".join(name) not in (subject, f"get the {subject}"):
            yield _Ask(" ".join(name), self)

    def plan(self, heard: str, said: list[str], subject: frozenset[str]) -> PlannedCall:
        """Return the call that `heard`, a sentence of the words `said`, asks for by those of `subject`."""
        arguments: dict[str, Any] = {}
        missing: list[str] = []
        sentence = _Sentence(heard, said, subject.union(self._name_words))
        for key, each in self._properties.items():
            value = each.heard(sentence)
            if value is not None:
                arguments[key] = value
            elif key in self._required:
                missing.append(key)
        return PlannedCall(self._name, arguments, tuple(missing))


class _Property:
    """One property of a tool's parameters."""

    def __init__(self, key: str, schema: dict[str, Any]) -> None:
        kind = schema.get("type", "string")
        if isinstance(kind, list):
            kind = next((each for each in kind if isinstance(each, str) and each != "null"), None)
        self._kind = kind if isinstance(kind, str) else None
        enum = schema.get("enum")
        self._values: dict[str, Any] | None = None
        """The enum's values by how they are said."""
        self.expected: tuple[str, ...] = ()
        """Values that are listened for."""
        if isinstance(enum, list):
            allowed = _JSON_TYPES.get(self._kind or "", ())
            said = (
                (" ".join(words(str(each))), each) for each in enum[:MAX_ENUM] if isinstance(each, allowed)
            )
            self._values = {phrase: value for phrase, value in said if phrase}
            short = (phrase for phrase in self._values if phrase.count(" ") < MAX_PHRASE_WORDS)
            self.expected = tuple(islice(short, MAX_SLOT_VALUES))
        elif self._kind == "string" and _PLACE_WORDS & set(words(key)):
            self.expected = PLACES

    def heard(self, sentence: _Sentence) -> Any:
        """Return the value that a sentence gives, or None."""
        if self._values is not None:
            text = sentence.text
            return next((value for phrase, value in self._values.items() if f" {phrase} " in text), None)
        match self._kind:
            case "integer":
                return sentence.integer
            case "number":
                return sentence.number
            case "boolean":
                return sentence.affirmed
            case "string":
                return sentence.phrase
            case _:
                return None


class _Sentence:
    """What the words of a sentence give; `about_tool` are those that name the tool.

    Each is found once, since a tool may have thousands of properties.
    """

    def __init__(self, heard: str, said: list[str], about_tool: frozenset[str]) -> None:
        self._heard = heard
        self._said = said
        self._about_tool = about_tool

    @cached_property
    def text(self) -> str:
        return f" {' '.join(self._said)} "

    @cached_property
    def integer(self) -> int | None:
        return next((int(value) for value in self._numbers if value.denominator == 1), None)

    @cached_property
    def number(self) -> int | float | None:
        first = next(iter(self._numbers), None)
        return float(first) if first is not None and first.denominator > 1 else self.integer

    @cached_property
    def _numbers(self) -> list[Fraction]:
        return [number.value for number in numbers.numbers(numbers.tokens(self._heard))]

    @cached_property
    def affirmed(self) -> bool:
        return not {"off", "not", "no"} & set(self._said)

    @cached_property
    def phrase(self) -> str | None:
        return _phrase(self._said, self._about_tool)


def _phrase(said: list[str], subject: frozenset[str]) -> str | None:
    after = max((index for index, word in enumerate(said) if word in subject), default=-1) + 1
    for index in range(after, len(said)):
        if said[index] in PREPOSITIONS and said[index + 1 :]:
            return " ".join(said[index + 1 :])
    rest = [word for word in said if word not in subject and word not in _FILLERS and word not in _VERBS]
    return " ".join(rest) or None
