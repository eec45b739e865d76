"""A WebSocket over bytes beneath any message-level dialect: the fast lane, and the way around it.

Nearly all traffic is whole, unfragmented binary messages of about 1 KiB. Those, and whole text messages,
take the *fast lane*: cut straight out of the received bytes, written straight into a frame. Everything
else, every control frame, fragment and malformed header, goes frame by frame to wsproto (`engine.py`), whose
verdict is final. wsproto never misses what the lane took: whole messages leave no trace in its state.
A differential test holds the two to one behaviour.

Measured on CPython 3.11 with 960-byte frames, see ``benchmarks/codec.py``: the loops below are written for
speed (local names, no calls on the way of an audio frame) where a comment says so, and plainly elsewhere.
"""

from __future__ import annotations

import abc
import struct
from typing import Final, Literal, NamedTuple

from . import close_codes, framing
from .dialect import NEED_DATA, CloseMessage, Dialect, EventT, Message, NeedData
from .engine import (
    MAX_HEAD,
    NOT_UTF8,
    BinaryReceived,
    Broken,
    CloseReceived,
    Engine,
    FrameEvent,
    HandshakeEvent,
    PingReceived,
    PongReceived,
    TextReceived,
)
from .errors import HandshakeError, LocalProtocolError, SpekoError
from .frames import Close, Expiring
from .masking import Entropy, mask
from .state import Signal, State

_CLOSED: Final = State.CLOSED
_CONNECTING: Final = State.CONNECTING
_HEAD: Final = struct.Struct(">HH").unpack_from  # first and second byte of a frame, and a length of two bytes
_SMALLEST_HEADER: Final = 2
_LONG: Final = 126  # a length of two bytes follows; the length of nearly every audio frame
_LONGEST_OF_LONG: Final = 65_535
_PONG_COST: Final = 64  # bytes that an empty pong takes in memory, nearly


class _Keepalive(NamedTuple):
    """Seconds."""

    interval: float
    timeout: float


class _Lane:
    """How audio of the usual form begins: final, binary, no extension, a length of two bytes, our role's mask
    bit. `head` is its first two bytes as a number.

    And the last read that was exactly one such frame, of whole samples: its size and its first four bytes.
    In a live conversation the next read looks the same, and is known by that at once.
    """

    __slots__ = ("head", "start_of_payload", "usual_size", "usual_start")

    def __init__(self, head: int, start_of_payload: int) -> None:
        self.head = head
        self.start_of_payload = start_of_payload
        self.usual_size = -1
        self.usual_start = b""


_CLOSED_LANE: Final = _Lane(-1, 0)
"""Nothing begins like this."""


class _Partial:
    """What is known of the frame and of the message that are not complete yet, and of what they cost."""

    __slots__ = ("fed", "fragments", "is_text", "need", "owed", "size")

    def __init__(self) -> None:
        self.need = _SMALLEST_HEADER
        """Bytes of the frame at `_position` without which parsing it gets no further."""
        self.fed = 0
        """Bytes of that frame that the engine has."""
        self.fragments = 0
        """Frames of the message in pieces so far; 0 when none is."""
        self.size = 0
        """Bytes of payload in those."""
        self.is_text = False
        self.owed = 0
        """What the pongs cost that wait to be taken."""


class ByteLevel(Dialect[EventT], abc.ABC):
    """Adds bytes to a dialect. Put it before the dialect in the bases, and call `_start_bytes` last."""

    def _start_bytes(
        self,
        *,
        client: bool,
        entropy: Entropy,
        handshake_timeout: float,
        ping_interval: float | None,
        ping_timeout: float,
    ) -> None:
        self._client = client
        self._engine = Engine(client=client)
        self._framer = framing.Framer(client=client, entropy=entropy)
        # Received and not yet parsed: `_buffer` from `_position` on, then `_tail`. Audio is cut out of
        # `_buffer`, which is immutable, in one copy; `_tail` collects until a whole frame is here.
        self._buffer = b""
        self._position = 0
        self._tail = bytearray()
        self._partial = _Partial()
        self._more_may_come = True
        self._lane = _CLOSED_LANE  # see `_open_lane`
        # In the instance, and called by way of a local name: CPython 3.11 is slower at either otherwise.
        self._make_audio = self._audio_type
        self._control_run = 0
        # Any byte is a sign of life (aioquic and TCP keepalive see it the same way).
        self._heard = False
        self._keepalive = None if ping_interval is None else _Keepalive(ping_interval, ping_timeout)
        self._timers.start("handshake", handshake_timeout)

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
        elif self._state is not _CLOSED:
            self._tail += data

    def receive_eof(self) -> None:
        """The peer will send no more. What came before is still delivered, then the end. Never raises."""
        self._more_may_come = False

    def send_failed(self) -> None:
        """What `data_to_send` returned did not reach the peer, or perhaps only in part: nothing more can be.

        What was received before is still delivered (the peer may have said why), then `Close`. Never raises.
        """
        if self._state is _CLOSED:
            return
        self._ending.send_failed = True
        self._timers.clear()
        self._outbox.clear()
        self._queued = 0
        self.receive_eof()
        if self._state is _CONNECTING:
            error = HandshakeError("no session: sending the handshake failed; try again")
            self._fail_handshake(Signal.SEND_FAILED, error)
        else:
            self._move(Signal.SEND_FAILED)

    # Events out

    def next_event(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        if self._events:
            return self._events.pop(0)
        buffer = self._buffer
        if not buffer and self._more_may_come:
            return NEED_DATA
        lane = self._lane
        available = len(buffer)
        if (
            available == lane.usual_size
            and buffer[:4] == lane.usual_start
            and not (self._position or self._odd or self._tail)
        ):
            # The fastest lane: the read is one frame of audio, of the same size as the last.
            self._buffer = b""
            self._control_run = 0
            make_audio = self._make_audio
            # `_open_lane` has made sure that the dialect has an audio type.
            return make_audio(  # type: ignore[misc, no-any-return]
                buffer[4:] if self._client else mask(buffer[8:], buffer[4:8]), self._audio_rate
            )
        position = self._position
        if available - position > 8:
            # The fast lane: a frame of audio of the usual form, the whole of it here. One unpacking tells.
            head, size = _HEAD(buffer, position)
            start = position + lane.start_of_payload
            end = start + size
            # A length below 126 had to be written in one byte: such a frame is for the engine to judge.
            if head == lane.head and end <= available and size > 125 and not (size & 1 or self._odd):
                if end == available and not self._tail:
                    if not position:
                        lane.usual_size = available
                        lane.usual_start = buffer[:4]
                    self._buffer = b""
                    self._position = 0
                else:
                    self._position = end
                self._control_run = 0
                make_audio = self._make_audio
                payload = buffer[start:end]
                # As above: where the lane is open there is an audio type.
                return make_audio(  # type: ignore[misc, no-any-return]
                    payload if self._client else mask(payload, buffer[start - 4 : start]), self._audio_rate
                )
        return self._parse()

    @abc.abstractmethod
    def _receive_handshake(self, event: HandshakeEvent) -> None:
        """As the role has it: apply what the handshake gave."""

    def _parse(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        while not self._events and self._ending.error is None:
            if not self._parse_one():
                if self._more_may_come:
                    return NEED_DATA
                self._apply_eof()
        return super().next_event()

    def _parse_one(self) -> bool:
        """Parse one frame, or one step of the handshake; False when there are too few bytes for it."""
        available = len(self._buffer) - self._position + len(self._tail)
        if available < (self._partial.need if self._state is not _CONNECTING else 1):
            if not available:
                # Only an empty buffer lets the next read be parsed in place, see `receive_data`.
                self._buffer = b""
                self._position = 0
            return False
        if self._tail:
            self._buffer = self._buffer[self._position :] + self._tail
            self._position = 0
            self._tail.clear()
        if self._state is _CONNECTING:
            return self._parse_handshake(available)
        return self._parse_frame(available)

    def _parse_handshake(self, available: int) -> bool:
        if self._handshake_waits():
            # Nobody may talk before the answer; what comes all the same is kept, within the same bounds.
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
        """Whether the next step of the handshake is ours, so that bytes must wait for it."""
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
        in_lane = (
            not self._partial.fragments
            and first in (framing.BINARY, framing.TEXT)
            and second & framing.MASKED == (0 if self._client else framing.MASKED)
            and not self._partial.fed
        )
        if not in_lane and not self._feed_engine(position, _SMALLEST_HEADER):
            return True
        if available < header_size:
            self._partial.need = header_size
            return False
        if size >= _LONG:
            size = int.from_bytes(buffer[position + 2 : position + header_size], "big")
            if in_lane and (size < _LONG if header_size == 4 else not _LONGEST_OF_LONG < size < 1 << 63):
                # Not the shortest form, or a 64-bit length with its top bit set.
                in_lane = False
                self._feed_engine(position, _SMALLEST_HEADER)
        if not in_lane and not self._feed_engine(position, header_size):
            return True
        if not self._fits(first, size):
            return True
        end = header_size + (4 if second & framing.MASKED else 0) + size
        if available < end:
            self._partial.need = end
            return False
        self._partial.need = _SMALLEST_HEADER
        self._position = position + end
        if in_lane:
            payload = buffer[position + end - size : position + end]
            if not self._client:
                start = position + header_size
                payload = mask(payload, buffer[start : start + 4])
            self._receive_whole(first, payload)
        else:
            self._feed_engine(position, end)
            self._partial.fed = 0
            self._count_fragment(first, size)
            if not self._partial.fragments:
                self._engine.rest()
        return True

    def _receive_whole(self, first: int, payload: bytes) -> None:
        if first == framing.BINARY:
            self._apply(BinaryReceived(payload))
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self._apply(Broken(close_codes.INVALID_DATA, NOT_UTF8))
        else:
            self._apply(TextReceived(text))

    def _feed_engine(self, position: int, upto: int) -> bool:
        """Give the engine the current frame up to there; False when it judged the frame to be broken."""
        if self._partial.fed < upto:
            data = self._buffer[position + self._partial.fed : position + upto]
            self._partial.fed = upto
            for event in self._engine.receive(data):
                self._apply(event)
        return self._state is not _CLOSED

    def _fits(self, first: int, size: int) -> bool:
        """Whether the limits admit a frame of this size; checked when its header is here, before its
        payload is waited for. A breach ends the session."""
        opcode = first & 0x0F
        if opcode >= 8:  # control frames: the engine holds them to 125 bytes
            return True
        is_text = self._partial.is_text if opcode == 0 else opcode == 1
        limit = self.limits.max_text_size if is_text else self.limits.max_message_size
        if self._partial.size + size > limit:
            kind = "text" if is_text else "binary"
            self._too_big(kind, limit)
            return False
        if self._partial.fragments >= self.limits.max_fragments:
            self._violated(
                close_codes.POLICY,
                f"the peer sent a message in more than {self.limits.max_fragments} fragments",
            )
            return False
        return True

    def _count_fragment(self, first: int, size: int) -> None:
        """Keep account of the message in pieces; the lane is closed until it is whole."""
        opcode = first & 0x0F
        if opcode >= 8 or self._state is _CLOSED:
            return
        if opcode:
            self._partial.is_text = opcode == 1
        if first & 0x80:
            self._open_lane()
            self._partial.size = self._partial.fragments = 0
        else:
            self._close_lane()
            self._partial.size += size
            self._partial.fragments += 1

    def _apply(self, received: FrameEvent) -> None:
        """One thing the peer said, whichever way it was parsed."""
        match received:
            case BinaryReceived(data=data):
                self._control_run = 0
                event = self._receive_binary(data)
                if event is not None:
                    self._events.append(event)
            case TextReceived(text=text):
                self._control_run = 0
                self._receive_text(text)
            case PingReceived(payload=payload):
                if self._count_control() and self._state is State.OPEN:
                    self._queue_pong(payload)
            case PongReceived():
                self._count_control()
            case CloseReceived(code=code, reason=reason):
                if self._ending.goodbye is None and not self._ending.send_failed:
                    self._put(CloseMessage(code, ""))
                self._peer_closed(code, reason)
            case _:
                reason = f"the peer broke the WebSocket protocol (RFC 6455): {received.reason}"
                self._violated(received.close_code, reason)

    def _count_control(self) -> bool:
        self._control_run += 1
        if self._control_run <= self.limits.max_control_frames:
            return True
        self._violated(
            close_codes.POLICY,
            f"the peer sent more than {self.limits.max_control_frames} control frames and no message",
        )
        return False

    def _queue_pong(self, payload: bytes) -> None:
        # Counted apart from what the caller queues: neither may use up the other's room. Even an empty pong
        # costs an object.
        self._partial.owed += len(payload) + _PONG_COST
        if self._partial.owed > self._max_outbox:
            self._violated(close_codes.POLICY, "the peer sends pings and does not read what we send")
        else:
            self._put_frame(framing.PONG, payload)

    def _apply_eof(self) -> None:
        if self._ending.send_failed:
            self.receive_lost("sending failed")
        elif self._position < len(self._buffer) or self._tail or self._partial.fragments:
            self.receive_lost("the connection was lost in the middle of a message")
        else:
            self.receive_lost("the peer hung up without a closing handshake")

    # Bytes out

    def data_to_send(self) -> bytes:
        """Take the bytes that have to be sent, in order; empty when there are none.

        Whoever takes them must write them all, or call `send_failed`. Once `state` is CLOSED and these are
        written, close the transport: the server at once, the client too (RFC 6455 section 7.1.1 lets it
        wait for the server; after its own close frame was answered there is nothing to wait for).
        """
        frames: list[bytes] = self._outbox  # type: ignore[assignment]  # see `_put_frame`
        self._queued = 0
        self._partial.owed = 0
        if len(frames) == 1:
            return frames.pop()
        data = b"".join(frames)
        frames.clear()
        return data

    def messages_to_send(self) -> list[Message]:
        """Not here: `LocalProtocolError`, since this session's messages are in `data_to_send`."""
        raise LocalProtocolError("this session runs over bytes; take data_to_send() instead")

    def next_message(self) -> Message | None:
        """Not here: `LocalProtocolError`, since this session's messages are in `data_to_send`."""
        return self.messages_to_send()[0]

    def receive_message(self, message: str | bytes) -> None:
        """Not here: `LocalProtocolError`, since this session's messages come by `receive_data`."""
        raise LocalProtocolError("this session runs over bytes; give what was read to receive_data() instead")

    def receive_close(self, code: int, reason: str = "") -> None:
        """Not here: `LocalProtocolError`, since the peer's close comes by `receive_data` too."""
        raise LocalProtocolError("this session runs over bytes; give what was read to receive_data() instead")

    def _put(self, message: Message) -> None:
        if isinstance(message, bytes):
            self._put_frame(framing.BINARY, message)
        elif isinstance(message, str):
            self._put_frame(framing.TEXT, message.encode())
        else:
            self._put_frame(framing.CLOSE, framing.close_payload(message.code, message.reason))

    def _put_frame(self, first: int, payload: bytes) -> None:
        # The outbox holds whole frames here, not messages: each is framed when it is queued.
        self._outbox.append(self._framer.frame(first, payload))

    def _drop_queued_audio(self) -> None:
        # A frame tells by its first byte what it carries, and audio is all that is sent as binary.
        frames: list[bytes] = self._outbox  # type: ignore[assignment]  # see `_put_frame`
        dropped = [frame for frame in frames if frame[0] == framing.BINARY]
        self._queued -= sum(map(framing.payload_size, dropped))
        frames[:] = [frame for frame in frames if frame[0] != framing.BINARY]

    # Time

    def suspend_keepalive(self) -> None:
        """The caller stops reading: no pong can be seen, so the peer's silence proves nothing."""
        self._timers.stop("ping")
        self._timers.stop("pong")

    def resume_keepalive(self) -> None:
        """The caller reads again."""
        if self._state is State.OPEN:
            self._timers.stop("pong")
            self._restart_ping()

    def _timer_expired(self, name: str, late: float) -> None:
        if name == "handshake":
            self._handshake_timed_out()
        elif self._keepalive is None or name not in ("ping", "pong"):
            super()._timer_expired(name, late)
        elif self._heard:
            self._restart_ping()
        elif name == "ping":
            self._put_frame(framing.PING, b"")
            self._timers.start("pong", self._keepalive.timeout)
        else:
            timeout = self._keepalive.timeout
            self.receive_lost(f"keepalive: no byte from the peer within {timeout:g} s of a ping")
            # It may hear us still, or whoever stands between: say why it is cut off.
            self._put(CloseMessage(close_codes.INTERNAL_ERROR, "keepalive timeout"))

    def _restart_ping(self) -> None:
        if self._keepalive is not None:
            self._heard = False
            self._timers.start("ping", self._keepalive.interval)

    @abc.abstractmethod
    def _handshake_timed_out(self) -> None:
        """As the role has it: give up."""

    # The life of a session, as the dialect has it, with what hangs on it here

    def _opened(self) -> None:
        self._move(Signal.OPENED)
        self._open_lane()
        self._timers.stop("handshake")
        self._restart_ping()
        self._start_session_timers()

    def _finish(self, signal: Signal, close: Close, error: SpekoError | None = None) -> None:
        super()._finish(signal, close, error)
        self._forget_input()

    def _fail_handshake(self, signal: Signal, error: SpekoError) -> None:
        super()._fail_handshake(signal, error)
        self._forget_input()

    def _forget_input(self) -> None:
        self._buffer = b""
        self._position = 0
        self._tail.clear()
        self._more_may_come = False
        self._close_lane()

    def _open_lane(self) -> None:
        """A message may begin: let audio of the usual form pass by the way of `next_event`."""
        if self._audio_type is not None and self.limits.max_message_size >= _LONGEST_OF_LONG:
            mask_bit = 0 if self._client else framing.MASKED
            self._lane = _Lane(framing.BINARY << 8 | mask_bit | _LONG, 4 if self._client else 8)

    def _close_lane(self) -> None:
        self._lane = _CLOSED_LANE
