"""A session that sends audio without a pause and checks that the same comes back."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from ...client.session import RealtimeSession
from ...protocol.errors import SpekoError
from ...protocol.frames import Audio, ErrorFrame
from .outcome import Outcome
from .plan import MESSAGE_SECONDS, Plan

_INDEX_BYTES = 8
_PATIENCE = 5.0
"""Seconds for the last messages to come back."""


def message(index: int, size: int) -> bytes:
    """`size` bytes that are no other message's."""
    return (index.to_bytes(_INDEX_BYTES, "little") * (size // _INDEX_BYTES + 1))[:size]


class EchoCheck:
    """Takes what comes back, in pieces of any size, and tells of each message when it is whole."""

    def __init__(self, size: int, outcome: Outcome) -> None:
        self._size = size
        self._outcome = outcome
        self._expected = 0
        self._rest = b""

    def receive(self, pcm: bytes) -> list[int]:
        """The indices of the messages that are complete with this."""
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
    """Be session `index` of the plan: send for its time, at the speed of speech; `clock` gives seconds from
    the beginning."""
    size = plan.message_size
    sent_at: list[float] = []
    check = EchoCheck(size, outcome)
    total = round(plan.seconds / MESSAGE_SECONDS)
    failures: list[SpekoError] = []

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
            return  # the session is over: `listen` is told so too, and why
        limit.deadline = anyio.current_time() + _PATIENCE

    async def listen() -> None:
        first = 0.0
        try:
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
        except SpekoError as error:
            failures.append(error)

    limit = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(speak)
        await listen()
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
    if session.closed is None:
        outcome.lost += outcome.sent - outcome.received - outcome.lost
