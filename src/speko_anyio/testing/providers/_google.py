"""A double of Gemini Live. Like Gemini, it refuses everything with a close."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from ...audio._pcm import SAMPLE_BYTES
from ...providers._provider import SAY_EXACTLY
from ._double import ProviderDouble
from ._double_session import DoubleSession, Json, Play, Refusal, Replies, Request, pieces
from ._google_fields import UnknownField, normalized
from ._hearing import Ear, tone
from ._script import CallTools, Fail, GoAway, Pace, RateLimit, Reply, ReplyStep, RunTool, Say, Silent, steps

_OUTPUT_RATE: Final = 24_000
_RATE: Final = re.compile(r"audio/pcm;\s*rate=(\d+)\Z")
_INVALID: Final = 1007
_POLICY: Final = 1008
_INVALID_ARGUMENT: Final = "Request contains an invalid argument."
_IMAGE_TOKENS: Final = 258
_DEADLINE: Final = "Deadline expired before operation could complete."


class _Refused(Exception):
    """A message of the client ends the session, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class GoogleSession(DoubleSession):
    """One connection. Further for assertions:

    - `setup`: the client's setup, once it has come.
    - `results`: the client's result of each tool call, by its id.
    - `resumed_from`: the handle that the setup held.
    - `cancelled`: the ids of calls whose results are no longer wanted.
    - `texts`: what the client wrote, each with its role (``user`` or ``model``).
    - `images`: the pictures it sent, each with its MIME type.
    - `schedulings`: when the model was to speak about the result of a call, by its id.
    """

    binary = True

    def __init__(self, request: Request, script: Replies, pace: Pace) -> None:
        super().__init__(request, script, pace)
        self.setup: Json = {}
        self.results: dict[str, Json] = {}
        self.resumed_from: str | None = None
        self.cancelled: set[str] = set()
        self.texts: list[tuple[str, str]] = []
        self.images: list[tuple[str, bytes]] = []
        self.schedulings: dict[str, str] = {}
        self._model = ""
        self._awaits_history = False
        """Whether the client has announced an initial history that it has not ended yet."""
        self._play: Play | None = None
        self._pending: dict[str, str] = {}
        """The calls without a result, and their names."""
        self._waits_for_tools = False
        self._owes = False
        """Whether a turn ended, or tools were answered, during another answer."""
        self._ear: Ear | None = None
        self._ear_rate = 0
        self._window = False
        self._typed: str | None = None
        """The text in the open turn."""
        self._heard_ms = 0.0
        self._said_ms = 0.0
        self._heard_until = 0.0
        """When a listener will have heard everything that was generated."""

    # Auth comes with the request, and a wrong key is a close all the same

    def _opened(self) -> None:
        """Send nothing: the client speaks first."""

    def expire(self) -> None:
        self.close(1001, _DEADLINE)

    def go_away(self, seconds: float = 50.0) -> None:
        """Announce that the connection ends in `seconds`, and end it then."""
        self.send({"goAway": {"timeLeft": f"{seconds:g}s"}})
        self._later(seconds, self.expire)
        self.on_output()

    # Messages from the client

    def _receive_nonsense(self) -> None:
        self.close(_INVALID, "Invalid JSON payload received.")

    def _receive(self, message: Json) -> None:
        try:
            message = normalized(message)
            if not self.setup:
                self._set_up(message)
                return
            if "setup" in message:
                raise _Refused(_INVALID, "setup must be the first message and only the first")
            if "realtimeInput" in message:
                self._receive_input(message["realtimeInput"])
            if "clientContent" in message:
                self._receive_content(message["clientContent"])
            if "toolResponse" in message:
                self._receive_results(message["toolResponse"])
            if "contextUpdate" in message:
                self._update(message["contextUpdate"])
        except UnknownField as error:
            self.close(_INVALID, str(error))
        except _Refused as error:
            self.close(error.code, error.reason)

    def _set_up(self, message: Json) -> None:
        setup = message.get("setup")
        if not isinstance(setup, dict):
            raise _Refused(_INVALID, "setup must be the first message and only the first")
        model = str(setup.get("model"))
        if not model.startswith("models/"):
            reason = f"{model} is not found for API version v1beta, or is not supported for bidi"
            raise _Refused(_POLICY, reason)
        if (setup.get("generationConfig") or {}).get("responseModalities", ["AUDIO"]) != ["AUDIO"]:
            raise _Refused(_INVALID, "Cannot extract voices from a non-audio request.")
        self._model = model
        if (refusal := _thinking_refusal(model, setup)) is not None:
            raise _Refused(_INVALID, refusal)
        if "sessionResumption" in setup and "handle" in (resumption := setup["sessionResumption"]):
            if resumption["handle"] not in self._script.handles:
                raise _Refused(_POLICY, "Requested entity was not found.")
            self.resumed_from = resumption["handle"]
        history = setup.get("historyConfig") or {}
        self._awaits_history = bool(history.get("initialHistoryInClientContent"))
        self.setup = setup
        self._send({"setupComplete": {}})
        self._give_handle()

    @property
    def _is_manual(self) -> bool:
        return bool(self._detection.get("disabled"))

    @property
    def _detection(self) -> Json:
        config: Json = self.setup.get("realtimeInputConfig") or {}
        return config.get("automaticActivityDetection") or {}

    def _receive_input(self, message: Json) -> None:
        if self._awaits_history:
            raise _Refused(_INVALID, _INVALID_ARGUMENT)
        if "video" in message:
            self._see(message["video"])
        if "activityStart" in message or "activityEnd" in message:
            if not self._is_manual:
                text = "Explicit activity control is not supported with automatic activity detection."
                raise _Refused(_INVALID, text)
            if "activityStart" in message:
                self._window = True
                self._user_cuts_in()
        if "audio" in message:
            self._receive_audio(message["audio"])
        if "activityEnd" in message and self._window:
            self._window = False
            if self._typed is not None:
                text, self._typed = self._typed, None
                self._respond_to(text)
            else:
                self._turn_is_over()
        if message.get("audioStreamEnd") and self._ear is not None:
            if self._ear.speaking:
                self._turn_is_over()
            self._ear.forget()
        if "text" in message:
            self._read("user", message["text"])
            if not self._is_manual:
                self._user_cuts_in()
                self._respond_to(message["text"])
            elif self._window:
                self._typed = message["text"]

    def _read(self, role: str, text: Any) -> None:
        if not isinstance(text, str) or not text:
            raise _Refused(_INVALID, _INVALID_ARGUMENT)
        self.texts.append((role, text))

    def _see(self, blob: Any) -> None:
        data = _content_of(blob)
        mime_type = str(blob.get("mimeType")) if isinstance(blob, dict) else ""
        if not mime_type.startswith("image/") or not data:
            raise _Refused(_INVALID, _INVALID_ARGUMENT)
        self.images.append((mime_type, data))

    def _receive_audio(self, blob: Json) -> None:
        rate = _RATE.match(str(blob.get("mimeType")))
        pcm = _content_of(blob)
        if rate is None or not pcm:
            raise _Refused(_INVALID, _INVALID_ARGUMENT)
        self.audio.extend(pcm)
        if self._is_manual and not self._window:
            return  # it has no effect
        self._heard_ms += len(pcm) * 1000 / (int(rate[1]) * SAMPLE_BYTES)
        if self._is_manual:
            return
        for turn in self._listen(int(rate[1])).hear(pcm):
            if turn.started:
                self._user_cuts_in()
            else:
                self._turn_is_over()

    def _listen(self, rate: int) -> Ear:
        if self._ear is None or self._ear_rate != rate:
            silence = self._detection.get("silenceDurationMs") or 500
            self._ear = Ear(rate, silence_ms=silence, padding_ms=0)
            self._ear_rate = rate
        return self._ear

    def _receive_content(self, message: Json) -> None:
        if not self._awaits_history and "3.1" in self._model:
            raise _Refused(_INVALID, _INVALID_ARGUMENT)
        role = text = ""
        for turn in message.get("turns") or ():
            role = turn.get("role", "user")
            if role not in ("user", "model"):
                raise _Refused(_INVALID, _INVALID_ARGUMENT)
            for part in turn.get("parts") or ():
                if "inlineData" in part:
                    self._see(part["inlineData"])
                else:
                    text = part.get("text")
                    self._read(role, text)
        if self._awaits_history:
            self._awaits_history = not message.get("turnComplete")
            return
        self._user_cuts_in(always=True)
        # Models 2.5 answer nothing but a turn of the user.
        if message.get("turnComplete") and not ("2.5" in self._model and role != "user"):
            self._respond_to(text)

    def _update(self, message: Json) -> None:
        if "3.8" not in self._model:
            raise _Refused(_INVALID, _INVALID_ARGUMENT)
        if "systemInstruction" in message:
            self.setup["systemInstruction"] = message["systemInstruction"]
        if "tools" in message:
            self.setup["tools"] = message["tools"].get("tools", [])

    def _receive_results(self, message: Json) -> None:
        for answer in message.get("functionResponses") or ():
            if not isinstance(answer.get("response"), dict):
                raise _Refused(_INVALID, "Invalid value at 'tool_response.function_responses[0].response'.")
            if answer.get("id") not in self._pending:
                raise _Refused(_POLICY, "Requested entity was not found.")
            if answer.get("name") != self._pending.pop(answer["id"]):
                raise _Refused(_INVALID, _INVALID_ARGUMENT)
            if "scheduling" in answer:
                if "extended-thinking" in self._model:
                    raise _Refused(_INVALID, _INVALID_ARGUMENT)
                self.schedulings[answer["id"]] = answer["scheduling"]
            self.results[answer["id"]] = answer["response"]
        if not self._pending:
            self._waits_for_tools = False
            self._respond()

    # Turns

    def _user_cuts_in(self, *, always: bool = False) -> None:
        """Interrupt the answer, because the user speaks; `always`: whatever the setup says."""
        config = self.setup.get("realtimeInputConfig") or {}
        if config.get("activityHandling") == "NO_INTERRUPTION" and not always:
            return
        speaks = self._play is not None
        if speaks or self._now < self._heard_until:
            self._send({"serverContent": {"interrupted": True}})
        self._heard_until = self._now
        self._stop(self._play)
        self._play = None
        self._owes = False
        if self._pending:
            self._send({"toolCallCancellation": {"ids": list(self._pending)}})
            self.cancelled.update(self._pending)
            self._pending.clear()
        if speaks or self._waits_for_tools:
            self._waits_for_tools = False
            self._turn_complete()

    def _turn_is_over(self) -> None:
        self._begin(self._transcribe(self._script.next_words()))
        self._respond()

    def _transcribe(self, text: str) -> Play:
        if "inputAudioTranscription" in self.setup:
            yield self._pace.transcription
            for fragment in pieces(text, 3):
                words = f" {fragment.strip()}"
                self._send({"serverContent": {"inputTranscription": {"text": words}}})

    def _respond_to(self, text: str) -> None:
        """Answer what was written; the model follows the instruction of `say`."""
        _, told, wanted = text.partition(SAY_EXACTLY)
        self._respond(Say(wanted, 0.05 * len(wanted)) if told else None)

    def _respond(self, reply: Reply | None = None) -> None:
        """Answer with the next reply of the script, or with this one."""
        if self._play is not None:
            self._owes = True
            return
        self._owes = False
        reply_steps = self._script.next_reply() if reply is None else steps(reply)
        if not any(isinstance(step, Silent) for step in reply_steps):
            self._play = self._answer(reply_steps)
            self._begin(self._play)

    def _answer(self, reply: tuple[ReplyStep, ...]) -> Play:
        if "sessionResumption" in self.setup:
            self._send({"sessionResumptionUpdate": {}})
        if self._pace.latency:
            yield self._pace.latency
        self._said_ms = 0.0
        self._heard_until = self._now
        ending: Json = {}
        for step in reply:
            self._waits_for_tools = False
            match step:
                case Say():
                    yield from self._say(step)
                case CallTools():
                    self._call(step)
                    self._waits_for_tools = True
                case RunTool(name=name):
                    self._send({"serverContent": {"groundingMetadata": {"webSearchQueries": [name]}}})
                case Fail(code=code):
                    ending = {"turnCompleteReason": code or "RESPONSE_REJECTED"}
                    break
                case RateLimit():
                    reason = "You exceeded your current quota, please check your plan and billing details."
                    self.close(1011, reason)
                case GoAway(seconds=seconds):
                    self.go_away(seconds)
                case _:
                    yield from self._play_common(step)
        self._play = None
        if not self._waits_for_tools:
            if not ending:
                self._send({"serverContent": {"generationComplete": True}})
            self._turn_complete(**ending)
        if self._owes:
            self._respond()

    def _turn_complete(self, **fields: Any) -> None:
        heard, said = round(self._heard_ms / 40), round(self._said_ms / 40)
        self._heard_ms = 0.0
        read = 20 + sum(len(text) // 4 for _, text in self.texts)
        seen = _IMAGE_TOKENS * len(self.images)
        thought = 30 if "thinkingConfig" in (self.setup.get("generationConfig") or {}) else 0
        usage = {
            "promptTokenCount": heard + read + seen,
            "responseTokenCount": said,
            "totalTokenCount": heard + read + seen + said + thought,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": read},
                {"modality": "AUDIO", "tokenCount": heard},
                *([{"modality": "IMAGE", "tokenCount": seen}] if seen else []),
            ],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": said}],
            **({"thoughtsTokenCount": thought} if thought else {}),
        }
        self._send({"serverContent": {"turnComplete": True, **fields}, "usageMetadata": usage})
        self._give_handle()

    def _give_handle(self) -> None:
        if "sessionResumption" in self.setup:
            handle = f"handle-{self._script.number('handle')}"
            self._script.handles.add(handle)
            self._send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})

    def _say(self, step: Say) -> Play:
        pcm = tone(step.seconds, _OUTPUT_RATE)
        size = round(self._pace.chunk * _OUTPUT_RATE) * SAMPLE_BYTES
        chunks = [pcm[start : start + size] for start in range(0, len(pcm), size)]
        words = pieces(step.text, -(-len(chunks) // 2)) if "outputAudioTranscription" in self.setup else []
        for index, chunk in enumerate(chunks):
            if index < len(words):
                self._send({"serverContent": {"outputTranscription": {"text": words[index]}}})
            blob = {"mimeType": f"audio/pcm;rate={_OUTPUT_RATE}", "data": base64.b64encode(chunk).decode()}
            turn = {"role": "model", "parts": [{"inlineData": blob}]}
            self._send({"serverContent": {"modelTurn": turn}})
            seconds = len(chunk) / (_OUTPUT_RATE * SAMPLE_BYTES)
            self._said_ms += seconds * 1000
            self._heard_until = max(self._heard_until, self._now) + seconds
            yield seconds / self._pace.speed
        for word in words[len(chunks) :]:
            self._send({"serverContent": {"outputTranscription": {"text": word}}})

    def _call(self, step: CallTools) -> None:
        calls = []
        for name, arguments in step.calls:
            call_id = f"function-call-{self._script.number('call')}"
            self._pending[call_id] = name
            calls.append({"id": call_id, "name": name, "args": dict(arguments)})
        self._send({"toolCall": {"functionCalls": calls}})


class GoogleDouble(ProviderDouble[GoogleSession]):
    """Plays Gemini Live; see `ProviderDouble`. Its session's further attributes: `GoogleSession`."""

    provider = "google"
    _can = ProviderDouble._can | {GoAway}
    _session_type = GoogleSession

    def judge(self, request: Request) -> Refusal | None:
        return None

    def subprotocol(self, request: Request) -> str | None:
        return None

    def open(self, request: Request, now: float = 0.0) -> GoogleSession:
        session = super().open(request, now)
        given = {
            request.header("x-goog-api-key"),
            request.query("key"),
            request.query("access_token"),
            *_after(request.header("authorization"), "Token ", "Bearer "),
        }
        if self.api_key not in given:
            # Unlike the others it opens the WebSocket first.
            if any(given):
                session.close(_INVALID, "API key not valid. Please pass a valid API key.")
            else:
                session.close(_POLICY, "Method doesn't allow unregistered callers.")
        return session


def _content_of(blob: Any) -> bytes:
    """Return the bytes of a blob; none if they are not base64."""
    try:
        return base64.b64decode(blob["data"], altchars=b"-_", validate=False)
    except (TypeError, KeyError, binascii.Error):
        return b""


def _thinking_refusal(model: str, setup: Json) -> str | None:
    """Return why the model rejects the setup's thinking configuration; None if it accepts it."""
    config = (setup.get("generationConfig") or {}).get("thinkingConfig")
    level = config.get("thinkingLevel") if isinstance(config, dict) else None
    if "extended-thinking" in model:
        if level is None:
            return "Thinking level is required for this model."
        return "Thinking level MINIMAL is not supported for this model." if level == "MINIMAL" else None
    if "3.8" in model and config is not None:
        return "Thinking is not supported for this model."
    return None


def _after(value: str | None, *prefixes: str) -> list[str]:
    return [
        value.removeprefix(prefix) for prefix in prefixes if value is not None and value.startswith(prefix)
    ]
