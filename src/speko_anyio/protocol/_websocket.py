"""A WebSocket over bytes, for any message-level dialect, with a fast path for ordinary messages.

Nearly all traffic is whole, unfragmented binary messages of about 1 KiB. These, and whole text messages, take
the *fast path*: they are sliced out of the received bytes and framed directly. So are pings and pongs, which
a hostile peer can send by the thousand. Every fragment, close and malformed header goes frame by frame to
wsproto (`engine.py`), whose verdict is final. wsproto need not see the others, since they leave no trace in
its state. A differential test checks that both behave alike.

Where a comment says so, the code is written for speed (local names, no calls for a frame of audio); see
``benchmarks/codec.py`` for the measurements.
"""

from __future__ import annotations

import abc
import os
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar, assert_never

from . import _framing as framing
from . import close_codes
from ._dialect import NEED_DATA, Dialect, EventT, NeedData
from ._engine import (
    MAX_HEAD,
    NOT_UTF8,
    BinaryReceived,
    Broken,
    CloseReceived,
    Engine,
    FrameEvent,
    HandshakeEvent,
    TextReceived,
)
from ._limits import Limits
from ._masking import Entropy, mask
from ._outbox import CloseMessage, Message, WireBytes
from ._state import State
from ._timeouts import DEFAULT_TIMEOUTS
from ._timers import AT_ONCE
from .errors import SpekoError
from .frames import Close, Expiring

DialectT = TypeVar("DialectT", bound=Dialect[Any])

_CLOSED: Final = State.CLOSED
_CONNECTING: Final = State.CONNECTING
HEAD: Final = struct.Struct(">HH").unpack_from
"""Reads the first two bytes of a frame, and a length of two bytes."""
_SMALLEST_HEADER: Final = 2
_LONG: Final = 126  # means that a length of two bytes follows, as in nearly every audio frame
_LONGEST_OF_LONG: Final = 65_535
_MAX_CONTROL: Final = 125  # bytes of a control frame's payload
_PLAIN_MESSAGES: Final = (framing.BINARY, framing.TEXT)
_PLAIN_CONTROL: Final = (framing.PING, framing.PONG)
_PONG_COST: Final = 64  # approximate bytes of memory that an empty pong takes


class _Keepalive:
    """When to ping, in seconds, and whether to expect an answer."""

    __slots__ = ("interval", "suspended", "timeout")

    def __init__(self, interval: float, timeout: float) -> None:
        self.interval = interval
        self.timeout = timeout
        self.suspended = False


class _Partial:
    """What is known of an incomplete frame, and of an incomplete message."""

    __slots__ = ("fed", "fragments", "is_text", "need", "size")

    def __init__(self) -> None:
        self.need = _SMALLEST_HEADER
        """Bytes of the frame at `_position` that the next step of parsing needs."""
        self.fed = 0
        """Bytes of that frame that the engine was given."""
        self.fragments = 0
        """Frames so far of a fragmented message; 0 if none is under way."""
        self.size = 0
        """Bytes of payload in those frames."""
        self.is_text = False


def _do_nothing() -> None:
    """Do nothing: the default of callbacks."""


class WebSocketCore(abc.ABC, Generic[EventT, DialectT]):
    """One WebSocket at byte level, in one role, with the `dialect` that handles its messages.

    Bytes go in by `receive_data`, events come out of `next_event`, bytes to write out of `data_to_send`.
    Use the dialect itself for anything else, such as its verbs; subclasses delegate some of it, and do the
    handshake of their role.

    - `dialect`: fresh, in the state CONNECTING.
    - `client`: whether this is the client's side.
    - `entropy`: the source of masking keys.
    - `handshake_timeout`, `ping_interval` (None: no pings), `ping_timeout`: seconds.
    """

    def __init__(
        self,
        dialect: DialectT,
        *,
        client: bool,
        entropy: Entropy = os.urandom,
        handshake_timeout: float = DEFAULT_TIMEOUTS.handshake,
        ping_interval: float | None = DEFAULT_TIMEOUTS.ping_interval,
        ping_timeout: float = DEFAULT_TIMEOUTS.ping_timeout,
    ) -> None:
        # Keep to fewer than 30 attributes in all, those of subclasses included: up to that number CPython
        # stores them inline in the instance, which saves 0.04 microseconds per frame. A test counts them.
        self.dialect: Final = dialect
        # Shared with the dialect.
        self._events = dialect.events
        self._outbox = dialect.outbox
        self._timers = dialect.timers
        self._fast_path = dialect.fast_path
        self._client = client
        self._engine = Engine(client=client)
        self._framer = framing.Framer(client=client, entropy=entropy)
        self._outbox.frame_audio = self._framer.frame_audio
        # Received and not yet parsed: `_buffer` from `_position` on, then `_tail`. Audio is cut out of
        # `_buffer`, which is immutable, in one copy; `_tail` collects until a whole frame is here.
        self._buffer = b""
        self._position = 0
        self._tail = bytearray()
        self._partial = _Partial()
        self._budget = dialect.budget
        # Messages on a server's fast path that the budget has not counted yet, and that number at the last
        # control frame: comparing the two is cheaper than setting `_control_run` to 0 for each message.
        self._fast_messages = self._fast_messages_before = 0
        self._control_run = 0
        self._pongs = 0  # memory of the pongs that wait to be sent
        self._frames_per_turn = self._frames_left = sys.maxsize
        self._stopped_early: Callable[[], None] = _do_nothing
        # Any byte is a sign of life (aioquic and TCP keepalive see it the same way).
        self._heard = False
        self._keepalive = None if ping_interval is None else _Keepalive(ping_interval, ping_timeout)
        self._timers.start("handshake", handshake_timeout)

    # State

    @property
    def limits(self) -> Limits:
        """Bounds on what the peer may send."""
        return self.dialect.limits

    @property
    def state(self) -> State:
        """Where the session is in its life."""
        return self.dialect.state

    @property
    def closed(self) -> Close | None:
        """How the session ended; None while it lives."""
        return self.dialect.closed

    @property
    def error(self) -> SpekoError | None:
        """What every call raises after the end; None while the session lives. See `Dialect.error`."""
        return self.dialect.error

    def close(self, code: int = close_codes.NORMAL, reason: str = "") -> None:
        """Say goodbye. See `Dialect.close`."""
        self.dialect.close(code, reason)

    # Bytes in

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the peer, any number, cut anywhere. Never raises: see `next_event`."""
        if type(data) is not bytes:
            data = bytes(data)
        if not data:
            return
        self._heard = True
        if not self._buffer:
            self._buffer = data
        elif self.dialect.state is not _CLOSED:
            self._tail += data

    def receive_eof(self) -> None:
        """Take note that the peer sends no more.

        What came before is still delivered, then the end. Never raises.
        """
        self._fast_path.more_may_come = False

    def receive_lost(self, reason: str = "the connection was lost") -> None:
        """Take note that the transport died. Does nothing after the end."""
        self.dialect.receive_lost(reason)

    def send_failed(self) -> None:
        """Take note that what `data_to_send` returned did not reach the peer, or only in part.

        Nothing more can be sent. What was received before is still delivered (the peer may have said why),
        then `Close`. Never raises.
        """
        self.receive_eof()
        self.dialect.send_failed()
        # The peer's last words are here already; however slowly they are taken, none may be lost.
        self._timers.clear()

    # Events out

    def next_event(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        """Take the next event; `NEED_DATA` when there is none. See `Dialect.next_event`."""
        if self._events:
            return self._events.popleft()
        buffer = self._buffer
        fast_path = self._fast_path
        if not buffer and fast_path.more_may_come:
            return NEED_DATA
        available = len(buffer)
        if (
            available == fast_path.usual_size
            and buffer[:4] == fast_path.usual_start
            and not (self._position or self._tail)
        ):
            # The fastest path: the read is exactly one frame of audio, of the same size as the last one.
            self._buffer = b""
            # Read from a slot and bound to a local first: CPython 3.11 calls it faster that way.
            make_audio = fast_path.make_audio
            # `make_audio` is set while the fast path is open.
            if self._client:
                self._control_run = 0
                return make_audio(buffer[4:], fast_path.sample_rate)  # type: ignore[misc, no-any-return]
            self._fast_messages += 1
            return make_audio(  # type: ignore[misc, no-any-return]
                mask(buffer[8:], buffer[4:8]), fast_path.sample_rate
            )
        position = self._position
        if available - position > 8:
            # The fast path: a complete frame of audio in the usual form, recognised by unpacking four bytes.
            head, size = HEAD(buffer, position)
            start = position + fast_path.start_of_payload
            end = start + size
            # A length below 126 should have been written in one byte: the engine judges such a frame.
            if head == fast_path.head and end <= available and size > 125 and not (size & 1 or fast_path.odd):
                if end == available and not self._tail:
                    if not position:
                        fast_path.usual_size = available
                        fast_path.usual_start = buffer[:4]
                    self._buffer = b""
                    self._position = 0
                else:
                    self._position = end
                make_audio = fast_path.make_audio
                payload = buffer[start:end]
                if self._client:
                    self._control_run = 0
                    return make_audio(payload, fast_path.sample_rate)  # type: ignore[misc, no-any-return]
                self._fast_messages += 1
                return make_audio(  # type: ignore[misc, no-any-return]
                    mask(payload, buffer[start - 4 : start]), fast_path.sample_rate
                )
        return self._parse()

    @property
    def unread(self) -> bool:
        """Whether `next_event` may have more to return without another byte from the peer."""
        if self._events:
            return True
        if not self._buffer and self._fast_path.more_may_come:
            return False
        state = self.dialect.state
        if state is _CLOSED or not self._fast_path.more_may_come:
            return state is not _CLOSED  # the event of the end has not been taken yet
        available = len(self._buffer) - self._position + len(self._tail)
        return available >= self._partial.need and state is not _CONNECTING

    def yield_after(self, frames: int, call: Callable[[], None]) -> None:
        """Let `next_event` return `NEED_DATA` early, although more is `unread`, and call `call` then.

        It does so after `frames` parsed frames, not counting those on the fast path. A caller that shares its
        event loop then continues in another turn: some frames, such as pings, bring no event, and one read
        may hold thousands of them. By default there is no such limit.
        """
        self._frames_per_turn = self._frames_left = frames
        self._stopped_early = call

    @abc.abstractmethod
    def _receive_handshake(self, event: HandshakeEvent) -> None:
        """Apply an event of the handshake, as this role does."""

    def _parse(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        while not self._events and self.dialect.state is not _CLOSED:
            if not self._frames_left:
                self._frames_left = self._frames_per_turn
                self._stopped_early()
                return NEED_DATA
            self._frames_left -= 1
            if not self._parse_one():
                self._frames_left = self._frames_per_turn
                if self._fast_path.more_may_come:
                    return NEED_DATA
                self._apply_eof()
        if self.dialect.state is _CLOSED:
            self._buffer = b""
            self._position = 0
            self._tail.clear()
        return self.dialect.next_event()

    def _parse_one(self) -> bool:
        """Parse one frame, or one step of the handshake; False when there are too few bytes for it."""
        available = len(self._buffer) - self._position + len(self._tail)
        connecting = self.dialect.state is _CONNECTING
        if available < (1 if connecting else self._partial.need):
            if not available:
                # Only an empty buffer lets the next read be parsed in place, see `receive_data`.
                self._buffer = b""
                self._position = 0
            return False
        if self._tail:
            self._buffer = self._buffer[self._position :] + self._tail
            self._position = 0
            self._tail.clear()
        if connecting:
            return self._parse_handshake(available)
        return self._parse_frame(available)

    def _parse_handshake(self, available: int) -> bool:
        if self._handshake_waits():
            # The client may not send before our answer; keep what comes anyway, within the same bounds.
            if available <= MAX_HEAD:
                return False
            too_much = f"it sends more than {MAX_HEAD} bytes before the answer"
            self._receive_handshake(Broken(close_codes.POLICY, too_much))
            return True
        events, rest = self._engine.receive_head(self._buffer[self._position :])
        self._buffer = rest
        self._position = 0
        for event in events:
            self._receive_handshake(event)
        return bool(events)

    def _handshake_waits(self) -> bool:
        """Whether the next step of the handshake is ours, so that received bytes must wait."""
        return False

    def _parse_frame(self, available: int) -> bool:
        """Parse the frame at `_position`, of which `available` bytes are here (RFC 6455 section 5.2)."""
        buffer = self._buffer
        position = self._position
        first = buffer[position]
        second = buffer[position + 1]
        size = second & 0x7F
        header_size = 2
        if size >= _LONG:
            header_size = 4 if size == _LONG else 10
        is_control = first in _PLAIN_CONTROL and size <= _MAX_CONTROL
        is_plain = (
            (is_control or (first in _PLAIN_MESSAGES and not self._partial.fragments))
            and second & framing.MASKED == (0 if self._client else framing.MASKED)
            and not self._partial.fed
        )
        limits = self.dialect.limits
        if not is_plain:
            end = 6 + size if second & framing.MASKED else 2 + size
            # A short fragment is mostly here as a whole, and costs less if the engine sees it at once.
            # Otherwise it judges the header before anything waits for the payload.
            at_once = (
                size < _LONG
                and end <= available
                and self._partial.size + size <= min(limits.max_text_size, limits.max_message_size)
                and self._partial.fragments < limits.max_fragments
            )
            if not self._feed_engine(position, end if at_once else _SMALLEST_HEADER):
                return True
        if available < header_size:
            self._partial.need = header_size
            return False
        if size >= _LONG:
            size = int.from_bytes(buffer[position + 2 : position + header_size], "big")
            if is_plain and (size < _LONG if header_size == 4 else not _LONGEST_OF_LONG < size < 1 << 63):
                # Not the shortest form, or a 64-bit length with its top bit set.
                is_plain = False
                self._feed_engine(position, _SMALLEST_HEADER)
        if not is_plain and not self._feed_engine(position, header_size):
            return True
        # Whole messages of the usual size skip a call: providers send their audio as text.
        is_usual = is_plain and size <= limits.max_text_size and size <= limits.max_message_size
        if not (is_usual and limits.max_fragments) and not self._fits(first, size):
            return True
        end = header_size + (4 if second & framing.MASKED else 0) + size
        if available < end:
            self._partial.need = end
            return False
        self._partial.need = _SMALLEST_HEADER
        self._position = position + end
        if is_plain:
            payload = buffer[position + end - size : position + end]
            if not self._client:
                start = position + header_size
                payload = mask(payload, buffer[start : start + 4])
            if is_control:
                self._receive_control(first, payload)
                return True
            self._control_run = 0
            if first == framing.BINARY:
                self.dialect.receive_message(payload)
                return True
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                self._apply(Broken(close_codes.INVALID_DATA, NOT_UTF8))
            else:
                self.dialect.receive_message(text)
        else:
            self._budget.spent += 1
            self._feed_engine(position, end)
            self._partial.fed = 0
            self._count_fragment(first, size)
            if not self._partial.fragments:
                self._engine.rest()
        return True

    def _feed_engine(self, position: int, upto: int) -> bool:
        """Feed the engine the current frame up to `upto`; return False if that ended the session."""
        if self._partial.fed < upto:
            data = self._buffer[position + self._partial.fed : position + upto]
            self._partial.fed = upto
            for event in self._engine.receive(data):
                self._apply(event)
        return self.dialect.state is not _CLOSED

    def _fits(self, first: int, size: int) -> bool:
        """Return whether the limits admit a frame of this size. A breach ends the session.

        Called as soon as the header has arrived, before its payload is buffered.
        """
        opcode = first & 0x0F
        if opcode >= 8:  # control frames: the engine holds them to 125 bytes
            return True
        is_text = self._partial.is_text if opcode == 0 else opcode == 1
        limits = self.dialect.limits
        limit = self.dialect.text_limit if is_text else limits.max_message_size
        if self._partial.size + size > limit:
            self.dialect.too_big("text" if is_text else "binary", limit)
            return False
        if self._partial.fragments >= limits.max_fragments:
            self.dialect.violated(
                close_codes.POLICY, f"the peer sent a message in more than {limits.max_fragments} fragments"
            )
            return False
        return True

    def _count_fragment(self, first: int, size: int) -> None:
        """Count the frames of a fragmented message; the fast path pauses until it is complete."""
        opcode = first & 0x0F
        if opcode >= 8 or self.dialect.state is _CLOSED:
            return
        if opcode:
            self._partial.is_text = opcode == 1
        if first & 0x80:
            self._fast_path.resume()
            self._partial.size = self._partial.fragments = 0
        else:
            self._fast_path.pause()
            self._partial.size += size
            self._partial.fragments += 1

    def _apply(self, received: FrameEvent) -> None:
        """Apply one event from the engine."""
        match received:
            case BinaryReceived(data=message) | TextReceived(text=message):
                self._control_run = 0
                self.dialect.receive_message(message)
            case CloseReceived(code=code, reason=reason):
                self.dialect.receive_close(code, reason, answer=True)
            case Broken(close_code=close_code, reason=reason):
                message = f"the peer broke the WebSocket protocol (RFC 6455): {reason}"
                self.dialect.violated(close_code, message)
            case _:
                assert_never(received)

    def _receive_control(self, first: int, payload: bytes) -> None:
        """Apply a ping or pong. The engine need not see those that are well formed."""
        self._budget.spent += 1
        self._end_control_run()
        self._control_run += 1
        most = self.dialect.limits.max_control_frames
        if self._control_run > most:
            self.dialect.violated(
                close_codes.POLICY, f"the peer sent more than {most} control frames and no message"
            )
        elif first == framing.PING and self.dialect.state is State.OPEN:
            self._queue_pong(payload)

    def _end_control_run(self) -> None:
        """Begin to count control frames anew if messages came on a server's fast path."""
        if self._fast_messages != self._fast_messages_before:
            self._fast_messages_before = self._fast_messages
            self._control_run = 0

    def _queue_pong(self, payload: bytes) -> None:
        # Counted apart from what the caller queues, so that neither uses up the other's room. Even an empty
        # pong takes memory.
        self._pongs += len(payload) + _PONG_COST
        if self._pongs > self._outbox.limit:
            self.dialect.violated(close_codes.POLICY, "the peer sends pings and does not read what we send")
        else:
            self._queue_control(framing.PONG, payload)

    def _queue_control(self, first: int, payload: bytes) -> None:
        self._outbox.put(WireBytes(self._framer.frame(first, payload)))

    def _apply_eof(self) -> None:
        if self._position < len(self._buffer) or self._tail or self._partial.fragments:
            reason = "the connection was lost in the middle of a message"
        else:
            reason = "the peer hung up without a closing handshake"
        self.dialect.receive_lost(reason)

    # Bytes out

    @property
    def has_output(self) -> bool:
        """Whether anything waits to be sent. Takes nothing."""
        return bool(self._outbox.messages)

    def data_to_send(self) -> bytes:
        """Take the bytes to send, in order; empty when there are none.

        The caller must write them all, or call `send_failed`. Once `state` is CLOSED and these are
        written, close the transport: the server at once, the client too (RFC 6455 section 7.1.1 lets it
        wait for the server; after its own close frame was answered there is nothing to wait for).
        """
        outbox = self._outbox
        messages = outbox.messages
        outbox.size = 0
        if not outbox.only_audio:
            outbox.only_audio = True
            self._pongs = 0
            data = b"".join(map(self._frame, messages))
        elif len(messages) == 1:
            return messages.pop()  # type: ignore[return-value]  # a frame already, as all audio here
        else:
            data = b"".join(messages)  # type: ignore[arg-type]
        messages.clear()
        return data

    def _frame(self, message: Message) -> bytes:
        # Text is framed when it is taken, not when it is queued: until then the dialect may take it back, and
        # has to recognise it.
        if isinstance(message, str):
            return self._framer.frame(framing.TEXT, message.encode())
        if isinstance(message, CloseMessage):
            payload = framing.close_payload(message.code, message.reason)
            return self._framer.frame(framing.CLOSE, payload)
        return message

    # Time

    def next_deadline(self) -> float | None:
        """Return when to call `handle_timeout`. See `Dialect.next_deadline`."""
        budget = self._budget
        if budget.spent + self._fast_messages >= budget.look_at:
            return AT_ONCE  # because of what was received, whatever the deadline was
        return self._timers.next()

    def handle_timeout(self, now: float) -> None:
        """Act on the deadlines that have come by `now`, in seconds. Calling too early or late is safe."""
        self._end_control_run()
        self._budget.spent += self._fast_messages
        self._fast_messages = self._fast_messages_before = 0
        self.dialect.check_budget(now)
        for name, late in self._timers.expired(now):
            match name:
                case "handshake":
                    self._handshake_timed_out()
                case "ping" | "pong":
                    self._check_alive(name)
                case _:
                    self.dialect.run_timer(name, late)
        self._timers.settle(now)

    def suspend_keepalive(self) -> None:
        """Expect no answers while the caller does not read.

        No pong can be seen then, so the peer's silence proves nothing. But pings are sent on while nothing
        else waits to be sent: if the peer is gone, they let the system find out, which breaks the connection.
        """
        if self._keepalive is not None and self.dialect.state is State.OPEN:
            self._keepalive.suspended = True
            self._timers.stop("pong")
            self._restart_ping()

    def resume_keepalive(self) -> None:
        """Expect answers again: the caller reads."""
        if self._keepalive is not None and self.dialect.state is State.OPEN:
            self._keepalive.suspended = False
            self._timers.stop("pong")
            self._restart_ping()

    def _check_alive(self, name: str) -> None:
        keepalive = self._keepalive
        assert keepalive is not None
        if self._heard:
            self._restart_ping()
        elif name == "pong":
            timeout = keepalive.timeout
            self.dialect.receive_lost(f"keepalive: no byte from the peer within {timeout:g} s of a ping")
            # The peer, or a proxy in between, may still hear us: say why the connection is closed.
            self._outbox.put(CloseMessage(close_codes.INTERNAL_ERROR, "keepalive timeout"))
        elif not keepalive.suspended:
            self._queue_control(framing.PING, b"")
            self._timers.start("pong", keepalive.timeout)
        else:
            if not self.has_output:
                self._queue_control(framing.PING, b"")
            self._restart_ping()

    def _restart_ping(self) -> None:
        if self._keepalive is not None:
            self._heard = False
            self._timers.start("ping", self._keepalive.interval)

    # Handshake

    def _opened(self) -> None:
        """Take note that the handshake is done."""
        if self.dialect.limits.max_message_size >= _LONGEST_OF_LONG:
            mask_bit = 0 if self._client else framing.MASKED
            head = framing.BINARY << 8 | mask_bit | _LONG
            self._fast_path.open(head, 4 if self._client else 8)
        self._restart_ping()
        self.dialect.opened()

    @abc.abstractmethod
    def _handshake_timed_out(self) -> None:
        """Give up the handshake, as this role does."""
