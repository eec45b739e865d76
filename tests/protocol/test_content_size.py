"""How much memory a command takes, about; and how usage adds up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from speko_anyio.protocol import (
    AudioIn,
    Command,
    Commit,
    ImageIn,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Unknown,
    Update,
    Usage,
)
from speko_anyio.protocol._commands import content_size
from speko_anyio.protocol.mint import ToolSpec


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (AudioIn(bytes(10), 24_000), 10),
        (ImageIn("image/png", bytes(10)), 10),
        (ToolResult("c1", "x" * 10), 12),
        (TextIn("x" * 10), 10),
        (Say("x" * 10), 10),
        (Respond("x" * 10), 10),
        (Unknown("new", "x" * 10), 13),
        (Update(system_prompt="x" * 10, turns="auto"), 10),
        (Update(voice="v" * 10, system_prompt="x"), 11),
        (Commit(), 0),
    ],
)
def test_what_a_command_takes(command: Command, size: int) -> None:
    assert content_size(command) == size


def objects(value: object) -> Iterator[object]:
    yield value
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from objects(item)


@pytest.mark.parametrize(
    "schema", [{"a": [[]] * 1000}, {f"p{number}": {} for number in range(1000)}, {"enum": list(range(1000))}]
)
def test_tools_take_no_more_than_is_said(schema: dict[str, object]) -> None:
    read = json.loads(json.dumps(schema))
    size = content_size(Update(tools=(ToolSpec(name="f", parameters=read),)))
    assert sum(map(sys.getsizeof, objects(read))) < size


def test_usages_add_up() -> None:
    assert Usage(1, 2, 3, 4, 5, 6, 7, 8, 0.5) + Usage(10, 20, 30, 40, 50, 60, 70, 80, 1.0) == Usage(
        11, 22, 33, 44, 55, 66, 77, 88, 1.5
    )
