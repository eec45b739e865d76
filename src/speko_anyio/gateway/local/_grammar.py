"""Phrases that the recogniser expects, with slots: ``what is the weather in <place>``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SLOT = re.compile(r"<(\w+)>")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*\Z")


class Grammar(msgspec.Struct, frozen=True):
    """A finite set of phrases of lower-case words.

    A template is words and ``<slot>`` names separated by spaces; `slots` gives each name its phrases, which
    may name other slots.
    """

    templates: tuple[str, ...]
    slots: dict[str, tuple[str, ...]] = {}

    @property
    def key(self) -> str:
        """Equal for equal grammars (a Struct that holds a dict can't be hashed)."""
        return repr(self)

    def restricted(self, knows: Callable[[str], bool]) -> Grammar:
        """Leave out templates and slot phrases with a word that the recogniser can't pronounce."""

        slots: dict[str, tuple[str, ...]] = {}

        def slot(name: str) -> tuple[str, ...]:
            if name not in slots:
                slots[name] = sayable(self.slots.get(name, ()))
            return slots[name]

        def sayable(phrases: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(
                phrase
                for phrase in phrases
                if phrase.split()  # a rule without a word can't be compiled
                and all(_WORD.match(word) and knows(word) for word in _SLOT.sub(" ", phrase).split())
                and all(map(slot, _SLOT.findall(phrase)))
            )

        return Grammar(sayable(self.templates), slots)

    def jsgf(self) -> str:
        """Return it in the Java Speech Grammar Format, with one public rule ``phrase``."""
        rules = [f"public <phrase> = {' | '.join(self.templates)};"]
        rules += [f"<{name}> = {' | '.join(phrases)};" for name, phrases in self.slots.items() if phrases]
        return "#JSGF V1.0;\ngrammar known;\n" + "\n".join(rules) + "\n"

    def pattern(self) -> re.Pattern[str]:
        """Return a pattern of the whole phrases: of audio that ends early, a search gives only beginnings."""
        return re.compile("|".join("".join(self._parts(template)) for template in self.templates))

    def _parts(self, template: str) -> Iterator[str]:
        for index, part in enumerate(_SLOT.split(template)):
            if index % 2:
                yield f"(?:{'|'.join(''.join(self._parts(phrase)) for phrase in self.slots[part])})"
            else:
                yield re.escape(part)
