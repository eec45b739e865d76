"""Gemini Live as a dialect, and where to connect for it.

Gemini's protocol is not a relative of the others': one setup that the client sends first, responses without
ids, no event for the start of speech, and no error messages, since every failure is a close.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

from msgspec import UNSET

from ...protocol import close_codes
from ...protocol.codec import MalformedMessage, mended
from ...protocol.errors import SpekoError
from ...protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Expiring,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ResponseStatus,
    Role,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from ...protocol.pcm import whole_samples
from ...protocol.session import MAX_SAMPLE_RATE
from ...protocol.state import Signal, State
from .. import codes
from ..endpoint import Endpoint, provider_endpoint
from ..lenient import text_of
from ..options import ServerTool
from ..provider import ProviderSession
from . import events as wire
from .config import OUTPUT_SAMPLE_RATE, GoogleOptions, GoogleVad
from .response import Phase
from .speech import Speech
from .user import STALLED_TIMEOUT, GoogleStats, UserSide

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

CUT_TIMEOUT: Final = 0.5
"""Seconds after the provider's `interrupted` during which output counts as the rest of the interrupted
answer, if the `turnComplete` that should follow is missing. The next answer can't come sooner: the user must
finish first."""

LATE_WORDS_TIMEOUT: Final = 2.0
"""Seconds after which words that came after the end of their turn count as complete, since nothing marks
their end. They are transcribed in one go, unlike ongoing speech. Words of the assistant that come later than
this belong to another answer."""

GOING_ON_TIMEOUT: Final = 60.0
"""Like `STALLED_TIMEOUT`, between the turns of a model that announced more: it may be thinking."""

SETTLED_TIMEOUT: Final = 10.0
"""Seconds after which unanswered words of the user no longer hold anything up."""

_BENIGN_REASONS: Final = frozenset(
    {"", "TURN_COMPLETE_REASON_UNSPECIFIED", "FINISH_REASON_UNSPECIFIED", "NEED_MORE_INPUT", "STOP"}
)
_CUT_SHORT: Final = re.compile(
    r"MAX_TOKENS|SAFETY|RECITATION|LANGUAGE|BLOCKLIST|SPII|GENERATED_|OUTPUT_|MAX_REGENERATION"
    r"|(IMAGE_|\A)PROHIBITED_CONTENT|IMAGE_OTHER|MODEL_ARMOR"
)
"""Reasons that mean that a limit or a filter cut an answer short. All others, except the benign, are
failures."""

_RATE: Final = re.compile(r";\s*rate=(\d{1,6})\b")

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
            message, odd, unknown = wire.decode(data)
        except MalformedMessage as error:
            self._violated(
                close_codes.INVALID_DATA, f"the provider sent a message that is not of its protocol: {error}"
            )
            return
        self.stats.odd_fields += len(odd)
        for name in unknown:
            self.stats.unknown_fields += 1
            if "." not in name:
                raw = data if isinstance(data, str) else text_of(data)
                self._tell(Unknown(name, mended(raw)))
        self._receive(message)

    def _receive(self, message: wire.ServerMessage) -> None:
        """Any of the fields may be there, each with its own news."""
        if message.setup_complete is not UNSET:
            self._accept(message.setup_complete or wire.SetupComplete())
        if message.session_resumption_update is not None:
            self._note_handle(message.session_resumption_update)
        if message.go_away is not None:
            self._note_going_away(message.go_away)
        content, calls = message.server_content, message.tool_call
        if not self._accepted:
            self.stats.early_messages += content is not None or calls is not None
            return
        if content is not None:
            self._receive_content(content)
        if message.voice_activity is not None or message.voice_activity_detection_signal is not None:
            self._retract_late_words()
            self._progress.prompt()
        if message.tool_call_cancellation is not None:
            self._cancel_calls(message.tool_call_cancellation.ids or ())
        if message.usage_metadata is not None:
            self._usage = message.usage_metadata
        if calls is not None:
            # For billing, a response also ends when it calls a tool.
            self._usage_due = True
            self._tell_usage()
            for call in calls.function_calls or ():
                self._issue_call(call)
        cut = self._progress.cut
        over = content is not None and self._note_end(content)
        if message.interaction_status:
            # Some servers send it beside the content instead of inside.
            over = self._note_end(wire.ServerContent(interaction_status=message.interaction_status)) or over
        self._usage_due = self._usage_due or over
        if over or not self._progress.begun or (self._usage_due and self._calls.open):
            self._tell_usage()
        if over:
            self._tell_end(cut=cut)

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
            return  # too late: the failure may have been reported already
        self._accepted = True
        self._timers.stop("ready")
        self.provider_session = ProviderSession(id=setup.session_id or None)
        self._tell(Ready(self.input_sample_rate, self.output_sample_rate))
        self._release_held()

    def _note_handle(self, update: wire.ResumptionUpdate) -> None:
        self._handle_is_fresh = self._handle_was_fresh = bool(update.resumable and update.new_handle)
        if self._handle_is_fresh:
            self._handle = update.new_handle
        else:
            # The model is generating: meanwhile there is no handle.
            self._progress.prompt()

    def _note_going_away(self, go_away: wire.GoAway) -> None:
        first = self._going_away is None
        # Without a time it is as good as over.
        self._going_away = go_away.seconds_left or 0.0
        self._leaving = True
        if first:
            self._tell(Expiring(self._going_away))

    # The conversation

    def _receive_content(self, content: wire.ServerContent) -> None:
        """Take all of it, except the end of the turn."""
        if content.input_transcription is not None:
            self._user_speaks(content.input_transcription.text)
            self._receive_words(self._user, content.input_transcription)
            if content.input_transcription.finished:
                self._words_due = False
            self._await_more_words()
        if content.interim_input_transcription is not None:
            self._user_speaks(content.interim_input_transcription.text)
            self._tell(self._user.interim(content.interim_input_transcription.text))
            self._await_more_words()
        if content.interrupted:
            self._user_cut_in()
        if content.model_turn is not None:
            for part in content.model_turn.parts or ():
                self._receive_part(part)
        if content.output_transcription is not None:
            self._receive_output_words(content.output_transcription)
        if content.grounding_metadata:
            self._server_tool("google_search")
        if content.url_context_metadata:
            self._server_tool("url_context")
        if content.generation_complete:
            self._note_generated()
        if content.usage_metadata is not None:
            self._usage = content.usage_metadata
        self._note_reason(content.turn_complete_reason)
        self._note_reason(content.finish_reason)

    def _receive_words(self, speech: Speech, words: wire.Transcription) -> None:
        self._tell(speech.add(words.text))
        if words.finished:
            self._tell(speech.finish())

    def _user_speaks(self, words: str) -> None:
        """The user spoke, so any further words of the assistant belong to a new answer."""
        if words.strip():
            self._retract_late_words()
            if not self._progress.begun:
                self._finish_late_words()
            self._progress.prompt()

    def _receive_output_words(self, words: wire.Transcription) -> None:
        progress = self._progress
        if not words.text.strip() and not (progress.begun and progress.phase is Phase.ACTIVE):
            # It begins no answer, but may be the space between two late words, or say that they are complete.
            if self._assistant.speaking:
                self._receive_words(self._assistant, words)
            return
        late = not (progress.begun or progress.prompted or progress.phase is Phase.MUTED)
        if late:
            self.stats.late_events += 1
        elif not self._is_heard(words=True):
            return
        self._receive_words(self._assistant, words)
        if (late or not progress.confirmed) and self._state is State.OPEN:
            self._timers.start("late", LATE_WORDS_TIMEOUT)

    def _finish_late_words(self) -> None:
        """No more late words come for the answer that is over."""
        self._tell(self._assistant.finish())

    def _await_more_words(self) -> None:
        """The user's words came. If none had come of what was answered last, these are of that."""
        self._user_settled = False
        if self._state is State.OPEN:
            self._timers.start("settled", SETTLED_TIMEOUT)
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

    def _note_generated(self) -> None:
        progress = self._progress
        # The model generates more once the tools have answered.
        if (progress.begun or progress.phase is Phase.MUTED) and not self._calls.open:
            progress.generated = progress.confirmed = True

    def _note_reason(self, reason: str) -> None:
        """Note why a turn ends early."""
        if reason not in _BENIGN_REASONS:
            self._reason = reason
            if _CUT_SHORT.search(reason) is None:
                message = f"the provider ended its turn early: {reason}"
                self._tell(ErrorFrame(codes.RESPONSE_FAILED, message))

    def _receive_part(self, part: wire.Part) -> None:
        self._progress.heard_from = True
        if part.thought:
            return
        if part.inline_data is not None:
            self._receive_audio(part.inline_data)
        # What is written down of the speech comes as its transcription, if that is on.
        text = part.text if self._progress.begun else part.text.lstrip()
        if text and not self._rules.writes_output and self._is_heard():
            self._tell(self._assistant.add(part.text))

    def _receive_audio(self, blob: wire.Blob) -> None:
        mime_type = blob.mime_type or "audio/pcm"
        if not mime_type.startswith("audio/pcm"):
            self.stats.skipped_blobs += 1
            return
        if not blob.data:
            return
        progress = self._progress
        if progress.generated:
            # The response was complete, so this belongs to the next one: the end of the first was not
            # signalled.
            if progress.phase is Phase.MUTED:
                self._unmute()
            elif progress.prompted:
                self._answer_is_over()
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

    def _is_heard(self, *, words: bool = False) -> bool:
        """Whether output that comes now counts; the first that does is the beginning of a response."""
        progress = self._progress
        if progress.phase is Phase.MUTED and progress.resumed:
            self._unmute()
        if progress.phase is Phase.MUTED:
            progress.dropped = True
            self.stats.late_events += 1
            if not progress.told:
                self._start_mute_timer()
            return False
        if progress.output(words=words):
            self._turn_begins()
        return True

    def _turn_begins(self) -> None:
        self._odd = b""
        self._reason = ""
        self._handle_was_fresh, self._handle_is_fresh = self._handle_is_fresh, False
        self._answering = True
        self._timers.stop("late")
        self._start_stalled_timer(STALLED_TIMEOUT)
        self._finish_late_words()
        self._finish_user()

    def _note_end(self, content: wire.ServerContent) -> bool:
        progress = self._progress
        turn, waits = bool(content.turn_complete), bool(content.waiting_for_input)
        status = content.interaction_status
        cut = progress.cut or progress.phase is Phase.MUTED
        # A turn without output still answers a request, and words alone are an answer if a turn ends with
        # them.
        self._answering = self._answering or (
            turn and not cut and (progress.asked or self._assistant.speaking)
        )
        idle = progress.over(turn=turn, status=status, waits=waits)
        if idle:
            self._timers.stop("mute")
            self._timers.stop("stalled")
        elif turn:
            self._start_stalled_timer(GOING_ON_TIMEOUT)
        if turn or idle:
            progress.asked = progress.asked and cut
            self._server_tools_over = True
            self._tell(self._assistant.finish())
            if self._state is State.OPEN:
                self._timers.start("late", CUT_TIMEOUT if cut else LATE_WORDS_TIMEOUT)
            if not cut and self._user.speaking:
                # What came of the user's words meanwhile is still of the turn that was answered; after an
                # interruption it is the beginning of the next.
                self._finish_user()
        return turn or idle

    def _answer_is_over(self) -> None:
        """Its end was not signalled, but is clear from what follows, or from the silence."""
        self._tell(self._assistant.finish())
        self._server_tools_over = True
        self._progress.rest()
        self._timers.stop("stalled")
        self._tell_end()

    def _tell_end(self, *, cut: bool = False) -> None:
        """The answer is over, if there was one; `cut`: because the user spoke."""
        reason, self._reason = self._reason, ""
        if cut:
            self._end_answer("interrupted")
        elif not reason:
            self._end_answer("done")
        else:
            self._end_answer("failed" if _CUT_SHORT.search(reason) is None else "incomplete", reason)

    def _end_answer(self, status: ResponseStatus, reason: str = "") -> None:
        if self._answering:
            self._answering = False
            self._tell(ResponseEnd(status, reason))

    def _user_cut_in(self) -> None:
        progress = self._progress
        progress.cut = True
        self._words_due = False
        self._timers.stop("words")
        if progress.phase is Phase.MUTED:
            # Our own interruption, or one that was told.
            self.stats.repeated_events += 1
            self._mute(told=True)
        elif progress.phase is Phase.ACTIVE or self._unheard:
            if progress.phase is Phase.ACTIVE:
                self._mute(told=True)
            self._interrupted("user")
            self._release_held()
        else:
            self.stats.repeated_events += 1
            self._finish_late_words()
        progress.prompt()
        progress.resumed = False

    def _interrupted(self, at: Role) -> None:
        """The assistant was cut off: what is queued of its audio is not to be heard."""
        self._events[:] = [frame for frame in self._events if type(frame) is not Audio]
        if at == "user":
            # The provider has given up its calls, too. It may not know of a local interruption, and then
            # still waits for their results.
            self._withdraw(frame.call_id for frame in self._events if type(frame) is ToolCall)
        self._odd = b""
        self._reason = ""
        self._unheard = False
        self.playback.flush()
        self._calls.make_moot()
        self._tell(Interruption(at))
        self._tell(self._assistant.finish())
        self._end_answer("interrupted")

    def _withdraw(self, call_ids: Iterable[str]) -> None:
        """Drop those of these calls that are still queued: their results are no longer needed."""
        unwanted = set(call_ids)
        for frame in self._events[:]:
            if type(frame) is ToolCall and frame.call_id in unwanted:
                self._events.remove(frame)
                self._calls.withdraw(frame.call_id)

    def _mute(self, *, told: bool = False) -> None:
        self._progress.mute(told=told)
        self._timers.stop("late")
        self._timers.stop("stalled")
        self._start_mute_timer()

    def _start_mute_timer(self) -> None:
        # A session that is ending waits for nothing but its end.
        if self._state is State.OPEN:
            self._timers.start("mute", CUT_TIMEOUT if self._progress.told else MUTE_TIMEOUT)

    def _start_stalled_timer(self, seconds: float) -> None:
        if self._state is State.OPEN:
            self._progress.heard_from = False
            self._timers.start("stalled", seconds)

    def _unmute(self) -> None:
        self._progress.rest(cut=self._progress.told)
        self._progress.prompted = True
        self._timers.stop("mute")

    def _stalled(self) -> None:
        """Nothing has come for a while: end the answer unless something shows that it continues."""
        progress = self._progress
        if progress.phase is Phase.MUTED:
            return
        if progress.heard_from or self._calls.open or self.playback.unplayed_ms > 0:
            self._start_stalled_timer(STALLED_TIMEOUT)
        elif progress.awaited:
            progress.awaited = False
            message = f"the provider did not answer within {STALLED_TIMEOUT:g} s; say it again"
            self._tell(ErrorFrame(codes.NO_RESPONSE, message))
        elif progress.phase is Phase.ACTIVE:
            self._answer_is_over()
            progress.prompt_by_time()

    def _words_are_late(self) -> None:
        """It is too late for words of the previous answer. If another has begun with words only, it ends
        here."""
        progress = self._progress
        if progress.phase is Phase.ACTIVE and progress.begun:
            if progress.confirmed:
                return
            self._retract_answer()
        self._finish_late_words()
        progress.prompt_by_time()

    def _retract_late_words(self) -> None:
        if self._progress.maybe_late:
            self._retract_answer()

    def _retract_answer(self) -> None:
        """Its words were late ones, or all there is. The handle is as good as before them."""
        self._progress.retract()
        self._handle_is_fresh = self._handle_is_fresh or self._handle_was_fresh
        self._timers.stop("stalled")
        self._answering = False
        self._finish_late_words()

    # Tools and usage

    def _issue_call(self, call: wire.FunctionCall) -> None:
        if self._state is State.CLOSED:
            return
        if call.id and self._calls.is_open(call.id):
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
            call_id = self._calls.issue(call.id, call.name)
            self._tell(ToolCall(call_id, call.name, call.arguments))

    def _cancel_calls(self, ids: Sequence[str]) -> None:
        cancelled = [call_id for name in ids if (call_id := self._calls.cancel(name)) is not None]
        # The user spoke while the model waited; there may be no other sign of it.
        self._progress.cut = self._progress.cut or bool(cancelled)
        self._withdraw(cancelled)
        self._release_held()

    def _server_tool(self, name: str) -> None:
        """Results of a tool that Google ran arrived; its start is not signalled. Results that come after the
        end of an answer belong to that answer."""
        progress = self._progress
        if progress.phase is Phase.MUTED:
            self.stats.late_events += 1
            return
        if self._server_tools_over and (progress.begun or progress.prompted):
            self._server_tools_over = False
            self._server_tools.clear()
        if name not in self._server_tools:
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
                    _audio_tokens(usage.prompt_tokens_details),
                    _audio_tokens(usage.response_tokens_details or usage.candidates_tokens_details),
                )
            )
        else:
            self.stats.repeated_events += 1

    # Time, the end

    def _open_response_end(self, wanted: bool) -> ResponseEnd | None:
        if not self._answering:
            return None
        self._answering = False
        return ResponseEnd("interrupted") if wanted else ResponseEnd("failed", self._reason)

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        """As in `ProviderDialect`; words of the user that have settled are not cut short."""
        cut_short = self._speaking
        self._reason = close.reason
        super()._finish(signal, close, error)
        self.cut_short = cut_short

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
            case "late":
                self._words_are_late()
            case "stalled":
                self._stalled()
            case "settled":
                self._user_settled = True
            case _:
                super()._timer_expired(name, late)


@functools.lru_cache(maxsize=16)  # a session has one
def _rate(mime_type: str) -> int | None:
    """The rate that `mime_type` names, if it names a possible one."""
    found = _RATE.search(mime_type)
    rate = int(found[1]) if found else 0
    return rate if 1 < rate <= MAX_SAMPLE_RATE else None


def _audio_tokens(details: Sequence[wire.TokenCount] | None) -> int:
    return sum(count.token_count for count in details or () if count.modality == "AUDIO")
