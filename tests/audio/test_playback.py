"""The playback buffer: what is heard, what an interruption cuts off, and that it keeps to the clock."""

from __future__ import annotations

import threading
from array import array
from itertools import dropwhile
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio import Audio, Close, Frame, Interruption, Playback, Ready, ResponseEnd, Transcript, Usage
from speko_anyio.audio import Flushed
from speko_anyio.audio._playback import MAX_LATE
from speko_anyio.audio.resample import Resampler
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend
from tests.support.sound import check_whole, hum

MS = 48
"""Bytes of a millisecond at 24 kHz."""


def tone(milliseconds: int, value: int = 1) -> bytes:
    return bytes([value]) * (milliseconds * MS)


def audio(milliseconds: int, value: int = 1) -> Audio:
    return Audio(tone(milliseconds, value), 24_000)


def test_what_was_fed_is_read_in_order_and_silence_makes_up_the_rest() -> None:
    playback = Playback()
    playback.feed(audio(10, 1))
    playback.feed(audio(10, 2))
    assert playback.buffered_ms == 20
    assert playback.read(15 * MS) == tone(10, 1) + tone(5, 2)
    assert (playback.played_ms, playback.buffered_ms) == (15, 5)
    assert playback.read(15 * MS) == tone(5, 2) + tone(10, 0)
    assert playback.read(15 * MS) == tone(15, 0)
    assert (playback.played_ms, playback.buffered_ms) == (20, 0)


def test_an_interruption_silences_it_at_once_and_says_what_was_heard() -> None:
    playback = Playback()
    playback.feed(Transcript("assistant", "Hello"))
    playback.feed(audio(100))
    playback.feed(Transcript("assistant", "Hello there", True))
    playback.feed(audio(100))
    playback.read(130 * MS)
    playback.feed(Interruption())
    assert playback.last_flush == Flushed(turn=1, played_ms=130, dropped_ms=70, text="Hello there")
    assert playback.read(10 * MS) == tone(10, 0)
    assert (playback.played_ms, playback.dropped_ms, playback.buffered_ms) == (130, 70, 0)


def test_what_was_played_since_the_last_interruption() -> None:
    playback = Playback()
    playback.feed(audio(100))
    playback.read(60 * MS)
    assert playback.played_seconds == 0.06
    playback.feed(Interruption())
    assert playback.played_seconds == 0
    playback.feed(audio(100))
    playback.read(500 * MS)  # 400 ms of silence are not speech
    assert playback.played_seconds == 0.1


def test_a_flush_of_ones_own_skips_what_it_drops_once_something_follows() -> None:
    playback = Playback()
    playback.feed(audio(100))
    playback.read(60 * MS)
    playback.flush()
    assert playback.played_seconds == 0.06  # nobody heard the rest
    playback.feed(audio(100))
    playback.read(10 * MS)
    assert playback.played_seconds == 0.11  # the service counts it, however
    playback.flush()
    playback.feed(Interruption())
    playback.feed(audio(20))
    playback.read(20 * MS)
    assert playback.played_seconds == 0.02


def test_a_flush_of_nothing() -> None:
    assert Playback().last_flush is None
    assert Playback().flush() == Flushed(turn=0, played_ms=0, dropped_ms=0, text="")


def test_turns_are_counted_when_they_are_heard() -> None:
    playback = Playback()
    playback.feed(Ready(24_000, 24_000))
    playback.feed(audio(50))
    playback.feed(Usage(1, 1))
    playback.feed(Transcript("assistant", "Again"))
    playback.feed(audio(50, 2))
    assert playback.turn == 0
    playback.read(50 * MS)
    assert (playback.turn, playback.turn_played_ms, playback.text) == (1, 50, "")
    playback.read(20 * MS)
    assert (playback.turn, playback.turn_played_ms, playback.text) == (2, 20, "Again")
    playback.flush()
    playback.feed(audio(10))
    playback.read(10 * MS)
    assert (playback.turn, playback.turn_played_ms) == (3, 10)


def test_answers_without_usage_are_turns_of_their_own() -> None:
    playback = Playback()
    for _ in range(2):
        playback.feed(audio(50))
        playback.feed(ResponseEnd("done"))
    playback.read(70 * MS)
    assert (playback.turn, playback.turn_played_ms) == (2, 20)


@pytest.mark.parametrize("late", [Usage(1, 1), Usage(0, 0)])
def test_usage_ends_no_turn_where_ends_are_told(late: Frame) -> None:
    playback = Playback()
    playback.feed(audio(10))
    playback.feed(Usage(1, 1))
    playback.feed(ResponseEnd("done"))
    playback.feed(audio(10))
    playback.feed(late)  # of the answer before, or of half of this one
    playback.feed(audio(10))
    playback.read(30 * MS)
    assert (playback.turn, playback.turn_played_ms) == (2, 20)


@pytest.mark.parametrize("end", [Usage(1, 1), ResponseEnd("incomplete"), Close(1000, "", "remote")])
def test_the_end_of_an_answer_gives_what_a_conversion_holds_back(end: Frame) -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    playback = Playback(sample_rate=8_000)
    playback.feed(audio(40))
    playback.feed(end)
    assert playback.buffered_ms == 40


def test_the_text_follows_what_is_played_and_not_what_has_come() -> None:
    playback = Playback()
    for text, value in (("one", 1), ("one two", 2), ("one two three", 3)):
        playback.feed(Transcript("assistant", text))
        playback.feed(audio(10, value))
    playback.feed(Transcript("user", "what I said", True))
    heard = []
    for _ in range(6):
        playback.read(5 * MS)
        heard.append(playback.text)
    assert heard == ["one", "one two", "one two", "one two three", "one two three", "one two three"]


def test_of_texts_for_one_place_the_last_is_kept() -> None:
    playback = Playback()
    playback.feed(audio(10))
    for number in range(10_000):
        playback.feed(Transcript("assistant", str(number)))
    assert len(playback._turns._marks) <= 2
    playback.read(10 * MS)
    assert playback.text == "9999"


def test_what_exceeds_the_bound_is_dropped_and_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    playback = Playback(max_buffer=20 * MS)
    playback.feed(audio(20))
    playback.feed(audio(10))
    playback.feed(audio(10))
    assert (playback.buffered_ms, playback.overflow_ms) == (20, 20)
    playback.read(10 * MS)
    playback.feed(audio(10, 2))
    assert playback.read(20 * MS) == tone(10, 1) + tone(10, 2)
    assert len(caplog.records) == 1


def test_of_a_piece_that_fits_in_part_that_part_is_played() -> None:
    whole, pieces = Playback(max_buffer=20 * MS + 1), Playback(max_buffer=20 * MS + 1)
    spoken = tone(15, 1) + tone(15, 2)
    whole.write(spoken)
    for at in range(0, len(spoken), 2):
        pieces.write(spoken[at : at + 2])
    assert (whole.buffered_ms, whole.overflow_ms) == (pieces.buffered_ms, pieces.overflow_ms) == (20, 10)
    assert whole.read(30 * MS) == pieces.read(30 * MS) == spoken[: 20 * MS] + tone(10, 0)


SPEECH_RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])


@given(
    source=SPEECH_RATES,
    target=SPEECH_RATES,
    piece=st.sampled_from([0.005, 0.01, 0.02, 0.025, 0.03, 0.032, 0.04, 0.05, 0.1]),
    reading=st.sampled_from([0.005, 0.01, 0.02, 1024 / 48_000, 0.04]),
    ahead=st.integers(0, 4),
)
def test_speech_that_comes_in_time_plays_without_a_gap_or_a_click(
    source: int, target: int, piece: float, reading: float, ahead: int
) -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    speech = hum(source, 0.5)
    size = round(piece * source) * 2
    pieces = [speech[at : at + size] for at in range(0, len(speech), size)]
    playback = Playback(sample_rate=target)
    samples = round(reading * target)
    heard = array("h")
    written = 0.0
    reads = 0
    for number, pcm in enumerate(pieces):
        playback.write(pcm, source)
        written += len(pcm) / 2 / source
        while number >= ahead and ((reads + 1) * samples + 1) / target <= written - ahead * piece:
            reads += 1
            before = playback._played
            pcm = playback.read(2 * samples)
            if playback._played > before or heard:
                assert playback._played == before + len(pcm)
                heard.frombytes(pcm)
    playback.end_of_speech()
    while playback.buffered_ms:
        heard.frombytes(playback.read(2 * samples))
    assert playback._played == check_whole(heard.tobytes(), speech, source, target)


def test_a_pause_is_waited_for_no_longer_than_a_conversion_lasts() -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    playback = Playback(sample_rate=8_000)
    playback.feed(audio(20))
    silent = 0
    while not any(playback.read(80)):
        silent += 5
        assert silent <= 1_000 * Resampler(24_000, 8_000).max_held_back + 5
    playback.read(1_600)
    assert playback.played_ms == 20


def test_audio_of_another_rate_is_converted_and_nothing_is_held_back() -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    playback = Playback(sample_rate=8_000)
    for _ in range(5):
        playback.feed(audio(20))
    playback.read(320)
    # The first reading that finds too little there takes what the conversion holds back.
    playback.read(1_600)
    assert playback.played_ms == 100
    playback.feed(audio(20))
    playback.feed(Interruption())
    playback.feed(audio(40))
    playback.read(1_600)
    assert playback.played_ms == 140


def test_the_rate_may_change_within_the_stream() -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    playback = Playback()
    playback.feed(Audio(bytes(16 * 2 * 100), 16_000))
    playback.feed(audio(100))
    playback.feed(Close(1000, "", "remote"))
    assert playback.buffered_ms == 200


@pytest.mark.parametrize("size", [1, 961])
def test_half_a_sample_cant_be_read(size: int) -> None:
    with pytest.raises(ValueError, match="even number"):
        Playback().read(size)


def test_rates_and_chunks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="sample rate is 0"):
        Playback(sample_rate=0)
    with pytest.raises(ValueError, match="no sample"):
        Playback().chunks(0)


def test_its_repr_says_where_it_is() -> None:
    playback = Playback()
    playback.feed(audio(30))
    playback.read(10 * MS)
    assert repr(playback) == "<Playback turn=1 played=10 ms buffered=20 ms>"


steps = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 40)),
    st.tuples(st.just("read"), st.integers(0, 60)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("usage"), st.just(0)),
)


@given(st.lists(steps, max_size=60))
def test_every_sample_is_played_dropped_or_waits_and_none_twice(script: list[tuple[str, int]]) -> None:
    playback = Playback(max_buffer=200)
    model: list[int] = []
    """The samples that wait; each has its own value."""
    count = 0
    played = dropped = overflow = 0
    for step, size in script:
        if step == "write":
            samples = list(range(count + 1, count + size + 1))
            count += size
            playback.write(b"".join(value.to_bytes(2, "little") for value in samples))
            room = 100 - len(model)
            model += samples[:room]
            overflow += max(0, size - room)
        elif step == "read":
            expected = model[:size]
            del model[:size]
            played += len(expected)
            pcm = b"".join(value.to_bytes(2, "little") for value in expected)
            assert playback.read(2 * size) == pcm.ljust(2 * size, b"\0")
        elif step == "flush":
            dropped += len(model)
            model.clear()
            playback.flush()
        else:
            playback.feed(Usage())
        assert playback.played_ms == played * 1000 // 24_000
        assert playback._buffered == 2 * len(model)
        assert playback._dropped == 2 * dropped
        assert playback._overflow == 2 * overflow
        assert 0 <= playback.turn_played_ms <= playback.played_ms


def test_a_callback_in_another_thread_hears_every_sample_once() -> None:
    playback = Playback()
    heard = bytearray()

    def device() -> None:
        while not playback.ended:
            heard.extend(playback.read(16))

    thread = threading.Thread(target=device)
    thread.start()
    spoken = bytearray()
    for number in range(2_000):
        pcm = (number % 255 + 1).to_bytes(1, "little") * (2 + number % 7 * 2)
        spoken += pcm
        playback.write(pcm)
    playback.end()
    thread.join(10)
    assert not thread.is_alive()
    assert heard.replace(b"\0", b"") == spoken


class TestChunks:
    """Paced by the clock: in virtual time."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=VIRTUAL_BACKENDS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        return virtual_backend(request.param)

    async def test_each_comes_when_its_time_has_come_until_the_end(self) -> None:
        playback = Playback()
        playback.feed(audio(50))
        playback.feed(Close(1000, "", "remote"))
        start = anyio.current_time()
        got = [(round(anyio.current_time() - start, 6), chunk) async for chunk in playback.chunks()]
        assert got == [(0.0, tone(20)), (0.02, tone(20)), (0.04, tone(10) + tone(10, 0))]

    async def test_speech_at_the_pace_of_speech_does_not_click(self) -> None:
        pytest.importorskip("soxr", reason="needs soxr")
        playback = Playback(sample_rate=8_000)
        speech = hum(24_000, 0.5)
        heard: list[bytes] = []

        async def speak() -> None:
            await anyio.sleep(0.01)  # between two readings: at the same time, either might come first
            for at in range(0, len(speech), 960):
                playback.write(speech[at : at + 960], 24_000)
                await anyio.sleep(0.02)
            playback.end()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(speak)
            heard += [chunk async for chunk in playback.chunks()]
        check_whole(b"".join(dropwhile(lambda chunk: chunk == bytes(320), heard)), speech, 24_000, 8_000)

    async def test_silence_until_something_is_to_be_heard(self) -> None:
        playback = Playback()
        got = []
        async for chunk in playback.chunks(0.01):
            got.append(chunk)
            if len(got) == 2:
                playback.feed(audio(10))
                playback.end()
        assert got == [tone(10, 0), tone(10, 0), tone(10)]

    async def test_a_late_taker_catches_up_but_not_without_end(self) -> None:
        playback = Playback()
        playback.feed(audio(10_000))
        chunks = playback.chunks()
        await anext(chunks)
        await anyio.sleep(0.1)
        start = anyio.current_time()
        for _ in range(5):
            await anext(chunks)
        assert anyio.current_time() == pytest.approx(start)
        await anext(chunks)
        assert anyio.current_time() == pytest.approx(start + 0.02)
        await anyio.sleep(60)
        start = anyio.current_time()
        for _ in range(round(MAX_LATE / 0.02) + 2):
            await anext(chunks)
        assert anyio.current_time() == pytest.approx(start + 0.02)

    async def test_leaving_and_going_on_loses_nothing(self) -> None:
        playback = Playback()
        playback.feed(audio(20, 1))
        playback.feed(audio(20, 2))
        playback.end()
        chunks = playback.chunks()
        async for chunk in chunks:
            assert chunk == tone(20, 1)
            break
        with anyio.move_on_after(0.01) as scope:
            await anext(chunks)
        assert scope.cancelled_caught
        assert [chunk async for chunk in chunks] == [tone(20, 2)]

    async def test_a_silent_line_can_be_cancelled(self) -> None:
        playback = Playback()
        count = 0
        with anyio.move_on_after(1):
            async for _ in playback.chunks():
                count += 1
        assert count == 50
