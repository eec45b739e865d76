"""The Gemini dialect made ready for a test: messages in as dicts, frames out, and every message checked."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from google.genai import types

from speko_anyio.protocol import NEED_DATA, CloseMessage, ConnectionClosed, Frame, RemoteProtocolError
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.google import GoogleDialect, GoogleOptions
from speko_anyio.providers.google._words import UserWords

Json: TypeAlias = dict[str, Any]

FIXTURES = Path(__file__).parent / "fixtures"
MODEL = "gemini-3.8-live"
WEATHER = ToolSpec(
    name="get_weather",
    description="Current weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
GOOGLE = SessionConfig(provider="google", model=MODEL, tools=(WEATHER,))
MANUAL = GoogleOptions(turns="manual")
READY: Json = {"setupComplete": {}}

_TYPES = {"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT"}


def fixture(name: str) -> list[Json]:
    """The messages of one file."""
    return [json.loads(line) for line in (FIXTURES / f"google-{name}.jsonl").read_text().splitlines()]


# What the provider accepts


def _objects(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def check_schema(schema: Json) -> None:
    """AssertionError where the service refuses what its published type takes."""
    assert not {"additionalProperties", "ref", "defs"} & schema.keys()
    if "anyOf" in schema:
        assert schema.keys() == {"anyOf"}, "the service wants nothing beside it"
        for branch in schema["anyOf"]:
            check_schema(branch)
        return
    assert schema["type"] in _TYPES
    if schema["type"] == "ARRAY":
        check_schema(schema["items"])
    for inner in schema.get("properties", {}).values():
        check_schema(inner)
    if "required" in schema:
        assert schema["type"] == "OBJECT"
        assert set(schema["required"]) <= schema.get("properties", {}).keys()
    if "enum" in schema:
        assert schema["type"] == "STRING"
        assert all(isinstance(value, str) for value in schema["enum"])


def check(message: Json) -> None:
    """AssertionError or ValidationError unless Google's published types know all of `message`."""
    assert len(message) == 1, "a message has one field"
    assert not any(value is None for inner in _objects(message) for value in inner.values())
    if "setup" in message:
        # The published type of the setup lacks this one field.
        setup = dict(message["setup"])
        types.RealtimeInputConfig.model_validate(setup.pop("realtimeInputConfig"))
        message = {"setup": setup}
        for tool in setup.get("tools", ()):
            for function in tool.get("functionDeclarations", ()):
                if "parameters" in function:
                    assert function["parameters"]["properties"]
                    check_schema(function["parameters"])
    for response in message.get("toolResponse", {}).get("functionResponses", ()):
        assert response["name"]
        assert isinstance(response["response"], dict)
        assert response.keys() <= {"id", "name", "response", "scheduling"}
    for turn in message.get("clientContent", {}).get("turns", ()):
        assert turn["role"] in ("user", "model", "system")
        assert turn["parts"]
    types.LiveClientMessage.model_validate(message)


def check_server(message: Json) -> None:
    """ValidationError unless Google's published types know `message`."""
    types.LiveServerMessage.model_validate(message)


# What is said


def content(**fields: Any) -> Json:
    return {"serverContent": fields}


def speech(pcm: bytes, mime_type: str | None = "audio/pcm;rate=24000") -> Json:
    blob = {"data": base64.b64encode(pcm).decode()}
    if mime_type is not None:
        blob["mimeType"] = mime_type
    return content(modelTurn={"role": "model", "parts": [{"inlineData": blob}]})


def said(text: str, **more: Any) -> Json:
    return content(outputTranscription={"text": text, **more})


def heard(text: str, **more: Any) -> Json:
    return content(inputTranscription={"text": text, **more})


def call(*calls: tuple[str | None, Json | None], name: str = "get_weather") -> Json:
    made = []
    for call_id, args in calls:
        one: Json = {"name": name}
        if call_id is not None:
            one["id"] = call_id
        if args is not None:
            one["args"] = args
        made.append(one)
    return {"toolCall": {"functionCalls": made}}


def usage(prompt: int, response: int) -> Json:
    return {
        "usageMetadata": {
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": prompt}],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": response}],
        }
    }


INTERRUPTED = content(interrupted=True)
COMPLETE = content(turnComplete=True)
GENERATED = content(generationComplete=True)
START: Json = {"realtimeInput": {"activityStart": {}}}
END: Json = {"realtimeInput": {"activityEnd": {}}}
STREAM_END: Json = {"realtimeInput": {"audioStreamEnd": True}}


def frames(dialect: GoogleDialect) -> list[Frame]:
    """All that waits."""
    found: list[Frame] = []
    try:
        while (event := dialect.next_event()) is not NEED_DATA:
            found.append(event)
    except (ConnectionClosed, RemoteProtocolError):
        pass  # after the end, which is among the frames
    return found


def pcm_of(message: Json) -> bytes:
    """The audio in a message of ours."""
    return base64.b64decode(message["realtimeInput"]["audio"]["data"])


def is_audio(message: Json) -> bool:
    return "audio" in message.get("realtimeInput", {})


class Talk:
    """A dialect and what goes in and out of it."""

    def __init__(self, config: SessionConfig = GOOGLE, *, ready: bool = True, **parameters: Any) -> None:
        self.dialect = GoogleDialect(config, **parameters)
        self.close: CloseMessage | None = None
        self.now = 0.0
        self.setup: Json = {}
        if ready:
            [message] = self.sent()
            self.setup = message["setup"]
            self.hear(READY)

    def hear(self, *messages: Json) -> list[Frame]:
        """The provider says these, as it does: JSON in binary messages."""
        for message in messages:
            self.dialect.receive_message(json.dumps(message).encode())
        return frames(self.dialect)

    def wait(self, seconds: float) -> list[Frame]:
        """That much time passes, and every deadline in it; what comes of it."""
        self.dialect.handle_timeout(self.now)
        end = self.now + seconds
        while (deadline := self.dialect.next_deadline()) is not None and deadline <= end:
            self.now = deadline
            self.dialect.handle_timeout(deadline)
        self.now = end
        return frames(self.dialect)

    def sent(self) -> list[Json]:
        """What we say, checked."""
        found = []
        for message in self.dialect.messages_to_send():
            if isinstance(message, CloseMessage):
                assert self.close is None
                self.close = message
                continue
            assert self.close is None, "nothing follows the close"
            assert isinstance(message, str)
            found.append(json.loads(message))
            check(found[-1])
        return found


class Surroundings:
    """What a part is given: where frames go, and timers, of which the running ones are kept."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self.timers: dict[str, float] = {}

    def emit(self, frame: Frame | None) -> None:
        if frame is not None:
            self._frames.append(frame)

    def start(self, name: str, seconds: float) -> None:
        self.timers[name] = seconds

    def stop(self, name: str) -> None:
        self.timers.pop(name, None)

    def user_words(self) -> UserWords:
        return UserWords(self.emit, self.start, self.stop)

    def frames(self) -> list[Frame]:
        taken, self._frames = self._frames, []
        return taken
