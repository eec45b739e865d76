"""Pydantic models as types of a tool's parameters and results, for those who have pydantic.

It is never imported here: a program that has a model has imported it. These functions are msgspec's hooks for
types that it does not know.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import msgspec


def _is_model(kind: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def is_field(value: object) -> bool:
    """Whether `value` comes from pydantic's `Field`."""
    pydantic = sys.modules.get("pydantic.fields")
    return pydantic is not None and isinstance(value, pydantic.FieldInfo)


def validate(kind: type, value: Any) -> Any:
    """Make the model `kind`, one that `Schemas` took, of decoded JSON.

    Raises ValueError with pydantic's findings in one line. Null for a field that may be left out and can't be
    null is ignored.
    """
    refusal: type[ValueError] = sys.modules["pydantic"].ValidationError
    try:
        return _validate(kind, value)
    except refusal as error:
        findings: list[dict[str, Any]] = error.errors(include_url=False)  # type: ignore[attr-defined]
    if [finding for finding in findings if finding["input"] is None and _leave_out(value, finding["loc"])]:
        with suppress(refusal):
            return _validate(kind, value)
    raise ValueError("; ".join(map(_finding, findings)))


def _validate(kind: type, value: Any) -> Any:
    # Back to JSON: a model may validate JSON by other rules than Python objects.
    return kind.model_validate_json(msgspec.json.encode(value))  # type: ignore[attr-defined]


def _leave_out(value: Any, path: tuple[str | int, ...]) -> bool:
    """Remove the field at `path` from decoded JSON; return whether it was there."""
    try:
        for step in path[:-1]:
            value = value[step]
    except (LookupError, TypeError):
        return False  # a step of pydantic's own, such as the member of a union
    return isinstance(value, dict) and bool(path) and value.pop(path[-1], False) is None


def _finding(error: dict[str, Any]) -> str:
    where = ".".join(map(str, error["loc"]))
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def dump(value: Any) -> Any:
    """Return a model as plain JSON data; TypeError for anything else."""
    if not _is_model(type(value)):
        raise TypeError(f"{type(value).__name__} can't be written as JSON")
    return value.model_dump(mode="json", by_alias=True)


class Schemas:
    """The JSON Schemas of the models in one tool's parameters; `prefix` is that of their references."""

    def __init__(self, prefix: str) -> None:
        self._template = prefix + "{model}"
        self._definitions: dict[str, Any] = {}

    def schema(self, kind: type) -> dict[str, Any]:
        """Return the schema of `kind`, and keep its definitions for `add_to`.

        Raises NotImplementedError for anything but a model, which msgspec turns into a TypeError.
        """
        if not _is_model(kind):
            raise NotImplementedError
        schema: dict[str, Any] = kind.model_json_schema(ref_template=self._template)  # type: ignore[attr-defined]
        _add(self._definitions, schema.pop("$defs", {}))
        return schema

    def add_to(self, definitions: dict[str, Any]) -> None:
        """Add what the schemas refer to. TypeError when a name means two things."""
        _add(definitions, self._definitions)


def _add(definitions: dict[str, Any], more: dict[str, Any]) -> None:
    for name, schema in more.items():
        if definitions.setdefault(name, schema) != schema:
            raise TypeError(f"two types of the parameters are called {name!r}; rename one")
