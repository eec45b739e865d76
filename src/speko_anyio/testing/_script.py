"""Runs the script of a fake gateway beside the session of the application under test."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from .._net.contexts import never_swallows
from .._net.tasks import TaskGroup
from ..protocol._state import State
from ..protocol.errors import ConnectionClosed
from ._peer import FakePeer, Script, Step

SessionT = TypeVar("SessionT")

GRACE: Final = 1.0
"""Seconds that a script gets to notice that the client it expects something of has left."""


class Stage:
    """Runs the script of one peer and its reactions. The first failure ends all of them."""

    def __init__(self, peer: FakePeer, tasks: TaskGroup, failed: Callable[[Exception], None] | None) -> None:
        self._peer = peer
        self._tasks = tasks
        self._failed = failed
        self.failure: Exception | None = None
        self._block_failed = False

    def block_failed(self) -> None:
        """Note that the block fails or is cancelled: later failures here are only consequences."""
        self._block_failed = True

    def start_soon(self, steps: Iterable[Step]) -> None:
        """Run steps in a task of their own, beside the script."""
        self._tasks.start_soon(self._run, steps, False)

    async def start(self, script: Script) -> None:
        """Begin the whole script; returns when it first waits, so that its setup is in force."""
        steps = [script] if callable(script) else tuple(script)
        await self._tasks.start(self._run, steps, True)

    async def _run(
        self, steps: Iterable[Step], whole: bool, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
    ) -> None:
        peer = self._peer
        begun = False
        try:
            for step in steps:
                result = step(peer)
                if inspect.isawaitable(result):
                    if not begun:
                        # The task runs on until it really waits, and only then the task that started it.
                        begun = True
                        task_status.started()
                    await result
            if whole and not peer.reactions:
                peer.close()
        except Exception as exc:  # noqa: BLE001 - raised by `scripted`
            # A step that was still sending when the session ended has not failed.
            if isinstance(exc, ConnectionClosed) and peer.core.state is not State.OPEN:
                return
            if self.failure is None and not self._block_failed:
                self.failure = exc
                if self._failed is not None:
                    self._failed(exc)
                self._tasks.cancel_scope.cancel()
        finally:
            if not begun:
                task_status.started()


@never_swallows
async def scripted(
    peer: FakePeer,
    script: Script | None,
    opening: AbstractAsyncContextManager[SessionT],
    *,
    failed: Callable[[Exception], None] | None = None,
) -> AsyncGenerator[SessionT, None]:
    """Open the client's session and run `script` on `peer` beside the block; yields what `opening` does.

    A failure of the script, such as a missed expectation, cancels the block and is raised by it; `failed` is
    called with it too. If the block failed first, its own exception is raised. A script that is still running
    when the session is over is cancelled; if it still expects something of the client, it fails.
    """
    stage: Stage | None = None
    prepare: Callable[[FakePeer], None] | None = getattr(script, "prepare", None)  # of `run_handler`
    if prepare is not None:
        prepare(peer)
    try:
        async with TaskGroup("the script") as tasks:
            stage = Stage(peer, tasks, failed)
            peer.start_steps = stage.start_soon
            tasks.start_soon(peer.carry)
            async with opening as session:
                if script is not None:
                    await stage.start(script)
                try:
                    yield session
                except BaseException:
                    stage.block_failed()
                    raise
            with anyio.move_on_after(GRACE):
                await peer.wait_expecting_nothing()
            tasks.cancel_scope.cancel()
    finally:
        peer.start_steps = None
        # It takes precedence over the exceptions that it caused in the block.
        if stage is not None and stage.failure is not None:
            raise stage.failure
