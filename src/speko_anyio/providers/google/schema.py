"""JSON Schema, as tools declare their parameters, to the OpenAPI subset that Gemini Live understands.

Gemini closes the session for one key that it does not know, so only known keys pass. What has an equivalent
is converted; what merely narrows the allowed values is left out and noted; what would change the arguments
themselves (a recursive type, or one that no value fits) is refused. Nothing is dropped silently.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from ...protocol.errors import LocalProtocolError

MAX_NODES: Final = 5_000
"""Schemas in one tool's parameters once references are written out; honest ones have a few dozen, and
references to references would grow without end."""

MAX_DEPTH: Final = 32
"""Nesting of schemas. Gemini gives no figure; models lose track long before."""

MAX_SIZE: Final = 1_000_000
"""The most characters of text, plus entries of objects and lists, in one tool's parameters after references
are expanded: a definition counts as often as it is referenced."""

_MAX_PLACES: Final = 5
"""The most places that one note names."""

_MAX_PLACE: Final = 200
"""The most characters of a place in an error."""

_MAX_NOTES: Final = 20
"""The most dropped keys that get their own note."""

_MAX_COMPARED: Final = 100
"""The most entries of objects and lists that are compared; larger ones count as different."""

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

_OF_OBJECTS: Final = frozenset({"properties", "required", "anyOf", "oneOf"})

_TYPE_BY_KEY: Final = (("properties", "object"), ("items", "array"), ("pattern", "string"))


def convert_parameters(tool: str, schema: Mapping[str, Any]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """`schema` for Gemini, and notes on what of it was left out; None when it has no properties.

    `LocalProtocolError` when it can't be converted; `tool` is for the texts.
    """
    converter = _Converter(tool, schema)
    try:
        converted = converter.convert(*converter.root(), depth=0)
    except _NoValueFits:
        raise LocalProtocolError(
            f"Gemini can't take tool {tool!r}: no arguments fit its parameters; correct them"
        ) from None
    notes = tuple(
        f"Gemini's tool schemas have no {key}: left out of {_some(list(places))} of tool {tool!r}"
        for key, places in list(converter.dropped.items())[:_MAX_NOTES]
    )
    if (more := len(converter.dropped) - _MAX_NOTES) > 0:
        notes += (f"{more} more keys that Gemini's tool schemas do not have are left out of tool {tool!r}",)
    return converted if converted.get("properties") else None, (*notes, *converter.notes)


class _NoValueFits(Exception):
    """The schema is `false`, or requires what is."""


class _Converter:
    """One tool's parameters on their way."""

    def __init__(self, tool: str, root: Mapping[str, Any]) -> None:
        self._tool = tool
        self._root = root
        self._nodes = 0
        self._size = 0
        self._resolved: dict[str, Any] = {}
        self.dropped: dict[str, dict[str, None]] = {}
        """Where each key was left out."""
        self.notes: list[str] = []

    def _refuse(self, where: str, why: str) -> LocalProtocolError:
        place = where if len(where) <= _MAX_PLACE else f"{where[:_MAX_PLACE]}..."
        return LocalProtocolError(f"Gemini can't take tool {self._tool!r}: {place} {why}")

    def _drop(self, key: str, where: str) -> None:
        self.dropped.setdefault(key, {})[where] = None

    def root(self) -> tuple[dict[str, Any], str, tuple[str, ...]]:
        """The parameters themselves, which must be one object: its alternatives are merged."""
        where = "parameters"
        flat, refs = self.flat(self._root, where, ())
        merged = self._object_of(flat, where, refs, 0)
        if merged is None:
            raise LocalProtocolError(
                f"the parameters of tool {self._tool!r} must be a JSON Schema of an object, not of "
                f"{flat.get('type', 'something else')!r}; wrap them in an object"
            )
        return merged, where, refs

    def _object_of(
        self, flat: dict[str, Any], where: str, refs: tuple[str, ...], depth: int
    ) -> dict[str, Any] | None:
        """`flat` as one object without alternatives; None when it is of another type."""
        self._count(where, depth)
        kind = flat.get("type", "object" if flat.keys() & _OF_OBJECTS else _type_of(flat.get("const")))
        kinds = self._names_of(kind, where) if isinstance(kind, list) else [_lower(kind)]
        if "object" not in kinds and None not in kinds:
            return None
        if any(name not in ("object", "null", None) for name in kinds):
            self._drop("parameters other than objects", where)
        groups = [(key, flat[key]) for key in ("anyOf", "oneOf") if key in flat]
        merged = {**flat, "type": "object"}
        for key, branches in groups:
            del merged[key]
            if not isinstance(branches, list):
                raise self._refuse(where, "has alternatives that are not a list; correct it")
            objects = []
            for number, branch in enumerate(branches):
                if not _is_null(branch):
                    place = f"{where}.{key}[{number}]"
                    with contextlib.suppress(_NoValueFits):
                        inner, inner_refs = self.flat(branch, place, refs, depth + 1)
                        objects.append((place, self._object_of(inner, place, inner_refs, depth + 1)))
            found = [(place, one) for place, one in objects if one is not None]
            if branches and not found:
                return None
            if len(found) < len(objects):
                self._drop("parameters other than objects", where)
            self._unite(merged, found, where)
            self.notes.append(
                f"Gemini needs one object as parameters: the alternatives of {where} of tool {self._tool!r} "
                "are merged, and only what all of them require is required"
            )
        return merged

    def _unite(self, into: dict[str, Any], objects: list[tuple[str, dict[str, Any]]], where: str) -> None:
        """Give `into` the properties of all alternatives, and what all of them require."""
        variants: dict[str, list[Any]] = {}
        for place, one in objects:
            for name, schema in self._properties(one, place).items():
                some = variants.setdefault(name, [])
                if schema is not False:  # forbidden with this alternative
                    some.append(schema)
            for key in one:
                if (
                    key not in {"type", "properties", "required", "title", "description"}
                    and key not in _SILENT
                ):
                    self._drop(key, place)
        own = self._properties(into, where)
        self._weigh(where, len(own) + sum(map(len, variants.values())))
        into["properties"] = {**{name: _either(some) for name, some in variants.items()}, **own}
        names = [set(self._required(one, place)) for place, one in objects]
        common = set.intersection(*names) if names else set()
        ordered = (name for place, one in objects[:1] for name in self._required(one, place))
        into["required"] = list(
            dict.fromkeys([*self._required(into, where), *(name for name in ordered if name in common)])
        )

    def _properties(self, flat: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        properties = flat.get("properties", {})
        if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
            raise self._refuse(where, "has properties that are not an object; correct it")
        return properties

    def _required(self, flat: Mapping[str, Any], where: str) -> list[str]:
        required = flat.get("required", [])
        if not isinstance(required, list):
            raise self._refuse(where, "has a `required` that is not a list; correct it")
        names = [name for name in required if isinstance(name, str)]
        if len(names) < len(required):
            self._drop("required names other than text", where)
        return names

    def _weigh(self, where: str, size: int) -> None:
        self._size += size
        if self._size > MAX_SIZE:
            raise self._refuse(
                where,
                f"makes it larger than {MAX_SIZE} characters with its references expanded; simplify it",
            )

    def flat(
        self, schema: Any, where: str, refs: tuple[str, ...], depth: int = 0
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """`schema` without references and ``allOf`` at its own level, and the references now inside."""
        if schema is True:
            return {}, refs
        if schema is False:
            raise _NoValueFits
        if not isinstance(schema, Mapping):
            raise self._refuse(where, "is not a JSON Schema; correct it")
        self._weigh(where, len(schema))
        flat = dict(schema)
        if isinstance(flat.get("required"), bool):
            self._drop("required other than a list of names", where)  # as drafts before 4 had it
            del flat["required"]
        parts: list[Any] = []
        if "$ref" in flat:
            ref = flat.pop("$ref")
            ref = unquote(ref) if isinstance(ref, str) else ref
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
        inside = dict.fromkeys(refs)
        for part in parts:
            self._count(where, depth)
            inner, inner_refs = self.flat(part, where, refs, depth + 1)
            inside.update(dict.fromkeys(inner_refs))
            self._merge(flat, inner, where)
        return flat, tuple(inside)

    def _resolve(self, ref: Any, where: str) -> Any:
        """What the JSON pointer `ref` (RFC 6901) leads to."""
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise self._refuse(where, "has a reference to the outside; put its target under $defs")
        if ref not in self._resolved:
            node: Any = self._root
            for step in ref.split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                if isinstance(node, Mapping) and step in node:
                    node = node[step]
                elif isinstance(node, list) and step in map(str, range(len(node))):
                    node = node[int(step)]
                else:
                    raise self._refuse(
                        where, f"refers to {ref[:_MAX_PLACE]!r}, which does not exist; correct it"
                    )
            self._resolved[ref] = node
        return self._resolved[ref]

    def _merge(self, into: dict[str, Any], other: Mapping[str, Any], where: str) -> None:
        """What stands in `into` already wins: it is nearer to the use."""
        for key, value in other.items():
            if key not in into:
                into[key] = value
            elif key == "properties" and isinstance(value, Mapping) and isinstance(into[key], Mapping):
                self._weigh(where, len(value) + len(into[key]))
                into[key] = {**value, **into[key]}
            elif key == "required" and isinstance(value, list) and isinstance(into[key], list):
                self._weigh(where, len(value) + len(into[key]))
                into[key] = [*into[key], *_beyond(value, into[key])]
            elif key == "type":
                into[key] = self._type_of_both(into[key], value, where)
            elif key not in {"title", "description"} and key not in _SILENT and not _same(value, into[key]):
                self._drop(f"second {key}", where)

    def _type_of_both(self, one: Any, other: Any, where: str) -> Any:
        ours, theirs = self._names_of(one, where), self._names_of(other, where)
        both = [name for name in ours if name in theirs or (name == "integer" and "number" in theirs)]
        if "number" in ours and "integer" in theirs and "integer" not in both:
            both.append("integer")
        if not both:
            several = isinstance(one, list) or isinstance(other, list)
            why = "has lists of types without a common one" if several else "has two types at once"
            raise self._refuse(where, f"{why}; correct it")
        return both[0] if len(both) == 1 else both

    def _names_of(self, kinds: Any, where: str) -> list[str]:
        """The names of the types in `kinds`, a name or a list of names, each once and in lower case."""
        kinds = kinds if isinstance(kinds, list) else [kinds]
        self._weigh(where, len(kinds))
        names: dict[str, None] = {}
        for kind in kinds:
            name = _lower(kind)
            if not isinstance(name, str) or (name not in _TYPES and name != "null"):
                raise self._refuse(where, f"has the type {kind!r}; use one of {', '.join(_TYPES)}")
            names[name] = None
        return list(names)

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
                raise self._refuse(where, f"has a {key} that is not text; correct it")
            self._weigh(where, len(value))
        if flat.get("nullable") is True:
            out["nullable"] = True
        elif flat.get("nullable") not in (None, False):
            self._drop("nullable other than true or false", where)
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
        if branches is None and (types := _types_of(flat)) is not None:
            # The branches pick the keys that go with their type.
            beside = {"type", "title", "description", "enum", "default", "nullable"}
            rest = {key: value for key, value in flat.items() if key not in beside}
            branches = [{**rest, "type": name, **_of_type(name, flat)} for name in types]
            self._weigh(where, len(branches) * len(rest))
            flat.clear()
        if branches is None:
            return None
        if not isinstance(branches, list):
            raise self._refuse(where, "has alternatives that are not a list; correct it")
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
        if flat.get("default") is not None:
            if len(branches) == 1:
                beside["default"] = flat["default"]
            else:
                self._drop("default beside alternatives", where)
        converted = []
        for number, branch in enumerate(branches):
            place = where if len(branches) == 1 else f"{where}.anyOf[{number}]"
            with contextlib.suppress(_NoValueFits):
                inner, inner_refs = branch, refs
                if beside:
                    # What stands beside the alternatives holds for each of them.
                    inner, inner_refs = self.flat(branch, place, refs)
                    self._weigh(place, len(beside))
                    self._merge(inner, beside, place)
                converted.append(self.convert(inner, place, inner_refs, depth + 1))
        if not converted:
            raise _NoValueFits
        # Gemini wants nothing beside anyOf: what is said of all alternatives is said of each.
        said = [_said_of(out, branch) for branch in converted]
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
            texts = [value for value in some if isinstance(value, str)] if kind == "STRING" else []
            if len(texts) < len(some) or not some:
                self._drop("enum of other than strings", where)
            if "" in texts:
                # Gemini rejects the whole setup because of one.
                self._drop("empty texts in an enum", where)
            if texts := [value for value in dict.fromkeys(texts) if value]:
                self._weigh(where, sum(map(len, texts)) + len(texts))
                out["enum"] = texts
        form = flat.get("format")
        if form is not None:
            if isinstance(form, str) and form in _FORMATS.get(kind, ()):
                out["format"] = form
            else:
                self._drop(f"format {form!r}", where)
        for key in _NUMBERS.get(kind, ()):
            value = flat.get(key)
            if value is not None:
                out[key] = self._number(value, key, where, whole=kind not in ("NUMBER", "INTEGER"))
        pattern = flat.get("pattern")
        if kind == "STRING" and pattern is not None:
            if not isinstance(pattern, str):
                raise self._refuse(where, "has a pattern that is not text; correct it")
            self._weigh(where, len(pattern))
            out["pattern"] = pattern
        default = flat.get("default")
        if default is not None:
            if _fits(default, kind.lower()) or not _is_json(default):
                self._weigh(where, _length(default))
                out["default"] = default
            else:
                self._drop("default of another type", where)

    def _number(self, value: Any, key: str, where: str, *, whole: bool) -> int | float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            if not whole:
                return value
            if value == int(value) and value >= 0:
                return int(value)
        raise self._refuse(where, f"has a {key} that is not a {'count' if whole else 'number'}; correct it")

    def _object(
        self, flat: dict[str, Any], out: dict[str, Any], where: str, refs: tuple[str, ...], depth: int
    ) -> None:
        properties = self._properties(flat, where)
        required = dict.fromkeys(self._required(flat, where))
        converted = {}
        for name, schema in properties.items():
            place = f"{where}.{name}"
            try:
                converted[name] = self.convert(schema, place, refs, depth + 1)
            except _NoValueFits:
                also = ", which is required" if name in required else ""
                self.notes.append(f"no value fits {place} of tool {self._tool!r}{also}: it is left out")
        if converted:
            out["properties"] = converted
        # A name that is no property makes Gemini refuse the tool.
        if known := [name for name in required if name in converted]:
            out["required"] = known
        if not required.keys() <= properties.keys():
            self._drop("required names without a property", where)

    def _array(
        self, flat: dict[str, Any], out: dict[str, Any], where: str, refs: tuple[str, ...], depth: int
    ) -> None:
        items = flat.get("items")
        if not items and isinstance(flat.get("prefixItems"), list) and flat["prefixItems"]:
            items = {"anyOf": flat["prefixItems"]}
        if isinstance(items, list):
            items = {"anyOf": items}
        place = f"{where}[]"
        try:
            out["items"] = self.convert(True if items is None else items, place, refs, depth + 1)
        except _NoValueFits:  # the array is empty
            out["items"] = self.convert(True, place, refs, depth + 1)


def _some(places: list[str]) -> str:
    rest = len(places) - _MAX_PLACES
    return ", ".join(places[:_MAX_PLACES]) + (f" and {rest} more places" if rest > 0 else "")


def _said_of(out: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with the keys of `out`; if it has alternatives, each of them gets the keys."""
    if "anyOf" in schema:
        return {"anyOf": [_said_of(out, branch) for branch in schema["anyOf"]]}
    return {**out, **schema}


def _is_json(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) or _type_of(value) is not None


def _lower(name: Any) -> Any:
    return name.lower() if isinstance(name, str) else name


def _is_null(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    kind = schema.get("type")
    return (
        _lower(kind) == "null"
        or (isinstance(kind, list) and bool(kind) and all(_lower(name) == "null" for name in kind))
        or ("const" in schema and schema["const"] is None)
        or schema.get("enum") == [None]
    )


def _types_of(flat: Mapping[str, Any]) -> list[Any] | None:
    """The types that `flat` allows, if it names several or its enum has values of several; else None."""
    kinds = flat.get("type")
    if isinstance(kinds, list):
        names = [_lower(name) for name in kinds]
        return (
            list(dict.fromkeys(names))
            if all(isinstance(name, str) for name in names)
            else names[:_MAX_COMPARED]
        )
    values = flat.get("enum")
    if kinds is None and isinstance(values, list):
        found = dict.fromkeys(_type_of(value) for value in values if value is not None)
        if len(found) > 1 and None not in found:
            return [*found, *(["null"] if None in values else [])]
    return None


def _of_type(name: Any, flat: Mapping[str, Any]) -> dict[str, Any]:
    """The enum values and the default of `flat` that have this type."""
    found: dict[str, Any] = {}
    values = flat.get("enum")
    if isinstance(values, list):
        if some := [value for value in values if _fits(value, name)]:
            found["enum"] = some
    elif values is not None:
        found["enum"] = values
    if flat.get("default") is not None and _fits(flat["default"], name):
        found["default"] = flat["default"]
    return found


def _fits(value: Any, kind: Any) -> bool:
    """Whether `value` is of the JSON type `kind`."""
    match kind:
        case "array":
            return isinstance(value, list | tuple)
        case "object":
            return isinstance(value, Mapping)
        case "null":
            return value is None
        case "number":
            return _type_of(value) in ("number", "integer")
        case "integer":
            return _type_of(value) == "integer" or (isinstance(value, float) and value.is_integer())
    return bool(_type_of(value) == kind)


def _length(value: Any) -> int:
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError):
        return 0  # sending the setup will report it


def _same(one: Any, other: Any) -> bool:
    """Whether both are equal; values that would take long to compare count as different."""
    if one is other:
        return True
    if isinstance(one, list | Mapping) and (len(one) > _MAX_COMPARED or _is_deep(one)):
        return False
    return bool(one == other)


def _is_deep(value: Any) -> bool:
    inner: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
    return any(isinstance(one, list | Mapping) for one in inner)


def _beyond(names: list[Any], known: list[Any]) -> list[Any]:
    """The `names` that are not in `known`."""
    taken = {name for name in known if isinstance(name, str)}
    return [name for name in names if not (isinstance(name, str) and name in taken)]


def _either(schemas: list[Any]) -> Any:
    """A schema that allows whatever any of these allows."""
    if not schemas:
        return False
    texts: dict[str, None] = {}
    for schema in schemas:
        if not isinstance(schema, Mapping) or not schema.keys() <= {"const", "enum", "type", "title"}:
            break
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            break
        texts.update(dict.fromkeys(values))
    else:
        return {"type": "string", "enum": list(texts)}
    different: list[Any] = []
    for schema in schemas:
        if not any(_same(schema, known) for known in different[-_MAX_COMPARED:]):
            different.append(schema)
    return different[0] if len(different) == 1 else {"anyOf": different}


def _type_of(value: Any) -> str | None:
    for kind, name in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number")):
        if isinstance(value, kind):
            return name
    return None
