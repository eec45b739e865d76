"""`PhoneBridge`: rules one by one, on a line that knows to the sample what it has played."""

from __future__ import annotations

import array
import itertools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from speko_anyio.audio.resample import Resampler, resample
from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    AudioIn,
    Close,
    Interrupt,
    Interruption,
    LocalProtocolError,
    Played,
    Ready,
    ResponseEnd,
    TextIn,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.telephony import (
    CallEnded,
    CallStarted,
    CarrierEvent,
    CarrierStream,
    Digit,
    PhoneBridge,
    deliver,
)
from speko_anyio.telephony._bridge import (
    GOODBYE_TIMEOUT,
    HELD_SECONDS,
    KEYS_PAUSE,
    MAX_KEYS,
    MAX_WAITING,
)
from speko_anyio.telephony._line_estimate import MARK_PATIENCE, LineEstimate
from speko_anyio.telephony._line_output import LEAD
from tests.support.phone import CLEAR, RATE, START, STOP, Line, MarklessStream, PlainStream

FRAME = 320
"""Bytes of 20 ms on the line."""


def no_resampling(source: int, target: int) -> Any:
    raise AssertionError(f"{source} Hz should not become {target} Hz")


def seconds(pcm: bytes, rate: int = RATE) -> float:
    return len(pcm) / 2 / rate


def speech(duration: float, rate: int = RATE, *, start: int = 0) -> bytes:
    """Samples that are all different from their neighbours: a counter."""
    count = round(duration * rate)
    return array.array("h", [(start + n) % 30_000 + 1 for n in range(count)]).tobytes()


class Call:
    """A bridge between a session and a line, with the clock of both."""

    def __init__(
        self,
        stream: CarrierStream | None = None,
        line: Line | None = None,
        *,
        rates: tuple[int, int] = (RATE, RATE),
        make_resampler: Callable[[int, int], Any] = no_resampling,
        started: bool = True,
        **options: Any,
    ) -> None:
        self.line = Line() if line is None else line
        self.now = 100.0
        self.line.now = self.now
        self.bridge = PhoneBridge(
            PlainStream() if stream is None else stream,
            input_sample_rate=rates[0],
            output_sample_rate=rates[1],
            make_resampler=make_resampler,
            **options,
        )
        self.reports: list[int] = []
        """The milliseconds of each `Played`."""
        self.sent: list[str | bytes] = []
        """The messages that the carrier got."""
        if started:
            self.receive(START)
            assert isinstance(self.bridge.next_event(), CallStarted)

    def receive(self, *messages: str | bytes) -> None:
        for message in messages:
            self.bridge.receive_message(message, self.now)
        self.pump()

    def send(self, *frames: Any) -> None:
        for frame in frames:
            self.bridge.send_frame(frame, self.now)
        self.pump()

    def say(self, pcm: bytes, rate: int = RATE) -> None:
        self.send(Audio(pcm, rate))

    def pump(self) -> None:
        """Move all messages that the carrier may have now."""
        while (message := self.bridge.next_message(self.now)) is not None:
            self.sent.append(message)
            for answer in self.line.take(message):
                self.bridge.receive_message(answer, self.now)

    def run(self, duration: float) -> None:
        """Let this much time pass: marks are answered and deadlines met when they are due."""
        end = self.now + duration
        while self.now < end:
            moments = (self.line.next_mark(), self.bridge.next_deadline(), end)
            self.now = max(self.now, min(moment for moment in moments if moment is not None))
            for answer in self.line.advance(self.now):
                self.bridge.receive_message(answer, self.now)
            deadline = self.bridge.next_deadline()
            if deadline is not None and deadline <= self.now:
                self.bridge.handle_timeout(self.now)
            self.pump()

    def events(self) -> list[Any]:
        found: list[Any] = []
        while (event := self.bridge.next_event()) is not NEED_DATA:
            if isinstance(event, Played):
                self.reports.append(event.ms)
            else:
                found.append(event)
        return found

    # Methods, since a checker takes what it has seen of a property for granted.

    def done(self) -> bool:
        return self.bridge.done

    def must_wait(self) -> bool:
        return self.bridge.session_must_wait

    def must_clear(self) -> bool:
        return self.bridge.must_clear

    @property
    def played(self) -> float:
        return self.bridge.played(self.now)

    @property
    def marks(self) -> list[str]:
        return [message for message in self.sent if isinstance(message, str) and message != CLEAR]

    @property
    def audio(self) -> bytes:
        return b"".join(message for message in self.sent if isinstance(message, bytes))


# From the caller to the session


def test_the_callers_audio_is_passed_on() -> None:
    call = Call()
    call.receive(bytes(FRAME), speech(0.02))
    assert call.events() == [AudioIn(bytes(FRAME), RATE), AudioIn(speech(0.02), RATE)]


def test_audio_goes_at_the_rate_that_the_session_has_when_it_is_ready() -> None:
    call = Call(rates=(16_000, RATE), make_resampler=Resampler)
    call.receive(bytes(RATE * 2))
    call.send(Ready(24_000, RATE))
    audio = call.events()
    assert {event.sample_rate for event in audio} == {24_000}
    call.receive(STOP)
    audio += [event for event in call.events() if isinstance(event, AudioIn)]
    assert sum(seconds(event.pcm, 24_000) for event in audio) == pytest.approx(1, abs=0.001)


def test_audio_in_pieces_of_a_sample_costs_no_more_memory_while_it_waits() -> None:
    call = Call()
    said = speech(1.0)
    call.receive(*(said[at : at + 2] for at in range(0, len(said), 2)))
    held = call.events()
    assert b"".join(event.pcm for event in held) == said
    assert len(held) == len(said) // FRAME


def test_a_caller_that_nobody_hears_costs_ten_seconds_of_memory_and_the_latest_are_kept() -> None:
    call = Call()
    for number in range(1500):
        call.receive(speech(0.02, start=number))
    held = call.events()
    assert sum(seconds(event.pcm) for event in held) == pytest.approx(HELD_SECONDS)
    assert held[-1].pcm == speech(0.02, start=1499)
    assert call.bridge.stats.dropped_audio == pytest.approx(30 - HELD_SECONDS)
    call.receive(speech(0.02))
    assert call.events() == [AudioIn(speech(0.02), RATE)]


def test_a_missing_resampler_is_noticed_before_the_call() -> None:
    def missing(source: int, target: int) -> Any:
        raise ImportError("soxr is not installed")

    with pytest.raises(ImportError):
        Call(rates=(24_000, RATE), make_resampler=missing)
    with pytest.raises(ImportError):
        Call(rates=(RATE, 24_000), make_resampler=missing)


def test_audio_before_the_start_and_after_the_stop_is_nothing() -> None:
    stream = PlainStream()
    call = Call(stream, started=False)
    call.say(speech(1))
    assert call.sent == []
    call.receive(START)
    assert call.audio == speech(1)
    call.receive(f"{STOP} bye")
    call.receive(bytes(FRAME), "digit 1", START)
    call.say(speech(1))
    assert call.audio == speech(1)
    assert call.events()[1:] == [CallEnded("bye")]


# Keys


class HasMoreToSay(PlainStream):
    """Says two things after the end of the call, in the same message."""

    def receive_message(self, message: str | bytes) -> list[CarrierEvent]:
        return [CallEnded(), Digit("1"), CallEnded()]


def test_nothing_counts_after_the_end_of_a_call() -> None:
    bridge = PhoneBridge(
        HasMoreToSay(), input_sample_rate=RATE, output_sample_rate=RATE, make_resampler=no_resampling
    )
    bridge.receive_message(STOP, 1.0)
    bridge.receive_close(1000, "late")
    bridge.receive_lost("later")
    assert bridge.next_event() == CallEnded()
    assert bridge.next_event() is NEED_DATA
    assert bridge.ended == CallEnded()


def test_keys_are_events() -> None:
    call = Call()
    call.receive("digit 1", "digit #")
    assert call.events() == [Digit("1"), Digit("#")]


def test_keys_are_a_text_after_a_pause() -> None:
    call = Call(digits="text")
    call.receive("digit 4")
    call.run(KEYS_PAUSE - 0.1)
    call.receive("digit 2")
    call.run(KEYS_PAUSE - 0.1)
    assert call.events() == []
    call.run(0.2)
    assert call.events() == [TextIn("42", "user", respond=True)]
    assert call.bridge.next_deadline() is None


@pytest.mark.parametrize(("keys", "text"), [("12#", "12"), ("#", "#"), ("*1#", "*1")])
def test_a_hash_ends_the_text(keys: str, text: str) -> None:
    call = Call(digits="text")
    call.receive(*(f"digit {key}" for key in keys))
    assert call.events() == [TextIn(text, "user", respond=True)]
    assert call.bridge.next_deadline() is None
    call.receive("digit 9", "digit #")
    assert call.events() == [TextIn("9", "user", respond=True)]


@pytest.mark.parametrize("digits", ["event", "text"])
def test_keys_that_nobody_takes_are_bounded(digits: Any) -> None:
    call = Call(digits=digits)
    for _ in range(10 * MAX_KEYS):
        call.receive("digit 1")
    events = call.events()
    assert events == ([TextIn("1" * MAX_KEYS, "user", True)] if digits == "text" else [Digit("1")] * MAX_KEYS)
    assert call.bridge.stats.dropped_digits == 9 * MAX_KEYS
    call.receive("digit 2", "digit #")
    assert call.events()


def test_keys_in_front_of_a_hang_up_ask_for_no_answer() -> None:
    call = Call(digits="text")
    call.receive("digit 1", STOP)
    assert call.events() == [CallEnded()]
    assert call.bridge.next_deadline() is None


# To the line


def test_audio_is_sent_at_once_with_few_marks() -> None:
    call = Call()
    call.say(speech(2))
    call.send(ResponseEnd("done"))
    assert call.audio == speech(2)
    assert len(call.marks) == 11
    assert isinstance(call.sent[0], bytes)
    assert len(call.sent[0]) == FRAME, "the first mark tells when the line begins to play"
    assert call.sent[-1] == "mark 11"


def test_the_end_of_an_answer_is_marked_once() -> None:
    call = Call()
    call.say(speech(0.3))
    call.send(Usage(), ResponseEnd("done"), ResponseEnd("done"), ToolCall("1", "f", "{}"))
    assert call.marks == ["mark 1", "mark 2", "mark 3"]
    assert call.sent[-1] == "mark 3"


def test_an_answer_that_comes_as_fast_as_it_is_played_has_few_marks_too() -> None:
    call = Call()
    for _ in range(100):
        call.say(speech(0.02))
        call.run(0.02)
    assert len(call.marks) <= 20


def test_nothing_is_sent_while_nobody_speaks() -> None:
    call = Call()
    call.say(speech(1))
    call.send(ResponseEnd("done"))
    before = len(call.sent)
    call.run(60)
    assert len(call.sent) == before
    assert call.bridge.next_deadline() is None


@pytest.mark.parametrize("source", [16_000, 24_000, 48_000])
def test_a_tone_has_no_clicks_and_keeps_its_level(source: int) -> None:
    """What the line gets of chunks is what one conversion of the whole gives, and no step is a click."""
    tone = sine(400, 1.0, source)
    call = Call(rates=(RATE, source), make_resampler=Resampler)
    for start in range(0, len(tone), 1234):
        call.say(tone[start : start + 1234], source)
    call.send(ResponseEnd("done"))
    whole = samples(resample(tone, source, RATE, quality="LQ"))
    heard = samples(call.audio)
    assert abs(len(heard) - len(whole)) <= 1
    assert all(abs(a - b) <= 1 for a, b in zip(heard, whole, strict=False))
    steps = max(abs(b - a) for a, b in pairwise(heard))
    assert steps <= 1.1 * 10_000 * 2 * math.pi * 400 / RATE
    assert level(heard[800:-800]) == pytest.approx(10_000 / math.sqrt(2), rel=0.02)


@pytest.mark.parametrize("target", [16_000, 24_000])
def test_the_callers_tone_has_no_clicks_and_keeps_its_level(target: int) -> None:
    tone = sine(400, 1.0, RATE)
    call = Call(rates=(target, RATE), make_resampler=Resampler)
    for start in range(0, len(tone), FRAME):
        call.receive(tone[start : start + FRAME])
    call.receive(STOP)
    heard = samples(b"".join(event.pcm for event in call.events() if isinstance(event, AudioIn)))
    whole = samples(resample(tone, RATE, target, quality="LQ"))
    assert abs(len(heard) - len(whole)) <= 2
    assert all(abs(a - b) <= 1 for a, b in zip(heard, whole, strict=False))
    assert level(heard[800:-800]) == pytest.approx(10_000 / math.sqrt(2), rel=0.02)


def sine(frequency: float, duration: float, rate: int) -> bytes:
    count = round(duration * rate)
    return array.array(
        "h", [round(10_000 * math.sin(2 * math.pi * frequency * n / rate)) for n in range(count)]
    ).tobytes()


def samples(pcm: bytes) -> array.array[int]:
    return array.array("h", pcm)


def level(values: array.array[int]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


@pytest.mark.parametrize(
    "end", [ResponseEnd("done"), Usage(), ToolCall("1", "f", "{}"), Close(1000, "", "remote")]
)
def test_what_the_resampler_holds_back_is_sent_where_speech_may_pause(end: Any) -> None:
    call = Call(rates=(RATE, 24_000), make_resampler=Resampler)
    call.say(speech(0.1, 24_000), 24_000)
    assert seconds(call.audio) < 0.1
    call.send(end)
    assert seconds(call.audio) == pytest.approx(0.1, abs=0.001)


def test_nothing_of_an_interrupted_answer_comes_later() -> None:
    loud = array.array("h", [20_000] * 12_000).tobytes()
    call = Call(rates=(RATE, 24_000), make_resampler=Resampler)
    call.say(loud, 24_000)
    call.send(Interruption("user"), ResponseEnd("interrupted"))
    call.say(bytes(24_000), 24_000)
    call.send(ResponseEnd("done"))
    later = call.sent[call.sent.index(CLEAR) :]
    assert {sample for message in later if isinstance(message, bytes) for sample in message} == {0}


def test_frames_of_no_use_to_a_phone_are_ignored() -> None:
    call = Call()
    call.send(Transcript("user", "hello", True))
    assert (call.sent, call.events()) == ([], [])


# Interruptions, and what was played


def test_an_interruption_clears_the_carriers_buffer_at_once() -> None:
    call = Call()
    call.say(speech(5))
    call.bridge.send_frame(Audio(speech(5), RATE), call.now)
    call.run(1.5)
    call.send(Interruption("user"))
    assert call.sent[-1] == CLEAR
    assert call.line.clears == [2 * RATE * 1.5]
    assert call.line.heard == speech(1.5)
    call.run(10)
    assert call.line.heard == speech(1.5)


def test_an_interruption_drops_what_waits_and_nothing_is_cleared_twice() -> None:
    call = Call()
    for _ in range(2):
        call.bridge.send_frame(Audio(speech(1), RATE), call.now)
        call.bridge.send_frame(Interruption("user"), call.now)
    call.pump()
    assert call.sent == []
    call.say(speech(1))
    call.send(Interruption("user"), Interruption("user"))
    assert call.sent.count(CLEAR) == 1


def test_an_answer_right_after_an_interruption_is_followed_from_its_beginning() -> None:
    call = Call()
    call.say(speech(2))
    call.run(0.05)
    call.send(Interruption("user"))
    call.say(speech(1))
    later = call.sent[call.sent.index(CLEAR) + 1 :]
    assert isinstance(later[0], bytes)
    assert len(later[0]) == FRAME
    assert later[1] in call.marks


def test_marks_that_are_answered_upon_a_clear_were_not_played() -> None:
    call = Call()
    call.say(speech(2))
    call.run(0.5)
    call.send(Interruption("user"))
    assert call.played == 0
    call.say(speech(1))
    call.run(0.1)
    assert call.played == pytest.approx(0.1, abs=0.02)


def test_what_was_played_follows_the_line() -> None:
    call = Call(line=Line(begins_after=0.3))
    call.say(speech(1))
    call.send(ResponseEnd("done"))
    for _ in range(150):
        call.run(0.01)
        assert call.played == pytest.approx(call.line.played, abs=0.02)
    assert call.played == 1


def test_what_was_played_is_reported_at_each_mark() -> None:
    call = Call(line=Line(begins_after=0.1))
    call.say(speech(1))
    call.send(ResponseEnd("done"))
    for _ in range(60):
        call.run(0.02)
        assert call.events() == []
    # The line begins late, and the bridge says so again and again until the first mark is answered.
    assert [ms for ms, _ in itertools.groupby(call.reports)] == [20, 220, 420, 620, 820, 1000]
    assert call.reports.count(20) == pytest.approx(4, abs=1)
    before = len(call.reports)
    call.say(speech(1))
    call.run(0.5)
    call.send(Interruption("user"))
    assert call.events() == []
    assert call.reports[before:] == [], "the service has counted anew"
    call.say(speech(1))
    call.run(0.13)
    assert call.events() == []
    assert call.reports[before:] == [30], "as of now, and not as of the mark"
    call.receive("mark 3", "mark x")
    call.receive(STOP)
    assert call.events() == [CallEnded()]
    assert call.reports[before + 1 :] == [], "nobody wants to know any more"


def test_between_marks_the_clock_tells_and_at_a_mark_the_line() -> None:
    call = Call()
    call.say(speech(1))
    call.run(0.02)
    assert call.played == pytest.approx(0.02)
    call.run(0.11)
    assert call.played == pytest.approx(0.13)
    # The line is late: the clock does not pass a mark that is not answered.
    call.line.answers = False
    call.run(0.3)
    assert call.played == pytest.approx(0.22)
    call.receive("mark 3")
    assert call.played == pytest.approx(0.42)


@pytest.mark.parametrize("has_marks", [True, False])
def test_a_carrier_that_answers_no_mark_is_followed_by_the_clock(has_marks: bool) -> None:
    call = Call(PlainStream() if has_marks else MarklessStream(), Line(answers=False))
    for begun in (0, 3):
        call.say(speech(3))
        call.send(ResponseEnd("done"))
        call.run(MARK_PATIENCE + 0.1)
        for _ in range(30):
            call.run(0.1)
            assert call.played == pytest.approx(call.line.played, abs=0.001)
        assert call.played == pytest.approx(begun + 3)
        call.run(5)
    assert bool(call.marks) is has_marks


def test_a_carrier_that_answers_marks_again_is_trusted_again() -> None:
    call = Call(line=Line(answers=False))
    call.say(speech(5))
    call.run(2)
    assert call.played == pytest.approx(2)
    call.receive("mark 5")
    assert call.played == pytest.approx(0.82)
    call.run(0.9)
    assert call.played == pytest.approx(1.02), "not beyond the next mark"


def test_an_overdue_mark_is_noticed_before_the_next_audio() -> None:
    line = LineEstimate()
    line.add(0.5, 0.0)
    line.mark("1")
    line.add(0.5, 5.0)
    assert line.played(5.1) == pytest.approx(0.6)


def test_a_mark_that_nobody_set_means_nothing() -> None:
    call = Call()
    call.say(speech(1))
    call.run(0.1)
    call.receive("mark 77", "mark x", "mark ")
    assert call.played == pytest.approx(0.1)


def test_a_mark_stands_for_those_before_it() -> None:
    call = Call(line=Line(answers=False))
    call.say(speech(1))
    call.receive("mark 4")
    assert call.played == pytest.approx(0.62)
    call.receive("mark 2")
    assert call.played == pytest.approx(0.62)


def test_unanswered_marks_are_bounded() -> None:
    call = Call(line=Line(answers=False))
    for _ in range(60):
        call.say(speech(1))
        call.run(1)
    assert len(call.marks) > 256 == len(call.bridge._output.line._marks)


# How much waits


def test_the_line_gets_ten_seconds_ahead_and_no_more() -> None:
    call = Call()
    for _ in range(60):
        call.say(speech(1))
    assert call.line.buffered <= LEAD + 1
    call.send(ResponseEnd("done"))
    for _ in range(490):
        call.run(0.1)
        assert LEAD - 1 < call.line.buffered <= LEAD + 1
    call.run(20)
    assert call.line.heard == speech(1) * 60


def test_the_rest_of_a_long_answer_follows_though_nothing_tells_what_was_played() -> None:
    call = Call(MarklessStream(), Line(answers=False))
    for _ in range(30):
        call.say(speech(1))
    call.send(ResponseEnd("done"))
    call.run(31)
    assert call.line.heard == speech(1) * 30


def test_a_session_waits_for_a_line_that_is_full() -> None:
    call = Call()
    count = 0
    while not call.must_wait():
        call.say(speech(1))
        count += 1
    assert MAX_WAITING < (count - LEAD) * 2 * RATE + 64 * count < MAX_WAITING + 3 * 2 * RATE
    with pytest.raises(LocalProtocolError, match="session_must_wait"):
        call.say(speech(1))
    call.run(3)
    assert not call.must_wait()
    while not call.must_wait():
        call.say(speech(1))
    call.send(Interruption("user"))
    assert not call.must_wait()
    assert call.bridge._output.size == 0


def test_a_flood_of_tiny_pieces_makes_the_session_wait_too() -> None:
    call = Call(started=False)
    for _ in range(MAX_WAITING // 66):
        call.say(bytes(2))
    assert not call.must_wait()
    call.say(bytes(2))
    assert call.must_wait()


def test_a_flood_of_pauses_takes_no_memory() -> None:
    call = Call(started=False)
    for _ in range(1000):
        call.send(Usage(), ResponseEnd("done"))
    assert len(call.bridge._output._waiting) == 1


# The end


def test_the_caller_hangs_up() -> None:
    call = Call()
    call.say(speech(20))
    call.receive(speech(0.02), f"{STOP} completed")
    assert call.done()
    assert call.bridge.goodbye == Close(1000, "caller_hung_up", "local")
    assert call.bridge.ended == CallEnded("completed")
    assert call.events() == [AudioIn(speech(0.02), RATE), CallEnded("completed")]
    assert call.bridge.next_message(call.now) is None
    assert call.bridge.next_deadline() is None
    call.bridge.receive_lost()
    assert call.bridge.goodbye == Close(1000, "caller_hung_up", "local")
    assert call.events() == []


def test_the_line_is_lost() -> None:
    call = Call()
    call.bridge.receive_lost("no network")
    assert call.done()
    assert call.bridge.goodbye == Close(1000, "line_lost", "local")
    assert call.events() == [CallEnded("no network")]


@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_a_carrier_may_say_the_end_by_its_close(code: int) -> None:
    call = Call()
    call.bridge.receive_close(code, "completed")
    assert call.bridge.goodbye == Close(1000, "caller_hung_up", "local")
    assert call.events() == [CallEnded("completed")]
    call.bridge.receive_close(1011)
    assert call.events() == []


def test_a_close_with_an_error_is_a_line_that_is_lost() -> None:
    call = Call()
    call.bridge.receive_close(1011)
    assert call.bridge.goodbye == Close(1000, "line_lost", "local")
    assert call.events() == [CallEnded("the carrier closed its WebSocket with code 1011")]


def test_the_caller_hangs_up_before_the_call_has_started() -> None:
    call = Call(started=False)
    call.say(speech(1))
    call.bridge.receive_lost()
    assert (call.done(), call.sent) == (True, [])


def test_the_carrier_breaks_its_protocol() -> None:
    call = Call()
    call.receive(speech(0.02), "what")
    assert call.done()
    assert call.bridge.goodbye == Close(1000, "carrier_protocol_error", "local")
    assert str(call.bridge.error) == "plain sent nonsense"
    assert call.events() == [AudioIn(speech(0.02), RATE), CallEnded("plain sent nonsense")]


def test_when_the_session_ends_its_last_words_are_played() -> None:
    call = Call(digits="text")
    call.say(speech(12))
    call.receive("digit 1")
    call.send(Close(1000, "", "remote"))
    call.receive(speech(0.02), "digit 2")
    call.run(11.99)
    assert not call.done()
    call.run(0.02)
    assert call.done()
    assert call.line.heard == speech(12)
    assert (call.bridge.goodbye, call.bridge.ended) == (None, None)
    assert call.events() == [], "nobody is there to hear it"


def test_a_goodbye_ends_though_no_mark_is_answered() -> None:
    call = Call(line=Line(answers=False))
    call.say(speech(3))
    call.send(Close(1000, "", "remote"))
    call.run(2.9)
    assert not call.done()
    call.run(MARK_PATIENCE + 0.2)
    assert call.done()
    assert call.line.heard == speech(3)


def test_a_goodbye_needs_nothing_but_its_deadlines() -> None:
    call = Call(MarklessStream(), Line(answers=False))
    call.say(speech(3))
    call.send(Close(1000, "", "remote"))
    looks = 0
    while not call.done():
        deadline = call.bridge.next_deadline()
        assert deadline is not None
        call.now = max(call.now, deadline)
        call.bridge.handle_timeout(call.now)
        looks += 1
    assert call.now == pytest.approx(103, abs=0.1)
    assert looks < 5


def test_a_goodbye_has_a_deadline() -> None:
    call = Call()
    for _ in range(60):
        call.say(speech(1))
    call.send(Close(1000, "", "remote"))
    call.run(GOODBYE_TIMEOUT - 0.1)
    assert not call.done()
    call.run(0.2)
    assert call.done()
    assert call.bridge.stats.cut_goodbye == pytest.approx(60 - GOODBYE_TIMEOUT, abs=0.1)
    assert call.bridge.next_message(call.now) is None


def test_the_caller_may_hang_up_during_the_goodbye() -> None:
    call = Call()
    call.say(speech(10))
    call.send(Close(1000, "", "remote"))
    call.run(1)
    call.receive(STOP)
    assert call.done()
    assert call.bridge.goodbye is None
    assert call.bridge.ended == CallEnded()


def test_a_session_that_ends_before_the_call_has_started_ends_it() -> None:
    call = Call(started=False)
    call.say(speech(1))
    call.send(Close(1011, "", "remote"))
    assert call.done()


def test_a_session_that_ends_in_silence_ends_the_call_at_once() -> None:
    call = Call()
    call.send(Close(1000, "", "remote"))
    assert call.done()


# Events and verbs


class Session:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def send_audio(self, pcm: bytes) -> str:
        self.calls.append((pcm,))
        return "audio"

    def send_text(self, text: str, *, respond: bool) -> str:
        self.calls.append((text, respond))
        return "text"

    def interrupt(self) -> str:
        self.calls.append(())
        return "interrupt"

    def report_played(self, seconds: float) -> str:
        self.calls.append((seconds,))
        return "report"


def test_events_become_verbs_of_a_session() -> None:
    session = Session()
    assert deliver(AudioIn(b"12", RATE), session) == "audio"
    assert deliver(TextIn("12", "user", respond=True), session) == "text"
    assert deliver(Interrupt(), session) == "interrupt"
    assert deliver(Played(1500), session) == "report"
    for event in (Digit("1"), CallEnded(), CallStarted("plain", "c", "s")):
        assert deliver(event, session) is None
    assert session.calls == [(b"12",), ("12", True), (), (1.5,)]
