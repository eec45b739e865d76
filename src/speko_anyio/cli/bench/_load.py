"""Makes the load: each session of a plan in its own task."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import anyio

from ..._net.tasks import TaskGroup
from ...client._api import Speko
from ...client._session import RealtimeSession
from ...protocol.errors import SpekoError
from .._failures import CommandError
from ._session_runs import Outcome, Plan, run_echo, run_turns


class Load:
    """`plan`'s sessions on `speko`; `outcomes` grow while `run` does.

    `now` returns seconds. Not the event loop's clock, which on uvloop counts whole milliseconds.
    """

    def __init__(
        self,
        speko: Speko,
        plan: Plan,
        question: bytes = b"",
        *,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._speko = speko
        self._plan = plan
        self._question = question
        self._now = now
        self._begin = 0.0
        self.outcomes: list[Outcome] = []
        self.live: int = 0
        """Number of sessions open now."""
        self.seconds: float = 0.0
        """Length of the whole run."""
        self.cpu_seconds: float = 0.0
        """CPU seconds of this process, which makes the load."""

    @property
    def errors(self) -> Counter[str]:
        """Count every error."""
        return Counter(outcome.error for outcome in self.outcomes if outcome.error is not None)

    def clock(self) -> float:
        """Return the seconds since the start of the load."""
        return self._now() - self._begin

    async def run(self, watch: Callable[[], None]) -> None:
        """Make the load; call `watch` twice a second. The results are in `outcomes`."""
        self._begin = self._now()
        start = anyio.current_time()
        cpu = time.process_time()
        async with TaskGroup("the load") as tasks:
            tasks.start_soon(_call_regularly, watch)
            async with TaskGroup("the load") as sessions:
                for index in range(self._plan.sessions):
                    await anyio.sleep_until(start + self._plan.starts_at(index))
                    sessions.start_soon(self._hold, index)
            tasks.cancel_scope.cancel()
        self.seconds = self.clock()
        self.cpu_seconds = time.process_time() - cpu

    async def _hold(self, index: int) -> None:
        outcome = Outcome()
        self.outcomes.append(outcome)
        plan = self._plan
        asked = self.clock()
        session: RealtimeSession | None = None
        try:
            async with self._speko.realtime.connect(
                provider=plan.provider,
                model=plan.model,
                input_sample_rate=plan.rate,
                output_sample_rate=plan.rate,
            ) as session:
                outcome.connect = self.clock() - asked
                self.live += 1
                try:
                    if plan.kind == "echo":
                        await run_echo(session, plan, index, outcome, self.clock)
                    else:
                        await run_turns(session, plan, outcome, self.clock, self._question)
                finally:
                    self.live -= 1
            outcome.ended(session.closed)
            if (
                session.closed is not None
                and session.closed.initiated_by != "local"
                and outcome.error is None
            ):
                outcome.error = f"the session ended with {outcome.end}"
        except (SpekoError, CommandError) as error:
            outcome.error = str(error)
            outcome.ended(None if session is None else session.closed)


async def _call_regularly(watch: Callable[[], None]) -> None:
    while True:
        watch()
        await anyio.sleep(0.5)
