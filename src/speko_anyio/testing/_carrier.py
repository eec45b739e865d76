"""`FakeCarrier`: the carrier's end of one phone call in memory, with a caller and a line that plays audio."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from random import Random
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias

import anyio
from anyio import current_time
from anyio.lowlevel import checkpoint

from .._net.contexts import never_swallows
from .._net.tasks import TaskGroup, Wakeup
from ..audio._pcm import SAMPLE_BYTES, duration
from ..audio.resample import resample
from ..protocol import close_codes
from ..protocol.frames import DIGITS
from ._carrier_wire import (
    FRAME_SECONDS,
    CallFacts,
    CarrierName,
    Clear,
    Encoding,
    Mark,
    Play,
    WireMessage,
    make_wire,
)
from ._phone_line import HeardAnswer, PhoneLine

ASGIMessage: TypeAlias = MutableMapping[str, Any]
ASGIReceive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
ASGISend: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[MutableMapping[str, Any], ASGIReceive, ASGISend], Awaitable[None]]
"""An ASGI application: a `Gateway`, Starlette, FastAPI."""

DIGIT_SECONDS: Final = 0.1
"""Seconds from one digit of `FakeCarrier.press` to the next."""

MAX_UNREAD: Final = 1500
"""The most messages that wait for an application that does not read: 30 seconds of a caller's speech."""


class CallRefused(Exception):
    """The application refused the carrier's WebSocket.

    `status` is the HTTP status, 403 if the application only closed the WebSocket, as ASGI servers answer
    then; `body` is the text of the answer.
    """

    def __init__(self, status: int, body: str = "") -> None:
        super().__init__(f"the application refused the call with {status}: {body or 'without a word'}")
        self.status: int = status
        self.body: str = body


class _Closed(NamedTuple):
    """The end of the WebSocket."""

    code: int
    reason: str


class _Sent(NamedTuple):
    """A message on its way."""

    arrives: float
    message: WireMessage | _Closed


class _Direction:
    """One direction of the WebSocket: messages arrive in order, later by the latency and some jitter."""

    def __init__(self, latency: float, jitter: float, random: Random) -> None:
        self._latency = latency
        self._jitter = jitter
        self._random = random
        self._sent: deque[_Sent] = deque()
        self.changed = Wakeup()

    def send(self, message: WireMessage | _Closed) -> None:
        delay = self._latency + (self._random.uniform(0, self._jitter) if self._jitter else 0.0)
        # One that overtakes another waits behind it.
        self._sent.append(_Sent(current_time() + delay, message))
        self.changed.ring()

    @property
    def waiting(self) -> int:
        return len(self._sent)

    def next_arrival(self) -> float | None:
        return self._sent[0].arrives if self._sent else None

    def take(self, now: float) -> _Sent | None:
        """Return the next message that has arrived by `now`."""
        return self._sent.popleft() if self._sent and self._sent[0].arrives <= now else None

    async def receive(self) -> WireMessage | _Closed:
        """Wait for the next message; at the end return that again and again."""
        while (sent := self.take(current_time())) is None:
            await _wait(self.changed, self.next_arrival())
        if isinstance(sent.message, _Closed):
            self._sent.appendleft(sent)
        return sent.message


class CarrierSocket:
    """The application's end of the carrier's WebSocket, as ASGI has it.

    It has what `answer_call` needs of a Starlette or FastAPI WebSocket: `accept`, `receive`, `send`, `close`.
    """

    def __init__(self, carrier: FakeCarrier, scope: MutableMapping[str, Any]) -> None:
        self.scope: MutableMapping[str, Any] = scope
        self._carrier = carrier
        self._connecting = True
        self._refusal: tuple[int, bytearray] | None = None
        self._settled = anyio.Event()
        self._error: CallRefused | None = None

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Accept the WebSocket: the call begins."""
        if self._connecting:
            await self.receive()
        await self.send(
            {"type": "websocket.accept", "subprotocol": subprotocol, "headers": list(headers or ())}
        )

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the WebSocket, which ends the call."""
        await self.send({"type": "websocket.close", "code": code, "reason": reason or ""})

    async def receive(self) -> ASGIMessage:
        """Wait for the next ASGI message."""
        if self._connecting:
            self._connecting = False
            await checkpoint()
            return {"type": "websocket.connect"}
        match message := await self._carrier._to_application.receive():
            case _Closed(code, reason):
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            case str():
                return {"type": "websocket.receive", "text": message}
            case _:
                return {"type": "websocket.receive", "bytes": message}

    async def send(self, message: ASGIMessage) -> None:
        """Take an ASGI message. Raises OSError once the call is over, as ASGI servers do."""
        await checkpoint()
        match message["type"]:
            case "websocket.accept":
                self._carrier._answered()
                self._settled.set()
            case "websocket.send":
                text: str | None = message.get("text")
                self._carrier._take(message["bytes"] if text is None else text)
            case "websocket.close" if self._settled.is_set():
                self._carrier._take(_Closed(message.get("code", 1000), message.get("reason") or ""))
            case "websocket.close":
                self._refuse(403, b"")
            case "websocket.http.response.start":
                self._refusal = message["status"], bytearray()
            case "websocket.http.response.body":
                assert self._refusal is not None, "the body of an answer came before its start"
                self._refusal[1].extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self._refuse(*self._refusal)
            case kind:
                raise AssertionError(f"the application sent {kind!r}, which is nothing for a WebSocket")

    def _refuse(self, status: int, body: bytes | bytearray) -> None:
        self._error = CallRefused(status, body.decode(errors="replace"))
        self._settled.set()

    def abandon(self) -> None:
        """Note that the application returned."""
        if not self._settled.is_set():
            self._refuse(500, b"the application returned without an answer")

    async def wait_answered(self) -> None:
        """Wait until the application accepted; `CallRefused` if it refused."""
        await self._settled.wait()
        if self._error is not None:
            raise self._error


class FakeCarrier:
    """The carrier's end of one phone call, with a caller's microphone and a line that plays what it gets.

    It sends the carrier's own messages: the start with the custom parameters, 20 ms of the caller's audio
    every 20 ms (silence when the caller says nothing, as carriers do), digits, the stop. It plays the
    application's audio in real time, knows to the sample what the caller has heard, and answers marks and
    clears as the carrier's documentation says. On virtual time (`virtual_backend`) a call of minutes takes
    milliseconds.

    - `carrier`: ``"twilio"``, ``"telnyx"``, ``"plivo"`` or ``"vonage"``.
    - `encoding`, `sample_rate`: of the audio in both directions, where the carrier has a choice: ``"ulaw"``,
      ``"alaw"`` or ``"l16"`` (PCM16 little-endian). ValueError if it has not.
    - `latency`: seconds that each message takes, in either direction.
    - `jitter`: up to so many seconds more, at random, by `seed`. Messages stay in order, as over TCP.
    - `delay`: seconds from the first audio on a silent line until the caller hears it: carriers buffer some.
    - `within`: seconds that the application gets to finish after the call has ended.

    Use it with ``async with``, for one call: `call` for an ASGI application, `ring` for code that takes a
    WebSocket, `connect` for anything else. At the end of the block the caller hangs up. A message that the
    carrier would not take, and an application that raises or does not finish, fail the block.

    All methods that take audio or return it use PCM16 mono at `sample_rate`.
    """

    def __init__(
        self,
        carrier: CarrierName = "twilio",
        *,
        encoding: Encoding | None = None,
        sample_rate: int | None = None,
        latency: float = 0.0,
        jitter: float = 0.0,
        delay: float = 0.0,
        seed: int = 0,
        within: float = 5.0,
    ) -> None:
        wire = make_wire(carrier, encoding, sample_rate)
        self.carrier: CarrierName = carrier
        self.sample_rate: int = wire.sample_rate
        """Samples a second on the line."""
        self.marks: list[str] = []
        """The marks that the application set, in order."""
        self.clears: list[float] = []
        """How many seconds of the audio had been played at each clear, since the clear before."""
        self.closed: tuple[int, str] | None = None
        """The close code and reason of the WebSocket; None while the call lasts."""
        self.hung_up_by: str = ""
        """Who ended the call: ``"caller"`` or ``"application"``; empty while it lasts."""
        self.dropped: float = 0.0
        """Seconds of audio that the carrier's buffer had no room for."""
        self._wire = wire
        self._within = within
        random = Random(seed)  # noqa: S311 - nothing to guess here
        self._to_application = _Direction(latency, jitter, random)
        self._to_line = _Direction(latency, jitter, random)
        self._line = PhoneLine(wire.sample_rate, delay=delay)
        self._line_changed = Wakeup()
        self._speech: deque[tuple[bytearray, anyio.Event]] = deque()
        self._facts = CallFacts({}, "", "")
        self._began: float | None = None
        self._leaving = False
        """Whether the application has closed the WebSocket, which the carrier may not know yet."""
        self._finished = anyio.Event()
        self._finished.set()
        self._tasks: TaskGroup | None = None
        self._block: Any = None

    async def __aenter__(self) -> Self:
        self._block = self._run()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._block.__aexit__(kind, error, traceback)

    @never_swallows
    async def _run(self) -> AsyncGenerator[None, None]:
        async with TaskGroup("the call") as tasks:
            self._tasks = tasks
            yield
            await self.hang_up()
            with anyio.move_on_after(self._within):
                await self._finished.wait()
            if not self._finished.is_set():
                raise AssertionError(
                    f"the call is over, and the application still runs {self._within:g} seconds later"
                )
            tasks.cancel_scope.cancel()

    # Beginning the call

    async def call(
        self,
        app: ASGIApp,
        path: str = "/",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        caller: str = "+15550100001",
        called: str = "+15550100002",
    ) -> None:
        """Open the WebSocket of an ASGI application at `path`; return once it has accepted.

        - `query`, `headers`: of the WebSocket's request.
        - `parameters`: the custom parameters in the start message.
        - `caller`, `called`: the two phone numbers, for carriers that tell.

        Raises `CallRefused` if the application does not accept.
        """
        socket = self.ring(
            path, query=query, headers=headers, parameters=parameters, caller=caller, called=called
        )
        self._finished = anyio.Event()
        self._group.start_soon(self._run_application, app, socket)
        await socket.wait_answered()

    def ring(
        self,
        path: str = "/",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        caller: str = "+15550100001",
        called: str = "+15550100002",
    ) -> CarrierSocket:
        """Return the application's end of the WebSocket, for code that takes one, such as `answer_call`.

        The call begins once it is accepted. The parameters are those of `call`.
        """
        self._begin(parameters, caller, called)
        fields = {"host": "phone.test", **{name.lower(): value for name, value in (headers or {}).items()}}
        return CarrierSocket(
            self,
            {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.5"},
                "http_version": "1.1",
                "scheme": "wss",
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "query_string": query.encode(),
                "headers": [
                    (name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()
                ],
                "subprotocols": [],
                "client": ("192.0.2.1", 5060),
                "server": ("phone.test", 443),
                "extensions": {"websocket.http.response": {}},
                "state": {},
            },
        )

    async def connect(
        self,
        receive: Callable[[], Awaitable[WireMessage | None]],
        send: Callable[[WireMessage], Awaitable[None]],
        close: Callable[[], Awaitable[None]] | None = None,
        *,
        parameters: Mapping[str, str] | None = None,
        caller: str = "+15550100001",
        called: str = "+15550100002",
    ) -> None:
        """Begin the call over a WebSocket that is open: a pair of async callables.

        `receive` returns the application's next message, None once the WebSocket is closed; `send` sends one;
        `close` closes the WebSocket when the caller hangs up. The other parameters are those of `call`.
        """
        self._begin(parameters, caller, called)
        self._finished = anyio.Event()
        self._answered()
        self._group.start_soon(self._carry_up, send, close)
        self._group.start_soon(self._carry_down, receive)
        await checkpoint()

    def _begin(self, parameters: Mapping[str, str] | None, caller: str, called: str) -> None:
        if self._facts.caller:
            raise RuntimeError("a FakeCarrier makes one call; make another one for the next")
        self._facts = CallFacts(dict(parameters or {}), caller, called)

    @property
    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError("use a FakeCarrier with `async with`: `async with FakeCarrier() as carrier:`")
        return self._tasks

    # The caller

    async def say(self, pcm: bytes, *, sample_rate: int | None = None) -> None:
        """Say something; return once all of it was sent, in real time, or the call is over.

        `sample_rate`: that of `pcm`, if it is not the line's; soxr then has to be installed.
        """
        if sample_rate is not None and sample_rate != self.sample_rate:
            pcm = resample(pcm, sample_rate, self.sample_rate)
        self._in_call()
        said = anyio.Event()
        if pcm and self.closed is None:
            self._speech.append((bytearray(pcm), said))
            await said.wait()
        else:
            await checkpoint()

    async def press(self, digits: str) -> None:
        """Press keys of the phone, one every 0.1 seconds: ``0123456789*#ABCD``."""
        self._in_call()
        for digit in digits:
            if digit not in DIGITS:
                raise ValueError(f"{digit!r} is not a key of a phone; press 0 to 9, *, # or A to D")
            if self.closed is None:
                self._to_application.send(self._wire.digit(digit, self._timestamp()))
            await anyio.sleep(DIGIT_SECONDS)

    async def hang_up(self, code: int = 1000, *, stop: bool = True) -> None:
        """End the call: the carrier's stop message, where it has one, then the close of the WebSocket.

        Only the first end of a call counts. `stop=False` with 1006 is a connection that breaks.
        """
        if self.closed is None and self._began is not None:
            message = self._wire.stop() if stop else None
            if message is not None:
                self._to_application.send(message)
            self._end("caller", code, "")
        await checkpoint()

    # The line

    @property
    def played(self) -> float:
        """Seconds of the application's audio that the line has played since the last clear."""
        self._advance()
        return self._line.played / self.sample_rate

    @property
    def buffered(self) -> float:
        """Seconds of the application's audio that wait to be played."""
        self._advance()
        return self._line.buffered

    @property
    def answers(self) -> tuple[HeardAnswer, ...]:
        """What was played, by answer: one ends when it is cleared, or nothing follows for 0.5 seconds."""
        self._advance()
        return tuple(self._line.answers)

    def heard_audio(self) -> bytes:
        """Return what the caller has heard so far, without the pauses: PCM16 mono at `sample_rate`."""
        return b"".join(answer.pcm for answer in self.answers)

    async def wait_playing(self) -> None:
        """Wait until the line plays something. AssertionError if the call ends before that."""
        while not self.buffered:
            self._still_on("plays something")
            await self._line_changed.wait()

    async def wait_played(self, seconds: float) -> None:
        """Wait until `played` reaches `seconds`. AssertionError if the call ends before that."""
        line = self._line
        samples = math.ceil(seconds * self.sample_rate - 1e-6)
        self._advance()
        while line.played < samples:
            self._still_on(f"has played {seconds:g} seconds")
            await _wait(self._line_changed, line.when(line.cleared_at + samples))
            self._advance()

    async def wait_quiet(self, seconds: float = 0.5) -> None:
        """Wait until the line has been quiet for `seconds`, or the call is over.

        Before the first answer the line is quiet from the beginning of the call on: `wait_playing` first, or
        use `listen`.
        """
        start = current_time()
        while self.closed is None:
            since = max(self._line.quiet_since, self._began if self._began is not None else start)
            if current_time() >= since + seconds:
                break
            await _wait(self._line_changed, since + seconds)
        await checkpoint()

    async def listen(self, quiet: float = 0.5) -> bytes:
        """Listen to the next answer, or the rest of this one, until `quiet` seconds without audio.

        Returns what was heard of it: PCM16 mono at `sample_rate`. AssertionError if the call ends before the
        line plays anything.
        """
        await self.wait_playing()
        before = len(self.heard_audio())
        await self.wait_quiet(quiet)
        return self.heard_audio()[before:]

    async def wait_ended(self) -> tuple[int, str]:
        """Wait until the call is over; return the WebSocket's close code and reason."""
        self._in_call()
        while self.closed is None:
            await self._line_changed.wait()
        return self.closed

    def _in_call(self) -> None:
        if not self._facts.caller:
            raise RuntimeError("there is no call yet; make one with `call`, `ring` or `connect` first")

    def _still_on(self, what: str) -> None:
        self._in_call()
        if self.closed is not None:
            raise AssertionError(f"the call ended before the line {what}; {self.hung_up_by} ended it")

    def _advance(self) -> None:
        # Outside of an event loop, after the call, nothing moves any more.
        if self._began is not None and self.closed is None:
            self._line.advance(current_time())

    # The WebSocket

    def _answered(self) -> None:
        self._began = current_time()
        for message in self._wire.opening(self._facts):
            self._to_application.send(message)
        self._group.start_soon(self._talk)
        self._group.start_soon(self._play)

    def _take(self, message: WireMessage | _Closed) -> None:
        """Take a message of the application; OSError once the WebSocket is closed."""
        if self._leaving or self.closed is not None:
            raise OSError("the WebSocket is closed")
        self._leaving = isinstance(message, _Closed)
        self._to_line.send(message)

    # Tasks

    async def _run_application(self, app: ASGIApp, socket: CarrierSocket) -> None:
        try:
            await app(socket.scope, socket.receive, socket.send)
        finally:
            socket.abandon()
            self._finished.set()
        self._leave()  # as an ASGI server does for an application that returns

    async def _carry_up(
        self, send: Callable[[WireMessage], Awaitable[None]], close: Callable[[], Awaitable[None]] | None
    ) -> None:
        while not isinstance(message := await self._to_application.receive(), _Closed):
            try:
                await send(message)
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                break  # `receive` says how it ended
        if close is not None:
            await close()

    async def _carry_down(self, receive: Callable[[], Awaitable[WireMessage | None]]) -> None:
        while (message := await receive()) is not None:
            if self.closed is None:
                self._take(message)
        self._finished.set()
        self._leave()

    def _leave(self) -> None:
        if self._began is not None and self.closed is None and not self._leaving:
            self._take(_Closed(close_codes.NORMAL, ""))

    async def _talk(self) -> None:
        """Send the caller's audio, a frame every 20 ms."""
        assert self._began is not None
        size = round(FRAME_SECONDS * self.sample_rate) * SAMPLE_BYTES
        number = 0
        while self.closed is None:
            if self._to_application.waiting > MAX_UNREAD:
                raise AssertionError("the application has not read the caller's audio for 30 seconds")
            self._to_application.send(self._wire.media(self._next_frame(size), self._timestamp()))
            number += 1
            await anyio.sleep_until(self._began + number * FRAME_SECONDS)

    def _next_frame(self, size: int) -> bytes:
        frame = bytearray()
        while self._speech and len(frame) < size:
            speech, said = self._speech[0]
            room = size - len(frame)
            frame += speech[:room]
            del speech[:room]
            if not speech:
                self._speech.popleft()
                said.set()
        return bytes(frame.ljust(size, b"\0"))

    async def _play(self) -> None:
        """Take the application's messages as they arrive, and answer marks as they are reached."""
        while self.closed is None:
            now = current_time()
            for name in self._line.reached(now):
                self._to_application.send(self._wire.marked(name))
            if (sent := self._to_line.take(now)) is not None:
                if isinstance(sent.message, _Closed):
                    self._end("application", *sent.message)
                else:
                    self._apply(sent.message, now)
                continue
            times = (self._to_line.next_arrival(), self._line.next_deadline())
            next_time = min((time for time in times if time is not None), default=None)
            await _wait(self._to_line.changed, next_time)

    def _apply(self, message: WireMessage, now: float) -> None:
        line = self._line
        match self._wire.read(message):
            case Play(pcm):
                line.advance(now)
                seconds = duration(pcm, self.sample_rate)
                most = self._wire.max_buffered
                if most is not None and line.buffered + seconds > most + FRAME_SECONDS / 2:
                    self.dropped += seconds
                else:
                    line.play(pcm, now)
            case Mark(name):
                self.marks.append(name)
                line.mark(name, now)
            case Clear():
                line.advance(now)
                self.clears.append(line.played / self.sample_rate)
                pending = line.clear(now)
                if self._wire.clear_answers_marks:
                    for name in pending:
                        self._to_application.send(self._wire.marked(name))
                if (cleared := self._wire.cleared()) is not None:
                    self._to_application.send(cleared)
        self._line_changed.ring()

    def _end(self, who: str, code: int, reason: str) -> None:
        self._line.stop(current_time())
        self.hung_up_by = who
        self.closed = (code, reason)
        self._to_application.send(_Closed(code, reason))
        for _, said in self._speech:
            said.set()
        self._speech.clear()
        self._to_line.changed.ring()
        self._line_changed.ring()

    def _timestamp(self) -> int:
        return round((current_time() - (self._began or 0.0)) * 1000)


async def _wait(wakeup: Wakeup, until: float | None) -> None:
    """Wait until the wakeup rings, or until this time."""
    if until is None or until == math.inf:
        await wakeup.wait()
        return
    with anyio.CancelScope(deadline=until):
        await wakeup.wait()
