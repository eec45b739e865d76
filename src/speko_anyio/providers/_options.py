"""Checks of options and tools before a provider sees them, and what passes through unchecked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ..protocol.errors import LocalProtocolError
from ..protocol.mint import ToolSpec


class ServerTool(msgspec.Struct, frozen=True):
    """A tool that runs on the provider's side, such as ``mcp`` or ``web_search``.

    Its settings pass through unchecked. They may hold credentials, so the repr does not show them.
    """

    type: str
    settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"ServerTool(type={self.type!r}, settings=<{len(self.settings)}>)"

    def as_json(self) -> dict[str, Any]:
        """Return the tool in the form of the configuration."""
        return {**self.settings, "type": self.type}


class NameRule(NamedTuple):
    """The names that a provider accepts for functions; it rejects a configuration with any other name."""

    provider: str
    pattern: re.Pattern[str]
    words: str
    """The pattern in words, for errors."""


def check_names(tools: Iterable[ToolSpec], rule: NameRule, reserved: Mapping[str, str]) -> None:
    """Raise `LocalProtocolError` for a name that the provider rejects, a duplicate, or one of `reserved`.

    `reserved` maps names that the provider's own tools use to the tool that uses each.
    """
    taken: set[str] = set()
    for tool in tools:
        name = tool.name
        if not rule.pattern.fullmatch(name):
            raise LocalProtocolError(
                f"{rule.provider} does not accept {name!r} as the name of a tool; use {rule.words}"
            )
        if name in taken:
            raise LocalProtocolError(f"two tools are named {name!r}; rename one")
        taken.add(name)
        if (owner := reserved.get(name)) is not None:
            inside = "" if owner == name else f" inside {owner}"
            raise LocalProtocolError(
                f"{rule.provider} has a tool {name!r} of its own{inside}, which is enabled; rename yours or "
                f"disable {owner}"
            )


class Laborious(Exception):
    """A configuration takes longer to convert than an event loop may be held up: convert it in a thread."""


_MAX_NOTES: Final = 50
"""The most notes on one configuration: each becomes a line of somebody's log."""


def limited(notes: Sequence[str]) -> tuple[str, ...]:
    """Return the first of these notes on a configuration, and a count of the others."""
    if (more := len(notes) - _MAX_NOTES) <= 0:
        return tuple(notes)
    return (*notes[:_MAX_NOTES], f"{more} more parts of the configuration were changed or left out")


OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)
_T = TypeVar("_T")


def or_unset(value: _T | None) -> _T | UnsetType:
    """Return `value`, or UNSET for None: an absent field means the default, a null one may clear it."""
    return UNSET if value is None else value


def checked(options: OptionsT, kind: type[OptionsT], provider: str) -> OptionsT:
    """Return `options` if they and all of their values have the right type.

    Raises TypeError if they are of another kind, and `LocalProtocolError` if a value is wrong.
    """
    if not isinstance(options, kind):
        raise TypeError(
            f"the options for {provider} must be {kind.__name__}, not {type(options).__name__}; "
            f"pass options={kind.__name__}(...)"
        )
    try:
        return msgspec.convert(msgspec.to_builtins(options), kind)
    except msgspec.ValidationError as error:
        raise LocalProtocolError(f"the options for {provider} can't be used: {error}; correct them") from None


OPTIONS_KEY: Final = "provider_options"
"""The key in the metadata of a mint request for what the client wants beyond the session's parameters: an
object with the options of each provider by its name, ``{"openai": {"speed": 1.2}}``."""

_OPERATORS: Final = frozenset({"server_tools"})
"""Options that only the operator may choose: these run at the provider, on the operator's account."""


def merge_client_options(options: OptionsT, metadata: Mapping[str, Any] | None, provider: str) -> OptionsT:
    """Return the operator's `options`, overridden by the client's for `provider` in a mint's `metadata`.

    Raises `LocalProtocolError` if the client's are not an object, or have an unknown option, an invalid value
    or an option that only the operator may choose.
    """
    wanted = (metadata or {}).get(OPTIONS_KEY, {})
    wanted = wanted.get(provider, {}) if isinstance(wanted, Mapping) else wanted
    if not isinstance(wanted, Mapping):
        raise LocalProtocolError(
            f'{OPTIONS_KEY} must be objects in an object, as in {{"{provider}": {{}}}}; correct the metadata'
        )
    if denied := _OPERATORS.intersection(wanted):
        raise LocalProtocolError(
            f"{OPTIONS_KEY} can't have {min(denied)}: only the server's operator may choose that; "
            "leave it out"
        )
    if not wanted:
        return options
    try:
        return msgspec.convert({**msgspec.to_builtins(options), **wanted}, type(options))
    except msgspec.ValidationError as error:
        raise LocalProtocolError(
            f"{OPTIONS_KEY} for {provider} can't be used: {error}; correct the metadata"
        ) from None
