"""Tools in the configurations of OpenAI and xAI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ...protocol.errors import LocalProtocolError
from ...protocol.mint import ToolSpec
from .._options import NameRule, ServerTool, check_names
from ._events import FunctionTool

MAX_DESCRIPTION: Final = 1024
"""The most characters of a tool's description: OpenAI has rejected whole configurations for longer ones."""

AnyTool: TypeAlias = FunctionTool | dict[str, Any]


def convert_tools(
    tools: Sequence[ToolSpec], server_tools: Sequence[ServerTool], rule: NameRule, reserved: Mapping[str, str]
) -> tuple[tuple[AnyTool, ...], tuple[str, ...]]:
    """Return all tools as the provider wants them, and notes on what had to change.

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
        parameters = {"type": "object", "properties": {}, **_with_lower_types(tool, tool.parameters)}
        if isinstance(parameters["type"], list) and "object" in parameters["type"]:
            parameters["type"] = "object"  # the arguments are one in any case
        if parameters["type"] != "object":
            raise LocalProtocolError(
                f"the parameters of tool {tool.name!r} must be a JSON Schema of an object, not of "
                f"{parameters['type']!r}; wrap them in an object"
            )
        converted.append(FunctionTool(tool.name, description, parameters))
    return (*converted, *(tool.as_json() for tool in server_tools)), tuple(notes)


_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_HOLDS_SCHEMAS: Final = frozenset(
    {"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"}
)
_IS_SCHEMA: Final = frozenset(
    {"items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames"}
)
_LISTS_SCHEMAS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAX_DEPTH: Final = 100
"""Levels of a schema. The JSON encoder recurses, and a schema may contain itself."""


def _with_lower_types(tool: ToolSpec, schema: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return `schema` with the names of types in lower case, as JSON Schema has them.

    Google's own schemas have them in upper case, for which OpenAI rejects the whole configuration. Values
    that only look like schemas, such as defaults, stay as they are.
    """
    if depth > _MAX_DEPTH:
        raise LocalProtocolError(
            f"the parameters of tool {tool.name!r} are nested deeper than {_MAX_DEPTH} levels; "
            "use a simpler schema"
        )
    lowered: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type":
            value = [_lower(name) for name in value] if isinstance(value, list) else _lower(value)
        elif key in _HOLDS_SCHEMAS and isinstance(value, Mapping):
            value = {name: _inner(tool, inner, depth) for name, inner in value.items()}
        elif key in _IS_SCHEMA:
            value = _inner(tool, value, depth)
        elif key in _LISTS_SCHEMAS and isinstance(value, list | tuple):
            value = [_inner(tool, inner, depth) for inner in value]
        lowered[key] = value
    return lowered


def _inner(tool: ToolSpec, value: Any, depth: int) -> Any:
    return _with_lower_types(tool, value, depth + 1) if isinstance(value, Mapping) else value


def _lower(name: Any) -> Any:
    return name.lower() if isinstance(name, str) and name.lower() in _TYPES else name
