"""A text that arrives in pieces, and is emitted as a whole each time."""

from __future__ import annotations

from typing import Final

_LONG: Final = 8192
"""Characters: ten minutes of speech. Emitting a longer text as a whole for each new word would take quadratic
time."""

_STEP: Final = 16
"""A long text is emitted again once it has grown by 1 / `_STEP`."""


class GrowingText:
    """The pieces of one text. Pieces that were not emitted come with a later one, or at the end (`whole`)."""

    __slots__ = ("_emitted", "_pieces", "size")

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []
        self._emitted = len(text)
        self.size: int = len(text)
        """Characters so far."""

    @property
    def long(self) -> bool:
        """Whether the text is too long to be emitted for each piece."""
        return self.size > _LONG

    def add(self, piece: str) -> str | None:
        """Add a piece; return the whole text if it is to be emitted now."""
        self._pieces.append(piece)
        self.size += len(piece)
        if self.long and self.size - self._emitted < self.size // _STEP:
            return None
        self._emitted = self.size
        return self.whole()

    def whole(self) -> str:
        """Return all of the text."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""
