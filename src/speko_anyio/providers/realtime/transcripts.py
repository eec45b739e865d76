"""The words of a session: pieces made into texts, and each text final once."""

from __future__ import annotations

from typing import Final

from ...protocol.codec import mended
from ...protocol.frames import Role, Transcript
from ..recent_ids import RecentIds

_REMEMBERED: Final = 256
"""Finished texts whose repeats are recognised."""

_MAX_PARTIAL: Final = 64
"""Texts of one role that may be incomplete at a time; the oldest is forgotten, its speaker has moved on."""


NAMELESS: Final = " "
"""The prefix of the names of texts whose item has no id. They can't be told apart, so none of them counts as
a repeat."""


class Transcripts:
    """What one role says, by item and part of it.

    Two parts of one item are two texts; no known model speaks in more than one.
    """

    __slots__ = ("_final", "_partial", "_role")

    def __init__(self, role: Role) -> None:
        self._role: Role = role
        self._partial: dict[str, str] = {}
        self._final = RecentIds(_REMEMBERED)

    def add(self, part: str, delta: str) -> Transcript | None:
        """More of a text; None when that is final already."""
        return self.replace(part, self._partial.get(part, "") + delta)

    def begin_again(self, part: str) -> None:
        """The item of this text is new, although it may reuse the id of an earlier one."""
        self._final.discard(part)

    def begin_all_again(self) -> None:
        """All items from now on are new, whatever their ids."""
        self._final.clear()

    def replace(self, part: str, text: str) -> Transcript | None:
        """All of a text so far; None when that is final already, or this is nothing new."""
        before = self._partial.get(part, "")
        if part in self._final or before == text:
            return None
        self._partial[part] = text
        if len(self._partial) > _MAX_PARTIAL:
            del self._partial[next(iter(self._partial))]
        # Providers may cut text within a surrogate pair: the next piece has the other half.
        whole = mended(text, more=True)
        return Transcript(self._role, whole, False) if whole != mended(before, more=True) else None

    def finish(self, part: str, text: str | None) -> Transcript | None:
        """The whole text, or None if it is what was collected; None when that is final already."""
        collected = mended(self._partial.pop(part, ""))
        if part in self._final:
            return None
        if not part.startswith(NAMELESS):
            self._final.add(part)
        return Transcript(self._role, collected if text is None else text, True)

    def give_up(self, part: str) -> Transcript | None:
        """Nothing more comes of a text: it is what it is, and None when it is nothing."""
        return self.finish(part, None) if self._partial.get(part) else None

    def finish_all(self, *, but: str | None = None) -> list[Transcript]:
        """Nothing more comes, but of one text: those that were left incomplete are what they are."""
        given_up = [self.give_up(part) for part in list(self._partial) if part != but]
        return [transcript for transcript in given_up if transcript is not None]
