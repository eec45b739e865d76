"""Checks of options and tools before a provider sees them, and what passes through unchecked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET

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


class ProviderOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options that every provider has."""

    provider_extra: dict[str, Any] = {}
    """Fields of the provider's session configuration that no option covers. Objects are merged field by
    field, and any other value replaces the library's. This is unsupported: nothing checks them, and a field
    that contradicts what the library relies on breaks the session. The repr does not show them."""
    client_extra: bool = False
    """Whether a gateway's clients may ask for a ``provider_extra`` of their own; the operator's takes
    precedence. It can change anything about their sessions, limits and costs included."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, f"<{len(value)}>" if name == "provider_extra" else value) for name, value in fields]


def merge_extra(config: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` with `extra` merged into it: objects field by field; any other value replaces."""
    merged = dict(config)
    for name, value in extra.items():
        own = merged.get(name)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            value = merge_extra(own, value)
        merged[name] = value
    return merged


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


def filled(**fields: Any) -> dict[str, Any]:
    """Return an object of the fields that have a value: an absent field means the service's default."""
    return {name: value for name, value in fields.items() if value is not None}


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
    except (msgspec.ValidationError, TypeError, RecursionError) as error:
        raise LocalProtocolError(f"the options for {provider} can't be used: {error}; correct them") from None


OPTIONS_KEY: Final = "provider_options"
"""The key in the metadata of a mint request for what the client wants beyond the session's parameters: an
object with the options of each provider by its name, ``{"openai": {"speed": 1.2}}``."""

_OPERATORS: Final = frozenset(
    {"approval_tool", "binary_audio", "client_extra", "safety_settings", "server_tools", "tracing"}
)
"""Options that only the operator may choose: they run or are stored at the provider, on the operator's
account, or they concern only the operator."""

_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh")
_LEAST_EFFORTS: Final = _EFFORTS[:2]
"""The lowest effort of any provider is one of these."""

_UNLIMITED: Final = frozenset({None, "inf", -1})
"""Values that leave a number of tokens to the provider."""


def merge_client_options(options: OptionsT, metadata: Mapping[str, Any] | None, provider: str) -> OptionsT:
    """Return the operator's `options` with the client's for `provider` in a mint's `metadata`.

    The operator's are caps. Of two numbers, efforts or flags that cost, the cheaper one holds; the client
    can't change anything else that differs from its default. A client can't have more thinking, reasoning or
    transcription than the operator chose; the other options that the operator left alone are the client's.

    Raises `LocalProtocolError` if the client's are not an object, have an unknown option or an invalid value,
    or ask for what only the operator may choose.
    """
    wanted = (metadata or {}).get(OPTIONS_KEY, {})
    wanted = wanted.get(provider, {}) if isinstance(wanted, Mapping) else wanted
    if not isinstance(wanted, Mapping):
        raise LocalProtocolError(
            f'{OPTIONS_KEY} must be objects in an object, as in {{"{provider}": {{}}}}; correct the metadata'
        )
    operators = _OPERATORS if getattr(options, "client_extra", False) else _OPERATORS | {"provider_extra"}
    if denied := operators.intersection(wanted):
        raise _operators(min(denied))
    if not wanted:
        return options
    try:
        asked = msgspec.convert({**msgspec.to_builtins(options), **wanted}, type(options))
    except msgspec.ValidationError as error:
        raise LocalProtocolError(
            f"{OPTIONS_KEY} for {provider} can't be used: {error}; correct the metadata"
        ) from None
    defaults = type(options)()
    granted = {
        name: _granted(name, getattr(options, name), getattr(asked, name), getattr(defaults, name))
        for name in wanted
    }
    return msgspec.structs.replace(options, **granted)


def _granted(name: str, own: Any, asked: Any, default: Any) -> Any:
    """Return the value of an option: `own` is the operator's, `asked` the client's."""
    match name:
        case "max_output_tokens" | "thinking_budget":
            if own is None and name == "thinking_budget" and asked:
                # The provider's own default may be less.
                raise _operators(name, " above 0")
            return asked if own in _UNLIMITED else own if asked in _UNLIMITED else min(own, asked)
        case "reasoning_effort" | "thinking_level":
            if own is None or asked is None:
                if asked not in (None, *_LEAST_EFFORTS):
                    raise _operators(name, f" above {_LEAST_EFFORTS[-1]}")
                return own if asked is None else asked
            return min(own, asked, key=_EFFORTS.index)
        case "input_transcription" | "output_transcription":
            return own and asked
        case "provider_extra":
            return merge_extra(asked, own)
        case "transcription_model":
            if asked is not None and asked != own:
                raise _operators(name)
            return asked
        case "turn_detection" if own != asked and getattr(asked, "idle_timeout_ms", UNSET) is not UNSET:
            # The model would talk to nobody, at the operator's cost.
            raise _operators("idle_timeout_ms")
    if own in (asked, default):
        return asked
    if isinstance(own, int | float) and isinstance(asked, int | float) and not isinstance(own, bool):
        return min(own, asked)
    raise _operators(name)


def _operators(name: str, which: str = "") -> LocalProtocolError:
    return LocalProtocolError(
        f"{OPTIONS_KEY} can't have {name}{which}: only the server's operator may choose that; leave it out"
    )
