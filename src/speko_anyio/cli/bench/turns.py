"""A session that asks a spoken question again and again."""

from __future__ import annotations

from collections.abc import Callable

from ...client.session import RealtimeSession
from ...protocol.frames import Audio, Frame
from ..turn import take_turn
from .outcome import Outcome
from .plan import MESSAGE_SECONDS, Plan


async def run_turns(
    session: RealtimeSession, plan: Plan, outcome: Outcome, clock: Callable[[], float], question: bytes
) -> None:
    """Ask for the plan's time; a turn that was begun is finished. `clock` gives seconds from the beginning.

    Raises `CommandError` when no answer comes, or not all of it.
    """
    end = clock() + plan.seconds
    while clock() < end:
        player = _Player(outcome, clock)
        answer = await take_turn(session, question, progress=_nobody_watches, show=player.show)
        answer.check_whole()
        assert answer.time_to_first_audio is not None
        outcome.sent += round(len(question) / 2 / plan.rate / MESSAGE_SECONDS)
        outcome.first_audio.append(answer.time_to_first_audio)


def _nobody_watches(done: float) -> None:
    """Progress of one question among many."""


class _Player:
    """Plays from the first audio on, and notes how long it has to wait for each further one."""

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
        self._until = until + late + len(frame.pcm) / 2 / frame.sample_rate
        self._outcome.received += 1
        self._outcome.when.append(now)
        self._outcome.lateness.append(late)
