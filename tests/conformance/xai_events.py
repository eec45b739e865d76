"""xAI's events as documented, where they differ from OpenAI's: there are no official types of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tests.providers.realtime_talk import Event, check_openai_server


class _Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    event_id: str
    previous_item_id: str | None = None


class _Format(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["audio/pcm"]
    rate: int


class _Direction(msgspec.Struct, forbid_unknown_fields=True):
    format: _Format
    transcription: dict[str, str] | None = None


class _Session(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    object: Literal["realtime.session"]
    id: str
    model: str
    modalities: list[str]
    instructions: str
    voice: str
    turn_detection: dict[str, Any] | None
    audio: dict[Literal["input", "output"], _Direction]
    tools: list[dict[str, Any]]
    temperature: float
    resumption: dict[str, bool] | None = None


class _SessionCreated(_Strict, tag_field="type", tag="session.created"):
    session: _Session


class _SessionUpdated(_Strict, tag_field="type", tag="session.updated"):
    session: _Session


class _Conversation(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    object: Literal["realtime.conversation"]


class _ConversationCreated(_Strict, tag_field="type", tag="conversation.created"):
    conversation: _Conversation


class _Ping(_Strict, tag_field="type", tag="ping"):
    timestamp: int


_TRANSCRIPTION = "conversation.item.input_audio_transcription"


class _Updated(_Strict, tag_field="type", tag=f"{_TRANSCRIPTION}.updated"):
    item_id: str
    transcript: str


class _Completed(_Strict, tag_field="type", tag=f"{_TRANSCRIPTION}.completed"):
    item_id: str
    transcript: str
    status: Literal["in_progress", "completed"]


class _Tokens(msgspec.Struct, forbid_unknown_fields=True):
    text_tokens: int
    audio_tokens: int
    grok_tokens: int


class _Usage(msgspec.Struct, forbid_unknown_fields=True):
    input_tokens: int
    input_token_details: _Tokens
    output_tokens: int
    output_token_details: _Tokens
    total_tokens: int
    output_audio_seconds: float
    billable_audio_seconds: float


class _Response(msgspec.Struct, kw_only=True):
    object: Literal["realtime.response"]
    id: str
    status: Literal["completed", "cancelled", "failed", "incomplete"]
    status_details: Literal["unimplemented"] | dict[str, Any]
    output: list[dict[str, Any]]
    usage: dict[str, Any]

    def __post_init__(self) -> None:
        assert self.usage == {}


class _ResponseDone(_Strict, tag_field="type", tag="response.done"):
    response: _Response
    usage: _Usage


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["invalid_request_error", "invalid_event", "internal_error", "timeout", "max_duration"]
    message: str
    code: None = None


class _ErrorEvent(_Strict, tag_field="type", tag="error"):
    error: _Error


_OWN = (
    _SessionCreated
    | _SessionUpdated
    | _ConversationCreated
    | _Ping
    | _Updated
    | _Completed
    | _ResponseDone
    | _ErrorEvent
)
_OWN_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in _OWN.__args__)

_NEVER = {
    "conversation.item.done",
    "rate_limits.updated",
    f"{_TRANSCRIPTION}.failed",
    f"{_TRANSCRIPTION}.delta",
}


def check_xai_server(message: Event) -> None:
    """ValidationError unless `message` is one of xAI's; what it shares with OpenAI by OpenAI's types."""
    assert message["type"] not in _NEVER
    if message["type"] in _OWN_TYPES:
        msgspec.convert(message, _OWN)
        return
    message = dict(message)
    if "item" in message and "content" in message["item"]:
        names = {"audio": "output_audio", "text": "output_text"}
        content = [
            {**part, "type": names.get(part["type"], part["type"])} for part in message["item"]["content"]
        ]
        assert content == [] or content != message["item"]["content"] or message["item"]["role"] == "user"
        message["item"] = {**message["item"], "content": content}
    check_openai_server(message)
