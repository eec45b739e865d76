"""The tool calls of a session: which functions run, and how each call is answered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..protocol.errors import SpekoError
from ..protocol.frames import ToolCall
from .lifetime import Lifetime
from .pump import ClientCore
from .tools import Toolbox

logger: Final = logging.getLogger("speko_anyio")

MAX_RUNNING_TOOLS: Final = 256
"""Tool calls running at once: as many as the core lets a peer have open. Interrupted calls no longer count
there, but their functions run on, and a peer must not start tasks without end."""


class ToolCalls:
    """Runs the calls of one session as tasks of its `lifetime`, and answers each with `send_result`."""

    def __init__(
        self,
        toolbox: Toolbox,
        core: ClientCore,
        lifetime: Lifetime,
        *,
        send_result: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._toolbox = toolbox
        self._core = core
        self._lifetime = lifetime
        self._send_result = send_result
        self._running = 0

    def receive(self, call: ToolCall) -> None:
        """Answer `call` in time, when it is for us to answer.

        Called while bytes are taken in, at times outside of any task: nothing of anyio may be made here but
        by `Lifetime.spawn`.
        """
        if not self._toolbox.answers(call):
            return
        if self._running >= MAX_RUNNING_TOOLS:
            # No await here: the answer is queued, and goes out with the replies.
            try:
                self._core.send_tool_result(call.call_id, "Too many tools are running; try again later.")
            except SpekoError as error:
                logger.debug("the call of tool %s was not answered: %s", call.name, error)
            return
        self._running += 1
        self._lifetime.spawn(self._run, call)

    async def _run(self, call: ToolCall) -> None:
        try:
            output = await self._toolbox.run(call)
            await self._send_result(call.call_id, output)
        except SpekoError as error:
            # The session is over, or the application was quicker: nobody waits for this result.
            logger.debug("the result of tool %s was not sent: %s", call.name, error)
        finally:
            self._running -= 1
