"""The life of a session over WebSocket messages: what every message-level protocol object shares.

A *dialect* turns WebSocket messages into events and verbs into WebSocket messages. The Speko session is
one (`session.py`); the providers are others (`speko_anyio.providers`). This module owns what they have in
common: the couplings of the state machine, exactly one `Close`, the sticky error after it, and the
deadlines. It reads no clock and does no I/O.

A `WebSocketCore` (`websocket.py`) has a dialect: it passes messages to the dialect and shares its `events`,
`outbox`, `timers` and `fast_path`.
"""

from __future__ import annotations

import abc
import enum
from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from . import close_codes
from ._budget import Budget
from ._fast_path import FastPath
from ._limits import DEFAULT_LIMITS, Limits
from ._outbox import CloseMessage, Message, Outbox, payload_size
from ._state import TRANSITIONS, Signal, State, transition
from ._text import clean
from ._timeouts import DEFAULT_TIMEOUTS
from ._timers import AT_ONCE, Timers
from ._tokens import redact
from .errors import (
    ConnectionClosed,
    HandshakeError,
    LocalProtocolError,
    RemoteProtocolError,
    SessionExpired,
    SpekoError,
)
from .frames import SESSION_EXPIRED, Close, Expiring, Initiator


class NeedData(enum.Enum):
    """The type of `NEED_DATA`; an enum, so that type checkers narrow on ``is``."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA
"""Returned by `next_event` when there are no more events until the peer sends something."""


OVER_BUDGET: Final = (
    "the peer sent messages faster than a session may; send larger ones, at the pace of speech"
)
"""The reason of the close for a breach of ``limits.max_messages_per_second`` and ``max_messages_at_once``."""

EventT = TypeVar("EventT")

_OPEN: Final = State.OPEN
_SEND_FAILED: Final = "sending failed"
_LISTENING: Final = tuple(state for state in State if (state, Signal.MESSAGE_RECEIVED) in TRANSITIONS)
"""The states in which messages are received. A tuple, since hashing an enum is slow."""


def _over(close: Close) -> ConnectionClosed:
    """Make the error that every call raises after this end."""
    kind = SessionExpired if close.expired else ConnectionClosed
    return kind(code=close.code, reason=close.reason, initiated_by=close.initiated_by)


def check_close_code(code: int) -> None:
    """`LocalProtocolError` for a code that may not be sent (RFC 6455 section 7.4)."""
    if not close_codes.is_sendable(code):
        raise LocalProtocolError(
            f"{code} is not a close code that may be sent; use 1000 or one from 4000 to 4999"
        )


class _Times(NamedTuple):
    """All in seconds; see `Dialect`."""

    close_timeout: float
    ttl: float | None
    warn_before: float


class _Ending:
    """The state of the session's end."""

    __slots__ = ("closed", "error", "goodbye", "peer_reason", "send_failed")

    def __init__(self) -> None:
        self.goodbye: Close | None = None
        """Our own close, once sent."""
        self.peer_reason: str | None = None
        """The reason in the peer's `end`, if that came before our own goodbye."""
        self.send_failed = False
        self.closed: Close | None = None
        self.error: SpekoError | None = None

    @property
    def mute(self) -> bool:
        """Whether no close can be sent: one was sent already, or sending has failed."""
        return self.goodbye is not None or self.send_failed


class Dialect(abc.ABC, Generic[EventT]):
    """The life of one session. Subclasses add the verbs and what messages mean.

    `EventT` is the union of what `next_event` returns besides `Close` and `Expiring`.

    - `close_timeout`: seconds the peer has to answer our close.
    - `ttl`: seconds from the opening until the session must end; None when unknown.
    - `warn_before`: seconds before that at which `Expiring` is delivered.
    - `state`: OPEN if the caller has the WebSocket, CONNECTING beneath a `WebSocketCore`.
    """

    _ends_at_ttl = False
    """Whether this role ends the session when its time is up; the other role is only warned."""

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        close_timeout: float = DEFAULT_TIMEOUTS.close,
        ttl: float | None = None,
        warn_before: float = DEFAULT_TIMEOUTS.warn_before,
        state: State = State.OPEN,
    ) -> None:
        self.limits = limits
        self.state: State = state
        """Where the session is in its life; only the dialect itself changes it."""
        # A deque, though an empty one takes 760 bytes: a single message may become thousands of events.
        self.events: deque[EventT | Close | Expiring] = deque()
        """The events that `next_event` has yet to return, oldest first."""
        self.outbox: Outbox = Outbox(limits.max_outbox)
        self.timers: Timers = Timers()
        """The deadlines of both levels. A goodbye stops all but its own; the end of the session stops them
        all."""
        self.fast_path: FastPath = FastPath()
        self.budget: Budget = Budget()
        """How many messages the peer may send. A server sets one with a limit."""
        self._times = _Times(close_timeout, ttl, warn_before)
        self._ending = _Ending()
        if state is State.OPEN:
            self._start_session_timers()

    # State

    @property
    def closed(self) -> Close | None:
        """How the session ended; None while it lives."""
        return self._ending.closed

    @property
    def error(self) -> SpekoError | None:
        """The error that every call raises after the end; None while the session lives.

        A `RemoteProtocolError` when the peer broke the protocol, a `HandshakeError` when the session never
        opened, else a `ConnectionClosed`.
        """
        return self._ending.error

    # Events out

    def next_event(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        """Take the next event; `NEED_DATA` when there is none.

        The last event is `Close`, exactly once; after it every call raises `error`. A session that never
        opened has no `Close`: its `HandshakeError` is raised at once.
        """
        if self.events:
            return self.events.popleft()
        if self._ending.error is not None:
            raise self._ending.error.with_traceback(None)
        return NEED_DATA

    # Messages in

    def receive_message(self, message: str | bytes) -> None:
        """Take one whole WebSocket message from the peer.

        Never raises for what the peer sent: a broken message ends the session, which `next_event` reports in
        its turn. Does nothing after the end.
        """
        if self.state not in _LISTENING:
            return
        self.budget.spent += 1
        if isinstance(message, str):
            limit = self.limits.max_text_size
            # No character takes more than 4 bytes.
            if 4 * len(message) > limit and payload_size(message) > limit:
                self._receive_long_text(message)
            else:
                self._receive_text(message)
        elif len(message) > self.limits.max_message_size:
            self.too_big("binary", self.limits.max_message_size)
        elif (event := self._receive_binary(message)) is not None:
            self.events.append(event)

    @abc.abstractmethod
    def _receive_text(self, text: str) -> None:
        """Apply one text message within the limits, in a session that is not over."""

    @property
    def text_limit(self) -> int:
        """The most bytes of a text message to receive at all."""
        return self.limits.max_text_size

    def _receive_long_text(self, text: str) -> None:
        """Apply one text message of more than ``limits.max_text_size`` bytes."""
        self.too_big("text", self.text_limit)

    @abc.abstractmethod
    def _receive_binary(self, data: bytes) -> EventT | None:
        """Apply a binary message within the limits; return its event, or None if it queued its own."""

    def receive_close(self, code: int, reason: str = "", *, answer: bool = False) -> None:
        """Take the peer's WebSocket close. Does nothing after the end.

        - `code`: 1005 when the peer gave none.
        - `answer`: whether to queue the answer behind the messages that wait; by default the transport
          answers by itself, and those are dropped.
        """
        if self.state is State.CLOSED:
            return
        if not answer:
            self.outbox.clear()
        elif not self._ending.mute:
            # With the peer's own reason: a browser shows its page what comes back, not what the page said.
            self.outbox.put(CloseMessage(code, reason))
        self._peer_closed(code, reason)

    def _peer_closed(self, code: int, reason: str) -> None:
        if self._ending.peer_reason is not None:
            close = Close(code, self._ending.peer_reason, "remote")
        else:
            close = self._ending.goodbye or Close(code, reason, "remote")
        self._finish(Signal.CLOSE_RECEIVED, close)

    def receive_lost(self, reason: str = "the connection was lost") -> None:
        """Take note that the transport died without a closing handshake. Does nothing after the end."""
        if self.state is State.CLOSED:
            return
        self.outbox.clear()
        if self.state is State.CONNECTING:
            self.fail_handshake(Signal.LOST, HandshakeError(f"no session: {reason}; try again"))
            return
        initiated_by: Initiator = "transport"
        if self._ending.send_failed:
            reason = _SEND_FAILED  # the first sign of it
        if self._ending.peer_reason is not None:
            initiated_by, reason = "remote", self._ending.peer_reason
        elif self._ending.goodbye is not None:
            initiated_by = "local"
        self._finish(Signal.LOST, Close(close_codes.ABNORMAL, reason, initiated_by))

    # Messages out

    @property
    def has_output(self) -> bool:
        """Whether anything waits to be sent. Takes nothing."""
        return bool(self.outbox.messages)

    @property
    def queued(self) -> int:
        """Bytes of payload that wait to be sent."""
        return self.outbox.size

    @property
    def queued_memory(self) -> int:
        """Approximate memory of the messages that wait to be sent: `queued`, and an overhead for each."""
        return self.outbox.memory

    def next_message(self) -> Message | None:
        """Take the next message to send; None when nothing waits.

        Like `messages_to_send`, for a transport that takes one at a time: an interruption can still drop the
        audio that waits here.
        """
        return self.outbox.take()

    def messages_to_send(self) -> list[Message]:
        """Take the messages to send, in order: text, binary and, last, a `CloseMessage`.

        The caller must send them all, or call `send_failed`.
        """
        return self.outbox.take_all()

    def send_failed(self) -> None:
        """Take note that messages that were taken did not reach the peer, or only in part. Never raises.

        Nothing more can be sent, but the peer may have said goodbye before that: go on receiving until
        `receive_close` or `receive_lost` says how the session ended. If neither comes within the time for
        the answer to a close, it is lost. Does nothing after the end.
        """
        if self.state is State.CLOSED:
            return
        self._ending.send_failed = True
        self.outbox.clear()
        if self.state is State.CONNECTING:
            error = HandshakeError("no session: sending the handshake failed; try again")
            self.fail_handshake(Signal.SEND_FAILED, error)
            return
        if self.state is _OPEN:
            self._start_closing()
        self._move(Signal.SEND_FAILED)

    def close(self, code: int = close_codes.NORMAL, reason: str = "") -> None:
        """Say goodbye. Only the first call counts; after the end it does nothing.

        `LocalProtocolError` when `code` may not be sent (RFC 6455 section 7.4) or `reason` is not valid text.
        A reason longer than 123 bytes of UTF-8 is cut in the WebSocket's close frame.
        """
        check_close_code(code)
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {type(reason).__name__}")
        try:
            reason.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError("the close reason holds half of a surrogate pair; send text") from None
        if self.state is State.CLOSED or self._ending.mute:
            return
        self._ending.goodbye = Close(code, reason, "local")
        if self.state is State.CONNECTING:
            # Drop the opening request if it was not taken yet.
            self.outbox.clear()
            error = ConnectionClosed(code=code, reason=reason, initiated_by="local")
            self.fail_handshake(Signal.CLOSE_SENT, error)
            return
        self._queue_goodbye(code, reason)
        if self.state is _OPEN:
            self._start_closing()
        self._move(Signal.CLOSE_SENT)

    def _queue_goodbye(self, code: int, reason: str) -> None:
        self.outbox.put(CloseMessage(code, close_codes.cut_reason(reason)))

    # Time

    def next_deadline(self) -> float | None:
        """Return when to call `handle_timeout`, on the caller's own clock; None for never.

        It may lie in the past (minus infinity at the start of a timer): then call it at once. Ask again after
        every call that may have changed the session.
        """
        return AT_ONCE if self.budget.due else self.timers.next()

    def handle_timeout(self, now: float) -> None:
        """Act on the deadlines that have come by `now`, in seconds. Calling too early or late is safe."""
        self.check_budget(now)
        for name, late in self.timers.expired(now):
            self.run_timer(name, late)
        self.timers.settle(now)

    def run_timer(self, name: str, late: float) -> None:
        """Act on the timer `name`, which was due `late` seconds ago."""
        if name == "close":
            self.receive_lost("the peer did not answer the close in time")
        elif name == "expiry warning":
            left = min(self._times.warn_before, self._times.ttl or 0.0)
            self.events.append(Expiring(max(0.0, left - late)))
        else:
            assert name == "expiry"
            self.close(close_codes.NORMAL, SESSION_EXPIRED)

    def check_budget(self, now: float) -> None:
        """End the session if the peer has sent more than its budget by `now`."""
        if not self.budget.keeps(now) and self.state in _LISTENING:
            self.violated(close_codes.POLICY, OVER_BUDGET)

    def _start_session_timers(self) -> None:
        if self._times.ttl is None:
            return
        # A session shorter than `warn_before` gets its warning at once.
        self.timers.start("expiry warning", max(0.0, self._times.ttl - self._times.warn_before))
        if self._ends_at_ttl:
            self.timers.start("expiry", self._times.ttl)

    # For `WebSocketCore`

    def opened(self) -> None:
        """Take note that the WebSocket handshake is done: the session is OPEN."""
        self._move(Signal.OPENED)
        self.timers.stop("handshake")
        self._start_session_timers()

    def fail_handshake(self, signal: Signal, error: SpekoError) -> None:
        """End a session that never opened, by `error`."""
        self._move(signal)
        self.timers.clear()
        self.fast_path.end()
        self._ending.error = error

    def violated(self, close_code: int, message: str) -> None:
        """Close the session because the peer broke the protocol. Earlier events are kept.

        `message` may quote the peer.
        """
        message = clean(redact(message))
        error = RemoteProtocolError(message, close_code=close_code)
        if self.state is State.CONNECTING:
            self.fail_handshake(Signal.VIOLATED, error)
            return
        if not self._ending.mute:
            self.outbox.put(CloseMessage(close_code, close_codes.cut_reason(message)))
        self._finish(Signal.VIOLATED, Close(close_code, message, "local"), error)

    def too_big(self, kind: str, limit: int) -> None:
        """End the session because a message of this `kind`, text or binary, exceeds `limit` bytes."""
        self.violated(close_codes.TOO_BIG, f"the peer sent a {kind} message of more than {limit} bytes")

    # For subclasses

    def _replace_events(self, events: Iterable[EventT | Close | Expiring]) -> None:
        """Put `events` in place of those that wait to be taken, in the queue that `WebSocketCore` shares."""
        kept = [*events]
        self.events.clear()
        self.events.extend(kept)

    def _queue_text(self, text: str) -> None:
        """Queue a text message that may be sent now; `LocalProtocolError` when the outbox is full."""
        self._check_open()
        self.outbox.check_room(payload_size(text))
        self.outbox.put(text)

    def _check_open(self) -> None:
        if self.state is not _OPEN:
            raise self._not_open()

    def _not_open(self) -> SpekoError:
        """Make the error that says why nothing can be sent in this state."""
        if self._ending.error is not None:
            return self._ending.error.with_traceback(None)
        if self.state is State.CONNECTING:
            return LocalProtocolError("the session is not open yet; wait for the handshake, then send")
        if self._ending.peer_reason is not None:
            goodbye = Close(close_codes.NORMAL, self._ending.peer_reason, "remote")
        else:
            lost = Close(close_codes.ABNORMAL, _SEND_FAILED, "transport")
            goodbye = self._ending.goodbye or lost
        return _over(goodbye)

    def _move(self, signal: Signal) -> None:
        self.state = transition(self.state, signal)

    def _end_received(self, reason: str) -> None:
        """Take note that the peer announced its close and ignores everything sent from now on.

        Only the first counts, and only when we have not said goodbye ourselves.
        """
        if self.state is _OPEN:
            self._ending.peer_reason = reason
            self._start_closing()
        self._move(Signal.END_RECEIVED)

    def _start_closing(self) -> None:
        self.timers.clear()
        self.timers.start("close", self._times.close_timeout)

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        self._move(signal)
        self.timers.clear()
        self.fast_path.end()
        self._ending.closed = close
        self._ending.error = error or _over(close)
        self.events.append(close)
