"""One reply of the assistant, from the end of the user's turn to the end of playback."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import anyio.lowlevel

from speko_anyio.audio import _pcm as pcm16

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from speko_anyio.protocol._commands import ToolResult

    from ..engines import HeardText

LEAD: Final = 0.4
"""Seconds of audio that is sent ahead of playback, at most: what a client drops when it is interrupted."""

PATIENCE: Final = 5.0
"""Seconds by which a client may play later than in real time, as long as an answer can be interrupted."""

_ROUNDING: Final = 1e-3
"""Seconds by which sums of times may be wrong."""


class Asked(NamedTuple):
    """How much the user said."""

    seconds: float = 0.0
    """Of speech."""
    words: int = 0
    """In writing."""


NOTHING_ASKED: Final = Asked()


class Reply:
    """What the reader of commands and the responder share about a reply; nothing here awaits a send.

    Args:
        work: speaks; it is cancelled when the user interrupts.
        asked: what the reply answers, as it counts in the usage.
        hear: comes before the work: it takes in what the user said, also if the reply was stopped meanwhile,
            since that counts. It may change the work.
        rings: the text of a timer, which waits for no long answer: it is said between two sentences.
    """

    def __init__(
        self,
        work: Callable[[Reply], Awaitable[None]],
        asked: Asked = NOTHING_ASKED,
        *,
        hear: Callable[[Reply], Awaitable[None]] | None = None,
        rings: str = "",
    ) -> None:
        self.work = work
        self.asked = asked
        self.hear = hear
        self.rings = rings
        self.scope = anyio.CancelScope()
        """Of the work."""
        self.said = ""
        """What was spoken or written so far."""
        self.stopped: bool = False
        self.interruption_sent = False
        self.heard: HeardText | None = None
        """What the user heard of a spoken reply that was interrupted."""
        self.sent_seconds = 0.0
        self._outputs: dict[str, str | None] = {}
        self._result = anyio.Event()
        self._stopped = anyio.Event()
        self._played_at = -math.inf

    def stop(self) -> None:
        """Stop it, since the user interrupted: nothing more of it may be sent."""
        self.stopped = True
        self.scope.cancel()
        self._stopped.set()

    def expect(self, call_id: str) -> None:
        """Expect the result of a tool call."""
        self._outputs[call_id] = None

    def take_result(self, result: ToolResult) -> None:
        """Take a tool's result; ignore one that this reply does not expect."""
        if result.call_id in self._outputs:
            self._outputs[result.call_id] = result.output
            self._result.set()

    async def wait_results(self, seconds: float) -> dict[str, str | None]:
        """Return the outputs by call id, once all are there or `seconds` have passed, and forget them."""
        with anyio.move_on_after(seconds):
            while None in self._outputs.values():
                await self._result.wait()
                self._result = anyio.Event()
        outputs, self._outputs = self._outputs, {}
        return outputs

    async def wait_room(self) -> None:
        """Wait until at most `LEAD` of what was sent is ahead of playback."""
        await anyio.sleep_until(self._played_at - LEAD)
        # A send that does not wait would pass over a cancellation.
        await anyio.lowlevel.checkpoint_if_cancelled()

    def sent(self, pcm: bytes, sample_rate: int) -> None:
        """Count audio that was sent, which the client plays after what it has."""
        seconds = pcm16.duration(pcm, sample_rate)
        self.sent_seconds += seconds
        self._played_at = max(self._played_at, anyio.current_time()) + seconds

    async def wait_played(self, unplayed: Callable[[], float]) -> None:
        """Wait until everything that was sent has been played, or the reply is stopped.

        `unplayed` returns the seconds that the client still has to play: a report may make them more.
        """
        with anyio.CancelScope(deadline=self._played_at + PATIENCE):
            while (seconds := unplayed()) > _ROUNDING and not self.stopped:
                with anyio.move_on_after(seconds):
                    await self._stopped.wait()
