"""What of an answer was heard: by the clock, by reports, and inside a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.gateway.engines import HeardText, SpokenText

RATE = 8000


def audio(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE))


class Answers:
    """A `SpokenText` whose clock a test moves."""

    def __init__(self) -> None:
        self.now = 50.0
        self.text = SpokenText(RATE, clock=lambda: self.now)

    def speak(self, text: str, seconds: float, *, known: bool = True) -> None:
        self.text.say(text, seconds if known else None)
        self.text.add(audio(seconds))


def test_without_reports_the_clock_tells() -> None:
    answers = Answers()
    answers.text.begin()
    answers.speak("One two.", 1.0)
    answers.speak("Three four.", 1.0)
    assert answers.text.heard() == HeardText("", 0.0)
    answers.now += 1.0
    assert answers.text.heard() == HeardText("One two.", 1.0)
    assert answers.text.unplayed == pytest.approx(1.0)
    answers.now += 5.0
    assert answers.text.heard() == HeardText("One two. Three four.", 2.0)
    assert answers.text.unplayed == 0


def test_a_report_is_believed_and_the_clock_goes_on_from_there() -> None:
    answers = Answers()
    answers.text.begin()
    answers.speak("One two.", 1.0)
    answers.speak("Three four.", 1.0)
    answers.now += 1.5
    answers.text.played(500)
    assert answers.text.heard() == HeardText("One", 0.5)
    answers.now += 0.5
    assert answers.text.heard() == HeardText("One two.", 1.0)
    answers.text.played(60_000)  # nobody has played what was not sent
    assert answers.text.heard() == HeardText("One two.", 1.0)


def test_a_report_counts_from_the_last_interruption() -> None:
    answers = Answers()
    answers.text.begin()
    answers.speak("A long answer.", 10.0)
    answers.now += 3.0
    answers.text.flush()
    answers.text.begin()
    assert answers.text.heard() == HeardText("", 0.0)
    answers.speak("Yes. No.", 2.0)
    answers.now += 2.0
    answers.text.played(1000)
    assert answers.text.heard() == HeardText("Yes.", 1.0)


def test_an_answer_is_followed_although_the_one_before_still_plays() -> None:
    answers = Answers()
    answers.text.begin()
    answers.speak("First.", 1.0)
    answers.text.begin()
    answers.speak("Second.", 1.0)
    answers.now += 1.0
    assert answers.text.heard() == HeardText("", 0.0)
    answers.now += 0.25
    assert answers.text.heard() == HeardText("", 0.25)
    answers.now += 0.5
    assert answers.text.heard() == HeardText("Second.", 0.75)


def test_the_pace_of_a_sentence_that_is_not_complete_is_that_of_those_before() -> None:
    answers = Answers()
    answers.text.begin()
    answers.speak("0123456789" * 3, 6.0, known=False)  # five characters a second
    answers.now += 6.0
    answers.text.say("abcd efgh ijkl mnop qrst")  # 24, so about 5 seconds
    answers.text.add(audio(2.0))
    answers.now += 2.0
    assert answers.text.heard() == HeardText(f"{'0123456789' * 3} abcd efgh", 8.0)
    answers.text.add(audio(2.8))
    answers.now += 2.8
    assert answers.text.heard().text.endswith("qrst")


def test_digits_take_longer_than_letters() -> None:
    answers = Answers()
    answers.text.begin()
    answers.speak("It is 1234567 metres", 4.0)
    answers.now += 1.2
    assert answers.text.heard().text == "It is"


@given(
    sentences=st.lists(st.tuples(st.text("ab1 ,.", max_size=30), st.integers(0, 3000)), max_size=5),
    moments=st.lists(st.integers(0, 4000), max_size=4),
)
def test_what_was_heard_is_the_beginning_and_only_grows(
    sentences: list[tuple[str, int]], moments: list[int]
) -> None:
    answers = Answers()
    answers.text.begin()
    for text, ms in sentences:
        answers.speak(text, ms / 1000)
    whole = " ".join(text for text, _ in sentences if text)
    before = HeardText("", 0.0)
    for ms in moments:
        answers.now += ms / 1000
        heard = answers.text.heard()
        assert whole.startswith(heard.text)
        assert len(heard.text) >= len(before.text)
        assert heard.seconds >= before.seconds
        before = heard
