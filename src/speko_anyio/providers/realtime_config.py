"""What the configurations of OpenAI and xAI have in common: tools, and how they are addressed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ..protocol.errors import LocalProtocolError
from ..protocol.mint import ToolSpec
from .endpoint import Endpoint, websocket_url
from .realtime_events import FunctionTool

MAX_DESCRIPTION: Final = 1024
"""Characters of a tool's description; a longer one made OpenAI refuse the whole configuration."""

AuthStyle: TypeAlias = Literal["header", "subprotocol"]
"""How a key travels: in the ``Authorization`` header, or, for a transport that has no headers (a browser),
as a subprotocol, which takes an ephemeral token only."""


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


AnyTool: TypeAlias = FunctionTool | dict[str, Any]


def convert_tools(
    tools: Sequence[ToolSpec], server_tools: Sequence[ServerTool], reserved: Collection[str]
) -> tuple[tuple[AnyTool, ...], tuple[str, ...]]:
    """All tools as the provider wants them, and notes on what had to change.

    `LocalProtocolError` when a tool has no name, the name of another or one of `reserved`, or parameters
    that are no JSON Schema of an object.
    """
    notes: list[str] = []
    converted: list[AnyTool] = []
    taken: set[str] = set()
    for tool in tools:
        if not tool.name or tool.name in taken:
            raise LocalProtocolError(
                f"each tool needs a name of its own, but one has {tool.name!r}; rename it"
            )
        if tool.name in reserved:
            raise LocalProtocolError(
                f"the provider has a tool {tool.name!r} of its own enabled; rename yours or disable that one"
            )
        taken.add(tool.name)
        description = tool.description
        if len(description) > MAX_DESCRIPTION:
            description = description[:MAX_DESCRIPTION]
            notes.append(f"the description of tool {tool.name!r} was cut to {MAX_DESCRIPTION} characters")
        parameters = {"type": "object", "properties": {}, **tool.parameters}
        if parameters["type"] != "object":
            raise LocalProtocolError(
                f"the parameters of tool {tool.name!r} must be a JSON Schema of an object, not of "
                f"{parameters['type']!r}; wrap them in an object"
            )
        converted.append(FunctionTool(tool.name, description, parameters))
    return (*converted, *(tool.as_json() for tool in server_tools)), tuple(notes)


def realtime_endpoint(
    api_key: str,
    *,
    base_url: str,
    path: str,
    query: Sequence[tuple[str, str]],
    auth: AuthStyle,
    subprotocols: tuple[str, ...],
) -> Endpoint:
    """The address with `api_key` in its place; `subprotocols` are those that go with it otherwise, the last
    one a prefix of the key."""
    if not api_key:
        raise LocalProtocolError("the provider needs an API key, and it is empty; pass one")
    try:
        api_key.encode("ascii")
        usable = api_key.isprintable() and " " not in api_key
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise LocalProtocolError(
            "the API key holds characters that no header can carry; pass it without spaces or line ends"
        )
    url = websocket_url(base_url, path, query)
    if auth == "header":
        return Endpoint(url, (("Authorization", f"Bearer {api_key}"),))
    return Endpoint(url, (), (*subprotocols[:-1], subprotocols[-1] + api_key))


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
