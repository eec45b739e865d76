"""Gemini Live as a dialect, and where to connect for it.

Gemini's protocol is not a relative of the others': one setup that the client sends first, responses without
ids, no event for the start of speech, and no error messages, since every failure is a close.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from ..protocol import close_codes
from ..protocol.codec import MalformedMessage
from ..protocol.frames import (
    Audio,
    Error,
    Expiring,
    Frame,
    Interruption,
    Ready,
    Role,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from ..protocol.pcm import whole_samples
from ..protocol.session import MAX_SAMPLE_RATE
from ..protocol.state import State
from . import codes
from . import google_events as wire
from .endpoint import Endpoint, provider_endpoint
from .google_config import OUTPUT_SAMPLE_RATE, GoogleOptions, GoogleVad
from .google_response import Phase
from .google_speech import Speech
from .google_user import GoogleStats, UserSide
from .options import ServerTool
from .provider import ProviderSession

__all__ = [
    "GoogleAuthStyle",
    "GoogleDialect",
    "GoogleOptions",
    "GoogleStats",
    "GoogleVad",
    "ServerTool",
    "google_endpoint",
]

MUTE_TIMEOUT: Final = 3.0
"""Seconds without output after which a muted response counts as over, for when its end is never told: a
stale mute would silence the session. While a response is generated, its pieces are closer together."""

LATE_WORDS_TIMEOUT: Final = 2.0
"""Seconds after which the user's words are complete that came when they were answered already: nothing marks
their end. They are written down in one go, unlike what is still being said."""

_BENIGN_REASONS: Final = frozenset({None, "TURN_COMPLETE_REASON_UNSPECIFIED", "NEED_MORE_INPUT"})
_RATE: Final = re.compile(r";\s*rate=(\d{1,6})\b")
_SECONDS: Final = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s\Z")

GoogleAuthStyle: TypeAlias = Literal["header", "token", "query", "bearer"]
"""What the key is and how it travels: an API key in the ``x-goog-api-key`` header; an ephemeral token
(``auth_tokens/...``) in the ``Authorization`` header, or, for a transport that has no headers (a browser), in
the query; or an OAuth access token, for Vertex AI."""

_SERVICE: Final = "/ws/google.ai.generativelanguage."
_API_KEY_PATH: Final = f"{_SERVICE}v1beta.GenerativeService.BidiGenerateContent"
_TOKEN_PATH: Final = f"{_SERVICE}v1alpha.GenerativeService.BidiGenerateContentConstrained"


def google_endpoint(
    api_key: str,
    *,
    base_url: str = "wss://generativelanguage.googleapis.com",
    path: str | None = None,
    auth: GoogleAuthStyle = "header",
) -> Endpoint:
    """Where and how to connect. The model is no part of it: the setup names it.

    - `base_url`: may have any path and query of its own; `path` is added to it.
    - `path`: by default the service's own, which differs for ephemeral tokens. For Vertex AI pass
      ``/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent``.

    `LocalProtocolError` when something of it can't be used.
    """
    ephemeral = auth in ("token", "query")
    if path is None:
        path = _TOKEN_PATH if ephemeral else _API_KEY_PATH
    endpoint = provider_endpoint(
        api_key,
        base_url=base_url,
        path=path,
        query=[("access_token", api_key)] if auth == "query" else [],
        auth="header",
        subprotocols=(),
    )
    headers = {
        "header": (("x-goog-api-key", api_key),),
        "token": (("Authorization", f"Token {api_key}"),),
        "query": (),
        "bearer": endpoint.headers,
    }
    return Endpoint(endpoint.url, headers[auth], secrets=endpoint.secrets)


class GoogleDialect(UserSide):
    """A session with Gemini Live over WebSocket messages.

    - `config`: the session's parameters; its `provider` does not matter.
    - `options`: what only Gemini has.
    - `resumption_handle`: of an earlier session of the same configuration, to go on where that one was. Close
      its connection first.
    - `ready_timeout`: seconds from the opening until the provider must have accepted the configuration.
    - `ttl`: seconds until the session ends, if known. The provider itself warns about a minute ahead, which
      gives an `Expiring` and `going_away`.

    The remaining parameters are those of `Dialect`. `LocalProtocolError` when the configuration can't be
    used; `notes` says what of it is not honoured. The session is OPEN from the start: the WebSocket is the
    caller's.

    Audio is at the *provider's* rates: `input_sample_rate` is the session's own (the provider converts), the
    output 24 kHz, and every `Audio` says its rate. Whoever wants others resamples.
    """

    def _receive_text(self, text: str) -> None:
        self._receive_json(text)

    def _receive_binary(self, data: bytes) -> Frame | None:
        self._receive_json(data)
        return None

    def _receive_json(self, data: bytes | str) -> None:
        try:
            message, unknown = wire.decode(data)
        except MalformedMessage as error:
            self._violated(
                close_codes.INVALID_DATA, f"the provider sent a message that is not of its protocol: {error}"
            )
            return
        for name in unknown:
            self.stats.unknown_fields += 1
            if "." not in name:
                self._tell(Unknown(name, data if isinstance(data, str) else data.decode()))
        self._receive(message)

    def _receive(self, message: wire.ServerMessage) -> None:
        """Any of the fields may be there, each with its own news."""
        if message.setup_complete is not None:
            self._accept(message.setup_complete)
        if message.session_resumption_update is not None:
            self._note_handle(message.session_resumption_update)
        if message.go_away is not None:
            self._note_going_away(message.go_away)
        content, calls = message.server_content, message.tool_call
        if not self._accepted:
            self.stats.early_messages += content is not None or calls is not None
            return
        over = content is not None and self._receive_content(content)
        if message.tool_call_cancellation is not None:
            self._cancel_calls(message.tool_call_cancellation.ids or ())
        if message.usage_metadata is not None:
            self._usage = message.usage_metadata
        # A response is over when its turn is, or when it leaves the word to a tool.
        over = over or calls is not None
        self._usage_due = self._usage_due or over
        if over or self._progress.phase is Phase.IDLE:
            self._tell_usage()
        for call in (calls and calls.function_calls) or ():
            self._issue_call(call)

    def _tell(self, frame: Frame | None) -> None:
        """Hand a frame to the caller, if there is one and the session has not ended in the same breath."""
        if frame is None or self._state is State.CLOSED:
            return
        if isinstance(frame, Transcript) and len(frame.text) > self.limits.max_text_size:
            self._violated(
                close_codes.TOO_BIG,
                f"the provider sent a transcript of more than {self.limits.max_text_size} characters",
            )
        else:
            self._events.append(frame)

    def _accept(self, setup: wire.SetupComplete) -> None:
        if self._accepted:
            self.stats.repeated_events += 1
            return
        if self.failure is not None:
            return  # too late: somebody else may have been told already that it failed
        self._accepted = True
        self._timers.stop("ready")
        self.provider_session = ProviderSession(id=setup.session_id)
        self._tell(Ready(self.input_sample_rate, self.output_sample_rate))
        self._release_held()

    def _note_handle(self, update: wire.ResumptionUpdate) -> None:
        self._handle_is_fresh = bool(update.resumable and update.new_handle)
        if self._handle_is_fresh:
            self._handle = update.new_handle

    def _note_going_away(self, go_away: wire.GoAway) -> None:
        found = _SECONDS.match(go_away.time_left or "")
        first = self._going_away is None
        # Without a time it is as good as over.
        self._going_away = float(found[1]) if found else 0.0
        self._leaving = True
        if first:
            self._tell(Expiring(self._going_away))

    # The conversation

    def _receive_content(self, content: wire.ServerContent) -> bool:
        """Returns whether it ends a turn of the model."""
        if content.input_transcription is not None:
            self._receive_words(self._user, content.input_transcription)
            if content.input_transcription.finished:
                self._words_due = False
            self._await_more_words()
        if content.interim_input_transcription is not None:
            self._tell(self._user.interim(content.interim_input_transcription.text or ""))
            self._await_more_words()
        if content.interrupted:
            self._user_cut_in()
        if content.model_turn is not None:
            for part in content.model_turn.parts or ():
                self._receive_part(part)
        if content.output_transcription is not None and self._is_heard():
            self._receive_words(self._assistant, content.output_transcription)
        if content.grounding_metadata:
            self._server_tool("google_search")
        if content.url_context_metadata:
            self._server_tool("url_context")
        if content.generation_complete:
            self._progress.generated = True
        if content.turn_complete_reason not in _BENIGN_REASONS:
            message = f"the provider ended its turn early: {content.turn_complete_reason}"
            self._tell(Error(codes.RESPONSE_FAILED, message))
        return self._note_end(content)

    def _receive_words(self, speech: Speech, words: wire.Transcription) -> None:
        self._tell(speech.add(words.text or ""))
        if words.finished:
            self._tell(speech.finish())

    def _await_more_words(self) -> None:
        """The user's words came. If none had come of what was answered last, these are of that."""
        talks = not self._rules.auto and (self._turn.open or self._progress.awaited)
        if self._words_due and not talks and self._user.speaking and self._state is State.OPEN:
            self._timers.start("words", LATE_WORDS_TIMEOUT)
        else:
            self._timers.stop("words")

    def _finish_user(self) -> None:
        """What the user said is complete."""
        words = self._user.finish()
        self._tell(words)
        self._words_due = words is None
        self._timers.stop("words")

    def _receive_part(self, part: wire.Part) -> None:
        if part.thought:
            return
        if part.inline_data is not None:
            self._receive_audio(part.inline_data)
        # What is written down of the speech comes as its transcription, if that is on.
        if part.text and not self._rules.writes_output and self._is_heard():
            self._tell(self._assistant.add(part.text))

    def _receive_audio(self, blob: wire.Blob) -> None:
        mime_type = blob.mime_type or "audio/pcm"
        if not mime_type.startswith("audio/pcm"):
            self.stats.skipped_blobs += 1
            return
        if self._progress.phase is Phase.MUTED and self._progress.generated:
            # All of the muted response has come: this is the next one, and the end of that was not told.
            self._unmute()
        if not self._is_heard():
            return
        rate = _rate(mime_type) or OUTPUT_SAMPLE_RATE
        if rate != self.output_sample_rate:
            self.output_sample_rate = rate
            self.playback.set_rate(rate)
        pcm = blob.data
        if self._odd or len(pcm) & 1:
            pcm, self._odd = whole_samples(self._odd, pcm)
        if pcm:
            self._unheard = True
            self.playback.add("", 0, len(pcm))
            self._tell(Audio(pcm, rate))

    def _is_heard(self) -> bool:
        """Whether output that comes now counts; the first that does is the beginning of a response."""
        if self._progress.phase is Phase.MUTED:
            self._progress.dropped = True
            self.stats.late_events += 1
            self._start_mute_timer()
            return False
        if self._progress.output():
            self._turn_begins()
        return True

    def _turn_begins(self) -> None:
        self._odd = b""
        self._handle_is_fresh = False
        self._finish_user()

    def _note_end(self, content: wire.ServerContent) -> bool:
        progress = self._progress
        turn, waits = bool(content.turn_complete), bool(content.waiting_for_input)
        status = content.interaction_status
        cut = progress.cut or progress.phase is Phase.MUTED
        idle = progress.over(turn=turn, status=status, waits=waits)
        if idle:
            self._timers.stop("mute")
        if turn or idle:
            self._server_tools.clear()
            self._tell(self._assistant.finish())
            if not cut and self._user.speaking:
                # What came of the user's words meanwhile is still of the turn that was answered; after an
                # interruption it is the beginning of the next.
                self._finish_user()
        return turn or idle

    def _user_cut_in(self) -> None:
        progress = self._progress
        progress.cut = True
        self._words_due = False
        self._timers.stop("words")
        if progress.phase is Phase.MUTED:
            # Our own interruption, or one that was told.
            self.stats.repeated_events += 1
        elif progress.phase is Phase.ACTIVE or self._unheard:
            if progress.phase is Phase.ACTIVE:
                self._mute()
            self._interrupted("user")
            self._release_held()
        else:
            self.stats.repeated_events += 1

    def _interrupted(self, at: Role) -> None:
        """The assistant was cut off: what is queued of its audio is not to be heard."""
        kept = [frame for frame in self._events if type(frame) is not Audio]
        self._events.clear()
        self._events.extend(kept)
        self._odd = b""
        self._unheard = False
        self.playback.flush()
        self._calls.make_moot()
        self._tell(Interruption(at))
        self._tell(self._assistant.finish())

    def _mute(self) -> None:
        self._progress.mute()
        self._start_mute_timer()

    def _start_mute_timer(self) -> None:
        # A session that is ending waits for nothing but its end.
        if self._state is State.OPEN:
            self._timers.start("mute", MUTE_TIMEOUT)

    def _unmute(self) -> None:
        self._progress.rest()
        self._timers.stop("mute")

    # Tools and usage

    def _issue_call(self, call: wire.FunctionCall) -> None:
        if self._state is State.CLOSED:
            return
        if call.id and self._calls.was_issued(call.id):
            self.stats.repeated_events += 1
        elif self._calls.full:
            self._violated(
                close_codes.POLICY,
                f"the provider has {self.limits.max_open_calls} tool calls open and issued another",
            )
        else:
            if self._progress.tool_call():
                self._turn_begins()
            self._handle_is_fresh = False
            call_id = self._calls.issue(call.id, call.name or "")
            self._tell(ToolCall(call_id, call.name or "", call.arguments))

    def _cancel_calls(self, ids: Sequence[str]) -> None:
        for call_id in ids:
            self._calls.cancel(call_id)
        self._release_held()

    def _server_tool(self, name: str) -> None:
        """The results of a tool that Google ran came along; that it was started is not told."""
        if self._progress.phase is Phase.MUTED:
            self.stats.late_events += 1
        elif name not in self._server_tools:
            self._server_tools.add(name)
            self._server_tools_told += 1
            self._tell(ServerToolCall(f"{name}-{self._server_tools_told}", name, "completed"))

    def _tell_usage(self) -> None:
        usage, self._usage = self._usage, None
        if usage is None:
            return
        if self._usage_due:
            self._usage_due = False
            self._tell(
                Usage(
                    _audio_tokens(usage.prompt_tokens_details), _audio_tokens(usage.response_tokens_details)
                )
            )
        else:
            self.stats.repeated_events += 1

    # Time, the end

    def _start_session_timers(self) -> None:
        super()._start_session_timers()
        self._timers.start("ready", self._ready_timeout)
        # This is the moment of the opening, and here the client speaks first.
        self._queued += len(self._setup.encode())
        self._put(self._setup)

    def _timer_expired(self, name: str, late: float) -> None:
        match name:
            case "ready":
                self._not_ready()
            case "mute":
                self._unmute()
            case "words":
                self._finish_user()
            case _:
                super()._timer_expired(name, late)


@functools.lru_cache(maxsize=16)  # a session has one
def _rate(mime_type: str) -> int | None:
    """The rate that `mime_type` names, if it names a possible one."""
    found = _RATE.search(mime_type)
    rate = int(found[1]) if found else 0
    return rate if 1 < rate <= MAX_SAMPLE_RATE else None


def _audio_tokens(details: Sequence[wire.TokenCount] | None) -> int:
    return sum(max(0, int(count.token_count or 0)) for count in details or () if count.modality == "AUDIO")
