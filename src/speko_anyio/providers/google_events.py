"""The messages of Gemini Live, both ways; the one place that decodes them.

A message is an object whose fields each mean something by themselves, and several may come at once. What one
can be:

- a `ServerMessage`; the names of the fields in it that this version does not know come along;
- anything else, a known field of the wrong JSON type included: `MalformedMessage`.

Every documented field is named below, since one strict decoding then tells that a message holds nothing
new; those that need nothing done are `Raw`, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..protocol.codec import MalformedMessage

# What we say

_ENCODE: Final = msgspec.json.Encoder().encode


class _Said(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Anything sent."""


class _AudioBlob(_Said, frozen=True):
    data: bytes
    mime_type: str


class _AudioInput(_Said, frozen=True):
    audio: _AudioBlob


class _AudioMessage(_Said, frozen=True):
    realtime_input: _AudioInput


class _FunctionResponse(_Said, frozen=True):
    name: str
    response: Mapping[str, Any]
    id: str | UnsetType = UNSET


class _ToolResponse(_Said, frozen=True):
    function_responses: tuple[_FunctionResponse, ...]


class _ToolResponseMessage(_Said, frozen=True):
    tool_response: _ToolResponse


ACTIVITY_START: Final = '{"realtimeInput":{"activityStart":{}}}'
"""The user begins to speak; stops the model. Only in manual mode."""

ACTIVITY_END: Final = '{"realtimeInput":{"activityEnd":{}}}'
"""The user is done: answer. Only in manual mode."""

STREAM_END: Final = '{"realtimeInput":{"audioStreamEnd":true}}'
"""No audio follows for now: what is buffered counts. Only in auto mode."""

STOP_GENERATING: Final = '{"clientContent":{"turnComplete":false}}'
"""Stops the model without asking for another answer, on models that take it."""

TURN_ENDS: Final = frozenset({ACTIVITY_END, STREAM_END})

_AUDIO_PREFIX: Final = '{"realtimeInput":{"audio":'


def audio(pcm: bytes, mime_type: str) -> str:
    """More of the user's audio."""
    return _ENCODE(_AudioMessage(_AudioInput(_AudioBlob(pcm, mime_type)))).decode()


def is_audio(message: object) -> bool:
    """Whether `message` is one that `audio` made."""
    return isinstance(message, str) and message.startswith(_AUDIO_PREFIX)


def tool_response(call_id: str | None, name: str, response: Mapping[str, Any]) -> str:
    """What a tool call gave; UnicodeEncodeError when it holds a lone surrogate."""
    answer = _FunctionResponse(name, response, UNSET if call_id is None else call_id)
    return _ENCODE(_ToolResponseMessage(_ToolResponse((answer,)))).decode()


def response_of(output: str) -> dict[str, Any]:
    """`output` as the object that a response must be: itself, if it is the JSON text of one."""
    try:
        value = msgspec.json.decode(output)
        if isinstance(value, dict):
            _ENCODE(value)
            return value
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
        pass  # text, then, or numbers that do not survive: the model reads either as text
    return {"output": output}


# What they say

_NOTHING: Final = Raw()


class _Heard(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """Anything received; all of it may be missing."""


class SetupComplete(_Heard, frozen=True):
    """The configuration was accepted."""

    session_id: str | None = None
    voice_consent_signature: Raw = _NOTHING


class Blob(_Heard, frozen=True):
    """Bytes of some kind."""

    mime_type: str | None = None
    data: bytes = b""
    display_name: Raw = _NOTHING


class Part(_Heard, frozen=True):
    """A piece of what the model makes."""

    text: str | None = None
    thought: bool | None = None
    inline_data: Blob | None = None
    media_resolution: Raw = _NOTHING
    code_execution_result: Raw = _NOTHING
    executable_code: Raw = _NOTHING
    file_data: Raw = _NOTHING
    function_call: Raw = _NOTHING
    function_response: Raw = _NOTHING
    thought_signature: Raw = _NOTHING
    video_metadata: Raw = _NOTHING
    tool_call: Raw = _NOTHING
    tool_response: Raw = _NOTHING
    part_metadata: Raw = _NOTHING


class ModelTurn(_Heard, frozen=True):
    """More of what the model makes."""

    parts: tuple[Part, ...] | None = None
    role: Raw = _NOTHING


class Transcription(_Heard, frozen=True):
    """More words."""

    text: str | None = None
    finished: bool | None = None
    language_code: Raw = _NOTHING
    speaker_label: Raw = _NOTHING
    words: Raw = _NOTHING
    start_offset: Raw = _NOTHING
    end_offset: Raw = _NOTHING


class ServerContent(_Heard, frozen=True):
    """How the conversation goes on."""

    model_turn: ModelTurn | None = None
    output_transcription: Transcription | None = None
    input_transcription: Transcription | None = None
    interim_input_transcription: Transcription | None = None
    interrupted: bool | None = None
    generation_complete: bool | None = None
    turn_complete: bool | None = None
    turn_complete_reason: str | None = None
    interaction_status: str | None = None
    waiting_for_input: bool | None = None
    grounding_metadata: dict[str, Raw] | None = None
    url_context_metadata: dict[str, Raw] | None = None
    usage_metadata: Raw = _NOTHING


class FunctionCall(_Heard, frozen=True):
    """The model wants a tool run."""

    id: str | None = None
    name: str | None = None
    args: dict[str, Raw] | None = None
    partial_args: Raw = _NOTHING
    will_continue: Raw = _NOTHING

    @property
    def arguments(self) -> str:
        """As JSON text."""
        return _ENCODE(self.args or {}).decode()


class ToolCall(_Heard, frozen=True):
    """Tools to run."""

    function_calls: tuple[FunctionCall, ...] | None = None


class ToolCallCancellation(_Heard, frozen=True):
    """Calls whose results are not wanted any more."""

    ids: tuple[str, ...] | None = None


class TokenCount(_Heard, frozen=True):
    """Tokens of one kind."""

    modality: str | None = None
    token_count: int | float | None = None


class UsageMetadata(_Heard, frozen=True):
    """Tokens spent."""

    prompt_tokens_details: tuple[TokenCount, ...] | None = None
    response_tokens_details: tuple[TokenCount, ...] | None = None
    prompt_token_count: Raw = _NOTHING
    cached_content_token_count: Raw = _NOTHING
    response_token_count: Raw = _NOTHING
    tool_use_prompt_token_count: Raw = _NOTHING
    thoughts_token_count: Raw = _NOTHING
    total_token_count: Raw = _NOTHING
    cache_tokens_details: Raw = _NOTHING
    tool_use_prompt_tokens_details: Raw = _NOTHING
    traffic_type: Raw = _NOTHING
    service_tier: Raw = _NOTHING


class GoAway(_Heard, frozen=True):
    """The connection ends soon."""

    time_left: str | None = None


class ResumptionUpdate(_Heard, frozen=True):
    """With what the session can be resumed."""

    new_handle: str | None = None
    resumable: bool | None = None
    last_consumed_client_message_index: Raw = _NOTHING


class ServerMessage(_Heard, frozen=True):
    """Anything the provider says."""

    server_content: ServerContent | None = None
    usage_metadata: UsageMetadata | None = None
    setup_complete: SetupComplete | None = None
    tool_call: ToolCall | None = None
    tool_call_cancellation: ToolCallCancellation | None = None
    go_away: GoAway | None = None
    session_resumption_update: ResumptionUpdate | None = None
    voice_activity: Raw = _NOTHING
    voice_activity_detection_signal: Raw = _NOTHING


class Decoded(NamedTuple):
    """A message, and what in it is new to this version."""

    message: ServerMessage
    unknown: tuple[str, ...] = ()
    """The unknown fields, as paths."""


_STRICT: Final = msgspec.json.Decoder(ServerMessage)
_SHAPE: Final = msgspec.inspect.type_info(ServerMessage)
_BAD: Final = (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError)
_STANDARD_BASE64: Final = str.maketrans("-_", "+/", "=")


def decode(data: bytes | str) -> Decoded:
    """What the provider said; `MalformedMessage` when it is no message of this protocol."""
    try:
        # The decoder does not look into what stays `Raw`.
        text = data if isinstance(data, str) else data.decode()
        try:
            return Decoded(_STRICT.decode(text))
        except msgspec.ValidationError:
            # Either there is something new in it, which is taken out, or something wrong, which stays.
            unknown: list[str] = []
            known = _known(msgspec.json.decode(text), _SHAPE, "", unknown)
            return Decoded(_STRICT.decode(_ENCODE(known)), tuple(unknown))
    except _BAD as error:
        raise MalformedMessage(_describe(error)) from None


def _known(value: Any, shape: msgspec.inspect.Type, path: str, unknown: list[str]) -> Any:
    """`value` without what `shape` has no place for, which goes to `unknown`; base64 in its one alphabet."""
    match shape:
        case msgspec.inspect.UnionType(types=types):
            # All of them are something or null.
            return _known(value, types[0], path, unknown)
        case msgspec.inspect.StructType(fields=fields) if isinstance(value, dict):
            places = {field.encode_name: field.type for field in fields}
            unknown += [path + name for name in value if name not in places]
            return {
                name: _known(inner, places[name], f"{path}{name}.", unknown)
                for name, inner in value.items()
                if name in places
            }
        case msgspec.inspect.VarTupleType(item_type=item_type) if isinstance(value, list):
            return [_known(inner, item_type, path, unknown) for inner in value]
        case msgspec.inspect.BytesType() if isinstance(value, str):
            # The URL-safe alphabet, and no padding, are as good.
            value = value.translate(_STANDARD_BASE64)
            return value + "=" * (-len(value) % 4)
    return value


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8, or holds half of a surrogate pair"
    # msgspec's own words name the field and never its value.
    return str(error)
