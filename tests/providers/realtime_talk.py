"""A realtime dialect made ready for a test: events in as dicts, frames out, and every message checked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

from speko_anyio.protocol import (
    NEED_DATA,
    CloseMessage,
    ConnectionClosed,
    Frame,
    RemoteProtocolError,
)
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.openai import OpenAIDialect, OpenAIOptions
from speko_anyio.providers.realtime import RealtimeDialect
from speko_anyio.providers.xai import XAIDialect, XAIOptions

Event: TypeAlias = dict[str, Any]
DialectT = TypeVar("DialectT", bound=RealtimeDialect)

FIXTURES = Path(__file__).parent / "fixtures"

WEATHER = ToolSpec(
    name="get_weather",
    description="Current weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
OPENAI = SessionConfig(provider="openai", model="gpt-realtime-2.1", voice="marin", tools=(WEATHER,))
XAI = SessionConfig(provider="xai", model="grok-voice-latest", voice="eve", tools=(WEATHER,))


def fixture(name: str) -> list[Event]:
    """The messages of one file."""
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]


# What the providers accept


_CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
_SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def extras(model: object, path: str = "") -> Iterator[str]:
    """The fields that a published model took without knowing them."""
    if isinstance(model, BaseModel):
        for name in model.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(model).model_fields:
            yield from extras(getattr(model, name), f"{path}.{name}")
    elif isinstance(model, list | tuple):
        for value in model:
            yield from extras(value, f"{path}[]")


def check_openai(message: Event) -> None:
    """AssertionError or ValidationError unless OpenAI's published types know all of `message`."""
    event = _CLIENT_EVENT.validate_python(message)
    assert list(extras(event)) == []
    if message["type"] == "session.update":
        assert type(event.session).__name__ == "RealtimeSessionCreateRequest"


def check_openai_server(message: Event) -> None:
    """ValidationError unless OpenAI's published types know `message`."""
    _SERVER_EVENT.validate_python(message)


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """xAI's session schema, as documented; there are no official types of it for Python."""


class _XAIFormat(_Strict, tag_field="type", tag="audio/pcm"):
    rate: int

    def __post_init__(self) -> None:
        assert self.rate in (8000, 16000, 22050, 24000, 32000, 44100, 48000)


class _XAITranscription(_Strict):
    model: str | None = None
    language_hint: str | None = None
    keyterms: list[str] | None = None


class _XAIInput(_Strict):
    format: _XAIFormat
    transport: Literal["json", "binary"] | None = None
    transcription: _XAITranscription | None = None


class _XAIOutput(_Strict):
    format: _XAIFormat
    transport: Literal["json", "binary"] | None = None
    speed: float | None = None


class _XAIAudio(_Strict):
    input: _XAIInput
    output: _XAIOutput


class _XAITurnDetection(_Strict):
    type: str | None
    threshold: float | None = None
    silence_duration_ms: int | None = None
    prefix_padding_ms: int | None = None
    idle_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        assert self.type in ("server_vad", None)


class _XAIResumption(_Strict):
    enabled: bool


class _XAIReasoning(_Strict):
    effort: Literal["high", "none"]


class _XAISession(_Strict):
    turn_detection: _XAITurnDetection | None = None
    audio: _XAIAudio | None = None
    replace: dict[str, str] | None = None
    reasoning: _XAIReasoning | None = None
    instructions: str | None = None
    voice: str | None = None
    tools: list[dict[str, Any]] | None = None
    resumption: _XAIResumption | None = None


class _XAIText(_Strict, tag_field="type", tag="output_text"):
    text: str


class _XAIForcedMessage(_Strict, tag_field="type", tag="force_message"):
    content: list[_XAIText]
    role: Literal["assistant"] = "assistant"


class _XAIUpdate(_Strict, tag_field="type", tag="session.update"):
    session: _XAISession


def check_xai(message: Event) -> None:
    """As `check_openai`: the session by xAI's documentation, all else by the types it shares with OpenAI."""
    if message["type"] == "session.update":
        msgspec.convert(message, _XAIUpdate)
    elif message.get("item", {}).get("type") == "force_message":
        msgspec.convert(message["item"], _XAIForcedMessage)
    else:
        check_openai(message)
        assert "event_id" not in message


# Talking


class Talk(Generic[DialectT]):
    """One dialect and its provider's side of the conversation."""

    def __init__(self, dialect: DialectT, check: Callable[[Event], None]) -> None:
        self.dialect = dialect
        self.check = check
        self.closing: CloseMessage | None = None
        self._now = 0.0

    def hear(self, *events: Event | str) -> list[Frame]:
        """The provider says these; what the dialect makes of them."""
        for event in events:
            self.dialect.receive_message(event if isinstance(event, str) else json.dumps(event))
        return self.frames()

    def frames(self) -> list[Frame]:
        """Everything the dialect has for its caller."""
        frames: list[Frame] = []
        while True:
            try:
                frame = self.dialect.next_event()
            except (ConnectionClosed, RemoteProtocolError):
                return frames
            if frame is NEED_DATA:
                return frames
            frames.append(frame)

    def sent(self) -> list[Event]:
        """What the dialect wants to send; each message is one that the provider takes."""
        messages = []
        for message in self.dialect.messages_to_send():
            if isinstance(message, CloseMessage):
                self.closing = message
                continue
            assert isinstance(message, str)
            assert self.closing is None, "something follows the close"
            event = json.loads(message)
            self.check(event)
            messages.append(event)
        return messages

    def sent_types(self) -> list[str]:
        return [message["type"] for message in self.sent()]

    def wait(self, seconds: float) -> list[Frame]:
        """That much time passes."""
        if self.dialect.next_deadline() is not None:
            self.dialect.handle_timeout(self._now)  # timers count from when they are told the time
        self._now += seconds
        self.dialect.handle_timeout(self._now)
        return self.frames()

    def make_ready(self) -> Talk[DialectT]:
        """The provider accepts the configuration."""
        self.hear({"type": "session.created", "session": {"id": "sess_1"}})
        assert self.sent_types() == ["session.update"]
        assert len(self.hear({"type": "session.updated", "session": {}})) == 1
        return self


def openai(
    options: OpenAIOptions = OpenAIOptions(),  # noqa: B008 - immutable
    config: SessionConfig = OPENAI,
    **parameters: Any,
) -> Talk[RealtimeDialect]:
    return Talk(OpenAIDialect(config, options=options, **parameters), check_openai)


def xai(
    options: XAIOptions = XAIOptions(),  # noqa: B008 - immutable
    config: SessionConfig = XAI,
    **parameters: Any,
) -> Talk[RealtimeDialect]:
    return Talk(XAIDialect(config, options=options, **parameters), check_xai)


MANUAL = OpenAIOptions(turns="manual")
XAI_MANUAL = XAIOptions(turns="manual")


# What providers say


def created(response_id: str, metadata: Any = None) -> Event:
    return {"type": "response.created", "response": {"id": response_id, "metadata": metadata}}


def granted(request: Event, response_id: str) -> Event:
    """The response that our `request` asked for begins."""
    return created(response_id, request["response"]["metadata"])


def done(response_id: str, status: str = "completed", **response: Any) -> Event:
    return {"type": "response.done", "response": {"id": response_id, "status": status, **response}}


def audio(response_id: str, item_id: str, delta: str = "AAABAAIAAwA=") -> Event:
    return {
        "type": "response.output_audio.delta",
        "response_id": response_id,
        "item_id": item_id,
        "content_index": 0,
        "delta": delta,
    }


def speech(response_id: str, item_id: str, ms: int, rate: int = 24_000) -> Event:
    """That many milliseconds of the assistant's audio."""
    return audio(response_id, item_id, base64.b64encode(pcm(ms, rate)).decode())


def words(response_id: str, item_id: str, delta: str) -> Event:
    return {
        "type": "response.output_audio_transcript.delta",
        "response_id": response_id,
        "item_id": item_id,
        "content_index": 0,
        "delta": delta,
    }


def call(response_id: str, call_id: str, status: str = "completed") -> Event:
    return {
        "type": "response.output_item.done",
        "response_id": response_id,
        "item": {
            "id": f"item_{call_id}",
            "type": "function_call",
            "status": status,
            "call_id": call_id,
            "name": "get_weather",
            "arguments": "{}",
        },
    }


def xai_call(response_id: str, call_id: str) -> Event:
    return {
        "type": "response.function_call_arguments.done",
        "response_id": response_id,
        "call_id": call_id,
        "name": "get_weather",
        "arguments": "{}",
    }


def error(code: str | None = None, message: str = "", **fields: Any) -> Event:
    return {"type": "error", "error": {"code": code, "message": message, **fields}}


def refusal(request: Event, active: str) -> Event:
    """Our `request` for a response met another."""
    return error(
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {active}.",
        event_id=request["event_id"],
    )


SPEECH_STARTED: Event = {"type": "input_audio_buffer.speech_started", "item_id": "item_u1"}
SPEECH_STOPPED: Event = {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u1"}
COMMITTED: Event = {"type": "input_audio_buffer.committed", "item_id": "item_u1"}


def pcm(ms: int, rate: int = 24_000) -> bytes:
    return bytes(ms * rate // 1000 * 2)
