"""The listener, with a detector that takes every frame that is not zero for speech."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.gateway.local._listener import (
    FRAME_BYTES,
    FRAME_MS,
    Event,
    Listener,
    NothingSaid,
    SpeechPaused,
    SpeechStarted,
    Timing,
    TurnEnded,
)

TIMING = Timing()
BYTES_PER_MS = FRAME_BYTES // FRAME_MS


def make() -> Listener:
    return Listener(any)


def speech(milliseconds: int) -> bytes:
    return b"\1" * (milliseconds * BYTES_PER_MS)


def quiet(milliseconds: int) -> bytes:
    return bytes(milliseconds * BYTES_PER_MS)


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def test_speech_and_then_silence_is_a_turn() -> None:
    listener = make()
    assert list(listener.push(quiet(1000))) == []
    assert list(listener.push(speech(400))) == [SpeechStarted()]
    (paused, ended) = listener.push(quiet(TIMING.end))
    assert isinstance(paused, SpeechPaused)
    assert isinstance(ended, TurnEnded)
    assert ended.utterance == quiet(TIMING.lead_in) + speech(400) + quiet(TIMING.tail)
    assert ended.utterance == paused.utterance, "so that what was recognised ahead is the final result"


def test_a_click_is_not_speech() -> None:
    listener = make()
    assert list(listener.push((speech(TIMING.onset - FRAME_MS) + quiet(FRAME_MS)) * 20)) == []


def test_a_pause_within_a_sentence_does_not_end_the_turn() -> None:
    listener = make()
    sentence = speech(300) + quiet(TIMING.end - FRAME_MS) + speech(300)
    events = list(listener.push(sentence))
    assert kinds(events) == [SpeechStarted, SpeechPaused]
    ended = listener.end_turn()
    assert ended == TurnEnded(quiet(TIMING.lead_in) + sentence + quiet(TIMING.tail))


def test_commit_ends_the_turn_at_once_with_the_unfinished_frame() -> None:
    listener = make()
    list(listener.push(speech(210)))
    assert listener.end_turn() == TurnEnded(quiet(TIMING.lead_in) + speech(210) + quiet(TIMING.tail))
    assert listener.end_turn() == NothingSaid(had_audio=False)


def test_commit_after_silence_ended_the_turn_asks_for_nothing_more() -> None:
    listener = make()
    events = list(listener.push(speech(300) + quiet(1000)))
    assert kinds(events)[-1] is TurnEnded
    assert listener.end_turn() is None
    assert listener.end_turn() == NothingSaid(had_audio=False)


def test_commit_of_silence() -> None:
    listener = make()
    list(listener.push(quiet(500)))
    assert listener.end_turn() == NothingSaid(had_audio=True)


def test_clear_forgets_what_was_said() -> None:
    listener = make()
    list(listener.push(speech(500)))
    listener.clear()
    assert listener.end_turn() == NothingSaid(had_audio=False)


def test_long_speech_is_suggested_at_growing_distances() -> None:
    listener = make()
    suggested = [
        len(event.utterance) // BYTES_PER_MS
        for event in listener.push(speech(8000))
        if isinstance(event, SpeechPaused)
    ]
    gaps = [later - earlier for earlier, later in pairwise(suggested)]
    assert suggested[0] < 1500
    assert gaps == sorted(gaps)
    assert 4 <= len(suggested) <= 8


def test_endless_speech_is_cut() -> None:
    listener = make()
    turns = [event for event in listener.push(speech(40_000)) if isinstance(event, TurnEnded)]
    assert len(turns) == 2
    assert all(len(turn.utterance) <= (TIMING.longest + TIMING.tail) * BYTES_PER_MS for turn in turns)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 900)), max_size=8),
    st.lists(st.integers(1, 3000), min_size=1, max_size=5),
)
def test_the_cuts_of_the_input_do_not_matter(spans: list[tuple[bool, int]], sizes: list[int]) -> None:
    audio = b"".join(speech(length) if loud else quiet(length) for loud, length in spans)
    whole, cut = make(), make()
    expected = [*whole.push(audio), whole.end_turn()]
    events: list[Event | None] = []
    at = index = 0
    while at < len(audio):
        size = sizes[index % len(sizes)] * 2
        events += cut.push(audio[at : at + size])
        at += size
        index += 1
    assert [*events, cut.end_turn()] == expected
