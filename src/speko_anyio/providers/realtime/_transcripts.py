"""The transcripts of one speaker: joins pieces to texts, and completes each text once."""

from __future__ import annotations

from typing import Final, Protocol

from ...protocol._codec import mended
from ...protocol.frames import Role, Transcript
from .._growing_text import GrowingText
from .._recent_ids import RecentIds, drop_oldest

_REMEMBERED: Final = 256
"""Finished texts whose repeats are recognised."""

_MAX_PARTIAL: Final = 64
"""Most incomplete texts of one role; beyond that the oldest is forgotten."""

_NAMELESS: Final = " "
"""The prefix of the names of texts whose item has no id. They can't be told apart, so none of them counts as
a repeat."""


class Transcripts:
    """The texts of one role, by item and part. The methods return the transcript to deliver, if any.

    Two parts of one item are two texts; no known model speaks in more than one.
    """

    __slots__ = ("_final", "_partial", "_role")

    def __init__(self, role: Role) -> None:
        self._role: Role = role
        self._partial: dict[str, GrowingText] = {}
        self._final = RecentIds(_REMEMBERED)

    def begin_again(self, part: str) -> None:
        """Note that this text's item is new, even if it reuses the id of an earlier one."""
        self._final.discard(part)

    def begin_all_again(self) -> None:
        """Note that all items from now on are new, whatever their ids."""
        self._final.clear()

    def add(self, part: str, delta: str) -> list[Transcript]:
        """Continue a text, and return a transcript of all of it, or nothing.

        A long text is returned again only once it has grown by a part of its length. A final text does not
        change.
        """
        if part in self._final or not delta:
            return []
        text = self._partial.get(part)
        if text is None:
            text = self._begin(part, GrowingText())
        whole = text.add(delta)
        if whole is None:
            return []
        # Providers may cut text within a surrogate pair: the next piece has the other half.
        shown = mended(whole, more=True)
        before = mended(whole[: -len(delta)], more=True)
        return [Transcript(self._role, shown, False)] if shown != before else []

    def replace(self, part: str, text: str) -> list[Transcript]:
        """Replace all of a text so far. A final text does not change."""
        before = self._collected(part)
        if part in self._final or before == text:
            return []
        self._begin(part, GrowingText(text))
        whole = mended(text, more=True)
        return [Transcript(self._role, whole, False)] if whole != mended(before, more=True) else []

    def finish(self, part: str, text: str | None) -> list[Transcript]:
        """Complete a text; `text` is all of it, or None if it is what was collected."""
        collected = mended(self._collected(part))
        self._partial.pop(part, None)
        if part in self._final:
            return []
        if not part.startswith(_NAMELESS):
            self._final.add(part)
        return [Transcript(self._role, collected if text is None else text, True)]

    def give_up(self, part: str) -> list[Transcript]:
        """Complete a text that will not continue, unless it is empty."""
        return self.finish(part, None) if self._collected(part) else []

    def finish_all(self, *, but: str | None = None) -> list[Transcript]:
        """Complete every text but one, since the others will not continue."""
        parts = [part for part in self._partial if part != but]
        return [transcript for part in parts for transcript in self.give_up(part)]

    def _begin(self, part: str, text: GrowingText) -> GrowingText:
        self._partial[part] = text
        drop_oldest(self._partial, _MAX_PARTIAL)
        return text

    def _collected(self, part: str) -> str:
        text = self._partial.get(part)
        return "" if text is None else text.whole()


class _Text(Protocol):
    """An event about a part of an item."""

    @property
    def item_id(self) -> str | None: ...

    @property
    def content_index(self) -> int | None: ...


def part_of(event: _Text) -> str:
    """Return the name of a text: its item and its place in it."""
    return f"{event.item_id or ''} {event.content_index or 0}"


def first_part(item_id: str | None) -> str:
    """Return the name of an item's first text: a user's item has no other."""
    return f"{item_id or ''} 0"
