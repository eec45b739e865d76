"""Phone lines for tests: a carrier's stream without a wire, a line to the sample, and a caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar, NamedTuple

import anyio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from speko_anyio.protocol import RemoteProtocolError
from speko_anyio.telephony import (
    CallAudio,
    CallEnded,
    CallStarted,
    CarrierEvent,
    CarrierStream,
    ConnectAnswer,
    Digit,
    Marked,
    SignedRequest,
)
from speko_anyio.testing import FakeCarrier

RATE = 8000
"""Samples a second on the line."""

START = "start"
STOP = "stop"
CLEAR = "clear"


class PlainStream(CarrierStream):
    """A carrier whose audio is bare PCM16 and whose other messages are words, such as ``mark 3``."""

    name: ClassVar[str] = "plain"

    def __init__(self, sample_rate: int = RATE) -> None:
        super().__init__()
        self.sample_rate = sample_rate

    def _receive(self, message: str | bytes) -> list[CarrierEvent]:
        if isinstance(message, bytes):
            return [CallAudio(message)]
        word, _, value = message.partition(" ")
        match word:
            case "start":
                self.started = CallStarted("plain", "call", "stream", sample_rate=self.sample_rate)
                return [self.started]
            case "mark":
                return [Marked(value)]
            case "digit":
                return [Digit(value)]
            case "stop":
                return [CallEnded(value)]
        raise RemoteProtocolError("plain sent nonsense", close_code=1007)

    def _media(self, pcm: bytes) -> bytes:
        return pcm

    def _mark(self, name: str) -> str:
        return f"mark {name}"

    def _clear(self) -> str:
        return CLEAR

    @staticmethod
    def verify(request: SignedRequest, secret: str, *, now: float = 0.0) -> None:
        raise NotImplementedError

    @staticmethod
    def connect_answer(url: str, parameters: Mapping[str, str] | None = None) -> ConnectAnswer:
        raise NotImplementedError


class MarklessStream(PlainStream):
    """The same without marks."""

    has_marks: ClassVar[bool] = False


class Line:
    """Plays the messages of a `PlainStream` in real time, to the sample, and answers their marks.

    - `begins_after`: seconds from the first audio on a silent line until it is played.
    - `answers`: whether it answers marks when their audio was played, and at a clear.
    """

    def __init__(self, *, begins_after: float = 0.0, answers: bool = True, rate: int = RATE) -> None:
        self.begins_after = begins_after
        self.answers = answers
        self.rate = rate
        self.now = 0.0
        self.heard = b""
        """All that the caller has heard."""
        self.waiting = b""
        self.since_clear = 0
        """Bytes that were played since the last clear."""
        self.clears: list[int] = []
        """`since_clear` at each clear."""
        self.marks: list[tuple[str, int]] = []
        """Marks that were not reached, and the bytes that wait before them."""
        self._credit = 0.0

    @property
    def played(self) -> float:
        """Seconds that were played since the last clear."""
        return self.since_clear / 2 / self.rate

    @property
    def buffered(self) -> float:
        return len(self.waiting) / 2 / self.rate

    def take(self, message: str | bytes) -> list[str]:
        """Take a message of the application; return the answers."""
        if isinstance(message, bytes):
            if not self.waiting:
                self._credit = -self.begins_after
            self.waiting += message
            return []
        if message == CLEAR:
            self.clears.append(self.since_clear)
            self.waiting = b""
            self.since_clear = 0
            names, self.marks = [name for name, _ in self.marks], []
            return [f"mark {name}" for name in names] if self.answers else []
        self.marks.append((message.removeprefix("mark "), len(self.waiting)))
        return self._reached()

    def next_mark(self) -> float | None:
        """Return when the next mark is reached; None if none waits."""
        if not self.marks:
            return None
        return self.now + max(0.0, self.marks[0][1] / 2 / self.rate - self._credit)

    def advance(self, now: float) -> list[str]:
        """Play until `now`; return the marks that were reached."""
        self._credit += now - self.now
        self.now = now
        if not self.waiting:
            return self._reached()
        size = min(len(self.waiting), 2 * max(0, int(self._credit * self.rate + 1e-6)))
        self._credit -= size / 2 / self.rate
        self.heard += self.waiting[:size]
        self.waiting = self.waiting[size:]
        self.since_clear += size
        self.marks = [(name, position - size) for name, position in self.marks]
        return self._reached()

    def _reached(self) -> list[str]:
        reached = [name for name, position in self.marks if position <= 0]
        self.marks = self.marks[len(reached) :]
        return [f"mark {name}" for name in reached] if self.answers else []


class WholeCall(NamedTuple):
    """What a caller has heard in `call_through`, PCM16 at the line's rate, and when the interruption came."""

    greeting: bytes
    answers: list[bytes]
    """To the two questions, to the interruption, and to the keys."""
    played: float
    """Seconds of the interrupted answer that the line had played at the clear."""


async def call_through(
    carrier: FakeCarrier,
    questions: Sequence[bytes],
    *,
    interrupt_after: float = 1.5,
    keys: str = "12#",
) -> WholeCall:
    """Be the caller: hear the greeting, ask two questions, cut in on the third answer, press keys, hang up.

    `questions`: four, of which the third has an answer that is longer than `interrupt_after` seconds, and the
    fourth interrupts it; PCM16 at the line's rate.
    """

    async def listen() -> bytes:
        await carrier.listen()
        return carrier.answers[-1].pcm  # all of it: it may have begun before this was called

    greeting = await listen()
    answers: list[bytes] = []
    for question in questions[:2]:
        await carrier.say(question)
        answers.append(await listen())
    await carrier.say(questions[2])
    await carrier.wait_playing()
    await carrier.wait_played(carrier.played + interrupt_after)
    await carrier.say(questions[3])
    answers.append(await listen())
    (interrupted,) = [answer for answer in carrier.answers if answer.cleared]
    await carrier.press(keys)
    answers.append(await listen())
    await carrier.hang_up()
    return WholeCall(greeting, answers, interrupted.played)


@asynccontextmanager
async def dialled(url: str, headers: Mapping[str, str] | None = None) -> AsyncGenerator[FakeCarrier, None]:
    """Call a server over a real WebSocket, as Twilio does; yields the caller's end."""
    opening = connect(url, additional_headers=headers)
    websocket = await anyio.to_thread.run_sync(opening.__enter__)

    async def receive() -> str | bytes | None:
        try:
            return await anyio.to_thread.run_sync(websocket.recv)
        except ConnectionClosed:
            return None

    async def send(message: str | bytes) -> None:
        try:
            await anyio.to_thread.run_sync(websocket.send, message)
        except ConnectionClosed:
            raise anyio.BrokenResourceError from None

    async def close() -> None:
        await anyio.to_thread.run_sync(websocket.close)

    try:
        async with FakeCarrier("twilio") as carrier:
            await carrier.connect(receive, send, close)
            yield carrier
    finally:
        websocket.close()
