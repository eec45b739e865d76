"""The messages of Gemini Live in both directions, and the only place that decodes them.

A message is an object with any number of fields, each with a meaning of its own. `decode` is strict
and fast; what it rejects goes to `decode_leniently`, which also names the fields that are unknown or odd, by
the rules of `lenient`.

Every documented field is declared below, so that strict decoding rejects messages with anything new in them.
Fields that need no handling are `Raw`, which costs nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ...protocol.frames import Usage
from .._lenient import BLANK, Count, Piece, fit, parse, text_of

# Sent

_ENCODE: Final = msgspec.json.Encoder().encode


ACTIVITY_START: Final = '{"realtimeInput":{"activityStart":{}}}'
"""The user starts to speak, which stops the model. Manual mode only."""

ACTIVITY_END: Final = '{"realtimeInput":{"activityEnd":{}}}'
"""The user has finished, so the model answers. Manual mode only."""

STREAM_END: Final = '{"realtimeInput":{"audioStreamEnd":true}}'
"""No audio follows for now, so buffered audio is processed. Auto mode only."""

STOP_GENERATING: Final = '{"clientContent":{"turnComplete":false}}'
"""Stops the model without asking for another answer, on models that support it."""

ASK: Final = '{"clientContent":{"turnComplete":true}}'
"""Asks the model to speak; or, where the setup announced an initial history, ends that."""

TURN_ENDS: Final = frozenset({ACTIVITY_END, STREAM_END})

_AUDIO_PREFIX: Final = '{"realtimeInput":{"audio":{"data":'


def audio(pcm: bytes, mime_type: str) -> str:
    """Encode more of the user's audio."""
    return f'{_AUDIO_PREFIX}{_ENCODE(pcm).decode()},"mimeType":"{mime_type}"' + "}}}"


def is_audio(message: object) -> bool:
    """Whether `message` is one that `audio` made."""
    return isinstance(message, str) and message.startswith(_AUDIO_PREFIX)


SentPart: TypeAlias = Mapping[str, Any]
"""A part of something to say, as it travels."""

ContentRole: TypeAlias = Literal["user", "model", "system"]


def text_part(text: str) -> SentPart:
    """Return a part that is text."""
    return {"text": text}


def image_part(mime_type: str, data: bytes) -> SentPart:
    """Return a part that is the content of an image's file."""
    return {"inlineData": {"mimeType": mime_type, "data": data}}


def said(role: ContentRole, *parts: SentPart) -> SentPart:
    """Return something that was said, for `content`."""
    return {"role": role, "parts": parts}


def content(turns: Sequence[SentPart], *, complete: bool) -> str:
    """Encode additions to the conversation. With `complete` the model answers; otherwise they are context.

    Either stops the model if it speaks.
    """
    return _ENCODE({"clientContent": {"turns": turns, "turnComplete": complete}}).decode()


def realtime(part: SentPart) -> str:
    """Encode a part as input of the user. Text counts as speech; a picture becomes part of the turn."""
    if "text" in part:
        return _ENCODE({"realtimeInput": {"text": part["text"]}}).decode()
    return _ENCODE({"realtimeInput": {"video": part["inlineData"]}}).decode()


def context_update(fields: Mapping[str, Any]) -> str:
    """Encode other settings for the session: a system instruction, tools, or both."""
    return _ENCODE({"contextUpdate": fields}).decode()


def tool_response(
    call_id: str | None, name: str, response: Mapping[str, Any], scheduling: str | None = None
) -> str:
    """Encode the result of a tool call; UnicodeEncodeError when it holds a lone surrogate.

    `scheduling`: when the model is to speak about it.
    """
    answer = {
        "name": name,
        "response": response,
        **({} if call_id is None else {"id": call_id}),
        **({} if scheduling is None else {"scheduling": scheduling}),
    }
    return _ENCODE({"toolResponse": {"functionResponses": [answer]}}).decode()


def response_of(output: str) -> dict[str, Any]:
    """Return `output` as the object that a response must be: itself, if it is the JSON text of one."""
    try:
        value = msgspec.json.decode(output)
        if isinstance(value, dict):
            _ENCODE(value)
            return value
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
        pass  # text, or numbers that JSON can't carry: the model reads either as text
    return {"output": output}


# Received

_NOTHING: Final = Raw()


class _Received(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """Base of everything received; any field may be missing."""


class SetupComplete(_Received, frozen=True):
    """The configuration was accepted."""

    session_id: str = ""
    voice_consent_signature: Raw = _NOTHING


class Blob(_Received, frozen=True):
    """Bytes of some kind."""

    mime_type: str = ""
    data: bytes = b""
    display_name: Raw = _NOTHING


class Part(_Received, frozen=True):
    """A piece of the model's output."""

    text: Piece = ""
    thought: bool = False
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


class ModelTurn(_Received, frozen=True):
    """More output of the model."""

    parts: tuple[Part, ...] | None = None
    role: Raw = _NOTHING


class Transcription(_Received, frozen=True):
    """More words."""

    text: Piece = ""
    finished: bool = False
    language_code: Raw = _NOTHING
    speaker_label: Raw = _NOTHING
    words: Raw = _NOTHING
    start_offset: Raw = _NOTHING
    end_offset: Raw = _NOTHING


class TokenCount(_Received, frozen=True):
    """Tokens of one kind."""

    modality: str = ""
    token_count: Count = 0


class UsageMetadata(_Received, frozen=True):
    """Tokens spent."""

    prompt_tokens_details: tuple[TokenCount, ...] | None = None
    response_tokens_details: tuple[TokenCount, ...] | None = None
    candidates_tokens_details: tuple[TokenCount, ...] | None = None
    """Vertex AI's name for `response_tokens_details`."""
    tool_use_prompt_tokens_details: tuple[TokenCount, ...] | None = None
    """Results of Google's own tools, which the prompt's details leave out."""
    cache_tokens_details: tuple[TokenCount, ...] | None = None
    cached_content_token_count: Count = 0
    """All of the prompt that came from the cache."""
    thoughts_token_count: Count = 0
    """Tokens of thoughts, which the response's details leave out."""
    prompt_token_count: Raw = _NOTHING
    response_token_count: Raw = _NOTHING
    candidates_token_count: Raw = _NOTHING
    tool_use_prompt_token_count: Raw = _NOTHING
    total_token_count: Raw = _NOTHING
    traffic_type: Raw = _NOTHING
    service_tier: Raw = _NOTHING

    def usage(self) -> Usage:
        """Return the counts as a frame. Video counts as images, documents as text."""
        read = _by_kind(self.prompt_tokens_details, self.tool_use_prompt_tokens_details)
        spoken = _by_kind(self.response_tokens_details or self.candidates_tokens_details)
        cached = _by_kind(self.cache_tokens_details)
        if not cached:
            cached["text"] = self.cached_content_token_count
        return Usage(
            input_audio_tokens=read["audio"],
            output_audio_tokens=spoken["audio"],
            input_text_tokens=read["text"],
            output_text_tokens=spoken["text"],
            input_image_tokens=read["image"],
            cached_audio_tokens=cached["audio"],
            cached_text_tokens=cached["text"],
            output_reasoning_tokens=self.thoughts_token_count,
        )


_KINDS: Final = {"AUDIO": "audio", "TEXT": "text", "DOCUMENT": "text", "IMAGE": "image", "VIDEO": "image"}
"""What a modality counts as."""


def _by_kind(*details: Sequence[TokenCount] | None) -> Counter[str]:
    """Return the tokens of each kind."""
    found: Counter[str] = Counter()
    for counts in details:
        for count in counts or ():
            found[_KINDS.get(count.modality, "")] += count.token_count
    return found


class ServerContent(_Received, frozen=True):
    """How the conversation goes on."""

    model_turn: ModelTurn | None = None
    output_transcription: Transcription | None = None
    input_transcription: Transcription | None = None
    interim_input_transcription: Transcription | None = None
    interrupted: bool = False
    generation_complete: bool = False
    turn_complete: bool = False
    turn_complete_reason: str = ""
    finish_reason: str = ""
    """The name of the reason in other methods of the API."""
    interaction_status: str = ""
    waiting_for_input: bool = False
    grounding_metadata: dict[str, Raw] | None = None
    url_context_metadata: dict[str, Raw] | None = None
    usage_metadata: UsageMetadata | None = None


class FunctionCall(_Received, frozen=True):
    """The model wants a tool run."""

    id: str = ""
    name: str = ""
    args: Raw = _NOTHING
    partial_args: Raw = _NOTHING
    will_continue: Raw = _NOTHING

    @property
    def arguments(self) -> str:
        """The arguments as JSON text: an object, or whatever else the model sent."""
        given = bytes(self.args) or b"{}"
        try:
            value = _ARGUMENTS.decode(given)
            if isinstance(value, str):  # JSON text of an object means the same
                value = _OBJECT.decode(value)
            return _ENCODE(value or {}).decode()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return given.decode()


class ToolCall(_Received, frozen=True):
    """Tools to run."""

    function_calls: tuple[FunctionCall, ...] | None = None


class ToolCallCancellation(_Received, frozen=True):
    """Calls whose results are no longer wanted."""

    ids: tuple[str, ...] | None = None


class GoAway(_Received, frozen=True):
    """The connection ends soon."""

    time_left: Raw = _NOTHING

    @property
    def seconds_left(self) -> float | None:
        """The seconds left as a number; None if `timeLeft` can't be parsed.

        ``"50s"`` is usual; ``"1m30s"``, a number, and an object with `seconds` are understood, too.
        """
        try:
            value = msgspec.json.decode(self.time_left)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        if isinstance(value, dict):
            value = value.get("seconds")
        found = _DURATION.match(f"{value}".strip().lower())
        if found is None:
            return None
        parts = {unit: float(number) for number, unit in _DURATION_PART.findall(found[0])}
        return sum(number * _UNITS[unit] for unit, number in parts.items())


class ResumptionUpdate(_Received, frozen=True):
    """A handle to resume the session with, or notice that there is none."""

    new_handle: str = ""
    resumable: bool = False
    last_consumed_client_message_index: Raw = _NOTHING


class ServerMessage(_Received, frozen=True):
    """Any message of the provider."""

    server_content: ServerContent | None = None
    usage_metadata: UsageMetadata | None = None
    setup_complete: SetupComplete | UnsetType | None = UNSET
    """Any value means that the setup was accepted, also null."""
    tool_call: ToolCall | None = None
    tool_call_cancellation: ToolCallCancellation | None = None
    go_away: GoAway | None = None
    session_resumption_update: ResumptionUpdate | None = None
    interaction_status: str = ""
    """Some servers send it here."""
    voice_activity: dict[str, Raw] | None = None
    voice_activity_detection_signal: dict[str, Raw] | None = None


class Decoded(NamedTuple):
    """A message, and its odd and unknown fields."""

    message: ServerMessage
    odd: tuple[str, ...]
    """Paths of the fields whose value was read as another, or ignored; see `lenient`."""
    unknown: tuple[str, ...]
    """The unknown fields, as paths."""


decode: Final = msgspec.json.Decoder(ServerMessage).decode
"""Decodes a message that is as documented; raises one of `NOT_AS_DOCUMENTED` for any other. Pass text: the
decoder does not look into what stays `Raw`, so that bytes in it could be anything."""

NOT_AS_DOCUMENTED: Final = (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError)

_ARGUMENTS: Final = msgspec.json.Decoder(dict[str, Raw] | str | None)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_DURATION: Final = re.compile(r"\d{1,6}(?:\.\d{1,9})?\Z|(?:\d{1,6}(?:\.\d{1,9})?(?:h|ms|us|ns|m|s)){1,6}\Z")
_DURATION_PART: Final = re.compile(r"([\d.]+)([a-z]*)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def decode_leniently(data: bytes | str) -> Decoded:
    """Decode a message in which something is new, odd or invalid.

    Raises `MalformedMessage` when it is not a message of this protocol.
    """
    text = data if isinstance(data, str) else text_of(data)
    if not text.strip(BLANK):
        return Decoded(ServerMessage(), ("",), ())
    message, odd, unknown = fit(parse(text), ServerMessage)
    if "setupComplete" in odd:
        message = msgspec.structs.replace(message, setup_complete=SetupComplete())
    if not (odd or unknown):  # the JSON itself is: a byte order mark, half of a surrogate pair
        odd = ("",)
    return Decoded(message, odd, unknown)
