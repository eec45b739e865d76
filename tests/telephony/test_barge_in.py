"""`PhoneBridge` with a detector: the caller cuts the assistant off, and the session learns it afterwards."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from speko_anyio.protocol import (
    NEED_DATA,
    AudioIn,
    Close,
    Interrupt,
    Interruption,
    Played,
    ResponseEnd,
    Usage,
)
from speko_anyio.telephony import CallEnded
from speko_anyio.telephony._barge_in import MAX_BURST, MAX_MUTE, MUTE_PATIENCE
from tests.support.phone import CLEAR, RATE, STOP, Line, PlainStream
from tests.telephony.test_bridge import FRAME, Call, speech

QUIET = bytes(FRAME)
TALK = b"\1\1" * (FRAME // 2)
"""What the caller says to interrupt."""


class Detector:
    """Takes one packet for an interruption, and remembers what the line has played."""

    def __init__(self) -> None:
        self.playing = b""
        self.heard: list[bytes] = []

    def push(self, pcm: bytes, playing: bytes) -> bool:
        self.playing += playing
        self.heard.append(pcm)
        return pcm == TALK


def talking(seconds: float = 5.0, played: float = 1.0, **options: Any) -> Call:
    """A call in which the line has played so much of an answer, of which `seconds` have come."""
    call = Call(barge_in=Detector(), **options)
    call.say(speech(seconds))
    call.run(played)
    return call


def taken(call: Call) -> list[Any]:
    """What the session gets now, with the reports of what was played."""
    found: list[Any] = []
    while (event := call.bridge.next_event()) is not NEED_DATA:
        found.append(event)
    return found


def test_the_line_is_cleared_at_once_and_the_session_learns_where() -> None:
    call = talking()
    taken(call)
    call.bridge.receive_message(QUIET, call.now)
    assert not call.must_clear()
    call.bridge.receive_message(TALK, call.now)
    assert call.must_clear()
    assert call.bridge.next_message(call.now) == CLEAR
    assert call.bridge.next_message(call.now) is None
    assert not call.must_clear()
    assert taken(call) == [Played(1000), Interrupt(), AudioIn(QUIET, RATE), AudioIn(TALK, RATE)]


def test_the_rest_of_the_answer_is_not_heard_and_the_next_one_is() -> None:
    call = talking()
    call.receive(TALK)
    call.say(speech(5.0))
    call.send(Interruption("assistant"), ResponseEnd("interrupted"))
    heard = call.line.heard
    call.say(speech(0.5, start=7))
    call.run(1.0)
    assert call.line.heard == heard + speech(0.5, start=7)
    assert call.played == pytest.approx(0.5)
    assert call.sent.count(CLEAR) == 1


def test_audio_behind_the_interruption_is_another_answer() -> None:
    call = talking()
    call.receive(TALK)
    call.send(Interruption("assistant"))
    call.say(speech(0.5, start=7))
    call.run(1.0)
    assert call.line.heard.endswith(speech(0.5, start=7))


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_it_is_exact_on_a_line_that_begins_late(late: float) -> None:
    call = talking(line=Line(begins_after=late), played=1.0)
    taken(call)
    call.receive(TALK)
    (report, _, _) = taken(call)
    assert report.ms / 1000 == pytest.approx(call.line.clears[0] / 2 / RATE, abs=0.02)
    assert report.ms / 1000 == pytest.approx(1.0 - late, abs=0.02)


def test_a_service_that_only_ends_its_answer_counts_all_of_it() -> None:
    """Without an `Interruption` it counts on, so what the line has dropped counts as passed."""
    call = talking(5.0)
    call.receive(TALK)
    call.say(speech(3.0))
    assert call.played == pytest.approx(1.0)
    call.send(ResponseEnd("done"))
    assert call.played == pytest.approx(1.0)
    taken(call)
    call.say(speech(2.0))
    call.run(0.5)
    assert taken(call)[-1].ms == pytest.approx(8500, abs=220)
    assert call.played == pytest.approx(8.5)
    call.send(Interruption("user"))
    assert call.played == 0


def test_an_answer_that_has_come_whole_does_not_mute_the_next() -> None:
    call = talking(5.0)
    call.send(ResponseEnd("done"))
    call.receive(TALK)
    call.say(speech(2.0, start=9))
    call.run(0.5)
    assert call.line.heard.endswith(speech(0.5, start=9))
    assert call.played == pytest.approx(5.5)


def test_another_interruption_of_the_next_answer() -> None:
    call = talking(5.0)
    call.send(ResponseEnd("done"))
    call.receive(TALK)
    call.say(speech(2.0))
    call.run(0.5)
    taken(call)
    call.receive(TALK)
    assert taken(call)[:2] == [Played(5500), Interrupt()]
    assert call.sent.count(CLEAR) == 2


def test_the_services_own_interruption_clears_nothing_twice() -> None:
    call = talking()
    call.receive(TALK)
    taken(call)
    call.send(Interruption("user"), Interruption("assistant"), ResponseEnd("interrupted"))
    assert call.sent.count(CLEAR) == 1
    assert taken(call) == []


def test_an_interruption_that_the_session_has_not_got_is_moot_when_it_has_its_own() -> None:
    call = talking()
    taken(call)
    call.receive(TALK)
    call.send(Interruption("user"))
    assert taken(call) == [AudioIn(TALK, RATE)]


def test_once_the_service_has_interrupted_there_is_nothing_to_cut() -> None:
    call = talking()
    call.send(Interruption("user"))
    taken(call)
    call.receive(TALK, TALK)
    assert taken(call) == [AudioIn(TALK, RATE)] * 2
    assert call.sent.count(CLEAR) == 1


def test_a_silent_line_is_not_cleared() -> None:
    call = talking(0.5, played=1.0)
    taken(call)
    call.receive(TALK)
    assert taken(call) == [AudioIn(TALK, RATE)]
    assert CLEAR not in call.sent


def test_a_clear_that_the_socket_has_not_taken_is_sent_once() -> None:
    call = talking()
    call.bridge.receive_message(TALK, call.now)
    call.bridge.send_frame(Interruption("user"), call.now)
    call.pump()
    assert call.sent.count(CLEAR) == 1


def test_a_service_that_says_nothing_more_is_heard_again() -> None:
    call = talking()
    call.receive(TALK)
    for _ in range(4):
        call.run(MUTE_PATIENCE / 2)
        call.say(speech(1.0))
    assert call.played == pytest.approx(1.0), "it goes on with its answer"
    call.run(MUTE_PATIENCE)
    heard = call.line.heard
    call.say(speech(1.0, start=3))
    call.run(0.5)
    assert call.line.heard == heard + speech(0.5, start=3)
    assert call.played == pytest.approx(9.5)


def test_a_service_that_had_sent_all_of_its_answer_and_not_said_so_is_heard_again() -> None:
    call = talking()
    call.receive(TALK)
    call.run(MUTE_PATIENCE)
    call.say(speech(1.0, start=3))
    call.run(0.5)
    assert call.line.heard.endswith(speech(0.5, start=3))
    assert call.played == pytest.approx(5.5)


def test_a_service_whose_audio_never_pauses_is_heard_again() -> None:
    call = talking()
    call.receive(TALK)
    cut_at = call.now
    while call.played == pytest.approx(1.0):
        assert call.now < cut_at + MAX_MUTE + 1
        call.say(speech(0.5))
        call.run(0.5)
    assert call.now == pytest.approx(cut_at + MAX_MUTE, abs=1.0)


def test_the_wait_of_an_answer_that_is_over_does_not_unmute_the_next() -> None:
    call = talking()
    call.receive(TALK)
    call.send(Interruption("user"))
    call.run(MAX_MUTE - 1)
    call.say(speech(9.0))
    call.run(2.0)
    call.receive(TALK)
    heard = call.line.heard
    call.say(speech(1.0))
    call.run(1.0)
    assert call.line.heard == heard


def test_other_frames_do_not_end_the_muted_answer() -> None:
    call = talking()
    call.receive(TALK)
    call.send(Usage())
    call.say(speech(1.0))
    call.run(0.5)
    assert call.line.buffered == 0


@pytest.mark.parametrize("late", [0.0, 0.25])
def test_the_detector_hears_what_the_line_plays(late: float) -> None:
    detector = Detector()
    call = Call(line=Line(begins_after=late), barge_in=detector)
    call.say(speech(3.0))
    for _ in range(100):
        call.run(0.02)
        call.receive(QUIET)
        assert abs(len(detector.playing) - len(call.line.heard)) <= FRAME
    assert call.line.heard.startswith(detector.playing[:-FRAME])
    call.send(Interruption("user"))
    call.say(speech(1.0, start=5))
    before = detector.playing
    call.run(0.6)
    call.receive(QUIET)
    played = detector.playing.removeprefix(before)
    assert len(played) == pytest.approx(len(speech(0.6 - late)), abs=FRAME)
    assert speech(1.0, start=5).startswith(played)


def test_it_hears_the_lines_rate() -> None:
    detector = Detector()
    call = Call(
        PlainStream(16_000),
        Line(rate=16_000),
        rates=(RATE, 16_000),
        barge_in=detector,
        make_resampler=lambda source, target: Passing(),
    )
    call.say(bytes(32_000), 16_000)
    call.run(0.5)
    call.receive(bytes(640))
    assert len(detector.playing) == 16_000
    assert detector.heard == [bytes(640)]


class Passing:
    """A resampler that changes nothing."""

    def push(self, pcm: bytes) -> bytes:
        return pcm

    def flush(self) -> bytes:
        return b""

    def reset(self) -> None:
        pass


def test_a_caller_who_sends_nothing_costs_no_memory() -> None:
    detector = Detector()
    call = Call(barge_in=detector)
    for _ in range(60):
        call.say(speech(1.0))
        call.run(1.0)
    call.receive(QUIET)
    assert len(detector.playing) <= 20 * 2 * RATE
    assert call.bridge._barge_in is not None
    assert len(call.bridge._barge_in._sent) <= 20 * 2 * RATE


@pytest.mark.parametrize("size", [FRAME, 30_000])
def test_a_flood_of_audio_costs_the_detector_no_more_than_real_time(size: int) -> None:
    detector = Detector()
    call = Call(barge_in=detector)
    for _ in range(20):
        call.run(0.1)
        for _ in range(100):
            call.bridge.receive_message(bytes(size), call.now)
    heard = sum(map(len, detector.heard)) / 2 / RATE
    assert MAX_BURST - 2 <= heard <= MAX_BURST + 2.0
    call.run(3.0)
    call.say(speech(5.0))
    call.run(1.0)
    call.receive(TALK)
    assert call.sent.count(CLEAR) == 1


def test_audio_that_a_network_has_held_up_is_heard() -> None:
    call = talking()
    call.run(MAX_BURST - 1.1)
    call.say(speech(1.0))
    call.receive(*[QUIET] * round(50 * (MAX_BURST - 1.1) - 1), TALK)
    assert call.sent.count(CLEAR) == 1


def test_the_last_words_of_a_session_are_not_interrupted() -> None:
    call = talking()
    call.send(Close(1000, "", "remote"))
    taken(call)
    call.receive(TALK)
    assert CLEAR not in call.sent
    assert taken(call) == []


def test_the_detector_is_released_when_the_caller_hangs_up() -> None:
    detector = Detector()
    released = weakref.ref(detector)
    call = Call(barge_in=detector)
    call.say(speech(1.0))
    call.receive(QUIET, STOP)
    del detector
    gc.collect()
    assert released() is None
    assert taken(call) == [AudioIn(QUIET, RATE), CallEnded()]


def test_what_waits_for_the_line_is_dropped_too() -> None:
    call = talking()
    while not call.must_wait():
        call.say(speech(1.0))
    call.receive(TALK)
    assert not call.must_wait()


def test_without_a_detector_only_the_session_interrupts() -> None:
    call = Call()
    call.say(speech(5.0))
    call.run(1.0)
    taken(call)
    call.receive(TALK)
    assert taken(call) == [AudioIn(TALK, RATE)]
