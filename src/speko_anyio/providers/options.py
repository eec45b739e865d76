"""Options and tools as providers accept them: checked, and passed through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ..protocol.errors import LocalProtocolError
from ..protocol.mint import ToolSpec


class ServerTool(msgspec.Struct, frozen=True):
    """A tool that runs on the provider's side, such as ``mcp`` or ``web_search``; its settings pass through
    as they are. They may hold credentials, so its repr does not show them."""

    type: str
    settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"ServerTool(type={self.type!r}, settings=<{len(self.settings)}>)"

    def as_json(self) -> dict[str, Any]:
        """As it stands in the configuration."""
        return {**self.settings, "type": self.type}


class NameRule(NamedTuple):
    """Names that a provider accepts for functions. One invalid name voids the whole configuration."""

    provider: str
    pattern: re.Pattern[str]
    words: str
    """The pattern in words, for errors."""


def check_names(tools: Iterable[ToolSpec], rule: NameRule, reserved: Mapping[str, str]) -> None:
    """Raise `LocalProtocolError` for a name that the provider rejects, a duplicate, and one of `reserved`.

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


OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)
_T = TypeVar("_T")


def or_unset(value: _T | None) -> _T | UnsetType:
    """`value`, or nothing at all: an absent field is the service's default, a null one may clear it."""
    return UNSET if value is None else value


def checked(options: OptionsT, provider: str) -> OptionsT:
    """`options` if its values are what its types allow; else `LocalProtocolError` says which is not."""
    try:
        return msgspec.convert(msgspec.to_builtins(options), type(options))
    except msgspec.ValidationError as error:
        raise LocalProtocolError(f"the options for {provider} can't be used: {error}; correct them") from None


OPTIONS_KEY: Final = "provider_options"
"""Where the metadata of a mint request has what the client wants beyond the session's parameters: an object
with the options of each provider by its name, ``{"openai": {"speed": 1.2}}``."""

_OPERATORS: Final = frozenset({"server_tools"})
"""What runs at the provider's, on the operator's account, is the operator's to choose."""


def with_wishes(options: OptionsT, metadata: Mapping[str, Any] | None, provider: str) -> OptionsT:
    """`options`, the operator's, with what a client wants of `provider` in their place.

    `LocalProtocolError` when that is no object, or names what the options do not have, what has another type,
    or what is not the client's to choose.
    """
    wishes = (metadata or {}).get(OPTIONS_KEY, {})
    wishes = wishes.get(provider, {}) if isinstance(wishes, Mapping) else wishes
    if not isinstance(wishes, Mapping):
        raise LocalProtocolError(
            f'{OPTIONS_KEY} must be objects in an object, as in {{"{provider}": {{}}}}; correct the metadata'
        )
    if denied := _OPERATORS.intersection(wishes):
        raise LocalProtocolError(
            f"{OPTIONS_KEY} can't have {min(denied)}: only who runs the server chooses that; leave it out"
        )
    if not wishes:
        return options
    try:
        return msgspec.convert({**msgspec.to_builtins(options), **wishes}, type(options))
    except msgspec.ValidationError as error:
        raise LocalProtocolError(
            f"{OPTIONS_KEY} for {provider} can't be used: {error}; correct the metadata"
        ) from None
