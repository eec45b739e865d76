"""The client's side of a WebSocket with any dialect: the opening request, and what its answer means."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar, assert_never

from . import _codec as codec
from ._commands import TextRole, Update, UpgradeRequest
from ._dialect import NEED_DATA
from ._engine import Accepted, Broken, HandshakeEvent, Refused
from ._headers import Headers
from ._masking import Entropy, mask
from ._outbox import WireBytes
from ._pcm import Buffer
from ._session import ClientDialect
from ._state import Signal, State
from ._timeouts import DEFAULT_TIMEOUTS
from ._websocket import HEAD, WebSocketCore
from .capabilities import Capabilities
from .errors import HandshakeError
from .frames import Audio, Frame
from .url import parse_url

_number: Final = int.from_bytes

_START_OF_PAYLOAD: Final = 4
"""Bytes before the payload of a server's frame in the usual form: it has no masking key."""


@functools.lru_cache(maxsize=32)
def _cutter(size: int) -> Callable[[memoryview], Iterator[tuple[bytes, bytes]]]:
    """Return a function that splits frames in the usual form with this payload size: headers, payloads."""
    return struct.Struct(f"{_START_OF_PAYLOAD}s{size}s").iter_unpack


ClientDialectT = TypeVar("ClientDialectT", bound=ClientDialect)


class ClientWebSocket(WebSocketCore[Frame, ClientDialectT]):
    """A client's WebSocket and its dialect, to which it delegates the verbs.

    - `url`: where to connect, ``ws://`` or ``wss://``.
    - `subprotocols`: those to offer, in order of preference; may be empty.
    - `headers`: further HTTP fields of the opening request.
    - `secrets`: parts of the request that no error may show.
    - `advice`: what to do when the server refuses the session, for the error's text.
    - `handshake_timeout`, `ping_interval`, `ping_timeout`, `entropy`: see `ClientConnection`.

    The opening request is queued at once. `LocalProtocolError` when the URL or a header can't be used.
    """

    def __init__(
        self,
        dialect: ClientDialectT,
        url: str,
        *,
        subprotocols: Sequence[str] = (),
        headers: Headers = (),
        secrets: Iterable[str] = (),
        advice: str,
        handshake_timeout: float = DEFAULT_TIMEOUTS.handshake,
        ping_interval: float | None = DEFAULT_TIMEOUTS.ping_interval,
        ping_timeout: float = DEFAULT_TIMEOUTS.ping_timeout,
        entropy: Entropy = os.urandom,
    ) -> None:
        super().__init__(
            dialect,
            client=True,
            entropy=entropy,
            handshake_timeout=handshake_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        self._advice = advice
        where = parse_url(url)
        request = self._engine.request(
            host=where.host_header,
            target=where.target,
            subprotocols=subprotocols,
            headers=headers,
            secrets=secrets,
            entropy=entropy,
        )
        self._outbox.put(WireBytes(request))

    # Handshake

    def _receive_handshake(self, event: HandshakeEvent) -> None:
        assert not isinstance(event, UpgradeRequest), "only a server receives a request"
        match event:
            case Accepted():
                self._opened()
            case Refused(status=status, body=body):
                self._refused(status, body)
            case Broken(close_code=close_code, reason=reason):
                message = f"the server's answer is not a WebSocket handshake: {reason}"
                self.dialect.violated(close_code, message)
            case _:
                assert_never(event)

    def _refused(self, status: int, body: str) -> None:
        # A server may echo what it refused; no secret must come out in an error.
        said = self._engine.redact(codec.error_text(body))
        because = f" ({said})" if said else ""
        error = HandshakeError(
            f"the server refused the session with HTTP {status}{because}; {self._advice}", status=status
        )
        self.dialect.fail_handshake(Signal.REFUSED, error)

    def _apply_eof(self) -> None:
        if self.state is State.CONNECTING and (refusal := self._engine.handshake_eof()) is not None:
            self._refused(refusal.status, refusal.body)
        else:
            super()._apply_eof()

    def _handshake_timed_out(self) -> None:
        error = HandshakeError("no session: the server did not answer the handshake in time; try again")
        self.dialect.fail_handshake(Signal.LOST, error)

    # Audio in

    def receive_audio(self, data: bytes) -> Audio | None:
        """Take a read that is exactly one frame of audio of the same size as the last; return its event.

        Nearly every read of a live conversation is. For any other, this does nothing and returns None: call
        `receive_data` instead.
        """
        fast_path = self._fast_path
        if (
            len(data) != fast_path.usual_size
            or data[:4] != fast_path.usual_start
            or self._buffer
            or self._events
        ):
            return None
        self._heard = True
        self._control_run = 0
        make_audio = fast_path.make_audio
        # `make_audio` is set while the fast path is open.
        return make_audio(data[4:], fast_path.sample_rate)  # type: ignore[misc, no-any-return]

    def next_events(self, most: int) -> list[Frame]:
        """Take the next event and the ordinary audio right behind it, at most `most` events together.

        Returns an empty list where `next_event` returns `NEED_DATA`. Otherwise the same as calling that again
        and again: ordinary audio changes nothing in the session.
        """
        event = self.next_event()
        if event is NEED_DATA:
            return []
        events = [event]
        fast_path = self._fast_path
        if self._events or fast_path.odd:
            return events
        # Frames are recognised as in `next_event`, and C code cuts out all those of one size in a row.
        buffer = self._buffer
        position = self._position
        available = len(buffer)
        make_audio = fast_path.make_audio
        sample_rate = fast_path.sample_rate
        while available - position > 8 and len(events) < most:
            found, size = HEAD(buffer, position)
            length = _START_OF_PAYLOAD + size
            if found != fast_path.head or position + length > available or size <= 125 or size & 1:
                break
            start = buffer[position : position + _START_OF_PAYLOAD]
            fitting = min((available - position) // length, most - len(events))
            frames = memoryview(buffer)[position : position + fitting * length]
            for begin, pcm in _cutter(size)(frames):
                if begin != start:
                    break
                events.append(make_audio(pcm, sample_rate))  # type: ignore[misc]
                position += length
        if position != self._position:
            self._control_run = 0
            if position == available and not self._tail:
                self._buffer = b""
                position = 0
            self._position = position
        return events

    # Delegated to the dialect

    def send_audio(self, pcm: Buffer) -> None:
        """See `ClientDialect.send_audio`."""
        # The fast path for output, taken fifty times a second per session: audio of the usual form that may
        # be sent now is framed right here. All other audio goes to the dialect, which sends it or says why
        # not.
        framer = self._framer
        outbox = self._outbox
        if (
            type(pcm) is bytes
            and ((size := len(pcm)) == framer.shape.size or framer.reshape(size))
            and (queued := outbox.size + size) <= outbox.audio_limit
        ):
            outbox.size = queued
            shape = framer.shape
            # Bind the function to a local first: calling an attribute is slower on CPython 3.11.
            if shape.ones:
                # Mask header, key and payload as one integer: prepending the header afterwards would cost a
                # copy.
                take_number = framer.keys.take_number
                frame = _number(shape.start + pcm, "little") ^ take_number() * shape.ones
                outbox.messages.append(frame.to_bytes(shape.length, "little"))
            else:
                take_key = framer.keys.take
                (key,) = take_key()
                outbox.messages.append(shape.head + key + mask(pcm, key))
        else:
            self.dialect.send_audio(pcm)

    def commit(self) -> None:
        """See `ClientDialect.commit`."""
        self.dialect.commit()

    def clear(self) -> None:
        """See `ClientDialect.clear`."""
        self.dialect.clear()

    def end_turn(self) -> None:
        """See `ClientDialect.end_turn`."""
        self.dialect.end_turn()

    def interrupt(self) -> None:
        """See `ClientDialect.interrupt`."""
        self.dialect.interrupt()

    def send_tool_result(self, call_id: str, output: str) -> None:
        """See `ClientDialect.send_tool_result`."""
        self.dialect.send_tool_result(call_id, output)

    def send_text(self, text: str, *, role: TextRole = "user", respond: bool | None = None) -> None:
        """See `ClientDialect.send_text`."""
        self.dialect.send_text(text, role=role, respond=respond)

    def send_image(self, data: bytes, *, mime_type: str, respond: bool = False) -> None:
        """See `ClientDialect.send_image`."""
        self.dialect.send_image(data, mime_type=mime_type, respond=respond)

    def respond(self, instructions: str = "") -> None:
        """See `ClientDialect.respond`."""
        self.dialect.respond(instructions)

    def say(self, text: str) -> None:
        """See `ClientDialect.say`."""
        self.dialect.say(text)

    def update(self, update: Update) -> None:
        """See `ClientDialect.update`."""
        self.dialect.update(update)

    def report_played(self, seconds: float) -> bool:
        """See `ClientDialect.report_played`."""
        return self.dialect.report_played(seconds)

    def send_provider_event(self, event: str) -> None:
        """See `ClientDialect.send_provider_event`."""
        self.dialect.send_provider_event(event)

    def watch_provider(self, tell: Callable[[str], None]) -> None:
        """See `ClientDialect.watch_provider`."""
        self.dialect.watch_provider(tell)

    @property
    def capabilities(self) -> Capabilities:
        """What the session can do. See `ClientDialect.capabilities`."""
        return self.dialect.capabilities

    @property
    def input_sample_rate(self) -> int:
        """Samples a second of the audio that `send_audio` takes."""
        return self.dialect.input_sample_rate

    @property
    def output_sample_rate(self) -> int:
        """Samples a second of the audio in `Audio` frames."""
        return self.dialect.output_sample_rate

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self.dialect.open_calls

    @property
    def odd_fields(self) -> int:
        """How many fields of the peer's messages had an odd value. See `ClientDialect.odd_fields`."""
        return self.dialect.odd_fields
