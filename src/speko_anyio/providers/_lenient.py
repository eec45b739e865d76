"""Lenient decoding of providers' messages: one odd field must never end a call.

Providers, proxies and compatible servers fill the same fields in different ways: a count is ``3.0``, a time
is a date, an object is null, a string ends in half of a surrogate pair. A decoder first tries msgspec's
strict decoding, which is fast and right for nearly every message. Only rejected messages come here: `parse`
accepts any JSON object, and `fit` converts it to the Struct. For each field:

- a value with only one possible meaning is read that way: ``3.0`` and ``"3"`` as the count 3, a number as
  text, base64 in the URL-safe alphabet, in lines or without padding;
- any other value of the wrong type, including null, counts as missing: the field takes its default, and an
  array loses that element;
- halves of surrogate pairs are joined, and an unpaired half becomes U+FFFD (`mended`).

`Fitted.odd` names each such field, for the statistics. Two things remain errors (`MalformedMessage`), since
guessing would be worse: a message that is not a JSON object, and invalid base64 in a bytes field.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Meta, Raw, inspect

from ..protocol._codec import MalformedMessage, mended
from ..protocol._loose_json import BLANK as BLANK
from ..protocol._loose_json import parse as parse
from ..protocol._loose_json import text_of as text_of
from ..protocol.frames import Count as Count

JsonText: TypeAlias = Annotated[str, Meta(extra={"json": True})]
"""Text. An array or an object is also accepted, and becomes its JSON text."""

Piece: TypeAlias = Annotated[str, Meta(extra={"piece": True})]
"""A piece of a longer text, which may end within a surrogate pair; pass the joined text to `mended`."""

StructT = TypeVar("StructT", bound=msgspec.Struct)


class Fitted(NamedTuple, Generic[StructT]):
    """A message, and its odd and unknown fields."""

    value: StructT
    odd: tuple[str, ...] = ()
    """Paths of the fields whose value was read as another, or dropped."""
    unknown: tuple[str, ...] = ()
    """Paths of unknown fields in Structs with `forbid_unknown_fields`; they are left out."""


def fit(value: Mapping[str, Any], kind: type[StructT]) -> Fitted[StructT]:
    """Convert `value`, a JSON object, to `kind` by the rules above. All fields of `kind` need defaults."""
    fitting = _Fitting()
    try:
        struct = fitting.struct(value, kind, "")
    except RecursionError:
        raise MalformedMessage("it is nested too deeply") from None
    return Fitted(cast("StructT", struct), tuple(fitting.odd), tuple(fitting.unknown))


class _Misfit(Exception):
    """The value counts as missing."""


class _Fitting:
    """The state of one `fit`. The methods raise `_Misfit` for a value that counts as missing."""

    def __init__(self) -> None:
        self.odd: list[str] = []
        self.unknown: list[str] = []

    def struct(self, value: Mapping[str, Any], kind: type[msgspec.Struct], path: str) -> msgspec.Struct:
        known = _fields(kind)
        if kind.__struct_config__.forbid_unknown_fields:
            self.unknown += [path + mended(name) for name in value if name not in known]
        fitted: dict[str, Any] = {}
        for name, field in known.items():
            if name in value:
                try:
                    fitted[field.name] = self.value(value[name], field.type, path + name)
                except _Misfit:
                    self.odd.append(path + name)
        return kind(**fitted)

    def value(self, value: Any, shape: inspect.Type, path: str) -> Any:
        match shape:
            case inspect.Metadata(type=inner, extra=extra):
                return self._special(value, inner, extra or {}, path)
            case inspect.UnionType(types=types):
                return self._one_of(value, types, path)
            case inspect.StructType(cls=cls) if isinstance(value, dict):
                return self.struct(value, cls, f"{path}.")
            case inspect.VarTupleType(item_type=item_type) if isinstance(value, list):
                return tuple(self._elements(value, item_type, path))
            case inspect.DictType(value_type=value_type) if isinstance(value, dict):
                return dict(self._entries(value, value_type, path))
            case inspect.AnyType():
                return self._any(value, path)
            case inspect.RawType():
                return _raw(self._any(value, path))
        return self._plain(value, shape, path)

    def _special(self, value: Any, shape: inspect.Type, extra: Mapping[str, Any], path: str) -> Any:
        if extra.get("piece") and isinstance(value, str):
            return value
        if extra.get("json") and isinstance(value, dict | list):
            self.odd.append(path)
            return _json_text(self._any(value, path))
        return self.value(value, shape, path)

    def _one_of(self, value: Any, types: tuple[inspect.Type, ...], path: str) -> Any:
        if value is None and any(isinstance(shape, inspect.NoneType) for shape in types):
            return None
        exact = {bool: inspect.BoolType, int: inspect.IntType, float: inspect.FloatType, str: inspect.StrType}
        wanted = exact.get(type(value))
        # Try the type that the value already has first.
        for shape in sorted(types, key=lambda shape: wanted is None or not isinstance(shape, wanted)):
            if not isinstance(shape, inspect.NoneType):
                try:
                    return self.value(value, shape, path)
                except _Misfit:
                    continue
        raise _Misfit

    def _elements(self, values: list[Any], shape: inspect.Type, path: str) -> list[Any]:
        fitted = []
        for position, value in enumerate(values):
            try:
                fitted.append(self.value(value, shape, f"{path}[{position}]"))
            except _Misfit:
                self.odd.append(f"{path}[{position}]")
        return fitted

    def _entries(self, values: dict[str, Any], shape: inspect.Type, path: str) -> list[tuple[str, Any]]:
        fitted = []
        for name, value in values.items():
            try:
                fitted.append((mended(name), self.value(value, shape, f"{path}.{mended(name)}")))
            except _Misfit:
                self.odd.append(f"{path}.{mended(name)}")
        return fitted

    def _any(self, value: Any, path: str) -> Any:
        match value:
            case str():
                return self._mended(value, path)
            case list():
                return [self._any(inner, path) for inner in value]
            case dict():
                return {self._mended(name, path): self._any(inner, path) for name, inner in value.items()}
            case float() if not math.isfinite(value):
                self.odd.append(path)  # JSON has no such number
                return None
        return value

    def _mended(self, text: str, path: str) -> str:
        whole = mended(text)
        if whole != text:
            self.odd.append(path)
        return whole

    def _plain(self, value: Any, shape: inspect.Type, path: str) -> Any:
        fitted: Any
        match shape:
            case inspect.StrType():
                fitted = mended(value) if isinstance(value, str) else _text(value)
            case inspect.BoolType():
                fitted = _flag(value)
            case inspect.IntType(ge=ge, le=le):
                fitted = _whole(value)
                if (ge is not None and fitted < ge) or (le is not None and fitted > le):
                    raise _Misfit
            case inspect.FloatType():
                fitted = _number(value)
                if not isinstance(value, str):
                    return fitted
            case inspect.BytesType():
                return _bytes(value, path)
            case _:
                raise _Misfit
        if type(fitted) is not type(value) or fitted != value:
            self.odd.append(path)
        return fitted


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Misfit
    return str(value)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false", 0, 1):
        return value in ("true", 1)
    raise _Misfit


def _number(value: object) -> float:
    try:
        number = float(cast("float", value))
    except (ValueError, TypeError, OverflowError):
        raise _Misfit from None
    if isinstance(value, bool) or not math.isfinite(number):
        raise _Misfit
    return number


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        number = float(cast("float", value))
    except (ValueError, TypeError, OverflowError):
        raise _Misfit from None
    if isinstance(value, bool) or not number.is_integer():
        raise _Misfit
    return int(number)


def _bytes(value: object, path: str) -> bytes:
    if not isinstance(value, str):
        raise _Misfit
    # Accept the URL-safe alphabet, missing padding and line breaks.
    standard = value.translate(_STANDARD_BASE64)
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedMessage(f"{path} is not base64") from None


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _raw(value: Any) -> Raw:
    return Raw(_json_text(value).encode())


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    """Return the fields of `kind` by their names in JSON."""
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)
    return {field.encode_name: field for field in shape.fields}


_STANDARD_BASE64: Final = str.maketrans("-_", "+/", "= \t\r\n")
