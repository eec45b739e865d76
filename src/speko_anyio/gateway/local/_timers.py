"""Timers of one session, which a brain sets, cancels and asks for as it calls tools."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import msgspec

from . import _numbers as numbers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from speko_anyio._net.tasks import TaskGroup

    from ..engines import ToolRequest

SET_TIMER: Final = "set_timer"
CANCEL_TIMERS: Final = "cancel_timers"
CHECK_TIMERS: Final = "check_timers"

MAX_TIMER: Final = 24 * 60 * 60
"""Seconds of a timer: no session lasts longer."""

MAX_TIMERS: Final = 8
"""Timers of one session."""

MAX_TEXT: Final = 200
"""Characters that are said when a timer rings."""

_SECONDS: Final = {
    "second": 1, "seconds": 1, "sec": 1, "secs": 1, "minute": 60, "minutes": 60, "min": 60, "mins": 60,
    "hour": 3600, "hours": 3600,
}  # fmt: skip


class _SetTimer(msgspec.Struct):
    seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMER)]
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = "Your timer is up."


_decode_set_timer = msgspec.json.Decoder(_SetTimer).decode


class Timers:
    """The timers that run.

    Args:
        tasks: where they wait.
        ring: called with the text of a timer when it rings.
    """

    def __init__(self, tasks: TaskGroup, ring: Callable[[str], Awaitable[None]]) -> None:
        self._tasks = tasks
        self._ring = ring
        self._running: dict[anyio.CancelScope, float] = {}  # when they ring

    def take(self, request: ToolRequest) -> str | None:
        """Carry out a request, and return its result; None if it is not about timers."""
        if request.name == SET_TIMER:
            return self._set(request.arguments)
        if request.name == CANCEL_TIMERS:
            return self._cancel()
        return self._check() if request.name == CHECK_TIMERS else None

    def _set(self, arguments: str) -> str:
        try:
            wanted = _decode_set_timer(arguments)
        except (msgspec.DecodeError, RecursionError):
            return f"A timer needs seconds, at most {MAX_TIMER}, and a text of at most {MAX_TEXT} characters."
        if len(self._running) >= MAX_TIMERS:
            return f"{MAX_TIMERS} timers are running already. Cancel them first."
        scope = anyio.CancelScope()
        self._running[scope] = rings_at = anyio.current_time() + wanted.seconds
        self._tasks.start_soon(self._wait, scope, rings_at, wanted.text)
        return f"Your timer is set for {say_duration(wanted.seconds)}."

    async def _wait(self, scope: anyio.CancelScope, rings_at: float, text: str) -> None:
        with scope:
            await anyio.sleep_until(rings_at)
            del self._running[scope]
            await self._ring(text)

    def _cancel(self) -> str:
        count = len(self._running)
        for scope in self._running:
            scope.cancel()
        self._running.clear()
        return {0: "No timer is running.", 1: "I cancelled the timer."}.get(
            count, f"I cancelled {count} timers."
        )

    def _check(self) -> str:
        if not self._running:
            return "No timer is running."
        left = min(self._running.values()) - anyio.current_time()
        return f"Your timer rings in {say_duration(max(1, math.ceil(left)))}."


def duration_in(text: str) -> int:
    """Return the whole seconds of a duration ("a minute and thirty seconds"); 0 if there is none."""
    said = numbers.tokens(text)
    amounts = {number.end: number.value for number in numbers.numbers(said)}
    total = Fraction(0)
    for at, word in enumerate(said):
        if (unit := _SECONDS.get(word)) is None:
            continue
        if said[max(0, at - 3) : at] == ["and", "a", "half"]:
            amount = amounts.get(at - 3, Fraction(0)) + Fraction(1, 2)
        elif said[max(0, at - 2) : at] in (["half", "a"], ["half", "an"]):
            amount = Fraction(1, 2)
        elif said[at - 1 : at] in (["a"], ["an"]):
            amount = Fraction(1)
        else:
            amount = amounts.get(at, Fraction(0))
        total += amount * unit
    return max(0, int(total))


def say_duration(seconds: float) -> str:
    """Return such as "1 minute and 30 seconds"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "hour"), (minutes, "minute"), (rest, "second")]
    said = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in parts if count] or ["0 seconds"]
    return " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))
