"""A double of xAI Grok Voice: OpenAI's names, and peculiarities of its own."""

from __future__ import annotations

import copy
from typing import Any, Final

from ...audio._pcm import SAMPLE_BYTES
from ._double import ProviderDouble
from ._double_session import Json, Play, Refusal, Request
from ._hearing import Ear
from ._realtime import RealtimeDoubleSession, Response
from ._script import Incomplete, Say

_RATES: Final = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
_KEY_PROTOCOL: Final = "xai-client-secret."
_IDLE_ERROR: Final = "Conversation timed out after 900.0 seconds due to inactivity"


class XAISession(RealtimeDoubleSession):
    """One connection."""

    _audio_content = "audio"

    @property
    def _input_rate(self) -> int:
        rate: int = self.config["audio"]["input"]["format"]["rate"]
        return rate

    @property
    def _output_rate(self) -> int:
        rate: int = self.config["audio"]["output"]["format"]["rate"]
        return rate

    @property
    def _detection(self) -> Json | None:
        detection: Json | None = self.config["turn_detection"]
        return detection if detection is not None and detection.get("type") is not None else None

    def _id(self, kind: str) -> str:
        # All of them are UUIDs there.
        number = self._script.number("id")
        return f"00000000-0000-4000-8000-{number:012x}"

    def _event(self, kind: str, **fields: Any) -> None:
        super()._event(kind, **{"previous_item_id": self._last_item, **fields})

    def _opened(self) -> None:
        pcm = {"type": "audio/pcm", "rate": 24_000}
        self.config: Json = {
            "object": "realtime.session",
            "id": self._id("session"),
            "model": self.request.query("model") or "grok-voice-latest",
            "modalities": ["audio"],
            "instructions": "",
            "voice": "ara",
            "turn_detection": {"type": None},
            "audio": {"input": {"format": dict(pcm)}, "output": {"format": dict(pcm)}},
            "tools": [],
            "temperature": -1.0,
        }
        self._event("session.created", session=copy.deepcopy(self.config))
        resumed = self.request.query("conversation_id")
        conversation = {"id": resumed or self._id("conversation"), "object": "realtime.conversation"}
        self._event("conversation.created", conversation=conversation)
        self._event("ping", timestamp=1_790_000_000_000)

    def expire(self) -> None:
        self._refuse({}, "", "Session exceeded its maximum duration", kind="max_duration")
        self.close(1000, "")

    def idle(self) -> None:
        """End the session, because it was silent for too long."""
        self._refuse({}, "", _IDLE_ERROR, kind="timeout")
        self.close(1000, "")

    def _update(self, message: Json) -> None:
        session = message.get("session")
        if not isinstance(session, dict):
            self._refuse(message, "", "session.update needs a session", kind="invalid_event")
            return
        merged = {**copy.deepcopy(self.config), **copy.deepcopy(session)}
        audio = session.get("audio") or {}
        merged["audio"] = {
            side: {**self.config["audio"][side], **(audio.get(side) or {})} for side in ("input", "output")
        }
        for side in ("input", "output"):
            if merged["audio"][side]["format"].get("rate") not in _RATES:
                text = f"audio.{side}.format.rate must be one of {_RATES}"
                self._refuse(message, "", text, kind="invalid_event")
                return
        if (problem := _find_problem(session)) is not None:
            self._refuse(message, "", problem, kind="invalid_event")
            return
        resumes = (session.get("resumption") or {}).get("enabled", False)
        self.config = merged
        detection = self._detection
        self._ear = None
        if detection is not None:
            silence = detection.get("silence_duration_ms") or 500
            padding = detection.get("prefix_padding_ms") or 0
            self._ear = Ear(self._input_rate, silence_ms=silence, padding_ms=padding)
        if self.request.query("conversation_id") is not None and resumes:
            content = [{"type": "text", "text": "What was said before."}]
            item = self._json_item(self._id("item"), type="message", role="assistant", content=content)
            self._announce_item({**item, "status": "completed"})
        self._event("session.updated", session=copy.deepcopy(self.config))

    def _create_item(self, message: Json) -> None:
        item = message.get("item")
        if not isinstance(item, dict) or item.get("type") != "force_message":
            super()._create_item(message)
            return
        text = "".join(str(part.get("text", "")) for part in item.get("content", ()))
        if not text:
            self._refuse(message, "", "force_message needs a text", kind="invalid_event")
        elif self.response is not None:
            self._refuse(
                message, "", f"Conversation already has an active response in progress: {self.response.id}."
            )
        else:
            self.items.append(item)
            # Said by itself, and not by the model: neither of the script nor with metadata.
            self._respond(None, Say(text, 0.05 * len(text)))

    def _hear(self, message: bytes) -> bool:
        self._take_audio(message)
        return True

    def _speak(self, pcm: bytes, place: Json) -> None:
        if self.config["audio"]["output"].get("transport") == "binary":
            self._outputs.append(pcm)
        else:
            super()._speak(pcm, place)

    def _find_item_problem(self, item: Json) -> tuple[str, str] | None:
        if any(part.get("type") == "input_image" for part in item.get("content", ())):
            return "", "Invalid content type: input_image"
        return super()._find_item_problem(item)

    def _refuse(self, message: Json, code: str, text: str, *, kind: str = "invalid_request_error") -> None:
        # The error has only a message, without a code and an id.
        error: Json = {"type": kind, "message": text}
        if kind == "invalid_request_error":
            error["code"] = None
        self.errors.append(error)
        self._event("error", error=error)

    def _transcribe(self, item_id: str, text: str) -> Play:
        kind = "conversation.item.input_audio_transcription"
        first = text.partition(" ")[0]
        if (self.config["audio"]["input"].get("transcription") or {}).get("model"):
            self._event(f"{kind}.updated", item_id=item_id, transcript=first)
        self._event(f"{kind}.completed", item_id=item_id, transcript=first, status="in_progress")
        yield self._pace.transcription
        for _ in range(2):  # xAI really sends it twice
            self._event(f"{kind}.completed", item_id=item_id, transcript=text, status="completed")

    def _announce_item(self, item: Json) -> None:
        self._event("conversation.item.added", item=dict(item))

    def _item_is_done(self, item: Json) -> None:
        """Do nothing: xAI does not send this."""

    def _talked_over(self, response: Response) -> None:
        """Do nothing: on xAI such a response just ends."""

    def _response_done(self, response: Response, status: str, details: Json | None) -> None:
        heard, said = self._tokens(response)
        done = self._json_response(response, status, details)
        done["usage"] = {}
        if details is None:
            done["status_details"] = "unimplemented"
        usage = {
            "input_tokens": heard + 20,
            "input_token_details": {"text_tokens": 20, "audio_tokens": heard, "grok_tokens": 0},
            "output_tokens": said + 20,
            "output_token_details": {"text_tokens": 20, "audio_tokens": said, "grok_tokens": 0},
            "total_tokens": heard + said + 40,
            "output_audio_seconds": round(response.audio_ms / 1000, 3),
            "billable_audio_seconds": round(
                response.audio_ms / 1000 + self._heard / (self._input_rate * SAMPLE_BYTES), 3
            ),
        }
        self._event("response.done", response=done, usage=usage)

    def _metadata(self, request: Json) -> Any:
        return {}


def _find_problem(session: Json) -> str | None:
    """Return the invalid value that voids the configuration; None if there is none."""
    audio = session.get("audio") or {}
    keyterms = ((audio.get("input") or {}).get("transcription") or {}).get("keyterms") or ()
    if len(keyterms) > 100 or any(len(term) > 50 for term in keyterms):
        return "keyterms: at most 100 terms of at most 50 characters"
    if not 0.7 <= (audio.get("output") or {}).get("speed", 1.0) <= 1.5:
        return "audio.output.speed must be between 0.7 and 1.5"
    if (session.get("reasoning") or {}).get("effort", "high") not in ("high", "none"):
        return "reasoning.effort must be high or none"
    return None


class XAIDouble(ProviderDouble[XAISession]):
    """Play xAI Grok Voice; see `ProviderDouble`, and `RealtimeDoubleSession` for its sessions."""

    provider = "xai"
    _can = ProviderDouble._can | {Incomplete}
    _session_type = XAISession

    def judge(self, request: Request) -> Refusal | None:
        if request.header("authorization") == f"Bearer {self.api_key}" or self.subprotocol(request):
            return None
        return Refusal(401, "Incorrect API key provided.")

    def subprotocol(self, request: Request) -> str | None:
        wanted = _KEY_PROTOCOL + self.api_key
        return wanted if wanted in request.subprotocols else None
