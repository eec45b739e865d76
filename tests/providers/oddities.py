"""Odd messages, for the property that one odd field never ends a call: any JSON value, anywhere in one.

For the tests of every dialect: `oddities` draws one odd field of a recorded conversation, and `Oddity.spoil`
returns that conversation with it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from hypothesis import strategies as st

Message: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str | int, ...]

_TEXT = st.text(max_size=5) | st.sampled_from(
    ["\ud83d", "\ude00 x", "\ude00\ud83d", "3", "-1", "3.0", "2026-12-01", ""]
)
_NUMBERS = (
    st.integers(-5, 5)
    | st.sampled_from([3.0, 2.5, -1.0, 2**31, 2**53, 2**64, -(2**70), 10**500, 1e308])
    | st.floats()  # with NaN and the infinities, which Python's own encoder writes
)
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
"""Any value that a server may put anywhere; `json.dumps` with its defaults writes it."""


def places(message: Message) -> Iterator[Path]:
    """Every field of `message`, including nested ones, and one unknown field in each object."""
    yield from _places(message, ())


def _places(value: Any, path: Path) -> Iterator[Path]:
    if path:
        yield path
    if isinstance(value, dict):
        yield (*path, "new")
        for name, inner in value.items():
            yield from _places(inner, (*path, name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _places(inner, (*path, position))


def dotted(path: Path) -> str:
    """``item.content[].text``"""
    return "".join("[]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


class Oddity(NamedTuple):
    """One odd field of a conversation."""

    position: int
    """Of the message in the conversation."""
    path: Path
    value: Any

    def spoil(self, conversation: Sequence[Message]) -> list[str]:
        """`conversation` with this in it, as JSON texts."""
        messages = copy.deepcopy(list(conversation))
        inner: Any = messages[self.position]
        for step in self.path[:-1]:
            inner = inner[step]
        inner[self.path[-1]] = self.value
        return [json.dumps(message) for message in messages]


def oddities(
    conversation: Sequence[Message],
    may_be_odd: Callable[[Message, Path], bool],
    values: st.SearchStrategy[Any] = ANY_JSON,
) -> st.SearchStrategy[Oddity]:
    """One odd field, at any place of any message for which `may_be_odd` says so."""
    found = [
        (position, path)
        for position, message in enumerate(conversation)
        for path in places(message)
        if may_be_odd(message, path)
    ]
    return st.builds(lambda place, value: Oddity(place[0], place[1], value), st.sampled_from(found), values)
