"""JSON text messages to and from frames and commands: the only module that calls a decoder.

What a text message can be, for either role:

- a message this version knows: its frame or command. Unknown fields are ignored, a missing field takes its
  default, the last of duplicate keys counts (two different ``t`` make it `Unknown`);
- a JSON object with a string ``t`` that this version does not know, or with a value that it does not know in
  an enumerated or numeric field (a new role, a negative count): `Unknown`;
- anything else: not UTF-8, not JSON (a number too large for a double, a byte order mark), nested too deeply,
  not an object, no string ``t``, a known ``t`` with a field of the wrong JSON type: `MalformedMessage`, which
  the session turns into its error.

An odd value in a non-essential field does not end the session. An escaped half of a surrogate pair becomes
U+FFFD, except in the id of a tool call, which has to be repeated exactly. An invalid count of `Usage` is read
as the nearest valid one (3.0 as 3), or as 0. An invalid entry in a list of extensions is ignored, and so is
an invalid field of `Capabilities`. The argument `odd` collects the names of such fields.

A command of an extension with an invalid field is an `InvalidCommand`: it is refused; the session goes on.

The session limits how deeply a text may nest: it calls `check_depth` first. Without that, the decoder's own
limit applies, which depends on the caller's stack.

msgspec reports bad input as DecodeError (ValidationError is a subclass), but also as UnicodeDecodeError and
RecursionError, which are not msgspec's own; all of them are mapped here.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from ._commands import (
    Clear,
    Commit,
    EndTurn,
    ExtensionCommand,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from ._extensions import COMMANDS, read_names
from ._text import clean
from .capabilities import read_capabilities
from .frames import (
    Count,
    ErrorFrame,
    Interruption,
    Ready,
    ResponseEnd,
    Seconds,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)

_T = TypeVar("_T")


class End(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="end"):
    """``{"t": "end"}``: the server's reason, just ahead of its close. Becomes the reason of `Close`."""

    reason: str = ""


class Control(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="control"):
    """``{"t": "control"}``: three commands in one message."""

    action: str = ""


class UseExtensions(msgspec.Struct, frozen=True, tag_field="t", tag="extensions"):
    """``{"t": "extensions"}``: the client accepts extensions that the server's `Ready` offered.

    See `_extensions.py`.
    """

    use: Any = ()


class PlainUsage(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="usage"):
    """A `Usage` for a client that did not accept the extension ``usage``."""

    input_audio_tokens: Count
    output_audio_tokens: Count


class InvalidCommand(Unknown, frozen=True, gc=False):
    """A command of an extension with an invalid field."""

    problem: str
    """What is wrong with it, as a sentence."""


class _AnyTag(msgspec.Struct, frozen=True, gc=False):
    t: str


class _LooseReady(msgspec.Struct, frozen=True, rename="camel"):
    input_sample_rate: int = 0
    output_sample_rate: int = 0
    extensions: Any = []
    capabilities: Any = None


class _LooseTranscript(msgspec.Struct, frozen=True, gc=False):
    role: str = ""
    text: str = ""
    final: bool = False


class _LooseServerToolCall(msgspec.Struct, frozen=True, gc=False):
    id: str = ""
    name: str = ""
    status: str = ""


class _LooseInterruption(msgspec.Struct, frozen=True, gc=False):
    at: str = ""


class _LooseResponseEnd(msgspec.Struct, frozen=True, gc=False):
    status: str = ""
    reason: str = ""


class MalformedMessage(Exception):
    """A text message that is not of this protocol; the error's text says what is wrong with it."""


class _Direction(NamedTuple, Generic[_T]):
    """The messages of one direction: the strict decoder, and looser shapes of the same JSON types."""

    decoder: msgspec.json.Decoder[_T]
    tags: frozenset[str]
    loose: dict[str, msgspec.json.Decoder[Any]]


ServerMessage = (
    Ready | Transcript | ToolCall | ServerToolCall | Interruption | Usage | ResponseEnd | ErrorFrame | End
)
ClientMessage = (
    Control | Interrupt | ToolResult | UseExtensions | TextIn | ImageIn | Respond | Say | Update | Played
)
ClientCommand = Commit | Clear | EndTurn | Interrupt | ToolResult | ExtensionCommand | Played
"""A command that is a text message."""

_RAW_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FROM_SERVER: Final[_Direction[ServerMessage]] = _Direction(
    msgspec.json.Decoder(ServerMessage),
    frozenset(
        {
            "ready",
            "transcript",
            "tool_call",
            "server_tool_call",
            "interruption",
            "usage",
            "response",
            "error",
            "end",
        }
    ),
    {
        "transcript": msgspec.json.Decoder(_LooseTranscript),
        "server_tool_call": msgspec.json.Decoder(_LooseServerToolCall),
        "interruption": msgspec.json.Decoder(_LooseInterruption),
        "usage": _RAW_FIELDS,
        "response": msgspec.json.Decoder(_LooseResponseEnd),
    },
)
_FROM_CLIENT: Final[_Direction[ClientMessage]] = _Direction(
    msgspec.json.Decoder(ClientMessage),
    frozenset({"control", "interrupt", "tool_result", "extensions", *COMMANDS}),
    {},
)
_LOOSE_READY: Final = msgspec.json.Decoder(_LooseReady)
_DECODE_FROM_SERVER: Final = _FROM_SERVER.decoder.decode
_DECODE_FROM_CLIENT: Final = _FROM_CLIENT.decoder.decode
_REFUSALS: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_COUNT: Final[msgspec.json.Decoder[int]] = msgspec.json.Decoder(Count)
_SECONDS: Final[msgspec.json.Decoder[float]] = msgspec.json.Decoder(Seconds)
_NUMBER: Final = msgspec.json.Decoder(float, strict=False)  # "3", too
_EXACT: Final = 2**53 - 1
"""Up to here, a double represents every whole number exactly."""

_MAX_PROBLEM: Final = 200
"""Characters of the text of an `InvalidCommand`, which may quote a value."""

_FEW_BRACKETS: Final = 64
"""An image has one, and perhaps a few in fields of a newer version."""

HALF_PAIR: Final = "half of a surrogate pair"
"""The entry in `odd` where the field is unknown."""

# Match whole pairs first, and every other escape as a unit, since a backslash may itself be escaped.
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_ANY: Final = msgspec.json.Decoder(_AnyTag)
_ENCODE: Final = msgspec.json.Encoder().encode
_CONTROLS: Final[dict[type, str]] = {
    kind: _ENCODE(Control(action)).decode()
    for kind, action in ((Commit, "commit"), (Clear, "clear"), (EndTurn, "end_turn"))
}
_ACTIONS: Final[dict[str, Commit | Clear | EndTurn]] = {
    "commit": Commit(),
    "clear": Clear(),
    "end_turn": EndTurn(),
}


def encode(message: ServerMessage | PlainUsage | ClientCommand | UseExtensions) -> str:
    """Return `message` as JSON text; UnicodeEncodeError when it holds a lone surrogate."""
    control = _CONTROLS.get(type(message))
    return control if control is not None else _ENCODE(message).decode()


def decode_from_server(text: str, odd: list[str] | None = None) -> ServerMessage | Unknown:
    """Decode a message from a server; `MalformedMessage` if it is not a message of this protocol.

    Appends to `odd` the names of fields that were read as another value.
    """
    try:
        return _DECODE_FROM_SERVER(text)
    except _REFUSALS as error:
        refusal: Exception = error
    odd = [] if odd is None else odd
    whole = mend_escapes(text)
    if whole != text:
        odd.append(HALF_PAIR)
        try:
            message = _DECODE_FROM_SERVER(whole)
        except _REFUSALS as error:
            refusal = error
        else:
            if isinstance(message, ToolCall) and "\ufffd" in message.call_id:
                raise MalformedMessage("the id of a tool call holds half of a surrogate pair")
            return message
    return _forgiven(whole, refusal, odd) or _unknown(_FROM_SERVER, text, whole, refusal)


def decode_from_client(text: str, odd: list[str] | None = None) -> ClientCommand | UseExtensions | Unknown:
    """Decode a message from a client, like `decode_from_server`."""
    try:
        message = _DECODE_FROM_CLIENT(text)
    except _REFUSALS as error:
        whole = mend_escapes(text)
        if whole == text:
            return _unknown(_FROM_CLIENT, text, text, error)
        if odd is not None:
            odd.append(HALF_PAIR)
        try:
            message = _DECODE_FROM_CLIENT(whole)
        except _REFUSALS as another:
            return _unknown(_FROM_CLIENT, text, whole, another)
    if isinstance(message, Control):
        return _ACTIONS.get(message.action) or Unknown("control", text)
    return message


def mend_escapes(text: str) -> str:
    """Replace each unpaired surrogate escape in `text`, which is JSON, by U+FFFD.

    JSON may contain unpaired surrogates (RFC 8259, section 8.2), UTF-8 can't.
    """
    return _ESCAPE.sub(_mend_escape, text) if "\\ud" in text or "\\uD" in text else text


def _mend_escape(match: re.Match[str]) -> str:
    return "\\ufffd" if match["half"] else match[0]


def _forgiven(text: str, refusal: Exception, odd: list[str]) -> ServerMessage | None:
    """Decode `text`, ignoring odd values in non-essential fields; None if that is not enough."""
    # Two conflicting `t` make the message invalid, whatever the rest.
    if not isinstance(refusal, msgspec.ValidationError) or str(refusal).endswith("`$.t`"):
        return None
    try:
        match _ANY.decode(text).t:
            case "ready":
                # Extensions are not part of the plain protocol.
                return _forgiven_ready(_LOOSE_READY.decode(text), odd)
            case "usage":
                return _forgiven_usage(_RAW_FIELDS.decode(text), odd)
            case _:
                return None
    except _REFUSALS:
        return None


def _forgiven_ready(ready: _LooseReady, odd: list[str]) -> Ready:
    if not isinstance(ready.extensions, list) or not all(isinstance(name, str) for name in ready.extensions):
        odd.append("extensions")
    names = read_names(ready.extensions)
    capabilities = None
    if ready.capabilities is not None:
        capabilities = read_capabilities(ready.capabilities, odd)
    return Ready(ready.input_sample_rate, ready.output_sample_rate, names, capabilities)


def _forgiven_usage(raw: dict[str, msgspec.Raw], odd: list[str]) -> Usage:
    amounts: dict[str, Any] = {}
    for field in msgspec.structs.fields(Usage):
        if (value := raw.get(field.encode_name)) is not None:
            read = _seconds if field.name == "seconds" else _count
            amounts[field.name] = read(field.encode_name, value, odd)
    return Usage(**amounts)


def _count(name: str, raw: msgspec.Raw, odd: list[str]) -> int:
    try:
        return _COUNT.decode(raw)
    except _REFUSALS:
        odd.append(name)
    number = _nearest(raw)
    return int(number) if number.is_integer() and 0 <= number <= _EXACT else 0


def _seconds(name: str, raw: msgspec.Raw, odd: list[str]) -> float:
    try:
        return _SECONDS.decode(raw)
    except _REFUSALS:
        odd.append(name)
    number = _nearest(raw)
    return number if 0 <= number < math.inf else 0.0


def _nearest(raw: msgspec.Raw) -> float:
    try:
        return _NUMBER.decode(raw)
    except _REFUSALS:
        return 0.0


class _ErrorBody(msgspec.Struct, frozen=True, gc=False):
    error: str = ""
    code: str = ""


_ERROR_BODY: Final = msgspec.json.Decoder(_ErrorBody)


def is_laborious(text: str) -> bool:
    """Whether `check_depth` or mending the escapes of `text` would take far longer than decoding it."""
    if _brackets(text) > _FEW_BRACKETS:
        return True
    return "\\" in text and ("\\ud" in text or "\\uD" in text)


def _brackets(text: str) -> int:
    """Count the opening brackets of a JSON text."""
    # `count` looks at every character; `in` and `rfind` jump over the megabytes of a picture, which has none.
    objects = text.count("{") if text.rfind("{") > 0 else text[:1].count("{")
    return objects + text.count("[") if "[" in text else objects


def tag_of(text: str) -> str | None:
    """Return the ``t`` of a message, whatever else is in it; None if it has none."""
    try:
        return _ANY.decode(text).t
    except _REFUSALS:
        return None


def error_text(body: str) -> str:
    """Return the message in the body of an HTTP error, whatever its form; it is not fit to be shown yet."""
    try:
        return _ERROR_BODY.decode(body).error or body
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return body  # not the documented JSON (speko-protocol, section 1)


def _unknown(direction: _Direction[_T], text: str, whole: str, error: Exception) -> Unknown:
    """Return `text` as an `Unknown`; `MalformedMessage` if it is malformed. `whole` is its mended form."""
    if not isinstance(error, msgspec.ValidationError):
        raise MalformedMessage(_describe(error)) from None
    try:
        tag = _ANY.decode(whole).t
        if tag in COMMANDS and tag in direction.tags:
            problem = f"this {tag} message is invalid: {_describe(error)}"
            return InvalidCommand(tag, text, clean(problem, limit=_MAX_PROBLEM))
        if tag in direction.tags:
            loose = direction.loose.get(tag)
            if loose is None:
                raise MalformedMessage(_describe(error)) from None
            loose.decode(whole)
    except _REFUSALS as reason:
        raise MalformedMessage(_describe(reason)) from None
    return Unknown(tag, text)


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it holds half of a surrogate pair"
    # msgspec's own words ("Expected `bool`, got `int` - at `$.final`") name the field and never its value.
    return str(error)


def mended(text: str, *, more: bool = False) -> str:
    """Make `text` valid for UTF-8.

    Adjacent halves of surrogate pairs are joined, and an unpaired half is replaced by U+FFFD.

    Peers that cut UTF-16 text into pieces write ``\\ud83d`` in one piece and ``\\ude00`` in the next. With
    `more`, the text continues, so a first half at its very end is left out until the other half arrives.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        if more and "\ud800" <= text[-1] <= "\udbff":
            text = text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def check_depth(text: str, max_depth: int) -> None:
    """Raise `MalformedMessage` if a JSON text nests arrays and objects deeper than `max_depth`."""
    # A level takes at least two characters, and most texts hold too few to reach the limit.
    if len(text) <= 2 * max_depth or _brackets(text) <= max_depth:
        return
    depth = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > max_depth:
                raise MalformedMessage(f"it is nested deeper than {max_depth} levels")
        elif character in "]}":
            depth -= 1
