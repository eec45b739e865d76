"""What the configurations of OpenAI and xAI have in common: tools."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ..protocol.errors import LocalProtocolError
from ..protocol.mint import ToolSpec
from .options import ServerTool
from .realtime_events import FunctionTool

MAX_DESCRIPTION: Final = 1024
"""Characters of a tool's description; a longer one made OpenAI refuse the whole configuration."""

AnyTool: TypeAlias = FunctionTool | dict[str, Any]


class NameRule(NamedTuple):
    """Names that a provider accepts for functions. One invalid name voids the whole configuration."""

    provider: str
    pattern: re.Pattern[str]
    words: str
    """The pattern in words, for errors."""


def convert_tools(
    tools: Sequence[ToolSpec], server_tools: Sequence[ServerTool], rule: NameRule, reserved: Mapping[str, str]
) -> tuple[tuple[AnyTool, ...], tuple[str, ...]]:
    """All tools as the provider wants them, and notes on what had to change.

    `reserved` maps names that the provider's own tools use to the tool that uses each.

    Raises `LocalProtocolError` when a tool has a name that the provider rejects, a duplicate name or one of
    `reserved`, or parameters that are not a JSON Schema of an object.
    """
    notes: list[str] = []
    converted: list[AnyTool] = []
    taken: set[str] = set()
    for tool in tools:
        _check_name(tool.name, rule, reserved)
        if tool.name in taken:
            raise LocalProtocolError(f"two tools are named {tool.name!r}; rename one")
        taken.add(tool.name)
        description = tool.description
        if len(description) > MAX_DESCRIPTION:
            description = description[:MAX_DESCRIPTION]
            notes.append(f"the description of tool {tool.name!r} was cut to {MAX_DESCRIPTION} characters")
        parameters = {"type": "object", "properties": {}, **tool.parameters}
        if parameters["type"] != "object":
            raise LocalProtocolError(
                f"the parameters of tool {tool.name!r} must be a JSON Schema of an object, not of "
                f"{parameters['type']!r}; wrap them in an object"
            )
        converted.append(FunctionTool(tool.name, description, parameters))
    return (*converted, *(tool.as_json() for tool in server_tools)), tuple(notes)


def _check_name(name: str, rule: NameRule, reserved: Mapping[str, str]) -> None:
    if not name:
        raise LocalProtocolError("a tool has an empty name; name it")
    if not rule.pattern.fullmatch(name):
        raise LocalProtocolError(
            f"{rule.provider} does not accept {name!r} as the name of a tool; use {rule.words}"
        )
    owner = reserved.get(name)
    if owner is None:
        return
    inside = "" if owner == name else f" inside {owner}"
    raise LocalProtocolError(
        f"{rule.provider} has a tool {name!r} of its own{inside}, which is enabled; rename yours or disable "
        f"{owner}"
    )
