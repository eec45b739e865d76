"""JSON Schema to what Gemini takes of it: kept, converted, left out with a note, or clearly refused."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import LocalProtocolError
from speko_anyio.providers.google._schema import MAX_NODES, convert_parameters

from .google_talk import check_schema

Schema = dict[str, Any]


def convert(schema: Schema, **root: Any) -> tuple[Any, tuple[str, ...]]:
    """`schema` as the one property of some parameters."""
    parameters, notes = convert_parameters(
        "t", {"type": "object", "properties": {"p": schema, "q": {"type": "integer"}}, **root}
    )
    assert parameters is not None
    check_schema(parameters)
    types.Schema.model_validate(parameters)
    return parameters["properties"].get("p"), notes


STRING = {"type": "STRING"}
INTEGER = {"type": "INTEGER"}

CONVERTED: list[tuple[Schema, Schema]] = [
    ({"type": "string"}, STRING),
    ({"type": "STRING"}, STRING),
    ({"type": "number", "minimum": 1, "maximum": 2.5}, {"type": "NUMBER", "minimum": 1, "maximum": 2.5}),
    ({"type": "integer", "format": "int64"}, {"type": "INTEGER", "format": "int64"}),
    ({"type": "boolean", "default": False}, {"type": "BOOLEAN", "default": False}),
    (
        {"type": "string", "title": "T", "description": "D", "minLength": 1, "maxLength": 9, "pattern": "a"},
        {"type": "STRING", "title": "T", "description": "D", "minLength": 1, "maxLength": 9, "pattern": "a"},
    ),
    ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
    ({"type": "string", "enum": ["a", "b"]}, {"type": "STRING", "enum": ["a", "b"]}),
    ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
    ({"const": "a"}, {"type": "STRING", "enum": ["a"]}),
    ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
    ({"type": "string", "nullable": True}, {"type": "STRING", "nullable": True}),
    ({"type": "string", "default": None}, STRING),
    (
        {"type": ["string", "integer"], "description": "D", "maximum": 3},
        {
            "anyOf": [
                {"description": "D", "type": "STRING"},
                {"description": "D", "type": "INTEGER", "maximum": 3},
            ]
        },
    ),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "STRING", "nullable": True}),
    ({"anyOf": [{"type": "string"}, {"const": None}], "default": None}, {"type": "STRING", "nullable": True}),
    (
        {"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}], "title": "T"},
        {
            "anyOf": [
                {"title": "T", "nullable": True, "type": "STRING"},
                {"title": "T", "nullable": True, "type": "INTEGER"},
            ]
        },
    ),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        {
            "anyOf": [
                {"type": "OBJECT", "properties": {"a": STRING, "b": STRING}, "required": ["a"]},
                {"type": "OBJECT", "properties": {"a": STRING, "b": STRING}, "required": ["b"]},
            ]
        },
    ),
    (
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        {"type": "ARRAY", "items": INTEGER, "minItems": 1},
    ),
    ({"items": {"type": "integer"}}, {"type": "ARRAY", "items": INTEGER}),
    ({"type": ["STRING", "NULL"]}, {"type": "STRING", "nullable": True}),
    ({"type": ["string", "string"]}, STRING),
    (
        {"type": ["string", "integer"], "enum": ["a", None, "b"], "default": "a"},
        {"anyOf": [{"type": "STRING", "enum": ["a", "b"], "default": "a"}, INTEGER]},
    ),
    ({"enum": ["a", "a"]}, {"type": "STRING", "enum": ["a"]}),
    ({"type": "number", "allOf": [{"type": "integer"}]}, INTEGER),
    ({"type": "string", "allOf": [{"type": "STRING"}]}, STRING),
    ({"type": ["string", "null"], "allOf": [{"type": "string"}]}, STRING),
    ({"type": "string", "allOf": [{"type": ["STRING", "null"]}]}, STRING),
    (
        {"type": ["string", "null"], "allOf": [{"type": ["string", "null"]}]},
        {"type": "STRING", "nullable": True},
    ),
    ({"type": ["number", "string"], "allOf": [{"type": "integer"}]}, INTEGER),
    ({"type": ["integer", "string"], "allOf": [{"type": "number"}]}, INTEGER),
    ({"type": "string", "maxLength": 3.0}, {"type": "STRING", "maxLength": 3}),
    (
        {"anyOf": [{"type": "string"}, {"type": "NULL"}], "default": "x"},
        {**STRING, "nullable": True, "default": "x"},
    ),
    ({"type": "array", "items": False}, {"type": "ARRAY", "items": STRING}),
    ({"properties": {"a": {"type": "string"}}}, {"type": "OBJECT", "properties": {"a": STRING}}),
    ({"type": "string", "examples": ["a"], "$comment": "c"}, STRING),
    (
        {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}]},
        {"type": "OBJECT", "properties": {"a": STRING}, "required": ["a"]},
    ),
    (
        {
            "properties": {"b": {"type": "integer"}},
            "required": ["b"],
            "title": "Mine",
            "allOf": [
                {
                    "title": "Its",
                    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                    "required": ["a", "b"],
                }
            ],
        },
        {
            "title": "Mine",
            "type": "OBJECT",
            "properties": {"a": STRING, "b": INTEGER},
            "required": ["b", "a"],
        },
    ),
]


@pytest.mark.parametrize(("schema", "expected"), CONVERTED, ids=str)
def test_converted(schema: Schema, expected: Schema) -> None:
    converted, notes = convert(schema)
    assert converted == expected
    assert not [note for note in notes if "no type" not in note]


def test_references_are_written_out() -> None:
    defs = {
        "City": {"type": "object", "properties": {"name": {"$ref": "#/$defs/a~1b~0"}}},
        "a/b~": {"type": "string", "description": "A name"},
    }
    schema, notes = convert({"$ref": "#/$defs/City", "description": "Where"}, **{"$defs": defs})
    name = {"type": "STRING", "description": "A name"}
    assert schema == {"description": "Where", "type": "OBJECT", "properties": {"name": name}}
    assert notes == ()


def test_a_reference_twice_is_no_recursion() -> None:
    pair = {"type": "object", "properties": {"a": {"$ref": "#/$defs/S"}, "b": {"$ref": "#/$defs/S"}}}
    schema, _ = convert(pair, **{"$defs": {"S": {"type": "string"}}})
    assert schema["properties"] == {"a": STRING, "b": STRING}


@pytest.mark.parametrize(
    "ref",
    [
        "#/$defs/list/anyOf/1",
        "#/%24defs/list/anyOf/1",
        "#/$defs/sp%20ace",
        "#/$defs/%25",
        "#/$defs/~01",
        "#/%24defs/a~1b",
        "#/$defs//x",
    ],
)
def test_pointers_go_anywhere(ref: str) -> None:
    defs: Schema = {
        "list": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "sp ace": {"type": "integer"},
        "%": {"type": "integer"},
        "~1": {"type": "integer"},
        "a/b": {"type": "integer"},
        "": {"x": {"type": "integer"}},
    }
    converted, notes = convert({"$ref": ref}, **{"$defs": defs})
    assert converted == INTEGER
    assert not notes


@pytest.mark.parametrize(
    "ref", ["#/$defs/0", "#/$defs/list/2", "#/$defs/list/-1", "#/$defs/list/01", "#/$defs/list/x"]
)
def test_pointers_to_nothing(ref: str) -> None:
    with pytest.raises(LocalProtocolError, match="which does not exist"):
        convert({"$ref": ref}, **{"$defs": {"list": [{"type": "string"}] * 2}})


def test_the_same_reference_beside_itself_is_no_recursion() -> None:
    defs = {"A": {"properties": {"a": {"type": "string"}}}, "B": {"allOf": [{"$ref": "#/$defs/A"}]}}
    schema = {"type": "object", "allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}
    converted, notes = convert(schema, **{"$defs": defs})
    assert converted == {"type": "OBJECT", "properties": {"a": STRING}}
    assert not notes


# The parameters themselves

A, B = {"type": "string"}, {"type": "integer"}
BOTH = {"a": STRING, "b": INTEGER}
ROOTS: list[tuple[Schema, Schema]] = [
    (
        {"properties": {"a": A, "b": B}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"properties": BOTH},
    ),
    (
        {
            "type": "object",
            "properties": {"a": A, "b": B},
            "required": ["a"],
            "oneOf": [{"required": ["b"]}, {}],
        },
        {"properties": BOTH, "required": ["a"]},
    ),
    (
        {"anyOf": [{"properties": {"a": A}, "required": ["a"]}, {"properties": {"b": B}, "required": ["b"]}]},
        {"properties": BOTH},
    ),
    (
        {
            "oneOf": [
                {"type": "OBJECT", "properties": {"a": A}, "required": ["a"]},
                {"$ref": "#/$defs/X"},
                {"type": "null"},
            ],
            "$defs": {"X": {"type": "object", "properties": {"a": A, "b": B}, "required": ["a", "b"]}},
        },
        {"properties": BOTH, "required": ["a"]},
    ),
    ({"allOf": [{"anyOf": [{"properties": {"a": A}}, {"properties": {"b": B}}]}]}, {"properties": BOTH}),
    (
        {
            "anyOf": [
                {"oneOf": [{"properties": {"a": A}}, {"properties": {"b": B}}]},
                {"properties": {"b": B}},
            ]
        },
        {"properties": BOTH},
    ),
    (
        {"anyOf": [{"properties": {"a": A}}], "oneOf": [{"properties": {"b": B}}]},
        {"properties": BOTH},
    ),
    (
        {
            "anyOf": [
                {"properties": {"kind": {"const": "x"}, "a": A}, "required": ["kind"]},
                {"properties": {"kind": {"enum": ["y"]}, "a": B}, "required": ["kind", "a"]},
            ]
        },
        {
            "properties": {"kind": {"type": "STRING", "enum": ["x", "y"]}, "a": {"anyOf": [STRING, INTEGER]}},
            "required": ["kind"],
        },
    ),
    ({"anyOf": [{"properties": {"a": A}}, {"type": "string"}]}, {"properties": {"a": STRING}}),
    ({"type": "OBJECT", "properties": {"a": A}}, {"properties": {"a": STRING}}),
    ({"properties": {"a": A}, "anyOf": []}, {"properties": {"a": STRING}}),
]


@pytest.mark.parametrize(("schema", "expected"), ROOTS, ids=str)
def test_alternatives_of_the_parameters_are_merged(schema: Schema, expected: Schema) -> None:
    parameters, notes = convert_parameters("t", schema)
    assert parameters is not None
    assert parameters == {"type": "OBJECT", **expected}
    check_schema(parameters)
    types.Schema.model_validate(parameters)
    merged = any(key in json.dumps(schema) for key in ("anyOf", "oneOf"))
    assert any("alternatives of parameters" in note for note in notes) is merged


def test_what_alternatives_of_the_parameters_lose_is_noted() -> None:
    _, notes = convert_parameters(
        "t",
        {"anyOf": [{"properties": {"a": A}, "additionalProperties": False, "not": {}}, {"type": "string"}]},
    )
    told = " ".join(notes)
    for word in ("additionalProperties", "no not:", "parameters other than objects", "parameters.anyOf[0]"):
        assert word in told


LEFT_OUT: list[tuple[Schema, Schema, str]] = [
    (
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "missing"]},
        {"type": "OBJECT", "properties": {"a": STRING}, "required": ["a"]},
        "required names without a property",
    ),
    ({"type": "object", "required": ["missing"]}, {"type": "OBJECT"}, "required names without a property"),
    ({"type": "string", "required": True}, STRING, "required other than a list of names"),
    ({"type": "object", "required": False}, {"type": "OBJECT"}, "required other than a list of names"),
    (
        {
            "required": True,
            "allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}],
        },
        {"type": "OBJECT", "properties": {"a": STRING}, "required": ["a"]},
        "required other than a list of names",
    ),
    ({"type": "object", "required": [["a"], 1, None]}, {"type": "OBJECT"}, "required names other than text"),
    ({"enum": ["a", ""]}, {"type": "STRING", "enum": ["a"]}, "empty texts in an enum"),
    ({"const": ""}, STRING, "empty texts in an enum"),
    ({"type": "string", "enum": ["a", 1]}, {"type": "STRING", "enum": ["a"]}, "enum of other than strings"),
    (
        {"enum": ["a", 1]},
        {"anyOf": [{"type": "STRING", "enum": ["a"]}, INTEGER]},
        "enum of other than strings",
    ),
    ({"type": "string", "format": []}, STRING, "format []"),
    ({"type": "string", "nullable": "yes"}, STRING, "nullable other than true or false"),
    ({"type": "integer", "default": "x"}, INTEGER, "default of another type"),
    ({"anyOf": [A, B], "default": 1}, {"anyOf": [STRING, INTEGER]}, "default beside alternatives"),
    ({"type": "object", "additionalProperties": False}, {"type": "OBJECT"}, "additionalProperties"),
    ({"type": "integer", "exclusiveMinimum": 0}, INTEGER, "exclusiveMinimum"),
    ({"type": "string", "format": "uri"}, STRING, "format 'uri'"),
    ({"type": "integer", "enum": [1, 2]}, INTEGER, "enum of other than strings"),
    ({"const": True}, {"type": "BOOLEAN"}, "enum of other than strings"),
    ({"enum": [1.5]}, {"type": "NUMBER"}, "enum of other than strings"),
    ({"type": "string", "x-mine": 1}, STRING, "x-mine"),
    (
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"type": "ARRAY", "items": STRING},
        "prefixItems",
    ),
    (
        {"anyOf": [{"type": "string"}], "oneOf": [{"type": "integer"}]},
        STRING,
        "oneOf",
    ),
    (
        {"type": "string", "maxLength": 1, "allOf": [{"maxLength": 2}]},
        {"type": "STRING", "maxLength": 1},
        "second maxLength",
    ),
]


@pytest.mark.parametrize(("schema", "expected", "word"), LEFT_OUT, ids=str)
def test_left_out_with_a_note(schema: Schema, expected: Schema, word: str) -> None:
    converted, notes = convert(schema)
    assert converted == expected
    assert any(word in note and "parameters.p" in note and "'t'" in note for note in notes)


def test_one_note_for_one_thing() -> None:
    items = {"type": "object", "properties": {"a": {"type": "string", "format": "uri"}}}
    _, notes = convert({"anyOf": [items, {"type": "array", "items": {"type": "string", "format": "uri"}}]})
    [note] = notes
    assert note == (
        "Gemini's tool schemas have no format 'uri': left out of "
        "parameters.p.anyOf[0].a, parameters.p.anyOf[1][] of tool 't'"
    )


@pytest.mark.parametrize("schema", [{}, {"description": ""}, {"enum": []}, {"enum": [[1]]}])
def test_what_has_no_type_is_a_string(schema: Schema) -> None:
    converted, notes = convert(schema)
    assert converted == STRING
    assert any("no type" in note for note in notes)


def test_anything_is_a_string_too() -> None:
    parameters, notes = convert_parameters("t", {"properties": {"p": True, "q": {"type": "array"}}})
    assert parameters == {
        "type": "OBJECT",
        "properties": {"p": STRING, "q": {"type": "ARRAY", "items": STRING}},
    }
    assert len(notes) == 2


def test_items_as_a_list() -> None:
    converted, _ = convert({"type": "array", "items": [{"type": "string"}, {"type": "integer"}]})
    assert converted == {"type": "ARRAY", "items": {"anyOf": [STRING, INTEGER]}}


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_no_properties_no_parameters(schema: Schema) -> None:
    assert convert_parameters("t", schema) == (None, ())


RECURSIVE = {"$defs": {"N": {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}}}

REFUSED: list[tuple[Schema, Schema, str]] = [
    ({"$ref": "#/$defs/N"}, RECURSIVE, "parameters.p.next refers to itself"),
    ({"$ref": "#"}, {}, "refers to itself"),
    ({"$ref": "https://example.com/s"}, {}, "a reference to the outside"),
    ({"$ref": 5}, {}, "a reference to the outside"),
    ({"$ref": "#/$defs/none"}, {}, "which does not exist"),
    ({"$ref": "#/type/x"}, {}, "which does not exist"),
    (None, {}, "is not a JSON Schema"),  # type: ignore[list-item]
    ({"type": "null"}, {}, "has the type 'null'"),
    ({"type": 5}, {}, "has the type 5"),
    ({"type": "file"}, {}, "has the type 'file'"),
    ({"anyOf": [{"type": "null"}]}, {}, "no possible value but null"),
    ({"anyOf": []}, {}, "no possible value but null"),
    ({"anyOf": 1}, {}, "alternatives that are not a list"),
    ({"allOf": 1}, {}, "an allOf that is not a list"),
    ({"type": "string", "allOf": [{"type": "integer"}]}, {}, "two types at once"),
    ({"type": ["string", "null"], "allOf": [{"type": "integer"}]}, {}, "lists of types without a common one"),
    ({"type": "string", "allOf": [{"type": ["integer", "null"]}]}, {}, "lists of types without a common one"),
    ({"type": "string", "allOf": [{"type": ["file"]}]}, {}, "has the type 'file'"),
    ({"type": "string", "allOf": [{"type": [{}]}]}, {}, "has the type {}"),
    ({"enum": 1, "type": "string"}, {}, "an enum that is not a list"),
    ({"type": "object", "properties": []}, {}, "properties that are not an object"),
    ({"type": "object", "required": "a"}, {}, "a `required` that is not a list"),
    ({"type": "string", "minLength": "1"}, {}, "a minLength that is not a count"),
    ({"type": "string", "minLength": 1.5}, {}, "a minLength that is not a count"),
    ({"type": "number", "minimum": float("inf")}, {}, "a minimum that is not a number"),
    ({"type": "string", "pattern": 1}, {}, "a pattern that is not text"),
    ({"type": [{}]}, {}, "has the type {}"),
    ({"type": "string", "title": 1}, {}, "a title that is not text"),
]


@pytest.mark.parametrize(("schema", "root", "words"), REFUSED, ids=str)
def test_refused(schema: Schema, root: Schema, words: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        convert(schema, **root)
    assert words in str(caught.value)
    assert "tool 't'" in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"allOf": [{"type": "string"}]},
        {"type": ["string", "null"]},
        {"type": ["null"]},
        {"type": []},
        {"type": {}},
        {"anyOf": [{"type": ["array"]}, False]},
    ],
)
def test_parameters_must_be_an_object(schema: Schema) -> None:
    with pytest.raises(LocalProtocolError, match="wrap them in an object"):
        convert_parameters("t", schema)


@pytest.mark.parametrize("types_", [["object"], ["object", "null"], ["NULL", "OBJECT"]])
def test_parameters_may_name_their_type_in_a_list(types_: list[str]) -> None:
    parameters, notes = convert_parameters("t", {"type": types_, "properties": {"a": A}})
    assert parameters == {"type": "OBJECT", "properties": {"a": STRING}}
    assert notes == ()
    merged, _ = convert_parameters("t", {"anyOf": [{"type": types_, "properties": {"a": A}}]})
    assert merged == parameters


def test_parameters_that_may_be_an_object_are_one() -> None:
    parameters, [note] = convert_parameters("t", {"type": ["object", "string"], "properties": {"a": A}})
    assert parameters == {"type": "OBJECT", "properties": {"a": STRING}}
    assert "parameters other than objects" in note


NEVER: list[tuple[Schema, Schema]] = [
    ({}, False),  # type: ignore[list-item]
    ({}, {"$ref": "#/$defs/never"}),
    ({}, {"allOf": [{"type": "string"}, False]}),
    ({}, {"anyOf": [False, {"$ref": "#/$defs/never"}]}),
]


@pytest.mark.parametrize(("more", "schema"), NEVER, ids=str)
def test_a_property_that_no_value_fits_is_left_out(more: Schema, schema: Schema) -> None:
    parameters, [note] = convert_parameters(
        "t", {"properties": {"a": A, "p": schema}, "$defs": {"never": False}, **more}
    )
    assert parameters == {"type": "OBJECT", "properties": {"a": STRING}}
    assert note == "no value fits parameters.p of tool 't': it is left out"


def test_a_required_property_that_no_value_fits_is_left_out_with_a_word_more() -> None:
    parameters, [note] = convert_parameters("t", {"properties": {"a": A, "p": False}, "required": ["p", "a"]})
    assert parameters == {"type": "OBJECT", "properties": {"a": STRING}, "required": ["a"]}
    assert note == "no value fits parameters.p of tool 't', which is required: it is left out"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"anyOf": [{"type": "string"}, False]}, STRING),
        (
            {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/never"}], "description": "D"},
            {"description": "D", **STRING},
        ),
        ({"type": "array", "items": {"$ref": "#/$defs/never"}}, {"type": "ARRAY", "items": STRING}),
        ({"type": "array", "prefixItems": [False]}, {"type": "ARRAY", "items": STRING}),
    ],
    ids=str,
)
def test_alternatives_that_no_value_fits_are_none(schema: Schema, expected: Schema) -> None:
    converted, _ = convert(schema, **{"$defs": {"never": False}})
    assert converted == expected


def test_alternatives_of_the_parameters_may_forbid_a_property() -> None:
    one = {"properties": {"kind": {"const": "x"}, "a": A, "b": False}}
    other = {"properties": {"kind": {"const": "y"}, "a": False, "b": False}}
    parameters, notes = convert_parameters("t", {"anyOf": [one, other, False]})
    kind = {"type": "STRING", "enum": ["x", "y"]}
    assert parameters == {"type": "OBJECT", "properties": {"kind": kind, "a": STRING}}
    assert any(note.startswith("no value fits parameters.b ") for note in notes)


@pytest.mark.parametrize("schema", [{"allOf": [False]}, {"$ref": "#/$defs/never", "$defs": {"never": False}}])
def test_parameters_that_no_value_fits_are_refused(schema: Schema) -> None:
    with pytest.raises(LocalProtocolError, match="no arguments fit its parameters"):
        convert_parameters("t", schema)


def test_references_that_grow_without_end_are_refused() -> None:
    two = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/1"}] * 2}}
    defs: Schema = {
        str(n): {"type": "object", "properties": {key: {"$ref": f"#/$defs/{n + 1}"} for key in "abc"}}
        for n in range(1, 12)
    }
    defs["12"] = {"type": "string"}
    with pytest.raises(LocalProtocolError, match=f"larger than {MAX_NODES} schemas"):
        convert(two, **{"$defs": defs})


def test_deep_nesting_is_refused() -> None:
    schema: Schema = {"type": "string"}
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    with pytest.raises(LocalProtocolError, match="32 levels"):
        convert(schema)


def test_long_chains_of_references_are_refused() -> None:
    defs: Schema = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(40)}
    with pytest.raises(LocalProtocolError, match="32 levels"):
        convert({"$ref": "#/$defs/0"}, **{"$defs": defs})


SHAPES: dict[str, Schema] = {
    "description": {
        "$defs": {"a": {"type": "string", "description": "x" * 40_000}},
        "properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(2_000)},
    },
    "enum": {
        "$defs": {"a": {"enum": [f"v{n}" for n in range(4_000)]}},
        "properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(1_000)},
    },
    "default": {
        "$defs": {"a": {"type": "array", "default": list(range(9_000))}},
        "properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(2_000)},
    },
    "allOf": {
        "$defs": {"a": {"properties": {f"p{n}": {} for n in range(2_000)}}},
        "allOf": [{"$ref": "#/$defs/a"}] * 1_000,
    },
    "alternatives": {
        "$defs": {**{f"{n}": {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 20} for n in range(25)}, "25": {}},
        "$ref": "#/$defs/0",
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_small_schemas_do_not_grow_large(shape: str) -> None:
    began = time.process_time()
    with pytest.raises(LocalProtocolError, match="makes it larger than") as caught:
        convert_parameters("t", SHAPES[shape])
    assert time.process_time() - began < 5  # it would take minutes without a limit
    assert len(str(caught.value)) < 500


def test_many_types_and_notes() -> None:
    began = time.process_time()
    parameters, notes = convert_parameters(
        "t",
        {
            "properties": {
                "x": {"type": ["string", "integer"] * 2_000, "enum": ["a"] * 2_000},
                **{f"p{n}": {"type": "string", f"x-{n}": 1} for n in range(2_000)},
            }
        },
    )
    assert parameters is not None
    assert len(parameters["properties"]) == 2_001
    assert len(notes) <= 25
    assert any("1980 more keys" in note for note in notes)
    assert time.process_time() - began < 5


# Any schema at all

_scalars: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["a", "b"])
)
_types = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    schemas = st.lists(inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": _types | st.lists(_types, max_size=3),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "required": st.lists(st.sampled_from("abcd"), max_size=3),
            "items": inner,
            "prefixItems": schemas,
            "anyOf": schemas,
            "oneOf": schemas,
            "allOf": schemas,
            "enum": st.lists(_scalars, max_size=3),
            "const": _scalars,
            "format": st.sampled_from(["date-time", "uri", "int32"]),
            "description": st.sampled_from(["", "D"]),
            "default": _scalars,
            "minimum": st.integers(0, 3),
            "maxLength": st.integers(0, 3),
            "pattern": st.just("a"),
            "nullable": st.booleans(),
            "additionalProperties": st.booleans() | inner,
            "not": inner,
            "$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/p"]),
        },
    )


_any_schema: st.SearchStrategy[Any] = st.recursive(st.booleans() | st.just({}), _schemas, max_leaves=8)


@given(_any_schema, _any_schema, _any_schema)
def test_any_schema_is_converted_or_refused(schema: Any, a: Any, b: Any) -> None:
    with contextlib.suppress(
        LocalProtocolError
    ):  # that it is one, and that what passes is right, is the test
        convert(schema, **{"$defs": {"a": a, "b": b}})


@given(_schemas(_any_schema), _any_schema, _any_schema)
def test_any_parameters_keep_their_names(schema: Any, a: Any, b: Any) -> None:
    schema = {**schema, "$defs": {"a": a, "b": b}}
    try:
        parameters, notes = convert_parameters("t", schema)
    except LocalProtocolError:
        return
    if parameters is not None:
        check_schema(parameters)
        types.Schema.model_validate(parameters)
    names = set(schema.get("properties", {}))
    for branch in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        if (
            isinstance(branch, dict)
            and branch.get("type") == "object"
            and not {"anyOf", "oneOf", "allOf", "$ref"} & branch.keys()
        ):
            names |= set(branch.get("properties", {}))
    gone = {name for name in names if any(f"no value fits parameters.{name} " in note for note in notes)}
    assert names - gone <= set((parameters or {"properties": {}})["properties"])


@given(
    st.recursive(
        _scalars,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "properties", "items", "anyOf", "allOf", "enum", "$ref", "required", "title"]
                ),
                inner,
            )
        ),
        max_leaves=6,
    )
)
def test_any_json_is_converted_or_refused(anything: Any) -> None:
    with contextlib.suppress(LocalProtocolError):
        convert(anything)
    if isinstance(anything, dict):
        with contextlib.suppress(LocalProtocolError):
            convert_parameters("t", anything)
