"""The server's side of what OpenAI Realtime and xAI Grok Voice have in common: turns, responses, items."""

from __future__ import annotations

import abc
import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from ...audio._pcm import SAMPLE_BYTES
from ...providers._provider import SAY_EXACTLY
from ._double_session import DoubleSession, Json, Play, Replies, Request, pieces
from ._hearing import Ear, tone
from ._script import (
    CallTools,
    Fail,
    Incomplete,
    Pace,
    RateLimit,
    Reply,
    ReplyStep,
    RunTool,
    Say,
    Silent,
    steps,
)

_CONTENT: Final = {
    "user": ("input_text", "input_image"),
    "system": ("input_text",),
    "assistant": ("output_text",),
}
"""The content that each role's items may have; audio can't be added this way."""

_IMAGE: Final = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*")

_LEAST_COMMIT_MS: Final = 100


@dataclass
class Item:
    """An item of the assistant that the client may refer to."""

    id: str
    json: Json
    audio_ms: float = 0.0


@dataclass
class Response:
    """The response in flight."""

    id: str
    metadata: Any
    items: list[Item] = field(default_factory=list)
    play: Play | None = None

    @property
    def audio_ms(self) -> float:
        """Milliseconds of audio generated so far."""
        return sum(item.audio_ms for item in self.items)


class RealtimeDoubleSession(DoubleSession, abc.ABC):
    """A connection of OpenAI's or xAI's double. Further attributes for assertions:

    - `config`: the session as the client configured it.
    - `items`: every item that the client added, and every text that it had said, as it sent them.
    - `requests`: the parameters of every response that the client requested and got.
    - `truncations`: every accepted ``conversation.item.truncate``: the item and its new end in ms.
    - `results`: the client's result of each tool call, by its id.
    - `errors`: the ``error`` events that were sent, their inner objects.
    """

    _audio_content: ClassVar[str] = "output_audio"
    """The type of the assistant's content in an item."""

    def __init__(self, request: Request, script: Replies, pace: Pace) -> None:
        super().__init__(request, script, pace)
        self.config: Json = {}
        self.items: list[Json] = []
        self.requests: list[Json] = []
        self.truncations: list[tuple[str, int]] = []
        self.results: dict[str, str] = {}
        self.errors: list[Json] = []
        self.response: Response | None = None
        self._ear: Ear | None = None
        self._buffered = 0  # bytes since the last commit or clear
        self._heard = 0  # bytes that the next response is billed for
        self._user_item = ""
        self._last_item: str | None = None
        self._items: dict[str, Item] = {}
        self._calls: set[str] = set()
        self._handlers: dict[str, Callable[[Json], None]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit_asked,
            "input_audio_buffer.clear": self._clear,
            "response.create": self._response_asked,
            "response.cancel": self._cancel_asked,
            "conversation.item.create": self._create_item,
            "conversation.item.truncate": self._truncate,
            "conversation.item.delete": self._delete,
        }

    # Differences between the providers

    @property
    @abc.abstractmethod
    def _input_rate(self) -> int: ...
    @property
    @abc.abstractmethod
    def _output_rate(self) -> int: ...
    @property
    @abc.abstractmethod
    def _detection(self) -> Json | None:
        """The turn detection in force; None: turns are manual."""

    @abc.abstractmethod
    def _update(self, message: Json) -> None:
        """Apply ``session.update``."""

    @abc.abstractmethod
    def _refuse(self, message: Json, code: str, text: str, *, kind: str = "invalid_request_error") -> None:
        """Answer `message` with an error."""

    @abc.abstractmethod
    def _transcribe(self, item_id: str, text: str) -> Play:
        """Transcribe the user's turn."""

    @abc.abstractmethod
    def _announce_item(self, item: Json) -> None:
        """Announce another item."""

    @abc.abstractmethod
    def _item_is_done(self, item: Json) -> None:
        """Note a complete item."""

    @abc.abstractmethod
    def _talked_over(self, response: Response) -> None:
        """Stop `response`, since the user spoke while it was generated."""

    @abc.abstractmethod
    def _response_done(self, response: Response, status: str, details: Json | None) -> None:
        """Announce that `response` is over."""

    @abc.abstractmethod
    def _metadata(self, request: Json) -> Any:
        """Return the metadata of the client's request for a response."""

    @property
    def _writes(self) -> bool:
        """Whether the assistant writes instead of speaking."""
        return False

    def _find_item_problem(self, item: Json) -> tuple[str, str] | None:
        """Return the error code and message for an item that is refused; None for any other."""
        kind, role, content = item.get("type"), item.get("role"), item.get("content")
        if kind != "message":
            return (
                None if kind == "mcp_approval_response" else ("invalid_value", "Invalid value: 'item.type'.")
            )
        if role not in _CONTENT or not isinstance(content, list) or not content:
            return "invalid_value", "Invalid value: 'item.role' or 'item.content'."
        for part in content:
            if part.get("type") not in _CONTENT[role]:
                kinds = " and ".join(_CONTENT[role])
                return "invalid_value", f"Invalid value: '{part.get('type')}'. Supported values are: {kinds}."
            if part["type"] != "input_image" and not part.get("text"):
                return "missing_required_parameter", "Missing required parameter: 'item.content[0].text'."
            if part["type"] == "input_image" and not _IMAGE.fullmatch(str(part.get("image_url"))):
                return "invalid_value", "Invalid 'image_url'. Expected a data URL of a PNG or JPEG image."
        return None

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._script.number(kind)}"

    def _event(self, kind: str, **fields: Any) -> None:
        self._send({"type": kind, "event_id": self._id("event"), **fields})

    # Messages from the client

    def _receive(self, message: Json) -> None:
        handler = self._handlers.get(str(message.get("type")))
        if handler is None:
            self._refuse(message, "invalid_value", f"Invalid value: '{message.get('type')}'.")
        else:
            handler(message)

    def _receive_nonsense(self) -> None:
        self._refuse({}, "invalid_json", "The message is not a JSON object.")

    def _append(self, message: Json) -> None:
        try:
            pcm = base64.b64decode(message["audio"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            self._refuse(message, "invalid_value", "Invalid 'audio'. Expected base64-encoded audio bytes.")
            return
        self._take_audio(pcm)

    def _take_audio(self, pcm: bytes) -> None:
        self.audio.extend(pcm)
        self._buffered += len(pcm)
        for turn in self._ear.hear(pcm) if self._ear is not None else ():
            if turn.started:
                self._speech_started(turn.at_ms)
            else:
                self._speech_stopped(turn.at_ms)

    def _speech_started(self, at_ms: int) -> None:
        self._user_item = self._id("item")
        self._event("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=self._user_item)
        response = self.response
        if response is not None and (self._detection or {}).get("interrupt_response", True):
            self._stop(response.play)
            self.response = None
            self._talked_over(response)

    def _speech_stopped(self, at_ms: int) -> None:
        self._event("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=self._user_item)
        self._commit(self._user_item)
        if self.response is None and (self._detection or {}).get("create_response", True):
            self._respond(None)

    def _commit_asked(self, message: Json) -> None:
        milliseconds = self._buffered * 1000 / (self._input_rate * SAMPLE_BYTES)
        if milliseconds < _LEAST_COMMIT_MS:
            self._refuse(
                message,
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {milliseconds:.2f}ms of audio.",
            )
            return
        speaking = self._ear is not None and self._ear.speaking
        self._commit(self._user_item if speaking else self._id("item"))

    def _commit(self, item_id: str) -> None:
        self._heard += self._buffered
        self._buffered = 0
        if self._ear is not None:
            self._ear.forget()
        self._event("input_audio_buffer.committed", previous_item_id=self._last_item, item_id=item_id)
        item = self._json_item(
            item_id,
            type="message",
            status="completed",
            role="user",
            content=[{"type": "input_audio", "transcript": None}],
        )
        self._announce_item(item)
        self._item_is_done(item)
        self._last_item = item_id
        self._begin(self._transcribe(item_id, self._script.next_words()))

    def _clear(self, message: Json) -> None:
        self._buffered = 0
        if self._ear is not None:
            self._ear.forget()
        self._event("input_audio_buffer.cleared")

    def _response_asked(self, message: Json) -> None:
        if self.response is not None:
            self._refuse(
                message,
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self.response.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        else:
            params = message.get("response") or {}
            self.requests.append(params)
            # The model follows the instruction of `say`.
            _, told, text = str(params.get("instructions") or "").partition(SAY_EXACTLY)
            self._respond(self._metadata(message), Say(text, 0.05 * len(text)) if told else None)

    def _cancel_asked(self, message: Json) -> None:
        response = self.response
        if response is None or message.get("response_id", response.id) != response.id:
            text = "Cancellation failed: no active response found"
            self._refuse(message, "response_cancel_not_active", text)
            return
        self._stop(response.play)
        self.response = None
        self._cut(response)
        self._response_done(response, "cancelled", {"type": "cancelled", "reason": "client_cancelled"})

    def _create_item(self, message: Json) -> None:
        item = message.get("item")
        if not isinstance(item, dict):
            self._refuse(message, "missing_required_parameter", "Missing required parameter: 'item'.")
        elif item.get("type") != "function_call_output":
            problem = self._find_item_problem(item)
            if problem is not None:
                self._refuse(message, *problem)
            else:
                self.items.append(item)
                self._add_item(item)
        elif not isinstance(item.get("output"), str):
            self._refuse(message, "invalid_type", "Invalid type for 'item.output': expected a string.")
        elif item.get("call_id") not in self._calls:
            self._refuse(
                message,
                "item_create_invalid_call_id",
                f"Tool call ID '{item.get('call_id')}' not found in conversation.",
            )
        elif item["call_id"] in self.results:
            self._refuse(message, "item_create_duplicate_output", "The tool call has its output already.")
        else:
            self.results[item["call_id"]] = item["output"]
            self._add_item(item)

    def _add_item(self, item: Json) -> None:
        fields = {name: value for name, value in item.items() if name != "id"}
        whole = self._json_item(item.get("id") or self._id("item"), status="completed", **fields)
        self._announce_item(whole)
        self._item_is_done(whole)
        self._last_item = whole["id"]

    def _truncate(self, message: Json) -> None:
        item_id, end = message.get("item_id"), message.get("audio_end_ms")
        item = self._items.get(str(item_id))
        if item is None:
            text = f"Error truncating item: the item with id '{item_id}' does not exist."
            self._refuse(message, "item_truncate_invalid_item_id", text)
        elif item.json["type"] != "message":
            text = "Only model output audio messages can be truncated"
            self._refuse(message, "invalid_value", text)
        elif not isinstance(end, int) or end < 0:
            self._refuse(message, "invalid_type", "Invalid type for 'audio_end_ms': expected an integer.")
        elif end > item.audio_ms:
            text = f"Audio content of {item.audio_ms:.0f}ms is already shorter than {end}ms"
            self._refuse(message, "invalid_value", text)
        else:
            item.audio_ms = end
            self.truncations.append((item.id, end))
            self._event("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=end)

    def _delete(self, message: Json) -> None:
        item_id = str(message.get("item_id"))
        if self._items.pop(item_id, None) is None:
            text = f"Error deleting item: the item with id '{item_id}' does not exist."
            self._refuse(message, "item_delete_invalid_item_id", text)
        else:
            self._event("conversation.item.deleted", item_id=item_id)

    # Responses

    def _respond(self, metadata: Any, reply: Reply | None = None) -> None:
        """Begin a response: the next of the script, or `reply`."""
        reply_steps = self._script.next_reply() if reply is None else steps(reply)
        if any(isinstance(step, Silent) for step in reply_steps):
            return
        response = self.response = Response(self._id("resp"), metadata)
        response.play = self._answer(response, reply_steps)
        self._begin(response.play)

    def _answer(self, response: Response, reply: tuple[ReplyStep, ...]) -> Play:
        if self._pace.latency:
            yield self._pace.latency
        self._event("response.created", response=self._json_response(response, "in_progress", None))
        status, details = "completed", None
        for step in reply:
            match step:
                case Say() if self._writes:
                    yield from self._write(response, step)
                case Say():
                    yield from self._say(response, step)
                case CallTools(calls=calls):
                    for name, arguments in calls:
                        self._call(response, name, arguments)
                case RunTool():
                    self._run_tool(response, step)
                case Fail(code=code, message=text):
                    status, details = "failed", _failure(code or "server_error", text)
                case RateLimit():
                    status, details = "failed", _failure("rate_limit_exceeded", "Rate limit reached.")
                case Incomplete(reason=reason):
                    status, details = "incomplete", {"type": "incomplete", "reason": reason}
                case _:
                    yield from self._play_common(step)
            if status != "completed":
                break
        self.response = None
        self._response_done(response, status, details)
        self._heard = 0

    def _say(self, response: Response, step: Say) -> Play:
        item = self._new_item(response, type="message", role="assistant", content=[])
        index = len(response.items) - 1
        place = {"response_id": response.id, "item_id": item.id, "output_index": index, "content_index": 0}
        self._event("response.content_part.added", **place, part={"type": "audio", "transcript": ""})
        pcm = tone(step.seconds, self._output_rate)
        size = round(self._pace.chunk * self._output_rate) * SAMPLE_BYTES
        chunks = [pcm[start : start + size] for start in range(0, len(pcm), size)]
        # Words come ahead of the audio.
        words = pieces(step.text, -(-len(chunks) // 2))
        for index, chunk in enumerate(chunks):
            if index < len(words):
                self._event("response.output_audio_transcript.delta", **place, delta=words[index])
            self._speak(chunk, place)
            seconds = len(chunk) / (self._output_rate * SAMPLE_BYTES)
            item.audio_ms += seconds * 1000
            yield seconds / self._pace.speed
        for word in words[len(chunks) :]:
            self._event("response.output_audio_transcript.delta", **place, delta=word)
        self._event("response.output_audio.done", **place)
        self._event("response.output_audio_transcript.done", **place, transcript=step.text)
        part = {"type": "audio", "transcript": step.text}
        self._event("response.content_part.done", **place, part=part)
        item.json["content"] = [{"type": self._audio_content, "transcript": step.text}]
        self._finish_item(response, item, "completed")

    def _speak(self, pcm: bytes, place: Json) -> None:
        """Send a piece of the assistant's audio."""
        self._event("response.output_audio.delta", **place, delta=base64.b64encode(pcm).decode())

    def _write(self, response: Response, step: Say) -> Play:
        """As `_say`, but in text."""
        item = self._new_item(response, type="message", role="assistant", content=[])
        index = len(response.items) - 1
        place = {"response_id": response.id, "item_id": item.id, "output_index": index, "content_index": 0}
        self._event("response.content_part.added", **place, part={"type": "text", "text": ""})
        for piece in pieces(step.text, 4):
            self._event("response.output_text.delta", **place, delta=piece)
            yield step.seconds / 4 / self._pace.speed
        self._event("response.output_text.done", **place, text=step.text)
        self._event("response.content_part.done", **place, part={"type": "text", "text": step.text})
        item.json["content"] = [{"type": "output_text", "text": step.text}]
        self._finish_item(response, item, "completed")

    def _call(self, response: Response, name: str, arguments: Mapping[str, Any]) -> None:
        call_id = self._id("call")
        self._calls.add(call_id)
        item = self._new_item(response, type="function_call", name=name, call_id=call_id, arguments="")
        place = {"response_id": response.id, "item_id": item.id, "output_index": len(response.items) - 1}
        text = json.dumps(arguments)
        self._event("response.function_call_arguments.delta", **place, call_id=call_id, delta=text)
        self._event(
            "response.function_call_arguments.done", **place, call_id=call_id, name=name, arguments=text
        )
        item.json["arguments"] = text
        self._finish_item(response, item, "completed")

    def _run_tool(self, response: Response, step: RunTool) -> None:
        item = self._new_item(
            response, type="mcp_call", server_label="double", name=step.name, arguments="{}"
        )
        place = {"output_index": len(response.items) - 1, "item_id": item.id}
        self._event("response.mcp_call.in_progress", **place)
        self._event(f"response.mcp_call.{'failed' if step.failed else 'completed'}", **place)
        self._finish_item(response, item, "completed")

    def _new_item(self, response: Response, **fields: Any) -> Item:
        item_id = self._id("item")
        item = Item(item_id, self._json_item(item_id, status="in_progress", **fields))
        response.items.append(item)
        self._items[item_id] = item
        index = len(response.items) - 1
        self._event(
            "response.output_item.added", response_id=response.id, output_index=index, item=dict(item.json)
        )
        self._announce_item(item.json)
        self._last_item = item_id
        return item

    def _finish_item(self, response: Response, item: Item, status: str) -> None:
        if "status" in item.json:
            item.json["status"] = status
        self._item_is_done(item.json)
        index = response.items.index(item)
        self._event(
            "response.output_item.done", response_id=response.id, output_index=index, item=dict(item.json)
        )

    def _cut(self, response: Response) -> None:
        """Cut off the item that is being generated."""
        if response.items and response.items[-1].json.get("status") == "in_progress":
            self._finish_item(response, response.items[-1], "incomplete")

    def _json_item(self, item_id: str, **fields: Any) -> Json:
        if fields["type"] == "mcp_call":
            del fields["status"]  # has none
        return {"id": item_id, "object": "realtime.item", **fields}

    def _json_response(self, response: Response, status: str, details: Json | None) -> Json:
        return {
            "object": "realtime.response",
            "id": response.id,
            "status": status,
            "status_details": details,
            "output": [dict(item.json) for item in response.items] if status != "in_progress" else [],
            "conversation_id": "conv_1",
            "output_modalities": ["text" if self._writes else "audio"],
            "usage": None,
            "metadata": response.metadata,
        }

    def _tokens(self, response: Response) -> tuple[int, int]:
        """Return tokens of audio, in and out: about 10 and 20 a second, as OpenAI counts."""
        return self._heard * 10 // (self._input_rate * SAMPLE_BYTES), round(response.audio_ms / 50)


def _failure(code: str, message: str) -> Json:
    return {"type": "failed", "error": {"type": code, "code": code, "message": message}}
