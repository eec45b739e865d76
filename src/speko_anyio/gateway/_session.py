"""`ServerSession`: the server's end of one session. It mirrors the client's session.

A `Link` moves its messages: over a transport that carries whole WebSocket messages, or over bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import CoroutineType
from typing import Any, Final, Self, TypeAlias, TypedDict, TypeVar

import anyio
import msgspec
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from speko_anyio._net.event_loop import clock
from speko_anyio._net.tasks import TaskGroup, Waiter, Wakeup
from speko_anyio.protocol import close_codes
from speko_anyio.protocol._commands import AudioIn, Command, Commit, EndTurn, ImageIn, TextIn, content_size
from speko_anyio.protocol._dialect import NEED_DATA
from speko_anyio.protocol._extensions import USAGE
from speko_anyio.protocol._limits import DEFAULT_LIMITS, Limits
from speko_anyio.protocol._pcm import Buffer
from speko_anyio.protocol._session import ServerFrame, ServerProtocol
from speko_anyio.protocol._state import State
from speko_anyio.protocol._timeouts import DEFAULT_TIMEOUTS
from speko_anyio.protocol.capabilities import Capabilities
from speko_anyio.protocol.errors import ConnectionClosed, SpekoError
from speko_anyio.protocol.frames import (
    Close,
    ErrorFrame,
    Expiring,
    Interruption,
    ResponseEnd,
    ResponseStatus,
    Role,
    ServerToolCall,
    ToolCall,
    ToolStatus,
    Transcript,
    Usage,
)
from speko_anyio.protocol.mint import DEFAULT_SAMPLE_RATE, Kept, SessionConfig

from ._link import Link
from ._message_link import MessageLink, MessageTransport
from ._meter import Meter
from ._session_log import make_core

_T = TypeVar("_T")

RECEIVE_BUFFER: Final = 1024 * 1024
"""Bytes of commands that wait for the handler: 21 s of speech at 24 kHz. Beyond it the peer has to wait. One
command may exceed it: at most an image of ``limits.max_image_size``. Over
ASGI its pongs wait too, so if a handler reads nothing for a minute, the server's keepalive may end the
connection."""

SEND_BUFFER: Final = 64 * 1024
"""Bytes that wait for the peer: 1.4 s of speech at 24 kHz. Beyond it the handler has to wait, so that a
response made faster than the peer reads does not pile up here."""

_COMMAND_OVERHEAD: Final = 64
"""Bytes that every command counts besides its content: without them, a flood of empty ones meets no limit."""

_EVENTS_PER_TURN: Final = range(16)
"""Commands that are moved to the inbox in one turn of the event loop. One read may hold thousands, which must
not delay other sessions."""

_AUDIO_PER_CHECK: Final = 64
"""Messages of audio after which the link checks the core's deadline, which the budget of messages may have
brought forward."""

_CALLS_PER_TURN: Final = 16
"""Calls of a handler that did not have to wait, for each turn of the event loop: a turn costs more than a
call, but a handler that never waits must not keep the loop from the other sessions."""

EXPIRING: Final = "SESSION_EXPIRING"
"""Code of the `ErrorFrame` that warns the client, as `Expiring` warns the handler. The protocol has no
message for this, but every client understands an error without a close, which the session survives."""

_OPEN: Final = State.OPEN


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
    capabilities: Capabilities | None = None,
    meter: Meter | None = None,
) -> AsyncIterator[ServerSession]:
    """Serve one session over a WebSocket that is open: say `ready`, yield the session, say goodbye.

    When the block ends, the session is closed with 1000, after an exception with 1011, and what is still
    queued is sent; that takes `close_timeout` seconds at most. Cancelled, it ends at once without a goodbye.
    An exception propagates unchanged, never in an exception group of ours.

    - `ttl`: seconds after which the session is closed; None for no limit. `warn_before` seconds before that,
      an `Expiring` command comes, and the client gets an `ErrorFrame` with the code ``SESSION_EXPIRING``.
    - `receive_buffer`, `send_buffer`: bytes that may wait for the handler, and for the peer.
    - `capabilities`: what the session takes besides speech, which `ready` offers; None for nothing.
    - `meter`: counts what the session uses; None for one that nobody reads.
    """
    link = MessageLink(
        make_core(
            session_id,
            **core_options(
                config,
                limits=limits,
                close_timeout=close_timeout,
                ttl=ttl,
                warn_before=warn_before,
                send_buffer=send_buffer,
                capabilities=capabilities,
            ),
        ),
        transport,
    )
    session = ServerSession(
        link,
        session_id=session_id,
        config=config,
        metadata=metadata,
        receive_buffer=receive_buffer,
        send_buffer=send_buffer,
        meter=meter or Meter(),
    )
    del config, metadata  # the session has a copy that takes less memory
    async with serving(session, close_timeout=close_timeout):
        yield session


@asynccontextmanager
async def serving(session: ServerSession, *, close_timeout: float) -> AsyncIterator[ServerSession]:
    """Serve a new session over its link during the block; see `serve_session`."""
    async with TaskGroup(f"session {session.session_id}") as tasks:
        session._link.start(session, tasks)
        session.core_changed()
        try:
            with tasks.held:
                yield session
            failed = tasks.held.error is not None
            code = close_codes.INTERNAL_ERROR if failed else close_codes.NORMAL
            await session._finish(code, close_timeout)
        finally:
            session._stop()


class CoreOptions(TypedDict):
    """The options of a session's core, at either level; see `ServerConnection`."""

    input_sample_rate: int
    output_sample_rate: int
    limits: Limits
    close_timeout: float
    ttl: float | None
    warn_before: float
    extensions: tuple[str, ...]
    capabilities: Capabilities | None


def core_options(
    config: SessionConfig,
    *,
    ttl: float | None,
    close_timeout: float,
    warn_before: float = DEFAULT_TIMEOUTS.warn_before,
    limits: Limits = DEFAULT_LIMITS,
    send_buffer: int = SEND_BUFFER,
    capabilities: Capabilities | None = None,
) -> CoreOptions:
    """Return the options of the core for a session that was minted with `config`."""
    return {
        "input_sample_rate": config.input_sample_rate or DEFAULT_SAMPLE_RATE,
        "output_sample_rate": config.output_sample_rate or DEFAULT_SAMPLE_RATE,
        # A verb may queue as much as the outbox holds while up to `send_buffer` bytes still wait.
        "limits": msgspec.structs.replace(limits, max_outbox=limits.max_outbox + send_buffer),
        "close_timeout": close_timeout,
        "ttl": ttl,
        "warn_before": warn_before,
        "extensions": (USAGE,),
        "capabilities": capabilities,
    }


class _Inbox:
    """The client's commands on their way to the handler, oldest first.

    `waiter` lets the handler wait. `space_made` is called when an inbox that was `full` has room again.
    """

    __slots__ = (
        "_limit",
        "_resume_at",
        "_space_made",
        "_waiter",
        "_waiting",
        "commands",
        "error",
        "full",
        "has_waited",
        "size",
        "streak",
    )

    def __init__(self, limit: int, waiter: Waiter, space_made: Callable[[], None]) -> None:
        self.error: SpekoError | None = None
        """What `take` raises once all commands are taken; None while more may come."""
        self._limit = limit
        # Not at every command, since the reading stops and starts by system calls.
        self._resume_at = limit - limit // 8
        self._waiter = waiter
        self._space_made = space_made
        self._waiting = False
        self.commands: deque[Command] = deque()
        self.size: int = 0
        """Bytes that wait, about."""
        self.full: bool = False
        """Whether to read no more from the client for now."""
        self.has_waited: bool = False
        """Whether the handler has just waited for a command, so that its next send needs no checkpoint."""
        self.streak: int = 0
        """Calls since the handler last let the event loop go on."""

    def put(self, command: Command, size: int) -> None:
        """Append a command of `size` bytes."""
        self.commands.append(command)
        self.size += _COMMAND_OVERHEAD + size
        if self.size > self._limit:
            self.full = True
        if self._waiting:
            self._waiting = False
            self._waiter.ring()

    def end(self, error: SpekoError) -> None:
        """Raise `error` once all commands are taken."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Let a waiting handler check the inbox again."""
        if self._waiting:
            self._waiting = False
            self._waiter.ring()

    async def take(self, *, iterating: bool = False) -> Command:
        """Wait for the oldest command; see `ServerSession.receive` and `ServerSession.__anext__`."""
        if self._waiting:
            raise anyio.BusyResourceError("receiving from this session")
        commands = self.commands
        if commands or self.error is not None:
            await self.checkpoint()
        while not commands:
            if self.error is not None:
                if iterating and isinstance(self.error, ConnectionClosed):
                    raise StopAsyncIteration
                raise self.error.with_traceback(None)
            self._waiting = True
            try:
                await self._waiter.wait()
            finally:
                self._waiting = False
            self.has_waited = True
            self.streak = 0
        command = commands.popleft()
        self.size -= _COMMAND_OVERHEAD + (
            len(command.pcm) if type(command) is AudioIn else content_size(command)
        )
        if self.full and self.size <= self._resume_at:
            self.full = False
            self._space_made()
        return command

    async def checkpoint(self) -> None:
        """Notice a cancellation; after some calls that did not wait, let other tasks run."""
        self.streak += 1
        if self.streak < _CALLS_PER_TURN:
            await checkpoint_if_cancelled()
        else:
            self.streak = 0
            await checkpoint()


class ServerSession:
    """The server's end of one session. `serve_session` makes it; `ready` was sent.

    Iterate over it, or call `receive`, for the client's commands: `AudioIn`, `Commit`, `Clear`, `EndTurn`,
    `Interrupt`, `ToolResult`, `Unknown`, `Expiring` and, once and last, `Close`. Then iteration ends, or
    raises `RemoteProtocolError` when the client broke the protocol. A handler that declares that it takes
    them (see `takes`) also gets `TextIn`, `ImageIn`, `Respond`, `Say`, `Update` and `Played`.

    Every ``send_*`` waits while more bytes than the send buffer's are queued, and then queues its message
    whole, in the order of the calls. It raises `ConnectionClosed` (or that `RemoteProtocolError`) once the
    session is over, and `LocalProtocolError` when the protocol does not allow the message now. A call that is
    cancelled while it waits has queued nothing, and the session goes on: a task that speaks may be cancelled
    at any time.
    """

    def __init__(
        self,
        link: Link,
        *,
        session_id: str,
        config: SessionConfig,
        metadata: dict[str, Any] | None,
        meter: Meter,
        receive_buffer: int = RECEIVE_BUFFER,
        send_buffer: int = SEND_BUFFER,
    ) -> None:
        self.session_id = session_id
        self.provider: str = config.provider
        """The name of the provider that the client asked for."""
        self._config = Kept(config, SessionConfig)
        self._metadata = None if metadata is None else Kept(metadata, dict[str, Any])
        self.meter = meter
        """What the session has used so far."""
        self._link = link
        # Looked up once, since every message calls them.
        self._next_event = link.next_event
        self._queue_audio = link.send_audio
        self._flush = link.flush
        self._core = core = link.core
        self._now = clock()
        self._ended = Wakeup()
        self._grace: tuple[anyio.CancelScope, float] | None = None
        self._inbox = _Inbox(receive_buffer + link.read_ahead, link.make_waiter(), link.space_made)
        self._send_buffer = send_buffer
        self._paced = True
        """Whether sends wait for room. Those of a bridge don't."""
        self._senders = 0
        """Tasks that wait for room, or for their turn to."""
        self._send_lock: anyio.Lock | None = None
        self.room: Wakeup = Wakeup()
        """Rings when less waits for the client, or the session has changed."""
        core.send_ready()

    def __repr__(self) -> str:
        return f"<ServerSession {self.session_id!r} {self._core.state.value}>"

    @property
    def config(self) -> SessionConfig:
        """What the client asked for when it minted the session. A large one is decoded on each access."""
        return self._config.get()

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What the client attached to its mint; None for nothing. Decoded on each access if large."""
        return None if self._metadata is None else self._metadata.get()

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
    def full(self) -> bool:
        """Whether to read no more from the client for now."""
        # Not after a goodbye: its answer must be read even if the handler takes no commands.
        return self._inbox.full and self._core.state is _OPEN

    @property
    def buffered(self) -> tuple[int, int]:
        """Bytes that wait for the handler, and for the client, with an overhead for each message."""
        return self._inbox.size, self._core.queued_memory

    async def wait_closed(self) -> Close:
        """Wait until the session is over, and say how it ended."""
        while self._inbox.error is None:
            await self._ended.wait()
        assert self._core.closed is not None
        return self._core.closed

    def cancel_after(self, scope: anyio.CancelScope, grace: float) -> None:
        """Cancel `scope`, around the handler, once the session has been over for `grace` seconds."""
        self._grace = scope, grace
        if self._inbox.error is not None:
            self._start_grace()

    def _start_grace(self) -> None:
        if self._grace is not None:
            scope, grace = self._grace
            scope.deadline = self._now() + grace

    # From the client. `receive`, `__anext__` and `send_audio` return the coroutine of another method, which
    # saves a frame for every message. Their type is that which pyright gives an ``async def``, so that they
    # match a protocol class with such methods; mypy gives it a wider one, hence the ignores.

    def receive(self) -> CoroutineType[Any, Any, Command]:
        """Wait for the client's next command.

        Raises the session's last error once `Close` was received: `ConnectionClosed`, or
        `RemoteProtocolError`. Raises anyio's `BusyResourceError` when another task is receiving. A call that
        is cancelled has taken nothing.
        """
        return self._inbox.take()  # type: ignore[return-value]

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> CoroutineType[Any, Any, Command]:
        return self._inbox.take(iterating=True)  # type: ignore[return-value]

    # To the client

    def send_audio(self, pcm: Buffer) -> CoroutineType[Any, Any, None]:
        """Send PCM16 little-endian mono audio at `output_sample_rate`.

        `pcm` is any even number of bytes up to ``limits.max_outbox``, or an array of int16. Raises TypeError
        for an array of other samples.
        """
        return self._send(self._queue_audio, pcm)  # type: ignore[return-value]

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
        # This task may have waited for the command that led here. The speaking task has not, so its next send
        # must still check for cancellation.
        self._inbox.has_waited = False
        self._queue(Interruption(at))
        self.core_changed()

    async def send_usage(
        self,
        input_audio_tokens: int,
        output_audio_tokens: int,
        *,
        input_text_tokens: int = 0,
        output_text_tokens: int = 0,
        input_image_tokens: int = 0,
        cached_audio_tokens: int = 0,
        cached_text_tokens: int = 0,
        output_reasoning_tokens: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Send what was spent since the last report; see `Usage` for the counts.

        Clients that don't know the extension ``usage``, such as published SDKs, get the two counts of audio.
        """
        usage = Usage(
            input_audio_tokens,
            output_audio_tokens,
            input_text_tokens,
            output_text_tokens,
            input_image_tokens,
            cached_audio_tokens,
            cached_text_tokens,
            output_reasoning_tokens,
            seconds,
        )
        await self._send(self._queue, usage)

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
        await self.wait_closed()

    async def wait_for_room(self, size: int) -> None:
        """Wait until at most `size` bytes wait for the client, or the session ends."""
        while self._core.outbox.size > size and self._core.state is _OPEN:
            await self.wait_for_less()

    async def wait_for_less(self) -> None:
        """Wait until less waits for the client than now, or the session ends."""
        await self.room.wait()

    async def close_when_sent(self, code: int, reason: str) -> None:
        """Close as `close` does, but only when no more than the send buffer still waits for the client.

        The client's time to answer the close begins with it.
        """
        await self.wait_for_room(self._send_buffer)
        await self.close(code, reason)

    async def _send(self, queue: Callable[[_T], None], what: _T) -> None:
        inbox = self._inbox
        if inbox.has_waited:
            # The task has just waited for a command: that was a checkpoint.
            inbox.has_waited = False
        else:
            await inbox.checkpoint()
        if self._senders or self._core.outbox.size > self._send_buffer:
            await self._send_in_turn(queue, what)
        else:
            queue(what)
            self._flush()

    async def _send_in_turn(self, queue: Callable[[_T], None], what: _T) -> None:
        self._senders += 1
        try:
            if self._send_lock is None:
                self._send_lock = anyio.Lock(fast_acquire=True)
            # The lock keeps the order of the calls while they wait for room.
            async with self._send_lock:
                await self.wait_for_room(self._send_buffer)
                # An interruption makes room, and wakes this task perhaps before its cancellation does.
                await checkpoint_if_cancelled()
                queue(what)
                self._flush()
        finally:
            self._senders -= 1

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
        """Move the core's commands to the inbox; let the link and the waiting tasks react to the core.

        Call it after every change of the core, before the next ``await``.
        """
        self.deliver()
        if self.room.awaited is not None:
            self.room.ring()
        self._link.core_changed()

    def deliver(self) -> bool:
        """Move the core's commands to the inbox, and wake the tasks that have something to do.

        For the link. Returns False if that was only audio, with room for more: then the link need not react.
        """
        core, inbox, meter = self._core, self._inbox, self.meter
        next_event = self._next_event
        more = leaving = core.state is not _OPEN
        for _ in _EVENTS_PER_TURN:
            # The end is the last event: after it, `next_event` raises.
            if inbox.error is not None or (event := next_event()) is NEED_DATA:
                break
            if type(event) is AudioIn:
                size = len(event.pcm)
                meter.audio_in += size
                meter.messages_in = count = meter.messages_in + 1
                if not count % _AUDIO_PER_CHECK:
                    more = True
            else:
                size = self._react(event)
                more = True
            # After our goodbye the handler takes no more commands: only the end matters.
            if not (leaving and inbox.full) or type(event) is Close:
                inbox.put(event, size)
        else:
            self._link.fall_behind()
            more = True
        more |= inbox.full
        if more:
            if self.room.awaited is not None:
                self.room.ring()
            if core.state is not _OPEN and not self._paced and core.outbox.size > self._send_buffer:
                core.outbox.drop_audio()
        return more

    def _react(self, event: Command) -> int:
        """React to an event that is not audio; return its approximate size in bytes."""
        match event:
            case Expiring(seconds=seconds):
                if self._core.state is _OPEN:
                    self._core.send_error(EXPIRING, f"the session ends in {seconds:.0f} seconds")
                return 0
            case Close():
                self._end()
                return 0
            case Commit() | EndTurn() | TextIn(respond=True) | ImageIn(respond=True):
                self.turn_ended()
        self.meter.messages_in += 1
        return content_size(event)

    def _end(self) -> None:
        assert self._core.error is not None
        self._inbox.end(self._core.error)
        self._ended.ring()
        self._start_grace()

    def sent(self, audio: int) -> None:
        """Take note that the link took messages to send, with `audio` bytes of audio. For the link."""
        if self.room.awaited is not None:
            self.room.ring()
        if audio:
            self.meter.audio_out += audio
            if self.meter.asked_at is not None:
                self.answered()

    def answered(self) -> None:
        """Take note that the first audio since the end of the user's turn goes out. For the link."""
        self.meter.answered(self._now())

    async def _finish(self, code: int, close_timeout: float) -> None:
        """Close the session, unless it is closed already, and wait until the link is finished."""
        await self.close(code)
        closed = await self.wait_closed()
        if closed.initiated_by == "local" and closed.code != close_codes.ABNORMAL:
            # A peer that broke the protocol still gets its close, if it reads. Otherwise everything was sent.
            with anyio.move_on_after(close_timeout):
                await self._link.wait_written()

    def _stop(self) -> None:
        """Stop the link; a session that is not over by now is lost."""
        self._core.receive_lost("the handler was cancelled")
        self.core_changed()
        self._link.stop()


Handler: TypeAlias = Callable[[ServerSession], Awaitable[None]]
"""Serves one session and returns when it is done with it; then the session is closed with 1000.

An exception is logged and closes that session, with 1011. When the session ends first, the handler finds
`Close` last among the commands, and is cancelled when it has not returned some seconds later.

A handler that is also an async context manager is entered when the gateway starts and left when it stops.
"""
