"""Converts the JSON Schemas of tools' parameters to the OpenAPI subset that Gemini Live understands.

Gemini closes the session over a single unknown key, so only known keys pass. Keywords with an equivalent are
converted. Those that only narrow the allowed values, and properties that no value fits, are left out and
noted. Those that would change the arguments themselves (a recursive type) are refused. Nothing is dropped
silently.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote

import msgspec

from ...protocol.errors import LocalProtocolError
from .._options import Laborious

_Json: TypeAlias = dict[str, Any]

MAX_NODES: Final = 10_000
"""The most schemas in a session's tools after references are expanded: honest ones have a few dozen each, and
references to references grow exponentially."""

MAX_DEPTH: Final = 32
"""The deepest nesting of schemas. Gemini documents no limit; models lose track long before."""

MAX_SIZE: Final = 1_000_000
"""The most characters of text in a session's tools after references are expanded, where each entry of an
object or a list counts as `_ENTRY` characters: a definition counts as often as it is referenced."""

QUICK_NODES: Final = 200
QUICK_SIZE: Final = 20_000
"""Tools within these bounds take a few milliseconds at most to convert; those beyond them up to 0.2 s."""

_ENTRY: Final = 4
"""Characters that a visited entry counts as: copying so many takes about as long as visiting it."""

_MAX_PLACES: Final = 5
"""The most places that one note names."""

_MAX_PLACE: Final = 200
"""The most characters of a place in an error."""

_MAX_NOTES: Final = 20
"""The most dropped keys that get their own note."""

_MAX_ALTERNATIVES: Final = 20
"""The most recent alternatives that another one is compared with; an equal one before them is kept twice."""

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
"""Keys that say nothing about the values, and are dropped without a note."""

_HANDLED: Final = frozenset(
    {"$ref", "allOf", "anyOf", "oneOf", "const", "enum", "type", "format", "title", "description"}
    | {"nullable", "properties", "required", "items", "pattern", "default"}
    | {key for keys in _NUMBERS.values() for key in keys}
)
"""Keys that `_Converter` reads; they mean nothing beside a type that they don't apply to."""

_MERGED: Final = frozenset({"type", "properties", "required", "title", "description"})
"""Keys of alternatives that merging them into one object keeps, or does without."""

_NOT_BESIDE: Final = frozenset({"anyOf", "oneOf", "title", "description", "nullable", "default"})
"""Keys beside alternatives that do not simply hold for each of them."""

_OF_OBJECTS: Final = frozenset({"properties", "required", "anyOf", "oneOf"})

_TYPE_BY_KEY: Final = (("properties", "object"), ("items", "array"), ("pattern", "string"))


class Work:
    """The work that converting the tools of one session may still take.

    Nobody can tell the work of a schema by its size: 1 KB of references to references expands to gigabytes.
    With `quick`, only as much as an event loop can be held up for; `Laborious` is raised when that is spent.
    """

    __slots__ = ("nodes", "quick", "size")

    def __init__(self, *, quick: bool = False) -> None:
        self.quick: bool = quick
        self.nodes: int = QUICK_NODES if quick else MAX_NODES
        self.size: int = QUICK_SIZE if quick else MAX_SIZE


def convert_parameters(
    tool: str, schema: Mapping[str, Any], work: Work | None = None
) -> tuple[_Json | None, tuple[str, ...]]:
    """Convert `schema`; also return notes on what was left out. None when it has no properties.

    Raises `LocalProtocolError` when it can't be converted; `tool` is for the texts. `work` is what the
    session's tools may still take; it is reduced.
    """
    converter = _Converter(tool, schema, work or Work())
    try:
        converted = converter.convert_root()
    except _NoValueFits:
        raise LocalProtocolError(
            f"Gemini can't take tool {tool!r}: no arguments fit its parameters; correct them"
        ) from None
    notes = tuple(
        f"Gemini's tool schemas have no {_shortened(key)}: left out of {_some(list(places))} of tool {tool!r}"
        for key, places in list(converter.dropped.items())[:_MAX_NOTES]
    )
    if (more := len(converter.dropped) - _MAX_NOTES) > 0:
        notes += (f"{more} more keys that Gemini's tool schemas do not have are left out of tool {tool!r}",)
    return converted if converted.get("properties") else None, (*notes, *converter.notes)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_PLACE else f"{text[:_MAX_PLACE]}..."


class _NoValueFits(Exception):
    """The schema is `false`, or requires a property that is."""


class _Place(NamedTuple):
    """The position of a schema."""

    path: str
    """For errors and notes; only the beginning if the place is deep."""
    refs: tuple[str, ...] = ()
    """The references that it is inside."""
    depth: int = 0

    def inside(self, step: str = "") -> _Place:
        """Return the place of a schema inside this one."""
        return _Place(_shortened(self.path + step[: _MAX_PLACE + 1]), self.refs, self.depth + 1)


class _Converter:
    """The conversion of one tool's parameters. A schema is *flat* without references and ``allOf``."""

    def __init__(self, tool: str, root: Mapping[str, Any], work: Work) -> None:
        self._tool = tool
        self._root = root
        self._work = work
        self._resolved: dict[str, Any] = {}
        self.dropped: dict[str, dict[str, None]] = {}
        """Where each key was left out."""
        self.notes: list[str] = []

    def _refuse(self, at: _Place, why: str) -> LocalProtocolError:
        return LocalProtocolError(f"Gemini can't take tool {self._tool!r}: {at.path} {why}")

    def _drop(self, key: str, at: _Place) -> None:
        self.dropped.setdefault(key, {})[at.path] = None

    def _note(self, note: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(note)

    def _weigh(self, at: _Place, *, entries: int = 0, text: int = 0) -> None:
        """Count entries before they are looked at, and characters before they are copied."""
        work = self._work
        work.size -= entries * _ENTRY + text
        if work.size < 0:
            if work.quick:
                raise Laborious
            raise self._refuse(
                at,
                f"makes it larger than {MAX_SIZE} characters, all tools together and references expanded; "
                "simplify it",
            )

    def _count(self, at: _Place, depth: int) -> None:
        work = self._work
        work.nodes -= 1
        if work.nodes < 0 and work.quick:
            raise Laborious
        if work.nodes < 0 or depth > MAX_DEPTH:
            raise self._refuse(
                at,
                f"makes it larger than {MAX_NODES} schemas, all tools together and references expanded, or "
                f"deeper than {MAX_DEPTH} levels; simplify it",
            )

    # The root: one object

    def convert_root(self) -> _Json:
        """Convert the parameters themselves, which must be one object: its alternatives are merged."""
        flat, at = self._flatten(self._root, _Place("parameters"))
        merged = self._object_of(flat, at)
        if merged is None:
            raise LocalProtocolError(
                f"the parameters of tool {self._tool!r} must be a JSON Schema of an object, not of "
                f"{flat.get('type', 'something else')!r}; wrap them in an object"
            )
        return self._convert(merged, at)

    def _object_of(self, flat: _Json, at: _Place) -> _Json | None:
        """Return `flat` as one object without alternatives; None when it is of another type."""
        self._count(at, at.depth)
        kind = flat.get("type", "object" if flat.keys() & _OF_OBJECTS else _type_of(flat.get("const")))
        kinds = self._names_of(kind, at) if isinstance(kind, list) else [_lower(kind)]
        if "object" not in kinds and None not in kinds:
            return None
        if any(name not in ("object", "null", None) for name in kinds):
            self._drop("parameters other than objects", at)
        merged = {**flat, "type": "object"}
        for key in ("anyOf", "oneOf"):
            branches = merged.pop(key, None)
            if branches is None and key not in flat:
                continue
            if not isinstance(branches, list):
                raise self._refuse(at, "has alternatives that are not a list; correct it")
            objects = []
            self._weigh(at, entries=len(branches))
            for number, branch in enumerate(branches):
                if not self._is_null(branch, at):
                    place = at.inside(f".{key}[{number}]")
                    with contextlib.suppress(_NoValueFits):
                        inner, place = self._flatten(branch, place, place.depth)
                        objects.append((place, self._object_of(inner, place)))
            found = [(place, one) for place, one in objects if one is not None]
            if branches and not found:
                return None
            if len(found) < len(objects):
                self._drop("parameters other than objects", at)
            self._unite(merged, found, at)
            self._note(
                f"Gemini needs one object as parameters: the alternatives of {at.path} of tool "
                f"{self._tool!r} are merged, and only what all of them require is required"
            )
        return merged

    def _unite(self, into: _Json, objects: list[tuple[_Place, _Json]], at: _Place) -> None:
        """Give `into` the properties of all alternatives, and what all of them require."""
        variants: dict[str, list[Any]] = {}
        common: list[str] | None = None
        for place, one in objects:
            self._weigh(at, entries=len(one) + len(common or ()))
            for name, schema in self._properties(one, place).items():
                some = variants.setdefault(name, [])
                if schema is not False:  # forbidden with this alternative
                    some.append(schema)
            for key in one:
                if key not in _MERGED and key not in _SILENT:
                    self._drop(key, place)
            required = dict.fromkeys(self._required(one, place))
            common = [name for name in (required if common is None else common) if name in required]
        own = self._properties(into, at)
        into["properties"] = {**{name: self._either(some, at) for name, some in variants.items()}, **own}
        into["required"] = list(dict.fromkeys([*self._required(into, at), *(common or ())]))

    def _properties(self, flat: _Json, at: _Place) -> Mapping[str, Any]:
        properties = flat.get("properties", {})
        if isinstance(properties, Mapping):
            self._weigh(at, entries=len(properties))
        if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
            raise self._refuse(at, "has properties that are not an object; correct it")
        return properties

    def _required(self, flat: _Json, at: _Place) -> list[str]:
        required = flat.get("required", [])
        if not isinstance(required, list):
            raise self._refuse(at, "has a `required` that is not a list; correct it")
        self._weigh(at, entries=len(required))
        names = [name for name in required if isinstance(name, str)]
        if len(names) < len(required):
            self._drop("required names other than text", at)
        return names

    # References and allOf

    def _flatten(self, schema: Any, at: _Place, depth: int = 0) -> tuple[_Json, _Place]:
        """Return `schema` flat, and its place with the references it was behind; `depth`: of their chain."""
        if schema is True:
            return {}, at
        if schema is False:
            raise _NoValueFits
        if not isinstance(schema, Mapping):
            raise self._refuse(at, "is not a JSON Schema; correct it")
        self._weigh(at, entries=len(schema) + len(at.refs))
        flat = dict(schema)
        if isinstance(flat.get("required"), bool):
            self._drop("required other than a list of names", at)  # as drafts before 4 had it
            del flat["required"]
        parts: list[Any] = []
        if "$ref" in flat:
            ref = flat.pop("$ref")
            if isinstance(ref, str):
                self._weigh(at, text=len(ref))
                ref = unquote(ref)
            if ref in at.refs:
                raise self._refuse(
                    at, "refers to itself, and Gemini has no recursive types; unroll it or pass JSON text"
                )
            at = at._replace(refs=(*at.refs, ref))
            parts.append(self._resolve(ref, at))
        all_of = flat.pop("allOf", [])
        if not isinstance(all_of, list):
            raise self._refuse(at, "has an allOf that is not a list; correct it")
        refs = dict.fromkeys(at.refs)
        for part in parts + all_of:
            self._count(at, depth)
            inner, place = self._flatten(part, at, depth + 1)
            self._weigh(at, entries=len(place.refs))
            refs.update(dict.fromkeys(place.refs))
            self._merge(flat, inner, at)
        return flat, at._replace(refs=tuple(refs))

    def _resolve(self, ref: Any, at: _Place) -> Any:
        """Look up the JSON pointer `ref` (RFC 6901)."""
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise self._refuse(at, "has a reference to the outside; put its target under $defs")
        if ref not in self._resolved:
            node: Any = self._root
            for step in ref.split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                if isinstance(node, Mapping) and step in node:
                    node = node[step]
                elif isinstance(node, list) and (index := _index(step)) is not None and index < len(node):
                    node = node[index]
                else:
                    raise self._refuse(
                        at, f"refers to {ref[:_MAX_PLACE]!r}, which does not exist; correct it"
                    )
            self._resolved[ref] = node
        return self._resolved[ref]

    def _merge(self, into: _Json, other: Mapping[str, Any], at: _Place) -> None:
        """Add `other` to `into`, whose own values take precedence: they are nearer to the use."""
        self._weigh(at, entries=len(other))
        for key, value in other.items():
            if key not in into:
                into[key] = value
                continue
            own = into[key]
            if key == "properties" and isinstance(value, Mapping) and isinstance(own, Mapping):
                self._weigh(at, entries=len(value) + len(own))
                into[key] = {**value, **own}
            elif key == "required" and isinstance(value, list) and isinstance(own, list):
                self._weigh(at, entries=len(value) + len(own))
                taken = {name for name in own if isinstance(name, str)}
                into[key] = own + [name for name in value if not (isinstance(name, str) and name in taken)]
            elif key == "type":
                into[key] = self._common_types(own, value, at)
            elif key not in {"title", "description"} and key not in _SILENT and not _same(value, own):
                self._drop(f"second {key}", at)

    def _common_types(self, one: Any, other: Any, at: _Place) -> Any:
        """Return the types that both allow: every integer is a number, too."""
        ours, theirs = self._names_of(one, at), self._names_of(other, at)
        both = [name for name in ours if name in theirs or (name == "integer" and "number" in theirs)]
        if "number" in ours and "integer" in theirs and "integer" not in both:
            both.append("integer")
        if not both:
            several = isinstance(one, list) or isinstance(other, list)
            why = "has lists of types without a common one" if several else "has two types at once"
            raise self._refuse(at, f"{why}; correct it")
        return both[0] if len(both) == 1 else both

    def _names_of(self, kinds: Any, at: _Place) -> list[str]:
        """Return the names of the types in `kinds`, a name or a list, each once and in lower case."""
        kinds = kinds if isinstance(kinds, list) else [kinds]
        self._weigh(at, entries=len(kinds))
        names: dict[str, None] = {}
        for kind in kinds:
            name = _lower(kind)
            if not isinstance(name, str) or (name not in _TYPES and name != "null"):
                raise self._unknown_type(kind, at)
            names[name] = None
        return list(names)

    def _unknown_type(self, kind: Any, at: _Place) -> LocalProtocolError:
        return self._refuse(at, f"has the type {kind!r:.100}; use one of {', '.join(_TYPES)}")

    # One schema

    def _convert(self, schema: Any, at: _Place) -> _Json:
        self._count(at, at.depth)
        flat, at = self._flatten(schema, at)
        out: _Json = {key: flat[key] for key in ("title", "description") if flat.get(key)}
        for key, value in out.items():
            if not isinstance(value, str):
                raise self._refuse(at, f"has a {key} that is not text; correct it")
            self._weigh(at, text=len(value))
        if flat.get("nullable") is True:
            out["nullable"] = True
        elif flat.get("nullable") not in (None, False):
            self._drop("nullable other than true or false", at)
        if "const" in flat:
            flat.setdefault("enum", [flat["const"]])
        branches = self._branches(flat, at)
        if branches is not None:
            return self._any_of(branches, flat, out, at)
        kind = self._kind(flat, at)
        out["type"] = kind
        self._add_values(flat, out, kind, at)
        if kind == "OBJECT":
            self._add_properties(flat, out, at)
        elif kind == "ARRAY":
            self._add_items(flat, out, at)
        self._weigh(at, entries=len(flat))
        for key in flat:
            if key not in _HANDLED and key not in _SILENT and key not in out:
                self._drop(key, at)
        return out

    def _branches(self, flat: _Json, at: _Place) -> list[Any] | None:
        """Return the alternatives that `flat` has, None if it has only itself."""
        if "anyOf" in flat and "oneOf" in flat:
            self._drop("oneOf beside anyOf", at)
        branches = flat.get("anyOf", flat.get("oneOf"))
        if branches is None and (types := self._types_of(flat, at)) is not None:
            # The branches pick the keys that go with their type.
            beside = {"type", "title", "description", "enum", "default", "nullable"}
            rest = {key: value for key, value in flat.items() if key not in beside}
            self._weigh(at, entries=len(types) * len(rest))
            branches = [{**rest, "type": name, **self._of_type(name, flat, at)} for name in types]
            flat.clear()
        if branches is not None and not isinstance(branches, list):
            raise self._refuse(at, "has alternatives that are not a list; correct it")
        return branches

    def _types_of(self, flat: _Json, at: _Place) -> list[str] | None:
        """Return the types that `flat` allows, if it lists some or its enum has values of several."""
        kinds, values = flat.get("type"), flat.get("enum")
        if isinstance(kinds, list):
            return self._names_of(kinds, at)
        if kinds is None and isinstance(values, list):
            self._weigh(at, entries=len(values))
            found = dict.fromkeys(_type_of(value) for value in values if value is not None)
            if len(found) > 1 and None not in found:
                return [*map(str, found), *(["null"] if None in values else [])]
        return None

    def _any_of(self, branches: list[Any], flat: _Json, out: _Json, at: _Place) -> _Json:
        self._weigh(at, entries=len(branches) + len(flat))
        real = [branch for branch in branches if not self._is_null(branch, at)]
        if not real:
            raise self._refuse(at, "has no possible value but null; leave it out")
        if len(real) < len(branches):
            out["nullable"] = True
        beside = {key: value for key, value in flat.items() if key not in _NOT_BESIDE | _SILENT}
        if flat.get("default") is not None:
            if len(real) == 1:
                beside["default"] = flat["default"]
            else:
                self._drop("default beside alternatives", at)
        said = []
        for number, branch in enumerate(real):
            place = at.inside("" if len(real) == 1 else f".anyOf[{number}]")
            with contextlib.suppress(_NoValueFits):
                if beside:
                    # Keys beside the alternatives apply to each of them.
                    branch, place = self._flatten(branch, place)
                    self._merge(branch, beside, place)
                # Gemini allows nothing beside anyOf: copy what applies to all alternatives into each.
                said.append(self._said_of(out, self._convert(branch, place), at))
        if not said:
            raise _NoValueFits
        return said[0] if len(said) == 1 else {"anyOf": said}

    def _kind(self, flat: _Json, at: _Place) -> str:
        name = flat.get("type")
        if name is None:
            name = next((kind for key, kind in _TYPE_BY_KEY if key in flat), None)
            values = flat.get("enum")
            if name is None and isinstance(values, list):
                name = _type_of(next((value for value in values if value is not None), None))
            if name is None:
                self._note(
                    f"{at.path} of tool {self._tool!r} has no type, and Gemini needs one: "
                    "it is a string there"
                )
                return "STRING"
        if not isinstance(name, str) or name.lower() not in _TYPES:
            raise self._unknown_type(name, at)
        return _TYPES[name.lower()]

    def _add_values(self, flat: _Json, out: _Json, kind: str, at: _Place) -> None:
        """Add what limits the values themselves."""
        self._add_enum(flat, out, kind, at)
        form = flat.get("format")
        if isinstance(form, str) and form in _FORMATS.get(kind, ()):
            out["format"] = form
        elif form is not None:
            self._drop(f"format {form!r}", at)
        for key in _NUMBERS.get(kind, ()):
            if (value := flat.get(key)) is not None:
                out[key] = self._number(value, key, at, whole=kind not in ("NUMBER", "INTEGER"))
        pattern = flat.get("pattern")
        if kind == "STRING" and pattern is not None:
            if not isinstance(pattern, str):
                raise self._refuse(at, "has a pattern that is not text; correct it")
            self._weigh(at, text=len(pattern))
            out["pattern"] = pattern
        default = flat.get("default")
        if default is not None:
            if _fits(default, kind.lower()) or not _is_json(default):
                self._weigh(at, text=_length(default))
                out["default"] = default
            else:
                self._drop("default of another type", at)

    def _add_enum(self, flat: _Json, out: _Json, kind: str, at: _Place) -> None:
        values = flat.get("enum")
        if values is None:
            return
        if not isinstance(values, list):
            raise self._refuse(at, "has an enum that is not a list; correct it")
        self._weigh(at, entries=len(values))
        some = [value for value in values if value is not None]
        if len(some) < len(values):
            out["nullable"] = True
        texts = [value for value in some if isinstance(value, str)] if kind == "STRING" else []
        if len(texts) < len(some) or not some:
            self._drop("enum of other than strings", at)
        if "" in texts:
            # Gemini rejects the whole setup because of an empty one.
            self._drop("empty texts in an enum", at)
        if texts := [value for value in dict.fromkeys(texts) if value]:
            self._weigh(at, text=sum(map(len, texts)))
            out["enum"] = texts

    def _number(self, value: Any, key: str, at: _Place, *, whole: bool) -> int | float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            if not whole:
                return value
            if value == int(value) and value >= 0:
                return int(value)
        raise self._refuse(at, f"has a {key} that is not a {'count' if whole else 'number'}; correct it")

    def _add_properties(self, flat: _Json, out: _Json, at: _Place) -> None:
        properties = self._properties(flat, at)
        required = dict.fromkeys(self._required(flat, at))
        converted = {}
        for name, schema in properties.items():
            self._weigh(at, text=len(name))
            place = at.inside(f".{name}")
            try:
                converted[name] = self._convert(schema, place)
            except _NoValueFits:
                also = ", which is required" if name in required else ""
                self._note(f"no value fits {place.path} of tool {self._tool!r}{also}: it is left out")
        if converted:
            out["properties"] = converted
        # Gemini refuses a tool that requires an unknown property.
        if known := [name for name in required if name in converted]:
            out["required"] = known
        if not required.keys() <= properties.keys():
            self._drop("required names without a property", at)

    def _add_items(self, flat: _Json, out: _Json, at: _Place) -> None:
        items = flat.get("items")
        if not items and isinstance(flat.get("prefixItems"), list) and flat["prefixItems"]:
            items = {"anyOf": flat["prefixItems"]}
        if isinstance(items, list):
            items = {"anyOf": items}
        place = at.inside("[]")
        try:
            out["items"] = self._convert(True if items is None else items, place)
        except _NoValueFits:  # the array is empty
            out["items"] = self._convert(True, place)

    # Parts of a schema, weighed

    def _is_null(self, schema: Any, at: _Place) -> bool:
        """Whether `schema` allows nothing but null."""
        if not isinstance(schema, Mapping):
            return False
        kind = schema.get("type")
        if isinstance(kind, list):
            self._weigh(at, entries=len(kind))
        return (
            _lower(kind) == "null"
            or (isinstance(kind, list) and bool(kind) and all(_lower(name) == "null" for name in kind))
            or ("const" in schema and schema["const"] is None)
            or schema.get("enum") == [None]
        )

    def _of_type(self, name: Any, flat: Mapping[str, Any], at: _Place) -> _Json:
        """Return the enum values and the default of `flat` that have this type."""
        found: _Json = {}
        values = flat.get("enum")
        if isinstance(values, list):
            self._weigh(at, entries=len(values))
            if some := [value for value in values if _fits(value, name)]:
                found["enum"] = some
        elif values is not None:
            found["enum"] = values
        if flat.get("default") is not None and _fits(flat["default"], name):
            found["default"] = flat["default"]
        return found

    def _said_of(self, out: _Json, schema: _Json, at: _Place) -> _Json:
        """Return `schema` with the keys of `out`; if it has alternatives, each of them gets the keys."""
        self._weigh(
            at, entries=1 + len(out), text=sum(len(text) for text in out.values() if isinstance(text, str))
        )
        if "anyOf" in schema:
            return {"anyOf": [self._said_of(out, branch, at) for branch in schema["anyOf"]]}
        return {**out, **schema}

    def _either(self, schemas: list[Any], at: _Place) -> Any:
        """Return a schema that allows whatever any of these allows."""
        if not schemas:
            return False
        self._weigh(at, entries=len(schemas))
        texts: dict[str, None] = {}
        for schema in schemas:
            if not isinstance(schema, Mapping) or not schema.keys() <= {"const", "enum", "type", "title"}:
                break
            values = schema.get("enum", [schema["const"]] if "const" in schema else None)
            if not isinstance(values, list):
                break
            self._weigh(at, entries=len(values))
            if not all(isinstance(value, str) for value in values):
                break
            texts.update(dict.fromkeys(values))
        else:
            return {"type": "string", "enum": list(texts)}
        different: list[Any] = []
        for schema in schemas:
            known = different[-_MAX_ALTERNATIVES:]
            self._weigh(at, entries=len(known))
            if not any(_same(schema, other) for other in known):
                different.append(schema)
        return different[0] if len(different) == 1 else {"anyOf": different}


def _index(step: str) -> int | None:
    """Return the position in a list that a step of a JSON pointer names (RFC 6901 section 4)."""
    canonical = step.isascii() and step.isdecimal() and len(step) < 10 and str(int(step)) == step
    return int(step) if canonical else None


def _some(places: list[str]) -> str:
    rest = len(places) - _MAX_PLACES
    return ", ".join(places[:_MAX_PLACES]) + (f" and {rest} more places" if rest > 0 else "")


def _is_json(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) or _type_of(value) is not None


def _lower(name: Any) -> Any:
    return name.lower() if isinstance(name, str) else name


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


def _type_of(value: Any) -> str | None:
    for kind, name in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number")):
        if isinstance(value, kind):
            return name
    return None
