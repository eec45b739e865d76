"""The turn detector, mostly with a function that takes every frame that is not zero for speech."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.audio import (
    Backchannel,
    NothingSaid,
    SpeechSoFar,
    SpeechStarted,
    SpeechStopped,
    Timing,
    TurnDetector,
    TurnEvent,
)

RATE = 16_000
FRAME_MS = 20
BYTES_PER_MS = RATE * 2 // 1000
TIMING = Timing()
END_MS, TAIL_MS, LEAD_IN_MS = 560, 200, 300
MHM = Timing(backchannel=0.4)


def make(timing: Timing = TIMING, *, rate: int = RATE) -> TurnDetector:
    return TurnDetector(rate, is_speech=any, timing=timing)


def speech(milliseconds: int) -> bytes:
    return b"\1" * (milliseconds * BYTES_PER_MS)


def quiet(milliseconds: int) -> bytes:
    return bytes(milliseconds * BYTES_PER_MS)


def is_talking(detector: TurnDetector) -> bool:
    return detector.in_turn


def kinds(events: list[TurnEvent]) -> list[type[TurnEvent]]:
    return [type(event) for event in events]


def test_speech_and_then_silence_is_a_turn() -> None:
    detector = make()
    assert detector.push(quiet(1000)) == []
    assert not is_talking(detector)
    assert detector.push(speech(400)) == [SpeechStarted()]
    assert is_talking(detector)
    (paused, stopped) = detector.push(quiet(END_MS))
    assert isinstance(paused, SpeechSoFar)
    assert paused.paused
    assert isinstance(stopped, SpeechStopped)
    assert stopped.utterance == quiet(LEAD_IN_MS) + speech(400) + quiet(TAIL_MS)
    assert stopped.utterance == paused.utterance, "so that what was recognised ahead is the final result"
    assert not is_talking(detector)


def test_a_click_is_not_speech() -> None:
    assert make().push((speech(60 - FRAME_MS) + quiet(FRAME_MS)) * 20) == []


def test_a_pause_within_a_sentence_does_not_end_the_turn() -> None:
    detector = make()
    sentence = speech(300) + quiet(END_MS - FRAME_MS) + speech(300)
    assert kinds(detector.push(sentence)) == [SpeechStarted, SpeechSoFar]
    assert detector.end_turn() == SpeechStopped(quiet(LEAD_IN_MS) + sentence + quiet(TAIL_MS))


def test_commit_ends_the_turn_at_once_with_the_unfinished_frame() -> None:
    detector = make()
    detector.push(speech(210) + b"\1")  # half a sample is no sound
    assert detector.end_turn() == SpeechStopped(quiet(LEAD_IN_MS) + speech(210) + quiet(TAIL_MS))
    assert detector.end_turn() == NothingSaid(had_audio=False)


def test_commit_after_silence_ended_the_turn_asks_for_nothing_more() -> None:
    detector = make()
    assert kinds(detector.push(speech(300) + quiet(1000)))[-1] is SpeechStopped
    assert detector.end_turn() is None
    assert detector.end_turn() == NothingSaid(had_audio=False)


def test_commit_of_silence() -> None:
    detector = make()
    detector.push(quiet(500))
    assert detector.end_turn() == NothingSaid(had_audio=True)


def test_clear_forgets_what_was_said() -> None:
    detector = make()
    detector.push(speech(505))
    detector.clear()
    assert not detector.in_turn
    assert detector.end_turn() == NothingSaid(had_audio=False)


def test_long_speech_is_suggested_at_growing_distances() -> None:
    suggested = [event for event in make().push(speech(8000)) if isinstance(event, SpeechSoFar)]
    lengths = [len(event.utterance) // BYTES_PER_MS for event in suggested]
    gaps = [later - earlier for earlier, later in pairwise(lengths)]
    assert lengths[0] < 1500
    assert gaps == sorted(gaps)
    assert 4 <= len(suggested) <= 8
    assert not any(event.paused for event in suggested)


def test_endless_speech_is_cut() -> None:
    turns = [event for event in make().push(speech(40_000)) if isinstance(event, SpeechStopped)]
    assert len(turns) == 2
    assert all(len(turn.utterance) <= (15_000 + TAIL_MS) * BYTES_PER_MS for turn in turns)


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
def test_any_rate(rate: int) -> None:
    detector = make(rate=rate)
    events = detector.push(b"\1\1" * rate + bytes(2 * rate))
    assert kinds(events)[-1] is SpeechStopped
    (*_, stopped) = events
    assert isinstance(stopped, SpeechStopped)
    assert len(stopped.utterance) / 2 / rate == pytest.approx(0.3 + 1.0 + 0.2, abs=0.03)


class TestTimes:
    def test_a_longer_pause_can_be_allowed(self) -> None:
        detector = make(Timing(end=1.2))
        assert kinds(detector.push(speech(300) + quiet(1180))) == [SpeechStarted, SpeechSoFar]
        assert kinds(detector.push(quiet(20))) == [SpeechStopped]

    @pytest.mark.parametrize("tail", [0.0, 0.21, 0.3])
    def test_the_pause_is_told_once_wherever_it_is_noticed(self, tail: float) -> None:
        events = make(Timing(tail=tail)).push(speech(300) + quiet(540))
        assert kinds(events) == [SpeechStarted, SpeechSoFar]

    def test_a_turn_that_ends_before_its_tail_is_padded(self) -> None:
        (_, stopped) = make(Timing(end=0.1)).push(speech(300) + quiet(100))
        assert stopped == SpeechStopped(quiet(LEAD_IN_MS) + speech(300) + quiet(TAIL_MS))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("end", -1.0),
            ("end", math.nan),
            ("longest", math.inf),
            ("onset", 0.0),
            ("end", 0.01),
            ("longest", 0.1),
        ],
    )
    def test_times_that_make_no_sense_are_refused(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=name):
            Timing(**{name: value})

    @pytest.mark.parametrize("rate", [0, -8000, 49])
    def test_a_frame_has_a_sample(self, rate: int) -> None:
        with pytest.raises(ValueError, match=f"a sample rate is at least 50, .* not {rate}"):
            TurnDetector(rate)
        assert TurnDetector(50).push(bytes(200)) == []


class TestBackchannels:
    def test_a_short_word_while_the_assistant_speaks_starts_no_turn(self) -> None:
        detector = make(MHM)
        detector.assistant_speaking = True
        assert detector.push(quiet(500) + speech(300)) == []
        assert not detector.in_turn
        assert detector.push(quiet(TAIL_MS)) == [
            Backchannel(quiet(LEAD_IN_MS) + speech(300) + quiet(TAIL_MS)),
        ]
        assert detector.end_turn() == NothingSaid(had_audio=False)

    def test_longer_speech_interrupts_and_loses_nothing(self) -> None:
        detector = make(MHM)
        detector.assistant_speaking = True
        assert detector.push(speech(380)) == []
        assert detector.push(speech(20)) == [SpeechStarted()]
        detector.assistant_speaking = False
        (*_, stopped) = detector.push(speech(200) + quiet(END_MS))
        assert stopped == SpeechStopped(quiet(LEAD_IN_MS) + speech(600) + quiet(TAIL_MS))

    def test_gaps_between_syllables_count(self) -> None:
        detector = make(MHM)
        detector.assistant_speaking = True
        assert detector.push((speech(80) + quiet(100)) * 2 + speech(80)) == [SpeechStarted()]

    def test_silence_of_the_assistant_makes_it_a_turn(self) -> None:
        detector = make(MHM)
        detector.assistant_speaking = True
        assert detector.push(speech(200)) == []
        detector.assistant_speaking = False
        assert detector.push(speech(20)) == [SpeechStarted()]

    def test_without_the_assistant_a_short_word_is_a_turn(self) -> None:
        assert kinds(make(MHM).push(speech(100) + quiet(END_MS)))[0] is SpeechStarted

    def test_by_default_any_speech_interrupts(self) -> None:
        detector = make()
        detector.assistant_speaking = True
        assert detector.push(speech(60)) == [SpeechStarted()]

    def test_a_short_word_that_the_client_commits_is_a_turn(self) -> None:
        detector = make(MHM)
        detector.assistant_speaking = True
        detector.push(speech(200))
        assert detector.end_turn() == SpeechStopped(quiet(LEAD_IN_MS) + speech(200) + quiet(TAIL_MS))


class TestEndOfTurn:
    def paused(self, detector: TurnDetector) -> SpeechSoFar:
        events = detector.push(speech(300) + quiet(TAIL_MS))
        (event,) = (event for event in events if isinstance(event, SpeechSoFar))
        assert event.paused
        return event

    @pytest.mark.parametrize(
        ("probability", "end"), [(0.0, 1600), (0.25, 1080), (0.5, 560), (0.75, 440), (1.0, 300)]
    )
    def test_the_model_moves_the_end(self, probability: float, end: int) -> None:
        detector = make()
        detector.judge(self.paused(detector), probability)
        assert detector.push(quiet(end - TAIL_MS - FRAME_MS)) == []
        assert kinds(detector.push(quiet(FRAME_MS))) == [SpeechStopped]

    def test_a_late_judgement_ends_the_turn_with_the_next_frame(self) -> None:
        detector = make()
        paused = self.paused(detector)
        assert detector.push(quiet(300)) == []
        detector.judge(paused, 1.0)
        assert kinds(detector.push(quiet(FRAME_MS))) == [SpeechStopped]

    def test_it_counts_for_its_own_pause_only(self) -> None:
        detector = make()
        first = self.paused(detector)
        detector.judge(first, 0.0)
        second = self.paused(detector)
        detector.judge(first, 1.0)
        assert detector.push(quiet(END_MS - TAIL_MS - FRAME_MS)) == []
        assert kinds(detector.push(quiet(FRAME_MS))) == [SpeechStopped]
        detector.judge(second, 0.0)
        assert kinds(detector.push(speech(300) + quiet(END_MS)))[-1] is SpeechStopped

    @pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
    def test_a_probability_is_between_0_and_1(self, probability: float) -> None:
        detector = make()
        with pytest.raises(ValueError, match="between 0 and 1"):
            detector.judge(self.paused(detector), probability)


SPANS = st.lists(st.tuples(st.booleans(), st.integers(0, 900)), max_size=8)
TIMINGS = st.sampled_from([TIMING, MHM, Timing(tail=0, end=0.3), Timing(longest=1.0, progress=0.2)])


@given(SPANS, st.lists(st.integers(1, 6000), min_size=1, max_size=5), TIMINGS, st.booleans())
def test_the_cuts_of_the_input_do_not_matter(
    spans: list[tuple[bool, int]], sizes: list[int], timing: Timing, assistant: bool
) -> None:
    audio = b"".join(speech(length) if loud else quiet(length) for loud, length in spans)
    whole, cut = make(timing), make(timing)
    whole.assistant_speaking = cut.assistant_speaking = assistant
    expected = [*whole.push(audio), whole.end_turn()]
    events: list[TurnEvent | NothingSaid | None] = []
    at = index = 0
    while at < len(audio):
        size = sizes[index % len(sizes)]
        events += cut.push(audio[at : at + size])
        at += size
        index += 1
    assert [*events, cut.end_turn()] == expected


def numbered(spans: list[tuple[bool, int]]) -> tuple[bytes, list[int]]:
    """Return frames of distinct samples, and the numbers of those that are speech, which are odd."""
    numbers: list[int] = []
    for loud, frames in spans:
        start = len(numbers)
        numbers += (2 * number + loud for number in range(start + 1, start + 1 + frames))
    return b"".join(number.to_bytes(2, "little") * (RATE // 50) for number in numbers), numbers


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=12).map(numbered), TIMINGS, st.booleans()
)
def test_all_speech_is_in_one_utterance(
    audio: tuple[bytes, list[int]], timing: Timing, assistant: bool
) -> None:
    pcm, numbers = audio
    detector = TurnDetector(RATE, is_speech=lambda frame: frame[0] % 2 == 1, timing=timing)
    detector.assistant_speaking = assistant
    events = [*detector.push(pcm), detector.end_turn()]
    told = [
        int.from_bytes(event.utterance[at : at + 2], "little")
        for event in events
        if isinstance(event, SpeechStopped | Backchannel)
        for at in range(0, len(event.utterance), RATE // 25)
    ]
    heard = [number for number in told if number]
    assert heard == sorted(set(heard)), "in order, and nothing twice"
    # Speech of at least the onset, whose beginning no earlier speech hides
    onset = round(timing.onset * 50)
    run: list[int] = []
    for number in [*numbers, 0]:
        if number % 2:
            run.append(number)
            continue
        if len(run) >= onset:
            lost = set(run) - set(heard)
            # Behind the cut of a turn that is too long, speech must begin anew.
            assert len(lost) < onset if timing.longest < 2 else not lost
        run = []


@given(SPANS, TIMINGS)
def test_a_turn_starts_before_it_stops(spans: list[tuple[bool, int]], timing: Timing) -> None:
    detector = make(timing)
    talking = False
    for loud, length in spans:
        for event in detector.push(speech(length) if loud else quiet(length)):
            match event:
                case SpeechStarted():
                    assert not talking
                    talking = True
                case SpeechSoFar():
                    assert talking
                case SpeechStopped():
                    assert talking
                    talking = False
                case Backchannel():
                    raise AssertionError("the assistant is silent")
        assert detector.in_turn is talking


def test_memory_is_bounded_by_the_longest_turn() -> None:
    timing = Timing(longest=2.0, unsure_end=3.0)
    bound = (2.0 + 0.56 + 0.3) * RATE * 2
    detector = make(timing)
    sizes = []
    for _ in range(200):  # speech and pauses for a minute, never a silence that ends a turn
        for event in detector.push(speech(140) + quiet(160)):
            if isinstance(event, SpeechSoFar | SpeechStopped):
                sizes += [len(event.utterance)]
    assert 2.0 * RATE * 2 <= max(sizes) <= bound


def test_timing_can_be_changed_in_one_place() -> None:
    patient = msgspec.structs.replace(TIMING, end=1.0)
    assert (patient.end, patient.tail) == (1.0, TIMING.tail)


def test_speech_that_may_be_a_backchannel_is_held_no_longer_than_a_turn() -> None:
    detector = TurnDetector(8000, is_speech=lambda _: True, timing=Timing(backchannel=100.0, longest=2.0))
    detector.assistant_speaking = True
    events = detector.push(bytes(16_000 * 10))
    assert isinstance(events[0], SpeechStarted)
    stopped = [event for event in events if isinstance(event, SpeechStopped)]
    assert stopped
    assert all(len(event.utterance) <= 16_000 * (2.0 + 0.3) for event in stopped)
