"""What the configurations of OpenAI and xAI have in common: tools."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias

from ..protocol.errors import LocalProtocolError
from ..protocol.mint import ToolSpec
from .options import ServerTool
from .realtime_events import FunctionTool

MAX_DESCRIPTION: Final = 1024
"""Characters of a tool's description; a longer one made OpenAI refuse the whole configuration."""

AnyTool: TypeAlias = FunctionTool | dict[str, Any]


def convert_tools(
    tools: Sequence[ToolSpec], server_tools: Sequence[ServerTool], reserved: Collection[str]
) -> tuple[tuple[AnyTool, ...], tuple[str, ...]]:
    """All tools as the provider wants them, and notes on what had to change.

    `LocalProtocolError` when a tool has no name, the name of another or one of `reserved`, or parameters
    that are no JSON Schema of an object.
    """
    notes: list[str] = []
    converted: list[AnyTool] = []
    taken: set[str] = set()
    for tool in tools:
        if not tool.name or tool.name in taken:
            raise LocalProtocolError(
                f"each tool needs a name of its own, but one has {tool.name!r}; rename it"
            )
        if tool.name in reserved:
            raise LocalProtocolError(
                f"the provider has a tool {tool.name!r} of its own enabled; rename yours or disable that one"
            )
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
