"""What the configurations of OpenAI and xAI have in common: tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ..protocol.errors import LocalProtocolError
from ..protocol.mint import ToolSpec
from .options import NameRule, ServerTool, check_names
from .realtime_events import FunctionTool

MAX_DESCRIPTION: Final = 1024
"""Characters of a tool's description; a longer one made OpenAI refuse the whole configuration."""

AnyTool: TypeAlias = FunctionTool | dict[str, Any]


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
    check_names(tools, rule, reserved)
    for tool in tools:
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
