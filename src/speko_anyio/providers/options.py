"""What only one provider has: checked, and passed through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ..protocol.errors import LocalProtocolError


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
