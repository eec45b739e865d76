"""The messages of the OpenAI Realtime protocol and of its xAI relative, in both directions.

Received events name only the fields that are used, and all of them may be missing: providers, proxies and
versions differ. Decoding gives:

- for an event that matters: its Struct, with fields of the wrong type mended or left out (see `lenient`);
- for an event of these protocols that needs no action (`IGNORED`): None;
- for an empty message, which proxies and compatible servers send as a keepalive: None, and it counts as odd;
- for any other JSON object: `Unknown`;
- for anything else, or audio that is not base64: `MalformedMessage`.

A field typed `Any` has different shapes at different providers; `dig` reads those.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...protocol._codec import mended
from ...protocol.frames import Unknown
from .. import _lenient as lenient
from .._lenient import Count, JsonText, Piece
from .._recent_ids import drop_oldest

# Messages to the provider


class ClientEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type", kw_only=True):
    """Any message to the provider; an error that answers it names its `event_id`."""

    event_id: str | UnsetType = UNSET


class AppendAudio(ClientEvent, frozen=True, tag="input_audio_buffer.append"):
    """More of the user's audio; base64 on the wire."""

    audio: bytes


class CommitAudio(ClientEvent, frozen=True, tag="input_audio_buffer.commit"):
    """Turn the appended audio into an item of the user."""


class ClearAudio(ClientEvent, frozen=True, tag="input_audio_buffer.clear"):
    """Forget the appended audio."""


class ClearLine(ClientEvent, frozen=True, tag="output_audio_buffer.clear"):
    """Stop the playback on the phone line of a call."""


class UpdateSession(ClientEvent, frozen=True, tag="session.update"):
    """Configure the session, or change some of its configuration."""

    session: Any


class ResponseParams(msgspec.Struct, frozen=True, gc=False):
    """Parameters of one response, which repeats the `metadata`."""

    metadata: dict[str, str] | UnsetType = UNSET
    instructions: str | UnsetType = UNSET
    """In place of the session's."""
    tool_choice: Literal["none"] | UnsetType = UNSET


class CreateResponse(ClientEvent, frozen=True, tag="response.create"):
    """Request a response."""

    response: ResponseParams | UnsetType = UNSET


class CancelResponse(ClientEvent, frozen=True, tag="response.cancel"):
    """Stop the response in flight."""

    response_id: str | UnsetType = UNSET


class TruncateItem(ClientEvent, frozen=True, tag="conversation.item.truncate"):
    """Forget the part of an item that was not heard."""

    item_id: str
    content_index: int
    audio_end_ms: int


class DeleteItem(ClientEvent, frozen=True, tag="conversation.item.delete"):
    """Forget an item."""

    item_id: str


class FunctionCallOutput(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="function_call_output"):
    """The result of a tool call."""

    call_id: str
    output: str


class ApprovalResponse(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="mcp_approval_response"):
    """Our answer to the provider's request for approval to run a tool."""

    id: str
    approval_request_id: str
    approve: bool = False
    reason: str | UnsetType = UNSET


class InputText(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="input_text"):
    """Words of the user or of the system."""

    text: str


class OutputText(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="output_text"):
    """Words of the assistant."""

    text: str


class InputImage(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="input_image"):
    """A picture, as a ``data:`` URL."""

    image_url: str


Content: TypeAlias = InputText | OutputText | InputImage
"""A part of a message."""


class Message(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="message"):
    """What somebody said or showed."""

    role: str
    content: tuple[Content]


class ForcedMessage(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="force_message"):
    """What xAI says verbatim, in a response of its own that needs no request."""

    content: tuple[OutputText]
    role: Literal["assistant"] = "assistant"


class CreateItem(ClientEvent, frozen=True, tag="conversation.item.create"):
    """Add an item to the conversation."""

    item: Message | ForcedMessage | FunctionCallOutput | ApprovalResponse


class FunctionTool(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="function"):
    """A function the model may call."""

    name: str
    description: str
    parameters: dict[str, Any]


_REMEMBERED_REQUESTS: Final = 256


class EventIds:
    """Numbers the messages, the same way in every run, and remembers the kind of each.

    `on_wire`: whether the messages carry their ids, which errors then name.
    """

    __slots__ = ("_kinds", "_on_wire", "count")

    def __init__(self, *, on_wire: bool) -> None:
        self._on_wire = on_wire
        self._kinds: dict[str, type[ClientEvent | Message]] = {}
        self.count: int = 0
        """Messages numbered so far."""

    def make(self, kind: type[ClientEvent], **fields: Any) -> ClientEvent:
        """Make a message with the next id, if it carries one."""
        return kind(event_id=self.on_wire(self.next(kind)), **fields)

    def on_wire(self, event_id: str) -> str | UnsetType:
        """Return the id as a message carries it."""
        return event_id if self._on_wire else UNSET

    def next(self, kind: type[ClientEvent | Message]) -> str:
        """Return the next id, for a message of that kind; `Message` is a `CreateItem` of one."""
        self.count += 1
        event_id = f"evt_{self.count}"
        self._kinds[event_id] = kind
        drop_oldest(self._kinds, _REMEMBERED_REQUESTS)
        return event_id

    def kind_of(self, event_id: str | None) -> type[ClientEvent | Message] | None:
        """Return the kind of the message that an error names, if it is known."""
        return self._kinds.get(event_id or "")


_ENCODE: Final = msgspec.json.Encoder().encode


def encode(event: ClientEvent) -> bytes:
    """Return `event` as JSON text; raise UnicodeEncodeError for half of a surrogate pair."""
    return _ENCODE(event)


# Events from the provider

Index: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""The position of a part in its item."""


class ServerEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """Any event that matters."""


class AudioFormat(msgspec.Struct, frozen=True, gc=False):
    """How audio is encoded."""

    rate: int | None = None


class Session(msgspec.Struct, frozen=True, gc=False):
    """The session as the provider reports it."""

    id: str | None = None
    model: str | None = None
    expires_at: float | None = None
    instructions: str | None = None
    audio: Any = None


class SessionCreated(ServerEvent, frozen=True, tag="session.created"):
    """The session exists, with the provider's defaults."""

    session: Session = Session()


class SessionUpdated(ServerEvent, frozen=True, tag="session.updated"):
    """The configuration was accepted."""

    session: Session = Session()


class Conversation(msgspec.Struct, frozen=True, gc=False):
    """A conversation's id."""

    id: str | None = None


class ConversationCreated(ServerEvent, frozen=True, tag="conversation.created"):
    """Its id resumes the conversation on xAI."""

    conversation: Conversation = Conversation()


class SpeechStarted(ServerEvent, frozen=True, tag="input_audio_buffer.speech_started"):
    """The provider hears the user speak."""

    item_id: str | None = None


class SpeechStopped(ServerEvent, frozen=True, tag="input_audio_buffer.speech_stopped"):
    """The provider no longer hears the user speak."""


class AudioCommitted(ServerEvent, frozen=True, tag="input_audio_buffer.committed"):
    """The appended audio is a user's item now."""

    item_id: str | None = None


class AudioCleared(ServerEvent, frozen=True, tag="input_audio_buffer.cleared"):
    """The appended audio is forgotten."""


class KeyPressed(ServerEvent, frozen=True, tag="input_audio_buffer.dtmf_event_received"):
    """The user of a telephone pressed a key."""

    event: str | None = None


class LineStarted(ServerEvent, frozen=True, tag="output_audio_buffer.started"):
    """The phone line of a call begins to play an answer."""


class LineStopped(ServerEvent, frozen=True, tag="output_audio_buffer.stopped"):
    """The phone line of a call has played everything."""


class LineCleared(ServerEvent, frozen=True, tag="output_audio_buffer.cleared"):
    """The phone line of a call stopped playing, since the user or `ClearLine` cut in."""


class UserDelta(ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.delta"):
    """More of the user's words."""

    item_id: str | None = None
    content_index: Index | None = None
    delta: Piece | None = None


class UserUpdated(ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.updated"):
    """All of the user's words so far; earlier ones may have changed (xAI)."""

    item_id: str | None = None
    content_index: Index | None = None
    transcript: str | None = None


class TranscriptionUsage(msgspec.Struct, frozen=True, gc=False):
    """What a transcription cost. Its tokens are of another model, at other prices, so they are not read."""

    seconds: float | None = None


class UserCompleted(ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.completed"):
    """The user's words, complete; on xAI only if `status` says so."""

    item_id: str | None = None
    content_index: Index | None = None
    transcript: str | None = None
    status: str | None = None
    usage: TranscriptionUsage | None = None


class ErrorInfo(msgspec.Struct, frozen=True, gc=False):
    """What went wrong."""

    type: str | None = None
    code: str | int | None = None
    message: JsonText | None = None
    event_id: str | None = None


class UserFailed(ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.failed"):
    """The user's words could not be transcribed."""

    item_id: str | None = None
    content_index: Index | None = None
    error: ErrorInfo | None = None


class Item(msgspec.Struct, frozen=True, gc=False):
    """A part of the conversation."""

    id: str | None = None
    type: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: JsonText | None = None
    server_label: str | None = None
    role: str | None = None
    content: Any = None


def is_text(item: Item) -> bool:
    """Whether an item is a text or an image that the client added, but not one of the assistant's."""
    return (
        item.role != "assistant"
        and isinstance(item.content, list)
        and any(dig(part, str, "type") in ("input_text", "text", "input_image") for part in item.content)
    )


class ItemAdded(ServerEvent, frozen=True, tag="conversation.item.added"):
    """The conversation has another item."""

    item: Item = Item()


class ItemCreated(ItemAdded, frozen=True, tag="conversation.item.created"):
    """The name of `ItemAdded` in the beta."""


class CachedTokens(msgspec.Struct, frozen=True, gc=False):
    """The input tokens that came from the cache, by kind."""

    audio_tokens: Count | None = None
    text_tokens: Count | None = None


class TokenDetails(msgspec.Struct, frozen=True, gc=False):
    """Tokens by kind."""

    audio_tokens: Count | None = None
    text_tokens: Count | None = None
    image_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cached_tokens_details: CachedTokens | None = None


class UsageInfo(msgspec.Struct, frozen=True, gc=False):
    """Tokens spent; xAI sends an empty object for none."""

    input_token_details: TokenDetails | None = None
    output_token_details: TokenDetails | None = None
    output_audio_seconds: float | None = None
    billable_audio_seconds: float | None = None
    """Of audio in both directions; xAI charges by it."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """A response of the model."""

    id: str | None = None
    status: str | None = None
    status_details: Any = None
    output: tuple[Item, ...] | None = None
    usage: UsageInfo | None = None
    metadata: Any = None


class ResponseCreated(ServerEvent, frozen=True, tag="response.created"):
    """A response begins."""

    response: Response = Response()


class ResponseDone(ServerEvent, frozen=True, tag="response.done"):
    """A response is over: complete, cut off or failed."""

    response: Response = Response()
    usage: UsageInfo | None = None
    """xAI reports it here."""


class OutputItemAdded(ServerEvent, frozen=True, tag="response.output_item.added"):
    """The response has another item."""

    response_id: str | None = None
    item: Item = Item()


class OutputItemDone(ServerEvent, frozen=True, tag="response.output_item.done"):
    """An item of the response is over, complete or not."""

    response_id: str | None = None
    item: Item = Item()


class AudioDelta(ServerEvent, frozen=True, tag="response.output_audio.delta"):
    """More of the assistant's audio."""

    response_id: str | None = None
    item_id: str | None = None
    content_index: Index | None = None
    delta: bytes = b""


class BetaAudioDelta(AudioDelta, frozen=True, tag="response.audio.delta"):
    """The name of `AudioDelta` in the beta."""


class TextDelta(ServerEvent, frozen=True, tag="response.output_text.delta"):
    """More of the assistant's words."""

    response_id: str | None = None
    item_id: str | None = None
    content_index: Index | None = None
    delta: Piece | None = None


class BetaTextDelta(TextDelta, frozen=True, tag="response.text.delta"):
    """The name of `TextDelta` in the beta."""


class TranscriptDelta(TextDelta, frozen=True, tag="response.output_audio_transcript.delta"):
    """More of the words of the assistant's audio."""


class BetaTranscriptDelta(TextDelta, frozen=True, tag="response.audio_transcript.delta"):
    """The name of `TranscriptDelta` in the beta."""


class TextDone(ServerEvent, frozen=True, tag="response.output_text.done"):
    """All of the assistant's words."""

    response_id: str | None = None
    item_id: str | None = None
    content_index: Index | None = None
    text: str | None = None


class BetaTextDone(TextDone, frozen=True, tag="response.text.done"):
    """The name of `TextDone` in the beta."""


class TranscriptDone(ServerEvent, frozen=True, tag="response.output_audio_transcript.done"):
    """All words of the assistant's audio; xAI may leave this event out."""

    response_id: str | None = None
    item_id: str | None = None
    content_index: Index | None = None
    transcript: str | None = None


class BetaTranscriptDone(TranscriptDone, frozen=True, tag="response.audio_transcript.done"):
    """The name of `TranscriptDone` in the beta."""


class ArgumentsDone(ServerEvent, frozen=True, tag="response.function_call_arguments.done"):
    """The arguments of a function call are over; on OpenAI also when it was cut off."""

    response_id: str | None = None
    item_id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: JsonText | None = None


class McpInProgress(ServerEvent, frozen=True, tag="response.mcp_call.in_progress"):
    """A tool runs on the provider's side."""

    item_id: str | None = None


class McpCompleted(ServerEvent, frozen=True, tag="response.mcp_call.completed"):
    """A tool on the provider's side gave its result."""

    item_id: str | None = None


class McpFailed(ServerEvent, frozen=True, tag="response.mcp_call.failed"):
    """A tool on the provider's side failed."""

    item_id: str | None = None


class ErrorEvent(ServerEvent, frozen=True, tag="error"):
    """An error, usually harmless."""

    error: ErrorInfo = ErrorInfo()
    code: str | int | None = None
    message: JsonText | None = None
    detail: JsonText | None = None

    @property
    def info(self) -> ErrorInfo:
        """The error, including fields that compatible servers send beside it instead of inside."""
        error = self.error
        return ErrorInfo(
            error.type,
            self.code if error.code is None else error.code,
            error.message or self.message or self.detail,
            error.event_id,
        )


AnyServerEvent: TypeAlias = (
    SessionCreated
    | SessionUpdated
    | ConversationCreated
    | SpeechStarted
    | SpeechStopped
    | AudioCommitted
    | AudioCleared
    | KeyPressed
    | LineStarted
    | LineStopped
    | LineCleared
    | UserDelta
    | UserUpdated
    | UserCompleted
    | UserFailed
    | ItemAdded
    | ItemCreated
    | ResponseCreated
    | ResponseDone
    | OutputItemAdded
    | OutputItemDone
    | AudioDelta
    | BetaAudioDelta
    | TextDelta
    | BetaTextDelta
    | TranscriptDelta
    | BetaTranscriptDelta
    | TextDone
    | BetaTextDone
    | TranscriptDone
    | BetaTranscriptDone
    | ArgumentsDone
    | McpInProgress
    | McpCompleted
    | McpFailed
    | ErrorEvent
)

KNOWN: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyServerEvent))
"""The ``type`` of every event that matters."""

IGNORED: Final = frozenset(
    {
        "conversation.item.deleted",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.segment",
        "conversation.item.retrieved",
        "conversation.item.truncated",
        "input_audio_buffer.timeout_triggered",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "mcp_list_tools.in_progress",
        "ping",
        "rate_limits.updated",
        "response.audio.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.output_audio.done",
    }
)
"""The ``type`` of every documented event that needs no action. The words of a transcription's segments also
arrive in other events, and no frame reports its speakers."""


class _AnyType(msgspec.Struct, frozen=True, gc=False):
    type: str


class Decoded(NamedTuple):
    """A message, and the paths of fields that were mended or left out."""

    event: AnyServerEvent | Unknown | None
    odd: tuple[str, ...] = ()


_ANY: Final = msgspec.json.Decoder(_AnyType)
_KINDS: Final = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyServerEvent)}
_ODD_JSON: Final = ("$",)

decode: Final = msgspec.json.Decoder(AnyServerEvent).decode
"""Decode an event that matters, strictly; raises one of `NOT_STRICT` for anything else. It is a C function
without a Python wrapper, since nearly all messages are audio."""

NOT_STRICT: Final = (msgspec.DecodeError, UnicodeError, RecursionError)


def decode_leniently(text: str) -> Decoded:
    """Decode what `decode` rejects; raise `MalformedMessage` if it is not an event of these protocols."""
    try:
        kind = _ANY.decode(text).type
    except NOT_STRICT:
        return _decode_odd(text)
    if kind in IGNORED:
        return Decoded(None)
    if kind not in KNOWN:
        return Decoded(Unknown(kind, text))
    return _decode_odd(text)


def _decode_odd(text: str) -> Decoded:
    if not text.strip(lenient.BLANK):
        return Decoded(None, _ODD_JSON)
    message = lenient.parse(text)
    kind = _kind(message)
    if kind in IGNORED:
        return Decoded(None, _ODD_JSON)
    if kind not in KNOWN:
        return Decoded(Unknown(kind, mended(text)), _ODD_JSON)
    message, odd = _with_error_object(message)
    fitted = lenient.fit(message, _KINDS[kind])
    return Decoded(fitted.value, odd + fitted.odd or _ODD_JSON)


def _kind(message: dict[str, Any]) -> str:
    kind = message.get("type")
    if kind is None and message.get("error") is not None:
        return "error"  # in the form of HTTP errors
    return mended(kind) if isinstance(kind, str) else "" if kind is None else str(kind)


def _with_error_object(message: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return `message` with an object as its ``error``; any other value becomes the error's message."""
    error = message.get("error")
    if error is None or isinstance(error, dict):
        return message, ()
    return {**message, "error": {"message": error}}, ("error",)


_T = TypeVar("_T")


def dig(value: Any, kind: type[_T], *path: str) -> _T | None:
    """Return the `kind` at `path` inside `value`; None if there is none, or something else is on the way."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value if isinstance(value, kind) else None
