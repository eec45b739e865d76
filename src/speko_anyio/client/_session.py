"""`RealtimeSession`: a live session over any core and any driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Never, Self, TypeVar, TypeVarTuple, overload

import anyio
import msgspec
from msgspec import UNSET

from .._net.driver import Driver
from .._net.lifetime import Lifetime
from .._net.tasks import Wakeup
from .._observe.observers import Observers
from ..audio._pcm import duration
from ..protocol import close_codes
from ..protocol._client_core import ClientCore
from ..protocol._commands import TextRole, TurnMode, Update
from ..protocol._pcm import Buffer, pcm_bytes
from ..protocol._timeouts import DEFAULT_TIMEOUTS
from ..protocol.capabilities import Capabilities
from ..protocol.errors import HandshakeError, LocalProtocolError
from ..protocol.frames import Audio, Close, Frame, Interruption, Ready, ResponseEnd, ToolCall, Usage
from ._delivery import DEFAULT_MAX_BUFFER
from ._frame_stream import FramesBlock, FrameStream, check_types
from ._handlers import FrameHandler, Handlers, check_handler
from ._history import History, HistoryItem, as_texts
from ._parameters import check_beginning, tool_list
from ._pump import Pump
from ._stalls import STALLED_AFTER, Stall, StallWatch
from ._stats import SessionStats, TurnTimes
from ._tool_calls import ToolCalls
from .tools import AnyTool, Toolbox, ToolErrors

if TYPE_CHECKING:
    from types import CoroutineType

A = TypeVar("A", bound=Frame)
B = TypeVar("B", bound=Frame)
C = TypeVar("C", bound=Frame)
_Args = TypeVarTuple("_Args")

_MAX_PART: Final = 256 * 1024
"""The most bytes of a `send_audio` that are queued at a time: far below the outbox's limit, even as base64 at
a provider's higher sample rate."""

_NOTHING: Final = Usage()


class RealtimeSession:
    """A live session with a speech model.

    `Realtime.connect`, `Realtime.open` and `open_session` make it; it lives within their ``async with``.

    Receive by iterating, which ends after the final `Close`, or by `receive` or `receive_many`; one task at a
    time. Or pass a function to `on`. Send from as many tasks as you like: each call's messages stay together
    and in the order of the calls.

    Sending waits for the transport, not for the peer's answer. While the
    transport accepts data immediately, cancellation is checked at every 16th send only. A send that is
    *cancelled while it writes* leaves an unknown part of a message on the wire, so it ends the session: to
    bound a send, bound the whole session. A send that is cancelled before it starts changes nothing.

    `send_text`, `send_image`, `respond`, `say` and `update` first wait for the `Ready` frame, which says what
    the service takes: `HandshakeError` if it does not come within the handshake's time.

    Every method that sends raises `LocalProtocolError` for what the protocol does not allow here (nothing
    was sent, the session goes on), and `ConnectionClosed`, or `RemoteProtocolError` when the peer broke the
    protocol, once the session is over.
    """

    __slots__ = (
        "__weakref__",
        "_audio_bytes_sent",
        "_blocked",
        "_close_timeout",
        "_core",
        "_driver",
        "_expires_at",
        "_handlers",
        "_handshake_timeout",
        "_history",
        "_inbox",
        "_lifetime",
        "_observers",
        "_pump",
        "_readiness",
        "_ready",
        "_session_id",
        "_stalls",
        "_tool_calls",
        "_turn_times",
        "_usage",
    )

    def __init__(
        self,
        core: ClientCore,
        driver: Driver,
        *,
        session_id: str,
        expires_at: str,
        toolbox: Toolbox,
        close_timeout: float,
        handshake_timeout: float = DEFAULT_TIMEOUTS.handshake,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        tool_errors: ToolErrors = "log",
        observers: Observers | None = None,
    ) -> None:
        self._core = core
        self._driver = driver
        self._session_id = session_id
        self._expires_at = expires_at
        self._close_timeout = close_timeout
        self._handshake_timeout = handshake_timeout
        self._observers = observers
        self._lifetime = Lifetime(session_id)
        self._stalls = StallWatch(session_id, driver, self._lifetime)
        self._blocked: Stall | None = None
        self._tool_calls = ToolCalls(
            toolbox,
            self._answer_call,
            driver,
            self._lifetime,
            self._stalls,
            errors=tool_errors,
        )
        self._pump = Pump(
            core,
            max_buffer=max_buffer,
            on_frame=self._frame_received,
            make_waiter=driver.make_waiter,
        )
        self._inbox = self._pump.inbox
        self._pump.on_blocked = self._reading_blocked
        self._handlers = Handlers(self._pump, self._lifetime, self._stalls)
        self._audio_bytes_sent = 0
        self._turn_times = TurnTimes()
        self._usage = _NOTHING
        self._ready = False
        self._readiness = Wakeup()
        self._history = History(self._pump, driver.current_time, lambda: core.output_sample_rate)
        driver.attach(self._pump, close_timeout=close_timeout)

    def __repr__(self) -> str:
        return f"<RealtimeSession {self._session_id} {self._core.state.value}>"

    # State

    @property
    def session_id(self) -> str:
        """The service's id of the session."""
        return self._session_id

    @property
    def expires_at(self) -> str:
        """When the grant's token expires (ISO 8601), unchanged from the service's response."""
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

    @property
    def capabilities(self) -> Capabilities:
        """What the service can do in this session.

        Before the `Ready` frame of a service that announces it there, this raises `LocalProtocolError`.
        """
        return self._core.capabilities

    @property
    def history(self) -> tuple[HistoryItem, ...]:
        """The conversation so far, oldest first, also after the session's end.

        It holds what both sides said and wrote, in the words of the transcripts, and the calls of tools with
        their results; of an interrupted answer, only the words that were heard (see `HistoryItem`). The items
        that the session began with come first. Pass it as ``history=`` to continue in another session, also
        with another provider. It keeps the last 1000 items, but no more than 256 Ki characters.
        """
        return self._history.items

    def stats(self) -> SessionStats:
        """Return the session's counters, as of now."""
        pump, inbox = self._pump, self._inbox
        return SessionStats(
            bytes_received=pump.bytes_received,
            bytes_sent=self._driver.bytes_sent,
            frames_received=pump.frames_received,
            audio_bytes_received=pump.audio_bytes_received,
            audio_bytes_sent=self._audio_bytes_sent,
            frames_dropped=inbox.dropped_frames,
            audio_bytes_dropped=inbox.dropped_bytes,
            frames_buffered=len(inbox),
            bytes_buffered=inbox.size,
            seconds_buffered=sum(
                duration(frame.pcm, frame.sample_rate)
                for frame in inbox.snapshot()
                if isinstance(frame, Audio)
            ),
            odd_fields=self._core.odd_fields,
            interruptions=pump.interruptions,
            tool_calls=self._tool_calls.received,
            tools_running=self._tool_calls.running,
            usage=self._usage,
            times_to_first_audio=self._turn_times.times,
        )

    # Sending

    # Methods that are called for every piece of audio return the coroutine that does the work, instead of
    # awaiting it: that saves a frame for every message. Their type is that which pyright gives an ``async
    # def``, so that they match a protocol class with such methods; mypy gives it a wider one, hence the
    # ignores.

    def send_audio(self, pcm: Buffer) -> CoroutineType[Any, Any, None]:
        """Send the user's speech: PCM16 little-endian mono at `input_sample_rate`.

        It may have any length in whole samples, as bytes or an array of int16, and is split into messages of
        at most 32 KiB.

        More than 256 KiB is sent in parts, each once the transport has taken the one before. Messages from
        other tasks may come between two parts, and a cancellation between them leaves the rest unsent and the
        session open. Raises TypeError for an array of other samples or a WAV file. See the class for other
        errors and for cancellation.
        """
        # Few pieces begin with the first byte of a WAV file.
        if type(pcm) is bytes and len(pcm) <= _MAX_PART and pcm[:1] != b"R":
            return self._driver.send(self._queue_audio, pcm)  # type: ignore[return-value]
        return self._send_any_audio(pcm)  # type: ignore[return-value]

    async def _send_any_audio(self, pcm: Buffer) -> None:
        pcm = pcm_bytes(pcm)
        size = len(pcm)
        # An odd number of bytes is rejected before anything is sent.
        if size <= _MAX_PART or size & 1:
            await self._driver.send(self._queue_audio, pcm)
            return
        for start in range(0, size, _MAX_PART):
            await self._driver.send(self._queue_audio, pcm[start : start + _MAX_PART])

    def _queue_audio(self, pcm: bytes) -> None:
        self._core.send_audio(pcm)
        self._audio_bytes_sent += len(pcm)

    async def commit(self) -> None:
        """End the user's turn: the model answers what was sent."""
        await self._driver.send(self._end_turn, self._core.commit)

    async def clear(self) -> None:
        """Make the server forget the audio sent since the last `commit`."""
        await self._driver.send(self._core.clear)

    async def end_turn(self) -> None:
        """End the user's turn where the server detects turns (VAD)."""
        await self._driver.send(self._end_turn, self._core.end_turn)

    def _end_turn(self, verb: Callable[[], None]) -> None:
        verb()
        self._await_answer()

    def _await_answer(self) -> None:
        self._turn_times.turn_ended(self._driver.current_time())
        self._pump.on_first_audio = self._answer_began

    def _answer_began(self) -> None:
        self._history.audio_began()
        self._turn_times.answer_began(self._driver.current_time())

    async def interrupt(self) -> None:
        """Stop the response in flight (barge-in). Audio that was already received is yours to drop."""
        await self._driver.send(self._core.interrupt)

    async def send_tool_result(self, call_id: str, output: str) -> None:
        """Answer the `ToolCall` with this id, once; a structured result as JSON text.

        Functions passed as ``tools`` are answered for you. `LocalProtocolError` when no such call is open.
        """
        await self._driver.send(self._answer_call, call_id, output)

    def _answer_call(self, call_id: str, output: str) -> None:
        self._core.send_tool_result(call_id, output)
        self._history.answer(call_id, output)

    # The conversation, other than by speech

    async def send_text(self, text: str, *, role: TextRole = "user", respond: bool | None = None) -> None:
        """Add a text to the conversation.

        - `role`: who says it. A text of the role ``system`` is context that nobody says.
        - `respond`: whether the model answers it now; by default it answers what the user says. A text that
          is answered interrupts the assistant, as speech does.

        `LocalProtocolError` when the service takes no text: see `capabilities`.
        """
        await self._send_when_ready(self._send_text, text, role, respond)

    def _send_text(self, text: str, role: TextRole, respond: bool | None) -> None:
        self._core.send_text(text, role=role, respond=respond)
        self._history.write(role, text)
        if respond or (respond is None and role == "user"):
            self._await_answer()

    async def send_image(self, data: bytes, *, mime_type: str, respond: bool = False) -> None:
        """Show the model a picture, such as a JPEG with the `mime_type` ``image/jpeg``.

        With `respond` it answers now; otherwise the picture is context for what follows. It is not kept in
        `history`. `LocalProtocolError` when the service takes no pictures, or not of this size.
        """
        await self._send_when_ready(self._send_image, data, mime_type, respond)

    def _send_image(self, data: bytes, mime_type: str, respond: bool) -> None:
        self._core.send_image(data, mime_type=mime_type, respond=respond)

    async def respond(self, instructions: str | None = None) -> None:
        """Let the assistant speak now: to greet, or after a silence.

        - `instructions`: for this answer only, such as "Greet the caller by name."

        While an answer is under way, this one follows it. `LocalProtocolError` when the service can't.
        """
        await self._send_when_ready(self._core.respond, instructions or "")

    async def say(self, text: str) -> None:
        """Let the assistant say `text`.

        It says it word for word where `capabilities` has ``say="verbatim"``, and is instructed to where it is
        ``"instructed"``. While an answer is under way, this one follows it. `LocalProtocolError` when the
        service can't.
        """
        await self._send_when_ready(self._core.say, text)

    async def update(
        self,
        *,
        system_prompt: str | None = None,
        tools: Iterable[AnyTool] | None = None,
        voice: str | None = None,
        turns: TurnMode | None = None,
    ) -> None:
        """Change the session from the next response on; None leaves a parameter as it is.

        - `tools`: all tools of the session from then on. Functions are answered as those of ``connect``;
          calls under way end as their tools' policy says.
        - `turns`: ``auto`` if the service detects the end of the user's turns, ``manual`` if `commit` does.

        ``capabilities.update`` names the fields that the service can change; `LocalProtocolError` if there
        are none. For another field, the service sends an `ErrorFrame` with the code ``UPDATE_REFUSED`` that
        names it, and the others take effect. A session straight with a provider raises `LocalProtocolError`
        instead; if the provider refuses a field later, the code there is ``update_refused``.
        """
        toolbox = None if tools is None else Toolbox(tool_list(tools))
        changes = Update(
            system_prompt=UNSET if system_prompt is None else system_prompt,
            tools=UNSET if toolbox is None else toolbox.specs,
            voice=UNSET if voice is None else voice,
            turns=UNSET if turns is None else turns,
        )
        await self._send_when_ready(self._update, changes, toolbox)

    def _update(self, changes: Update, toolbox: Toolbox | None) -> None:
        self._core.update(changes)
        # A gateway that can't change the tools refuses that field, and goes on calling the earlier tools.
        if toolbox is not None and "tools" in self._core.capabilities.update:
            self._tool_calls.replace(toolbox)

    async def report_played(self, seconds: float) -> None:
        """Say how much of the assistant's audio the user has heard, in seconds since the last `Interruption`.

        Without an interruption, since the session began: of the audio of the `Audio` frames, so many seconds
        were played by now. Report it now and then while something is played, such as every 200 ms. The
        service then knows where an interrupted answer ends for its model, and `history` what the user heard;
        both otherwise estimate it from the times at which the audio was sent.

        Where the service does not take such reports (`capabilities` has ``truncate=False``), only `history`
        uses them, and nothing is sent. `LocalProtocolError` for a negative number, or one that is not finite.
        """
        await self._driver.send(self._report_played, seconds)

    def _report_played(self, seconds: float) -> None:
        self._core.report_played(seconds)
        self._history.played(seconds)

    async def send_provider_event(self, event: Mapping[str, Any]) -> None:
        """Send an event in the provider's own protocol, in a session straight with a provider.

        This is unsupported: nothing checks the event, and the library does not know what it changes. See the
        provider's own events with `SessionObserver.provider_event`. `LocalProtocolError` where no provider is
        at the other end, or when the event can't be written as JSON.
        """
        try:
            text = msgspec.json.encode(event).decode()
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise LocalProtocolError(
                f"the event can't be written as JSON: {error}; pass plain data"
            ) from None
        await self._send_when_ready(self._core.send_provider_event, text)

    async def _send_when_ready(self, verb: Callable[[*_Args], None], *args: *_Args) -> None:
        if not self._ready:
            await self._wait_ready()
        await self._driver.send(verb, *args)

    async def _wait_ready(self) -> None:
        with anyio.move_on_after(self._handshake_timeout):
            while not self._ready:
                if self._core.error is not None:
                    raise self._core.error.with_traceback(None)
                await self._readiness.wait()
            return
        raise HandshakeError(f"the service was not ready within {self._handshake_timeout:g} s; try again")

    async def _begin(self, history: tuple[HistoryItem, ...], greeting: str | None) -> None:
        """Tell the service what came before, and let the assistant speak first."""
        await self._wait_ready()
        check_beginning(self._core.capabilities, history, greeting)
        await self._driver.send(self._seed, history, greeting)

    def _seed(self, history: tuple[HistoryItem, ...], greeting: str | None) -> None:
        for role, text in as_texts(history):
            self._core.send_text(text, role=role, respond=False)
        self._history.extend(history)
        if greeting is not None:
            self._core.say(greeting)

    # Receiving

    def _frame_received(self, frame: Frame) -> None:
        self._history.receive(frame)
        match frame:
            case ToolCall():
                self._tool_calls.receive(frame)
            case Interruption():
                self._tool_calls.interrupt()
            case ResponseEnd():
                self._tool_calls.response_ended()
            case Usage():
                self._usage += frame
            case Ready():
                self._ready = True
                self._readiness.ring()
            case Close():
                self._readiness.ring()
            case _:
                pass

    def receive(self) -> CoroutineType[Any, Any, Frame]:
        """Wait for the next frame and return it; the last one is `Close`.

        After that it raises `ConnectionClosed`, or `RemoteProtocolError` when the peer broke the protocol;
        `anyio.BusyResourceError` while another task is receiving: give each reader its own `frames`.
        Cancelling it loses no frame. Buffered frames are returned without yielding to the event loop, except
        every 64th.
        """
        pump = self._pump
        if not pump.claimed:
            pump.claim()
        return self._inbox.get(pump.last_error)  # type: ignore[return-value]

    def receive_many(self) -> CoroutineType[Any, Any, list[Frame]]:
        """Wait for a frame and return all frames that are there by then, oldest first.

        When speech arrives in bursts, this takes less time than a call for each frame. Otherwise it does what
        `receive` does: the last frame of the last list is `Close`, after it the same errors are raised, and
        cancelling it loses no frame. An `Interruption` has discarded the audio before it in the same list,
        but not that in an earlier one, which is yours to drop.
        """
        pump = self._pump
        if not pump.claimed:
            pump.claim()
        return self._inbox.get_all(pump.last_error)  # type: ignore[return-value]

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> CoroutineType[Any, Any, Frame]:
        pump = self._pump
        if not pump.claimed:
            pump.claim()
        return self._inbox.get(pump.end_of_iteration)  # type: ignore[return-value]

    @overload
    def frames(
        self, /, *, max_buffer: int | None = None, drop_oldest: bool = False
    ) -> AbstractAsyncContextManager[FrameStream[Frame], None]: ...
    @overload
    def frames(
        self, a: type[A], /, *, max_buffer: int | None = None, drop_oldest: bool = False
    ) -> AbstractAsyncContextManager[FrameStream[A], None]: ...
    @overload
    def frames(
        self, a: type[A], b: type[B], /, *, max_buffer: int | None = None, drop_oldest: bool = False
    ) -> AbstractAsyncContextManager[FrameStream[A | B], None]: ...
    @overload
    def frames(
        self,
        a: type[A],
        b: type[B],
        c: type[C],
        /,
        *,
        max_buffer: int | None = None,
        drop_oldest: bool = False,
    ) -> AbstractAsyncContextManager[FrameStream[A | B | C], None]: ...
    @overload
    def frames(
        self, *kinds: type[Frame], max_buffer: int | None = None, drop_oldest: bool = False
    ) -> AbstractAsyncContextManager[FrameStream[Frame], None]: ...
    def frames(
        self, *kinds: type, max_buffer: int | None = None, drop_oldest: bool = False
    ) -> AbstractAsyncContextManager[FrameStream[Any], None]:
        """Open a separate stream of the frames of the types `kinds`, or of all frames.

        It gets every such frame that was not received yet and all that follow, while the block lasts. Open as
        many as you like, each read at its own pace::

            async with session.frames(Transcript, ToolCall) as frames:
                async for frame in frames: ...

        - `max_buffer`: bytes that may wait for it, the session's by default; frames of other types cost
          nothing. When it is full the socket is no longer read, for anybody.
        - `drop_oldest`: drop its oldest frames instead, for a display that should drop frames rather than
          delay the call.

        An `Interruption` discards the audio ahead of it here too, also when it is not asked for. The stream
        ends with the session, behind its `Close`. An iteration over the session that begins after the stream
        was first read misses the frames before it: see `on`. TypeError for an object that is not a type of
        frame.
        """
        return FramesBlock(self._pump, check_types(kinds), max_buffer=max_buffer, drop_oldest=drop_oldest)

    def on(self, handler: FrameHandler, *more: Never) -> Callable[[], None]:
        """Call `handler` with every frame not yet received and all that follow, one at a time, in order.

        Returns a function that stops it. Handlers, streams of `frames` and the iteration each get every
        frame.

        A *plain function* is called where the frame is read, with no task and no buffer in between, which is
        the cheapest way to receive. It must not block: everything on this event loop waits for it. Handlers
        are called in the order in which they were added, when the frame is already in the buffers of all
        other consumers, the function for its tool call has been started, and its interruption has taken
        effect. The call takes place in the context of the session's block but in no task of yours, and on
        asyncio in no task at all. So a plain function can't await, but it may call anything that does not
        wait: set events, put frames into queues, start tasks, cancel scopes, add and stop handlers, this one
        included. It is never called within `on` or within another call of itself. To send or to close, start
        a task, or return the coroutine; a function that has returned an awaitable is treated as an async
        handler from then on.

        An *async handler* is awaited before its next frame. A slow one has a buffer of its own, of
        ``max_buffer`` bytes; when that is full the socket is no longer read. When the session ends, async
        handlers have ``close_timeout`` seconds to take what is left.

        An error in a handler cancels the body of the session's ``async with`` and comes out of it, unless it
        is the `ConnectionClosed` of this session: a handler may find out that way. The handler is not called
        again.

        Frames wait for the first consumer, in up to ``max_buffer`` bytes. Once a handler or a stream takes
        frames and no iteration has begun, nothing is kept for an iteration: one that begins later starts with
        the next frame that arrives, or with the final `Close`. An iteration that begins before anything else
        is awaited after `on` misses nothing.

        Raises as the sends do once the session is over, since the handler would never be called, and
        TypeError for an object that can't be called with one frame.
        """
        check_handler(handler, *more)
        if self._inbox.ended:
            raise self._pump.last_error()
        return self._handlers.add(handler)

    # Closing

    async def close(self, code: int = 1000, reason: str = "client_closed") -> None:
        """Say goodbye and wait until the peer has answered and the transport is closed.

        At most ``close_timeout`` seconds; then the transport is closed forcefully. Only the first call
        counts, further ones wait for the same end. Frames that came before can still be received, and after
        them `Close`. Leaving the ``async with`` does this. Cancelled, it closes forcefully at once.

        Raises `LocalProtocolError` if applications may not use `code`: use 1000 or 4000 to 4999 (3000 to 3999
        are registered with IANA).
        """
        if not close_codes.is_for_applications(code):
            raise LocalProtocolError(
                f"{code!r} is not a close code for applications; use 1000 or one from 4000 to 4999"
            )
        self._pump.close(code, reason)
        self._driver.core_changed()
        try:
            await self._driver.wait_closed()
        except BaseException:
            self._driver.abort("the closing was cancelled")
            raise

    # Lifecycle

    def _reading_blocked(self, blocked: bool) -> None:
        if self._blocked is not None:
            self._stalls.end(self._blocked)
            self._blocked = None
        if blocked:
            self._blocked = self._stalls.begin(
                lambda: (
                    f"no frame was taken for {STALLED_AFTER:g} s and {sum(self._pump.backlogs())} bytes "
                    "wait, so reading has stopped; iterate over the session and every stream of frames(), or "
                    "pass drop_oldest=True for a reader that may lose frames"
                ),
                progress=self._pump.backlogs,
            )

    async def _enter(self) -> None:
        """Start the tasks, after the handshake. `_exit` must follow, in the same task."""
        self._driver.start(self._lifetime)
        await self._lifetime.enter()

    async def _exit(self, error: BaseException | None) -> None:
        """End the session after the body, which raised `error`; raise what the block raises."""
        driver = self._driver
        try:
            await self._lifetime.exit(
                error, leave=self._leave, abort=driver.abort, wait_gone=driver.wait_gone
            )
        except BaseException as raised:
            error = raised
            raise
        finally:
            if self._observers is not None:
                self._observers.ended(error)

    async def _leave(self) -> None:
        """Say goodbye after the body, and let the handlers take what is left."""
        await self.close()
        with anyio.move_on_after(self._close_timeout):
            await self._handlers.wait_finished()
