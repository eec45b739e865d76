"""A live session over any anyio byte stream: the tasks around the pump, and what users hold in their hands.

The tasks, all within the session's own block and none of them raising:

- the body of the user's ``async with``;
- the reader: receive, feed, start writing the replies, deliver, re-arm the alarm. It never waits for a
  write: a peer that does not read must not keep us from reading, or both would wait for ever;
- the alarm: sleeps until the core's deadline. On its own, since cancelling a receive may lose bytes;
- one per handler, and one per tool call that runs.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Self, TypeVarTuple

import anyio
import msgspec
from anyio.abc import ByteStream, TaskGroup

from ..protocol.errors import ConnectionClosed, RemoteProtocolError, SpekoError
from ..protocol.frames import Close, Frame, ToolCall
from ..protocol.session import Buffer
from ..protocol.state import State
from ..protocol.timers import AT_ONCE
from .block import block
from .delivery import DEFAULT_MAX_BUFFER, DeliveryBuffer
from .errors import InternalError
from .pump import ClientCore, Pump
from .tools import Toolbox
from .transport import READ_SIZE, TRANSPORT_ERRORS, describe

_Args = TypeVarTuple("_Args")

logger: Final = logging.getLogger("speko_anyio")

Handler = Callable[[Frame], Awaitable[object] | object]
"""Called with each frame; when it gives an awaitable, that is awaited before the next frame."""

MAX_RUNNING_TOOLS: Final = 256
"""Tool calls running at once: as many as the core lets a peer have open. Interrupted calls no longer count
there, but their functions run on, and a peer must not start tasks without end."""


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one session, since its start."""

    bytes_received: int
    """Bytes read from the transport."""
    bytes_sent: int
    """Bytes written to the transport."""
    frames_received: int
    audio_bytes_received: int
    """PCM16 in the received `Audio` frames."""
    audio_bytes_sent: int
    frames_dropped: int
    """Frames received and never delivered to `receive`: mostly audio that an interruption made stale."""
    audio_bytes_dropped: int
    frames_buffered: int
    """Frames that wait for `receive`."""
    bytes_buffered: int
    """What they hold, as ``max_buffer`` counts it."""


class RealtimeSession:
    """A live session with a speech model. Made by `Realtime.connect`, `Realtime.open` or `open_session`,
    and alive only within their ``async with``.

    Receive by iterating, which ends after the final `Close`, or by `receive`; one task at a time. Send from
    as many tasks as you like: each call's messages stay together and in the order of the calls.

    Sending waits for the transport, not for the peer's answer. A send that is *cancelled while it writes*
    leaves an unknown part of a message on the wire, so it ends the session: to bound a send, bound the
    whole session. A send that is cancelled before it could start changes nothing.

    Every method that sends raises `LocalProtocolError` for what the protocol does not allow here (nothing
    was sent, the session goes on), and `ConnectionClosed`, or `RemoteProtocolError` when the peer broke the
    protocol, once the session is over.
    """

    def __init__(
        self,
        core: ClientCore,
        stream: ByteStream,
        *,
        session_id: str,
        expires_at: str,
        toolbox: Toolbox,
        close_timeout: float,
        max_buffer: int = DEFAULT_MAX_BUFFER,
    ) -> None:
        self._core = core
        self._stream = stream
        self._session_id = session_id
        self._expires_at = expires_at
        self._toolbox = toolbox
        self._close_timeout = close_timeout
        self._pump = Pump(core, max_buffer=max_buffer, on_call=self._call_received, on_space=self._space_made)
        self._sending = anyio.Lock(fast_acquire=True)
        self._replying = False
        self._space: anyio.Event | None = None
        self._finished = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()
        self._stopping = False
        self._reading = anyio.CancelScope()
        self._alarm = anyio.CancelScope()
        self._armed: float | None = None
        self._body = anyio.CancelScope()
        self._tasks: TaskGroup | None = None
        self._early_calls: list[ToolCall] = []
        self._handlers: list[_Subscription] = []
        self._running_tools = 0
        self._failure: BaseException | None = None
        self._bytes_sent = 0
        self._audio_bytes_sent = 0

    def __repr__(self) -> str:
        return f"<RealtimeSession {self._session_id} {self._core.state.value}>"

    # What it is

    @property
    def session_id(self) -> str:
        """The service's name of the session."""
        return self._session_id

    @property
    def expires_at(self) -> str:
        """When the grant's token expires, as the service wrote it (ISO 8601)."""
        return self._expires_at

    @property
    def input_sample_rate(self) -> int:
        """Samples a second that `send_audio` takes; final from the `Ready` frame on."""
        return self._core.input_sample_rate

    @property
    def output_sample_rate(self) -> int:
        """Samples a second of the `Audio` frames; each frame says its own too."""
        return self._core.output_sample_rate

    @property
    def closed(self) -> Close | None:
        """How the session ended; None while it lives."""
        return self._core.closed

    def stats(self) -> SessionStats:
        """The session's counters, as of now."""
        pump, inbox = self._pump, self._pump.inbox
        return SessionStats(
            bytes_received=pump.bytes_received,
            bytes_sent=self._bytes_sent,
            frames_received=pump.frames_received,
            audio_bytes_received=pump.audio_bytes_received,
            audio_bytes_sent=self._audio_bytes_sent,
            frames_dropped=inbox.dropped_frames,
            audio_bytes_dropped=inbox.dropped_bytes,
            frames_buffered=len(inbox),
            bytes_buffered=inbox.size,
        )

    # Sending

    async def send_audio(self, pcm: Buffer) -> None:
        """Send the user's speech: PCM16 little-endian mono at `input_sample_rate`, whole samples, any
        length (more than 64 KiB is split). See the class for what it raises and what cancelling does."""
        async with self._sending:
            self._core.send_audio(pcm)
            self._audio_bytes_sent += len(pcm) if isinstance(pcm, bytes) else memoryview(pcm).nbytes
            await self._write()

    async def commit(self) -> None:
        """End the user's turn: what was sent is to be answered now."""
        async with self._sending:
            self._core.commit()
            await self._write()

    async def clear(self) -> None:
        """Make the server forget the audio sent since the last `commit`."""
        async with self._sending:
            self._core.clear()
            await self._write()

    async def end_turn(self) -> None:
        """End the user's turn where the server detects turns (VAD)."""
        async with self._sending:
            self._core.end_turn()
            await self._write()

    async def interrupt(self) -> None:
        """Stop the response in flight (barge-in). Audio already received is yours to drop."""
        async with self._sending:
            self._core.interrupt()
            await self._write()

    async def send_tool_result(self, call_id: str, output: str) -> None:
        """Answer the `ToolCall` with this id, once; a structured result as JSON text.

        Functions passed as ``tools`` are answered for you. `LocalProtocolError` when no such call is open.
        """
        async with self._sending:
            self._core.send_tool_result(call_id, output)
            await self._write()

    # Receiving

    async def receive(self) -> Frame:
        """The next frame, waiting for it; the last one is `Close`.

        After that it raises `ConnectionClosed`, or `RemoteProtocolError` when the peer broke the protocol;
        `anyio.BusyResourceError` while another task is receiving. Cancelled, it loses no frame; frames
        that are here already are given without a look at the event loop, but for every 16th.
        """
        self._pump.claim()
        frame = await self._pump.inbox.get()
        if frame is None:
            raise self._pump.error.with_traceback(None)
        return frame

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        self._pump.claim()
        frame = await self._pump.inbox.get()
        if frame is not None:
            return frame
        error = self._pump.error
        if isinstance(error, RemoteProtocolError):
            raise error.with_traceback(None)
        raise StopAsyncIteration

    def on(self, handler: Handler) -> Callable[[], None]:
        """Call `handler` with every frame not yet received and all that follow, one at a time and in order;
        returns a function that stops it. Handlers and the iteration each get every frame.

        An async handler is awaited before its next frame. A slow one has a buffer of its own, of
        ``max_buffer`` bytes; when that is full the socket is no longer read. An error in a handler cancels
        the body of the session's ``async with`` and comes out of it, unless it is the `ConnectionClosed` of
        this session: a handler may find out that way. When the session ends handlers have
        ``close_timeout`` seconds to take what is left.

        With a handler and nobody iterating yet, the iteration's own buffer does not hold up the reading: an
        iteration that starts late misses the oldest of what was more than ``max_buffer`` bytes.

        Raises as the sends do once the session is over: the handler would never be called.
        """
        if self._pump.done:
            raise self._pump.error.with_traceback(None)
        subscription = _Subscription(handler, self._pump.subscribe())
        self._handlers.append(subscription)
        self._spawn(self._run_handler, subscription)

        def unsubscribe() -> None:
            self._pump.unsubscribe(subscription.buffer)

        return unsubscribe

    # Closing

    async def close(self, code: int = 1000, reason: str = "client_closed") -> None:
        """Say goodbye and wait until the peer has answered and the transport is closed.

        At most ``close_timeout`` seconds; then the transport is closed forcefully. Only the first call
        counts, further ones wait for the same end. Frames that came before can still be received, and after
        them `Close`. Leaving the ``async with`` does this. Cancelled, it closes forcefully at once.

        `LocalProtocolError` when `code` may not be sent: use 1000 or 4000 to 4999.
        """
        self._pump.close(code, reason)
        self._core_moved()
        try:
            await self._finished.wait()
        except BaseException:
            self._abort("the closing was cancelled")
            raise

    # The tasks

    async def _shake_hands(self) -> None:
        """Open the WebSocket. `HandshakeError` or `RemoteProtocolError` when it does not come about."""
        pump = self._pump
        while True:
            pump.handle_timeout(anyio.current_time())
            if self._core.state is not State.CONNECTING:
                break
            with anyio.CancelScope(deadline=_instant(pump.deadline)):
                await self._write()
                await self._receive()
        if self._core.closed is None and pump.done:
            raise pump.error.with_traceback(None)

    @block
    async def _run(self) -> AsyncGenerator[Self, None]:
        """The session's life around the user's body, whose exception comes out as it went in."""
        cancelled = anyio.get_cancelled_exc_class()
        error: BaseException | None = None
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    self._spawn(self._read)
                    for call in self._early_calls:
                        self._call_received(call)
                    self._early_calls.clear()
                    self._spawn(self._watch_the_clock)
                    self._core_moved()
                    try:
                        with self._body:
                            yield self
                    except cancelled:
                        raise
                    except BaseException as exc:  # noqa: BLE001 - held, and raised below
                        error = exc
                    if not (_is_exit(error) or _is_exit(self._failure)):
                        await self._leave()
                finally:
                    self._abort("the block of the session was cancelled")
                    self._stop()
        finally:
            # Here and not behind the group: an outer cancellation would replace the user's error else.
            # An exit goes before whatever it made of the body.
            if error is not None and not _is_exit(self._failure):
                if self._failure is not None:
                    logger.error("a handler failed too, beside the session's body", exc_info=self._failure)
                raise error
            if self._failure is not None:
                raise self._failure

    async def _leave(self) -> None:
        """The body is through: say goodbye, and let the handlers take what is left."""
        await self.close()
        with anyio.move_on_after(self._close_timeout):
            for subscription in tuple(self._handlers):
                await subscription.done.wait()

    def _spawn(self, work: Callable[[*_Args], Awaitable[None]], *args: *_Args) -> None:
        assert self._tasks is not None, "only within the session's block"
        self._tasks.start_soon(self._guard, work, args)

    async def _guard(self, work: Callable[[*_Args], Awaitable[None]], args: tuple[*_Args]) -> None:
        # Shielded: when the body is cancelled, its `finally` blocks still have a live connection.
        # `_stop` is the other end of every such scope.
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            if self._stopping:
                scope.cancel()
            try:
                await work(*args)
            except (SystemExit, KeyboardInterrupt) as exc:
                # Of a handler or a tool. Out of a task they would come in a group of ours, or past the loop.
                self._fail(exc)
            except Exception as exc:  # noqa: BLE001 - nothing may come out of a task but through the owner
                bug = InternalError(f"bug in speko_anyio, please report it: {type(exc).__name__}: {exc}")
                bug.__cause__ = exc
                self._fail(bug)
            finally:
                self._scopes.discard(scope)

    def _stop(self) -> None:
        """End every task of the session."""
        self._stopping = True
        for scope in self._scopes:
            scope.cancel()

    def _fail(self, error: BaseException) -> None:
        """Something outside the body failed: cancel the body, and let the error out of the block."""
        if self._failure is None:
            self._failure = error
        else:
            logger.error("a further failure in session %s", self._session_id, exc_info=error)
        self._body.cancel()

    def _abort(self, reason: str) -> None:
        """End it at once, without a word to the peer; nothing when it is over."""
        self._pump.abort(reason)
        self._core_moved()

    def _core_moved(self) -> None:
        """Something happened to the core: start what it asks for. Never blocks."""
        pump = self._pump
        deadline = pump.deadline
        if deadline == AT_ONCE:
            pump.handle_timeout(anyio.current_time())
            deadline = pump.deadline
        if pump.done:
            self._reading.cancel()
            self._alarm.cancel()
            return
        if self._space is not None and not pump.full:
            self._space.set()
        # Whoever is writing now looks for more before it stops.
        if pump.owes and not self._replying and not self._sending.locked():
            self._replying = True
            self._spawn(self._reply)
        if deadline != self._armed:
            self._armed = deadline
            self._alarm.deadline = _instant(deadline)

    # Reading

    async def _read(self) -> None:
        pump = self._pump
        try:
            with self._reading:
                while not pump.done:
                    if pump.full:
                        await self._wait_for_space()
                    await self._receive()
                    self._core_moved()
            if pump.owes:
                with anyio.move_on_after(self._close_timeout):
                    await self._reply()
                    await self._stream.aclose()
        finally:
            # First everybody is woken, which needs no await; then the transport goes, whatever it takes.
            self._abort("the session was cancelled")
            try:
                await anyio.aclose_forcefully(self._stream)
            finally:
                self._finished.set()

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive(READ_SIZE)
        except anyio.EndOfStream:
            self._pump.receive_eof()
        except TRANSPORT_ERRORS as exc:
            self._pump.receive_lost(f"the connection broke ({describe(exc)})")
            self._pump.error.__cause__ = exc
        else:
            self._pump.receive_data(data)

    async def _wait_for_space(self) -> None:
        # No pong is seen while we don't read, so silence proves nothing.
        self._core.suspend_keepalive()
        self._core_moved()
        while self._pump.full:
            self._space = space = anyio.Event()
            await space.wait()
        self._space = None
        self._core.resume_keepalive()
        self._core_moved()

    def _space_made(self) -> None:
        if self._space is not None:
            self._space.set()

    # Writing

    async def _write(self) -> None:
        """Write what the core has queued. The caller holds `_sending`."""
        while data := self._core.data_to_send():
            try:
                await self._stream.send(data)
            except TRANSPORT_ERRORS as exc:
                self._write_failed()
                raise self._pump.error.with_traceback(None) from exc
            except BaseException:
                self._write_failed()
                raise
            self._bytes_sent += len(data)

    def _write_failed(self) -> None:
        self._pump.send_failed()
        if self._core.closed is not None:
            self._core_moved()

    async def _reply(self) -> None:
        """Write what the core owes the peer, behind whoever is writing."""
        try:
            async with self._sending:
                await self._write()
        except SpekoError:
            pass  # the session's own end, which everybody who waits has been told
        finally:
            self._replying = False

    # Time

    async def _watch_the_clock(self) -> None:
        while not self._pump.done:
            with anyio.CancelScope(deadline=_instant(self._armed)) as self._alarm:
                await anyio.sleep_forever()
            self._pump.handle_timeout(anyio.current_time())
            self._core_moved()

    # Handlers and tools

    async def _run_handler(self, subscription: _Subscription) -> None:
        try:
            while (frame := await subscription.buffer.get()) is not None:
                try:
                    result = subscription.handler(frame)
                    if inspect.isawaitable(result):
                        await result
                except Exception as exc:  # noqa: BLE001 - whatever it is, it is the owner's
                    if not self._is_own_end(exc):
                        self._fail(exc)
                        return
        finally:
            self._pump.unsubscribe(subscription.buffer)
            self._handlers.remove(subscription)
            subscription.done.set()

    def _is_own_end(self, error: Exception) -> bool:
        """Whether a handler only found out that the session is over. That is no failure: `Close` tells it."""
        if self._core.state is State.OPEN:
            return False
        return isinstance(error, ConnectionClosed) or error is self._core.error

    def _call_received(self, call: ToolCall) -> None:
        if not self._toolbox.answers(call):
            return
        if self._tasks is None:
            # It came in one read with the handshake: a read's worth of calls at most.
            self._early_calls.append(call)
            return
        if self._running_tools >= MAX_RUNNING_TOOLS:
            # No await here: the answer is queued, and goes out with the replies.
            try:
                self._core.send_tool_result(call.call_id, "Too many tools are running; try again later.")
            except SpekoError as error:
                logger.debug("the call of tool %s was not answered: %s", call.name, error)
            return
        self._running_tools += 1
        self._spawn(self._run_tool, call)

    async def _run_tool(self, call: ToolCall) -> None:
        try:
            output = await self._toolbox.run(call)
            await self.send_tool_result(call.call_id, output)
        except SpekoError as error:
            # The session is over, or the application was quicker: nobody waits for this result.
            logger.debug("the result of tool %s was not sent: %s", call.name, error)
        finally:
            self._running_tools -= 1


class _Subscription:
    """A handler and what it has not seen yet."""

    def __init__(self, handler: Handler, buffer: DeliveryBuffer) -> None:
        self.handler = handler
        self.buffer = buffer
        self.done = anyio.Event()


def _is_exit(error: BaseException | None) -> bool:
    """Whether it is to end the program, or the task: such an end does not wait for a goodbye."""
    return error is not None and not isinstance(error, Exception)


def _instant(deadline: float | None) -> float:
    return math.inf if deadline is None else deadline
