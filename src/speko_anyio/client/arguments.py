"""Argument checks, so that errors name the argument instead of the place where a bad value fails later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from .tools import AnyTool


def check_text(name: str, value: object, *, required: bool = False) -> None:
    """TypeError unless `value` is a string, or None where it is not `required`; ValueError for a string that
    UTF-8 can't encode."""
    if value is None and not required:
        return
    if not isinstance(value, str):
        hint = "; decode it first" if isinstance(value, bytes | bytearray) else ""
        # The value is not shown: it may be a key.
        raise TypeError(f"{name} must be a string, not {type(value).__name__}{hint}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half of a surrogate pair, which is not text; remove it") from None


def check_number(name: str, value: object) -> None:
    """TypeError unless `value` is a number or None, ValueError for NaN."""
    if value is None:
        return
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if math.isnan(value):
        raise ValueError(f"{name} is not a number (NaN); pass a number")


def check_json(name: str, value: object) -> None:
    """TypeError unless `value` is None or a dict that JSON can carry."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    try:
        msgspec.json.encode(dict(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(
            f"{name} can't be written as JSON ({error}); use strings, numbers, lists and dicts"
        ) from None


def tool_list(tools: Iterable[AnyTool]) -> tuple[AnyTool, ...]:
    """`tools` as a tuple; TypeError for a single tool or an object that is not iterable."""
    if callable(tools) or isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        name = getattr(tools, "__name__", None) or type(tools).__name__
        hint = f"a list, such as tools=[{name}]" if callable(tools) else f"a list of functions, not {name}"
        raise TypeError(f"tools must be {hint}")
    return tuple(tools)
