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

    A template is words and ``<slot>`` names separated by spaces; `slots` gives each name its phrases.
    """

    templates: tuple[str, ...]
    slots: dict[str, tuple[str, ...]] = {}

    @property
    def key(self) -> str:
        """Equal for equal grammars (a Struct that holds a dict can't be hashed)."""
        return repr(self)

    def restricted(self, knows: Callable[[str], bool]) -> Grammar:
        """Leave out templates and slot phrases with a word that the recogniser can't pronounce."""

        def sayable(phrase: str) -> bool:
            return all(_WORD.match(word) and knows(word) for word in phrase.split())

        # A rule without a word can't be compiled.
        slots = {
            name: tuple(phrase for phrase in phrases if phrase.split() and sayable(phrase))
            for name, phrases in self.slots.items()
        }
        templates = tuple(
            template
            for template in self.templates
            if template.split()
            and sayable(_SLOT.sub(" ", template))
            and all(slots.get(name) for name in _SLOT.findall(template))
        )
        return Grammar(templates, slots)

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
            yield f"(?:{'|'.join(map(re.escape, self.slots[part]))})" if index % 2 else re.escape(part)
