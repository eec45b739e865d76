"""One reply of the assistant, from the end of the user's turn to the end of playback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from speko_anyio.protocol._commands import ToolResult

LEAD: Final = 0.4
"""Seconds of audio that is sent ahead of playback, at most: what a client drops when it is interrupted."""


class Asked(NamedTuple):
    """How much the user said."""

    seconds: float = 0.0
    """Of speech."""
    words: int = 0
    """In writing."""


class Reply:
    """What the reader of commands and the responder share about a reply; nothing here awaits a send.

    Args:
        decide: returns what to say.
        asked: what the reply answers, as it counts in the usage.
    """

    def __init__(self, decide: Callable[[Reply], Awaitable[str]], asked: Asked) -> None:
        self.decide = decide
        self.asked = asked
        self.stopped: bool = False
        self.interruption_sent = False
        self.sent_bytes = 0
        self.written = 0
        """Words that were sent without speech."""
        self._outputs: dict[str, str | None] = {}
        self._changed = anyio.Event()
        self._playing_since: float | None = None

    def stop(self) -> None:
        """Stop it, since the user interrupted: nothing more of it may be sent."""
        self.stopped = True
        self._changed.set()

    def expect(self, call_id: str) -> None:
        """Expect the result of a tool call."""
        self._outputs[call_id] = None

    def take_result(self, result: ToolResult) -> None:
        """Take a tool's result; ignore one that this reply does not expect."""
        if result.call_id in self._outputs:
            self._outputs[result.call_id] = result.output
            self._changed.set()

    async def wait_results(self, seconds: float) -> dict[str, str | None]:
        """Return the outputs by call id, once all are there, it is stopped, or `seconds` have passed."""
        with anyio.move_on_after(seconds):
            while not self.stopped and None in self._outputs.values():
                await self._wait_change()
        return self._outputs

    async def wait_room(self, sent_seconds: float) -> bool:
        """Wait until at most `LEAD` of `sent_seconds` is ahead of playback; return False if stopped."""
        await self._wait_until(self._playback_start() + sent_seconds - LEAD)
        return not self.stopped

    async def wait_played(self, sent_seconds: float) -> None:
        """Wait until everything that was sent has been played, or the reply is stopped."""
        await self._wait_until(self._playback_start() + sent_seconds)

    def _playback_start(self) -> float:
        if self._playing_since is None:
            self._playing_since = anyio.current_time()
        return self._playing_since

    async def _wait_until(self, deadline: float) -> None:
        with anyio.CancelScope(deadline=deadline):
            while not self.stopped:
                await self._wait_change()

    async def _wait_change(self) -> None:
        await self._changed.wait()
        self._changed = anyio.Event()
