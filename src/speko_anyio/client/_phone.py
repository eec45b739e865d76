"""Phone calls: joins the media stream that a carrier opens to this server to any session.

All rules are in `PhoneBridge`. Five tasks serve a call while it is joined: one reads the carrier's messages,
one writes them, one passes events to the session, one takes its frames, and one keeps time. A sixth calls the
handler of digits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from inspect import isawaitable
from math import inf
from typing import Any, Final, Protocol

import anyio
from anyio.lowlevel import checkpoint

from .._net.asgi import close_of
from .._net.contexts import never_swallows
from .._net.tasks import TaskGroup, Wakeup, logger
from ..audio._barge_in import BargeInDetector
from ..audio.resample import Resampler
from ..errors import ConfigurationError
from ..protocol import close_codes
from ..protocol._dialect import NEED_DATA
from ..protocol._outbox import CloseMessage
from ..protocol.errors import (
    ConnectionClosed,
    HandshakeError,
    LocalProtocolError,
    RemoteProtocolError,
)
from ..protocol.frames import Frame, Interruption
from ..telephony import (
    CARRIERS,
    CallEnded,
    CallStarted,
    CarrierStream,
    Digit,
    PhoneBridge,
    PhoneStats,
    SpeechDetector,
    deliver,
)
from ._session import RealtimeSession

DigitHandler = Callable[[str], Awaitable[object] | object]
"""Takes the key that the caller pressed: one of ``0123456789*#ABCD``."""

MakeDetector = Callable[[int], SpeechDetector]
"""Makes the detector of a call that notices when the caller talks over the assistant, for a sample rate."""

START_TIMEOUT: Final = 10.0
"""Seconds that a carrier gets to start the media stream, once its WebSocket is accepted."""

MAX_EARLY: Final = 64
"""Messages that may come before that. Carriers send one at most, and a flood must not outlast the time."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that the closing of the carrier's WebSocket may take."""

_LAST_WORDS: Final = 1.0
"""Seconds to wait for the carrier's last message, once its WebSocket takes nothing more: it may say that the
caller has hung up."""

_MAX_DIGITS: Final = 64
"""Keys that wait for a handler; further ones are dropped."""

_MESSAGES_PER_TURN: Final = 16
"""Messages that are read or written in one turn of the event loop, if none of them has to wait."""


class PhoneWebSocket(Protocol):
    """The server's end of a WebSocket: Starlette's and FastAPI's `WebSocket`."""

    async def accept(self) -> None: ...
    async def receive(self) -> MutableMapping[str, Any]: ...
    async def send(self, message: MutableMapping[str, Any], /) -> None: ...
    async def close(self, code: int = ..., reason: str | None = ...) -> None: ...


class PhoneCall:
    """A call that a carrier has connected. `answer_call` makes it."""

    def __init__(self, websocket: PhoneWebSocket, stream: CarrierStream) -> None:
        self._websocket = websocket
        self._stream = stream
        self._barge_in: SpeechDetector | None = None
        self._bridge: PhoneBridge | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<PhoneCall {self._stream.name} {self.started.call_id}>"

    @property
    def started(self) -> CallStarted:
        """What the carrier told of the call: its ids, the numbers if it tells them, your parameters."""
        assert self._stream.started is not None, "answer_call waits for it"
        return self._stream.started

    @property
    def ended(self) -> CallEnded | None:
        """How the carrier's side ended; None while the call lasts, and if the session ended it."""
        return None if self._bridge is None else self._bridge.ended

    @property
    def stats(self) -> PhoneStats:
        """What the call has lost since it was joined."""
        return PhoneStats() if self._bridge is None else self._bridge.stats

    async def join(self, session: RealtimeSession, *, on_digit: DigitHandler | None = None) -> None:
        """Let the caller talk with `session`, until one of them ends.

        When the caller hangs up, the session is closed with code 1000 and the reason ``caller_hung_up``, or
        ``line_lost`` if the carrier's WebSocket is lost. When the session ends, its last
        audio is played, for 30 seconds at most, and then the carrier's WebSocket is closed, which hangs up.

        - `on_digit`: called with each key that the caller presses, one at a time; it may be async. Its errors
          come out of here, except that the session is over. Without it, the keys become a text of the user,
          up to ``#`` or a pause of 1.5 seconds, that the model answers.

        Frames go to the other readers of the session too. Call it once, while the session is open. Cancelled,
        it stops at once; the session ends with its own block, and the call with that of `answer_call`.

        Raises what ended the session when its service broke the protocol, `RemoteProtocolError` when the
        carrier did, and `HandshakeError` when the session is not ready in time.
        """
        if self._bridge is not None:
            raise RuntimeError("a call is joined to one session, once; answer the next call for another one")
        if not isinstance(session, RealtimeSession):
            raise TypeError(
                f"join takes an open session, not {type(session).__name__}; write `async with "
                "...connect(...) as session` first"
            )
        self._bridge = PhoneBridge(
            self._stream,
            input_sample_rate=session.input_sample_rate,
            output_sample_rate=session.output_sample_rate,
            make_resampler=Resampler,
            digits="text" if on_digit is None else "event",
            barge_in=self._barge_in,
        )
        failure = await _JoinedCall(self, self._bridge, session, on_digit).run()
        if failure is not None:
            await self._close(failure.close_code, "")
            raise failure
        await self._close(close_codes.NORMAL, "")

    # The carrier's WebSocket. What a server raises when it is gone differs, so any error says that.

    async def _answer(self, start_timeout: float) -> None:
        with anyio.move_on_after(start_timeout):
            # An application may have accepted it before, to look at its headers.
            state = getattr(self._websocket, "application_state", None)
            if getattr(state, "name", "") != "CONNECTED":
                await self._accept()
            for _ in range(MAX_EARLY):
                if not isinstance(message := await self._receive(), str | bytes):
                    break
                self._stream.receive_message(message)
                if self._stream.started is not None:
                    return
            else:
                raise HandshakeError(
                    f"{self._stream.name} did not start the call within {MAX_EARLY} messages; "
                    f"check that it is {self._stream.name} that connects to this WebSocket"
                )
            raise HandshakeError(
                f"{self._stream.name} closed the WebSocket before the call started; "
                "the caller may have hung up"
            )
        raise HandshakeError(
            f"{self._stream.name} did not start the call within {start_timeout:g} s; "
            f"use the URL of this WebSocket for a media stream of {self._stream.name} in both directions"
        )

    async def _accept(self) -> None:
        try:
            await self._websocket.accept()
        except Exception as error:
            raise HandshakeError(
                f"the WebSocket of {self._stream.name} could not be accepted; the carrier may have left"
            ) from error

    async def _receive(self) -> str | bytes | CloseMessage | None:
        """Return the carrier's next message, or how it closed; None if the connection is lost."""
        try:
            message = await self._websocket.receive()
        except Exception:  # noqa: BLE001 - see above
            return None
        if message["type"] != "websocket.receive":
            return close_of(message)
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def _send(self, message: str | bytes) -> bool:
        kind = "text" if isinstance(message, str) else "bytes"
        try:
            await self._websocket.send({"type": "websocket.send", kind: message})
        except Exception:  # noqa: BLE001 - see above
            return False
        return True

    async def _close(self, code: int, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            with suppress(Exception):
                await self._websocket.close(code=code, reason=reason)


@never_swallows
async def answer_call(
    websocket: PhoneWebSocket,
    carrier: str = "twilio",
    *,
    barge_in: bool | MakeDetector = False,
    start_timeout: float = START_TIMEOUT,
) -> AsyncGenerator[PhoneCall, None]:
    """Accept the WebSocket of a carrier's media stream, and wait until the call starts::

        @app.websocket("/call")
        async def call(websocket: WebSocket) -> None:
            async with answer_call(websocket, "twilio") as call:
                async with speko.realtime.connect(...) as session:
                    await call.join(session)

    - `websocket`: Starlette's or FastAPI's; it may be accepted already.
    - `carrier`: ``"twilio"``, ``"telnyx"``, ``"plivo"`` or ``"vonage"``.
    - `barge_in`: whether to stop the assistant here as soon as the caller talks over it, and to interrupt the
      session then. By default only the session does that: models that detect turns hear more than a detector
      of loudness, but it takes a round trip, and some services never do. True for a `BargeInDetector` of
      `speko_anyio.audio`; or a function that makes a detector for a sample rate, once in a call.
    - `start_timeout`: seconds that the carrier gets to start the call.

    Anybody who knows the URL can open the WebSocket: check the carrier's signature first, see
    `CarrierStream.verify`. Leaving the block hangs up. Nothing is read from the carrier until the call is
    joined to a session.

    Raises `ConfigurationError` for an unknown carrier, TypeError for what is not such a WebSocket,
    `HandshakeError` when the call does not start, and `RemoteProtocolError` when the carrier breaks its
    protocol.
    """
    if carrier not in CARRIERS:
        raise ConfigurationError(f"unknown carrier {carrier!r}; choose from {', '.join(sorted(CARRIERS))}")
    if not all(hasattr(websocket, method) for method in ("accept", "receive", "send", "close")):
        raise TypeError(
            "answer_call takes the WebSocket of FastAPI or Starlette that the carrier has opened, not "
            f"{type(websocket).__name__}"
        )
    call = PhoneCall(websocket, CARRIERS[carrier]())
    code = close_codes.INTERNAL_ERROR
    try:
        await call._answer(start_timeout)
        if barge_in:
            make = BargeInDetector if barge_in is True else barge_in
            call._barge_in = make(call.started.sample_rate)
        yield call
        code = close_codes.NORMAL
    except RemoteProtocolError as error:
        code = error.close_code
        raise
    except anyio.get_cancelled_exc_class():
        code = close_codes.GOING_AWAY
        raise
    finally:
        await call._close(code, "")


class _JoinedCall:
    """A call and a session while they are joined."""

    def __init__(
        self,
        call: PhoneCall,
        bridge: PhoneBridge,
        session: RealtimeSession,
        on_digit: DigitHandler | None,
    ) -> None:
        self._call = call
        self._bridge = bridge
        self._session = session
        self._on_digit = on_digit
        self._failure: RemoteProtocolError | None = None
        self._cuts_in = False
        """Whether an interruption waits among the session's frames."""
        self._deadline: float | None = None
        # What each task waits for
        self._over = Wakeup()
        self._clock = Wakeup()
        self._events = Wakeup()
        self._messages = Wakeup()
        self._room = Wakeup()
        self._pressed = Wakeup()
        self._digits: deque[str] = deque()

    async def run(self) -> RemoteProtocolError | None:
        """Run until both are over; return how one of them broke its protocol, if it did."""
        bridge = self._bridge
        async with TaskGroup(f"call {self._call.started.call_id}") as tasks:
            for work in (self._read, self._write, self._keep_time, self._listen, self._pass_events):
                tasks.start_soon(work)
            if self._on_digit is not None:
                tasks.start_soon(self._handle_digits, self._on_digit)
            while not bridge.done:
                await self._over.wait()
            if bridge.goodbye is not None:
                await self._session.close(bridge.goodbye.code, bridge.goodbye.reason)
            tasks.cancel_scope.cancel()
        return bridge.error or self._failure

    def _changed(self) -> None:
        """Wake the tasks that act on a change of the bridge; the writer only if it may not wait."""
        self._events.ring()
        if self._bridge.must_clear:
            self._messages.ring()
        if self._bridge.next_deadline() != self._deadline:
            self._clock.ring()
        if self._bridge.done:
            self._over.ring()

    async def _read(self) -> None:
        received = 0
        while not self._bridge.done:
            received += 1
            if not received % _MESSAGES_PER_TURN:
                await checkpoint()
            message = await self._call._receive()
            if message is None:
                self._bridge.receive_lost()
            elif isinstance(message, CloseMessage):
                self._bridge.receive_close(message.code, message.reason)
            else:
                self._bridge.receive_message(message, anyio.current_time())
            self._changed()

    async def _write(self) -> None:
        sent = 0
        while True:
            while (message := self._bridge.next_message(anyio.current_time())) is None:
                self._changed()
                await self._messages.wait()
            self._room.ring()
            sent += 1
            if not sent % _MESSAGES_PER_TURN:
                await checkpoint()
            if not await self._call._send(message):
                await anyio.sleep(_LAST_WORDS)
                self._bridge.receive_lost()
                self._changed()
                return

    async def _keep_time(self) -> None:
        while True:
            self._deadline = self._bridge.next_deadline()
            with anyio.CancelScope(deadline=inf if self._deadline is None else self._deadline):
                await self._clock.wait()
            self._bridge.handle_timeout(anyio.current_time())
            self._messages.ring()
            self._changed()

    async def _listen(self) -> None:
        bridge, session = self._bridge, self._session
        async with session.frames() as frames:
            # A session that is over takes no handlers, but may have frames left.
            stop = session.on(self._look_ahead) if session.closed is None else None
            try:
                async for frame in frames:
                    if isinstance(frame, Interruption):
                        self._cuts_in = False
                    self._send_frame(frame)
                    while bridge.session_must_wait and not self._cuts_in:
                        await self._room.wait()
            except RemoteProtocolError as error:
                self._failure = error
            finally:
                if stop is not None:
                    stop()
        if session.closed is not None:
            self._send_frame(session.closed)  # unless it was among the frames

    def _send_frame(self, frame: Frame) -> None:
        self._bridge.send_frame(frame, anyio.current_time())
        self._messages.ring()
        self._changed()

    def _look_ahead(self, frame: Frame) -> None:
        # It has discarded the audio ahead of it, so the next frames are taken without any room for audio.
        if isinstance(frame, Interruption):
            self._cuts_in = True
            self._room.ring()

    async def _pass_events(self) -> None:
        bridge, session = self._bridge, self._session
        try:
            await session._wait_ready()
            while True:
                while (event := bridge.next_event()) is not NEED_DATA:
                    if isinstance(event, Digit):
                        self._press(event.digit)
                    elif (sending := deliver(event, session)) is not None:
                        await self._send(sending)
                await self._events.wait()
        except (ConnectionClosed, RemoteProtocolError):
            return  # `_listen` learns it, too

    @staticmethod
    async def _send(sending: Awaitable[None]) -> None:
        try:
            await sending
        except LocalProtocolError as error:
            logger.warning("the session does not take what the caller keyed in or said: %s", error)

    def _press(self, digit: str) -> None:
        if len(self._digits) < _MAX_DIGITS:
            self._digits.append(digit)
            self._pressed.ring()
        else:
            logger.warning("on_digit is too slow; a key that the caller pressed was dropped")

    async def _handle_digits(self, handler: DigitHandler) -> None:
        try:
            while True:
                while self._digits:
                    result = handler(self._digits.popleft())
                    if isawaitable(result):
                        await result
                await self._pressed.wait()
        except ConnectionClosed:
            if self._session.closed is None:
                raise  # of something else
