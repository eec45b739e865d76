"""Cuts text into what is spoken at a time. No I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT: Final = 2_000
"""Characters that are spoken of one text: about two minutes."""

MAX_SENTENCE: Final = 200
"""Characters spoken at a time. They take 0.1 s to synthesize: a thread that is not wanted ends soon."""

LONG: Final = 90
"""Characters of a sentence that is not synthesized whole: its first audio would be late."""

MIN_CLAUSE: Final = 24
"""Characters of a clause that is spoken alone; the melody of a shorter one sounds cut off."""

# Each run of marks or of white space is looked at once: from each of its characters, it would take a square.
_END = re.compile(r"""(?<![.!?…])[.!?…]+["'”’)\]]*\s+|\n\s*""")
_CLAUSE = re.compile(r"[,;:—–][\"'”’)\]]*(?=\s)")
_ABBREVIATIONS: Final = frozenset(
    {"adm", "approx", "ave", "blvd", "capt", "cf", "col", "dept", "dr", "e.g", "ed", "est", "etc", "fig"}
    | {"ft", "gen", "gov", "i.e", "inc", "jr", "lt", "ltd", "mr", "mrs", "ms", "mt", "no", "nr", "pp"}
    | {"prof", "rep", "rev", "sen", "sgt", "sr", "st", "vol", "vs"}
)


def sentences(text: str) -> Iterator[str]:
    """Cut `text` at `MAX_TEXT` and into sentences, and those that are too long into parts."""
    text = text[:MAX_TEXT]
    start = 0
    for match in _END.finditer(text):
        if _ends(text, match.start(), match.end()):
            yield from _parts(text[start : match.end()].strip())
            start = match.end()
    yield from _parts(text[start:].strip())


def _ends(text: str, mark: int, after: int) -> bool:
    """Return whether a sentence ends with the mark, and not only a title ("Dr. Smith") or an initial."""
    if "\n" in text[mark:after]:
        return True
    if text[after : after + 1].islower():
        return False
    if text[mark : mark + 2] != ". ":
        return True
    word = text[text.rfind(" ", 0, mark) + 1 : mark].lstrip("\"'(“‘").lower()
    return word not in _ABBREVIATIONS and not (len(word) == 1 and word.isalpha())


def _parts(sentence: str) -> Iterator[str]:
    while len(sentence) > MAX_SENTENCE:
        marks = [match.end() for match in _CLAUSE.finditer(sentence, MIN_CLAUSE, MAX_SENTENCE)]
        end = marks[-1] if marks else sentence.rfind(" ", 1, MAX_SENTENCE + 1)
        end = end if end > 0 else MAX_SENTENCE
        yield sentence[:end]
        sentence = sentence[end:].strip()
    if sentence:
        yield sentence


def clauses(sentence: str) -> tuple[str, ...]:
    """Cut the first clause off a long sentence, so that it can be heard while the rest is synthesized."""
    if len(sentence) > LONG:
        for match in _CLAUSE.finditer(sentence, MIN_CLAUSE):
            if match.end() <= len(sentence) - MIN_CLAUSE:
                return sentence[: match.end()], sentence[match.end() :].strip()
    return (sentence,)
