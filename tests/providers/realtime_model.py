"""A provider of realtime sessions in memory: what one does by its documentation, and its bad habits.

It acts on a message when that is delivered to it, and what it says waits until that is delivered: everything
between the two is a race, and whoever drives the model decides how each one ends.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from .realtime_talk import Event, call, done, error, words, xai_call

SAMPLES_PER_MS = 24


@dataclass
class Habits:
    """What this provider does that another does not."""

    xai: bool
    """Names no request in its errors, never ends a response that is talked over."""
    auto: bool
    echoes: bool
    """Gives the metadata of a request back."""


@dataclass
class Answer:
    """A response."""

    number: int
    metadata: Any
    calls: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"r{self.number}"

    @property
    def item(self) -> str:
        return f"a{self.number}"


class Provider:
    """The model of a session, as the module describes. `said` is what waits for delivery to the client."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.said: list[Event] = []
        self.active: Answer | None = None
        self.ended: list[Event] = []
        """The ends of responses, for saying them again."""
        self.answers = 0
        self.calls: dict[str, bool] = {}
        """Calls made, and whether their result came."""
        self.ended_by_speech: list[Answer] = []
        self.speaking = False
        self.buffered_ms = 0.0
        self.generated_ms: dict[str, float] = {}
        self.step = 0
        self.last_result = 0
        """When the last result of a tool came."""
        self.last_question = 0
        """When the last text came that is to be answered."""
        self.last_answer = 0
        """When the last response began."""

    # Messages from the client

    def receive(self, message: Event) -> None:
        self.step += 1
        name = message.get("event_id")
        match message["type"]:
            case "session.update":
                self._configure(message["session"])
            case "input_audio_buffer.append":
                self.buffered_ms += len(base64.b64decode(message["audio"])) / 2 / SAMPLES_PER_MS
            case "input_audio_buffer.clear":
                self.buffered_ms, self.speaking = 0, False
                self.said.append({"type": "input_audio_buffer.cleared"})
            case "input_audio_buffer.commit":
                if self.buffered_ms < 100:
                    self._refuse("input_audio_buffer_commit_empty", "buffer too small", name)
                else:
                    self._commit()
            case "response.create":
                if self.active is not None:
                    self._refuse_another(name)
                else:
                    metadata = message.get("response", {}).get("metadata")
                    if self.habits.xai:
                        metadata = {}
                    self.begin(metadata if self.habits.echoes else None)
            case "response.cancel":
                if self.active is None or message.get("response_id") not in (None, self.active.id):
                    self._refuse("response_cancel_not_active", "no active response found", name)
                else:
                    self.end("cancelled")
            case "conversation.item.truncate":
                sent = self.generated_ms[message["item_id"]]
                assert message["audio_end_ms"] <= sent, "truncated beyond what was generated"
                self.said.append({"type": "conversation.item.truncated", "item_id": message["item_id"]})
            case "conversation.item.delete":
                assert message["item_id"] in self.generated_ms
                self.said.append({"type": "conversation.item.deleted", "item_id": message["item_id"]})
            case "conversation.item.create" if message["item"]["type"] == "message":
                # A picture has no text.
                if message["item"]["content"][0].get("text", "").startswith("question"):
                    self.last_question = self.step
                self.said.append({"type": "conversation.item.added", "item": message["item"]})
            case "conversation.item.create" if message["item"]["type"] == "force_message":
                assert self.habits.xai
                if self.active is not None:
                    self._refuse_another(name)
                else:
                    self.begin()
            case "conversation.item.create":
                call_id = message["item"]["call_id"]
                assert self.calls[call_id] is False, "a result came twice"
                self.calls[call_id] = True
                self.last_result = self.step
                self.said.append({"type": "conversation.item.added", "item": message["item"]})
            case other:
                raise AssertionError(other)

    def _refuse(self, code: str, message: str, event_id: str | None) -> None:
        if self.habits.xai:
            self.said.append(error(None, message, type="invalid_request_error"))
        else:
            self.said.append(error(code, message, event_id=event_id))

    def _refuse_another(self, event_id: str | None) -> None:
        assert self.active is not None
        text = f"Conversation already has an active response in progress: {self.active.id}."
        self._refuse("conversation_already_has_active_response", text, event_id)

    def _configure(self, session: Event) -> None:
        """Take a configuration, or a change of it: of the ends of turns, too."""
        detection = session if self.habits.xai else session.get("audio", {}).get("input", {})
        if "turn_detection" in detection:
            self.habits.auto = (detection["turn_detection"] or {"type": None})["type"] is not None
            self.speaking = self.speaking and self.habits.auto
        self.said.append({"type": "session.updated", "session": {}})

    def _commit(self) -> None:
        self.buffered_ms, self.speaking = 0, False
        self.said.append({"type": "input_audio_buffer.committed", "item_id": "u"})

    # What it does by itself

    def begin(self, metadata: Any = None, *, silently: bool = False) -> None:
        assert self.active is None
        self.step += 1
        self.answers += 1
        self.last_answer = self.step
        self.active = Answer(self.answers, metadata)
        if not silently:
            response = {"id": self.active.id, "metadata": metadata}
            self.said.append({"type": "response.created", "response": response})

    def speak(self, ms: int) -> None:
        assert self.active is not None
        samples = self.active.number.to_bytes(2, "little") * (ms * SAMPLES_PER_MS)
        delta = base64.b64encode(samples).decode()
        answer = self.active
        self.generated_ms[answer.item] = self.generated_ms.get(answer.item, 0) + ms
        self.said.append(words(answer.id, answer.item, f"{answer.item} "))
        self.said.append(
            {
                "type": "response.output_audio.delta",
                "response_id": answer.id,
                "item_id": answer.item,
                "delta": delta,
            }
        )

    def call(self) -> None:
        assert self.active is not None
        call_id = f"c{len(self.calls)}"
        self.calls[call_id] = False
        self.active.calls.append(call_id)
        make = xai_call if self.habits.xai else call
        self.said.append(make(self.active.id, call_id))

    def end(self, status: str, *, silently: bool = False, **details: Any) -> None:
        assert self.active is not None
        usage = {"input_token_details": {"audio_tokens": 1}, "output_token_details": {"audio_tokens": 0}}
        event = done(self.active.id, status, usage=usage, metadata=self.active.metadata, **details)
        self.ended.append(event)
        if not silently:
            self.said.append(event)
        self.active = None

    def speech_starts(self) -> None:
        self.step += 1
        self.speaking = True
        self.said.append({"type": "input_audio_buffer.speech_started", "item_id": "u"})
        if self.active is not None:
            self.end(
                "cancelled",
                silently=self.habits.xai,
                status_details={"type": "cancelled", "reason": "turn_detected"},
            )

    def speech_stops(self) -> None:
        self.step += 1
        self.said.append({"type": "input_audio_buffer.speech_stopped", "item_id": "u"})
        self._commit()
        if self.active is None:
            self.begin()
