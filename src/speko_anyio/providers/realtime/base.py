"""What every part of a realtime dialect works with: the state, the ways out, the ways to the caller."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET, UnsetType

from ...protocol import close_codes
from ...protocol.errors import LocalProtocolError
from ...protocol.frames import ErrorFrame, Frame, ResponseEnd, ToolStatus, Transcript
from ...protocol.limits import Limits
from ...protocol.state import State
from ..provider import ProviderDialect
from . import events as wire
from .calls import Call, CallGroups
from .gate import Phase, Reason, ResponseGate
from .transcripts import Transcripts
from .turns import Turn, TurnRules

LIVE: Final = (Phase.ACTIVE, Phase.CANCELLING)
"""The phases in which a response is in flight."""

RESPONSE_TIMEOUT: Final = 5.0
"""Seconds to wait for a requested response to begin, or for a cancelled one to end. Both take a fraction of
that, and xAI is known to leave out either."""

SPEECH_TIMEOUT: Final = 3.0
"""Seconds without audio after which a user who was heard speaking has muted the microphone, while an answer
waits for the end of what they say. The provider measures silence in the audio that it gets, and so never
tells of that end."""

_REMEMBERED_REQUESTS: Final = 256
_CORRECTED: Final = 16
"""Items that were truncated or deleted, the newest: complaints about that are ours to know."""


class RealtimeStats(msgspec.Struct):
    """What happened and gave no frame, counted."""

    unknown_events: int = 0
    """Events of a type this version does not know; each also gave an `Unknown`."""
    odd_fields: int = 0
    """Fields that were not of their documented type, mended or left out; see `lenient`."""
    benign_errors: int = 0
    """Errors that are the harmless end of a race."""
    late_events: int = 0
    """Events of a response that was over or cut off."""
    repeated_events: int = 0
    """Begins, ends and calls that were told before."""
    skipped_commits: int = 0
    """Turns that ended with less audio than can be committed."""


class RealtimeBase(ProviderDialect, abc.ABC):
    """See the top. `rules`, `update`, `notes`: what the configuration came to (see the subclasses)."""

    _names_requests: ClassVar[bool]
    """Whether what we send carries an ``event_id``, which errors then name."""

    _commits_in_auto: ClassVar[bool]
    """Whether a commit is understood where the provider detects turns."""

    _endings: ClassVar[Mapping[str, str]]
    """The errors that announce a close, by code or type, and its reason."""

    def __init__(
        self,
        *,
        rules: TurnRules,
        update: Callable[[str | UnsetType], wire.ClientEvent],
        notes: tuple[str, ...],
        input_sample_rate: int,
        output_sample_rate: int,
        limits: Limits,
        close_timeout: float,
        ready_timeout: float,
        ttl: float | None,
        warn_before: float,
        state: State,
    ) -> None:
        try:
            wire.encode(update(UNSET))
        except (UnicodeEncodeError, TypeError) as error:
            raise LocalProtocolError(
                f"the configuration can't be written as JSON: {error}; pass text and plain data"
            ) from None
        super().__init__(
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            notes=notes,
            ready_timeout=ready_timeout,
            limits=limits,
            close_timeout=close_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=state,
        )
        self.stats = RealtimeStats()
        self._rules = rules
        self._update = update
        self._configured = False
        self._turn = Turn()
        self._gate = ResponseGate()
        self._echoes_metadata = False
        self._calls = CallGroups(limits.max_open_calls)
        self._server_tools: dict[str, tuple[str, ToolStatus]] = {}
        self._function_names: dict[str, str] = {}
        self._corrected: deque[str] = deque(maxlen=_CORRECTED)
        self._approvals: dict[str, str] = {}  # of which response each was asked
        self._unconfirmed: list[Call] = []  # calls with their arguments, perhaps cut off
        # Of the response in flight: whether anything of it was seen, of what it says, and its beginning.
        self._seen = self._spoke = self._announced = False
        self._user = Transcripts("user")
        self._assistant = Transcripts("assistant")
        self._audio_item: str | None = None
        self._spent = 0, 0  # tokens of audio in and out that no `Usage` has told yet
        self._events_sent = 0
        self._requests: dict[str, type[wire.ClientEvent]] = {}

    def _take_open_texts(self) -> list[Transcript]:
        return [*self._user.finish_all(), *self._assistant.finish_all()]

    def _open_response_end(self, wanted: bool) -> ResponseEnd | None:
        if self._gate.phase not in LIVE or not self._seen:
            return None
        self._seen = False
        return ResponseEnd("interrupted" if wanted or self._gate.phase is Phase.CANCELLING else "failed")

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self._calls.open

    def takes_result(self, call_id: str) -> bool:
        return call_id in self._calls

    @property
    def responding(self) -> bool:
        return self._gate.phase in LIVE

    @property
    def odd_fields(self) -> int:
        return self.stats.odd_fields

    @property
    def at_rest(self) -> bool:
        return self._may_request and self._gate.owed is None and not self._calls.open

    @property
    def _may_request(self) -> bool:
        """Whether a response may be requested now: none is in flight, and the user is not speaking."""
        return self._gate.idle and not self._turn.speaking

    def _requested(self, event_id: str, reason: Reason) -> None:
        self._gate.requested(event_id, reason)
        self._calls.forget_acknowledgements()
        self._start_timer("response", RESPONSE_TIMEOUT)

    def _pay(self) -> None:
        """Ask for the response that is owed, if that may be done."""
        reason = self._gate.owed
        if reason is None or self._state is not State.OPEN or not self._gate.idle:
            return
        if self._turn.speaking:
            self._turn.watched = self._turn.uncommitted
            self._start_timer("speech", SPEECH_TIMEOUT)
            return
        event_id, request = self._create_response()
        self._say([request])
        self._requested(event_id, reason)

    @abc.abstractmethod
    def _create_response(self) -> tuple[str, wire.ClientEvent]:
        """A request for a response, and its event id, whether or not that is sent."""

    @abc.abstractmethod
    def _cancel(self) -> wire.ClientEvent:
        """What cancels the active response."""

    def _event_id(self, kind: type[wire.ClientEvent]) -> str:
        """A new id, the same ones in every run; an error that names it is about a request of that kind."""
        self._events_sent += 1
        event_id = f"evt_{self._events_sent}"
        self._requests[event_id] = kind
        if len(self._requests) > _REMEMBERED_REQUESTS:
            del self._requests[next(iter(self._requests))]
        return event_id

    def _wire_id(self, event_id: str) -> str | UnsetType:
        return event_id if self._names_requests else UNSET

    def _make(self, kind: type[wire.ClientEvent], **fields: Any) -> wire.ClientEvent:
        return kind(event_id=self._wire_id(self._event_id(kind)), **fields)

    def _queue(self, events: Sequence[wire.ClientEvent]) -> None:
        """Queue all for a caller, or none: raises as `send_audio`."""
        try:
            texts = [wire.encode(event) for event in events]
        except UnicodeEncodeError:
            raise LocalProtocolError(
                "the text holds half of a surrogate pair, which UTF-8 can't carry; send whole characters"
            ) from None
        queued = self._queued + sum(map(len, texts))  # bytes
        if queued > self._max_outbox:
            raise self._outbox_full()
        self._queued = queued
        for text in texts:
            self._put(text.decode())

    def _say(self, events: Sequence[wire.ClientEvent]) -> None:
        """Queue what the dialect itself has to say; nothing once the session is not open any more."""
        for event in events:
            if self._state is not State.OPEN:
                return
            text = wire.encode(event)
            if self._queued + len(text) > self._max_outbox:
                self._break(close_codes.POLICY, "the provider does not read what it makes us send")
                return
            self._queued += len(text)
            self._put(text.decode())

    def _start_timer(self, name: str, seconds: float) -> None:
        """Start a timer, unless the session is ending: then nothing is waited for but its end."""
        if self._state is State.OPEN:
            self._timers.start(name, seconds)

    def _tell(self, frame: Frame | None) -> None:
        """Hand a frame to the caller, if there is one and the session has not ended in the same breath."""
        if frame is None or self._state is State.CLOSED:
            return
        if isinstance(frame, Transcript) and len(frame.text) > self.limits.max_text_size:
            self._break(
                close_codes.TOO_BIG,
                f"the provider sent a transcript of more than {self.limits.max_text_size} characters",
            )
        else:
            self._events.append(frame)

    def _break(self, close_code: int, message: str) -> None:
        """The provider broke its protocol; once is enough, however much of one event is wrong."""
        if self._state is not State.CLOSED:
            self._violated(close_code, message)

    def _fail(self, error: ErrorFrame, reason: str | None = None) -> None:
        """End the session with `error`; the reason of the close is its code, if no other is given."""
        self.failure = error
        self._tell(error)
        self.close(close_codes.NORMAL, error.code if reason is None else reason)
