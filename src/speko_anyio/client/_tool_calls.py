"""The tool calls of a session: which functions run, and how each call is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, get_args

import anyio

from .._net.driver import Driver
from .._net.lifetime import Lifetime
from ..protocol.errors import SpekoError
from ..protocol.frames import ToolCall
from ._stalls import TOOL_STALLED_AFTER, StallWatch
from .tools import ReportFailure, Toolbox, ToolErrors, log_failure

logger: Final = logging.getLogger("speko_anyio")

MAX_RUNNING_TOOLS: Final = 256
"""Tool calls running at once: as many as the core lets a peer have open. The core does not count interrupted
calls, but their functions run on, and a peer must not start any number of tasks."""


class ToolCalls:
    """Runs the calls of one session as tasks of its `lifetime`, and answers each by its `driver`.

    `answer` queues the result of a call. `receive`, `interrupt` and `response_ended` are called while bytes
    are taken in, sometimes outside of any task: only `Lifetime.spawn` may make objects of anyio there. An
    answer that needs no waiting is queued in the core, and the driver's `core_changed` writes it.
    """

    __slots__ = (
        "_answer",
        "_before",
        "_driver",
        "_errors",
        "_lifetime",
        "_running",
        "_stalls",
        "_toolbox",
        "received",
    )

    def __init__(
        self,
        toolbox: Toolbox,
        answer: Callable[[str, str], None],
        driver: Driver,
        lifetime: Lifetime,
        stalls: StallWatch,
        *,
        errors: ToolErrors,
    ) -> None:
        if errors not in get_args(ToolErrors):
            raise ValueError(f"tool_errors must be one of {', '.join(get_args(ToolErrors))}, not {errors!r}")
        self._toolbox = toolbox
        self._before: Toolbox | None = None
        """The tools before the last `replace`, which the response under way may still call."""
        self._answer = answer
        self._driver = driver
        self._lifetime = lifetime
        self._stalls = stalls
        self._errors: ToolErrors = errors
        self._running: list[_Run] = []
        self.received: int = 0
        """Calls so far, including those that the application answers."""

    @property
    def running(self) -> int:
        """Number of functions that run now, or are about to."""
        return len(self._running)

    def receive(self, call: ToolCall) -> None:
        """Run the function for `call` and answer, if the toolbox has it."""
        self.received += 1
        toolbox = self._toolbox_of(call)
        if not toolbox.answers(call):
            return
        if len(self._running) >= MAX_RUNNING_TOOLS:
            # The driver writes it together with the other replies.
            self._answer_at_once(call, "Too many tools are running; try again later.")
            return
        run = _Run(call, toolbox)
        self._running.append(run)
        self._lifetime.spawn(self._run, run)

    def interrupt(self) -> None:
        """Cancel the functions whose tools ask for that when the user interrupts."""
        for run in self._running:
            if run.toolbox.cancels(run.call):
                run.interrupt()

    def replace(self, toolbox: Toolbox) -> None:
        """Answer calls by the tools of `toolbox` from now on.

        Running calls go on. Until the next `response_ended`, calls of tools that only the earlier toolbox
        has are still answered by it.
        """
        self._before, self._toolbox = self._toolbox, toolbox

    def response_ended(self) -> None:
        """Take note that a response has ended, so that the next one knows the tools of the last `replace`."""
        self._before = None

    def _toolbox_of(self, call: ToolCall) -> Toolbox:
        before = self._before
        if before is None or self._toolbox.has(call.name) or not before.has(call.name):
            return self._toolbox
        return before

    async def _run(self, run: _Run) -> None:
        call = run.call
        failures: list[Exception] = []

        def keep(_name: str, error: Exception) -> None:
            failures.append(error)

        output = None
        try:
            with anyio.CancelScope() as run.scope:
                if not run.interrupted:
                    output = await self._function(run, log_failure if self._errors == "log" else keep)
            if output is None:
                output = f"The user interrupted, and {call.name} was stopped before it had a result."
            if failures:
                # Send it at once, before this failure ends the session, so that the model still gets an
                # answer.
                self._answer_at_once(call, output)
                self._driver.core_changed()
                self._lifetime.fail(failures[0])
            else:
                await self._driver.send(self._answer, call.call_id, output)
        except SpekoError as error:
            # The session is over, or the application answered first.
            logger.debug("the result of tool %s was not sent: %s", call.name, error)
        finally:
            self._running.remove(run)

    async def _function(self, run: _Run, report: ReportFailure) -> str:
        call = run.call
        stall = self._stalls.begin(
            lambda: (
                f"the tool {call.name} has been running for {TOOL_STALLED_AFTER:g} s, and the model waits "
                "for its result; bound it with anyio.fail_after, or return early and go on in your own task"
            ),
            after=TOOL_STALLED_AFTER,
        )
        try:
            return await run.toolbox.run(call, report)
        finally:
            self._stalls.end(stall)

    def _answer_at_once(self, call: ToolCall, output: str) -> None:
        try:
            self._answer(call.call_id, output)
        except SpekoError as error:
            logger.debug("the result of tool %s was not sent: %s", call.name, error)


class _Run:
    """A call that `toolbox` is answering, and whether the user has interrupted it."""

    def __init__(self, call: ToolCall, toolbox: Toolbox) -> None:
        self.call = call
        self.toolbox = toolbox
        self.interrupted = False
        self.scope: anyio.CancelScope | None = None
        """The scope of the running function; None before it runs."""

    def interrupt(self) -> None:
        self.interrupted = True
        if self.scope is not None:
            self.scope.cancel()
