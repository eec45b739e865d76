"""The heart of the client, without a single ``await``: bytes in, core, frames to the consumers, replies out.

A `Driver` moves the bytes; `Driven` says what it asks of the pump.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from .._net.tasks import Waiter, Wakeup
from ..protocol import close_codes
from ..protocol._client_core import ClientCore
from ..protocol._dialect import NEED_DATA
from ..protocol._state import State
from ..protocol.errors import RemoteProtocolError, SpekoError
from ..protocol.frames import Audio, Close, Frame, Interruption
from ._delivery import DeliveryBuffer, SelectiveBuffer

ABORTED: Final = "client_cancelled"
"""The close reason that the peer gets when a session is aborted instead of closed."""

_EVENTS_PER_TURN: Final = range(128)
"""Frames that are delivered in one turn of the event loop: all of a read of 64 KiB if it is speech in the
usual pieces. The same read may hold 30,000 tiny ones, for which nobody else must wait."""

_FRAMES_PER_TURN: Final = 64
"""WebSocket frames off the fast path that are parsed in one turn."""

_OPEN: Final = State.OPEN
_LEAVING: Final = (State.CLOSING, State.CLOSED)


class Pump:
    """Feeds a core and delivers its frames to the consumers: to the `inbox` first, then to the other buffers.

    `on_frame` is called with every frame but `Audio`, within the call that brought it, which may be outside
    of any task. No method raises because of what the peer does: see `error`.

    A full consumer stops the reading, unless it is lossy: then it drops frames instead. Consumers are lossy
    when they may never be emptied:

    - all of them after a goodbye, ours or the peer's, since the close must still be read;
    - the inbox, while it is not `claimed` and there are other consumers: perhaps the user never iterates.
    """

    __slots__ = (
        "_consumers",
        "_make_waiter",
        "_max_buffer",
        "_on_frame",
        "_on_space",
        "audio_bytes_received",
        "behind",
        "bytes_received",
        "claimed",
        "core",
        "frames_received",
        "inbox",
        "interruptions",
        "on_blocked",
        "on_first_audio",
    )

    def __init__(
        self,
        core: ClientCore,
        *,
        max_buffer: int,
        on_frame: Callable[[Frame], None],
        make_waiter: Callable[[], Waiter] = Wakeup,
    ) -> None:
        self.core: ClientCore = core
        core.yield_after(_FRAMES_PER_TURN, self._fall_behind)
        self.behind: bool = False
        """Whether received bytes wait for `catch_up`."""
        self._make_waiter = make_waiter
        self._max_buffer = max_buffer
        self._on_frame = on_frame
        self._on_space: Callable[[], None] = _do_nothing
        self.on_blocked: Callable[[bool], None] = _ignore
        """Called with True when reading stops because a consumer is full, and with False when it resumes."""
        self.on_first_audio: Callable[[], None] | None = None
        """Called with the next audio, once."""
        self.claimed: bool = False
        """Whether the user has taken from the inbox; see `claim`."""
        self.inbox: DeliveryBuffer = DeliveryBuffer(max_buffer, self._space_made, make_waiter())
        """The buffer of `receive` and the iteration."""
        self._consumers: list[DeliveryBuffer] = [self.inbox]
        self.bytes_received: int = 0
        self.frames_received: int = 0
        self.audio_bytes_received: int = 0
        self.interruptions: int = 0

    # State

    @property
    def connecting(self) -> bool:
        return self.core.state is State.CONNECTING

    @property
    def done(self) -> bool:
        """Whether the session is over and every consumer has received its end."""
        return self.core.state is State.CLOSED and not self.behind

    @property
    def error(self) -> SpekoError:
        """The error that every call raises after the end."""
        error = self.core.error
        assert error is not None, "asked of a session that is not over"
        return error

    def check_opened(self) -> None:
        """Raise `error` for a session that ended before it was open."""
        if self.core.closed is None and self.done:
            raise self.error.with_traceback(None)

    def end_of_iteration(self) -> Exception:
        """Make the exception that ends an iteration.

        It is StopAsyncIteration, unless the peer broke the protocol.
        """
        error = self.core.error
        return error.with_traceback(None) if isinstance(error, RemoteProtocolError) else StopAsyncIteration()

    @property
    def full(self) -> bool:
        """Whether to stop reading, because a consumer that is not lossy is full."""
        for consumer in self._consumers:  # noqa: SIM110 - a generator is slower, and this is on the path of reads
            if consumer.full and not consumer.lossy:
                return True
        return False

    @property
    def peer_left(self) -> bool:
        """True: when a client ends, it waits for nothing."""
        return True

    def backlogs(self) -> tuple[int, ...]:
        """Bytes buffered for each consumer that stops the reading."""
        return tuple(consumer.size for consumer in self._consumers if consumer.full and not consumer.lossy)

    @property
    def has_output(self) -> bool:
        """Whether the core has bytes to write."""
        return self.core.has_output

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timeout`."""
        return self.core.next_deadline()

    # Consumers

    def claim(self) -> None:
        """Take note that the user takes from the inbox, which must be lossless from now on."""
        if not self.claimed:
            self.claimed = True
            self._set_lossy()

    def subscribe(self) -> DeliveryBuffer:
        """Add a consumer, which starts with the frames that wait in the inbox."""
        return self._add(DeliveryBuffer(self._max_buffer, self._space_made, self._make_waiter()))

    def subscribe_to(
        self, kinds: Collection[type], *, max_buffer: int | None, drop_oldest: bool
    ) -> DeliveryBuffer:
        """Add a consumer of the frames of these types: see `SelectiveBuffer`."""
        limit = self._max_buffer if max_buffer is None else max_buffer
        return self._add(
            SelectiveBuffer(
                limit, self._space_made, self._make_waiter(), kinds=kinds, drop_oldest=drop_oldest
            )
        )

    def _add(self, buffer: DeliveryBuffer) -> DeliveryBuffer:
        for frame in self.inbox.snapshot():
            buffer.put(frame)
        if self.done:
            buffer.end()
        self._consumers.append(buffer)
        self._set_lossy()
        return buffer

    def unsubscribe(self, buffer: DeliveryBuffer) -> None:
        """Remove a consumer. Does nothing the second time."""
        if buffer in self._consumers:
            self._consumers.remove(buffer)
            buffer.end()
            buffer.clear()
            self._set_lossy()
            self._space_made()

    def _space_made(self) -> None:
        self._on_space()

    def _set_lossy(self) -> None:
        """Decide which consumers are lossy: see the class."""
        leaving = self.core.state in _LEAVING
        for consumer in self._consumers:
            consumer.lossy = leaving
        if not self.claimed and len(self._consumers) > 1:
            self.inbox.lossy = True

    # Driving

    def watch_space(self, call: Callable[[], None]) -> None:
        """Call `call` when reading may go on."""
        self._on_space = call

    @property
    def data_to_send(self) -> Callable[[], bytes]:
        """A function that takes the bytes to write."""
        return self.core.data_to_send

    def receive_data(self, data: bytes) -> bool:
        """Take bytes from the peer.

        Returns False when they were only audio and there is room for more: then the driver has nothing to do.
        """
        self.bytes_received += len(data)
        core = self.core
        core.receive_data(data)
        return self._drain() or core.has_output

    def catch_up(self) -> None:
        """Deliver some more of what was received before."""
        self.behind = False
        self._drain()

    def _fall_behind(self) -> None:
        self.behind = True

    def receive_eof(self) -> None:
        """Take note that the peer will send no more."""
        self.core.receive_eof()
        self._drain()

    def receive_lost(self, reason: str, cause: Exception) -> None:
        """Take note that the transport broke: `cause` says why, and `reason` the same in words."""
        self._drain_all()
        if not self.done:
            self.core.receive_lost(reason)
            self.error.__cause__ = cause
            self._drain_all()

    def send_failed(self) -> None:
        """Take note that bytes that were taken may not have been written."""
        self.core.send_failed()
        self._drain_all()

    def handle_timeout(self, now: float) -> None:
        """Act on the deadlines that have come by `now`."""
        self.core.handle_timeout(now)
        self._drain()

    def reading_paused(self) -> None:
        """Take note that the driver has stopped reading, since this is `full`."""
        # No pong is seen while nothing is read, so silence proves nothing.
        self.core.suspend_keepalive()
        self.on_blocked(True)

    def reading_resumed(self) -> None:
        """Take note that the driver reads again."""
        self.core.resume_keepalive()
        self.on_blocked(False)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; raises `LocalProtocolError` as the core does."""
        self.core.close(code, reason)
        self._drain()

    def abort(self, reason: str) -> bytes:
        """End the session now, and wake all tasks that wait.

        Returns the bytes to write to the peer if that takes no waiting: any pending output, and a goodbye.
        """
        if self.done:
            return b""
        self.core.close(close_codes.GOING_AWAY, ABORTED)
        goodbye = self.core.data_to_send()
        self.core.receive_lost(reason)
        self._drain_all()
        return goodbye

    def _drain_all(self) -> None:
        """Deliver everything that the core has, without turns: the connection has ended."""
        self._drain()
        while self.behind:
            self.catch_up()

    def _drain(self) -> bool:
        """Deliver what the core has, as much as suits one turn of the event loop: see `behind`.

        Returns whether that filled a consumer, or was more than audio in an open session, or left something.
        """
        next_event = self.core.next_event
        consumers = self._consumers
        more = False
        for _ in _EVENTS_PER_TURN:
            try:
                frame = next_event()
            except SpekoError:
                # The session never opened, so there is no `Close` to deliver.
                for consumer in consumers:
                    consumer.end()
                break
            if frame is NEED_DATA:
                break
            self.frames_received += 1
            for consumer in consumers:
                if consumer.put(frame):
                    more = True
            if type(frame) is Audio:
                self.audio_bytes_received += len(frame.pcm)
                if self.on_first_audio is not None:
                    first, self.on_first_audio = self.on_first_audio, None
                    first()
                continue
            more = True
            if type(frame) is Interruption:
                self.interruptions += 1
            self._on_frame(frame)
            if type(frame) is Close:
                break
        else:
            self.behind = self.core.unread
        state = self.core.state
        if state is _OPEN:
            return more or self.behind
        if state is State.CLOSING:
            self._set_lossy()
        return True


def _ignore(_: bool) -> None:
    """Do nothing: the default of `on_blocked`."""


def _do_nothing() -> None:
    """Do nothing: the default of callbacks."""
