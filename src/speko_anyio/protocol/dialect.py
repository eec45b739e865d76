"""What every message-level protocol object shares: the life of a session over WebSocket messages.

A *dialect* turns WebSocket messages into events and verbs into WebSocket messages. The Speko session is
one (`session.py`); the providers are others (`speko_anyio.providers`). This module owns what they have in
common: the state machine's couplings, one ordered outbox, exactly one `Close`, the sticky error after it,
and the deadlines. It reads no clock and does no I/O.
"""

from __future__ import annotations

import abc
import enum
from typing import Any, ClassVar, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from . import close_codes
from .errors import (
    ConnectionClosed,
    HandshakeError,
    LocalProtocolError,
    RemoteProtocolError,
    SessionExpired,
    SpekoError,
)
from .frames import SESSION_EXPIRED, Close, Expiring, Initiator
from .limits import DEFAULT_LIMITS, Limits
from .state import TRANSITIONS, Signal, State, transition
from .timers import Timers


class NeedData(enum.Enum):
    """The type of `NEED_DATA`; an enum, so that type checkers narrow on ``is``."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA
"""What `next_event` returns when it has nothing more until the peer sends more."""


class CloseMessage(msgspec.Struct, frozen=True, gc=False):
    """In the outbox: close the WebSocket with this code and reason; nothing follows it."""

    code: int
    reason: str


Message: TypeAlias = str | bytes | CloseMessage
"""A WebSocket message: text, binary, or the end."""

EventT = TypeVar("EventT")

_OPEN: Final = State.OPEN


def _utf8_size(text: str) -> int:
    # Half of a surrogate pair counts here and is refused where it matters.
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _over(close: Close) -> ConnectionClosed:
    """What every call raises after this end."""
    kind = SessionExpired if close.expired else ConnectionClosed
    return kind(code=close.code, reason=close.reason, initiated_by=close.initiated_by)


class _Times(NamedTuple):
    """Seconds; see `Dialect`."""

    close_timeout: float
    ttl: float | None
    warn_before: float


class _Ending:
    """How the session comes to its end."""

    __slots__ = ("closed", "error", "goodbye", "reason", "send_failed")

    def __init__(self) -> None:
        self.goodbye: Close | None = None
        """Our own close, once sent."""
        self.reason: str | None = None
        """What the peer's `end` said, if that came before our own goodbye."""
        self.send_failed = False
        self.closed: Close | None = None
        self.error: SpekoError | None = None


class Dialect(abc.ABC, Generic[EventT]):
    """The life of one session. Subclasses add the verbs and what messages mean.

    `EventT` is the union of what `next_event` returns besides `Close` and `Expiring`.

    - `close_timeout`: seconds the peer has to answer our close.
    - `ttl`: seconds from the opening until the session must end; None when unknown.
    - `warn_before`: seconds before that at which `Expiring` is delivered.
    """

    _ready = True
    """Whether this side may talk in an open session: a Speko server has to say `Ready` first."""

    _ends_at_ttl = False
    """Whether this role ends the session when its time is up; the other is only warned."""

    _audio_type: ClassVar[type[Any] | None] = None
    """What a binary message of whole samples is, where that is all there is to it; the fast lane of
    `byte_level.py` makes one without asking further. None where binary messages are something else."""

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        close_timeout: float = 5.0,
        ttl: float | None = None,
        warn_before: float = 60.0,
        state: State = State.OPEN,
    ) -> None:
        self.limits = limits
        self._state = state
        self._may_talk = self._ready and state is _OPEN  # kept by `_move`: one look for the hot path
        # Keep to fewer than 30 attributes in all, byte level and roles included: up to that number CPython
        # stores them inline in the instance, which saves 0.04 microseconds per frame. A test counts them.
        # A list: there are few at a time, and an empty deque takes 600 bytes.
        self._events: list[EventT | Close | Expiring] = []
        self._outbox: list[Message] = []
        self._queued = 0  # payload bytes in the outbox
        self._max_outbox = limits.max_outbox  # a copy here, since the hot path compares with it
        self._odd = b""  # half a sample that waits for its other half
        self._audio_rate = 0  # of the audio that comes in
        self._timers = Timers()
        self._times = _Times(close_timeout, ttl, warn_before)
        self._ending = _Ending()
        if state is State.OPEN:
            self._start_session_timers()

    # What has become of the session

    @property
    def state(self) -> State:
        """Where the session is in its life."""
        return self._state

    @property
    def closed(self) -> Close | None:
        """How the session ended; None while it lives."""
        return self._ending.closed

    @property
    def error(self) -> SpekoError | None:
        """What every call raises after the end; None while the session lives.

        A `RemoteProtocolError` when the peer broke the protocol, a `HandshakeError` when no session came
        about, else a `ConnectionClosed`.
        """
        return self._ending.error

    # Events out

    def next_event(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        """The next event, or `NEED_DATA`.

        The last event is `Close`, exactly once; after it every call raises `error`. A session that never
        opened has no `Close`: its `HandshakeError` is raised at once.
        """
        if self._events:
            return self._events.pop(0)
        if self._ending.error is not None:
            raise self._ending.error.with_traceback(None)
        return NEED_DATA

    # Messages in

    def receive_message(self, message: str | bytes) -> None:
        """Take one whole WebSocket message from the peer. Never raises for what the peer sent: a broken
        message ends the session, which `next_event` tells in its turn. After the end it does nothing."""
        if (self._state, Signal.MESSAGE_RECEIVED) not in TRANSITIONS:
            return
        if isinstance(message, str):
            if _utf8_size(message) > self.limits.max_text_size:
                self._too_big("text", self.limits.max_text_size)
            else:
                self._receive_text(message)
        elif len(message) > self.limits.max_message_size:
            self._too_big("binary", self.limits.max_message_size)
        elif (event := self._receive_binary(message)) is not None:
            self._events.append(event)

    @abc.abstractmethod
    def _receive_text(self, text: str) -> None:
        """Apply one text message within the limits, in a session that is not over."""

    @abc.abstractmethod
    def _receive_binary(self, data: bytes) -> EventT | None:
        """The one event of a binary message within the limits; None when it gives none, or others."""

    def _too_big(self, kind: str, limit: int) -> None:
        self._violated(close_codes.TOO_BIG, f"the peer sent a {kind} message of more than {limit} bytes")

    def receive_close(self, code: int, reason: str = "") -> None:
        """The peer's WebSocket close: the transport answers it itself, if it must be answered.

        `code` is 1005 when the peer gave none. Does nothing after the end.
        """
        if self._state is State.CLOSED:
            return
        # Nobody hears what is still queued.
        self._outbox.clear()
        self._queued = 0
        self._peer_closed(code, reason)

    def _peer_closed(self, code: int, reason: str) -> None:
        if self._ending.reason is not None:
            close = Close(code, self._ending.reason, "remote")
        else:
            close = self._ending.goodbye or Close(code, reason, "remote")
        self._finish(Signal.CLOSE_RECEIVED, close)

    def receive_lost(self, reason: str = "the connection was lost") -> None:
        """The transport died without a closing handshake. Does nothing after the end."""
        if self._state is State.CLOSED:
            return
        self._outbox.clear()
        self._queued = 0
        if self._state is State.CONNECTING:
            self._fail_handshake(Signal.LOST, HandshakeError(f"no session: {reason}; try again"))
            return
        initiated_by: Initiator = "transport"
        if self._ending.reason is not None:
            initiated_by, reason = "remote", self._ending.reason
        elif self._ending.goodbye is not None:
            initiated_by = "local"
        self._finish(Signal.LOST, Close(close_codes.ABNORMAL, reason, initiated_by))

    # Messages out

    @property
    def has_output(self) -> bool:
        """Whether there is anything to take and send: a look that takes nothing."""
        return bool(self._outbox)

    @property
    def queued(self) -> int:
        """Bytes of payload that wait to be taken and sent."""
        return self._queued

    def next_message(self) -> Message | None:
        """Take the next message to send; None when nothing waits. As `messages_to_send`, for a transport that
        takes one at a time: what waits here can still be overtaken by an interruption."""
        if not self._outbox:
            return None
        message = self._outbox.pop(0)
        if not self._outbox:
            self._queued = 0
        elif type(message) is bytes:
            self._queued -= len(message)
        else:
            assert type(message) is str  # nothing follows a `CloseMessage`
            # The text of a goodbye is not counted when it is queued.
            self._queued = max(0, self._queued - _utf8_size(message))
        return message

    def messages_to_send(self) -> list[Message]:
        """Take what has to be sent, in order: text, binary and, last, a `CloseMessage`.

        Whoever takes them must send them, or call `send_failed`.
        """
        messages, self._outbox = self._outbox, []
        self._queued = 0
        return messages

    def send_failed(self) -> None:
        """What was taken to be sent did not reach the peer, or perhaps only in part: nothing more can be.

        Events already received are still delivered, then `Close`. Never raises.
        """
        self.receive_lost("sending failed")

    def close(self, code: int = close_codes.NORMAL, reason: str = "") -> None:
        """Say goodbye. Only the first call counts; after the end it does nothing.

        `LocalProtocolError` when `code` may not be sent (RFC 6455 section 7.4) or `reason` is no text.
        A reason longer than 123 bytes of UTF-8 is cut in the WebSocket's close frame.
        """
        if not close_codes.is_sendable(code):
            raise LocalProtocolError(
                f"{code} is not a close code that may be sent; use 1000 or one from 4000 to 4999"
            )
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {type(reason).__name__}")
        try:
            reason.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError("the close reason holds half of a surrogate pair; send text") from None
        if self._state is State.CLOSED or self._ending.goodbye is not None or self._ending.send_failed:
            return
        self._ending.goodbye = Close(code, reason, "local")
        if self._state is State.CONNECTING:
            # The request that nobody has taken need not go out any more.
            self._outbox.clear()
            error = ConnectionClosed(code=code, reason=reason, initiated_by="local")
            self._fail_handshake(Signal.CLOSE_SENT, error)
            return
        self._queue_goodbye(code, reason)
        if self._state is _OPEN:
            self._start_closing()
        self._move(Signal.CLOSE_SENT)

    def _queue_goodbye(self, code: int, reason: str) -> None:
        self._put(CloseMessage(code, close_codes.cut_reason(reason)))

    # Time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called, on the caller's own clock; None: not at all.

        May lie in the past (minus infinity at the start of a timer): then call it at once. Ask again after
        every call that may have changed the session.
        """
        return self._timers.next()

    def handle_timeout(self, now: float) -> None:
        """It is `now`, in seconds: act on the deadlines that have come. Calling too early or late is safe."""
        for name, late in self._timers.expired(now):
            self._timer_expired(name, late)
        self._timers.settle(now)

    def _timer_expired(self, name: str, late: float) -> None:
        """`name` is due, since `late` seconds."""
        if name == "close":
            self.receive_lost("the peer did not answer the close in time")
        elif name == "expiry warning":
            left = min(self._times.warn_before, self._times.ttl or 0.0)
            self._events.append(Expiring(max(0.0, left - late)))
        else:
            assert name == "expiry"
            self.close(close_codes.NORMAL, SESSION_EXPIRED)

    def _start_session_timers(self) -> None:
        if self._times.ttl is None:
            return
        # A session shorter than the warning's lead is warned of at once.
        self._timers.start("expiry warning", max(0.0, self._times.ttl - self._times.warn_before))
        if self._ends_at_ttl:
            self._timers.start("expiry", self._times.ttl)

    # For subclasses

    def _queue_text(self, text: str) -> None:
        """Queue a text message whose sending is legal now; `LocalProtocolError` when the outbox is full."""
        self._check_open()
        queued = self._queued + _utf8_size(text)
        if queued > self._max_outbox:
            raise self._outbox_full()
        self._queued = queued
        self._put(text)

    def _put(self, message: Message) -> None:
        """Add to the outbox what may be sent now; whoever adds has checked that, and counted its size."""
        self._outbox.append(message)

    def _drop_queued_audio(self) -> None:
        """Take back the audio that nobody has taken to send."""
        self._queued -= sum(len(item) for item in self._outbox if type(item) is bytes)
        self._outbox[:] = [item for item in self._outbox if type(item) is not bytes]

    def _check_open(self) -> None:
        if self._state is not _OPEN:
            raise self._not_open()

    def _not_open(self) -> SpekoError:
        """Why nothing can be sent in this state."""
        if self._ending.error is not None:
            return self._ending.error.with_traceback(None)
        if self._state is State.CONNECTING:
            return LocalProtocolError("the session is not open yet; wait for the handshake, then send")
        if self._ending.reason is not None:
            goodbye = Close(close_codes.NORMAL, self._ending.reason, "remote")
        else:
            lost = Close(close_codes.ABNORMAL, "sending failed", "transport")
            goodbye = self._ending.goodbye or lost
        return _over(goodbye)

    def _outbox_full(self) -> LocalProtocolError:
        return LocalProtocolError(
            f"the outbox would pass its limit of {self._max_outbox} bytes; "
            "pass less at a time, or send what is queued first"
        )

    def _move(self, signal: Signal) -> None:
        self._state = transition(self._state, signal)
        self._may_talk = self._ready and (self._state, Signal.MESSAGE_SENT) in TRANSITIONS

    def _end_received(self, reason: str) -> None:
        """The peer announces its close: what we would still say is not heard. Only the first counts, and
        only when we have not said goodbye ourselves."""
        if self._state is _OPEN:
            self._ending.reason = reason
            self._start_closing()
        self._move(Signal.END_RECEIVED)

    def _start_closing(self) -> None:
        self._timers.clear()
        self._timers.start("close", self._times.close_timeout)

    def _violated(self, close_code: int, message: str) -> None:
        """The peer broke the protocol: tell it, end the session, keep what came before."""
        error = RemoteProtocolError(message, close_code=close_code)
        if self._state is State.CONNECTING:
            self._fail_handshake(Signal.VIOLATED, error)
            return
        if self._ending.goodbye is None and not self._ending.send_failed:
            self._put(CloseMessage(close_code, close_codes.cut_reason(message)))
        self._finish(Signal.VIOLATED, Close(close_code, message, "local"), error)

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        self._move(signal)
        self._timers.clear()
        self._ending.closed = close
        self._ending.error = error or _over(close)
        self._events.append(close)

    def _fail_handshake(self, signal: Signal, error: SpekoError) -> None:
        self._move(signal)
        self._timers.clear()
        self._ending.error = error
