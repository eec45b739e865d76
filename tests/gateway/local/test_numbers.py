from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.gateway.local._grammar import Grammar
from speko_anyio.gateway.local._numbers import MAX_DIGITS, SLOTS, find_sum, numbers, say, tokens


def values(text: str) -> list[Fraction]:
    return [number.value for number in numbers(tokens(text))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("twenty-one", [21]),
        ("two twenty", [2, 20]),
        ("a hundred and five", [105]),
        ("two hundred twenty two", [222]),
        ("twelve hundred", [1200]),
        ("one million two thousand and three", [1_002_003]),
        ("two thousand million", [2000]),
        ("minus five", [-5]),
        ("two point five", [Fraction(5, 2)]),
        ("three point", [3]),
        ("1,250.5 and .5", [Fraction(2501, 2), Fraction(1, 2)]),
        ("room-2", [2]),
        ("zero", [0]),
        ("twenty zero", [20, 0]),
        ("and a half", []),
        ("nine" * 3, []),
        ("9" * (MAX_DIGITS + 1), []),
    ],
)
def test_numbers_are_found(text: str, found: list[Fraction | int]) -> None:
    assert values(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("what is two plus three", "2 plus 3 is 5"),
        ("What's fifteen minus twenty?", "15 minus 20 is minus 5"),
        ("how much is ten divided by four please", "10 divided by 4 is 2.5"),
        ("two plus three times four", "2 plus 3 times 4 is 14"),
        ("2 + 3 * 4 =", "2 plus 3 times 4 is 14"),
        ("what is minus five plus three", "minus 5 plus 3 is minus 2"),
        ("7-3", "7 minus 3 is 4"),
        ("1,000 x 2", "1,000 times 2 is 2,000"),
        ("twenty one multiplied by two hundred and five", "21 times 205 is 4,305"),
        ("seven over two", "7 divided by 2 is 3.5"),
    ],
)
def test_sums_are_done(text: str, said: str) -> None:
    found = find_sum(text)
    assert found is not None
    assert found.value is not None
    assert f"{found.text} is {say(found.value)}" == said


@pytest.mark.parametrize(
    "text",
    [
        "go forward two times",
        "call me between 5-7 today",
        "two",
        "two plus",
        "plus",
        "",
        "what is two plus you",
    ],
)
def test_other_sentences_are_no_sums(text: str) -> None:
    assert find_sum(text) is None


def test_nothing_is_divided_by_zero() -> None:
    found = find_sum("five divided by zero")
    assert found is not None
    assert found.value is None


@given(st.text("0123456789+-*/x ., andplustimestwohundredpoint", max_size=80))
def test_any_text_is_read(text: str) -> None:
    values(text)
    found = find_sum(text)
    assert found is None or found.value is None or say(found.value)


def test_a_long_sum_costs_little() -> None:
    found = find_sum("9" * MAX_DIGITS + " times 999999999999999" * 1000)
    assert found is None or found.text.count("times") < 20


def test_the_recogniser_expects_the_numbers_up_to_a_hundred() -> None:
    pattern = Grammar(("<number>",), SLOTS).pattern()
    for text, heard in (("ninety nine", True), ("zero", True), ("a hundred", True), ("twenty zero", False)):
        assert bool(pattern.fullmatch(text)) is heard


def test_decimals_by_the_thousand_are_no_error() -> None:
    asked = find_sum(f"what is 0.{'5' * 10_000} plus 1")
    assert asked is not None
    assert asked.text == "0.556 plus 1"
