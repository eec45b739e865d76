from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.gateway.local._sentences import LONG, MAX_SENTENCE, MAX_TEXT, MIN_CLAUSE, clauses, sentences


@given(st.text(max_size=1000))
def test_sentences_keep_the_words_and_are_short(text: str) -> None:
    cut = list(sentences(text))
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(0 < len(sentence) <= MAX_SENTENCE for sentence in cut)


@given(st.text("abc ,;:.", max_size=MAX_SENTENCE))
def test_clauses_keep_the_words(text: str) -> None:
    assert "".join("".join(clauses(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "whole",
    [
        ["It is 3.5 degrees.", "Bye!"],
        ["Dr. Smith lives at 5 Main St. in Paris.", "Really?"],
        ["J. K. Rowling wrote it."],
        ["It is 3:25 p.m. and late.", "Yes."],
        ["Wait... what?", '"Stop!"', "He went on."],
        ["One (or two.)", "Three; four."],
    ],
)
def test_a_sentence_ends_where_a_reader_ends_it(whole: list[str]) -> None:
    assert list(sentences(" ".join(whole))) == whole


def test_lines_are_sentences() -> None:
    assert list(sentences("First line\nsecond line\n\n third")) == ["First line", "second line", "third"]


def test_a_text_is_cut_at_its_limit() -> None:
    assert sum(map(len, sentences("word " * 2000))) <= MAX_TEXT


def test_a_sentence_that_is_too_long_is_cut_between_clauses() -> None:
    clause = "and so it went on for quite a while, "
    cut = list(sentences(clause * 20))
    assert all(part.endswith(",") for part in cut)
    assert list(sentences("x" * 500)) == ["x" * MAX_SENTENCE, "x" * MAX_SENTENCE, "x" * 100]


def test_the_first_clause_of_a_long_sentence_comes_first() -> None:
    long = "The parrot had belonged to a captain who talked all day, and had learned everything but to stop."
    assert len(long) > LONG
    assert clauses(long) == (
        "The parrot had belonged to a captain who talked all day,",
        "and had learned everything but to stop.",
    )
    assert clauses("Every evening she lit the lamp, and slept.") == (
        "Every evening she lit the lamp, and slept.",
    )
    short_first = "Well, " + "word " * 30
    assert all(len(clause) >= MIN_CLAUSE for clause in clauses(short_first))


@pytest.mark.parametrize("run", [".", " ", "\n", "!'", " \n", ". "])
def test_runs_of_marks_and_spaces_take_linear_time(run: str) -> None:
    """The whole text, from each of its characters on, took two million steps."""

    def seconds() -> float:
        began = time.process_time()
        list(sentences(f"{run * MAX_TEXT}"[: MAX_TEXT - 2] + "xy"))
        return time.process_time() - began

    assert min(seconds() for _ in range(5)) < 0.01
