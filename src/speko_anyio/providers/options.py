"""What only one provider has: checked, and passed through."""

from __future__ import annotations

from typing import Any, TypeVar

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
