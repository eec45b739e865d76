"""`ServerSession`: the server's end of one session, over any transport that carries WebSocket messages.

It mirrors the client's session. Three tasks serve it: one reads, one writes, one keeps time. None of them
knows a rule of the protocol: all are in `ServerProtocol`, in whose outbox messages wait for the writer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias, TypeVar

import anyio
import msgspec
from anyio.lowlevel import checkpoint_if_cancelled

from speko_anyio._net.event_loop import clock
from speko_anyio._net.tasks import TaskGroup, Wakeup
from speko_anyio.protocol import close_codes
from speko_anyio.protocol._commands import AudioIn, Commit, EndTurn, ToolResult
from speko_anyio.protocol._dialect import NEED_DATA
from speko_anyio.protocol._extensions import USAGE
from speko_anyio.protocol._limits import DEFAULT_LIMITS, Limits
from speko_anyio.protocol._outbox import CloseMessage
from speko_anyio.protocol._state import State
from speko_anyio.protocol._timeouts import DEFAULT_TIMEOUTS
from speko_anyio.protocol.errors import ConnectionClosed
from speko_anyio.protocol.frames import (
    Close,
    ErrorFrame,
    Expiring,
    Interruption,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol.mint import DEFAULT_SAMPLE_RATE, SessionConfig

from ._meter import Meter
from ._session_log import make_core

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from speko_anyio.protocol._commands import Command
    from speko_anyio.protocol._pcm import Buffer
    from speko_anyio.protocol._session import ServerFrame, ServerProtocol
    from speko_anyio.protocol.frames import ResponseStatus, Role, ToolStatus

_T = TypeVar("_T")

RECEIVE_BUFFER: Final = 1024 * 1024
"""Bytes of commands that wait for the handler: 21 s of speech at 24 kHz. Beyond it the peer has to wait, and
its pongs too: a handler that reads nothing for a minute may lose the client to uvicorn's keepalive."""

SEND_BUFFER: Final = 64 * 1024
"""Bytes that wait for the peer: 1.4 s of speech at 24 kHz. Beyond it the handler has to wait, so that a
response made faster than the peer reads does not pile up here."""

_COMMAND_OVERHEAD: Final = 64
"""Bytes that every command counts beside its content; otherwise a flood of empty ones would meet no limit."""

EXPIRING: Final = "SESSION_EXPIRING"
"""Code of the `ErrorFrame` that warns the client, as `Expiring` warns the handler. The protocol has no
message for this, but every client understands an error without a close, which the session survives."""

_OPEN: Final = State.OPEN
_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class MessageTransport(Protocol):
    """Carries whole WebSocket messages, each way.

    `receive` and `send` are each called by one task at a time. Both may raise anyio's
    `BrokenResourceError`, `ClosedResourceError` or `EndOfStream` when the connection is gone.
    """

    async def receive(self) -> str | bytes | CloseMessage | None:
        """Wait for the next message.

        Return a `CloseMessage` when the peer closed, which the transport itself answers, and None when the
        connection was lost. It is not called again after either.
        """
        ...

    async def send(self, message: str | bytes) -> None:
        """Send one message; return when there is room for another."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Send the WebSocket's close frame; nothing is sent after it. `receive` then brings the answer."""
        ...


@asynccontextmanager
async def serve_session(
    transport: MessageTransport,
    *,
    session_id: str,
    config: SessionConfig,
    metadata: dict[str, Any] | None = None,
    ttl: float | None = None,
    warn_before: float = DEFAULT_TIMEOUTS.warn_before,
    close_timeout: float = DEFAULT_TIMEOUTS.close,
    limits: Limits = DEFAULT_LIMITS,
    receive_buffer: int = RECEIVE_BUFFER,
    send_buffer: int = SEND_BUFFER,
    meter: Meter | None = None,
) -> AsyncIterator[ServerSession]:
    """Serve one session over a WebSocket that is open: say `ready`, yield the session, say goodbye.

    When the block ends, the session is closed with 1000, after an exception with 1011, and what is still
    queued is sent; that takes `close_timeout` seconds at most. Cancelled, it ends at once without a goodbye.
    An exception propagates unchanged, never in an exception group of ours.

    - `ttl`: seconds after which the session is closed; None for no limit. `warn_before` seconds before that,
      an `Expiring` command comes, and the client gets an `ErrorFrame` with the code ``SESSION_EXPIRING``.
    - `receive_buffer`, `send_buffer`: bytes that may wait for the handler, and for the peer.
    - `meter`: counts what the session uses; None for one that nobody reads.
    """
    # A verb may queue as much as the outbox holds while up to `send_buffer` bytes still wait.
    limits = msgspec.structs.replace(limits, max_outbox=limits.max_outbox + send_buffer)
    session = ServerSession(
        transport,
        session_id=session_id,
        config=config,
        metadata=metadata,
        core=make_core(
            session_id,
            input_sample_rate=config.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=config.output_sample_rate or DEFAULT_SAMPLE_RATE,
            limits=limits,
            close_timeout=close_timeout,
            ttl=ttl,
            warn_before=warn_before,
            extensions=(USAGE,),
        ),
        receive_buffer=receive_buffer,
        send_buffer=send_buffer,
        close_timeout=close_timeout,
        meter=meter or Meter(),
    )
    async with TaskGroup(f"session {session_id}") as tasks:
        tasks.start_soon(session._serve)
        try:
            with tasks.held:
                yield session
            failed = tasks.held.error is not None
            await session._finish(close_codes.INTERNAL_ERROR if failed else close_codes.NORMAL)
        finally:
            session._stop()


class _Inbox:
    """The client's commands on their way to the handler, oldest first."""

    __slots__ = ("_arrived", "_commands", "_core", "_limit", "_receiving", "_space", "size")

    def __init__(self, core: ServerProtocol, limit: int) -> None:
        self._core = core
        self._limit = limit
        self._commands: deque[tuple[Command, int]] = deque()
        self._arrived = Wakeup()
        self._space = Wakeup()
        self._receiving = False
        self.size = 0
        """Bytes that wait, about."""

    @property
    def full(self) -> bool:
        """Whether to read no more from the client for now."""
        return self.size > self._limit

    def put(self, command: Command) -> None:
        """Append a command."""
        size = _size(command)
        self._commands.append((command, size))
        self.size += size
        self._arrived.ring()

    async def take(self) -> Command:
        """Wait for the oldest command; see `ServerSession.receive`."""
        if self._receiving:
            raise anyio.BusyResourceError("receiving from this session")
        self._receiving = True
        try:
            await checkpoint_if_cancelled()
            while not self._commands:
                if self._core.error is not None:
                    raise self._core.error.with_traceback(None)
                await self._arrived.wait()
        finally:
            self._receiving = False
        command, size = self._commands.popleft()
        self.size -= size
        if not self.full:
            self._space.ring()
        return command

    async def wait_for_space(self) -> None:
        """Wait until the handler has taken enough, or the session ends."""
        # Don't wait after a goodbye: its answer must be read even if the handler takes no commands.
        while self.full and self._core.state is _OPEN:
            await self._space.wait()

    def wake(self) -> None:
        """Let the tasks that wait look again: the session's state has changed."""
        self._arrived.ring()
        self._space.ring()


class ServerSession:
    """The server's end of one session. `serve_session` makes it; `ready` was sent.

    Iterate over it, or call `receive`, for the client's commands: `AudioIn`, `Commit`, `Clear`, `EndTurn`,
    `Interrupt`, `ToolResult`, `Unknown`, `Expiring` and, once and last, `Close`. Then iteration ends, or
    raises `RemoteProtocolError` when the client broke the protocol.

    Every ``send_*`` waits while more bytes than the send buffer's are queued, and then queues its message
    whole, in the order of the calls. It raises `ConnectionClosed` (or that `RemoteProtocolError`) once the
    session is over, and `LocalProtocolError` when the protocol does not allow the message now. A call that is
    cancelled while it waits has queued nothing, and the session goes on: a task that speaks may be cancelled
    at any time.
    """

    def __init__(
        self,
        transport: MessageTransport,
        *,
        session_id: str,
        config: SessionConfig,
        metadata: dict[str, Any] | None,
        core: ServerProtocol,
        receive_buffer: int,
        send_buffer: int,
        close_timeout: float,
        meter: Meter,
    ) -> None:
        self.session_id = session_id
        self.config = config
        """What the client asked for when the session was minted."""
        self.metadata = metadata
        """What the mint's caller attached to the session; None for nothing."""
        self.meter = meter
        """What the session has used so far."""
        self._transport = transport
        self._core = core
        self._now = clock()
        self._close_timeout = close_timeout
        self._ended = anyio.Event()
        self._background = anyio.CancelScope(shield=True)
        self._clock = Wakeup()
        self._inbox = _Inbox(core, receive_buffer)
        self._send_buffer = send_buffer
        self._paced = True
        """Whether what is sent waits for room: what a bridge sends does not."""
        self._send_lock = anyio.Lock(fast_acquire=True)
        self._room = Wakeup()
        self._to_write = Wakeup()
        self._written = anyio.Event()
        core.send_ready()
        self.core_changed()

    def __repr__(self) -> str:
        return f"<ServerSession {self.session_id!r} {self._core.state.value}>"

    @property
    def input_sample_rate(self) -> int:
        """Samples a second of the client's audio."""
        return self._core.input_sample_rate

    @property
    def output_sample_rate(self) -> int:
        """Samples a second that `send_audio` takes."""
        return self._core.output_sample_rate

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Ids of the tool calls that wait for their result, oldest first."""
        return self._core.open_calls

    @property
    def closed(self) -> Close | None:
        """How the session ended; None while it lives. Known before the handler has read everything."""
        return self._core.closed

    @property
    def ending(self) -> bool:
        """Whether it is over, or being closed: nothing can be sent any more."""
        return self._core.state is not _OPEN

    @property
    def buffered(self) -> tuple[int, int]:
        """Bytes that wait for the handler, and bytes that wait for the client."""
        return self._inbox.size, self._core.queued

    async def wait_closed(self) -> Close:
        """Wait until the session is over, and say how it ended."""
        await self._ended.wait()
        assert self._core.closed is not None
        return self._core.closed

    # From the client

    async def receive(self) -> Command:
        """Wait for the client's next command.

        Raises the session's last error once `Close` was received: `ConnectionClosed`, or
        `RemoteProtocolError`. Raises anyio's `BusyResourceError` when another task is receiving. A call that
        is cancelled has taken nothing.
        """
        return await self._inbox.take()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Command:
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    # To the client

    async def send_audio(self, pcm: Buffer) -> None:
        """Send PCM16 little-endian mono audio at `output_sample_rate`.

        `pcm` is any even number of bytes up to ``limits.max_outbox``, or an array of int16. Raises TypeError
        for an array of other samples.
        """
        await self._send(self._core.send_audio, pcm)

    async def send_transcript(self, role: Role, text: str, *, final: bool) -> None:
        """Send what `role` said; a partial text is replaced by the next one of the same role."""
        await self._send(self._queue, Transcript(role, text, final))

    async def send_tool_call(self, call_id: str, name: str, arguments: str) -> None:
        """Ask the client to run `name` with `arguments`, JSON text; a `ToolResult` answers, by `call_id`."""
        await self._send(self._queue, ToolCall(call_id, name, arguments))

    async def send_server_tool_call(self, id: str, name: str, status: ToolStatus) -> None:
        """Send news of a tool that runs on the server's side."""
        await self._send(self._queue, ServerToolCall(id, name, status))

    async def send_interruption(self, at: Role = "user") -> None:
        """Say that the assistant was cut off.

        This never waits for room: the audio still queued is dropped, and this goes ahead. First cancel the
        task that speaks, or what it sends next is stale.
        """
        await checkpoint_if_cancelled()
        self._queue(Interruption(at))
        self.core_changed()

    async def send_usage(self, input_audio_tokens: int, output_audio_tokens: int) -> None:
        """Send the tokens of audio spent since the last report."""
        await self._send(self._queue, Usage(input_audio_tokens, output_audio_tokens))

    async def send_response_end(self, status: ResponseStatus = "done", reason: str = "") -> None:
        """Send the end of an answer, exactly once, after all of its audio. Clients count turns by it.

        The status is ``done``, ``interrupted`` when the user cut it off, ``incomplete`` when a limit or a
        filter cut it short, or ``failed``. `reason` says why the answer is not whole. Clients that don't know
        this message, such as published SDKs, don't get it.
        """
        await self._send(self._queue, ResponseEnd(status, reason))

    async def send_error(self, code: str, message: str) -> None:
        """Report a failure that the session survives, or the reason for the close that follows."""
        await self._send(self._queue, ErrorFrame(code, message))

    def turn_ended(self) -> None:
        """Say that the user has finished speaking, for the time to first audio.

        A handler that detects turns calls it; the client's own `Commit` and `EndTurn` are known.
        """
        self.meter.turn_ended(self._now())

    async def close(self, code: int = close_codes.NORMAL, reason: str = "") -> None:
        """End the session after what is queued, and wait until it is over (`close_timeout` at most).

        Only the first call counts. Raises `LocalProtocolError` for a code that may not be sent.
        """
        self._core.close(code, reason)
        self.core_changed()
        await self._ended.wait()

    async def wait_for_room(self, size: int) -> None:
        """Wait until at most `size` bytes wait for the client, or the session ends."""
        while self._core.queued > size and self._core.state is _OPEN:
            await self._room.wait()

    async def close_when_sent(self, code: int, reason: str) -> None:
        """Close as `close` does, but only when no more than the send buffer still waits for the client.

        The client's time to answer the close begins with it.
        """
        await self.wait_for_room(self._send_buffer)
        await self.close(code, reason)

    async def _send(self, queue: Callable[[_T], None], what: _T) -> None:
        # The lock keeps the order of the calls while they wait for room.
        async with self._send_lock:
            if self._core.queued > self._send_buffer:
                await self.wait_for_room(self._send_buffer)
            queue(what)
            self.core_changed()

    def _queue(self, frame: ServerFrame) -> None:
        self._core.send(frame)
        self.meter.queued(frame)

    # The core

    def take_core(self) -> ServerProtocol:
        """Return the core, for a bridge that writes to it and itself limits what waits.

        Call `core_changed` after every use. If the session ends while the bridge has not ended it, speech
        beyond the send buffer is dropped: it could delay the close for longer than `close_timeout`.
        """
        self._paced = False
        return self._core

    def core_changed(self) -> None:
        """Move the core's commands to the inbox, and wake the tasks that have something to do.

        Call it after every change of the core, before the next ``await``.
        """
        core = self._core
        while not self._ended.is_set() and (event := core.next_event()) is not NEED_DATA:
            self._inbox.put(event)
            match event:
                case Commit() | EndTurn():
                    self.turn_ended()
                case Expiring(seconds=seconds) if core.state is _OPEN:
                    core.send_error(EXPIRING, f"the session ends in {seconds:.0f} seconds")
                case Close():
                    self._ended.set()
        if core.has_output:
            self._to_write.ring()
        self._room.ring()
        if core.state is not _OPEN:
            if not self._paced and core.queued > self._send_buffer:
                core.outbox.drop_audio()
            # Any condition that a task waits for may have changed.
            self._inbox.wake()
            self._clock.ring()
            self._to_write.ring()

    # The tasks that serve it

    async def _serve(self) -> None:
        # Shielded, so that a handler that is cancelled still has a live session in its `finally` blocks.
        # It ends by `_stop`, which every way out of `serve_session` calls.
        with self._background:
            async with TaskGroup(f"session {self.session_id}") as tasks:
                tasks.start_soon(self._read)
                tasks.start_soon(self._write)
                tasks.start_soon(self._keep_time)

    async def _read(self) -> None:
        core = self._core
        while not self._ended.is_set():
            try:
                message = await self._transport.receive()
            except _GONE:
                message = None
            if message is None:
                core.receive_lost()
            elif isinstance(message, CloseMessage):
                core.receive_close(message.code, message.reason)
            elif core.state is _OPEN or not self._inbox.full:
                self.meter.messages_in += 1
                if isinstance(message, bytes):
                    self.meter.audio_in += len(message)
                core.receive_message(message)
            # After our goodbye the handler takes no more commands: only the end matters.
            self.core_changed()
            await self._inbox.wait_for_space()

    async def _write(self) -> None:
        core = self._core
        try:
            while True:
                # One at a time: an interruption drops the audio that still waits in the core.
                while (message := core.next_message()) is None:
                    if self._ended.is_set():
                        return
                    await self._to_write.wait()
                if isinstance(message, CloseMessage):
                    await self._transport.close(message.code, message.reason)
                    return
                if self._room.awaited is not None:
                    self._room.ring()
                await self._transport.send(message)
                if isinstance(message, bytes):
                    self.meter.audio_out += len(message)
                    if self.meter.asked_at is not None:
                        self.meter.answered(anyio.current_time())
        except _GONE:
            # When a client closes the WebSocket, sends fail before its close is read.
            core.send_failed()
            self.core_changed()
        finally:
            self._written.set()

    async def _keep_time(self) -> None:
        while not self._ended.is_set():
            deadline = self._core.next_deadline()
            with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
                await self._clock.wait()
            if self._ended.is_set():
                return
            self._core.handle_timeout(anyio.current_time())
            self.core_changed()

    async def _finish(self, code: int) -> None:
        """Say goodbye, unless that was done, and wait until the writer is finished."""
        await self.close(code)
        closed = await self.wait_closed()
        if closed.initiated_by == "local" and closed.code != close_codes.ABNORMAL:
            # A peer that broke the protocol still gets its close, if it reads. Otherwise everything was sent.
            with anyio.move_on_after(self._close_timeout):
                await self._written.wait()

    def _stop(self) -> None:
        """End the tasks; if the session is not over by now, it is lost."""
        self._core.receive_lost("the handler was cancelled")
        self.core_changed()
        self._background.cancel()


def _size(command: Command) -> int:
    match command:
        case AudioIn(pcm=payload) | Unknown(raw=payload) | ToolResult(output=payload):
            return _COMMAND_OVERHEAD + len(payload)
        case _:
            return _COMMAND_OVERHEAD


Handler: TypeAlias = Callable[[ServerSession], Awaitable[None]]
"""Serves one session and returns when it is done with it; then the session is closed with 1000.

An exception is logged and closes that session, with 1011. When the session ends first, the handler finds
`Close` last among the commands, and is cancelled when it has not returned some seconds later.

A handler that is also an async context manager is entered when the gateway starts and left when it stops.
"""
