"""Loads objects named ``module:attribute``: the tools of `talk`, and the handlers of a gateway."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ..client.tools import Tool
from ._failures import USAGE, CommandError

if TYPE_CHECKING:
    from ..gateway import Handler

_HANDLER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names a provider in mints, in records and in the labels of metrics."""


def load_tools(names: Iterable[str]) -> list[Tool[..., Any]]:
    """Return the functions named ``module:function``, also from modules in the current folder.

    Raises `CommandError` if one can't be loaded or is not a tool.
    """
    return [_tool(name) for name in names]


def load_handlers(named: Mapping[str, str], *, reserved: Collection[str]) -> dict[str, Handler]:
    """Return the handlers named ``module:attribute``, by the names that clients mint with.

    Their modules may be in the current folder. Raises `CommandError` if one can't be loaded, is no handler
    or has a name of `reserved`.
    """
    return {name: _handler(name, target, reserved) for name, target in named.items()}


def _tool(name: str) -> Tool[..., Any]:
    function = _load(name, f"the tool {name}")
    if not callable(function):
        raise CommandError(f"{name} is not a function", USAGE)
    try:
        return function if isinstance(function, Tool) else Tool(function)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{name} can't be a tool: {error}", USAGE) from None


def _handler(name: str, target: str, reserved: Collection[str]) -> Handler:
    if not _HANDLER_NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} can't be a handler's name; take 1 to 64 of letters, digits, `.`, `-` and `_`",
            USAGE,
        )
    if name in reserved:
        raise CommandError(f"the handler's name {name} is one of the gateway's own; choose another", USAGE)
    what = f"the handler {name}={target}"
    # Imported here: the tools of `talk` need nothing of the gateway.
    from ..gateway._session_handlers import why_not_a_handler

    handler: Any = _load(target, what)
    why = why_not_a_handler(handler)
    if why is not None:
        raise CommandError(f"can't use {what}: {why}", USAGE)
    found: Handler = handler
    return found


def _load(name: str, what: str) -> object:
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute) or module_name.startswith("."):
        raise CommandError(f"can't load {what}: {name!r} names nothing; write module:attribute", USAGE)
    if "" not in sys.path:
        # As ``python -m`` has it; an installed command does not.
        sys.path.insert(0, "")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"can't load {what}: there is no module {error.name}, here or installed; check the name", USAGE
        ) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  (it is the user's code, and may do anything)
        raise CommandError(
            f"can't load {what}: importing {module_name} fails: {_described(error)}", USAGE
        ) from None
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CommandError(f"can't load {what}: {module_name} has no {attribute}", USAGE) from None
    return found


def _described(error: BaseException) -> str:
    """Describe an error and the line of a module that led to it; a SyntaxError has its own."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    where = f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"
