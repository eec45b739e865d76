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
from typing import Final, Literal

from . import close_codes, framing
from .dialect import NEED_DATA, CloseMessage, Dialect, EventT, NeedData, Ping, Pong, Raw
from .engine import (
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
from .errors import HandshakeError, SpekoError
from .frames import Close, Expiring
from .masking import Entropy, MaskingKeys, mask
from .state import Signal, State, transition

_CLOSED: Final = State.CLOSED
_CONNECTING: Final = State.CONNECTING
_MASKED_AUDIO: Final = struct.Struct(">BBH4s").pack
_SMALLEST_HEADER: Final = 2
_LONG: Final = 126  # a length of two bytes follows; the length of nearly every audio frame
_VERY_LONG: Final = 127  # a length of eight bytes follows


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
        self._entropy = entropy
        self._take_key = MaskingKeys(entropy).take
        # Received and not yet parsed: `_buffer` from `_position` on, then `_tail`. Audio is cut out of
        # `_buffer`, which is immutable, in one copy; `_tail` collects until it holds what `_need` asks for.
        self._buffer = b""
        self._position = 0
        self._tail = bytearray()
        self._need = _SMALLEST_HEADER
        self._eof = False
        # Whether a message may begin here, so that a whole one may take the fast lane.
        self._lane = False
        self._mask_bit_in = 0 if client else framing.MASKED
        self._second_of_audio = self._mask_bit_in | _LONG
        self._start_of_payload = 4 if client else 8
        self._lane_limit = min(65_535, self.limits.max_message_size)
        # The frame that goes to the engine: how much of it has gone, what its message has come to.
        self._fed = 0
        self._message_is_text = False
        self._message_size = 0
        self._fragments = 0
        self._control_run = 0
        # Keepalive: any byte is a sign of life (aioquic and TCP keepalive see it the same way).
        self._heard = False
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._timers.start("handshake", handshake_timeout)

    # Bytes in

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the peer, any number, cut anywhere. Never raises: see `next_event`."""
        if type(data) is not bytes:
            data = bytes(data)
        self._heard = True
        if not self._buffer:
            self._buffer = data
        elif self._state is not _CLOSED:
            self._tail += data

    def receive_eof(self) -> None:
        """The peer will send no more. What came before is still delivered, then the end. Never raises."""
        self._eof = True

    def send_failed(self) -> None:
        """What `data_to_send` returned did not reach the peer, or perhaps only in part: nothing more can be.

        What was received before is still delivered (the peer may have said why), then `Close`. Never raises.
        """
        if self._state is _CLOSED:
            return
        self._send_failed = True
        self._outbox.clear()
        self._queued = 0
        self._eof = True
        if self._state is _CONNECTING:
            error = HandshakeError("no session: sending the handshake failed; try again")
            self._fail_handshake(Signal.SEND_FAILED, error)
        else:
            self._state = transition(self._state, Signal.SEND_FAILED)

    # Events out

    def next_event(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        if self._events:
            return self._events.popleft()
        buffer = self._buffer
        if not self._lane:
            return self._parse()
        if not buffer:
            return self._parse() if self._eof else NEED_DATA
        # The fast lane of audio: FIN, opcode 2, no extension, a length of two bytes, the whole frame here.
        position = self._position
        available = len(buffer)
        if (
            available - position > 8
            and buffer[position] == 0x82
            and buffer[position + 1] == self._second_of_audio
        ):
            start = position + self._start_of_payload
            end = start + (buffer[position + 2] << 8 | buffer[position + 3])
            # A length below 126 had to be written in one byte: such a frame is for the engine to judge.
            if end <= available and 125 < end - start <= self._lane_limit:
                if end == available and not self._tail:
                    self._buffer = b""
                    self._position = 0
                else:
                    self._position = end
                self._control_run = 0
                payload = buffer[start:end]
                event = self._receive_binary(
                    payload if self._client else mask(payload, buffer[start - 4 : start])
                )
                if event is not None:
                    return event
        return self._parse()

    @abc.abstractmethod
    def _receive_handshake(self, event: HandshakeEvent) -> None:
        """As the role has it: apply what the handshake gave."""

    def _parse(self) -> EventT | Close | Expiring | Literal[NeedData.NEED_DATA]:
        while not self._events and self._error is None:
            if not self._parse_one():
                if not self._eof:
                    return NEED_DATA
                self._apply_eof()
        return super().next_event()

    def _parse_one(self) -> bool:
        """Parse one frame, or one step of the handshake; False when there are too few bytes for it."""
        available = len(self._buffer) - self._position + len(self._tail)
        if available < self._need:
            if not available:
                self._buffer = b""
                self._position = 0
            return False
        if self._tail:
            self._buffer = self._buffer[self._position :] + self._tail
            self._position = 0
            self._tail.clear()
        if self._state is _CONNECTING:
            return self._parse_handshake()
        return self._parse_frame(available)

    def _parse_handshake(self) -> bool:
        if self._handshake_waits():
            return False
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
            self._lane
            and first in (framing.BINARY, framing.TEXT)
            and second & framing.MASKED == self._mask_bit_in
            and not self._fed
        )
        if not in_lane and not self._feed_engine(position, _SMALLEST_HEADER):
            return True
        if available < header_size:
            self._need = header_size
            return False
        if size >= _LONG:
            size = int.from_bytes(buffer[position + 2 : position + header_size], "big")
            if in_lane and (size < _LONG if header_size == 4 else not 65_535 < size < 1 << 63):
                # Not the shortest form, or a 64-bit length with its top bit set.
                in_lane = False
                self._feed_engine(position, _SMALLEST_HEADER)
        if not in_lane and not self._feed_engine(position, header_size):
            return True
        if not self._fits(first, size):
            return True
        end = header_size + (4 if second & framing.MASKED else 0) + size
        if available < end:
            self._need = end
            return False
        self._need = _SMALLEST_HEADER
        self._position = position + end
        if in_lane:
            payload = buffer[position + end - size : position + end]
            if not self._client:
                start = position + header_size
                payload = mask(payload, buffer[start : start + 4])
            self._receive_whole(first, payload)
        else:
            self._feed_engine(position, end)
            self._fed = 0
            self._count_fragment(first, size)
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
        if self._fed < upto:
            data = self._buffer[position + self._fed : position + upto]
            self._fed = upto
            for event in self._engine.receive(data):
                self._apply(event)
        return self._state is not _CLOSED

    def _fits(self, first: int, size: int) -> bool:
        """Whether the limits admit a frame of this size; checked when its header is here, before its
        payload is waited for. A breach ends the session."""
        opcode = first & 0x0F
        if opcode >= 8:  # control frames: the engine holds them to 125 bytes
            return True
        is_text = self._message_is_text if opcode == 0 else opcode == 1
        limit = self.limits.max_text_size if is_text else self.limits.max_message_size
        if self._message_size + size > limit:
            kind = "text" if is_text else "binary"
            self._too_big(kind, limit)
            return False
        if self._fragments >= self.limits.max_fragments:
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
            self._message_is_text = opcode == 1
        if first & 0x80:
            self._lane = True
            self._message_size = self._fragments = 0
        else:
            self._lane = False
            self._message_size += size
            self._fragments += 1

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
                if self._goodbye is None and not self._send_failed:
                    self._outbox.append(CloseMessage(code, ""))
                self.receive_close(code, reason)
            case Broken(close_code=code, reason=reason):
                self._violated(code, f"the peer broke the WebSocket protocol (RFC 6455): {reason}")

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
        queued = self._queued + len(payload)
        if queued > self._max_outbox:
            self._violated(close_codes.POLICY, "the peer sends pings and does not read what we send")
            return
        self._queued = queued
        self._outbox.append(Pong(payload))

    def _apply_eof(self) -> None:
        if self._send_failed:
            self.receive_lost("sending failed")
        elif self._position < len(self._buffer) or self._fragments:
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
        outbox = self._outbox
        if not outbox:
            return b""
        self._queued = 0
        if len(outbox) > 1:
            data = b"".join([self._frame(item) for item in outbox])
            outbox.clear()
            return data
        item = outbox.popleft()
        # The fast lane out, written here once more for the sake of the call it saves.
        if self._client and type(item) is bytes and 125 < (size := len(item)) < 65_536:
            key = self._take_key()
            return _MASKED_AUDIO(0x82, 0xFE, size, key) + mask(item, key)
        return self._frame(item)

    def _frame(self, item: str | bytes | CloseMessage | Ping | Pong | Raw) -> bytes:
        if isinstance(item, bytes):
            return self._write(framing.BINARY, item)
        if isinstance(item, str):
            return self._write(framing.TEXT, item.encode())
        if isinstance(item, CloseMessage):
            return self._write(framing.CLOSE, framing.close_payload(item.code, item.reason))
        if isinstance(item, Ping):
            return self._write(framing.PING, item.payload)
        if isinstance(item, Pong):
            return self._write(framing.PONG, item.payload)
        return item.data

    def _write(self, first: int, payload: bytes) -> bytes:
        if self._client:
            key = self._take_key()
            return framing.header(first, len(payload), framing.MASKED) + key + mask(payload, key)
        return framing.header(first, len(payload), 0) + payload

    # Time

    def suspend_keepalive(self) -> None:
        """The caller stops reading: no pong can be seen, so the peer's silence proves nothing."""
        self._timers.stop("ping")
        self._timers.stop("pong")

    def resume_keepalive(self) -> None:
        """The caller reads again."""
        if self._state is State.OPEN and self._ping_interval is not None:
            self._timers.stop("pong")
            self._timers.start("ping", self._ping_interval)

    def _timer_expired(self, name: str) -> None:
        if name == "handshake":
            self._handshake_timed_out()
        elif name == "ping":
            if not self._heard:
                self._outbox.append(Ping(b""))
                self._timers.start("pong", self._ping_timeout)
            else:
                self._restart_ping()
        elif name == "pong":
            if self._heard:
                self._restart_ping()
            else:
                self.receive_lost(
                    f"keepalive: not a byte from the peer {self._ping_timeout:g} s after a ping"
                )
                # It may hear us still, or whoever stands between: say why it is cut off.
                self._outbox.append(CloseMessage(close_codes.INTERNAL_ERROR, "keepalive timeout"))
        else:
            super()._timer_expired(name)

    def _restart_ping(self) -> None:
        assert self._ping_interval is not None
        self._heard = False
        self._timers.start("ping", self._ping_interval)

    @abc.abstractmethod
    def _handshake_timed_out(self) -> None:
        """As the role has it: give up."""

    # The life of a session, as the dialect has it, with what hangs on it here

    def _opened(self) -> None:
        self._state = transition(self._state, Signal.OPENED)
        self._lane = True
        self._timers.stop("handshake")
        if self._ping_interval is not None:
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
        self._lane = False
