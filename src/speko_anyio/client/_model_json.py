"""JSON as language models write it: values with one reading become what their types ask for."""

from __future__ import annotations

import math
from typing import Any

from msgspec import inspect as types

from ..protocol._codec import mend_escapes, mended
from . import _pydantic_models as pydantic_models


def without_halves(text: str) -> str:
    """Replace half of a surrogate pair in JSON `text`, escaped or not: models cut emoji in two."""
    return mend_escapes(mended(text))


def with_whole_texts(value: Any) -> Any:
    """Replace half of a surrogate pair in every text of `value`, which consists of what JSON has."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {with_whole_texts(name): with_whole_texts(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_whole_texts(item) for item in value]
    return value


def with_integers(value: Any) -> Any:
    """Make whole numbers in decoded JSON int, even if written ``3.0``.

    An enum of 1, 2, 3 does not accept 3.0.
    """
    if isinstance(value, dict):
        return {name: with_integers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_integers(item) for item in value]
    # Beyond 2**53 a float no longer says which integer was written.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def has_infinity(value: Any) -> bool:
    """Return whether any text in decoded JSON reads as a number that is not finite."""
    if isinstance(value, dict):
        return any(map(has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(has_infinity, value))
    if not isinstance(value, str):
        return False
    try:
        return not math.isfinite(float(value))
    except ValueError:
        return False


def without_nulls(value: Any, kind: types.Type) -> Any:
    """Leave out each null in decoded JSON that stands for an optional field of `kind` which can't be null.

    `kind` is what `msgspec.inspect.type_info` says of the type. Models write null for what they leave out.
    """
    if isinstance(kind, types.Metadata):
        return without_nulls(value, kind.type)
    if isinstance(kind, types.UnionType):
        for option in kind.types:
            value = without_nulls(value, option)
        return value
    if isinstance(value, list):
        if isinstance(kind, types.TupleType) and len(value) == len(kind.item_types):
            return list(map(without_nulls, value, kind.item_types))
        item_type = getattr(kind, "item_type", None)
        return value if item_type is None else [without_nulls(item, item_type) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(kind, types.DictType):
        return {name: without_nulls(item, kind.value_type) for name, item in value.items()}
    if isinstance(kind, types.StructType) and kind.tag_field and value.get(kind.tag_field) != kind.tag:
        return value  # another member of a tagged union
    fields: dict[str, types.Field] = {field.encode_name: field for field in getattr(kind, "fields", ())}
    return {
        name: without_nulls(item, fields[name].type) if name in fields else item
        for name, item in value.items()
        if item is not None or name not in fields or fields[name].required or _takes_null(fields[name].type)
    }


def _takes_null(kind: types.Type) -> bool:
    if isinstance(kind, types.Metadata):
        return _takes_null(kind.type)
    if isinstance(kind, types.UnionType):
        return any(map(_takes_null, kind.types))
    if isinstance(kind, types.CustomType):
        try:
            pydantic_models.validate(kind.cls, None)
        except ValueError:
            return False
        return True
    return isinstance(kind, types.NoneType | types.AnyType)
