"""The simulated phone line against a model that plays one sample after the other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.testing._phone_line import PhoneLine

RATE = 8000


class Model:
    """Plays sample by sample; time is counted in samples."""

    def __init__(self) -> None:
        self.waiting: list[int | str] = []
        self.heard: list[int] = []
        self.since_clear = 0
        self.reached: list[str] = []

    def tick(self, samples: int) -> None:
        for _ in range(samples):
            self.pass_marks()
            if self.waiting:
                sample = self.waiting.pop(0)
                assert isinstance(sample, int)
                self.heard.append(sample)
                self.since_clear += 1
        self.pass_marks()

    def pass_marks(self) -> None:
        while self.waiting and isinstance(self.waiting[0], str):
            self.reached.append(str(self.waiting.pop(0)))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("play"), st.integers(0, 400)),
        st.tuples(st.just("wait"), st.integers(0, 600)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=40,
)


@given(OPERATIONS)
def test_the_line_plays_as_the_model_does(operations: list[tuple[str, int]]) -> None:
    line, model = PhoneLine(RATE), Model()
    clock = 0
    numbers = itertools.count()
    names = itertools.count()
    reached: list[str] = []
    for kind, size in operations:
        now = 100.0 + clock / RATE
        match kind:
            case "play":
                values = [next(numbers) % 30_000 for _ in range(size)]
                line.play(b"".join(value.to_bytes(2, "little") for value in values), now)
                model.waiting += values
            case "mark":
                name = str(next(names))
                line.mark(name, now)
                model.waiting.append(name)
            case "clear":
                pending = [each for each in model.waiting if isinstance(each, str)]
                # Marks that the audio has reached already are told before the clear.
                model.pass_marks()
                told = line.reached(now)
                reached += told
                assert line.clear(now) == [name for name in pending if name not in told]
                model.waiting.clear()
                model.since_clear = 0
            case _:
                clock += size
                model.tick(size)
        now = 100.0 + clock / RATE
        reached += line.reached(now)
        model.pass_marks()
        assert reached == model.reached
        assert line.played == model.since_clear
        assert line.buffered == pytest.approx(
            sum(isinstance(each, int) for each in model.waiting) / RATE, abs=1e-9
        )
        heard = b"".join(answer.pcm for answer in line.answers)
        assert heard == b"".join(value.to_bytes(2, "little") for value in model.heard)
        deadline = line.next_deadline()
        if deadline is not None:
            index = next(i for i, each in enumerate(model.waiting) if isinstance(each, str))
            assert deadline == pytest.approx(now + index / RATE, abs=1e-9)


def test_an_answer_ends_with_a_clear_or_a_pause() -> None:
    line = PhoneLine(RATE, gap=0.5)
    line.play(bytes(1600), 10.0)
    line.play(bytes(1600), 10.05)  # follows without a pause
    line.play(bytes(1600), 10.6)  # 0.4 s after the end: the same answer
    line.advance(11.0)
    assert [(round(answer.played, 3), answer.cleared) for answer in line.answers] == [(0.3, False)]
    line.play(bytes(16_000), 12.0)
    line.clear(12.25)
    line.play(bytes(160), 12.26)
    line.advance(13.0)
    assert [(answer.started, round(answer.played, 3), answer.cleared) for answer in line.answers] == [
        (10.0, 0.3, False),
        (12.0, 0.25, True),
        (12.26, 0.01, False),
    ]
    assert repr(line.answers[1]) == "<HeardAnswer played=0.250 of 1.000 seconds, cleared>"


def test_a_line_that_begins_late() -> None:
    line = PhoneLine(RATE, delay=0.25)
    line.play(bytes(1600), 10.0)
    line.mark("a", 10.0)
    line.advance(10.2)
    assert (line.played, line.buffered, line.next_deadline()) == (0, 0.1, 10.35)
    line.play(bytes(1600), 10.3)  # what follows has no delay of its own
    line.advance(10.4)
    assert line.played == 1200
    assert line.answers[0].started == 10.25
    line.clear(10.4)
    line.play(bytes(1600), 10.5)
    line.clear(10.6)  # before any of it was played
    assert line.played == 0
    assert (line.quiet_since, line.buffered) == (10.6, 0)
    line.play(bytes(1600), 10.7)
    line.advance(20.0)
    assert [answer.played for answer in line.answers] == [0.15, 0.0, 0.1]


def test_a_line_that_is_gone_plays_nothing() -> None:
    line = PhoneLine(RATE)
    line.play(bytes(16_000), 0.0)
    line.mark("end", 0.0)
    line.stop(0.5)
    line.play(bytes(16_000), 0.6)
    assert line.reached(5.0) == []
    assert (line.played, line.next_deadline()) == (4000, None)
