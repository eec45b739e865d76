"""`Bridge`: a client's session on one side, a provider's dialect on the other. It has no I/O and no clock.

The contract, for the code that brings the two connections::

    bridge = Bridge(client=session, ...)  # a `ServerProtocol`; the bridge writes to its outbox
    bridge.receive_command(command, now)           # for each command of the client
    if bridge.wanted is not None:                  # a connection to the provider, resumed or not
        provider = ...                             # a dialect for `bridge.wanted.resumption`
        bridge.attach(provider, now)               # then dial; `provider.receive_lost` when that fails
    with bridge.at(now):                           # around every call of the provider's dialect
        provider.receive_data(data)
    transport.write(provider.data_to_send())       # after each of these, until the provider is CLOSED
    ...                                            # and send what the client's session has queued, one
                                                   # message at a time; close it as `bridge.goodbye` says

Stop reading from the client while `client_must_wait`, from the provider while `provider_must_wait`, and call
`handle_timeout` at `next_deadline`. It is over when `done`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, assert_never

import msgspec

from ...protocol import close_codes
from ...protocol._commands import (
    AudioIn,
    Clear,
    Command,
    Commit,
    EndTurn,
    ExtensionCommand,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
    UpgradeRequest,
)
from ...protocol._dialect import NEED_DATA
from ...protocol._limits import DEFAULT_LIMITS
from ...protocol._pcm import MAX_AUDIO_MESSAGE
from ...protocol._resampling import Converter, ResamplingFactory
from ...protocol._session import ServerFrame, ServerProtocol
from ...protocol._state import State
from ...protocol._timers import Timers
from ...protocol.errors import LocalProtocolError, SpekoError
from ...protocol.frames import (
    Audio,
    Close,
    Digit,
    ErrorFrame,
    Expiring,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from ...protocol.mint import DEFAULT_SAMPLE_RATE
from .. import codes
from .._connection import ProviderConnection
from .._heard import HeardEstimate
from .._held_input import HeldInput, TurnEnd, held_size
from .._provider import ProviderDialect
from ._attempts import Attempts, Connect
from ._calls import CallNames
from ._errors import Ending, judge_end, judge_opening
from ._frame_client import FrameClient
from ._output import ClientOutput
from ._requests import Requests

__all__ = ["Bridge", "BridgeLimits", "BridgeStats", "ClientFrame", "Connect"]

ClientFrame = ServerFrame
"""A frame that a bridge sends to the client."""

STEADY_AFTER: Final = 30.0
"""Seconds after which a connection counts as steady, and the next one gets all attempts again. A provider
that accepts every session and drops it at once must not be asked for ever."""

OPENING_TIMEOUT: Final = 20.0
"""Seconds until a connection must be ready, over all attempts: a provider that accepts connections and then
says nothing must not keep a caller waiting for the sum of all timeouts."""

SETTLED_AFTER: Final = 5.0
"""Seconds after which a text that needs no answer counts as arrived: nothing confirms it. If the connection
is lost before that, the client is told."""

MOVE_MARGIN: Final = 2.0
"""Seconds before the announced end of a connection at which the session moves whatever is under way."""


class BridgeLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Bounds on the memory of one bridged session, in addition to the limits of each side's core."""

    held_seconds: float = 10.0
    """Seconds of the client's audio to hold while no provider accepts it. The oldest is dropped."""
    to_client: int = 1024 * 1024
    """Bytes waiting for the client, with an overhead for each message, at which the provider must wait: 21 s
    of speech at 24 kHz, since an interruption that is still unread in the socket can't act."""
    to_provider: int = 1024 * 1024
    """Bytes waiting for the provider at which the client must wait. While no provider is ready, this
    bounds texts, images and the like, which are not dropped as audio is. One command may exceed it, such as
    an image of ``max_image_size``."""
    max_text_size: int = 100 * 1024
    """Bytes of a transcript, which is cut there, and of a tool call's arguments: a call with longer ones is
    answered with an error. JSON may double the size, and clients accept 256 KiB in one message."""
    max_open_calls: int = DEFAULT_LIMITS.max_open_calls
    """Tool calls that the client may have open at a time; further ones are answered with an error."""


DEFAULT_BRIDGE_LIMITS: Final = BridgeLimits()

_TOO_MANY_CALLS: Final = '{"error":"too many tool calls wait for their results"}'
_TOO_LONG: Final = '{"error":"the arguments are too long"}'


class BridgeStats(msgspec.Struct):
    """Counts of events that produced no frame."""

    connections: int = 0
    """Connections to the provider that became ready."""
    dropped_audio: int = 0
    """Bytes of the client's audio that were dropped: neither held nor sent."""
    late_results: int = 0
    """Results that came after their tool calls were abandoned."""
    turns_heard: int = 0
    """Turns whose end the provider detected before the client announced it, if it did."""
    refused_calls: int = 0
    """Tool calls beyond the limits."""
    unknown_events: int = 0
    """Events from the provider that this version does not know."""


class _BridgePhase(enum.Enum):
    WAITING = "no connection; one is wanted, or will be soon"
    OPENING = "the provider is not ready yet"
    LIVE = "both sides talk"
    MOVING = "this connection is closed so that the next one can go on"
    OVER = "nothing more comes for the client"


class _Turns:
    """The ends of the user's turns, which the client and the provider may both report."""

    __slots__ = ("heard", "told")

    def __init__(self) -> None:
        self.told = False
        """Whether the client announced the end of the turn that is being answered."""
        self.heard = 0
        """The provider's `turns_heard`, as last seen."""


class Bridge:
    """Joins one session to a provider, over as many connections as it takes.

    - `client`: the core of the client's session, ready; the bridge writes to its outbox. None for a
      client that takes frames instead of WebSocket messages (`next_frame`), with a session of these
      `input_sample_rate` and `output_sample_rate`, in samples a second.
    - `resampling`: makes the converter between the client's rates and the provider's.
    - `secrets`: texts, such as the provider's key, that no message may show the client.
    - `opening_timeout`: seconds for all attempts together until the provider is ready, at the start and after
      a loss; the session ends when they have passed.
    - `on_emitted`: called with each frame that was queued for the client, except audio; for a meter.
    - `fixed`: the fields of `Update` that the client may not change, although the provider could.

    `now` is in seconds of one clock that never goes back. No method raises because of what either side does.
    """

    def __init__(
        self,
        *,
        resampling: ResamplingFactory,
        client: ServerProtocol | None = None,
        input_sample_rate: int = DEFAULT_SAMPLE_RATE,
        output_sample_rate: int = DEFAULT_SAMPLE_RATE,
        limits: BridgeLimits = DEFAULT_BRIDGE_LIMITS,
        secrets: Sequence[str] = (),
        opening_timeout: float = OPENING_TIMEOUT,
        on_emitted: Callable[[ServerFrame], None] | None = None,
        fixed: Collection[str] = (),
    ) -> None:
        self.limits = limits
        self.stats: BridgeStats = BridgeStats()
        self.goodbye: Close | None = None
        """How to close the client's session. Close it only when the client has taken what waits, since its
        time to answer starts then. None while the session goes on, and when the client left."""
        self._phase = _BridgePhase.WAITING
        self._connection: ProviderDialect | ProviderConnection | None = None
        self._provider: ProviderDialect | None = None  # the dialect of that connection
        self._playback: HeardEstimate | None = None  # that dialect's, or the last one's
        self._frame_client: FrameClient | None = None
        if client is None:
            self._frame_client = FrameClient(
                input_sample_rate=input_sample_rate, output_sample_rate=output_sample_rate
            )
            client = self._frame_client.core
        self._client = client
        self._output = ClientOutput(
            client,
            resampling=resampling,
            max_text_size=limits.max_text_size,
            secrets=secrets,
            on_emitted=on_emitted,
        )
        self._calls = CallNames(limits.max_open_calls)
        self._requests = Requests(fixed)
        self._input = Converter(resampling)
        self._held = HeldInput(int(limits.held_seconds * client.input_sample_rate) * 2)
        self._responding = False
        self._answering = False
        """Whether the client got part of an answer but not its end."""
        self._turns = _Turns()
        self._attempts = Attempts()
        self._leaving = False
        self._opening_timeout = opening_timeout
        self._timers = Timers()
        self._timers.start("opening", opening_timeout)

    # State

    @property
    def provider(self) -> ProviderDialect | None:
        """The dialect of the current connection: pass it what is received, and send what it queues."""
        return self._provider

    @property
    def wanted(self) -> Connect | None:
        """The connection that is wanted now: `attach` one."""
        return self._attempts.wanted

    @property
    def done(self) -> bool:
        """Whether the bridge is finished: close with `goodbye`, if there is one."""
        return self._phase is _BridgePhase.OVER and self._provider is None

    @property
    def provider_must_wait(self) -> bool:
        """Whether to stop reading from the provider, because enough waits for the client.

        The keepalive of the provider's connection must not run meanwhile.
        """
        return self._client.outbox.memory > self.limits.to_client

    @property
    def client_must_wait(self) -> bool:
        """Whether to stop taking commands from the client, because enough waits for the provider."""
        most, provider = self.limits.to_provider, self._provider
        return (provider is not None and provider.queued > most) or self._held.commands_size > most

    # The client

    def next_frame(self) -> ClientFrame | None:
        """Take the next frame for a client without a session of its own; None when there is none now.

        Take a frame only when the previous one was sent: audio that waits here can still be dropped. The last
        frame is `goodbye`. Raises `LocalProtocolError` when the bridge was given a `client`.
        """
        if self._frame_client is None:
            raise LocalProtocolError("the frames are in the outbox of the client's session; take them there")
        frame = self._frame_client.next_frame()
        if frame is None and self.goodbye is not None and self._client.state is State.OPEN:
            frame = self.goodbye
            self._client.receive_close(frame.code, frame.reason)
        return frame

    def receive_command(self, command: Command, now: float) -> None:
        """Take a command of the client; a `Close` means that the client is gone."""
        if self._phase is _BridgePhase.OVER:
            if isinstance(command, Close):
                self._client.receive_close(command.code, command.reason)
            return
        with self.at(now):
            match command:
                case AudioIn(pcm=pcm):
                    self._receive_audio(pcm)
                case Commit():
                    self._turns.told = True
                    self._end_turn("commit")
                case EndTurn():
                    self._turns.told = True
                    self._end_turn("end_turn")
                case Clear():
                    self._clear()
                case Interrupt():
                    if (provider := self._listening) is not None:
                        self._try(provider.interrupt)
                case ToolResult():
                    self._receive_result(command)
                case TextIn() | ImageIn() | Respond() | Say() | Update():
                    self._receive_request(command)
                case Played(ms=ms):
                    if self._provider is not None:
                        self._provider.playback.played(ms)
                case Close(code=code, reason=reason):
                    # Does nothing if the core itself reported this `Close`.
                    self._client.receive_close(code, reason)
                    self._leave()
                case Expiring() | Unknown() | UpgradeRequest():
                    pass
                case _:
                    assert_never(command)

    @property
    def _listening(self) -> ProviderDialect | None:
        """The provider, if it accepts input now."""
        provider = self._provider
        if self._phase is not _BridgePhase.LIVE or provider is None or provider.state is not State.OPEN:
            return None
        return provider

    def _receive_audio(self, pcm: bytes) -> None:
        provider = self._listening
        if provider is None:
            dropped = self._held.dropped
            self._held.add(pcm)
            self.stats.dropped_audio += self._held.dropped - dropped
        else:
            rates = self._client.input_sample_rate, provider.input_sample_rate
            self._send_audio(provider, self._input.convert(pcm, *rates))

    def _send_audio(self, provider: ProviderDialect, pcm: bytes) -> None:
        for start in range(0, len(pcm), MAX_AUDIO_MESSAGE):
            try:
                provider.send_audio(pcm[start : start + MAX_AUDIO_MESSAGE])
            except SpekoError:
                # Its outbox is full. The client can't be made to wait, so this leaves a gap in the audio.
                self.stats.dropped_audio += len(pcm) - start
                return

    def _end_turn(self, verb: TurnEnd) -> None:
        provider = self._listening
        if provider is None:
            self._held.end_turn(verb)
            return
        # The resampler still holds the end of the user's speech.
        self._send_audio(provider, self._input.flush())
        self._try(provider.commit if verb == "commit" else provider.end_turn)

    def _clear(self) -> None:
        provider = self._listening
        if provider is None:
            self._held.clear()
        else:
            self._input.reset()
            self._try(provider.clear)

    def _receive_result(self, result: ToolResult) -> None:
        name = self._calls.answer(result.call_id)
        if name is not None and self._frame_client is not None:
            self._frame_client.answer(result.call_id)
        provider = self._listening
        if name is None or provider is None or not provider.takes_result(name):
            self.stats.late_results += 1
            return
        self._try(lambda: provider.send_tool_result(name, result.output))

    def _receive_request(self, request: ExtensionCommand) -> None:
        provider = self._listening
        if provider is None:
            self._held.add_command(request, held_size(request))
            return
        self._ask(lambda: self._requests.pass_on(provider, request))
        if self._requests.fresh:
            self._timers.start("fresh", SETTLED_AFTER)

    def _ask(self, ask: Callable[[], ErrorFrame | None]) -> None:
        try:
            refusal = ask()
        except SpekoError:
            return  # the connection ends, as its `Close` will say
        if refusal is not None:
            self._output.emit_error(refusal)

    def _try(self, verb: Callable[[], None]) -> None:
        try:
            verb()
        except LocalProtocolError as error:
            self._fail(ErrorFrame(codes.UNAVAILABLE, f"the provider can't be told what you said: {error}"))
        except SpekoError:
            pass  # the connection ends, as its `Close` will say

    # The provider

    def attach(self, connection: ProviderDialect | ProviderConnection, now: float) -> None:
        """Take the connection that was `wanted`: new, and not connected yet.

        A dialect alone will do, if the caller carries its messages. Raises `LocalProtocolError` when no
        connection is wanted.
        """
        if self._attempts.wanted is None:
            raise LocalProtocolError("no connection to the provider is wanted now; look at `wanted` first")
        provider = connection.dialect
        provider.resuming = self._attempts.wanted.resumption is not None
        if self._playback is not None:
            provider.playback.follow_up(self._playback)
        self._playback = provider.playback
        self._attempts.begin()
        self._connection = connection
        self._provider = provider
        self._turns.heard = provider.turns_heard
        self._phase = _BridgePhase.OPENING
        with self.at(now):
            pass

    @contextmanager
    def at(self, now: float) -> Iterator[None]:
        """Surround every call of the provider's dialect with this block.

        It passes the time to the estimate of what was heard, and afterwards handles the dialect's events.
        """
        if self._provider is not None:
            self._provider.playback.clock(now)
        yield
        self._drain()
        self._timers.settle(now)

    def _drain(self) -> None:
        # The end of an answer that was cut off with the connection comes after the resulting interruption.
        cut: ResponseEnd | None = None
        while (connection := self._connection) is not None:
            provider = connection.dialect
            try:
                event = connection.next_event()
            except SpekoError as error:
                # A session that never opened has no `Close`.
                self._disconnected(provider, judge_opening(error, provider.moment))
                return
            if provider.turns_heard != self._turns.heard:
                self._turns.heard = provider.turns_heard
                self.stats.turns_heard += not self._turns.told
            if event is NEED_DATA:
                self._settle(provider)
                return
            if isinstance(event, Close):
                self._disconnected(provider, judge_end(provider, event), cut)
                return
            if cut is not None:
                self._answer_ends(cut)
                cut = None
            if isinstance(event, ResponseEnd):
                if provider.state is State.CLOSED:
                    cut = event
                else:
                    self._answer_ends(event)
            elif self._phase not in (_BridgePhase.OPENING, _BridgePhase.LIVE):
                continue
            elif type(event) is Audio:
                # Nearly all events are audio: handle it here, without a call.
                self._responding = self._answering = True
                self._turns.told = False
                self._output.emit_audio(event.pcm, event.sample_rate)
            else:
                self._receive(provider, event)

    def _receive(self, provider: ProviderDialect, frame: Frame) -> None:
        match frame:
            case Interruption():
                self._interrupted(frame)
            case Transcript():
                self._output.emit_text(frame)
            case ToolCall():
                self._receive_call(provider, frame)
            case Usage():
                # Clients take `Usage` for the end of the answer, so all audio must precede it.
                self._output.end_audio()
                self._output.emit(frame)
            case ServerToolCall():
                self._output.emit(frame)
            case ErrorFrame():
                # An error that ends this connection is reported only if it ends the session: see
                # `_disconnected`.
                if frame is not provider.failure:
                    self._output.emit_error(frame)
            case Ready():
                # If the connection is over already, nothing may be sent on it: the next one gets the input.
                if provider.state is State.OPEN:
                    self._ready(provider)
            case Expiring(seconds=seconds):
                self._going_away(provider, seconds)
            case Unknown() | Digit():  # the wires of clients have no digits
                self.stats.unknown_events += 1
            case Audio() | ResponseEnd() | Close():
                raise AssertionError("`_drain` handles these itself")
            case _:
                assert_never(frame)

    def _interrupted(self, frame: Interruption) -> None:
        self._calls.abandon_open()
        self._output.cut_audio(frame)

    def _receive_call(self, provider: ProviderDialect, call: ToolCall) -> None:
        # All speech that was generated before the call must precede it.
        self._output.end_audio()
        too_long = len(call.arguments.encode()) > self.limits.max_text_size
        if too_long or self._calls.full:
            self.stats.refused_calls += 1
            refusal = _TOO_LONG if too_long else _TOO_MANY_CALLS
            self._try(lambda: provider.send_tool_result(call.call_id, refusal))
            return
        self._answering = True
        self._output.emit(ToolCall(self._calls.issue(call.call_id), call.name, call.arguments))

    def _answer_ends(self, end: ResponseEnd) -> None:
        """Report the end of an answer, unless the session is over. The dialect reports each end once."""
        if self._phase is _BridgePhase.OVER:
            return
        self._answering = self._requests.awaits_answer = False
        self._output.emit_response_end(end)

    def _ready(self, provider: ProviderDialect) -> None:
        self._phase = _BridgePhase.LIVE
        self.stats.connections += 1
        self._attempts.trouble = None
        self._timers.stop("opening")
        self._timers.start("steady", STEADY_AFTER)
        self._ask(lambda: self._requests.restore(provider))
        for held in self._held.take():
            if isinstance(held, bytes):
                self._receive_audio(held)
            elif isinstance(held, str):
                self._end_turn(held)
            else:
                self._receive_request(held)

    def _settle(self, provider: ProviderDialect) -> None:
        """Act on the new state of the provider, after all of its events so far."""
        if self._phase is not _BridgePhase.LIVE:
            return
        was_responding, self._responding = self._responding, provider.responding
        if was_responding and not self._responding:
            self._output.end_audio()
        if self._leaving and provider.at_rest and provider.resumption is not None:
            self._move(provider)

    # From one connection to the next

    def _going_away(self, provider: ProviderDialect, seconds: float) -> None:
        if provider.resumption is None:
            message = f"the provider ends the session in {seconds:.0f} s"
            self._output.emit(ErrorFrame(codes.GOING_AWAY.upper(), message))
        self._leaving = True
        self._timers.start("move", max(0.0, seconds - MOVE_MARGIN))

    def _move(self, provider: ProviderDialect) -> None:
        """Close this connection, so that the next one can resume the session."""
        self._phase = _BridgePhase.MOVING
        provider.close(close_codes.NORMAL, "")

    def _disconnected(
        self, provider: ProviderDialect, ending: Ending, cut: ResponseEnd | None = None
    ) -> None:
        """Go on without the connection; `cut` is the end of the answer that was under way, if any."""
        before = self._phase
        self._connection = self._provider = None
        self._leaving = False
        self._timers.stop("move")
        self._timers.stop("steady")
        if before is _BridgePhase.OVER:
            return
        self._phase = _BridgePhase.WAITING
        if before is _BridgePhase.MOVING and ending.error is None:
            self._requests.fresh = False  # the provider answered our close, so what preceded it has arrived
        self._input.reset()
        if before is _BridgePhase.OPENING:
            again = ending.retry
            self._attempts.trouble = ending.error
        else:
            self._attempts.resumption = provider.resumption
            again = provider.resumption is not None
            self._timers.start("opening", self._opening_timeout)
        if before is _BridgePhase.OPENING and ending.stale and self._attempts.resumption is not None:
            self._begin_afresh(provider, cut)
        elif again and not self._attempts.exhausted:
            self._lose_what_was_under_way(provider, cut)
            self._retry(self._attempts.pause)
        else:
            self._output.end_audio()
            self._output.finish_texts()
            if cut is not None:
                self._answer_ends(cut)
            self._end(ending.error)

    def _begin_afresh(self, provider: ProviderDialect, cut: ResponseEnd | None) -> None:
        """Begin an empty conversation, because the provider rejected the handle."""
        self._attempts.resumption = None
        self._lose_what_was_under_way(provider, cut)
        message = "the provider could not resume the conversation; a new one begins, so repeat what matters"
        self._output.emit(ErrorFrame(codes.CONVERSATION_LOST.upper(), message))
        self._retry(0.0)

    def _retry(self, seconds: float) -> None:
        if seconds > 0:
            self._timers.start("retry", seconds)
        else:
            self._attempts.want()

    def _lose_what_was_under_way(self, provider: ProviderDialect, end: ResponseEnd | None) -> None:
        """Give up the answer and the tool results of the lost connection; the session goes on."""
        whole = end is not None and end.status == "done"
        cut = (self._responding and not whole) or len(self._calls) > 0
        lost = self._requests.lose() or cut or provider.cut_short
        self._responding = False
        if cut:
            if self._playback is not None:
                self._playback.flush()
            self._interrupted(Interruption("assistant"))
        else:
            self._output.end_audio()
        self._output.finish_texts()
        if end is not None:
            self._answer_ends(end)
        self._calls.disconnect()
        if lost:
            message = "the connection to the provider broke in the middle of something; say it again"
            self._output.emit(ErrorFrame(codes.RESPONSE_LOST.upper(), message))

    # The end

    def _fail(self, error: ErrorFrame) -> None:
        """End the session with `error`, even if the provider would go on."""
        self._output.end_audio()
        self._output.finish_texts()
        if self._answering:
            self._answer_ends(ResponseEnd("failed", error.code))
        self._end(error)

    def _end(self, error: ErrorFrame | None) -> None:
        close_code, reason = close_codes.NORMAL, "provider_closed"
        if error is not None:
            reason = self._output.emit_error(error).code.lower()
            if reason not in (codes.EXPIRED, codes.IDLE_TIMEOUT):
                close_code = close_codes.INTERNAL_ERROR
        self.goodbye = Close(close_code, reason, "local")
        self._leave()

    def _leave(self) -> None:
        self._phase = _BridgePhase.OVER
        self._attempts.wanted = None
        self._timers.clear()
        if self._provider is not None:
            self._provider.close(close_codes.NORMAL, "")

    def _no_answer(self) -> ErrorFrame:
        seconds = f"within {self._opening_timeout:g} s"
        if self._provider is None or self._provider.state is State.CONNECTING:
            return ErrorFrame(codes.UNAVAILABLE, f"the provider could not be reached {seconds}; try again")
        return ErrorFrame(codes.NOT_READY, f"the provider did not accept the session {seconds}; try again")

    # Time

    def next_deadline(self) -> float | None:
        """Return when `handle_timeout` wants to be called, for the provider's dialect too; see `Dialect`."""
        own = self._timers.next()
        theirs = None if self._connection is None else self._connection.next_deadline()
        if own is None or theirs is None:
            return own if theirs is None else theirs
        return min(own, theirs)

    def handle_timeout(self, now: float) -> None:
        """Act on the deadlines that have come by `now`."""
        with self.at(now):
            for name, _ in self._timers.expired(now):
                self._timer_expired(name)
            if self._connection is not None:
                self._connection.handle_timeout(now)

    def _timer_expired(self, name: str) -> None:
        provider = self._provider
        match name:
            case "retry":
                self._attempts.want()
            case "fresh":
                self._requests.fresh = False
            case "steady":
                self._attempts.count = 1
            case "opening":
                self._fail(self._attempts.trouble or self._no_answer())
            case _:
                assert name == "move"
                if self._listening is not None and provider is not None and provider.resumption is not None:
                    self._move(provider)
