"""JSON Schema, as tools declare their parameters, to the OpenAPI subset that Gemini Live understands.

Gemini closes the session for one key that it does not know, so only known keys pass. What has an equivalent
is converted; what merely narrows the allowed values is left out and noted; what would change the arguments
themselves (a recursive type, one without any possible value) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..protocol.errors import LocalProtocolError

MAX_NODES: Final = 5_000
"""Schemas in one tool's parameters once references are written out; honest ones have a few dozen, and
references to references would grow without end."""

MAX_DEPTH: Final = 32
"""Nesting of schemas. Gemini gives no figure; models lose track long before."""

_TYPES: Final = {
    "string": "STRING",
    "number": "NUMBER",
    "integer": "INTEGER",
    "boolean": "BOOLEAN",
    "array": "ARRAY",
    "object": "OBJECT",
}
_FORMATS: Final = {
    "STRING": {"date-time", "enum"},
    "NUMBER": {"float", "double"},
    "INTEGER": {"int32", "int64"},
}
_NUMBERS: Final = {
    "ARRAY": ("minItems", "maxItems"),
    "STRING": ("minLength", "maxLength"),
    "OBJECT": ("minProperties", "maxProperties"),
    "NUMBER": ("minimum", "maximum"),
    "INTEGER": ("minimum", "maximum"),
}
_SILENT: Final = frozenset({"$schema", "$id", "$comment", "$defs", "definitions", "examples", "example"})
"""Keys that say nothing about the values: nobody misses them."""

_HANDLED: Final = frozenset(
    {"$ref", "allOf", "anyOf", "oneOf", "const", "enum", "type", "format", "title", "description"}
    | {"nullable", "properties", "required", "items", "pattern", "default"}
    | {key for keys in _NUMBERS.values() for key in keys}
)
"""Keys that `_Converter` looks at; those that don't go with a schema's type mean nothing there."""

_TYPE_BY_KEY: Final = (("properties", "object"), ("items", "array"), ("pattern", "string"))


def convert_parameters(tool: str, schema: Mapping[str, Any]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """`schema` for Gemini, and notes on what of it was left out; None when it has no properties.

    `LocalProtocolError` when it can't be converted; `tool` is for the texts.
    """
    converter = _Converter(tool, schema)
    root = converter.flat(schema, "parameters", ())[0]
    if root.get("type", "object") != "object":
        raise LocalProtocolError(
            f"the parameters of tool {tool!r} must be a JSON Schema of an object, not of "
            f"{root['type']!r}; wrap them in an object"
        )
    converted = converter.convert({"type": "object", **schema}, "parameters", ())
    notes = tuple(
        f"Gemini's tool schemas have no {key}: left out of {', '.join(places)} of tool {tool!r}"
        for key, places in converter.dropped.items()
    )
    return converted if converted.get("properties") else None, (*notes, *converter.notes)


class _Converter:
    """One tool's parameters on their way."""

    def __init__(self, tool: str, root: Mapping[str, Any]) -> None:
        self._tool = tool
        self._root = root
        self._nodes = 0
        self.dropped: dict[str, list[str]] = {}
        """Where each key was left out."""
        self.notes: list[str] = []

    def _refuse(self, where: str, why: str) -> LocalProtocolError:
        return LocalProtocolError(f"Gemini can't take tool {self._tool!r}: {where} {why}")

    def _drop(self, key: str, where: str) -> None:
        places = self.dropped.setdefault(key, [])
        if where not in places:
            places.append(where)

    def flat(
        self, schema: Any, where: str, refs: tuple[str, ...], depth: int = 0
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """`schema` without references and ``allOf`` at its own level, and the references now inside."""
        if schema is True:
            return {}, refs
        if not isinstance(schema, Mapping):
            raise self._refuse(where, "is not a JSON Schema that any value fits; correct it")
        flat = dict(schema)
        parts: list[Any] = []
        if "$ref" in flat:
            ref = flat.pop("$ref")
            if ref in refs:
                raise self._refuse(
                    where, "refers to itself, and Gemini has no recursive types; unroll it or pass JSON text"
                )
            refs = (*refs, ref)
            parts.append(self._resolve(ref, where))
        all_of = flat.pop("allOf", [])
        if not isinstance(all_of, list):
            raise self._refuse(where, "has an allOf that is no list; correct it")
        parts += all_of
        for part in parts:
            self._count(where, depth)
            inner, refs = self.flat(part, where, refs, depth + 1)
            self._merge(flat, inner, where)
        return flat, refs

    def _resolve(self, ref: Any, where: str) -> Any:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise self._refuse(where, "refers outside of itself; put what it refers to under $defs")
        node: Any = self._root
        for step in ref.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or step not in node:
                raise self._refuse(where, f"refers to {ref!r}, which is not there; correct it")
            node = node[step]
        return node

    def _merge(self, into: dict[str, Any], other: Mapping[str, Any], where: str) -> None:
        """What stands in `into` already wins: it is nearer to the use."""
        for key, value in other.items():
            if key not in into:
                into[key] = value
            elif key == "properties" and isinstance(value, Mapping) and isinstance(into[key], Mapping):
                into[key] = {**value, **into[key]}
            elif key == "required" and isinstance(value, list) and isinstance(into[key], list):
                into[key] = [*into[key], *(name for name in value if name not in into[key])]
            elif key == "type" and value != into[key]:
                raise self._refuse(where, "must be of two types at once; correct it")
            elif value != into[key] and key not in {"title", "description"} and key not in _SILENT:
                self._drop(f"second {key}", where)

    def _count(self, where: str, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self._refuse(
                where,
                f"makes it larger than {MAX_NODES} schemas or {MAX_DEPTH} levels with its references written "
                "out; simplify it",
            )

    def convert(self, schema: Any, where: str, refs: tuple[str, ...], depth: int = 0) -> dict[str, Any]:
        """One schema as Gemini has it."""
        self._count(where, depth)
        flat, refs = self.flat(schema, where, refs)
        out: dict[str, Any] = {key: flat[key] for key in ("title", "description") if flat.get(key)}
        for key, value in out.items():
            if not isinstance(value, str):
                raise self._refuse(where, f"has a {key} that is no text; correct it")
        if flat.get("nullable") is True:
            out["nullable"] = True
        if "const" in flat:
            flat.setdefault("enum", [flat["const"]])
        branches = self._branches(flat, out, where)
        if branches is not None:
            return self._any_of(branches, flat, out, where, refs, depth)
        kind = self._kind(flat, where)
        out["type"] = kind
        self._values(flat, out, kind, where)
        if kind == "OBJECT":
            self._object(flat, out, where, refs, depth)
        elif kind == "ARRAY":
            self._array(flat, out, where, refs, depth)
        for key in flat:
            if key not in _HANDLED and key not in _SILENT and key not in out:
                self._drop(key, where)
        return out

    def _branches(self, flat: dict[str, Any], out: dict[str, Any], where: str) -> list[Any] | None:
        """The alternatives that `flat` has, None if it has only itself; whether null is one goes to `out`."""
        if "anyOf" in flat and "oneOf" in flat:
            self._drop("oneOf beside anyOf", where)
        branches = flat.get("anyOf", flat.get("oneOf"))
        if branches is None and isinstance(flat.get("type"), list):
            branches = [{"type": name} for name in flat["type"]]
            # Keys that go with one of the types are for the branches to pick.
            rest = {key: value for key, value in flat.items() if key not in {"type", "title", "description"}}
            branches = [{**rest, **branch} for branch in branches]
            flat.clear()
        if branches is None:
            return None
        if not isinstance(branches, list):
            raise self._refuse(where, "has alternatives that are no list; correct it")
        real = [branch for branch in branches if not _is_null(branch)]
        if not real:
            raise self._refuse(where, "has no possible value but null; leave it out")
        if len(real) < len(branches):
            out["nullable"] = True
        return real

    def _any_of(
        self,
        branches: list[Any],
        flat: dict[str, Any],
        out: dict[str, Any],
        where: str,
        refs: tuple[str, ...],
        depth: int,
    ) -> dict[str, Any]:
        beside = {
            key: value
            for key, value in flat.items()
            if key not in {"anyOf", "oneOf", "title", "description", "nullable", "default"}
            and key not in _SILENT
        }
        converted = []
        for number, branch in enumerate(branches):
            place = where if len(branches) == 1 else f"{where}.anyOf[{number}]"
            if beside:
                # What stands beside the alternatives holds for each of them.
                inner, inner_refs = self.flat(branch, place, refs)
                self._merge(inner, beside, place)
                converted.append(self.convert(inner, place, inner_refs, depth + 1))
            else:
                converted.append(self.convert(branch, place, refs, depth + 1))
        # Gemini wants nothing beside anyOf: what is said of all alternatives is said of each.
        said = [{**out, **branch} for branch in converted]
        return said[0] if len(said) == 1 else {"anyOf": said}

    def _kind(self, flat: dict[str, Any], where: str) -> str:
        name = flat.get("type")
        if name is None:
            name = next((kind for key, kind in _TYPE_BY_KEY if key in flat), None)
            values = flat.get("enum")
            if name is None and isinstance(values, list) and values:
                name = _type_of(next((value for value in values if value is not None), None))
            if name is None:
                self.notes.append(
                    f"{where} of tool {self._tool!r} has no type, and Gemini needs one: it is a string there"
                )
                return "STRING"
        if not isinstance(name, str) or name.lower() not in _TYPES:
            raise self._refuse(where, f"has the type {name!r}; use one of {', '.join(_TYPES)}")
        return _TYPES[name.lower()]

    def _values(self, flat: dict[str, Any], out: dict[str, Any], kind: str, where: str) -> None:
        values = flat.get("enum")
        if values is not None:
            if not isinstance(values, list):
                raise self._refuse(where, "has an enum that is no list; correct it")
            some = [value for value in values if value is not None]
            if len(some) < len(values):
                out["nullable"] = True
            if kind == "STRING" and some and all(isinstance(value, str) for value in some):
                out["enum"] = some
            else:
                self._drop("enum of other than strings", where)
        form = flat.get("format")
        if form is not None:
            if form in _FORMATS.get(kind, ()):
                out["format"] = form
            else:
                self._drop(f"format {form!r}", where)
        for key in _NUMBERS.get(kind, ()):
            value = flat.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                out[key] = value
            elif value is not None:
                raise self._refuse(where, f"has a {key} that is no number; correct it")
        if kind == "STRING" and isinstance(flat.get("pattern"), str):
            out["pattern"] = flat["pattern"]
        if flat.get("default") is not None:
            out["default"] = flat["default"]

    def _object(
        self, flat: dict[str, Any], out: dict[str, Any], where: str, refs: tuple[str, ...], depth: int
    ) -> None:
        properties = flat.get("properties", {})
        if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
            raise self._refuse(where, "has properties that are no object; correct it")
        if properties:
            out["properties"] = {
                name: self.convert(schema, f"{where}.{name}", refs, depth + 1)
                for name, schema in properties.items()
            }
        required = flat.get("required", [])
        if not isinstance(required, list):
            raise self._refuse(where, "has a required that is no list; correct it")
        # A name that is no property makes Gemini refuse the tool.
        if known := [name for name in required if name in properties]:
            out["required"] = known

    def _array(
        self, flat: dict[str, Any], out: dict[str, Any], where: str, refs: tuple[str, ...], depth: int
    ) -> None:
        items = flat.get("items")
        if items is None and isinstance(flat.get("prefixItems"), list) and flat["prefixItems"]:
            items = {"anyOf": flat["prefixItems"]}
        if isinstance(items, list):
            items = {"anyOf": items}
        out["items"] = self.convert(True if items is None else items, f"{where}[]", refs, depth + 1)


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (
        schema.get("type") in ("null", ["null"]) or ("const" in schema and schema["const"] is None)
    )


def _type_of(value: Any) -> str | None:
    for kind, name in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number")):
        if isinstance(value, kind):
            return name
    return None
