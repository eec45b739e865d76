"""A double of OpenAI Realtime (GA)."""

from __future__ import annotations

import base64
import copy
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from ..._net.http import Answer
from ...audio._pcm import SAMPLE_BYTES
from ._double import ProviderDouble
from ._double_session import Json, Play, Refusal, Replies, Request
from ._hearing import Ear
from ._phone_call import PhoneCall
from ._realtime import RealtimeDoubleSession, Response
from ._script import Incomplete, Pace

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
    """One connection. Further attributes for assertions:

    - `call`: the phone call that it joined, if it did; then no audio passes the connection.
    """

    _voice_is_locked = False

    def __init__(self, request: Request, script: Replies, pace: Pace) -> None:
        super().__init__(request, script, pace)
        self.call: PhoneCall | None = None
        self._line_response: str | None = None  # whose audio the phone line plays
        self._line_ends = 0.0
        self._handlers["output_audio_buffer.clear"] = self._line_clear_asked

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
        if self.call is not None:
            for direction in ("input", "output"):
                self.config["audio"][direction]["format"] = {"type": "audio/pcmu"}
            self.config = _merge(self.config, self.call.config)
            self.call.joined(self)
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
        if (unknown := unknown_field(session)) is not None:
            self._refuse(message, "unknown_parameter", f"Unknown parameter: '{unknown}'.")
            return
        if session.get("model", self.config["model"]) != self.config["model"]:
            self._refuse(message, "invalid_request_error", "The model of a session can't be changed.")
            return
        merged = _merge(self.config, session)
        for direction in ("input", "output"):
            if merged["audio"][direction]["format"] != self.config["audio"][direction]["format"]:
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

    # A phone line

    def press(self, key: str) -> None:
        """Tell of a key that the caller pressed."""
        kind = "input_audio_buffer.dtmf_event_received"
        self.send({"type": kind, "event": key, "received_at": int(self._now)})

    def hear_line(self, pcm: bytes) -> None:
        """Take audio of the caller, PCM16 mono at 24 kHz."""
        self._take_audio(pcm)
        self.on_output()

    def _append(self, message: Json) -> None:
        if self.call is None:
            super()._append(message)
        else:
            self._refuse(message, "invalid_value", "The audio of a call can't be appended.")

    def _speak(self, pcm: bytes, place: Json) -> None:
        if self.call is None:
            super()._speak(pcm, place)
            return
        if self._line_response is None:
            self._line_response = place["response_id"]
            self._line_ends = self._now
            self._event("output_audio_buffer.started", response_id=self._line_response)
        self._line_ends = max(self._line_ends, self._now) + len(pcm) / (_RATE * SAMPLE_BYTES)

    def _line_drains(self) -> Play:
        playing = self._line_response
        while self._line_response == playing and (left := self._line_ends - self._now) > 0:
            yield left
        if playing is not None and self._line_response == playing:
            self._line_response = None
            self._event("output_audio_buffer.stopped", response_id=playing)

    def _line_cleared(self) -> None:
        playing, self._line_response = self._line_response, None
        if playing is not None:
            self._event("output_audio_buffer.cleared", response_id=playing)

    def _line_clear_asked(self, message: Json) -> None:
        if self.call is None:
            self._refuse(message, "invalid_value", "output_audio_buffer.clear is for WebRTC and SIP only.")
        else:
            self._line_cleared()

    def _speech_started(self, at_ms: int) -> None:
        super()._speech_started(at_ms)
        if (self._detection or {}).get("interrupt_response", True):
            self._line_cleared()

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
        if self._line_response is not None:
            self._begin(self._line_drains())
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
    webhook_secret: ClassVar[str] = "whsec_" + base64.b64encode(b"the double's webhooks").decode()
    """Signs the webhooks of calls."""

    @functools.cached_property
    def calls(self) -> dict[str, PhoneCall]:
        """All phone calls so far, by their ids."""
        return {}

    def ring(self, *, caller: str = "+15550100", called: str = "+15550199") -> PhoneCall:
        """Let a phone call come in over SIP, which `PhoneCall.webhook` announces."""
        call_id = f"rtc_{len(self.calls) + 1}"
        self.calls[call_id] = PhoneCall(call_id, caller=caller, called=called, secret=self.webhook_secret)
        return self.calls[call_id]

    def open(self, request: Request, now: float = 0.0) -> OpenAISession:
        session = OpenAISession(request, self._script, self._pace)
        session.call = self.calls.get(request.query("call_id") or "")
        self.sessions.append(session)
        session.start(now)
        return session

    def answer_post(self, request: Request, body: bytes) -> Answer:
        found = _CALL.search(request.path)
        if found is None:
            return super().answer_post(request, body)
        if request.header("authorization") != f"Bearer {self.api_key}":
            return _error(401, "invalid_api_key", "Incorrect API key provided.")
        call = self.calls.get(unquote(found[1]))
        if call is None:
            return _error(404, "call_not_found", "No call was found with this id.")
        try:
            asked = json.loads(body or b"{}")
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return _error(400, "invalid_json", "The body is not a JSON object.")
        if found[2] == "accept" and (refusal := _accept_problem(asked)) is not None:
            return _error(400, *refusal)
        refused = call.act(found[2], asked)
        return Answer(200, {}, b"") if refused is None else _error(*refused)

    async def request(
        self, method: str, url: str, *, content: bytes, headers: Mapping[str, str], **_options: Any
    ) -> Answer:
        """Answer as `answer_post`: the double is the ``http_client`` of an account in memory."""
        parts = urlsplit(url)
        target = urlunsplit(("", "", parts.path, parts.query, ""))
        return self.answer_post(Request(target, tuple(headers.items())), content)

    def judge(self, request: Request) -> Refusal | None:
        offered = [name for name in request.subprotocols if name.startswith(_KEY_PROTOCOL)]
        given = {f"Bearer {name.removeprefix(_KEY_PROTOCOL)}" for name in offered}
        given.add(request.header("authorization") or "")
        if f"Bearer {self.api_key}" not in given:
            return Refusal(401, "Incorrect API key provided.")
        if (call_id := request.query("call_id")) is not None:
            call = self.calls.get(call_id)
            answered = call is not None and call.state == "answered"
            return None if answered else Refusal(404, "No active call was found with this id.")
        if not request.query("model"):
            return Refusal(400, "You must provide a model parameter.")
        if request.header("openai-beta"):
            return Refusal(400, "The Realtime Beta API is no longer supported.")
        return None

    def subprotocol(self, request: Request) -> str | None:
        return "realtime" if "realtime" in request.subprotocols else None


_CALL: Final = re.compile(r"/calls/([^/]+)/(accept|reject|refer|hangup)\Z")


def _error(status: int, code: str, message: str) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
    return Answer(status, {"content-type": "application/json"}, json.dumps({"error": error}).encode())


def _accept_problem(session: Json) -> tuple[str, str] | None:
    """Return the code and text of the error for a configuration of a call; None if it can be used."""
    if session.get("type") != "realtime":
        return "missing_required_parameter", "Missing required parameter: 'type'."
    if not session.get("model"):
        return "missing_required_parameter", "Missing required parameter: 'model'."
    if (unknown := unknown_field(session)) is not None:
        return "unknown_parameter", f"Unknown parameter: '{unknown}'."
    if any("format" in part for part in session.get("audio", {}).values()):
        return "invalid_value", "The format of a call is negotiated over SIP."
    problem = _problem(_merge(_defaults("", ""), session))
    return None if problem is None else ("invalid_value", problem)


def unknown_field(session: Json) -> str | None:
    """Return the path of the first unknown field of a session; None if all are known."""
    return _unknown(session, _TREE, "session")


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
