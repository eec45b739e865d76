"""`Bridge`: a Speko session's client on one side, a provider's dialect on the other. No I/O, no clock.

The contract, for whoever brings the two connections::

    bridge.receive_command(command, now)           # what the client says
    while (frame := bridge.next_frame()) is not None:
        ...                                        # say it to the client, `Close` last; then take the next
    if bridge.wanted is not None:                  # a connection to the provider, resumed or not
        provider = ...                             # a dialect for `bridge.wanted.resumption`
        bridge.attach(provider, now)               # then dial; `provider.receive_lost` when that fails
    with bridge.at(now):                           # around everything that the provider's dialect is told
        provider.receive_data(data)
    transport.write(provider.data_to_send())       # after each of these, until the provider is CLOSED

Stop reading from the client while `client_must_wait`, from the provider while `provider_must_wait`, and call
`handle_timeout` at `next_deadline`. It is over when `done`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec

from ...protocol import close_codes
from ...protocol.commands import AudioIn, Clear, Command, Commit, EndTurn, Interrupt, ToolResult
from ...protocol.dialect import NEED_DATA
from ...protocol.errors import LocalProtocolError, SpekoError
from ...protocol.frames import (
    Audio,
    Close,
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
from ...protocol.limits import DEFAULT_LIMITS
from ...protocol.pcm import MAX_AUDIO_MESSAGE
from ...protocol.state import State
from ...protocol.timers import Timers
from .. import codes
from ..held_input import HeldInput, TurnEnd
from ..provider import ProviderDialect
from ..resampling import Converter, ResamplingFactory
from .calls import CallNames
from .client import ClientSide
from .errors import Ending, judge_end, judge_opening
from .queue import ClientFrame

__all__ = ["Bridge", "BridgeLimits", "BridgeStats", "ClientFrame", "Connect"]

RETRY_AFTER: Final = (0.0, 0.5, 2.0)
"""Seconds before each further attempt to connect; then it is given up."""

STEADY_AFTER: Final = 30.0
"""Seconds for which a connection must last so that the next one's attempts are counted anew: a provider that
takes every session and drops it at once is not asked for ever."""

OPENING_TIMEOUT: Final = 20.0
"""Seconds until a connection must be ready, over all attempts: a provider that accepts connections and then
says nothing must not keep a caller waiting for the sum of all timeouts."""

MOVE_MARGIN: Final = 2.0
"""Seconds ahead of the announced end of a connection at which the session moves whatever is under way."""


class BridgeLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one bridged session may make the process hold, beside what each side's core holds."""

    held_seconds: float = 10.0
    """Of the client's audio, while there is no provider to send it to. The oldest is dropped."""
    to_client: int = 1024 * 1024
    """Bytes of frames at which the provider must wait: 21 s of speech at 24 kHz, since an interruption that
    is still unread in the socket can't act."""
    to_provider: int = 1024 * 1024
    """Bytes of messages at which the client must wait."""
    max_text_size: int = 100 * 1024
    """Bytes of a transcript, which is cut there, and of a tool call's arguments: a call with longer ones is
    answered with an error. As JSON text it may double, and clients take 256 KiB in one message."""
    max_open_calls: int = DEFAULT_LIMITS.max_open_calls
    """Tool calls that the client may have open at a time; further ones are answered with an error."""


DEFAULT_BRIDGE_LIMITS: Final = BridgeLimits()

_TOO_MANY_CALLS: Final = '{"error":"too many tool calls wait for their results"}'
_TOO_LONG: Final = '{"error":"the arguments are too long"}'


class BridgeStats(msgspec.Struct):
    """What happened and gave no frame, counted."""

    connections: int = 0
    """To the provider, that became ready."""
    dropped_audio: int = 0
    """Bytes of the client's audio that could be neither held nor sent."""
    late_results: int = 0
    """Results of tool calls that nobody waited for any more."""
    turns_heard: int = 0
    """Turns of the user whose end the provider heard, before the client said it if it did."""
    refused_calls: int = 0
    """Tool calls beyond the limits."""
    unknown_events: int = 0
    """Events of the provider's that this version does not know."""


class Connect(NamedTuple):
    """A connection to the provider is wanted."""

    resumption: str | None
    """What the dialect before had as its `resumption`: go on from there; None: begin."""


class _Phase(enum.Enum):
    WAITING = "no connection; one is wanted, or will be soon"
    OPENING = "the provider is not ready yet"
    LIVE = "both sides talk"
    MOVING = "this connection is closed so that the next one can go on"
    OVER = "nothing more comes for the client"


class Bridge:
    """See the top. One for each session; `now` is in seconds of one clock that never goes back.

    - `input_sample_rate`, `output_sample_rate`: of the client's session, in samples a second.
    - `resampling`: makes what converts between those and the provider's.
    - `secrets`: texts, such as the provider's key, that no message may show the client.
    - `opening_timeout`: seconds for all attempts together until the provider is ready, at the start and after
      a loss; the session ends when they have passed.

    Nothing here raises for what either side does.
    """

    def __init__(
        self,
        *,
        input_sample_rate: int,
        output_sample_rate: int,
        resampling: ResamplingFactory,
        limits: BridgeLimits = DEFAULT_BRIDGE_LIMITS,
        secrets: Sequence[str] = (),
        opening_timeout: float = OPENING_TIMEOUT,
    ) -> None:
        self.input_sample_rate = input_sample_rate
        self.output_sample_rate = output_sample_rate
        self.limits = limits
        self.stats = BridgeStats()
        self._phase = _Phase.WAITING
        self._provider: ProviderDialect | None = None
        self._client = ClientSide(
            sample_rate=output_sample_rate,
            resampling=resampling,
            max_text_size=limits.max_text_size,
            secrets=secrets,
        )
        self._calls = CallNames(limits.max_open_calls)
        self._input = Converter(resampling)
        self._held = HeldInput(int(limits.held_seconds * input_sample_rate) * 2)
        self._responding = False
        self._answering = False
        """Whether the client got part of an answer, and not its end."""
        self._turn_told = False
        self._turns_heard = 0
        self._wanted: Connect | None = Connect(None)
        self._resumption: str | None = None
        self._attempts = 0
        self._leaving = False
        self._opening_timeout = opening_timeout
        self._trouble: ErrorFrame | None = None
        """Why the last attempt to connect failed."""
        self._timers = Timers()
        self._timers.start("opening", opening_timeout)

    # What has become of it

    @property
    def provider(self) -> ProviderDialect | None:
        """The dialect of the connection there is: to be told what that brings, and asked what to send."""
        return self._provider

    @property
    def wanted(self) -> Connect | None:
        """A connection that is wanted now: `attach` one."""
        return self._wanted

    @property
    def done(self) -> bool:
        """Whether nothing more will happen: take what `next_frame` still has, and leave."""
        return self._phase is _Phase.OVER and self._provider is None

    @property
    def provider_must_wait(self) -> bool:
        """Whether to stop reading from the provider: the client has enough to take. Its keepalive must not
        run meanwhile."""
        return self._client.queue.size > self.limits.to_client

    @property
    def client_must_wait(self) -> bool:
        """Whether to stop taking commands from the client: the provider has enough to take."""
        return self._provider is not None and self._provider.queued > self.limits.to_provider

    # The client

    def next_frame(self) -> ClientFrame | None:
        """What to say to the client next; None when there is nothing now. Take one when the one before was
        sent: the speech that waits here can still be taken back. The last is `Close`, with the code and the
        reason to close with; there is none when it was the client that left."""
        return self._client.queue.take()

    @property
    def urgent(self) -> bool:
        """Whether an interruption waits among the frames: what is being said does not matter any more."""
        return self._client.queue.urgent

    def receive_command(self, command: Command, now: float) -> None:
        """The client said something; `Close`: it is gone."""
        if self._phase is _Phase.OVER:
            if isinstance(command, Close):
                self._client.queue.clear()
            return
        with self.at(now):
            match command:
                case AudioIn(pcm=pcm):
                    self._receive_audio(pcm)
                case Commit():
                    self._turn_told = True
                    self._end_turn("commit")
                case EndTurn():
                    self._turn_told = True
                    self._end_turn("end_turn")
                case Clear():
                    self._clear()
                case Interrupt():
                    if (provider := self._listening) is not None:
                        self._try(provider.interrupt)
                case ToolResult(call_id=call_id, output=output):
                    self._receive_result(call_id, output)
                case Close():
                    self._client.queue.clear()
                    self._leave()

    @property
    def _listening(self) -> ProviderDialect | None:
        """The provider, if it can be told something."""
        provider = self._provider
        if self._phase is not _Phase.LIVE or provider is None or provider.state is not State.OPEN:
            return None
        return provider

    def _receive_audio(self, pcm: bytes) -> None:
        provider = self._listening
        if provider is None:
            dropped = self._held.dropped
            self._held.add(pcm)
            self.stats.dropped_audio += self._held.dropped - dropped
        else:
            rates = self.input_sample_rate, provider.input_sample_rate
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
        # The end of what the user said is still in there.
        self._send_audio(provider, self._input.flush())
        self._try(provider.commit if verb == "commit" else provider.end_turn)

    def _clear(self) -> None:
        provider = self._listening
        if provider is None:
            self._held.clear()
        else:
            self._input.reset()
            self._try(provider.clear)

    def _receive_result(self, call_id: str, output: str) -> None:
        name = self._calls.answer(call_id)
        provider = self._listening
        if name is None or provider is None or not provider.takes_result(name):
            self.stats.late_results += 1
            return
        self._try(lambda: provider.send_tool_result(name, output))

    def _try(self, verb: Callable[[], None]) -> None:
        try:
            verb()
        except LocalProtocolError as error:
            self._fail(ErrorFrame(codes.UNAVAILABLE, f"the provider can't be told what you said: {error}"))
        except SpekoError:
            pass  # the connection ends, as its `Close` will say

    # The provider

    def attach(self, provider: ProviderDialect, now: float) -> None:
        """The connection that was `wanted`, fresh, not yet dialled. `LocalProtocolError` when none was."""
        if self._wanted is None:
            raise LocalProtocolError("no connection to the provider is wanted now; look at `wanted` first")
        provider.resuming = self._wanted.resumption is not None
        self._wanted = None
        self._attempts += 1
        self._provider = provider
        self._turns_heard = provider.turns_heard
        self._phase = _Phase.OPENING
        with self.at(now):
            pass

    @contextmanager
    def at(self, now: float) -> Iterator[None]:
        """Around whatever is told to the provider's dialect: before it the playback must know the time, and
        after it there may be news."""
        if self._provider is not None:
            self._provider.playback.clock(now)
        yield
        self._drain()
        self._timers.settle(now)

    def _drain(self) -> None:
        # The end of an answer that was cut off with the connection comes after the resulting interruption.
        cut: ResponseEnd | None = None
        while (provider := self._provider) is not None:
            try:
                event = provider.next_event()
            except SpekoError as error:
                # A session that never opened ends without a frame.
                self._disconnected(provider, judge_opening(error, provider.moment))
                return
            self._note_turns(provider)
            if event is NEED_DATA:
                self._settle(provider)
                return
            if isinstance(event, Close):
                self._disconnected(provider, judge_end(provider, event), cut)
                return
            if cut is not None:
                self._answer_ends(cut)
                cut = None
            if isinstance(event, ResponseEnd) and provider.state is State.CLOSED:
                cut = event
            elif self._phase in (_Phase.OPENING, _Phase.LIVE) or isinstance(event, ResponseEnd):
                self._receive(provider, event)

    def _note_turns(self, provider: ProviderDialect) -> None:
        if provider.turns_heard != self._turns_heard:
            self._turns_heard = provider.turns_heard
            self.stats.turns_heard += not self._turn_told

    def _receive(self, provider: ProviderDialect, frame: Frame) -> None:
        match frame:
            case Audio(pcm=pcm, sample_rate=rate):
                self._responding = self._answering = True
                self._turn_told = False
                self._client.tell_speech(pcm, rate)
            case Interruption():
                self._interrupted(frame)
            case Transcript():
                self._client.tell_text(frame)
            case ToolCall():
                self._receive_call(provider, frame)
            case Usage():
                # Whoever hears it takes the answer to be over.
                self._client.end_speech()
                self._client.tell(frame)
            case ResponseEnd():
                self._answer_ends(frame)
            case ServerToolCall():
                self._client.tell(frame)
            case ErrorFrame():
                # What ends the connection need not end the session.
                if frame is not provider.failure:
                    self._client.tell_error(frame)
            case Ready():
                # If the connection is over already, nothing may be sent on it: the next one gets the input.
                if provider.state is State.OPEN:
                    self._ready(provider)
            case Expiring(seconds=seconds):
                self._going_away(provider, seconds)
            case Unknown():
                self.stats.unknown_events += 1

    def _interrupted(self, frame: Interruption) -> None:
        self._calls.make_moot()
        self._client.cut_speech(frame)

    def _receive_call(self, provider: ProviderDialect, call: ToolCall) -> None:
        # It follows all the speech that was made before it.
        self._client.end_speech()
        too_long = len(call.arguments.encode()) > self.limits.max_text_size
        if too_long or self._calls.full:
            self.stats.refused_calls += 1
            refusal = _TOO_LONG if too_long else _TOO_MANY_CALLS
            self._try(lambda: provider.send_tool_result(call.call_id, refusal))
            return
        self._answering = True
        self._client.tell(ToolCall(self._calls.issue(call.call_id), call.name, call.arguments))

    def _answer_ends(self, end: ResponseEnd) -> None:
        """Tell the client, unless the session is over. The dialect reports the end of each answer once."""
        if self._phase is _Phase.OVER:
            return
        self._answering = False
        self._client.tell_end(end)

    def _ready(self, provider: ProviderDialect) -> None:
        self._phase = _Phase.LIVE
        self.stats.connections += 1
        self._trouble = None
        self._timers.stop("opening")
        self._timers.start("steady", STEADY_AFTER)
        before, verb, after = self._held.take()
        if before:
            self._receive_audio(before)
        if verb is not None:
            self._end_turn(verb)
        if after:
            self._receive_audio(after)

    def _settle(self, provider: ProviderDialect) -> None:
        """There is no more news for now."""
        if self._phase is not _Phase.LIVE:
            return
        was_responding, self._responding = self._responding, provider.responding
        if was_responding and not self._responding:
            self._client.end_speech()
        if self._leaving and provider.at_rest and provider.resumption is not None:
            self._move(provider)

    # From one connection to the next

    def _going_away(self, provider: ProviderDialect, seconds: float) -> None:
        if provider.resumption is None:
            message = f"the provider ends the session in {seconds:.0f} s"
            self._client.tell(ErrorFrame(codes.GOING_AWAY.upper(), message))
        self._leaving = True
        self._timers.start("move", max(0.0, seconds - MOVE_MARGIN))

    def _move(self, provider: ProviderDialect) -> None:
        """End this connection, so that the next one can go on; the old one must be closed first."""
        self._phase = _Phase.MOVING
        provider.close(close_codes.NORMAL, "")

    def _disconnected(
        self, provider: ProviderDialect, ending: Ending, cut: ResponseEnd | None = None
    ) -> None:
        """The connection is gone; `cut` is the end of the answer that was under way, if any."""
        before, self._provider = self._phase, None
        self._leaving = False
        self._timers.stop("move")
        self._timers.stop("steady")
        if before is _Phase.OVER:
            return
        self._phase = _Phase.WAITING
        self._input.reset()
        if before is _Phase.OPENING:
            again = ending.retry
            self._trouble = ending.error
        else:
            self._resumption = provider.resumption
            again = self._resumption is not None
            self._timers.start("opening", self._opening_timeout)
        if before is _Phase.OPENING and ending.stale and self._resumption is not None:
            self._begin_afresh(provider, cut)
        elif again and self._attempts <= len(RETRY_AFTER):
            self._lose_what_was_under_way(provider, cut)
            self._retry(RETRY_AFTER[self._attempts - 1])
        else:
            self._client.end_speech()
            self._client.end_texts()
            if cut is not None:
                self._answer_ends(cut)
            self._end(ending.error)

    def _begin_afresh(self, provider: ProviderDialect, cut: ResponseEnd | None) -> None:
        """The provider rejected the handle: an empty conversation is better than none."""
        self._resumption = None
        self._lose_what_was_under_way(provider, cut)
        message = "the provider could not resume the conversation; a new one begins, so repeat what matters"
        self._client.tell(ErrorFrame(codes.CONVERSATION_LOST.upper(), message))
        self._retry(0.0)

    def _retry(self, seconds: float) -> None:
        if seconds > 0:
            self._timers.start("retry", seconds)
        else:
            self._wanted = Connect(self._resumption)

    def _lose_what_was_under_way(self, provider: ProviderDialect, end: ResponseEnd | None) -> None:
        """The session goes on without the answer, and the results, that the old connection was about."""
        whole = end is not None and end.status == "done"
        cut = (self._responding and not whole) or len(self._calls) > 0
        lost = cut or provider.cut_short
        self._responding = False
        if cut:
            self._interrupted(Interruption("assistant"))
        else:
            self._client.end_speech()
        self._client.end_texts()
        if end is not None:
            self._answer_ends(end)
        self._calls.disconnect()
        if lost:
            message = "the connection to the provider broke in the middle of something; say it again"
            self._client.tell(ErrorFrame(codes.RESPONSE_LOST.upper(), message))

    # The end

    def _fail(self, error: ErrorFrame) -> None:
        """The session can't go on, whatever the provider thinks of it."""
        self._client.end_speech()
        self._client.end_texts()
        if self._answering:
            self._answer_ends(ResponseEnd("failed", error.code))
        self._end(error)

    def _end(self, error: ErrorFrame | None) -> None:
        close_code, reason = close_codes.NORMAL, "provider_closed"
        if error is not None:
            reason = self._client.tell_error(error).code.lower()
            if reason not in (codes.EXPIRED, codes.IDLE_TIMEOUT):
                close_code = close_codes.INTERNAL_ERROR
        self._client.tell(Close(close_code, reason, "local"))
        self._leave()

    def _leave(self) -> None:
        self._phase = _Phase.OVER
        self._wanted = None
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
        """When `handle_timeout` wants to be called, for the provider's dialect too; see `Dialect`."""
        own = self._timers.next()
        theirs = None if self._provider is None else self._provider.next_deadline()
        if own is None or theirs is None:
            return own if theirs is None else theirs
        return min(own, theirs)

    def handle_timeout(self, now: float) -> None:
        """It is `now`: act on the deadlines that have come."""
        with self.at(now):
            for name, _ in self._timers.expired(now):
                self._timer_expired(name)
            if self._provider is not None:
                self._provider.handle_timeout(now)

    def _timer_expired(self, name: str) -> None:
        provider = self._provider
        match name:
            case "retry":
                self._wanted = Connect(self._resumption)
            case "steady":
                self._attempts = 1
            case "opening":
                self._fail(self._trouble or self._no_answer())
            case _:
                assert name == "move"
                if self._listening is not None and provider is not None and provider.resumption is not None:
                    self._move(provider)
