"""The heart of the client, without a single ``await``: bytes in, core, frames to the consumers, replies out.

A `Driver` moves the bytes; `Driven` says what it asks of the pump.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from .._net.tasks import Waiter, Wakeup
from ..protocol import close_codes
from ..protocol._client_core import ClientCore
from ..protocol._state import State
from ..protocol.errors import RemoteProtocolError, SpekoError
from ..protocol.frames import Audio, Close, Frame, Interruption
from ._delivery import DeliveryBuffer, SelectiveBuffer

ABORTED: Final = "client_cancelled"
"""The close reason that the peer gets when a session is aborted instead of closed."""

_EVENTS_PER_TURN: Final = 128
"""Frames that are delivered in one turn of the event loop: all of a read of 64 KiB if it is speech in the
usual pieces. The same read may hold 30,000 tiny ones, for which nobody else must wait."""

_FRAMES_PER_TURN: Final = 64
"""WebSocket frames off the fast path that are parsed in one turn."""

_OPEN: Final = State.OPEN
_LEAVING: Final = (State.CLOSING, State.CLOSED)


class DirectConsumer(abc.ABC):
    """A plain function that is called with each frame, within the call that brought the frame."""

    __slots__ = ("call", "place")

    def __init__(self, call: Callable[[Frame], object], place: int) -> None:
        self.call: Callable[[Frame], object] = call
        """The function. It may raise anything."""
        self.place: int = place
        """Those with a lower number are called first."""

    @abc.abstractmethod
    def returned(self, result: object, frame: Frame) -> None:
        """Act on what `call` returned for `frame` if that was not None."""

    @abc.abstractmethod
    def failed(self, error: BaseException) -> None:
        """Act on what `call` raised."""


class Pump:
    """Feeds a core and delivers its frames to the consumers.

    Each frame goes to the `inbox`, then to the other buffers in the order in which they were added. Then
    `on_frame` is called with it, unless it is `Audio`. The direct consumers come last, so that they find
    everything else up to date. All of this happens within the call that brought the frame, which may be
    outside of any task. No method raises because of what the peer does: see `error`.

    A direct consumer may call any method here. Frames that such a call would deliver are delivered after the
    consumer has returned.

    The inbox gets no frames while nobody has taken from it (it is not `claimed`) and another consumer takes
    frames: perhaps the user never iterates, and otherwise an iteration has no use for old audio. It only gets
    the final `Close`.

    A full consumer stops the reading, unless it is lossy: then it drops frames instead. Consumers are lossy
    when they may never be emptied:

    - all of them after a goodbye, ours or the peer's, since the close must still be read;
    - the inbox, while it is not `claimed` and there are other consumers.
    """

    __slots__ = (
        "_consumers",
        "_delivering",
        "_direct",
        "_make_waiter",
        "_max_buffer",
        "_on_frame",
        "_on_space",
        "_others",
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
        self._others: tuple[DeliveryBuffer, ...] = ()
        # The buffers that get frames now: the others, and usually the inbox.
        self._consumers: tuple[DeliveryBuffer, ...] = (self.inbox,)
        self._direct: tuple[DirectConsumer, ...] = ()
        self._delivering = False
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
        return self.core.state is State.CLOSED and not (self.behind or self._delivering)

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

    def last_error(self) -> SpekoError:
        """Make the error that receiving raises after the end."""
        return self.error.with_traceback(None)

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
            self._arrange()

    def begin(self, buffer: DeliveryBuffer) -> None:
        """Take note that frames are taken from `buffer`."""
        buffer.begun = True
        self._arrange()

    def subscribe(self) -> DeliveryBuffer:
        """Add a consumer, which starts with the frames that wait in the inbox."""
        return self._add(self._new_buffer(), self.inbox.snapshot())

    def subscribe_to_next(self) -> DeliveryBuffer:
        """Add a consumer, which starts with the next frame."""
        return self._add(self._new_buffer(), ())

    def subscribe_to(
        self, kinds: Collection[type], *, max_buffer: int | None, drop_oldest: bool
    ) -> DeliveryBuffer:
        """Add a consumer of the frames of these types: see `SelectiveBuffer`."""
        limit = self._max_buffer if max_buffer is None else max_buffer
        return self._add(
            SelectiveBuffer(
                limit, self._space_made, self._make_waiter(), kinds=kinds, drop_oldest=drop_oldest
            ),
            self.inbox.snapshot(),
        )

    def _new_buffer(self) -> DeliveryBuffer:
        return DeliveryBuffer(self._max_buffer, self._space_made, self._make_waiter())

    def _add(self, buffer: DeliveryBuffer, waiting: Iterable[Frame]) -> DeliveryBuffer:
        for frame in waiting:
            buffer.put(frame)
        if self.inbox.ended:
            buffer.end()
        self._others = (*self._others, buffer)
        self._arrange()
        return buffer

    def unsubscribe(self, buffer: DeliveryBuffer) -> None:
        """Remove a consumer. Does nothing the second time."""
        if buffer in self._others:
            self._others = tuple(other for other in self._others if other is not buffer)
            buffer.end()
            buffer.clear()
            self._arrange()
            self._space_made()

    def add_direct(self, consumer: DirectConsumer) -> None:
        """Call `consumer` with all frames that follow."""
        self._direct = tuple(sorted((*self._direct, consumer), key=_place))
        self._arrange()

    def remove_direct(self, consumer: DirectConsumer) -> None:
        """Stop calling `consumer`. Does nothing the second time."""
        self._direct = tuple(other for other in self._direct if other is not consumer)
        self._arrange()

    def _space_made(self) -> None:
        self._on_space()

    def _arrange(self) -> None:
        """Decide which buffers get frames, and which of them are lossy: see the class."""
        if self.claimed or not (self._direct or any(buffer.begun for buffer in self._others)):
            self._consumers = (self.inbox, *self._others)
        else:
            self._consumers = self._others
            if not self.inbox.ended:
                self.inbox.clear()
        self._set_lossy()

    def _set_lossy(self) -> None:
        leaving = self.core.state in _LEAVING
        for consumer in self._consumers:
            consumer.lossy = leaving
        if self._others and not self.claimed:
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
        audio = core.receive_audio(data)
        if audio is None:
            core.receive_data(data)
            return self._drain() or core.has_output
        if self._consumers or self.on_first_audio is not None:
            return self._deliver((audio,))
        # The same as `_deliver`, inlined: in a conversation with a plain handler, every piece comes here.
        self.frames_received += 1
        self.audio_bytes_received += len(audio.pcm)
        self._delivering = True
        try:
            for direct in self._direct:
                try:
                    result = direct.call(audio)
                except BaseException as error:  # noqa: BLE001 - passed on
                    direct.failed(error)
                else:
                    if result is not None:
                        direct.returned(result, audio)
        finally:
            self._delivering = False
        return False

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
        if self._delivering:
            return True  # called by a direct consumer
        next_events = self.core.next_events
        left = _EVENTS_PER_TURN
        more = False
        try:
            while left > 0 and (frames := next_events(left)):
                left -= len(frames)
                if self._deliver(frames):
                    more = True
                if type(frames[0]) is Close:
                    break
            else:
                self.behind = self.behind or (left <= 0 and self.core.unread)
        except SpekoError:
            # The session never opened, so there is no `Close` to deliver.
            for consumer in (self.inbox, *self._others):
                consumer.end()
        state = self.core.state
        if state is _OPEN:
            return more or self.behind
        if state is State.CLOSING:
            self._set_lossy()
        return True

    def _deliver(self, frames: Sequence[Frame]) -> bool:
        """Deliver `frames`; return whether that filled a consumer, or was more than audio."""
        self.frames_received += len(frames)
        more = False
        self._delivering = True
        try:
            for frame in frames:
                for consumer in self._consumers:
                    if consumer.put(frame):
                        more = True
                if type(frame) is Audio:
                    self.audio_bytes_received += len(frame.pcm)
                    if self.on_first_audio is not None:
                        first, self.on_first_audio = self.on_first_audio, None
                        first()
                else:
                    more = True
                    if type(frame) is Interruption:
                        self.interruptions += 1
                    elif type(frame) is Close and not self.inbox.ended:
                        self.inbox.put(frame)
                    self._on_frame(frame)
                for direct in self._direct:
                    try:
                        result = direct.call(frame)
                    except BaseException as error:  # noqa: BLE001 - passed on
                        direct.failed(error)
                    else:
                        if result is not None:
                            direct.returned(result, frame)
        finally:
            self._delivering = False
        return more


def _place(consumer: DirectConsumer) -> int:
    return consumer.place


def _ignore(_: bool) -> None:
    """Do nothing: the default of `on_blocked`."""


def _do_nothing() -> None:
    """Do nothing: the default of callbacks."""
