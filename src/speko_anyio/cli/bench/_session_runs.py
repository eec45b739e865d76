"""One session of a load: the plan it follows, what it says and expects, and what it meets."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final, Literal

import anyio
import msgspec

from ..._net.tasks import TaskGroup
from ...audio._pcm import byte_count, duration
from ...client._session import RealtimeSession
from ...protocol.errors import SpekoError
from ...protocol.frames import Audio, Close, ErrorFrame, Frame
from .._turn import MESSAGE_SECONDS, take_turn

NOT_OPENED: Final = "not opened"

_INDEX_BYTES: Final = 8
_PATIENCE: Final = 5.0
"""Seconds for the last messages to come back."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The load. Times are in seconds."""

    kind: Literal["echo", "turns"]
    """``echo``: audio without a pause, which must come back unchanged. ``turns``: a question again and again,
    as soon as the last answer is over."""
    provider: str
    model: str
    sessions: int
    seconds: float
    """Length of each session; a turn that has begun is finished."""
    ramp: float
    """Time over which the sessions are opened, evenly spaced."""
    rate: Literal[16000, 24000]

    @property
    def message_size(self) -> int:
        """Return the bytes of PCM16 in a message."""
        return byte_count(MESSAGE_SECONDS, self.rate)

    def starts_at(self, index: int) -> float:
        """Return when session `index` is opened, from the start of the load."""
        return self.ramp * index / self.sessions

    def speaks_at(self, index: int, now: float) -> float:
        """Return when session `index` sends its first message: at `now` or up to a message's time later.

        The sessions' moments are spread evenly over the time of a message. If all spoke at the same moment,
        each message would wait for those of all the others, and we would measure a queue.
        """
        return now + (MESSAGE_SECONDS * index / self.sessions - now) % MESSAGE_SECONDS


class Outcome:
    """What one session met. Times are in seconds.

    Every sample is a pair in two arrays: when it was taken, from the start of the load, and its value.
    """

    def __init__(self) -> None:
        self.connect: float | None = None
        """Time to open the session; None if it was not opened."""
        self.first_audio: list[float] = []
        """Time to first audio of each turn; of an echo, the round trip of its first message."""
        self.when: array[float] = array("d")
        self.latency: array[float] = array("d")
        """Round trip of each message of an echo."""
        self.lateness: array[float] = array("d")
        """How long a player that started with the first message had to wait for each later one."""
        self.behind: array[float] = array("d")
        """How late each message of an echo was sent: caused by the load itself, and part of the lateness."""
        self.sent = 0
        """Messages of audio that were sent."""
        self.received = 0
        """Messages that came back whole and in order; of turns, frames of audio."""
        self.lost = 0
        """Messages of an echo that later ones overtook, or that never came although the session lived on."""
        self.broken = 0
        """Messages of an echo that came twice, too late, or with other samples than were sent."""
        self.error: str | None = None
        """Why it ended early, in one line."""
        self.end: str = NOT_OPENED

    def ended(self, close: Close | None) -> None:
        """Note how the session ended."""
        if close is not None:
            self.end = f"{close.code} {close.reason or 'without a reason'} ({close.initiated_by})"


def message(index: int, size: int) -> bytes:
    """Return `size` bytes that are unique to message `index`."""
    return (index.to_bytes(_INDEX_BYTES, "little") * (size // _INDEX_BYTES + 1))[:size]


class EchoCheck:
    """Reassembles the messages of an echo from pieces of any size, and counts what is wrong with them."""

    def __init__(self, size: int, outcome: Outcome) -> None:
        self._size = size
        self._outcome = outcome
        self._expected = 0
        self._rest = b""

    def receive(self, pcm: bytes) -> list[int]:
        """Take a piece; return the indices of the messages that it completes."""
        data = self._rest + pcm if self._rest else pcm
        size = self._size
        complete = len(data) // size * size
        self._rest = data[complete:]
        arrived = []
        for start in range(0, complete, size):
            piece = data[start : start + size]
            index = int.from_bytes(piece[:_INDEX_BYTES], "little")
            if index < self._expected or piece != message(index, size):
                self._outcome.broken += 1
                continue
            self._outcome.lost += index - self._expected
            self._expected = index + 1
            arrived.append(index)
        return arrived


async def run_echo(
    session: RealtimeSession, plan: Plan, index: int, outcome: Outcome, clock: Callable[[], float]
) -> None:
    """Send audio as session `index` of the plan, and check that the same comes back.

    `clock` returns the seconds since the start of the load.
    """
    size = plan.message_size
    sent_at: list[float] = []
    check = EchoCheck(size, outcome)
    total = round(plan.seconds / MESSAGE_SECONDS)

    async def speak() -> None:
        start = plan.speaks_at(index, anyio.current_time())
        try:
            for number in range(total):
                await anyio.sleep_until(start + number * MESSAGE_SECONDS)
                sent_at.append(clock())
                outcome.behind.append(max(0.0, sent_at[number] - sent_at[0] - number * MESSAGE_SECONDS))
                outcome.sent += 1
                await session.send_audio(message(number, size))
        except SpekoError:
            return  # the session is over: `listen` learns why
        limit.deadline = anyio.current_time() + _PATIENCE

    async def listen() -> None:
        first = 0.0
        with limit:
            async for frame in session:
                if isinstance(frame, ErrorFrame):
                    outcome.error = f"{frame.code}: {frame.message}"
                if not isinstance(frame, Audio):
                    continue
                now = clock()
                for number in check.receive(frame.pcm):
                    if not outcome.received:
                        first = now - number * MESSAGE_SECONDS
                        outcome.first_audio.append(now - sent_at[number])
                    outcome.received += 1
                    outcome.when.append(now)
                    outcome.latency.append(now - sent_at[number])
                    outcome.lateness.append(max(0.0, now - number * MESSAGE_SECONDS - first))
                if outcome.received + outcome.lost == total:
                    return

    limit = anyio.CancelScope()
    async with TaskGroup("a session's load") as tasks:
        tasks.start_soon(speak)
        await listen()
        tasks.cancel_scope.cancel()
    if session.closed is None:
        outcome.lost += outcome.sent - outcome.received - outcome.lost


async def run_turns(
    session: RealtimeSession, plan: Plan, outcome: Outcome, clock: Callable[[], float], question: bytes
) -> None:
    """Ask `question` again and again for the plan's time; a turn that has begun is finished.

    `clock` returns the seconds since the start of the load. Raises `CommandError` if no complete answer
    comes.
    """
    end = clock() + plan.seconds
    while clock() < end:
        player = _Player(outcome, clock)
        answer = await take_turn(session, question, progress=lambda done: None, show=player.show)
        answer.check_whole()
        assert answer.time_to_first_audio is not None
        outcome.sent += round(duration(question, plan.rate) / MESSAGE_SECONDS)
        outcome.first_audio.append(answer.time_to_first_audio)


class _Player:
    """Plays from the first audio on, and notes how long it waits for each later piece."""

    def __init__(self, outcome: Outcome, clock: Callable[[], float]) -> None:
        self._outcome = outcome
        self._clock = clock
        self._until: float | None = None

    def show(self, frame: Frame) -> None:
        if not isinstance(frame, Audio):
            return
        now = self._clock()
        until = now if self._until is None else self._until
        late = max(0.0, now - until)
        self._until = until + late + duration(frame.pcm, frame.sample_rate)
        self._outcome.received += 1
        self._outcome.when.append(now)
        self._outcome.lateness.append(late)
