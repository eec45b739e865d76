"""`PhoneBridge`: a carrier's media stream on one side, a session on the other. It has no I/O and no clock.

The contract, for the code that moves the messages::

    bridge = PhoneBridge(carrier, ...)
    bridge.receive_message(message, now)     # for each WebSocket message of the carrier
    bridge.send_frame(frame, now)            # for each frame of the session
    bridge.next_event()                      # until NEED_DATA: pass each event to `deliver`
    bridge.next_message(now)                 # until None: send each message to the carrier

Send a message before you take the next one: an interruption drops the audio that still waits here. Take no
more audio from the session while `session_must_wait`. Call `next_message` at once when `must_clear`, and
`handle_timeout` at `next_deadline`. When it is `done`, close the session as `goodbye` says, and the carrier's
WebSocket, which hangs up.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from ..protocol import close_codes
from ..protocol._commands import AudioIn, Interrupt, Played, TextIn
from ..protocol._dialect import NEED_DATA, NeedData
from ..protocol._resampling import Converter, ResamplingFactory
from ..protocol._timers import Timers
from ..protocol.errors import LocalProtocolError, RemoteProtocolError
from ..protocol.frames import Audio, Close, Frame, Interruption, Ready, ResponseEnd, ToolCall, Usage
from ._barge_in import MAX_MUTE, MUTE_PATIENCE, BargeIn, SpeechDetector
from ._carrier import CarrierStream
from ._events import CallAudio, CallEnded, CallStarted, CarrierEvent, Digit, Marked
from ._line_output import FIRST_MARK_MS, LATEST_LOOK, LineOutput

CALLER_HUNG_UP: Final = "caller_hung_up"
"""Reason with which a session closes when the carrier reports the call's end; the code is 1000."""

LINE_LOST: Final = "line_lost"
"""Reason with which a session closes when the carrier's WebSocket is lost in the middle of the call; the code
is 1000."""

CARRIER_ERROR: Final = "carrier_protocol_error"
"""Reason with which a session closes when the carrier broke its protocol; the code is 1000."""

Digits: TypeAlias = Literal["event", "text"]
"""What the keys that the caller presses become: an event each, or the text of a turn."""

KEYS_PAUSE: Final = 1.5
"""Seconds without a key after which a text of keys is complete."""

MAX_KEYS: Final = 64
"""Keys in one text, and events of keys that may wait: longer than any number that people key in."""

HELD_SECONDS: Final = 10.0
"""Seconds of the caller's audio to hold while the session takes none. The oldest is dropped."""

_WHOLE_PIECE: Final = 320
"""Bytes up to which pieces of the caller's audio that wait are joined: each takes 65 bytes beside its
samples, and may have only one."""

MAX_WAITING: Final = 1024 * 1024
"""Bytes of the assistant's audio, with an overhead for each piece, at which the session must wait."""

GOODBYE_TIMEOUT: Final = 30.0
"""Seconds that the line gets to play the last audio of a session that has ended."""

_HANGING_UP: Final = frozenset({close_codes.NORMAL, close_codes.GOING_AWAY, close_codes.NO_STATUS})
"""Close codes with which carriers close the WebSocket of a call that is over."""

_CHECK_EVERY: Final = 0.1
"""Seconds from one look at the line to the next, whether it plays later than the clock says."""

_REPORT_EVERY: Final = 0.02
"""Seconds from one report to the next while it does. The session learns it otherwise from the next mark."""

PhoneEvent: TypeAlias = AudioIn | TextIn | Interrupt | Played | CallStarted | Digit | CallEnded
"""What a bridge has for the session, and for the program that serves the call."""

T_co = TypeVar("T_co", covariant=True)


class SessionVerbs(Protocol[T_co]):
    """What a phone call needs of a session: `RealtimeSession` has it, and so do the cores of clients."""

    def send_audio(self, pcm: bytes, /) -> T_co: ...
    def send_text(self, text: str, /, *, respond: bool) -> T_co: ...
    def interrupt(self) -> T_co: ...
    def report_played(self, seconds: float, /) -> T_co: ...


def deliver(event: PhoneEvent, session: SessionVerbs[T_co]) -> T_co | None:
    """Pass `event` to `session`; return what the verb returns, which an async session wants awaited.

    Does nothing and returns None for `CallStarted`, `Digit` and `CallEnded`, which are not for the session.
    """
    match event:
        case AudioIn(pcm=pcm):
            return session.send_audio(pcm)
        case TextIn(text=text, respond=respond):
            return session.send_text(text, respond=respond)
        case Interrupt():
            return session.interrupt()
        case Played(ms=ms):
            return session.report_played(ms / 1000)
        case _:
            return None


class PhoneStats(msgspec.Struct):
    """Counts of what a call lost."""

    dropped_audio: float = 0.0
    """Seconds of the caller's audio that the session did not take in time."""
    dropped_digits: int = 0
    """Keys that were not taken in time."""
    cut_goodbye: float = 0.0
    """Seconds of the session's last audio that were not played within `GOODBYE_TIMEOUT`."""


class _Phase(enum.Enum):
    TALKING = "the call and the session go on"
    LEAVING = "the session is over; the line plays its last audio"
    OVER = "the call is over"


class PhoneBridge:
    """Joins the media stream of one call to one session.

    It resamples audio both ways, clears the carrier's buffer at an interruption, follows what the line has
    played, and ends one side when the other ends.

    - `carrier`: the codec of the media stream; its call may have started already.
    - `input_sample_rate`, `output_sample_rate`: the session's, in samples a second; its `Ready` frame
      corrects them.
    - `make_resampler`: makes the converter between two rates: `speko_anyio.audio.resample.Resampler`, for
      example. It is tried here, so that a missing library is noticed before anybody speaks.
    - `digits`: ``"event"`` for a `Digit` for each key. ``"text"`` for a `TextIn`, which the model answers: it
      has all keys up to ``#`` or a pause of 1.5 seconds. A ``#`` that ends it is left out.
    - `barge_in`: tells when the caller begins to talk over the assistant, for this call alone. The line is
      cleared at once then, an `Interrupt` goes to the session, and the rest of the answer is dropped. None:
      only the session's `Interruption` clears the line.

    `now` is in seconds of one clock that never goes back. Whatever the carrier or the session does, no method
    raises because of it; what the detector of `barge_in` raises comes out of `receive_message`.
    """

    def __init__(
        self,
        carrier: CarrierStream,
        *,
        input_sample_rate: int,
        output_sample_rate: int,
        make_resampler: ResamplingFactory,
        digits: Digits = "event",
        barge_in: SpeechDetector | None = None,
    ) -> None:
        self.stats: PhoneStats = PhoneStats()
        self.goodbye: Close | None = None
        """How to close the session. None while the call goes on, and when the session ended first."""
        self.ended: CallEnded | None = None
        """How the carrier's side ended, if it ended first."""
        self.error: RemoteProtocolError | None = None
        """How the carrier broke its protocol, if it did."""
        self._carrier = carrier
        self._phase = _Phase.TALKING
        self._now = 0.0
        self._timers = Timers()
        # From the caller. Audio is converted when it is taken, since `Ready` may change the rate until then.
        self._input_rate = input_sample_rate
        self._input = Converter(make_resampler)
        self._events: deque[Played | Interrupt | CallAudio | TextIn | CallStarted | Digit | CallEnded] = (
            deque()
        )
        self._held = 0
        self._keys: str | None = "" if digits == "text" else None
        self._keys_waiting = 0
        self._report = False
        # To the caller
        self._output = LineOutput(carrier, make_resampler)
        self._barge_in = None if barge_in is None else BargeIn(barge_in, carrier)
        if self._barge_in is not None:
            self._output.on_audio = self._barge_in.send
        for source, target in (
            (carrier.sample_rate, input_sample_rate),
            (output_sample_rate, carrier.sample_rate),
        ):
            if source != target:
                make_resampler(source, target)

    # State

    @property
    def done(self) -> bool:
        """Whether the call is over."""
        return self._phase is _Phase.OVER

    @property
    def session_must_wait(self) -> bool:
        """Whether to take no more audio from the session, because enough waits for the line."""
        return self._output.size > MAX_WAITING

    @property
    def must_clear(self) -> bool:
        """Whether `next_message` has a clear for the carrier, which should not wait."""
        return self._output.must_clear

    def played(self, now: float) -> float:
        """Return how many seconds of the session's audio since the last interruption the line has played.

        This is exact when the carrier answers a mark, and follows the clock in between.
        """
        played = self._output.line.played(self._tick(now))
        return played if self._barge_in is None else self._barge_in.passed + played

    def _tick(self, now: float) -> float:
        self._now = max(now, self._now)
        return self._now

    # The carrier

    def receive_message(self, message: str | bytes, now: float) -> None:
        """Take a WebSocket message of the carrier."""
        self._tick(now)
        if self.done:
            return
        try:
            events = self._carrier.receive_message(message)
        except RemoteProtocolError as error:
            self.error = error
            self._end_call(CallEnded(str(error)), CARRIER_ERROR)
            return
        for event in events:
            self._receive(event)
        self._settle()

    def receive_close(self, code: int, reason: str = "") -> None:
        """Note that the carrier closed its WebSocket; some carriers end a call in this way only.

        With a code other than 1000, 1001 or none (1005) the line is lost. Does nothing when the call is over.
        """
        if code not in _HANGING_UP:
            self.receive_lost(f"the carrier closed its WebSocket with code {code}")
        elif not self.done:
            self._end_call(CallEnded(reason), CALLER_HUNG_UP)

    def receive_lost(self, reason: str = "the carrier's WebSocket was lost") -> None:
        """Note that the carrier's WebSocket is gone, without a close. Does nothing when the call is over."""
        if not self.done:
            self._end_call(CallEnded(reason), LINE_LOST)

    def _receive(self, event: CarrierEvent) -> None:
        if self.done:
            return
        match event:
            case CallAudio():
                self._hold(event)
            case Marked(name=name):
                self._report = self._output.line.answered(name, self._now) or self._report
            case Digit():
                self._press(event)
            case CallStarted():
                self._events.append(event)
            case _:
                self._end_call(event, CALLER_HUNG_UP)

    def _hold(self, audio: CallAudio) -> None:
        if self._phase is not _Phase.TALKING:
            return
        if (barge_in := self._barge_in) is not None:
            line = self._output.line
            played = line.played(self._now)
            if barge_in.hear(audio.pcm, played, self._now) and line.unplayed(self._now):
                self._cut_off(barge_in, played)
        last = self._events[-1] if self._events else None
        if isinstance(last, CallAudio) and len(last.pcm) + len(audio.pcm) <= _WHOLE_PIECE:
            self._events[-1] = CallAudio(last.pcm + audio.pcm)
        else:
            self._events.append(audio)
        self._held += len(audio.pcm)
        rate = self._carrier.sample_rate * 2
        while self._held > HELD_SECONDS * rate:
            oldest = next(event for event in self._events if isinstance(event, CallAudio))
            self._events.remove(oldest)
            self._held -= len(oldest.pcm)
            self.stats.dropped_audio += len(oldest.pcm) / rate

    def _cut_off(self, barge_in: BargeIn, played: float) -> None:
        """Stop the assistant before the session knows that the caller talks over it."""
        self._stop_playing()
        barge_in.cut(played)
        # Ahead of the caller's audio, and first where the answer ends.
        self._events.extendleft((Interrupt(), Played(round(barge_in.passed * 1000))))
        if barge_in.muted:
            self._timers.start("mute", MUTE_PATIENCE)
            self._timers.start("long mute", MAX_MUTE)

    def _press(self, event: Digit) -> None:
        if self._keys is None:
            self._queue_keys(event, 1)
            return
        ends = event.digit == "#"
        if not (ends and self._keys):
            self._keys += event.digit
        self._timers.start("keys", KEYS_PAUSE)
        if ends or len(self._keys) >= MAX_KEYS:
            self._end_keys()

    def _end_keys(self) -> None:
        self._timers.stop("keys")
        keys, self._keys = self._keys, ""
        if keys and self._phase is _Phase.TALKING:
            self._queue_keys(TextIn(keys, "user", respond=True), len(keys))

    def _queue_keys(self, event: Digit | TextIn, count: int) -> None:
        if self._keys_waiting + count > MAX_KEYS:
            self.stats.dropped_digits += count
        else:
            self._keys_waiting += count
            self._events.append(event)

    def _end_call(self, event: CallEnded, reason: str) -> None:
        if self._phase is _Phase.TALKING:
            self.goodbye = Close(close_codes.NORMAL, reason, "local")
        self.ended = event
        self._events.append(event)
        self._over()

    def _over(self) -> None:
        self._output.close()
        self._report = False
        self._barge_in = None
        self._phase = _Phase.OVER
        self._timers.clear()

    def next_message(self, now: float) -> str | bytes | None:
        """Take the next message for the carrier, which is sent now; None when there is none yet."""
        message = self._output.next_message(self._tick(now))
        if message is None:
            self._settle()
        elif self._output.began:
            self._output.began = False
            self._timers.start("report", 2 * FIRST_MARK_MS / 1000)
        return message

    # The session

    def send_frame(self, frame: Frame, now: float) -> None:
        """Take a frame of the session. Frames that a phone has no use for are ignored.

        `LocalProtocolError` for audio while `session_must_wait`.
        """
        self._tick(now)
        if self._phase is not _Phase.TALKING:
            return
        match frame:
            case Audio():
                if self.session_must_wait:
                    raise LocalProtocolError(
                        f"more than {MAX_WAITING} bytes would wait for the phone line; "
                        "take no audio from the session while session_must_wait"
                    )
                if self._barge_in is None or self._barge_in.admit(frame):
                    self._output.push(frame)
                else:
                    self._timers.start("mute", MUTE_PATIENCE)
            case Interruption():
                self._interrupt()
            case ResponseEnd():
                self._output.pause()
                self._end_answer()
            case ToolCall() | Usage():
                self._output.pause()
            case Ready(input_sample_rate=rate):
                self._input_rate = rate
            case Close():
                self._output.pause()
                self._leave()
            case _:
                pass

    def _interrupt(self) -> None:
        self._stop_playing()
        if self._barge_in is not None:
            self._barge_in.interrupted()
            self._stop_mute_timers()

    def _end_answer(self) -> None:
        if self._barge_in is not None:
            self._barge_in.end_answer()
            self._stop_mute_timers()

    def _stop_mute_timers(self) -> None:
        self._timers.stop("mute")
        self._timers.stop("long mute")

    def _stop_playing(self) -> None:
        self._output.clear()
        self._report = False
        # The session's own interruption replaces one of ours that it has not received.
        while self._events and isinstance(self._events[0], Played | Interrupt):
            self._events.popleft()
        if self._barge_in is not None:
            self._barge_in.clear()

    def _leave(self) -> None:
        self._phase = _Phase.LEAVING
        self._keys = None if self._keys is None else ""
        self._timers.stop("keys")
        self._timers.start("goodbye", GOODBYE_TIMEOUT)
        self._settle()

    def _settle(self) -> None:
        """End the call once the line has played the last audio of a session that is over."""
        self._timers.settle(self._now)
        if self._phase is _Phase.LEAVING and self._output.is_silent(self._now):
            self._over()

    def next_event(self) -> PhoneEvent | Literal[NeedData.NEED_DATA]:
        """Take the next event for the session; NEED_DATA when there is none now. `CallEnded` is the last."""
        if self._report:
            self._report = False
            return Played(round(self.played(self._now) * 1000))
        while self._events:
            match event := self._events.popleft():
                case CallAudio(pcm=pcm):
                    self._held -= len(pcm)
                    pcm = self._input.convert(pcm, self._carrier.sample_rate, self._input_rate)
                    if pcm:
                        return AudioIn(pcm, self._input_rate)
                case CallEnded():
                    if rest := self._input.flush():
                        self._events.append(event)
                        return AudioIn(rest, self._input_rate)
                    return event
                case Digit():
                    self._keys_waiting -= 1
                    return event
                case TextIn(text=text):
                    self._keys_waiting -= len(text)
                    return event
                case _:
                    return event
        return NEED_DATA

    # Time

    def next_deadline(self) -> float | None:
        """Return when `handle_timeout` wants to be called, and then `next_message`; None for never."""
        look = self._output.next_look(self._now)
        if look is None and self._phase is _Phase.LEAVING:
            look = self._now + max(self._output.line.unplayed(self._now), LATEST_LOOK)
        timer = self._timers.next()
        return timer if look is None else look if timer is None else min(timer, look)

    def handle_timeout(self, now: float) -> None:
        """Act on the deadlines that have come by `now`."""
        self._tick(now)
        for name, _ in self._timers.expired(now):
            if name == "keys":
                self._end_keys()
            elif name == "report":
                self._report_if_behind()
            elif name in ("mute", "long mute"):
                self._end_answer()
            else:
                assert name == "goodbye"
                self._cut_goodbye()
        self._settle()

    def _report_if_behind(self) -> None:
        if self._phase is _Phase.TALKING and self._output.line.unplayed(self._now):
            behind = self._output.line.is_behind(self._now)
            self._report = self._report or behind
            self._timers.start("report", _REPORT_EVERY if behind else _CHECK_EVERY)

    def _cut_goodbye(self) -> None:
        output = self._output
        self.stats.cut_goodbye = output.waiting + output.line.unplayed(self._now)
        self._over()
