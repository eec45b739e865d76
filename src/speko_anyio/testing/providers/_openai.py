"""A double of OpenAI Realtime (GA)."""

from __future__ import annotations

import copy
import re
from typing import Any, Final

from ._double import ProviderDouble
from ._double_session import Json, Play, Refusal, Request
from ._hearing import Ear
from ._realtime import RealtimeDoubleSession, Response
from ._script import Incomplete

_RATE: Final = 24_000
_EXPIRES_AT: Final = 1_900_000_000
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KEY_PROTOCOL: Final = "openai-insecure-api-key."

_TREE: Final[Json] = {
    "type": None,
    "model": None,
    "instructions": None,
    "output_modalities": None,
    "audio": {
        "input": {
            "format": {"type": None, "rate": None},
            "transcription": dict.fromkeys(("model", "language", "languages", "prompt", "keywords", "delay")),
            "noise_reduction": {"type": None, "strength": None},
            "turn_detection": {
                "type": None,
                "threshold": None,
                "prefix_padding_ms": None,
                "silence_duration_ms": None,
                "create_response": None,
                "interrupt_response": None,
                "idle_timeout_ms": None,
                "eagerness": None,
            },
        },
        "output": {"format": {"type": None, "rate": None}, "voice": None, "speed": None},
    },
    "tools": None,
    "tool_choice": None,
    "max_output_tokens": None,
    "truncation": None,
    "tracing": None,
    "prompt": None,
    "include": None,
    "reasoning": None,
    "parallel_tool_calls": None,
}
"""The fields of ``session.update``; any other field voids the message."""


class OpenAISession(RealtimeDoubleSession):
    """One connection."""

    _voice_is_locked = False

    @property
    def _input_rate(self) -> int:
        return _RATE

    @property
    def _output_rate(self) -> int:
        return _RATE

    @property
    def _writes(self) -> bool:
        return bool(self.config["output_modalities"] == ["text"])

    @property
    def _detection(self) -> Json | None:
        detection: Json | None = self.config["audio"]["input"]["turn_detection"]
        return detection

    def _opened(self) -> None:
        self.config: Json = _defaults(self._id("sess"), self.request.query("model") or "")
        self._listen()
        self._event("session.created", session=copy.deepcopy(self.config))

    def expire(self) -> None:
        text = "Your session hit the maximum duration of 60 minutes."
        self._refuse({}, "session_expired", text)
        self.close(1001, "")

    def _update(self, message: Json) -> None:
        session = message.get("session")
        if not isinstance(session, dict) or session.get("type") != "realtime":
            text = "Missing required parameter: 'session.type'."
            self._refuse(message, "missing_required_parameter", text)
            return
        if (unknown := _unknown(session, _TREE, "session")) is not None:
            self._refuse(message, "unknown_parameter", f"Unknown parameter: '{unknown}'.")
            return
        if session.get("model", self.config["model"]) != self.config["model"]:
            self._refuse(message, "invalid_request_error", "The model of a session can't be changed.")
            return
        merged = _merge(self.config, session)
        for direction in ("input", "output"):
            if merged["audio"][direction]["format"] != {"type": "audio/pcm", "rate": _RATE}:
                text = f"Invalid value: 'session.audio.{direction}.format'. Expected a rate of {_RATE}."
                self._refuse(message, "invalid_value", text)
                return
        voices = [config["audio"]["output"]["voice"] for config in (merged, self.config)]
        if self._voice_is_locked and voices[0] != voices[1]:
            text = "Cannot update a conversation's voice if assistant audio is present."
            self._refuse(message, "cannot_update_voice", text)
            return
        if (problem := _problem(merged)) is not None:
            self._refuse(message, "invalid_value", problem)
            return
        before = self._detection
        self.config = merged
        if self._detection != before:
            self._listen()
        self._event("session.updated", session=copy.deepcopy(self.config))

    def _listen(self) -> None:
        detection = self._detection
        self._ear = None
        if detection is not None:
            # Semantic detection is reduced to waiting longer.
            silence = detection.get("silence_duration_ms") or 500
            self._ear = Ear(_RATE, silence_ms=silence, padding_ms=detection.get("prefix_padding_ms") or 0)

    def _refuse(self, message: Json, code: str, text: str, *, kind: str = "invalid_request_error") -> None:
        error = {"type": kind, "code": code, "message": text, "param": None}
        error["event_id"] = message.get("event_id")
        self.errors.append(error)
        self._event("error", error=error)

    def _transcribe(self, item_id: str, text: str) -> Play:
        if self.config["audio"]["input"]["transcription"] is None:
            return
        yield self._pace.transcription
        place = {"item_id": item_id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        first, space, rest = text.partition(" ")
        for delta in filter(None, (first, space + rest)):
            self._event(f"{kind}.delta", **place, delta=delta)
        usage = {
            "type": "tokens",
            "total_tokens": 20,
            "input_tokens": 15,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 15},
            "output_tokens": 5,
        }
        self._event(f"{kind}.completed", **place, transcript=text, usage=usage)

    def _announce_item(self, item: Json) -> None:
        self._event("conversation.item.added", previous_item_id=self._last_item, item=dict(item))

    def _item_is_done(self, item: Json) -> None:
        self._event("conversation.item.done", previous_item_id=self._last_item, item=dict(item))

    def _talked_over(self, response: Response) -> None:
        self._cut(response)
        self._response_done(response, "cancelled", {"type": "cancelled", "reason": "turn_detected"})

    def _response_done(self, response: Response, status: str, details: Json | None) -> None:
        self._voice_is_locked = self._voice_is_locked or response.audio_ms > 0
        heard, said = self._tokens(response)
        done = self._json_response(response, status, details)
        done["usage"] = {
            "total_tokens": heard + said + 40,
            "input_tokens": heard + 20,
            "output_tokens": said + 20,
            "input_token_details": {
                "text_tokens": 20,
                "audio_tokens": heard,
                "image_tokens": 100 * self._images,
                "cached_tokens": 8,
                "cached_tokens_details": {"text_tokens": 8, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": 20, "audio_tokens": said},
        }
        self._event("response.done", response=done)
        limit = {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 60.0}
        self._event("rate_limits.updated", rate_limits=[limit])

    @property
    def _images(self) -> int:
        """The pictures in the conversation."""
        return sum(part["type"] == "input_image" for item in self.items for part in item.get("content", ()))

    def _metadata(self, request: Json) -> Any:
        return (request.get("response") or {}).get("metadata")


class OpenAIDouble(ProviderDouble[OpenAISession]):
    """Play OpenAI Realtime; see `ProviderDouble`, and `RealtimeDoubleSession` for its sessions."""

    provider = "openai"
    _can = ProviderDouble._can | {Incomplete}
    _session_type = OpenAISession

    def judge(self, request: Request) -> Refusal | None:
        offered = [name for name in request.subprotocols if name.startswith(_KEY_PROTOCOL)]
        given = {f"Bearer {name.removeprefix(_KEY_PROTOCOL)}" for name in offered}
        given.add(request.header("authorization") or "")
        if f"Bearer {self.api_key}" not in given:
            return Refusal(401, "Incorrect API key provided.")
        if not request.query("model"):
            return Refusal(400, "You must provide a model parameter.")
        if request.header("openai-beta"):
            return Refusal(400, "The Realtime Beta API is no longer supported.")
        return None

    def subprotocol(self, request: Request) -> str | None:
        return "realtime" if "realtime" in request.subprotocols else None


_TRANSCRIBERS: Final = {
    "prompt": (
        "gpt-transcribe",
        "gpt-live-transcribe",
        "whisper-1",
        "gpt-4o-transcribe",
        "gpt-4o-mini-transcribe",
    ),
    "keywords": ("gpt-transcribe", "gpt-live-transcribe"),
    "languages": ("gpt-transcribe", "gpt-live-transcribe"),
    "delay": ("gpt-realtime-whisper",),
}
"""The transcription models that accept each field."""


def _defaults(session_id: str, model: str) -> Json:
    audio_format = {"type": "audio/pcm", "rate": _RATE}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "expires_at": _EXPIRES_AT,
        "audio": {
            "input": {
                "format": dict(audio_format),
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 200,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": dict(audio_format), "voice": "alloy", "speed": 1.0},
        },
    }


def _problem(session: Json) -> str | None:
    """Return the invalid value that voids the configuration; None if there is none."""
    transcription = session["audio"]["input"]["transcription"] or {}
    model = transcription.get("model")
    for field in transcription:
        if field in _TRANSCRIBERS and model not in _TRANSCRIBERS[field]:
            return f"{field.capitalize()} is not supported with '{model}'."
    if session["output_modalities"] not in (["audio"], ["text"]):
        return "Invalid modalities: supported combinations are: ['text'] and ['audio']."
    if (
        session.get("truncation") not in ("auto", "disabled", None)
        and not 0 <= session["truncation"].get("retention_ratio", -1) <= 1
    ):
        return "Invalid 'session.truncation.retention_ratio': expected a number from 0 to 1."
    choice = session.get("tool_choice")
    names = {(tool.get("type"), tool.get("name") or tool.get("server_label")) for tool in session["tools"]}
    if isinstance(choice, dict):
        wanted = choice.get("server_label") if choice.get("type") == "mcp" else choice.get("name")
        if (choice.get("type"), wanted) not in names:
            return f"Tool choice '{wanted}' not found in 'session.tools'."
    for position, tool in enumerate(session["tools"]):
        if tool.get("type") == "function" and not _NAME.fullmatch(str(tool.get("name"))):
            return (
                f"Invalid 'session.tools[{position}].name': string does not match pattern. Expected a string "
                "of at most 64 characters that matches the pattern '^[a-zA-Z0-9_-]+$'."
            )
    return None


def _unknown(value: Any, tree: Json | None, path: str) -> str | None:
    """Return the path of the first field of `value` that `tree` has no place for."""
    if tree is None or not isinstance(value, dict):
        return None
    for name, inner in value.items():
        if name not in tree:
            return f"{path}.{name}"
        if (found := _unknown(inner, tree[name], f"{path}.{name}")) is not None:
            return found
    return None


_WHOLE: Final = {"turn_detection", "format", "transcription", "noise_reduction"}
"""Objects that replace what was there; others are merged field by field."""


def _merge(old: Json, new: Json) -> Json:
    merged = copy.deepcopy(old)
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(merged.get(name), dict) and name not in _WHOLE:
            merged[name] = _merge(merged[name], value)
        else:
            merged[name] = copy.deepcopy(value)
    return merged
