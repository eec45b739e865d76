"""Numbers and sums in English, as they are spoken or typed."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES: Final = {word: value for value, word in enumerate(_ONES)} | {
    word: 20 + 10 * place for place, word in enumerate(_TENS)
}
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9}

SLOTS: Final = {
    "number": ("<small>", "<tens>", "<tens> <ones>", "a hundred", "one hundred"),
    "small": _ONES,
    "tens": _TENS,
    "ones": _ONES[1:10],
}
"""The numbers from zero to a hundred, as slots of a grammar: those that the recogniser listens for."""

MAX_DIGITS: Final = 15
"""Digits of a number before the point, and of a result. Nobody wants to hear more."""

MAX_DECIMALS: Final = 30
"""Digits behind the point of a typed number that count; Python refuses to read thousands."""

MIN_PLACE: Final = Fraction(1, 10**6)
"""The last decimal that is heard after "point"."""

MAX_OPERANDS: Final = 20
"""Numbers in one sum; what follows is ignored."""

OPERATORS: Final = {
    "plus": "plus", "+": "plus", "minus": "minus", "-": "minus", "−": "minus", "times": "times",
    "x": "times", "*": "times", "×": "times", "multiplied": "times", "divided": "divided by",
    "over": "divided by", "/": "divided by", "÷": "divided by",
}  # fmt: skip
"""How an operator is spoken or typed, and how it is said in an answer."""

_TOKEN = re.compile(r"(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+|[a-z]+(?:'[a-z]+)?|[-−+*×/÷]", re.ASCII)


_SUM_WORDS: Final = frozenset(
    {
        "what",
        "what's",
        "whats",
        "is",
        "how",
        "much",
        "many",
        "calculate",
        "compute",
        "work",
        "out",
        "tell",
        "me",
    }
    | {
        "can",
        "could",
        "would",
        "you",
        "do",
        "does",
        "please",
        "and",
        "now",
        "so",
        "make",
        "equal",
        "equals",
        "the",
        "sum",
        "of",
        "to",
    }
    | {"hey", "hello", "hi", "ok", "okay", "then"}
)
"""What may be said around a sum. With other words it is a sentence that mentions numbers."""


class Sum(NamedTuple):
    """A sum, in the words of an answer."""

    text: str
    """Such as "2 plus 3"."""
    value: Fraction | None
    """None: it divides by zero."""


def tokens(text: str) -> list[str]:
    """Return the lower-case words, numbers and operators of `text`."""
    # The hyphens of "twenty-one" and "room-2" are no minus.
    return _TOKEN.findall(re.sub(r"(?<=[a-z])-", " ", text.lower()))


def number_at(said: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    """Return the number that begins at `said[at]`, and where it ends; None if none begins there.

    It is in digits ("2.5") or in words ("minus two hundred and five", "two point five").
    """
    if said[at : at + 1] and said[at] in ("minus", "-", "−"):
        found = _positive_at(said, at + 1)
        return found and (-found[0], found[1])
    return _positive_at(said, at)


def _positive_at(said: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    word = said[at] if at < len(said) else ""
    if word[:1] in set("0123456789."):
        whole, point, decimals = word.replace(",", "").partition(".")
        digits = f"{whole}{point}{decimals[:MAX_DECIMALS]}"
        return (Fraction(digits), at + 1) if len(whole) <= MAX_DIGITS else None
    total = group = 0
    start = at
    below = 100  # of the next word: "twenty two" is one number, "two twenty" are two
    while at < len(said):
        word = said[at]
        following = said[at + 1] if at + 1 < len(said) else ""
        if (value := _VALUES.get(word)) is not None and value < below and (value or at == start):
            group += value
            below = 10 if value >= 20 else 0
        elif word == "hundred" and 0 < group < 100:
            group, below = group * 100, 100
        elif word in _SCALES and group and total % (_SCALES[word] * 1000) == 0:
            total, group, below = total + group * _SCALES[word], 0, 100
        elif word == "a" and at == start and (following == "hundred" or following in _SCALES):
            group = 1
        elif not (word == "and" and at > start and below == 100 and following in _VALUES):
            break
        at += 1
    if at == start:
        return None
    number = Fraction(total + group)
    place = Fraction(1, 10)
    if said[at : at + 1] == ["point"]:
        while at + 1 < len(said) and _VALUES.get(said[at + 1], 10) < 10 and place > MIN_PLACE:
            number += _VALUES[said[at + 1]] * place
            place /= 10
            at += 1
        at += place < Fraction(1, 10)
    return number, at


class Number(NamedTuple):
    """A number in a sentence."""

    value: Fraction
    start: int
    end: int


def numbers(said: Sequence[str]) -> Iterator[Number]:
    """Yield the numbers of a sentence from left to right."""
    at = 0
    while at < len(said):
        if (found := number_at(said, at)) is None:
            at += 1
        else:
            yield Number(found[0], at, found[1])
            at = found[1]


def find_sum(text: str) -> Sum | None:
    """Return the sum that a sentence asks for ("what is two plus three"); None if it asks for none."""
    said = tokens(text)
    first = next(iter(numbers(said)), None)
    if first is None:
        return None
    start, end = first.start, first.end
    operands, operators = [first.value], list[str]()
    while end < len(said) and said[end] in OPERATORS and len(operands) < MAX_OPERANDS:
        by = said[end] in ("multiplied", "divided") and said[end + 1 : end + 2] == ["by"]
        operand = number_at(said, end + 1 + by)
        if operand is None:
            return None
        operators.append(OPERATORS[said[end]])
        operands.append(operand[0])
        end = operand[1]
    if not operators or not _SUM_WORDS.issuperset(said[:start] + said[end:]):
        return None
    words = [say(operands[0])]
    for operator, value in zip(operators, operands[1:], strict=True):
        words += [operator, say(value)]
    return Sum(" ".join(words), _evaluate(operands, operators))


def _evaluate(operands: Sequence[Fraction], operators: Sequence[str]) -> Fraction | None:
    """Multiply and divide first, as one learns at school."""
    terms = [operands[0]]
    for operator, operand in zip(operators, operands[1:], strict=True):
        match operator:
            case "plus":
                terms.append(operand)
            case "minus":
                terms.append(-operand)
            case "times":
                terms[-1] *= operand
            case _ if operand == 0:
                return None
            case _:
                terms[-1] /= operand
    return sum(terms, Fraction(0))


def say(value: Fraction) -> str:
    """Return a number as it is written in an answer: at most three decimals, and a minus as a word."""
    rounded = round(value, 3)
    sign = "minus " if rounded < 0 else ""
    whole, rest = divmod(abs(rounded), 1)
    decimals = f"{float(rest):.3f}"[1:].rstrip("0").rstrip(".") if rest else ""
    return f"{sign}{int(whole):,}{decimals}"
