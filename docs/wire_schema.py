"""Write ``wire.schema.json``: a JSON Schema for each message of the wire and each body of the HTTP API.

``python docs/wire_schema.py`` renews it from the structs of the core; a test asserts that it is up to date,
and that it and the core agree about what is valid.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol import mint

FILE: Final = Path(__file__).parent / "wire.schema.json"
_REF: Final = "#/$defs/"

_BODIES: Final = {
    "MintRequest": mint.MintRequest,
    "SessionGrant": mint.SessionGrant,
    "ProviderGrant": mint.ProviderGrant,
    "Error": mint.APIErrorBody,
}
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

_RULES: Final[dict[str, dict[str, Any]]] = {
    "client_control": {
        "required": ["t", "action"],
        "properties": {"action": {"enum": ["commit", "clear", "end_turn"]}},
    },
    "client_text": {"required": ["t", "text"], "properties": {"text": {"type": "string", "minLength": 1}}},
    "client_say": {"required": ["t", "text"], "properties": {"text": {"type": "string", "minLength": 1}}},
    "client_image": {
        "required": ["t", "mimeType", "data"],
        "properties": {
            "mimeType": {"type": "string", "pattern": "^image/[a-zA-Z0-9][a-zA-Z0-9.+-]{0,63}$"},
            "data": {"type": "string", "contentEncoding": "base64", "pattern": _BASE64, "minLength": 1},
        },
    },
    "client_update": {
        "anyOf": [{"required": [name]} for name in ("systemPrompt", "tools", "voice", "turns")],
        "properties": {
            "voice": {"type": "string", "minLength": 1},
            "tools": {
                "type": "array",
                "items": {"$ref": f"{_REF}Tool", "properties": {"name": {"minLength": 1}}},
            },
        },
    },
}
"""What the core demands beyond the types: a message without it is refused, or unknown."""


def messages(union: Any) -> dict[str, type[msgspec.Struct]]:
    """Return the messages of one direction by their ``t``."""
    return {kind.__struct_config__.tag: kind for kind in get_args(union)}


def schema() -> dict[str, Any]:
    """Return the whole schema. Its `$defs` are the messages, such as ``client_text``, and the bodies."""
    names = {"ToolSpec": "Tool", **{kind.__name__: name for name, kind in _BODIES.items()}}
    directions: dict[str, list[str]] = {}
    for side, union in (("client", codec.ClientMessage), ("server", codec.ServerMessage)):
        directions[side] = [f"{side}_{tag}" for tag in messages(union)]
        names |= {kind.__name__: f"{side}_{tag}" for tag, kind in messages(union).items()}
    _, components = msgspec.json.schema_components(
        [codec.ClientMessage, codec.ServerMessage, *_BODIES.values()], ref_template=f"{_REF}{{name}}"
    )
    definitions: dict[str, Any] = {
        side: {"oneOf": [{"$ref": _REF + name} for name in members]} for side, members in directions.items()
    }
    for name, component in components.items():
        name = names.get(name, name)
        definition = _plain(component, names)
        rules = _RULES.get(name, {})
        definition["properties"] |= rules.get("properties", {})
        definitions[name] = {**definition, **{key: rules[key] for key in rules if key != "properties"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The Speko wire",
        "description": "`client` is any text message that a client sends, `server` any that a server sends.",
        "$defs": definitions,
    }


def _plain(component: Any, names: dict[str, str]) -> Any:
    """Return a copy with our names, and without what describes the Python classes."""
    match component:
        case {"$ref": str() as ref}:
            name = ref.removeprefix(_REF)
            return {"$ref": _REF + names.get(name, name)}
        case {"enum": [only]}:
            return {"const": only}
        case dict():
            # A property may have any name, a keyword only these.
            described = ("title", "description") if component.get("type") == "object" else ()
            return {key: _plain(value, names) for key, value in component.items() if key not in described}
        case list():
            return [_plain(item, names) for item in component]
        case _:
            return component


def text() -> str:
    """Return the file's text."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
