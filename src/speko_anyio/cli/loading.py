"""Tools that are named on the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from ..client.tools import Tool
from .failures import USAGE, CommandError


def load_tools(names: Iterable[str]) -> list[Tool[..., Any]]:
    """The functions named ``module:function``, whose modules may be in the current folder; `CommandError` for
    what can't be had."""
    if "" not in sys.path:
        # As ``python -m`` has it; an installed command does not.
        sys.path.insert(0, "")
    return [_load(name) for name in names]


def _load(name: str) -> Tool[..., Any]:
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise CommandError(f"{name!r} names no tool; write module:function", USAGE)
    try:
        function: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            function = getattr(function, part)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"can't load the tool {name}: no module {error.name}; check the name", USAGE
        ) from None
    except AttributeError:
        raise CommandError(f"can't load the tool {name}: it is not in {module_name}", USAGE) from None
    if not callable(function):
        raise CommandError(f"{name} is no function", USAGE)
    try:
        return function if isinstance(function, Tool) else Tool(function)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{name} can't be a tool: {error}", USAGE) from None
