"""The two interfaces between a session and what moves its messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from speko_anyio._net.tasks import TaskGroup, Waiter, Wakeup
from speko_anyio.protocol._commands import Command
from speko_anyio.protocol._dialect import NeedData
from speko_anyio.protocol._pcm import Buffer
from speko_anyio.protocol._session import ServerProtocol
from speko_anyio.protocol.frames import Close

from ._meter import Meter


class Linked(Protocol):
    """The session, as its link sees it."""

    session_id: str
    meter: Meter
    """What the session has used so far."""
    room: Wakeup
    """Where tasks wait for room."""

    @property
    def closed(self) -> Close | None:
        """How the session ended; None while it lives."""
        ...

    @property
    def full(self) -> bool:
        """Whether to read no more from the client for now."""
        ...

    def core_changed(self) -> None:
        """React to any change of the core. Calls the link's `core_changed`."""

    def deliver(self) -> bool:
        """Move the core's commands to the handler. See `ServerSession.deliver`."""
        ...

    def sent(self, audio: int) -> None:
        """Take note that messages with `audio` bytes of audio were taken to be sent: there is room."""

    def answered(self) -> None:
        """Take note that the first audio since the end of the user's turn goes out."""


class Link(Protocol):
    """Moves the messages of one session between its core and the client.

    It feeds the core, and calls `Linked.core_changed` or `deliver` after that, and `sent` when it takes
    messages to send.
    """

    core: ServerProtocol
    """The session's core at message level."""
    read_ahead: int
    """Bytes that the inbox takes beyond its limit, for a transport that itself reads nothing ahead."""

    @property
    def next_event(self) -> Callable[[], Command | Literal[NeedData.NEED_DATA]]:
        """A function that takes the next event from the core, or from what feeds it."""
        ...

    @property
    def send_audio(self) -> Callable[[Buffer], None]:
        """A function that queues audio as `ServerProtocol.send_audio` does."""
        ...

    @property
    def flush(self) -> Callable[[], None]:
        """A function that sends the queued messages, now or as soon as the client takes more."""
        ...

    def make_waiter(self) -> Waiter:
        """Make the cheapest `Waiter`."""
        ...

    def start(self, session: Linked, tasks: TaskGroup) -> None:
        """Move the messages of `session` from now on, in `tasks` if needed. A failure ends `tasks`."""

    def core_changed(self) -> None:
        """React to a change of the core by other code than this link. Never blocks."""

    def fall_behind(self) -> None:
        """Call `Linked.deliver` again in a later turn of the event loop, if more events wait."""

    def space_made(self) -> None:
        """Read on, since the session is no longer `full`. Never blocks."""

    async def wait_written(self) -> None:
        """Wait until the last messages were sent, if they are sent only while the session's block runs."""

    def stop(self) -> None:
        """Stop moving messages: the session is over."""
